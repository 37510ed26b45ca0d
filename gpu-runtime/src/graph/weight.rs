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
}

impl WeightUse {
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
