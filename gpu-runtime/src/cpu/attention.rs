//! Attention, a block of queries at a time, so that memory does not grow with queries × keys.

use super::matrix::{Matrix, multiply};
use super::parallel::for_blocks;
use crate::graph::{AttentionPattern, Shape};

/// Queries of one block; fixed, so that results do not depend on the number of threads.
const BLOCK_QUERIES: usize = 64;

/// Rows of channels within a tensor: row r begins at `data[r * stride]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    /// From the first row's first channel on.
    pub(super) data: &'a [f32],
    /// Elements from one row to the next.
    pub(super) stride: usize,
    /// Channels of each row.
    pub(super) channels: usize,
}

/// Extents of one attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extents {
    /// Of the queries' tensor; channels do not count.
    pub(super) queries: Shape,
    /// Of the keys' tensor; channels do not count.
    pub(super) keys: Shape,
    /// Number of heads.
    pub(super) heads: usize,
}

/// softmax(query · keyᵀ / sqrt(channels of a head)) · value for each head; rows of `out` are dense.
pub(super) fn attention(
    out: &mut [f32],
    [query, key, value]: [Rows; 3],
    extents: Extents,
    pattern: AttentionPattern,
    threads: usize,
) {
    if let AttentionPattern::Temporal { frames } = pattern {
        temporal(out, [query, key, value], extents, frames as usize, threads);
        return;
    }
    let Extents { queries, keys, heads } = extents;
    let (channels, channels_out) = (query.channels, value.channels);
    let (own, seen) = (queries.positions() as usize, keys.positions() as usize);
    let (depth, depth_out) = (channels / heads, channels_out / heads);
    let factor = 1.0 / (depth as f32).sqrt();
    let work = queries.rows() * seen as u64 * (channels + channels_out) as u64;
    // Blocks do not cross frames: one frame after the other, blocks of its queries in parallel.
    for (frame, out) in out.chunks_exact_mut(own * channels_out).enumerate() {
        let keys_from = if pattern == AttentionPattern::Cross { 0 } else { frame * seen };
        let work = work / u64::from(queries.frames);
        for_blocks(out, BLOCK_QUERIES * channels_out, threads, work, |index, block| {
            let rows = block.len() / channels_out;
            let first = index * BLOCK_QUERIES;
            let mut scores = vec![0.0; rows * seen];
            for head in 0..heads {
                let q = &query.data[(frame * own + first) * query.stride + head * depth..];
                let k = &key.data[keys_from * key.stride + head * depth..];
                let v = &value.data[keys_from * value.stride + head * depth_out..];
                let q = Matrix::rows(q, rows, depth, query.stride);
                let k = Matrix::rows(k, seen, depth, key.stride);
                multiply(&mut scores, seen, q, k.transposed(), factor, false);
                for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
                    let visible = if pattern == AttentionPattern::Causal { first + row + 1 } else { seen };
                    scores[visible..].fill(0.0);
                    softmax(&mut scores[..visible]);
                }
                let v = Matrix::rows(v, seen, depth_out, value.stride);
                let scores = Matrix::rows(&scores, rows, seen, seen);
                multiply(&mut block[head * depth_out..], channels_out, scores, v, 1.0, false);
            }
        });
    }
}

/// Each position sees itself in the frames of its clip; rows are read with a stride of one frame.
fn temporal(
    out: &mut [f32],
    [query, key, value]: [Rows; 3],
    extents: Extents,
    frames: usize,
    threads: usize,
) {
    let Extents { queries, heads, .. } = extents;
    let (channels, channels_out) = (query.channels, value.channels);
    let positions = queries.positions() as usize;
    let (depth, depth_out) = (channels / heads, channels_out / heads);
    let factor = 1.0 / (depth as f32).sqrt();
    let work = queries.rows() * (frames * (channels + channels_out)) as u64;
    for_blocks(out, BLOCK_QUERIES * channels_out, threads, work, |index, block| {
        let mut scores = vec![0.0; frames];
        for (row, out) in block.chunks_exact_mut(channels_out).enumerate() {
            let row = index * BLOCK_QUERIES + row;
            let position = row % positions;
            let clip = row / positions / frames * frames;
            let seen = |frame: usize| (clip + frame) * positions + position;
            for head in 0..heads {
                let q = &query.data[row * query.stride + head * depth..][..depth];
                for (frame, score) in scores.iter_mut().enumerate() {
                    let k = &key.data[seen(frame) * key.stride + head * depth..][..depth];
                    *score = factor * q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>();
                }
                softmax(&mut scores);
                let out = &mut out[head * depth_out..][..depth_out];
                out.fill(0.0);
                for (frame, &score) in scores.iter().enumerate() {
                    let v = &value.data[seen(frame) * value.stride + head * depth_out..][..depth_out];
                    out.iter_mut().zip(v).for_each(|(out, v)| *out += score * v);
                }
            }
        }
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    /// All patterns against the definition, over merged rows with a stride.
    #[test]
    fn patterns_match_the_definition() {
        let value = |n: usize| ((n * 29 % 31) as f32 - 15.0) / 9.0;
        let (channels, heads) = (6, 2);
        let queries = Shape::new(4, 2, 3, 1);
        for pattern in [
            AttentionPattern::Spatial,
            AttentionPattern::Causal,
            AttentionPattern::Cross,
            AttentionPattern::Temporal { frames: 2 },
        ] {
            let keys = if pattern == AttentionPattern::Cross { Shape::new(1, 1, 5, 1) } else { queries };
            let q: Vec<f32> = (0..24 * 18).map(value).collect();
            let kv: Vec<f32> = (0..keys.rows() as usize * 18).map(|n| value(n + 7)).collect();
            let rows = [
                Rows { data: &q, stride: 18, channels },
                Rows { data: &kv[6..], stride: 18, channels },
                Rows { data: &kv[12..], stride: 18, channels },
            ];
            let extents = Extents { queries, keys, heads };
            let mut out = vec![f32::NAN; 24 * channels];
            attention(&mut out, rows, extents, pattern, 2);
            for (row, head) in (0..24).flat_map(|row| (0..heads).map(move |head| (row, head))) {
                let visible: Vec<usize> = match pattern {
                    AttentionPattern::Spatial => (row / 6 * 6..row / 6 * 6 + 6).collect(),
                    AttentionPattern::Causal => (row / 6 * 6..=row).collect(),
                    AttentionPattern::Cross => (0..5).collect(),
                    AttentionPattern::Temporal { frames } => {
                        let clip = row / 12 * 12;
                        (0..frames as usize).map(|frame| clip + frame * 6 + row % 6).collect()
                    }
                };
                let exp: Vec<f64> = visible
                    .iter()
                    .map(|&k| {
                        let dot: f64 = (0..3)
                            .map(|c| f64::from(q[row * 18 + head * 3 + c] * kv[k * 18 + 6 + head * 3 + c]))
                            .sum();
                        (dot / 3f64.sqrt()).exp()
                    })
                    .collect();
                for c in 0..3 {
                    let sum: f64 = visible
                        .iter()
                        .zip(&exp)
                        .map(|(&k, e)| e * f64::from(kv[k * 18 + 12 + head * 3 + c]))
                        .sum();
                    let expected = sum / exp.iter().sum::<f64>();
                    let got = f64::from(out[row * channels + head * 3 + c]);
                    assert!((got - expected).abs() < 1e-5, "{pattern:?} row {row}: {got} {expected}");
                }
            }
        }
    }
}
