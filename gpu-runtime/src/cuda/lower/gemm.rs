//! Convolutions and linear layers: which tile, how many splits of the inner axis.

use super::{Lowering, narrow};
use crate::cuda::arguments::Gemm;
use crate::cuda::layout::channels_padded;
use crate::graph::Op;

/// Inner elements of a tile (`BK` of `gemm.cu`).
const TILE_INNER: u32 = 64;
/// Rows up to which a linear layer is one warp per column (`linear_few_rows`).
const FEW_ROWS: u32 = 8;
/// Splits of the inner axis at most; beyond, adding the partial sums costs more than it gains.
const SPLITS_MAX: u32 = 16;
/// Inner tiles a split has at least, to fill the pipeline.
const SPLIT_TILES_MIN: u32 = 4;

/// One compiled shape of the product.
#[derive(Clone, Copy)]
struct Tile {
    conv: &'static str,
    linear: &'static str,
    rows: u32,
    columns: u32,
    threads: u32,
    stages: u32,
    /// Blocks that fit on one multiprocessor at once, by registers and shared memory.
    resident: u32,
}

const LARGE: Tile = Tile {
    conv: "conv_128x128",
    linear: "linear_128x128",
    rows: 128,
    columns: 128,
    threads: 256,
    stages: 3,
    resident: 2,
};
const SMALL: Tile = Tile {
    conv: "conv_64x64",
    linear: "linear_64x64",
    rows: 64,
    columns: 64,
    threads: 128,
    stages: 4,
    resident: 3,
};
/// For channels that are no multiple of 8.
const ANY: Tile = Tile { conv: "conv_any", linear: "linear_any", ..SMALL };

impl Tile {
    fn blocks(self, rows: u32, columns: u32) -> u32 {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    fn shared_bytes(self) -> u32 {
        self.stages * (self.rows + self.columns) * TILE_INNER * 2
    }
}

impl Lowering<'_> {
    pub(super) fn gemm(&mut self, op: &Op) {
        let (mut arguments, is_conv) = match op {
            Op::Conv2d { .. } => (self.conv(op), true),
            Op::Linear { .. } => (self.linear(op), false),
            _ => unreachable!("only products come here"),
        };
        let aligned = arguments.channels.is_multiple_of(8);
        if !is_conv && aligned && arguments.rows <= FEW_ROWS {
            let blocks = arguments.columns.div_ceil(8);
            self.launch("linear_few_rows", [blocks, 1, 1], 256, 0, &arguments);
            return;
        }
        let (rows, columns) = (arguments.rows, arguments.columns);
        let tile = if !aligned {
            ANY
        } else if LARGE.blocks(rows, columns) >= self.target.processors {
            LARGE
        } else {
            SMALL
        };
        let blocks = tile.blocks(rows, columns);
        let tiles = arguments.inner.div_ceil(TILE_INNER);
        let wanted = (self.target.processors * tile.resident / blocks).clamp(1, SPLITS_MAX);
        let splits = wanted.min(tiles / SPLIT_TILES_MIN).max(1);
        let tiles_per_split = tiles.div_ceil(splits);
        arguments.inner_per_split = tiles_per_split * TILE_INNER;
        arguments.splits = tiles.div_ceil(tiles_per_split);
        let kernel = if is_conv { tile.conv } else { tile.linear };
        let grid = [blocks, 1, arguments.splits];
        self.launch(kernel, grid, tile.threads, tile.shared_bytes(), &arguments);
        if arguments.splits > 1 {
            let elements = u64::from(rows) * u64::from(columns);
            self.need_workspace(elements * 4 * u64::from(arguments.splits));
            if columns.is_multiple_of(8) {
                self.launch_flat("split_finish_8", elements, 8, &arguments);
            } else {
                self.launch_flat("split_finish_1", elements, 1, &arguments);
            }
        }
    }

    fn conv(&self, op: &Op) -> Gemm {
        let Op::Conv2d { out, input, weight, bias, kernel, stride, pad, upsample, channel_add, residual } =
            op
        else {
            unreachable!("called for convolutions")
        };
        let (to, from) = (self.shape(*out), self.shape(*input));
        let padded = channels_padded(from.channels);
        // One row for all frames, or one row for each.
        let add_stride = channel_add.map_or(0, |view| {
            let table = self.shape(view.tensor);
            // The epilogue reads eight channels at a time.
            assert!(
                view.offset.is_multiple_of(8) && table.channels.is_multiple_of(8),
                "channels added at {view:?}"
            );
            if table.rows() > 1 { table.channels } else { 0 }
        });
        Gemm {
            input: self.at(*input),
            weight: self.weight(*weight),
            bias: bias.map_or(0, |id| self.weight(id)),
            channel_add: channel_add.map_or(0, |view| self.at_view(view)),
            residual: residual.map_or(0, |id| self.at(id)),
            out: self.at(*out),
            partial: self.addresses.workspace,
            rows: narrow(to.rows()),
            columns: to.channels,
            inner: kernel * kernel * padded,
            channels: from.channels,
            channels_padded: padded,
            in_height: from.height,
            in_width: from.width,
            out_height: to.height,
            out_width: to.width,
            side: *kernel,
            stride: *stride,
            pad_top: pad.top,
            pad_left: pad.left,
            doubling: u32::from(*upsample),
            channel_add_stride: add_stride,
            ..Gemm::default()
        }
    }

    fn linear(&self, op: &Op) -> Gemm {
        let Op::Linear { out, input, weight, bias, residual } = op else {
            unreachable!("called for linear layers")
        };
        let (to, from) = (self.shape(*out), self.shape(*input));
        let padded = channels_padded(from.channels);
        Gemm {
            input: self.at(*input),
            weight: self.weight(*weight),
            bias: bias.map_or(0, |id| self.weight(id)),
            residual: residual.map_or(0, |id| self.at(id)),
            out: self.at(*out),
            partial: self.addresses.workspace,
            rows: narrow(to.rows()),
            columns: to.channels,
            inner: padded,
            channels: from.channels,
            channels_padded: padded,
            in_height: 1,
            in_width: 1,
            out_height: 1,
            out_width: 1,
            side: 1,
            stride: 1,
            ..Gemm::default()
        }
    }
}
