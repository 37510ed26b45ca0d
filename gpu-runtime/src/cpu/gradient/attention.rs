//! Gradients of queries, keys and values, a block of queries at a time; scores are computed again, never stored whole.
//!
//! With P = softmax(S), S = factor · Q Kᵀ, O = P V and G the gradient of O: dV = Pᵀ G, dP = G Vᵀ,
//! dS = P ∘ (dP - rowsum(O ∘ G)), dQ = factor · dS K, dK = factor · dSᵀ Q. Of every row, the logarithm of Σ exp(S) and
//! rowsum(O ∘ G) are computed first (FlashAttention-2, Dao 2023, algorithm 2).

use super::super::attention::{Extents, Rows};
use super::super::matrix::{Matrix, multiply};
use super::super::parallel::map_blocks;
use crate::graph::AttentionPattern;

/// Queries of one block; fixed, so that results do not depend on the number of threads.
const BLOCK_QUERIES: usize = 256;

/// Rows `first + n * step` for `n < count`.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: usize,
    step: usize,
    count: usize,
}

impl Run {
    /// The channels of one head in these rows.
    fn of<'a>(self, rows: Rows<'a>, head: usize, depth: usize) -> Matrix<'a> {
        let data = &rows.data[self.first * rows.stride + head * depth..];
        Matrix::rows(data, self.count, depth, self.step * rows.stride)
    }

    /// Adds dense rows to these rows' channels from `first` on.
    fn add(self, to: &mut [f32], channels: usize, first: usize, dense: &[f32]) {
        let depth = dense.len() / self.count;
        for (n, row) in dense.chunks_exact(depth).enumerate() {
            let to = &mut to[(self.first + n * self.step) * channels + first..][..depth];
            to.iter_mut().zip(row).for_each(|(to, value)| *to += value);
        }
    }
}

/// Which rows of queries look at which rows of keys.
fn runs(Extents { queries, keys, .. }: Extents, pattern: AttentionPattern) -> Vec<[Run; 2]> {
    let (own, seen) = (queries.positions() as usize, keys.positions() as usize);
    let all = queries.frames as usize;
    match pattern {
        AttentionPattern::Temporal { frames } => {
            let frames = frames as usize;
            let at = |clip, position| {
                let first = clip * frames * own + position;
                [Run { first, step: own, count: frames }; 2]
            };
            (0..all / frames).flat_map(|clip| (0..own).map(move |position| at(clip, position))).collect()
        }
        AttentionPattern::Spatial | AttentionPattern::Causal | AttentionPattern::Cross => {
            let first_key = |frame| if pattern == AttentionPattern::Cross { 0 } else { frame * seen };
            let of = |frame| {
                let queries = Run { first: frame * own, step: 1, count: own };
                [queries, Run { first: first_key(frame), step: 1, count: seen }]
            };
            (0..all).map(of).collect()
        }
    }
}

/// An attention, what its result's gradient is, and where the rows of each lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention<'a> {
    pub(super) query: Rows<'a>,
    pub(super) key: Rows<'a>,
    pub(super) value: Rows<'a>,
    pub(super) of_out: Rows<'a>,
    pub(super) extents: Extents,
    pub(super) pattern: AttentionPattern,
    pub(super) threads: usize,
}

/// One head of one run of queries and of the keys that they see.
#[derive(Debug, Clone, Copy)]
struct Unit {
    queries: Run,
    keys: Run,
    head: usize,
}

/// A block of queries of a unit.
struct Block {
    queries: Run,
    /// Queries of the unit before it.
    before: usize,
}

impl Unit {
    fn blocks(self) -> impl Iterator<Item = Block> {
        (0..self.queries.count).step_by(BLOCK_QUERIES).map(move |before| {
            let Run { first, step, count } = self.queries;
            let queries =
                Run { first: first + before * step, step, count: BLOCK_QUERIES.min(count - before) };
            Block { queries, before }
        })
    }
}

impl<'a> Attention<'a> {
    fn depth(&self) -> usize {
        self.query.channels / self.extents.heads
    }

    fn depth_out(&self) -> usize {
        self.value.channels / self.extents.heads
    }

    fn factor(&self) -> f32 {
        1.0 / (self.depth() as f32).sqrt()
    }

    fn units(&self) -> Vec<Unit> {
        let unit =
            |[queries, keys]: [Run; 2]| (0..self.extents.heads).map(move |head| Unit { queries, keys, head });
        runs(self.extents, self.pattern).into_iter().flat_map(unit).collect()
    }

    /// What `compute` gives of every unit, in order.
    fn parts<T: Send>(&self, compute: impl Fn(Unit) -> T + Sync) -> Vec<(Unit, T)> {
        let units = self.units();
        let seen = units.first().map_or(0, |unit| unit.keys.count);
        let work = self.extents.queries.rows() as usize * seen * 3 * self.query.channels;
        let parts = map_blocks(units.len(), self.threads, work as u64, |index| compute(units[index]));
        units.into_iter().zip(parts).collect()
    }

