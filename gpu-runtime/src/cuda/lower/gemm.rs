//! Convolutions and linear layers: which tile, how many splits of the inner axis.

use super::{Lowering, narrow};
use crate::cuda::arguments::Gemm;
use crate::cuda::{fuse, layout::channels_padded};
use crate::graph::{Op, TensorId, View};

/// Inner elements of a tile (`BK` of `gemm.cu`).
const TILE_INNER: u32 = 64;
/// Rows up to which a linear layer is one warp per column (`linear_few_rows`).
const FEW_ROWS: u32 = fuse::FEW_ROWS as u32;
/// Splits of the inner axis at most; beyond, adding the partial sums costs more than it gains.
const SPLITS_MAX: u32 = 16;
/// Inner tiles a split has at least, to fill the pipeline.
const SPLIT_TILES_MIN: u32 = 4;

/// Nanoseconds of a block outside its main loop: start, first fetch, epilogue. Not measured: a model.
const BLOCK_NS: f64 = 4000.0;
/// Nanoseconds of the launch that adds the splits, and bytes it moves in one. Not measured: a model.
const FINISH_NS: f64 = 3000.0;
const FINISH_BYTES_PER_NS: f64 = 2000.0;
/// How much longer an inner tile takes for a block alone on its multiprocessor than the multiprocessor's own pace:
/// nothing else runs while it waits. Not measured: a model.
const ALONE: f64 = 1.5;

/// One compiled shape of the product.
#[derive(Debug, Clone, Copy)]
struct Tile {
    conv: &'static str,
    linear: &'static str,
    rows: u32,
    columns: u32,
    threads: u32,
    stages: u32,
    /// Nanoseconds that a multiprocessor full of such blocks needs per inner tile. Not measured: floating-point
    /// operations over 600 (wgmma), 400 and 300 (mma.sync, large and small) TFLOP/s of an H100 with 132.
    inner_ns: f64,
    needs_warpgroups: bool,
}

const TILES: [Tile; 4] = [
    Tile {
        conv: "hopper_conv_128x160",
        linear: "hopper_linear_128x160",
        rows: 128,
        columns: 160,
        threads: 256,
        stages: 3,
        inner_ns: 577.0,
        needs_warpgroups: true,
    },
    Tile {
        conv: "hopper_conv_128x128",
        linear: "hopper_linear_128x128",
        rows: 128,
        columns: 128,
        threads: 256,
        stages: 3,
        inner_ns: 461.0,
        needs_warpgroups: true,
    },
    Tile {
        conv: "conv_128x128",
        linear: "linear_128x128",
        rows: 128,
        columns: 128,
        threads: 256,
        stages: 3,
        inner_ns: 692.0,
        needs_warpgroups: false,
    },
    SMALL,
];
const SMALL: Tile = Tile {
    conv: "conv_64x64",
    linear: "linear_64x64",
    rows: 64,
    columns: 64,
    threads: 128,
    stages: 4,
    inner_ns: 231.0,
    needs_warpgroups: false,
};
/// For channels that are no multiple of 8.
const ANY: Tile = Tile { conv: "conv_any", linear: "linear_any", ..SMALL };

/// How one product is computed.
#[derive(Debug, Clone, Copy)]
struct Choice {
    tile: Tile,
    /// Inner tiles of each split.
    tiles_per_split: u32,
    splits: u32,
}

impl Choice {
    /// All splittings of one tile.
    fn all(tile: Tile, inner: u32) -> impl Iterator<Item = Self> {
        let tiles = inner.div_ceil(TILE_INNER);
        (1..=SPLITS_MAX.min((tiles / SPLIT_TILES_MIN).max(1))).map(move |wanted| {
            let tiles_per_split = tiles.div_ceil(wanted);
            Self { tile, tiles_per_split, splits: tiles.div_ceil(tiles_per_split) }
        })
    }

    /// Nanoseconds, by the model of the constants above.
    fn cost_ns(self, rows: u32, columns: u32, processors: u32) -> f64 {
        let blocks = self.tile.blocks(rows, columns) * self.splits;
        let rounds = blocks.div_ceil(processors);
        let pace = if rounds == 1 { ALONE } else { f64::from(rounds) };
        let main = pace * f64::from(self.tiles_per_split) * self.tile.inner_ns + BLOCK_NS;
        let finish = if self.splits > 1 {
            let bytes = f64::from(rows) * f64::from(columns) * 4.0 * f64::from(2 * self.splits);
            FINISH_NS + bytes / FINISH_BYTES_PER_NS
        } else {
            0.0
        };
        main + finish
    }
}

