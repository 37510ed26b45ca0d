//! Gradients of queries, keys and values, a block of queries at a time; scores are computed again, never stored whole.
//!
//! With P = softmax(S), S = factor · Q Kᵀ, O = P V and G the gradient of O: dV = Pᵀ G, dP = G Vᵀ,
//! dS = P ∘ (dP - rowsum(dP ∘ P)), dQ = factor · dS K, dK = factor · dSᵀ Q.

use crate::cpu::{Matrix, map_blocks, multiply};
use crate::graph::{AttentionPattern, Shape};

/// Queries of one block; fixed, so that results do not depend on the number of threads.
const BLOCK_QUERIES: usize = 256;

/// Rows of channels within a tensor: row r begins at `data[r * stride]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
    pub(super) channels: usize,
}

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

    /// Adds dense rows to these rows' channels of one head.
    fn add(self, to: &mut [f32], channels: usize, head: usize, dense: &[f32]) {
        let depth = dense.len() / self.count;
        for (n, row) in dense.chunks_exact(depth).enumerate() {
            let to = &mut to[(self.first + n * self.step) * channels + head * depth..][..depth];
            to.iter_mut().zip(row).for_each(|(to, value)| *to += value);
        }
    }
}

/// Which rows of queries look at which rows of keys.
fn runs([queries, keys]: [Shape; 2], pattern: AttentionPattern) -> Vec<[Run; 2]> {
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

/// Gradients of queries, keys and values, each dense over all rows of its tensor.
pub(super) fn attention(
    of_out: &[f32],
    rows: [Rows<'_>; 3],
    shapes: [Shape; 2],
    heads: usize,
    pattern: AttentionPattern,
    threads: usize,
) -> [Vec<f32>; 3] {
    let [queries, keys] = shapes.map(|shape| shape.rows() as usize);
    let channels = rows.map(|rows| rows.channels);
    let mut gradients = [queries * channels[0], keys * channels[1], keys * channels[2]].map(|n| vec![0.0; n]);
    let runs = runs(shapes, pattern);
    let of_out = Rows { data: of_out, stride: channels[2], channels: channels[2] };
    let keys_seen = runs.first().map_or(0, |[_, keys]| keys.count);
    let work = (queries * keys_seen * 3 * channels[0]) as u64;
    let causal = pattern == AttentionPattern::Causal;
    let parts = map_blocks(runs.len() * heads, threads, work, |unit| {
        one_head(of_out, rows, runs[unit / heads], unit % heads, heads, causal)
    });
    for (unit, parts) in parts.iter().enumerate() {
        let ([queries, keys], head) = (runs[unit / heads], unit % heads);
        for (((to, part), run), channels) in
            gradients.iter_mut().zip(parts).zip([queries, keys, keys]).zip(channels)
        {
            run.add(to, channels, head, part);
        }
    }
    gradients
}

/// Dense gradients of the queries, keys and values of one head.
fn one_head(
    of_out: Rows<'_>,
    [query, key, value]: [Rows<'_>; 3],
    [queries, keys]: [Run; 2],
    head: usize,
    heads: usize,
    causal: bool,
) -> [Vec<f32>; 3] {
    let (depth, depth_out) = (query.channels / heads, value.channels / heads);
    let factor = 1.0 / (depth as f32).sqrt();
    let (k, v) = (keys.of(key, head, depth), keys.of(value, head, depth_out));
    let seen = keys.count;
    let mut of_query = vec![0.0; queries.count * depth];
    let (mut of_key, mut of_value) = (vec![0.0; seen * depth], vec![0.0; seen * depth_out]);
    for (block, of_query) in of_query.chunks_mut(BLOCK_QUERIES * depth).enumerate() {
        let before = block * BLOCK_QUERIES;
        let count = of_query.len() / depth;
        let run = Run { first: queries.first + before * queries.step, count, ..queries };
        let (q, g) = (run.of(query, head, depth), run.of(of_out, head, depth_out));
        let mut shares = vec![0.0; count * seen];
        multiply(&mut shares, seen, q, k.transposed(), factor, false);
        for (row, shares) in shares.chunks_exact_mut(seen).enumerate() {
            let visible = if causal { before + row + 1 } else { seen };
            shares[visible..].fill(0.0);
            softmax(&mut shares[..visible]);
        }
        let mut of_scores = vec![0.0; count * seen];
        multiply(&mut of_scores, seen, g, v.transposed(), 1.0, false);
        for (gradients, shares) in of_scores.chunks_exact_mut(seen).zip(shares.chunks_exact(seen)) {
            let pairs = gradients.iter().zip(shares);
            let mean: f64 = pairs.map(|(gradient, share)| f64::from(*gradient) * f64::from(*share)).sum();
            for (gradient, share) in gradients.iter_mut().zip(shares) {
                *gradient = share * (*gradient - mean as f32);
            }
        }
        let shares = Matrix::rows(&shares, count, seen, seen);
        let of_scores = Matrix::rows(&of_scores, count, seen, seen);
        multiply(&mut of_value, depth_out, shares.transposed(), g, 1.0, true);
        multiply(of_query, depth, of_scores, k, factor, false);
        multiply(&mut of_key, depth, of_scores.transposed(), q, factor, true);
    }
    [of_query, of_key, of_value]
}

/// exp(x - max) / Σ, in place.
fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f64;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += f64::from(*score);
    }
    let inverse = (1.0 / sum) as f32;
    scores.iter_mut().for_each(|score| *score *= inverse);
}
