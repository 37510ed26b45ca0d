//! Convolutions, matrix products and attention: what costs floating-point operations.

use super::{Builder, Conv, LinearSpec};
use crate::graph::{AttentionPattern, Op, Shape, TensorId, View, WeightLayout};

impl Builder {
    /// Convolution with weight and bias `path.weight`, `path.bias`; the result is named `path`.
    pub fn conv(&mut self, path: &str, input: TensorId, spec: Conv) -> TensorId {
        let from = self.shape(input);
        assert!(spec.kernel == 1 || spec.kernel == 3, "kernel {} of `{path}`", spec.kernel);
        assert!(spec.stride == 1 || spec.stride == 2, "stride {} of `{path}`", spec.stride);
        let scale = if spec.upsample { 2 } else { 1 };
        let side = |extent: u32, pad: u32| (extent * scale + pad - spec.kernel) / spec.stride + 1;
        let shape = Shape::new(
            from.frames,
            side(from.height, spec.pad.top + spec.pad.bottom),
            side(from.width, spec.pad.left + spec.pad.right),
            spec.channels,
        );
        self.assert_channel_add(path, spec.channel_add, shape);
        self.assert_residual(path, spec.residual, shape);
        let dims = [spec.channels, from.channels, spec.kernel, spec.kernel];
        let weight = self.stored(&format!("{path}.weight"), &dims, WeightLayout::Convolution);
        let bias = Some(self.stored(&format!("{path}.bias"), &[spec.channels], WeightLayout::Vector));
        let out = self.scratch(path, shape);
        let Conv { kernel, stride, pad, upsample, channel_add, residual, .. } = spec;
        self.graph.ops.push(Op::Conv2d {
            out,
            input,
            weight,
            bias,
            kernel,
            stride,
            pad,
            upsample,
            channel_add,
            residual,
        });
        out
    }

    /// Convolution across the frames of each clip with `path.weight`, `path.bias`; the result is named `path`. Of
    /// `spec`, channels, `channel_add` and `residual` count.
    pub fn temporal_conv(&mut self, path: &str, input: TensorId, frames: u32, spec: Conv) -> TensorId {
        let from = self.shape(input);
        let shape = from.with_channels(spec.channels);
        assert_eq!(from.frames % frames, 0, "frames of `{path}`");
        self.assert_channel_add(path, spec.channel_add, shape);
        self.assert_residual(path, spec.residual, shape);
        let dims = [spec.channels, from.channels, 3, 1];
        let weight = self.stored(&format!("{path}.weight"), &dims, WeightLayout::Convolution);
        let bias = Some(self.stored(&format!("{path}.bias"), &[spec.channels], WeightLayout::Vector));
        let out = self.scratch(path, shape);
        let Conv { channel_add, residual, .. } = spec;
        self.graph.ops.push(Op::TemporalConv { out, input, weight, bias, frames, channel_add, residual });
        out
    }

    fn assert_channel_add(&self, path: &str, channel_add: Option<View>, shape: Shape) {
        if let Some(add) = channel_add {
            let rows = self.shape(add.tensor);
            assert!(
                rows.positions() == 1 && (rows.frames == 1 || rows.frames == shape.frames),
                "`{path}` adds {rows}"
            );
            assert_eq!(add.channels, shape.channels, "channels added to `{path}`");
        }
    }

    /// Matrix product with `path.weight` (and `path.bias`); the result is named `path`.
    pub fn linear(&mut self, path: &str, input: TensorId, spec: LinearSpec) -> TensorId {
        self.linear_joined(path, &[(path.to_owned(), spec.channels)], input, spec)
    }

    /// Matrix product with the stored tensor `path` itself, whose axes after the first count as one; no bias.
    pub fn linear_stored(
        &mut self,
        name: &str,
        path: &str,
        input: TensorId,
        channels: u32,
        residual: Option<TensorId>,
    ) -> TensorId {
        let from = self.shape(input);
        let shape = from.with_channels(channels);
        self.assert_residual(name, residual, shape);
        let weight = self.stored(path, &[channels, from.channels], WeightLayout::Matrix);
        let out = self.scratch(name, shape);
        self.graph.ops.push(Op::Linear { out, input, weight, bias: None, residual });
        out
    }

    /// Matrix product with several stored matrices joined along their rows, results side by side.
    pub fn linear_joined(
        &mut self,
        name: &str,
        parts: &[(String, u32)],
        input: TensorId,
        spec: LinearSpec,
    ) -> TensorId {
        let from = self.shape(input);
        let shape = from.with_channels(spec.channels);
        self.assert_residual(name, spec.residual, shape);
        let with = |suffix: &str| -> Vec<_> {
            parts.iter().map(|(path, rows)| (format!("{path}.{suffix}"), *rows)).collect()
        };
        let dims = [spec.channels, from.channels];
        let weight = self.weight(&format!("{name}.weight"), &with("weight"), &dims, WeightLayout::Matrix);
        let bias = spec.bias.then(|| {
            self.weight(&format!("{name}.bias"), &with("bias"), &[spec.channels], WeightLayout::Vector)
        });
        let out = self.scratch(name, shape);
        self.graph.ops.push(Op::Linear { out, input, weight, bias, residual: spec.residual });
        out
    }

    pub(super) fn assert_residual(&self, name: &str, residual: Option<TensorId>, shape: Shape) {
        if let Some(residual) = residual {
            assert_eq!(self.shape(residual), shape, "residual of `{name}`");
        }
    }

    /// Attention; the result has the rows of the query and the channels of the value.
    pub fn attention(
        &mut self,
        name: &str,
        [query, key, value]: [View; 3],
        heads: u32,
        pattern: AttentionPattern,
    ) -> TensorId {
        let (rows, keys, values) =
            (self.shape(query.tensor), self.shape(key.tensor), self.shape(value.tensor));
        for (view, shape) in [(query, rows), (key, keys), (value, values)] {
            assert!(view.offset + view.channels <= shape.channels, "view beyond {shape} in `{name}`");
        }
        assert_eq!(query.channels, key.channels, "keys of `{name}`");
        assert_eq!(keys.with_channels(1), values.with_channels(1), "values of `{name}`");
        assert!(query.channels % heads == 0 && value.channels % heads == 0, "heads of `{name}`");
        match pattern {
            AttentionPattern::Spatial | AttentionPattern::Causal => {
                assert_eq!(rows.with_channels(1), keys.with_channels(1), "keys of `{name}`");
            }
            AttentionPattern::Cross => {
                assert!(keys.frames == 1 && keys.height == 1, "keys {keys} of `{name}`")
            }
            AttentionPattern::Temporal { frames } => {
                assert_eq!(rows.with_channels(1), keys.with_channels(1), "keys of `{name}`");
                assert_eq!(rows.frames % frames, 0, "frames of `{name}`");
            }
        }
        let out = self.scratch(name, rows.with_channels(value.channels));
        self.graph.ops.push(Op::Attention { out, query, key, value, heads, pattern });
        out
    }
}
