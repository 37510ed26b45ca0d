//! Gradients of attention: which padded head width, how many splits of the queries.

use super::Lowering;
use super::attention::Problem;
use crate::cuda::arguments::AttentionGradients;
use crate::graph::{AttentionGradient, AttentionPattern, Gradient, TensorId, View};

/// One compiled head width.
struct Width {
    /// Padded width of queries, keys and values.
    width: u32,
    /// Columns of a gradient that one block computes.
    columns: u32,
    /// Keys of a tile in kernels of four warps.
    keys: u32,
    /// By rows of a block: four warps, one warp, one warp with rows that begin anywhere.
    rows: [&'static str; 3],
    query: [&'static str; 3],
    key_value: [&'static str; 3],
}

macro_rules! width {
    ($width:literal, $columns:literal, $keys:literal) => {
        Width {
            width: $width,
            columns: $columns,
            keys: $keys,
            rows: width!("attention_rows_", $width),
            query: width!("attention_query_", $width),
            key_value: width!("attention_key_value_", $width),
        }
    };
    ($name:literal, $width:literal) => {
        [concat!($name, $width), concat!($name, $width, "_1"), concat!($name, $width, "_any")]
    };
}

/// Those of `attention_gradient.cu`.
const WIDTHS: [Width; 7] = [
    width!(16, 16, 64),
    width!(32, 32, 64),
    width!(48, 48, 64),
    width!(64, 64, 64),
    width!(80, 80, 64),
    width!(128, 64, 32),
    width!(160, 80, 32),
];

/// Channels of a trained head at most.
pub(super) const TRAINED_HEAD_WIDTH_MAX: u32 = WIDTHS[WIDTHS.len() - 1].width;

/// Queries of a tile in `attention_key_value` with four warps.
const TILE_QUERIES: u32 = 32;
/// Keys and queries of a tile in kernels of one warp.
const TILE_ONE: u32 = 16;
/// Splits of the queries at most, and tiles that each has at least.
const SPLITS_MAX: u32 = 32;
const SPLIT_TILES_MIN: u32 = 4;

/// How a launch is cut.
struct Cut {
    which: usize,
    warps: u32,
}

impl Cut {
    fn new(aligned: bool, rows: u32) -> Self {
        match (aligned, rows) {
            (false, _) => Self { which: 2, warps: 1 },
            (true, ..=16) => Self { which: 1, warps: 1 },
            (true, _) => Self { which: 0, warps: 4 },
        }
    }

    fn rows(&self) -> u32 {
        16 * self.warps
    }
}

impl Lowering<'_> {
    pub(super) fn attention_gradient(&mut self, gradient: &Gradient) {
        match gradient {
            Gradient::AttentionRows { out, query, key, result, of_out, heads, pattern } => {
                let of = AttentionGradient {
                    query: *query,
                    key: *key,
                    value: *key,
                    of_out: *of_out,
                    rows: *out,
                    heads: *heads,
                    pattern: *pattern,
                };
                self.attention_rows(&of, *result);
            }
            Gradient::AttentionQuery { out, of } => self.attention_query(*out, of),
            Gradient::AttentionKeyValue { out, of } => self.attention_key_value(*out, of),
            _ => unreachable!("only attention comes here"),
        }
    }

    fn attention_rows(&mut self, of: &AttentionGradient, result: TensorId) {
        let problem = self.attention_problem(of.query, of.key, of.pattern);
        let (width, cut) = self.width(of, problem.queries);
        let arguments =
            AttentionGradients { result: self.at(result), ..self.attention_arguments(of, problem) };
        let keys = if cut.warps == 1 { TILE_ONE } else { width.keys };
        let shared = 2 * (cut.rows() + keys) * (width.width + 8);
        let grid = [problem.outer * problem.inner * of.heads, problem.queries.div_ceil(cut.rows()), 1];
        self.launch(width.rows[cut.which], grid, 32 * cut.warps, shared, &arguments);
    }

    fn attention_query(&mut self, out: TensorId, of: &AttentionGradient) {
        let problem = self.attention_problem(of.query, of.key, of.pattern);
        let (width, cut) = self.width(of, problem.queries);
        let to = self.attention_strides(out, of.pattern, false);
        let arguments = AttentionGradients {
            out: self.at(out),
            out_outer: to.outer,
            out_token: to.token,
            out_position: to.position,
            ..self.attention_arguments(of, problem)
        };
        let keys = if cut.warps == 1 { TILE_ONE } else { width.keys };
        let shared = 2 * 2 * (cut.rows() + keys) * (width.width + 8);
        let slices = arguments.head_width.div_ceil(width.columns);
        let grid = [problem.outer * problem.inner * of.heads, problem.queries.div_ceil(cut.rows()), slices];
        self.launch(width.query[cut.which], grid, 32 * cut.warps, shared, &arguments);
    }

    fn attention_key_value(&mut self, out: TensorId, of: &AttentionGradient) {
        let cross = of.pattern == AttentionPattern::Cross;
        let problem = self.attention_problem(of.query, of.key, of.pattern);
        let (width, cut) = self.width(of, problem.keys);
        // Keys that all frames see are one outer batch, whose queries are of all frames.
        let (outer, frames) = if cross { (1, problem.outer) } else { (problem.outer, 1) };
        let to = self.attention_strides(out, of.pattern, cross);
        let tile = if cut.warps == 1 { TILE_ONE } else { TILE_QUERIES };
        let tiles = frames * problem.queries.div_ceil(tile);
        let slices = (of.query.channels / of.heads).div_ceil(width.columns);
        let blocks = outer * problem.inner * of.heads * problem.keys.div_ceil(cut.rows()) * slices;
        let wanted = (2 * self.target.processors).div_ceil(blocks).clamp(1, SPLITS_MAX);
        let split_tiles = tiles.div_ceil(wanted.min((tiles / SPLIT_TILES_MIN).max(1)));
        let splits = tiles.div_ceil(split_tiles);
        let elements = self.shape(out).elements();
        let arguments = AttentionGradients {
            out: self.at(out),
            out_outer: to.outer,
            out_token: to.token,
            out_position: to.position,
            frames,
            value_first: of.key.channels,
            splits,
            split_tiles,
            partial: self.addresses.workspace,
            elements,
            ..self.attention_arguments(of, problem)
        };
        let shared = 2 * 2 * (cut.rows() + tile) * (width.width + 8) + 8 * tile;
        let grid = [outer * problem.inner * of.heads, problem.keys.div_ceil(cut.rows()), splits * slices];
        self.launch(width.key_value[cut.which], grid, 32 * cut.warps, shared, &arguments);
        if splits > 1 {
            self.sum_splits(arguments.out, elements, splits, false);
        }
    }

    /// The compiled width, and how rows are cut.
    fn width(&self, of: &AttentionGradient, rows: u32) -> (&'static Width, Cut) {
        let head_width = of.query.channels / of.heads;
        assert_eq!(of.value.channels, of.query.channels, "values as wide as queries");
        let width = WIDTHS.iter().find(|width| width.width >= head_width);
        let width = width.unwrap_or_else(|| {
            panic!("trained heads are at most {TRAINED_HEAD_WIDTH_MAX} wide, not {head_width}")
        });
        let begins_well =
            |view: &View| view.offset.is_multiple_of(8) && self.shape(view.tensor).channels.is_multiple_of(8);
        let aligned = head_width.is_multiple_of(8) && [of.query, of.key, of.value].iter().all(begins_well);
        (width, Cut::new(aligned, rows))
    }

    fn attention_arguments(&self, of: &AttentionGradient, problem: Problem) -> AttentionGradients {
        let AttentionGradient { query, key, value, of_out, rows, heads, pattern } = *of;
        let shared_keys = pattern == AttentionPattern::Cross;
        let strides = |tensor, one_for_all| self.attention_strides(tensor, pattern, one_for_all);
        let (q, k, v) = (
            strides(query.tensor, false),
            strides(key.tensor, shared_keys),
            strides(value.tensor, shared_keys),
        );
        let (o, r) = (strides(of_out, false), strides(rows, false));
        let head_width = query.channels / heads;
        let factor = 1.0 / (head_width as f32).sqrt();
        AttentionGradients {
            query: self.at_view(query),
            key: self.at_view(key),
            value: self.at_view(value),
            of_out: self.at(of_out),
            rows: self.at_single(rows),
            query_outer: q.outer,
            key_outer: k.outer,
            value_outer: v.outer,
            result_outer: o.outer,
            rows_outer: r.outer,
            query_token: q.token,
            key_token: k.token,
            value_token: v.token,
            result_token: o.token,
            rows_token: r.token,
            query_position: q.position,
            key_position: k.position,
            value_position: v.position,
            result_position: o.position,
            rows_position: r.position,
            positions: problem.inner,
            heads,
            head_width,
            queries: problem.queries,
            keys: problem.keys,
            causal: u32::from(pattern == AttentionPattern::Causal),
            frames: 1,
            splits: 1,
            scale: std::f32::consts::LOG2_E * factor,
            factor,
            ..AttentionGradients::default()
        }
    }
}
