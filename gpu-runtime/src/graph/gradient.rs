//! Operations of the way back: what a gradient of an operation's result adds to those of what it read. The rest of a way
//! back is made of the operations that there are: a convolution's is a convolution with its weight turned.

use super::{ActivationFunction, AttentionPattern, GroupNormSpec, TensorId, View, WeightId};

/// An attention, the gradient of its result, and what [`Gradient::AttentionRows`] knows of its rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionGradient {
    /// Queries.
    pub query: View,
    /// Keys.
    pub key: View,
    /// Values.
    pub value: View,
    /// Gradient of the result: rows of the query, channels of the value.
    pub of_out: TensorId,
    /// What [`Gradient::AttentionRows`] wrote.
    pub rows: TensorId,
    /// Number of heads.
    pub heads: u32,
    /// Which keys a query sees.
    pub pattern: AttentionPattern,
}

/// One operation of the way back. `out` is a gradient, as is `of_out`, that of the forward operation's result.
#[derive(Debug, Clone, PartialEq)]
pub enum Gradient {
    /// Of the input of [`super::Op::GroupNorm`]. Statistics are computed again.
    GroupNorm {
        /// Same shape as `input`.
        out: TensorId,
        /// Same shape as `input`.
        of_out: TensorId,
        /// The input.
        input: TensorId,
        /// Added, of the same shape.
        residual: Option<TensorId>,
        /// As in the forward operation.
        gamma: WeightId,
        /// As in the forward operation; where SiLU follows, its slope depends on it.
        beta: WeightId,
        /// As in the forward operation.
        spec: GroupNormSpec,
    },
    /// Of the input of [`super::Op::LayerNorm`]. Statistics are computed again.
    LayerNorm {
        /// Same shape as `input`.
        out: TensorId,
        /// Same shape as `input`.
        of_out: TensorId,
        /// The input.
        input: TensorId,
        /// Added, of the same shape.
        residual: Option<TensorId>,
        /// As in the forward operation.
        gamma: WeightId,
        /// As in the forward operation.
        eps: f32,
    },
    /// Of the input of [`super::Op::Geglu`].
    Geglu {
        /// Same shape as `input`.
        out: TensorId,
        /// Half the channels of `input`.
        of_out: TensorId,
        /// The input.
        input: TensorId,
    },
    /// Of the input of [`super::Op::Activation`].
    Activation {
        /// Same shape as `input`.
        out: TensorId,
        /// Same shape as `input`.
        of_out: TensorId,
        /// The input.
        input: TensorId,
        /// Which.
        function: ActivationFunction,
    },
    /// For every query row and head two numbers, side by side: the logarithm of the sum of the exponentials of its
    /// scores, and the product of result and gradient, Σ result · `of_out` over the head's channels.
    AttentionRows {
        /// Rows of the query, 2 × heads channels, [`super::Precision::Single`].
        out: TensorId,
        /// Queries.
        query: View,
        /// Keys.
        key: View,
        /// The forward operation's result.
        result: TensorId,
        /// Its gradient.
        of_out: TensorId,
        /// Number of heads.
        heads: u32,
        /// Which keys a query sees.
        pattern: AttentionPattern,
    },
    /// Of the queries of [`super::Op::Attention`].
    AttentionQuery {
        /// Rows and channels of the query.
        out: TensorId,
        /// The attention.
        of: AttentionGradient,
    },
    /// Of its keys, then of its values.
    AttentionKeyValue {
        /// Rows of the key; channels of the key, then of the value.
        out: TensorId,
        /// The attention.
        of: AttentionGradient,
    },
    /// Zeros between rows and columns: out\[2y\]\[2x\] = input\[y\]\[x\]. What a convolution of stride 2 gives back is what
    /// one of stride 1 gives back of this.
    Spread {
        /// Rows and columns of which every second is filled, from the first on: 2n or 2n - 1 for n.
        out: TensorId,
        /// Any picture.
        input: TensorId,
    },
    /// Sums of 2 × 2 pixels: the way back of a doubling.
    SumOfFour {
        /// Half the height and width.
        out: TensorId,
        /// Even height and width.
        input: TensorId,
    },
    /// Some channels: the way back of a concatenation.
    Channels {
        /// Rows of the tensor, channels of the view.
        out: TensorId,
        /// Which.
        input: View,
    },
    /// out = leftᵀ · right over all rows: the gradient of a matrix that rows were multiplied with.
    Matrix {
        /// `[1, 1, channels of left, channels of right]`, [`super::Precision::Single`].
        out: TensorId,
        /// Any rows.
        left: TensorId,
        /// As many rows.
        right: TensorId,
    },
}

impl Gradient {
    /// The tensor that is written.
    #[must_use]
    pub fn out(&self) -> TensorId {
        match self {
            Self::GroupNorm { out, .. }
            | Self::LayerNorm { out, .. }
            | Self::Geglu { out, .. }
            | Self::Activation { out, .. }
            | Self::AttentionRows { out, .. }
            | Self::AttentionQuery { out, .. }
            | Self::AttentionKeyValue { out, .. }
            | Self::Spread { out, .. }
            | Self::SumOfFour { out, .. }
            | Self::Channels { out, .. }
            | Self::Matrix { out, .. } => *out,
        }
    }

    /// The tensors that are read, each as often as it is named.
    #[must_use]
    pub fn reads(&self) -> Vec<TensorId> {
        match self {
            Self::GroupNorm { of_out, input, residual, .. }
            | Self::LayerNorm { of_out, input, residual, .. } => {
                [Some(*of_out), Some(*input), *residual].into_iter().flatten().collect()
            }
            Self::Geglu { of_out, input, .. } | Self::Activation { of_out, input, .. } => {
                vec![*of_out, *input]
            }
            Self::AttentionRows { query, key, result, of_out, .. } => {
                vec![query.tensor, key.tensor, *result, *of_out]
            }
            Self::AttentionQuery { of, .. } | Self::AttentionKeyValue { of, .. } => {
                vec![of.query.tensor, of.key.tensor, of.value.tensor, of.of_out, of.rows]
            }
            Self::Spread { input, .. } | Self::SumOfFour { input, .. } => vec![*input],
            Self::Channels { input, .. } => vec![input.tensor],
            Self::Matrix { left, right, .. } => vec![*left, *right],
        }
    }

    /// The weights that are read.
    #[must_use]
    pub fn weights(&self) -> Vec<WeightId> {
        match self {
            Self::GroupNorm { gamma, beta, .. } => vec![*gamma, *beta],
            Self::LayerNorm { gamma, .. } => vec![*gamma],
            Self::Geglu { .. }
            | Self::Activation { .. }
            | Self::AttentionRows { .. }
            | Self::AttentionQuery { .. }
            | Self::AttentionKeyValue { .. }
            | Self::Spread { .. }
            | Self::SumOfFour { .. }
            | Self::Channels { .. }
            | Self::Matrix { .. } => Vec::new(),
        }
    }
}
