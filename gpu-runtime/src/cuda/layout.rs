//! Weights as the kernels want them: bf16, convolutions as `[out, height, width, in]`, `in` padded to a multiple of 8.

use half::bf16;

use crate::graph::{WeightLayout, WeightUse, turned};

/// Channels of one tap in device memory: a multiple of 8, so that rows start at multiples of 16 bytes.
pub(super) fn channels_padded(channels: u32) -> u32 {
    channels.next_multiple_of(8)
}

/// Bytes of a weight in device memory.
pub(super) fn bytes(weight: &WeightUse) -> u64 {
    let dims = weight.dims_used();
    let extent = |axis: usize| u64::from(dims[axis]);
    2 * match weight.layout {
        WeightLayout::Convolution => extent(0) * extent(2) * extent(3) * u64::from(channels_padded(dims[1])),
        WeightLayout::Matrix => extent(0) * u64::from(channels_padded(dims[1])),
        WeightLayout::Vector | WeightLayout::Table => weight.elements(),
    }
}

/// Row of the stored matrix (or bias) that stands at `row` when values and gates are interleaved by eights.
fn interleaved(row: usize, rows: usize) -> usize {
    let (block, within) = (row / 16, row % 16);
    if within < 8 { block * 8 + within } else { rows / 2 + block * 8 + within - 8 }
}

/// Interleaves the rows of a matrix or the elements of a bias: eight of the first half, eight of the second, and so on.
fn interleave(rows: usize, values: &[bf16]) -> Vec<bf16> {
    let width = values.len() / rows;
    (0..rows).flat_map(|row| values[interleaved(row, rows) * width..][..width].iter().copied()).collect()
}

/// Turns a weight from the stored order of axes into the kernels'. Rows of a `gated` one are interleaved.
///
/// # Panics
/// When `values` are not as many as the weight's extents say.
pub(super) fn turn(weight: &WeightUse, gated: bool, values: Vec<bf16>) -> Vec<bf16> {
    assert_eq!(values.len() as u64, weight.elements(), "elements of `{}`", weight.name);
    let dims = weight.dims_used();
    let values = match (gated, weight.turned) {
        (true, _) => interleave(dims[0] as usize, &values),
        (false, true) => turned(&values, &weight.dims),
        (false, false) => values,
    };
    let (taps, channels) = match weight.layout {
        WeightLayout::Convolution => ((dims[2] * dims[3]) as usize, dims[1] as usize),
        WeightLayout::Matrix => (1, dims[1] as usize),
        WeightLayout::Vector | WeightLayout::Table => return values,
    };
    let padded = channels_padded(dims[1]) as usize;
    if taps == 1 && padded == channels {
        return values;
    }
    let mut padded_rows = vec![bf16::ZERO; dims[0] as usize * taps * padded];
    for (filter, rows) in
        values.chunks_exact(channels * taps).zip(padded_rows.chunks_exact_mut(taps * padded))
    {
        for (tap, row) in rows.chunks_exact_mut(padded).enumerate() {
            for (channel, value) in row[..channels].iter_mut().enumerate() {
                *value = filter[channel * taps + tap];
            }
        }
    }
    padded_rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(dims: &[u32], layout: WeightLayout) -> WeightUse {
        WeightUse { name: "w".to_owned(), parts: Vec::new(), dims: dims.to_vec(), layout, turned: false }
    }

    #[test]
    fn convolutions_are_turned_and_padded() {
        let weight = weight(&[2, 3, 2, 2], WeightLayout::Convolution);
        let values = (0..24u8).map(|v| bf16::from_f32(f32::from(v))).collect();
        let turned = turn(&weight, false, values);
        assert_eq!(turned.len() as u64 * 2, bytes(&weight));
        let row = |at: usize| turned[at * 8..at * 8 + 8].iter().map(|v| v.to_f32()).collect::<Vec<_>>();
        assert_eq!(row(0), [0.0, 4.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(row(7), [15.0, 19.0, 23.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn values_and_gates_alternate_by_eights() {
        let weight = weight(&[32, 8], WeightLayout::Matrix);
        let values = (0..256).map(|v| bf16::from_f32((v / 8) as f32)).collect();
        let rows: Vec<f32> = turn(&weight, true, values).chunks(8).map(|row| row[0].to_f32()).collect();
        let expected = [0..8, 16..24, 8..16, 24..32].into_iter().flatten().map(|row| row as f32);
        assert_eq!(rows, expected.collect::<Vec<f32>>());
    }

    #[test]
    fn matrices_of_even_width_and_vectors_stay() {
        for (dims, layout) in [(&[2, 8][..], WeightLayout::Matrix), (&[5][..], WeightLayout::Vector)] {
            let weight = weight(dims, layout);
            let values: Vec<bf16> = (0..weight.elements()).map(|v| bf16::from_f32(v as f32)).collect();
            assert_eq!(turn(&weight, false, values.clone()), values);
            assert_eq!(values.len() as u64 * 2, bytes(&weight));
        }
    }
}
