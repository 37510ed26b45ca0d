//! Operations of the way back, and what they need of weights. Each gives its result; shapes are those of the forward pass.

use super::Builder;
use crate::graph::{
    AttentionGradient, Gradient, Op, Pad, Precision, Shape, TURNED, TensorId, TensorKind, View, WeightId,
    WeightLayout,
};

impl Builder {
    /// The same weight turned.
    pub fn turned(&mut self, id: WeightId) -> WeightId {
        let mut wanted = self.graph.weight(id).clone();
        let turnable = matches!(wanted.layout, WeightLayout::Matrix | WeightLayout::Convolution);
        assert!(turnable && !wanted.turned, "`{}` cannot be turned", wanted.name);
        wanted.name.push_str(TURNED);
        wanted.turned = true;
        self.used(wanted)
    }

    /// left · rightᵀ + residual.
    pub fn product(
        &mut self,
        name: &str,
        left: TensorId,
        right: TensorId,
        residual: Option<TensorId>,
    ) -> TensorId {
        let (from, matrix) = (self.shape(left), self.shape(right));
        assert!(
            matrix.frames == 1 && matrix.height == 1 && matrix.channels == from.channels,
            "{from} times {matrix} in `{name}`"
        );
        let shape = from.with_channels(matrix.width);
        self.assert_residual(name, residual, shape);
        let out = self.scratch(name, shape);
        self.graph.ops.push(Op::Product { out, left, right, residual });
        out
    }

    /// The gradient of a tensor with the shape of `of`, computed by the operation that `gradient` makes for it.
    pub fn gradient_like(
        &mut self,
        name: &str,
        of: TensorId,
        gradient: impl FnOnce(TensorId) -> Gradient,
    ) -> TensorId {
        let shape = self.shape(of);
        self.gradient(name, shape, Precision::Model, gradient)
    }

    /// What an operation of the way back writes.
    ///
    /// # Panics
    /// When the operation does not write the tensor that it is given.
    pub fn gradient(
        &mut self,
        name: &str,
        shape: Shape,
        precision: Precision,
        gradient: impl FnOnce(TensorId) -> Gradient,
    ) -> TensorId {
        let out = self.tensor(name, shape, TensorKind::Scratch, precision);
        let gradient = gradient(out);
        assert_eq!(gradient.out(), out, "`{name}` is written");
        self.graph.ops.push(Op::Gradient(gradient));
        out
    }

    /// The gradient of a normalisation's input, plus another of it.
    ///
    /// # Panics
    /// When the operation is no normalisation.
    pub fn norm_gradient(
        &mut self,
        name: &str,
        norm: &Op,
        of_out: TensorId,
        residual: Option<TensorId>,
    ) -> TensorId {
        match *norm {
            Op::GroupNorm { input, gamma, beta, spec, .. } => self.gradient_like(name, input, |out| {
                Gradient::GroupNorm { out, of_out, input, residual, gamma, beta, spec }
            }),
            Op::LayerNorm { input, gamma, eps, .. } => self.gradient_like(name, input, |out| {
                Gradient::LayerNorm { out, of_out, input, residual, gamma, eps }
            }),
            _ => panic!("`{name}` is of a normalisation"),
        }
    }

    /// What [`Gradient::AttentionRows`] writes for an attention, and all that its gradients are computed from.
    ///
    /// # Panics
    /// When the operation is no attention, or the gradient has not its result's shape.
    pub fn attention_rows(&mut self, name: &str, attention: &Op, of_out: TensorId) -> AttentionGradient {
        let Op::Attention { out: result, query, key, value, heads, pattern } = *attention else {
            panic!("`{name}` is of an attention")
        };
        assert_eq!(self.shape(of_out), self.shape(result), "gradient of `{name}`");
        let shape = self.shape(query.tensor).with_channels(2 * heads);
        let rows = self.gradient(name, shape, Precision::Single, |out| Gradient::AttentionRows {
            out,
            query,
            key,
            result,
            of_out,
            heads,
            pattern,
        });
        AttentionGradient { query, key, value, of_out, rows, heads, pattern }
    }

    /// The gradient of an attention's queries.
    pub fn attention_query(&mut self, name: &str, of: AttentionGradient) -> TensorId {
        let shape = self.shape(of.query.tensor).with_channels(of.query.channels);
        self.gradient(name, shape, Precision::Model, |out| Gradient::AttentionQuery { out, of })
    }

