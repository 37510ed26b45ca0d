//! Convolutions: patches of the picture become rows of a matrix, block by block.

use super::matrix::{Matrix, fill, multiply};
use super::parallel::for_blocks;
use crate::graph::{Pad, Shape};

/// Most elements of one block's patches (4 MiB): fixed, so that results do not depend on the number of threads.
const PATCH_ELEMENTS: usize = 1 << 20;

/// Shapes and options of one convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Of the input.
    pub(super) from: Shape,
    /// Of the output.
    pub(super) to: Shape,
    /// Side of the kernel.
    pub(super) kernel: u32,
    /// Step.
    pub(super) stride: u32,
    /// Zeros around.
    pub(super) pad: Pad,
    /// Doubles both sides first.
    pub(super) upsample: bool,
}

/// What is added to a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Added<'a> {
    /// `[channels]`.
    pub(super) bias: Option<&'a [f32]>,
    /// First element of the channels to add, and the elements from one frame to the next (0 for one row).
    pub(super) per_frame: Option<(&'a [f32], usize)>,
    /// Same elements as the output.
    pub(super) residual: Option<&'a [f32]>,
}

/// out = conv(input) + what is added; `weight` is `[out, kernel, kernel, in]`.
pub(super) fn conv(
    out: &mut [f32],
    input: &[f32],
    weight: &[f32],
    g: Geometry,
    added: Added,
    threads: usize,
) {
    let extents =
        [g.to.channels as usize, (g.kernel * g.kernel * g.from.channels) as usize, g.to.positions() as usize];
    over_patches(out, weight, extents, added, threads, |patch, row| fill_patch(patch, input, g, row));
}

/// The product of patches and weight, block by block: `patch_of(patch, row)` gathers the inputs of one output row.
fn over_patches(
    out: &mut [f32],
    weight: &[f32],
    [columns, depth, positions]: [usize; 3],
    added: Added,
    threads: usize,
    patch_of: impl Fn(&mut [f32], usize) + Sync,
) {
    let rows_most = (PATCH_ELEMENTS / depth).clamp(1, 1024);
    let work = out.len() as u64 * depth as u64;
    for_blocks(out, rows_most * columns, threads, work, |index, block| {
        let rows = block.len() / columns;
        let first = index * rows_most;
        fill(block, added.bias, added.residual.map(|all| &all[first * columns..][..block.len()]), columns);
        if let Some((values, frame_stride)) = added.per_frame {
            for (row, values_out) in block.chunks_exact_mut(columns).enumerate() {
                let frame = (first + row) / positions;
                let values = &values[frame * frame_stride..][..columns];
                values_out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
            }
        }
        let mut patches = vec![0.0; rows * depth];
        for (row, patch) in patches.chunks_exact_mut(depth).enumerate() {
            patch_of(patch, first + row);
        }
        let left = Matrix::rows(&patches, rows, depth, depth);
        multiply(block, columns, left, Matrix::rows(weight, columns, depth, depth).transposed(), 1.0, true);
    });
}

/// out = conv across frames(input) + what is added; `weight` is `[out, 3, in]`, clips are runs of `frames` frames.
pub(super) fn temporal_conv(
    out: &mut [f32],
    input: &[f32],
    weight: &[f32],
    [from, to]: [Shape; 2],
    frames: usize,
    added: Added,
    threads: usize,
) {
    let (channels, positions) = (from.channels as usize, from.positions() as usize);
    over_patches(
        out,
        weight,
        [to.channels as usize, 3 * channels, positions],
        added,
        threads,
        |patch, row| {
            let frame = row / positions % frames;
            for (tap, cell) in patch.chunks_exact_mut(channels).enumerate() {
                if (1..=frames).contains(&(frame + tap)) {
                    cell.copy_from_slice(
                        &input[(row + tap * positions - positions) * channels..][..channels],
                    );
                } else {
                    cell.fill(0.0);
                }
            }
        },
    );
}

