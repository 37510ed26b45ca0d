//! Attention: which padded head width, and the strides that make one kernel serve every pattern.

use super::{Lowering, narrow};
use crate::cuda::arguments::Attention;
use crate::graph::{AttentionPattern, Op, TensorId, View};

/// One compiled head width.
struct Width {
    /// Padded width of queries and keys.
    width: u32,
    /// Columns of the values that one block computes.
    value_width: u32,
    /// Keys of a tile.
    keys: u32,
    team: [&'static str; 2],
    /// One warp per problem; empty where that is not compiled.
    across: [&'static str; 2],
}

macro_rules! width {
    ($width:literal, $keys:literal) => {
        Width {
            width: $width,
            value_width: $width,
            keys: $keys,
            team: [concat!("attention_", $width), concat!("attention_", $width, "_any")],
            across: [concat!("across_", $width), concat!("across_", $width, "_any")],
        }
    };
}

const WIDTHS: [Width; 8] = [
    width!(16, 64),
    width!(32, 64),
    width!(48, 64),
    width!(64, 64),
    width!(80, 64),
    width!(128, 64),
    width!(160, 32),
    Width {
        width: 512,
        value_width: 128,
        keys: 32,
        team: ["attention_512", "attention_512_any"],
        across: ["", ""],
    },
];

/// Channels of a head at most.
pub(super) const HEAD_WIDTH_MAX: u32 = WIDTHS[WIDTHS.len() - 1].width;

/// Shared memory: queries, then `stages` tiles of keys and values, rows padded by eight elements.
fn shared_bytes(width: &Width, queries: u32, keys: u32, stages: u32) -> u32 {
    2 * ((queries + stages * keys) * (width.width + 8) + stages * keys * (width.value_width + 8))
}

/// Strides of a view, in elements.
pub(super) struct Strides {
    pub(super) token: u32,
    pub(super) position: u32,
    pub(super) outer: u64,
}

/// Extents of an attention: outer batches, inner ones (positions), and rows of each.
#[derive(Clone, Copy)]
pub(super) struct Problem {
    pub(super) outer: u32,
    pub(super) inner: u32,
    pub(super) queries: u32,
    pub(super) keys: u32,
}

impl Lowering<'_> {
    pub(super) fn attention_problem(&self, query: View, key: View, pattern: AttentionPattern) -> Problem {
        let shape = self.shape(query.tensor);
        let positions = narrow(shape.positions());
        match pattern {
            AttentionPattern::Spatial | AttentionPattern::Causal => {
                Problem { outer: shape.frames, inner: 1, queries: positions, keys: positions }
            }
            AttentionPattern::Cross => {
                let keys = narrow(self.shape(key.tensor).positions());
                Problem { outer: shape.frames, inner: 1, queries: positions, keys }
            }
            AttentionPattern::Temporal { frames } => {
                Problem { outer: shape.frames / frames, inner: positions, queries: frames, keys: frames }
            }
        }
    }

    /// Strides of a tensor's rows. With `one_for_all`, all outer batches share one.
    pub(super) fn attention_strides(
        &self,
        tensor: TensorId,
        pattern: AttentionPattern,
        one_for_all: bool,
    ) -> Strides {
        let shape = self.shape(tensor);
        let frame = shape.positions() * u64::from(shape.channels);
        match pattern {
            AttentionPattern::Temporal { frames } => {
                Strides { token: narrow(frame), position: shape.channels, outer: frame * u64::from(frames) }
            }
            _ => Strides { token: shape.channels, position: 0, outer: if one_for_all { 0 } else { frame } },
        }
    }

    pub(super) fn attention(&mut self, op: &Op) {
        let Op::Attention { out, query, key, value, heads, pattern } = op else {
            unreachable!("only attention comes here")
        };
        let Problem { outer, inner, queries, keys } = self.attention_problem(*query, *key, *pattern);
        let shared_keys = matches!(pattern, AttentionPattern::Cross);
        let strides = |tensor, one_for_all| self.attention_strides(tensor, *pattern, one_for_all);
        let (q, k, v) = (
            strides(query.tensor, false),
            strides(key.tensor, shared_keys),
            strides(value.tensor, shared_keys),
        );
        let o = strides(*out, false);
        let head_width = query.channels / heads;
        assert_eq!(value.channels, query.channels, "values as wide as queries");
        let arguments = Attention {
            query: self.at_view(*query),
            key: self.at_view(*key),
            value: self.at_view(*value),
            out: self.at(*out),
            query_outer: q.outer,
            key_outer: k.outer,
            value_outer: v.outer,
            out_outer: o.outer,
            query_token: q.token,
            key_token: k.token,
            value_token: v.token,
            out_token: o.token,
            query_position: q.position,
            key_position: k.position,
            value_position: v.position,
            out_position: o.position,
            positions: inner,
            heads: *heads,
            head_width,
            queries,
            keys,
            causal: u32::from(*pattern == AttentionPattern::Causal),
            scale: std::f32::consts::LOG2_E / (head_width as f32).sqrt(),
            reserved: 0,
        };
        let aligned = head_width.is_multiple_of(8)
            && [query, key, value].iter().all(|view| {
                view.offset.is_multiple_of(8) && self.shape(view.tensor).channels.is_multiple_of(8)
            });
        let width = WIDTHS.iter().find(|width| width.width >= head_width);
        let width =
            width.unwrap_or_else(|| panic!("heads are at most {HEAD_WIDTH_MAX} wide, not {head_width}"));
        let problems = outer * inner * heads;
        let which = usize::from(!aligned);
        if inner > 1 && !width.across[0].is_empty() {
            let grid = [problems, queries.div_ceil(16), 1];
            self.launch(width.across[which], grid, 32, shared_bytes(width, 16, 16, 1), &arguments);
        } else {
            let grid = [problems, queries.div_ceil(64), head_width.div_ceil(width.value_width)];
            self.launch(width.team[which], grid, 128, shared_bytes(width, 64, width.keys, 2), &arguments);
        }
    }
}
