//! The operations of a plan. Each says what it computes; none says how.

use super::{Gradient, TensorId, View, WeightId};

/// Zero rows and columns around a picture before a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pad {
    /// Rows above.
    pub top: u32,
    /// Columns to the left.
    pub left: u32,
    /// Rows below.
    pub bottom: u32,
    /// Columns to the right.
    pub right: u32,
}

impl Pad {
    /// The same number on each side.
    #[must_use]
    pub fn even(n: u32) -> Self {
        Self { top: n, left: n, bottom: n, right: n }
    }
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttentionPattern {
    /// All positions of its own frame.
    Spatial,
    /// All tokens of the keys' only frame `[1, 1, tokens, channels]`, whatever the query's frame. No mask.
    Cross,
    /// The same position in all frames of its clip; clips are runs of `frames` frames. Rows are read with a stride of
    /// height × width rows, nothing is permuted.
    Temporal {
        /// Frames of one clip.
        frames: u32,
    },
    /// Tokens of its own frame up to itself.
    Causal,
}

/// Elementwise functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivationFunction {
    /// x / (1 + exp(-x)).
    Silu,
    /// 0.5 x (1 + erf(x / sqrt 2)).
    Gelu,
    /// x / (1 + exp(-1.702 x)).
    QuickGelu,
}

/// What a group normalisation does beside its weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNormSpec {
    /// Number of groups; divides the channels.
    pub groups: u32,
    /// Added to the variance.
    pub eps: f32,
    /// Whether SiLU follows.
    pub silu: bool,
    /// Frames that share statistics; divides the frames.
    pub frames_together: u32,
}

/// One operation. `rows` are frames × height × width; sums are taken in f32 or better.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Convolution of each frame. With `upsample` each input pixel first becomes 2 × 2 equal ones.
    /// out = conv(input) + bias + channel_add + residual.
    Conv2d {
        /// `[frames, height', width', out channels]`.
        out: TensorId,
        /// `[frames, height, width, in channels]`.
        input: TensorId,
        /// `[out, in, kernel, kernel]` as stored.
        weight: WeightId,
        /// `[out]`.
        bias: Option<WeightId>,
        /// Side of the kernel: 1 or 3.
        kernel: u32,
        /// Step in both directions: 1 or 2.
        stride: u32,
        /// Zeros around the (upsampled) picture.
        pad: Pad,
        /// Nearest-neighbour doubling of both sides before the convolution.
        upsample: bool,
        /// `[1 or frames, 1, 1, out channels]`, added to every position of all frames or of its frame.
        channel_add: Option<View>,
        /// Same shape as `out`.
        residual: Option<TensorId>,
    },
    /// Convolution across frames, three at a time, for each position: out\[f\] = Σ_k weight_k · input\[f + k - 1\] + bias
    /// + channel_add + residual, within a clip; frames beyond its ends are zero.
    TemporalConv {
        /// Frames and positions of `input`.
        out: TensorId,
        /// `[frames, height, width, in channels]`.
        input: TensorId,
        /// `[out, in, 3, 1]`.
        weight: WeightId,
        /// `[out]`.
        bias: Option<WeightId>,
        /// Frames of one clip; divides the frames.
        frames: u32,
        /// As in [`Op::Conv2d`].
        channel_add: Option<View>,
        /// Same shape as `out`.
        residual: Option<TensorId>,
    },
    /// out = input · weightᵀ + bias + residual, row by row.
    Linear {
        /// Same rows as `input`, channels of the weight's first axis.
        out: TensorId,
        /// Rows of the weight's second axis.
        input: TensorId,
        /// `[out, in]`.
        weight: WeightId,
        /// `[out]`.
        bias: Option<WeightId>,
        /// Same shape as `out`.
        residual: Option<TensorId>,
    },
    /// (x - mean) / sqrt(variance + eps) · gamma + beta, then SiLU where asked. Mean and (biased) variance over
    /// `frames_together` consecutive frames × height × width × one group of consecutive channels.
    GroupNorm {
        /// Same shape as `input`.
        out: TensorId,
        /// Any picture.
        input: TensorId,
        /// `[channels]`.
        gamma: WeightId,
        /// `[channels]`.
        beta: WeightId,
        /// All else.
        spec: GroupNormSpec,
    },
    /// The same over the channels of each row.
    LayerNorm {
        /// Same shape as `input`.
        out: TensorId,
        /// Any rows.
        input: TensorId,
        /// `[channels]`.
        gamma: WeightId,
        /// `[channels]`.
        beta: WeightId,
        /// Added to the variance.
        eps: f32,
    },
    /// First half of the channels times the exact-erf GELU of the second half.
    Geglu {
        /// Half the channels of `input`.
        out: TensorId,
        /// An even number of channels.
        input: TensorId,
    },
    /// softmax(query · keyᵀ / sqrt(channels / heads)) · value, for each head; heads are consecutive channel ranges.
    Attention {
        /// Rows of the query, channels of the value.
        out: TensorId,
        /// Queries.
        query: View,
        /// Keys, same channels as the query.
        key: View,
        /// Values, rows of the key.
        value: View,
        /// Number of heads; divides the channels.
        heads: u32,
        /// Which keys a query sees.
        pattern: AttentionPattern,
    },
    /// An elementwise function.
    Activation {
        /// Same shape as `input`.
        out: TensorId,
        /// Any rows.
        input: TensorId,
        /// Which.
        function: ActivationFunction,
    },
    /// Adds row f of a table to every position of frame f, counted within its clip.
    AddFrameTable {
        /// Same shape as `input`.
        out: TensorId,
        /// Any picture.
        input: TensorId,
        /// `[at least frames, channels]`.
        table: WeightId,
        /// Frames of one clip; divides the frames.
        frames: u32,
    },
    /// Channels of `left`, then channels of `right`.
    Concat {
        /// Sum of the channels.
        out: TensorId,
        /// First channels.
        left: TensorId,
        /// Last channels.
        right: TensorId,
    },
    /// Row `ids[n]` of `tokens` plus row n of `positions`.
    Embed {
        /// `[1, 1, tokens, channels]`.
        out: TensorId,
        /// `[1, 1, tokens, 1]`, integers held exactly as f32 ([`super::Precision::Single`]).
        ids: TensorId,
        /// `[vocabulary, channels]`.
        tokens: WeightId,
        /// `[at least tokens, channels]`.
        positions: WeightId,
    },
    /// out = Σ coefficients\[i\] · terms\[i\], elementwise, in f32. `out` may be one of the terms.
    Combine {
        /// Same shape as each term; precisions may differ.
        out: TensorId,
        /// One to four tensors.
        terms: Vec<TensorId>,
        /// One scalar per term, of one `[1, 1, 1, n]` tensor in device memory ([`super::Precision::Single`]).
        coefficients: View,
    },
    /// out = left · rightᵀ + residual, row by row: [`Op::Linear`] with a tensor as its matrix.
    Product {
        /// Same rows as `left`, as many channels as `right` has columns of a picture.
        out: TensorId,
        /// Any rows.
        left: TensorId,
        /// `[1, 1, channels of out, channels of left]`.
        right: TensorId,
        /// Same shape as `out`.
        residual: Option<TensorId>,
    },
    /// An operation of the way back.
    Gradient(Gradient),
}