/// The inputs under the kernel at one output position; zeros beyond the border.
fn fill_patch(patch: &mut [f32], input: &[f32], g: Geometry, row: usize) {
    let channels = g.from.channels as usize;
    let (width, positions) = (g.to.width as usize, g.to.positions() as usize);
    let (frame, position) = (row / positions, row % positions);
    let scale = if g.upsample { 2 } else { 1 };
    let corner_y = (position / width) as i64 * i64::from(g.stride) - i64::from(g.pad.top);
    let corner_x = (position % width) as i64 * i64::from(g.stride) - i64::from(g.pad.left);
    let side = i64::from(g.kernel);
    for (tap, cell) in patch.chunks_exact_mut(channels).enumerate() {
        let y = corner_y + tap as i64 / side;
        let x = corner_x + tap as i64 % side;
        let inside = (0..i64::from(g.from.height) * scale).contains(&y)
            && (0..i64::from(g.from.width) * scale).contains(&x);
        if inside {
            let from_row = (frame * g.from.height as usize + (y / scale) as usize) * g.from.width as usize
                + (x / scale) as usize;
            cell.copy_from_slice(&input[from_row * channels..][..channels]);
        } else {
            cell.fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_beyond_a_clip_are_zero() {
        // Two clips of two frames, two positions, one channel; taps 100, 10, 1 for before, now and after.
        let shape = Shape::new(4, 1, 2, 1);
        let input = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let mut out = [f32::NAN; 8];
        let added = Added { bias: None, per_frame: None, residual: None };
        temporal_conv(&mut out, &input, &[100.0, 10.0, 1.0], [shape; 2], 2, added, 1);
        assert_eq!(out, [13.0, 24.0, 130.0, 240.0, 57.0, 68.0, 570.0, 680.0]);
    }

    /// Every convolution of the networks against plain loops over a padded, upsampled picture.
    #[test]
    fn convolutions_match_loops() {
        let right_bottom = Pad { top: 0, left: 0, bottom: 1, right: 1 };
        let cases = [
            (3, 1, Pad::even(1), false),
            (3, 2, Pad::even(1), false),
            (3, 2, right_bottom, false),
            (3, 1, Pad::even(1), true),
            (1, 1, Pad::even(0), false),
        ];
        for (kernel, stride, pad, upsample) in cases {
            let from = Shape::new(2, 6, 4, 3);
            let scale = if upsample { 2 } else { 1 };
            let side = |extent: u32, pad: u32| (extent * scale + pad - kernel) / stride + 1;
            let to = Shape::new(2, side(6, pad.top + pad.bottom), side(4, pad.left + pad.right), 5);
            let value = |n: usize| ((n * 31 % 23) as f32 - 11.0) / 8.0;
            let input: Vec<f32> = (0..from.elements() as usize).map(value).collect();
            let weight: Vec<f32> = (0..(5 * kernel * kernel * 3) as usize).map(|n| value(n + 4)).collect();
            let per_frame: Vec<f32> = (0..10).map(value).collect();
            let g = Geometry { from, to, kernel, stride, pad, upsample };
            let mut out = vec![f32::NAN; to.elements() as usize];
            let added = Added { bias: None, per_frame: Some((&per_frame, 5)), residual: None };
            conv(&mut out, &input, &weight, g, added, 2);
            let pixel = |f: u32, y: i64, x: i64, c: u32| {
                let inside = (0..i64::from(6 * scale)).contains(&y) && (0..i64::from(4 * scale)).contains(&x);
                if !inside {
                    return 0.0;
                }
                let (y, x) = (y as u32 / scale, x as u32 / scale);
                input[(((f * 6 + y) * 4 + x) * 3 + c) as usize]
            };
            for (n, got) in out.iter().enumerate() {
                let n = n as u32;
                let (o, x, y, f) =
                    (n % 5, n / 5 % to.width, n / 5 / to.width % to.height, n / 5 / to.width / to.height);
                let mut sum = per_frame[(f * 5 + o) as usize];
                for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                    let at_y = i64::from(y * stride + ky) - i64::from(pad.top);
                    let at_x = i64::from(x * stride + kx) - i64::from(pad.left);
                    for c in 0..3 {
                        let tap = ((o * kernel + ky) * kernel + kx) * 3 + c;
                        sum += weight[tap as usize] * pixel(f, at_y, at_x, c);
                    }
                }
                assert!((got - sum).abs() < 1e-4, "{kernel} {stride} {pad:?} {upsample}: {got} {sum}");
            }
        }
    }
}
