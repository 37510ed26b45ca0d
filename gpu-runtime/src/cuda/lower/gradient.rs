//! Operations of the way back, but for norms and attention.

use super::elementwise::number_of;
use super::{Lowering, narrow};
use crate::cuda::arguments::{GradientRows, MatrixGradient, SplitSums};
use crate::graph::{Gradient, Shape, TensorId};

/// Rows and columns of the tile of a matrix's gradient that one block computes, and rows of the operands it adds at once.
const TILE: u32 = 64;
/// Shared memory of a block: two stages of two such tiles, rows padded by eight elements.
const MATRIX_SHARED_BYTES: u32 = 2 * 2 * TILE * (TILE + 8) * 2;
/// Splits of the rows at most, and tiles of rows that each has at least.
const SPLITS_MAX: u32 = 64;
const SPLIT_TILES_MIN: u32 = 4;

impl Lowering<'_> {
    pub(super) fn gradient(&mut self, gradient: &Gradient) {
        match gradient {
            Gradient::GroupNorm { .. } | Gradient::LayerNorm { .. } => self.norm_gradient(gradient),
            Gradient::AttentionRows { .. }
            | Gradient::AttentionQuery { .. }
            | Gradient::AttentionKeyValue { .. } => self.attention_gradient(gradient),
            Gradient::Geglu { out, of_out, input } => {
                let shape = self.shape(*of_out);
                let arguments = GradientRows {
                    of_out: self.at(*of_out),
                    input: self.at(*input),
                    ..self.rows_of(*out, shape)
                };
                self.launch_rows(["geglu_gradient_8", "geglu_gradient_1"], true, shape, &arguments);
            }
            Gradient::Activation { out, of_out, input, function } => {
                let shape = self.shape(*out);
                let arguments = GradientRows {
                    of_out: self.at(*of_out),
                    input: self.at(*input),
                    function: number_of(*function),
                    ..self.rows_of(*out, shape)
                };
                let kernels = ["activation_gradient_8", "activation_gradient_1"];
                self.launch_rows(kernels, true, shape, &arguments);
            }
            Gradient::Spread { out, input } => {
                let shape = self.shape(*out);
                let arguments = GradientRows { input: self.at(*input), ..self.rows_of(*out, shape) };
                self.launch_rows(["spread_8", "spread_1"], true, shape, &arguments);
            }
            Gradient::SumOfFour { out, input } => {
                let shape = self.shape(*out);
                let arguments = GradientRows { input: self.at(*input), ..self.rows_of(*out, shape) };
                self.launch_rows(["sum_of_four_8", "sum_of_four_1"], true, shape, &arguments);
            }
            Gradient::Channels { out, input } => {
                let (shape, stride) = (self.shape(*out), self.shape(input.tensor).channels);
                let arguments =
                    GradientRows { input: self.at_view(*input), stride, ..self.rows_of(*out, shape) };
                let wide = stride.is_multiple_of(8) && input.offset.is_multiple_of(8);
                self.launch_rows(["channels_8", "channels_1"], wide, shape, &arguments);
            }
            Gradient::Matrix { out, left, right } => self.matrix_gradient(*out, *left, *right),
        }
    }

    fn rows_of(&self, out: TensorId, shape: Shape) -> GradientRows {
        GradientRows {
            out: self.at(out),
            rows: shape.rows(),
            channels: shape.channels,
            height: shape.height,
            width: shape.width,
            ..GradientRows::default()
        }
    }

    fn matrix_gradient(&mut self, out: TensorId, left: TensorId, right: TensorId) {
        let (rows, columns) = (self.shape(left), self.shape(right));
        let tiles = [columns.channels, rows.channels].map(|channels| channels.div_ceil(TILE));
        let row_tiles = narrow(rows.rows()).div_ceil(TILE);
        // Two blocks for each multiprocessor keep the device busy.
        let wanted = (2 * self.target.processors).div_ceil(tiles[0] * tiles[1]);
        let splits = wanted.clamp(1, SPLITS_MAX).min((row_tiles / SPLIT_TILES_MIN).max(1));
        let split_tiles = row_tiles.div_ceil(splits);
        let splits = row_tiles.div_ceil(split_tiles);
        let arguments = MatrixGradient {
            left: self.at(left),
            right: self.at(right),
            out: self.at_single(out),
            partial: self.addresses.workspace,
            rows: narrow(rows.rows()),
            left_channels: rows.channels,
            right_channels: columns.channels,
            split_rows: split_tiles * TILE,
            splits,
            reserved: 0,
        };
        let aligned = rows.channels.is_multiple_of(8) && columns.channels.is_multiple_of(8);
        let kernel = if aligned { "matrix_64" } else { "matrix_64_any" };
        self.launch(kernel, [tiles[0], tiles[1], splits], 128, MATRIX_SHARED_BYTES, &arguments);
        if splits > 1 {
            self.sum_splits(arguments.out, self.shape(out).elements(), splits, true);
        }
    }

    /// Adds the parts of a result in the workspace.
    pub(super) fn sum_splits(&mut self, out: u64, elements: u64, splits: u32, single: bool) {
        self.need_workspace(elements * 4 * u64::from(splits));
        let partial = self.addresses.workspace;
        let arguments = SplitSums { partial, out, elements, splits, single: u32::from(single) };
        self.launch_flat("split_sums", elements, 1, &arguments);
    }
}