impl Op {
    /// The tensor that is written.
    #[must_use]
    pub fn out(&self) -> TensorId {
        match self {
            Op::Conv2d { out, .. }
            | Op::TemporalConv { out, .. }
            | Op::Linear { out, .. }
            | Op::GroupNorm { out, .. }
            | Op::LayerNorm { out, .. }
            | Op::Geglu { out, .. }
            | Op::Attention { out, .. }
            | Op::Activation { out, .. }
            | Op::AddFrameTable { out, .. }
            | Op::Concat { out, .. }
            | Op::Embed { out, .. }
            | Op::Combine { out, .. }
            | Op::Product { out, .. } => *out,
            Op::Gradient(gradient) => gradient.out(),
        }
    }

    /// The tensors that are read, each as often as it is named.
    #[must_use]
    pub fn reads(&self) -> Vec<TensorId> {
        match self {
            Op::Conv2d { input, channel_add, residual, .. }
            | Op::TemporalConv { input, channel_add, residual, .. } => {
                [Some(*input), channel_add.map(|view| view.tensor), *residual].into_iter().flatten().collect()
            }
            Op::Linear { input, residual, .. } => [Some(*input), *residual].into_iter().flatten().collect(),
            Op::GroupNorm { input, .. }
            | Op::LayerNorm { input, .. }
            | Op::Geglu { input, .. }
            | Op::Activation { input, .. }
            | Op::AddFrameTable { input, .. } => vec![*input],
            Op::Attention { query, key, value, .. } => vec![query.tensor, key.tensor, value.tensor],
            Op::Concat { left, right, .. } => vec![*left, *right],
            Op::Embed { ids, .. } => vec![*ids],
            Op::Combine { terms, coefficients, .. } => {
                terms.iter().copied().chain([coefficients.tensor]).collect()
            }
            Op::Product { left, right, residual, .. } => {
                [Some(*left), Some(*right), *residual].into_iter().flatten().collect()
            }
            Op::Gradient(gradient) => gradient.reads(),
        }
    }

    /// The weights that are read.
    #[must_use]
    pub fn weights(&self) -> Vec<WeightId> {
        match self {
            Op::Conv2d { weight, bias, .. }
            | Op::TemporalConv { weight, bias, .. }
            | Op::Linear { weight, bias, .. } => [Some(*weight), *bias].into_iter().flatten().collect(),
            Op::GroupNorm { gamma, beta, .. } | Op::LayerNorm { gamma, beta, .. } => vec![*gamma, *beta],
            Op::AddFrameTable { table, .. } => vec![*table],
            Op::Embed { tokens, positions, .. } => vec![*tokens, *positions],
            Op::Geglu { .. }
            | Op::Attention { .. }
            | Op::Activation { .. }
            | Op::Concat { .. }
            | Op::Combine { .. }
            | Op::Product { .. } => Vec::new(),
            Op::Gradient(gradient) => gradient.weights(),
        }
    }
}