    /// The gradients of an attention's keys and values, side by side.
    pub fn attention_key_value(&mut self, name: &str, of: AttentionGradient) -> TensorId {
        let shape = self.shape(of.key.tensor).with_channels(of.key.channels + of.value.channels);
        self.gradient(name, shape, Precision::Model, |out| Gradient::AttentionKeyValue { out, of })
    }

    /// A matrix product with a weight turned, which gives the gradient of what it was multiplied with.
    pub fn linear_turned(
        &mut self,
        name: &str,
        of_out: TensorId,
        weight: WeightId,
        residual: Option<TensorId>,
    ) -> TensorId {
        let (weight, out) = self.times_turned(name, self.shape(of_out), weight, residual);
        self.graph.ops.push(Op::Linear { out, input: of_out, weight, bias: None, residual });
        out
    }

    /// A weight turned, and the result, of these rows, of what is multiplied with it.
    fn times_turned(
        &mut self,
        name: &str,
        rows: Shape,
        weight: WeightId,
        residual: Option<TensorId>,
    ) -> (WeightId, TensorId) {
        let weight = self.turned(weight);
        let shape = rows.with_channels(self.graph.weight(weight).dims_used()[0]);
        self.assert_residual(name, residual, shape);
        (weight, self.scratch(name, shape))
    }

    /// A convolution of step 1 with a weight turned.
    pub fn conv_turned(
        &mut self,
        name: &str,
        of_out: TensorId,
        weight: WeightId,
        (kernel, pad): (u32, Pad),
        residual: Option<TensorId>,
    ) -> TensorId {
        let from = self.shape(of_out);
        let side = |extent: u32, pad: u32| extent + pad + 1 - kernel;
        let height = side(from.height, pad.top + pad.bottom);
        let width = side(from.width, pad.left + pad.right);
        let shape = Shape { height, width, ..from };
        let (weight, out) = self.times_turned(name, shape, weight, residual);
        self.graph.ops.push(Op::Conv2d {
            out,
            input: of_out,
            weight,
            bias: None,
            kernel,
            stride: 1,
            pad,
            upsample: false,
            channel_add: None,
            residual,
        });
        out
    }

    /// A convolution across frames with a weight turned.
    pub fn temporal_conv_turned(
        &mut self,
        name: &str,
        of_out: TensorId,
        weight: WeightId,
        frames: u32,
        residual: Option<TensorId>,
    ) -> TensorId {
        let (weight, out) = self.times_turned(name, self.shape(of_out), weight, residual);
        self.graph.ops.push(Op::TemporalConv {
            out,
            input: of_out,
            weight,
            bias: None,
            frames,
            channel_add: None,
            residual,
        });
        out
    }

    /// Zeros between rows and columns, up to these extents.
    pub fn spread(&mut self, name: &str, input: TensorId, [height, width]: [u32; 2]) -> TensorId {
        let from = self.shape(input);
        assert_eq!(
            [height, width].map(|side| side.div_ceil(2)),
            [from.height, from.width],
            "extents of `{name}`"
        );
        let shape = Shape::new(from.frames, height, width, from.channels);
        self.gradient(name, shape, Precision::Model, |out| Gradient::Spread { out, input })
    }

    /// Sums of 2 × 2 pixels.
    pub fn sum_of_four(&mut self, name: &str, input: TensorId) -> TensorId {
        let from = self.shape(input);
        assert!(from.height.is_multiple_of(2) && from.width.is_multiple_of(2), "extents {from} of `{name}`");
        let shape = Shape::new(from.frames, from.height / 2, from.width / 2, from.channels);
        self.gradient(name, shape, Precision::Model, |out| Gradient::SumOfFour { out, input })
    }

    /// Some channels by themselves.
    pub fn channels(&mut self, name: &str, input: View) -> TensorId {
        let shape = self.shape(input.tensor);
        assert!(input.offset + input.channels <= shape.channels, "view beyond {shape} in `{name}`");
        self.gradient(name, shape.with_channels(input.channels), Precision::Model, |out| Gradient::Channels {
            out,
            input,
        })
    }

    /// leftᵀ · right over all rows.
    pub fn matrix(&mut self, name: &str, left: TensorId, right: TensorId) -> TensorId {
        let (rows, columns) = (self.shape(left), self.shape(right));
        assert_eq!(rows.rows(), columns.rows(), "rows of `{name}`");
        let shape = Shape::new(1, 1, rows.channels, columns.channels);
        self.gradient(name, shape, Precision::Single, |out| Gradient::Matrix { out, left, right })
    }
}
