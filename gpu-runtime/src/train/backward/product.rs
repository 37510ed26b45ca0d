//! Gradients of the inputs of matrix products and convolutions, as matrix products themselves.

use crate::cpu::{Matrix, for_blocks, multiply};
use crate::graph::{Pad, Shape};

/// Rows of one block of a product; fixed, so that results do not depend on the number of threads.
const BLOCK_ROWS: usize = 128;

/// Most elements of one block's patches (4 MiB), fixed for the same reason.
const PATCH_ELEMENTS: usize = 1 << 20;

/// Shapes and options of a convolution, as in [`crate::graph::Op::Conv2d`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) from: Shape,
    pub(super) to: Shape,
    pub(super) kernel: u32,
    pub(super) stride: u32,
    pub(super) pad: Pad,
    pub(super) upsample: bool,
}

/// of_input = of_out · weight; `weight` is `[out, in]`, `channels` are those of input and result.
pub(super) fn linear(of_out: &[f32], weight: &[f32], channels: [usize; 2], threads: usize) -> Vec<f32> {
    let [from, to] = channels;
    let mut of_input = vec![0.0; of_out.len() / to * from];
    let work = (of_out.len() * from) as u64;
    for_blocks(&mut of_input, BLOCK_ROWS * from, threads, work, |index, block| {
        let left = Matrix::rows(&of_out[index * BLOCK_ROWS * to..], block.len() / from, to, to);
        multiply(block, from, left, Matrix::rows(weight, to, from, from), 1.0, false);
    });
    of_input
}

/// The gradient of a convolution's input: each (upsampled) input pixel gathers the results that it took part in, which
/// makes rows of a matrix. `weight` is `[out, kernel, kernel, in]`.
pub(super) fn conv(of_out: &[f32], weight: &[f32], g: Geometry, threads: usize) -> Vec<f32> {
    let scale = if g.upsample { 2 } else { 1 };
    let (height, width) = (g.from.height * scale, g.from.width * scale);
    let positions = (height * width) as usize;
    let (side, channels) = (g.kernel, g.to.channels as usize);
    let taps = (side * side) as usize;
    let extents = [g.from.frames as usize * positions, g.from.channels as usize, channels * taps];
    let of_picture = gathered(weight, extents, threads, |patch, row| {
        let (frame, position) = (row / positions, (row % positions) as u32);
        let (y, x) = (position / width + g.pad.top, position % width + g.pad.left);
        for tap in 0..taps {
            let (ky, kx) = (tap as u32 / side, tap as u32 % side);
            let Some(out_y) = stepped(y, ky, g.stride).filter(|&out_y| out_y < g.to.height) else { continue };
            let Some(out_x) = stepped(x, kx, g.stride).filter(|&out_x| out_x < g.to.width) else { continue };
            let out_row = (frame as u32 * g.to.height + out_y) * g.to.width + out_x;
            let row = &of_out[out_row as usize * channels..][..channels];
            patch.iter_mut().skip(tap).step_by(taps).zip(row).for_each(|(cell, value)| *cell = *value);
        }
    });
    if g.upsample { sum_of_four(&of_picture, g.from) } else { of_picture }
}

/// The output coordinate whose tap `tap` lies on the padded input coordinate `at`, if there is one.
fn stepped(at: u32, tap: u32, stride: u32) -> Option<u32> {
    at.checked_sub(tap).filter(|offset| offset.is_multiple_of(stride)).map(|offset| offset / stride)
}

/// The gradient of the input of a convolution across frames; `weight` is `[out, 3, in]`, clips are runs of `frames`.
pub(super) fn temporal_conv(
    of_out: &[f32],
    weight: &[f32],
    [from, to]: [Shape; 2],
    frames: usize,
    threads: usize,
) -> Vec<f32> {
    const TAPS: usize = 3;
    let (positions, channels) = (from.positions() as usize, to.channels as usize);
    let extents = [from.rows() as usize, from.channels as usize, channels * TAPS];
    gathered(weight, extents, threads, |patch, row| {
        let frame = row / positions % frames;
        for tap in 0..TAPS {
            // Tap k of frame f + 1 - k reads frame f.
            if (1..=frames).contains(&(frame + 2 - tap)) {
                let row = row + positions - tap * positions;
                let row = &of_out[row * channels..][..channels];
                patch.iter_mut().skip(tap).step_by(TAPS).zip(row).for_each(|(cell, value)| *cell = *value);
            }
        }
    })
}

/// patches · weight, `[rows, columns]`, block by block. A patch holds, for each of the result's channels, one value per
/// tap, so that the weight `[out, taps, in]` is the right operand as it lies.
fn gathered(
    weight: &[f32],
    [rows, columns, depth]: [usize; 3],
    threads: usize,
    patch_of: impl Fn(&mut [f32], usize) + Sync,
) -> Vec<f32> {
    let mut gradient = vec![0.0; rows * columns];
    let rows_most = (PATCH_ELEMENTS / depth).clamp(1, 1024);
    for_blocks(
        &mut gradient,
        rows_most * columns,
        threads,
        (rows * columns * depth) as u64,
        |index, block| {
            let rows = block.len() / columns;
            let mut patches = vec![0.0; rows * depth];
            for (row, patch) in patches.chunks_exact_mut(depth).enumerate() {
                patch_of(patch, index * rows_most + row);
            }
            let left = Matrix::rows(&patches, rows, depth, depth);
            multiply(block, columns, left, Matrix::rows(weight, depth, columns, columns), 1.0, false);
        },
    );
    gradient
}

/// The gradient of a picture whose pixels became 2 × 2 equal ones.
fn sum_of_four(doubled: &[f32], from: Shape) -> Vec<f32> {
    let (width, channels) = (from.width as usize, from.channels as usize);
    let line = 2 * width * channels;
    let mut summed = Vec::with_capacity(from.elements() as usize);
    for lines in doubled.chunks_exact(2 * line) {
        let (upper, lower) = lines.split_at(line);
        for at in (0..width).map(|x| 2 * x * channels) {
            let value = |c: usize| {
                upper[at + c] + upper[at + channels + c] + lower[at + c] + lower[at + channels + c]
            };
            summed.extend((0..channels).map(value));
        }
    }
    summed
}