    /// Scores of a block; what a query does not see counts for nothing.
    fn scores(&self, unit: Unit, block: &Block) -> Vec<f32> {
        let (seen, depth) = (unit.keys.count, self.depth());
        let (q, k) =
            (block.queries.of(self.query, unit.head, depth), unit.keys.of(self.key, unit.head, depth));
        let mut scores = vec![0.0; block.queries.count * seen];
        multiply(&mut scores, seen, q, k.transposed(), self.factor(), false);
        if self.pattern == AttentionPattern::Causal {
            for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
                scores[block.before + row + 1..].fill(f32::NEG_INFINITY);
            }
        }
        scores
    }

    /// Shares of a block, and the gradients of its scores.
    fn shares(&self, unit: Unit, block: &Block, rows: &[f32]) -> [Vec<f32>; 2] {
        let seen = unit.keys.count;
        let mut shares = self.scores(unit, block);
        let (g, v) = (self.gradient(unit, block), unit.keys.of(self.value, unit.head, self.depth_out()));
        let mut of_scores = vec![0.0; shares.len()];
        multiply(&mut of_scores, seen, g, v.transposed(), 1.0, false);
        let both = shares.chunks_exact_mut(seen).zip(of_scores.chunks_exact_mut(seen));
        for (row, (shares, of_scores)) in both.enumerate() {
            let at = (block.queries.first + row * block.queries.step) * self.extents.heads + unit.head;
            let (logarithm, dot) = (rows[2 * at], rows[2 * at + 1]);
            for (share, of_score) in shares.iter_mut().zip(of_scores) {
                *share = (*share - logarithm).exp();
                *of_score = *share * (*of_score - dot);
            }
        }
        [shares, of_scores]
    }

    fn gradient(&self, unit: Unit, block: &Block) -> Matrix<'a> {
        block.queries.of(self.of_out, unit.head, self.depth_out())
    }

    /// The two numbers of every row and head.
    pub(super) fn rows(&self, out: &mut [f32], result: &[f32]) {
        let channels = self.of_out.channels;
        let depth = channels / self.extents.heads;
        let parts = self.parts(|unit| {
            let mut logarithms = Vec::with_capacity(unit.queries.count);
            for block in unit.blocks() {
                let scores = self.scores(unit, &block);
                logarithms.extend(scores.chunks_exact(unit.keys.count).map(logarithm_of_sum));
            }
            logarithms
        });
        for (unit, logarithms) in parts {
            for (n, logarithm) in logarithms.into_iter().enumerate() {
                let row = unit.queries.first + n * unit.queries.step;
                let head = row * channels + unit.head * depth..row * channels + (unit.head + 1) * depth;
                let pairs = result[head.clone()].iter().zip(&self.of_out.data[head]);
                let dot: f64 = pairs.map(|(value, gradient)| f64::from(*value) * f64::from(*gradient)).sum();
                let at = 2 * (row * self.extents.heads + unit.head);
                (out[at], out[at + 1]) = (logarithm, dot as f32);
            }
        }
    }

    /// Gradients of the queries, with what [`Self::rows`] wrote.
    pub(super) fn query(&self, out: &mut [f32], rows: &[f32]) {
        let (channels, depth) = (self.query.channels, self.depth());
        let parts = self.parts(|unit| {
            let k = unit.keys.of(self.key, unit.head, depth);
            let mut gradient = vec![0.0; unit.queries.count * depth];
            for block in unit.blocks() {
                let [_, of_scores] = self.shares(unit, &block, rows);
                let of_scores =
                    Matrix::rows(&of_scores, block.queries.count, unit.keys.count, unit.keys.count);
                multiply(&mut gradient[block.before * depth..], depth, of_scores, k, self.factor(), false);
            }
            gradient
        });
        out.fill(0.0);
        for (unit, part) in parts {
            unit.queries.add(out, channels, unit.head * depth, &part);
        }
    }

    /// Gradients of the keys, then of the values, side by side.
    pub(super) fn key_value(&self, out: &mut [f32], rows: &[f32]) {
        let (depth, depth_out) = (self.depth(), self.depth_out());
        let channels = self.key.channels + self.value.channels;
        let parts = self.parts(|unit| {
            let seen = unit.keys.count;
            let (mut of_key, mut of_value) = (vec![0.0; seen * depth], vec![0.0; seen * depth_out]);
            for block in unit.blocks() {
                let [shares, of_scores] = self.shares(unit, &block, rows);
                let matrix = |values| Matrix::rows(values, block.queries.count, seen, seen).transposed();
                let q = block.queries.of(self.query, unit.head, depth);
                multiply(&mut of_key, depth, matrix(&of_scores), q, self.factor(), true);
                multiply(&mut of_value, depth_out, matrix(&shares), self.gradient(unit, &block), 1.0, true);
            }
            [of_key, of_value]
        });
        out.fill(0.0);
        for (unit, [of_key, of_value]) in parts {
            unit.keys.add(out, channels, unit.head * depth, &of_key);
            unit.keys.add(out, channels, self.key.channels + unit.head * depth_out, &of_value);
        }
    }
}

/// ln Σ exp(score).
fn logarithm_of_sum(scores: &[f32]) -> f32 {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|score| f64::from((score - most).exp())).sum();
    most + sum.ln() as f32
}
