//! Weights of a plan: names, extents and how a backend lays them out. No values.

/// Index of a weight in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// What a weight is, which tells a backend how to lay it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightLayout {
    /// `[out, in, kernel, kernel]` as stored; backends keep `[out, kernel, kernel, in]` (KRSC). Across frames it is
    /// `[out, in, 3, 1]`, stored with one more axis of extent 1.
    Convolution,
    /// `[out, in]`, row-major. Stored axes after the first count as one: `[out, in, 1, 1]`, `[out, 3, 14, 14]`, `[out]`.
    Matrix,
    /// `[n]`: biases, scales.
    Vector,
    /// `[rows, channels]`: embeddings and position tables. A stored `[1, rows, channels]` counts as the same.
    Table,
}

/// How a part is made of what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PartSource {
    /// As it is stored.
    Stored,
    /// Times one number of the folder, so that a blend of two branches needs no operation.
    Mixed(Mixing),
    /// Row f is an embedding of frame number f: linear_2(silu(linear_1(cosines and sines of f))). The part's name is the
    /// path of the two layers.
    FrameEmbedding {
        /// Features between the layers.
        hidden: u32,
    },
}

/// A learned share, the sigmoid of one stored number, or what is left of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mixing {
    /// Component folder and name of the stored number: `…time_mixer.mix_factor`.
    pub factor: String,
    /// Whether the share is 1 - sigmoid instead of sigmoid.
    pub complement: bool,
}

/// What follows the name of a weight that is used turned.
pub const TURNED: &str = " turned";

/// Turns a weight of these extents, in the stored order of axes: `[out, in, taps…]` becomes `[in, out, taps…]` with the taps
/// in reverse order.
#[must_use]
pub fn turned<T: Copy>(values: &[T], dims: &[u32]) -> Vec<T> {
    let [rows, columns] = [0, 1].map(|axis| dims[axis] as usize);
    let taps = values.len() / (rows * columns);
    let mut turned = Vec::with_capacity(values.len());
    for column in 0..columns {
        for row in 0..rows {
            turned.extend(values[(row * columns + column) * taps..][..taps].iter().rev());
        }
    }
    turned
}

/// A stored tensor, or something made of it, that is one part of a weight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightPart {
    /// Component folder and tensor name: `unet/conv_in.weight`.
    pub name: String,
    /// Extent along the first axis.
    pub rows: u32,
    /// How it is made.
    pub source: PartSource,
}

/// A weight as an operation uses it: one stored tensor, or several joined along the first axis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightUse {
    /// Unique name: that of the only part, or of the joined matrix (`…attn1.to_qkv.weight`).
    pub name: String,
    /// Stored tensors in order; their rows add up to `dims[0]`.
    pub parts: Vec<WeightPart>,
    /// Extents of the whole in the stored order of axes.
    pub dims: Vec<u32>,
    /// What it is.
    pub layout: WeightLayout,
    /// Used the other way round, for gradients of what it was multiplied with: matrices with their axes exchanged,
    /// convolutions with the axes of channels exchanged and their taps in reverse order. All else here is of the stored
    /// one.
    pub turned: bool,
}

impl WeightUse {
    /// Extents as operations see them.
    #[must_use]
    pub fn dims_used(&self) -> Vec<u32> {
        let mut dims = self.dims.clone();
        if self.turned {
            dims.swap(0, 1);
        }
        dims
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dims.iter().map(|&extent| u64::from(extent)).product()
    }

    /// Elements of one row, that is of all axes but the first.
    #[must_use]
    pub fn row_elements(&self) -> u64 {
        self.dims[1..].iter().map(|&extent| u64::from(extent)).product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_exchanges_channels_and_reverses_taps() {
        let values: Vec<u32> = (0..2 * 3 * 4).collect();
        let once = turned(&values, &[2, 3, 2, 2]);
        assert_eq!(once[..8], [3, 2, 1, 0, 15, 14, 13, 12]);
        assert_eq!(turned(&once, &[3, 2, 2, 2]), values);
        assert_eq!(turned(&[1, 2, 3, 4, 5, 6], &[2, 3]), [1, 4, 2, 5, 3, 6]);
    }
}