impl Tile {
    fn blocks(self, rows: u32, columns: u32) -> u32 {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    fn shared_bytes(self) -> u32 {
        self.stages * (self.rows + self.columns) * TILE_INNER * 2
    }
}

impl Lowering<'_> {
    /// A convolution or a linear layer; with `gated`, a linear layer whose gated result goes there.
    pub(super) fn gemm(&mut self, op: &Op, gated: Option<TensorId>) {
        let (mut arguments, is_conv) = match op {
            Op::Conv2d { .. } => (self.conv(op), true),
            Op::TemporalConv { .. } => (self.temporal_conv(op), true),
            Op::Linear { .. } => (self.linear(op), false),
            Op::Product { .. } => (self.product(op), false),
            _ => unreachable!("only products come here"),
        };
        if let Some(out) = gated {
            arguments.out = self.at(out);
            arguments.gate = 1;
        }
        let aligned = arguments.channels.is_multiple_of(8);
        if !is_conv && aligned && arguments.rows <= FEW_ROWS {
            let blocks = arguments.columns.div_ceil(8);
            self.launch("linear_few_rows", [blocks, 1, 1], 256, 0, &arguments);
            return;
        }
        let (rows, columns) = (arguments.rows, arguments.columns);
        let tiles: &[Tile] = if aligned { &TILES } else { &[ANY] };
        let choice = tiles
            .iter()
            .filter(|tile| self.target.warpgroups || !tile.needs_warpgroups)
            .flat_map(|&tile| Choice::all(tile, arguments.inner))
            // Gates need whole sums.
            .filter(|choice| gated.is_none() || choice.splits == 1)
            .min_by(|a, b| {
                let cost = |choice: &Choice| choice.cost_ns(rows, columns, self.target.processors);
                cost(a).total_cmp(&cost(b))
            })
            .expect("one tile needs nothing");
        let tile = choice.tile;
        let blocks = tile.blocks(rows, columns);
        arguments.inner_per_split = choice.tiles_per_split * TILE_INNER;
        arguments.splits = choice.splits;
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
        let add_stride = self.add_stride(*channel_add);
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
            add_rows: narrow(to.positions()),
            ..Gemm::default()
        }
    }

    /// Elements from one frame's row to the next of what is added to channels: one row for all frames, or one for each.
    fn add_stride(&self, channel_add: Option<View>) -> u32 {
        channel_add.map_or(0, |view| {
            let table = self.shape(view.tensor);
            // The epilogue reads eight channels at a time.
            assert!(
                view.offset.is_multiple_of(8) && table.channels.is_multiple_of(8),
                "channels added at {view:?}"
            );
            if table.rows() > 1 { table.channels } else { 0 }
        })
    }

    /// A convolution over pictures whose rows are the frames of a clip and whose columns are positions.
    fn temporal_conv(&self, op: &Op) -> Gemm {
        let Op::TemporalConv { out, input, weight, bias, frames, channel_add, residual } = op else {
            unreachable!("called for convolutions across frames")
        };
        let (to, from) = (self.shape(*out), self.shape(*input));
        let padded = channels_padded(from.channels);
        let positions = narrow(from.positions());
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
            inner: 3 * padded,
            channels: from.channels,
            channels_padded: padded,
            in_height: *frames,
            in_width: positions,
            out_height: *frames,
            out_width: positions,
            side: 1,
            stride: 1,
            pad_top: 1,
            channel_add_stride: self.add_stride(*channel_add),
            add_rows: positions,
            ..Gemm::default()
        }
    }

    fn linear(&self, op: &Op) -> Gemm {
        let Op::Linear { out, input, weight, bias, residual } = op else {
            unreachable!("called for linear layers")
        };
        let bias = bias.map_or(0, |id| self.weight(id));
        Gemm { bias, ..self.rows_times(*out, *input, self.weight(*weight), *residual) }
    }

    /// A linear layer whose matrix is a tensor.
    fn product(&self, op: &Op) -> Gemm {
        let Op::Product { out, left, right, residual } = op else { unreachable!("called for products") };
        // Rows of a weight are padded when it is loaded, those of a tensor are not.
        let columns = self.shape(*right).channels;
        assert!(columns.is_multiple_of(8), "{columns} columns of `{}`", self.graph.tensor(*right).name);
        self.rows_times(*out, *left, self.at(*right), *residual)
    }

    fn rows_times(&self, out: TensorId, input: TensorId, matrix: u64, residual: Option<TensorId>) -> Gemm {
        let (to, from) = (self.shape(out), self.shape(input));
        let padded = channels_padded(from.channels);
        Gemm {
            input: self.at(input),
            weight: matrix,
            residual: residual.map_or(0, |id| self.at(id)),
            out: self.at(out),
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
