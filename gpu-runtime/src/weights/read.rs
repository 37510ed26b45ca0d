//! Stored bytes become numbers: element types converted, axes of convolutions turned.

use half::{bf16, f16};

use super::file::Kind;

/// Appends elements as f32; exact for every stored type.
pub(super) fn extend_f32(values: &mut Vec<f32>, bytes: &[u8], kind: Kind) {
    match kind {
        Kind::Bf16 => values.extend(pairs(bytes).map(|pair| bf16::from_le_bytes(pair).to_f32())),
        Kind::F16 => values.extend(pairs(bytes).map(|pair| f16::from_le_bytes(pair).to_f32())),
        Kind::F32 => values.extend(quads(bytes).map(f32::from_le_bytes)),
    }
}

/// Appends elements as bf16, rounded to nearest, ties to even.
pub(super) fn extend_bf16(values: &mut Vec<bf16>, bytes: &[u8], kind: Kind) {
    match kind {
        Kind::Bf16 => values.extend(pairs(bytes).map(bf16::from_le_bytes)),
        Kind::F16 => {
            values.extend(pairs(bytes).map(|pair| bf16::from_f32(f16::from_le_bytes(pair).to_f32())))
        }
        Kind::F32 => values.extend(quads(bytes).map(|quad| bf16::from_f32(f32::from_le_bytes(quad)))),
    }
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> + '_ {
    bytes.as_chunks::<2>().0.iter().copied()
}

fn quads(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    bytes.as_chunks::<4>().0.iter().copied()
}

/// Turns a convolution's weight from `[out, in, height, width]` into `[out, height, width, in]`.
///
/// # Panics
/// When `dims` has not four extents, or their product is not the number of values.
#[must_use]
pub fn krsc<T: Copy>(values: &[T], dims: &[u32]) -> Vec<T> {
    let [out, channels, height, width] = dims else {
        panic!("a convolution's weight has four axes, not {dims:?}")
    };
    let (channels, taps) = (*channels as usize, *height as usize * *width as usize);
    assert_eq!(values.len(), *out as usize * channels * taps, "elements of {dims:?}");
    let mut turned = Vec::with_capacity(values.len());
    for filter in values.chunks_exact(channels * taps) {
        for tap in 0..taps {
            turned.extend((0..channels).map(|channel| filter[channel * taps + tap]));
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_type_is_read_exactly() {
        for (kind, bytes) in [
            (Kind::Bf16, bf16::from_f32(-1.5).to_le_bytes().to_vec()),
            (Kind::F16, f16::from_f32(-1.5).to_le_bytes().to_vec()),
            (Kind::F32, (-1.5f32).to_le_bytes().to_vec()),
        ] {
            let (mut exact, mut rounded) = (Vec::new(), Vec::new());
            extend_f32(&mut exact, &bytes, kind);
            extend_bf16(&mut rounded, &bytes, kind);
            assert_eq!((exact, rounded), (vec![-1.5], vec![bf16::from_f32(-1.5)]), "{kind:?}");
        }
    }

    #[test]
    fn convolutions_end_with_their_input_channels() {
        let values: Vec<u32> = (0..2 * 3 * 4).collect();
        let turned = krsc(&values, &[2, 3, 2, 2]);
        assert_eq!(turned[..6], [0, 4, 8, 1, 5, 9]);
        assert_eq!(turned[12..15], [12, 16, 20]);
    }
}
