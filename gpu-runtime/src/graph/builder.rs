//! Builds a graph operation by operation: infers shapes and asserts that operands fit. A misfit is a bug of the model
//! definition; configurations are checked before they come here.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ActivationFunction, AttentionPattern, Graph, Mixing, Op, Pad, PartSource, Precision, Shape, Tensor,
    TensorId, TensorKind, View, WeightId, WeightLayout, WeightPart, WeightUse,
};

/// What a convolution does beside its weights.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    /// Channels of the result.
    pub channels: u32,
    /// 1 or 3.
    pub kernel: u32,
    /// 1 or 2.
    pub stride: u32,
    /// Zeros around the picture.
    pub pad: Pad,
    /// Doubles both sides first.
    pub upsample: bool,
    /// Added per frame.
    pub channel_add: Option<View>,
    /// Added per element.
    pub residual: Option<TensorId>,
}

impl Conv {
    /// 3 × 3 that keeps height and width.
    #[must_use]
    pub fn same(channels: u32) -> Self {
        Self {
            channels,
            kernel: 3,
            stride: 1,
            pad: Pad::even(1),
            upsample: false,
            channel_add: None,
            residual: None,
        }
    }
}

/// What a matrix product does beside its weights.
#[derive(Debug, Clone, Copy)]
pub struct LinearSpec {
    /// Channels of the result.
    pub channels: u32,
    /// Whether a bias is stored.
    pub bias: bool,
    /// Added per element.
    pub residual: Option<TensorId>,
}

/// What a group normalisation does beside its weights.
#[derive(Debug, Clone, Copy)]
pub struct GroupNormSpec {
    /// Number of groups.
    pub groups: u32,
    /// Added to the variance.
    pub eps: f32,
    /// Whether SiLU follows.
    pub silu: bool,
    /// Frames that share statistics.
    pub frames_together: u32,
}

/// A graph under construction. Weight paths are relative to the current component (`unet`, `vae`, …).
#[derive(Debug)]
pub struct Builder {
    graph: Graph,
    component: String,
    names: BTreeSet<String>,
    weights: BTreeMap<String, WeightId>,
    mixing: Option<Mixing>,
}

impl Builder {
    /// An empty graph whose weights come from the folder `component`.
    #[must_use]
    pub fn new(name: &str, component: &str) -> Self {
        Self {
            graph: Graph {
                name: name.to_owned(),
                tensors: Vec::new(),
                weights: Vec::new(),
                ops: Vec::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
            },
            component: component.to_owned(),
            names: BTreeSet::new(),
            weights: BTreeMap::new(),
            mixing: None,
        }
    }

    /// Multiplies the weights and biases of all layers that follow by a learned share, until `None` is set. The number
    /// `factor` is stored in the current component.
    pub fn mix(&mut self, factor: Option<(&str, bool)>) {
        self.mixing = factor.map(|(factor, complement)| Mixing {
            factor: format!("{}/{factor}", self.component),
            complement,
        });
    }

    /// Takes the following weights from another component; returns the one used before.
    pub fn weights_from(&mut self, component: &str) -> String {
        std::mem::replace(&mut self.component, component.to_owned())
    }

    /// The shape of a tensor.
    #[must_use]
    pub fn shape(&self, id: TensorId) -> Shape {
        self.graph.tensor(id).shape
    }

    /// All channels of a tensor.
    #[must_use]
    pub fn whole(&self, tensor: TensorId) -> View {
        View { tensor, offset: 0, channels: self.shape(tensor).channels }
    }

    fn tensor(&mut self, name: &str, shape: Shape, kind: TensorKind, precision: Precision) -> TensorId {
        assert!(self.names.insert(name.to_owned()), "two tensors named `{name}` in `{}`", self.graph.name);
        let id = TensorId(u32::try_from(self.graph.tensors.len()).expect("a graph has few tensors"));
        self.graph.tensors.push(Tensor { shape, kind, precision, name: name.to_owned() });
        id
    }

    fn scratch(&mut self, name: &str, shape: Shape) -> TensorId {
        self.tensor(name, shape, TensorKind::Scratch, Precision::Model)
    }

    /// A tensor that is written from outside.
    pub fn input(&mut self, name: &str, shape: Shape, precision: Precision) -> TensorId {
        let id = self.tensor(name, shape, TensorKind::Input, precision);
        self.graph.inputs.push(id);
        id
    }

    /// A tensor that keeps its value between runs, in single precision.
    pub fn state(&mut self, name: &str, shape: Shape) -> TensorId {
        self.tensor(name, shape, TensorKind::State, Precision::Single)
    }

    /// Gives a tensor another name, as the result of a block.
    pub fn rename(&mut self, id: TensorId, name: &str) {
        assert!(self.names.insert(name.to_owned()), "two tensors named `{name}` in `{}`", self.graph.name);
        let tensor = &mut self.graph.tensors[id.0 as usize];
        self.names.remove(&tensor.name);
        name.clone_into(&mut tensor.name);
    }

    /// Keeps a tensor for reading after the run.
    pub fn output(&mut self, id: TensorId) {
        let tensor = &mut self.graph.tensors[id.0 as usize];
        if tensor.kind == TensorKind::Scratch {
            tensor.kind = TensorKind::Output;
        }
        self.graph.outputs.push(id);
    }

    /// The finished graph.
    #[must_use]
    pub fn finish(self) -> Graph {
        assert!(!self.graph.outputs.is_empty(), "`{}` computes nothing", self.graph.name);
        self.graph
    }

    fn weight(
        &mut self,
        name: &str,
        paths: &[(String, u32)],
        dims: &[u32],
        layout: WeightLayout,
    ) -> WeightId {
        let full = |path: &str| format!("{}/{path}", self.component);
        let source = || self.mixing.clone().map_or(PartSource::Stored, PartSource::Mixed);
        let parts: Vec<_> = paths
            .iter()
            .map(|(path, rows)| WeightPart { name: full(path), rows: *rows, source: source() })
            .collect();
        let suffix = if self.mixing.is_some() { " mixed" } else { "" };
        let wanted =
            WeightUse { name: format!("{}{suffix}", full(name)), parts, dims: dims.to_vec(), layout };
        self.used(wanted)
    }

    fn used(&mut self, wanted: WeightUse) -> WeightId {
        let rows = wanted.parts.iter().map(|part| part.rows).sum::<u32>();
        assert_eq!(rows, wanted.dims[0], "rows of `{}`", wanted.name);
        if let Some(&id) = self.weights.get(&wanted.name) {
            assert_eq!(*self.graph.weight(id), wanted, "one weight, two uses");
            return id;
        }
        let id = WeightId(u32::try_from(self.graph.weights.len()).expect("a graph has few weights"));
        self.weights.insert(wanted.name.clone(), id);
        self.graph.weights.push(wanted);
        id
    }

    fn stored(&mut self, path: &str, dims: &[u32], layout: WeightLayout) -> WeightId {
        self.weight(path, &[(path.to_owned(), dims[0])], dims, layout)
    }

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

    fn assert_residual(&self, name: &str, residual: Option<TensorId>, shape: Shape) {
        if let Some(residual) = residual {
            assert_eq!(self.shape(residual), shape, "residual of `{name}`");
        }
    }

    /// Group normalisation with `path.weight`, `path.bias`; the result is named `path`.
    pub fn group_norm(&mut self, path: &str, input: TensorId, spec: GroupNormSpec) -> TensorId {
        let shape = self.shape(input);
        let GroupNormSpec { groups, eps, silu, frames_together } = spec;
        assert_eq!(shape.channels % groups, 0, "groups of `{path}`");
        assert_eq!(shape.frames % frames_together, 0, "frames of `{path}`");
        let (gamma, beta) = self.scale_and_shift(path, shape.channels);
        let out = self.scratch(path, shape);
        self.graph.ops.push(Op::GroupNorm { out, input, gamma, beta, groups, eps, silu, frames_together });
        out
    }

    /// Layer normalisation with `path.weight`, `path.bias`; the result is named `path`.
    pub fn layer_norm(&mut self, path: &str, input: TensorId, eps: f32) -> TensorId {
        let shape = self.shape(input);
        let (gamma, beta) = self.scale_and_shift(path, shape.channels);
        let out = self.scratch(path, shape);
        self.graph.ops.push(Op::LayerNorm { out, input, gamma, beta, eps });
        out
    }

    fn scale_and_shift(&mut self, path: &str, channels: u32) -> (WeightId, WeightId) {
        let gamma = self.stored(&format!("{path}.weight"), &[channels], WeightLayout::Vector);
        (gamma, self.stored(&format!("{path}.bias"), &[channels], WeightLayout::Vector))
    }

    /// First half times the GELU of the second half.
    pub fn geglu(&mut self, name: &str, input: TensorId) -> TensorId {
        let shape = self.shape(input);
        assert_eq!(shape.channels % 2, 0, "channels of `{name}`");
        let out = self.scratch(name, shape.with_channels(shape.channels / 2));
        self.graph.ops.push(Op::Geglu { out, input });
        out
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

    /// An elementwise function.
    pub fn activation(&mut self, name: &str, input: TensorId, function: ActivationFunction) -> TensorId {
        let out = self.scratch(name, self.shape(input));
        self.graph.ops.push(Op::Activation { out, input, function });
        out
    }

    /// Adds row f of the stored table `path` of `rows` rows to frame f of each clip.
    pub fn add_frame_table(
        &mut self,
        name: &str,
        path: &str,
        rows: u32,
        input: TensorId,
        frames: u32,
    ) -> TensorId {
        let shape = self.shape(input);
        assert!(frames <= rows && shape.frames.is_multiple_of(frames), "frames of `{name}`");
        let table = self.stored(path, &[rows, shape.channels], WeightLayout::Table);
        let out = self.scratch(name, shape);
        self.graph.ops.push(Op::AddFrameTable { out, input, table, frames });
        out
    }

    /// Adds to every position of frame f the embedding of its number by the two layers at `path`, which have `hidden`
    /// features between them. The table is made when weights are read.
    pub fn add_frame_embedding(
        &mut self,
        name: &str,
        path: &str,
        hidden: u32,
        input: TensorId,
        frames: u32,
    ) -> TensorId {
        let shape = self.shape(input);
        assert_eq!(shape.frames % frames, 0, "frames of `{name}`");
        let full = format!("{}/{path}", self.component);
        let source = PartSource::FrameEmbedding { hidden };
        let table = self.used(WeightUse {
            name: format!("{full} of {frames} frames"),
            parts: vec![WeightPart { name: full, rows: frames, source }],
            dims: vec![frames, shape.channels],
            layout: WeightLayout::Table,
        });
        let out = self.scratch(name, shape);
        self.graph.ops.push(Op::AddFrameTable { out, input, table, frames });
        out
    }

    /// Channels of both, one after the other.
    pub fn concat(&mut self, name: &str, left: TensorId, right: TensorId) -> TensorId {
        let (first, last) = (self.shape(left), self.shape(right));
        assert_eq!(first.with_channels(1), last.with_channels(1), "rows of `{name}`");
        let out = self.scratch(name, first.with_channels(first.channels + last.channels));
        self.graph.ops.push(Op::Concat { out, left, right });
        out
    }

    /// Token and position embeddings from the stored tables `paths` of `rows` rows each.
    pub fn embed(
        &mut self,
        name: &str,
        ids: TensorId,
        paths: [&str; 2],
        rows: [u32; 2],
        channels: u32,
    ) -> TensorId {
        let shape = self.shape(ids);
        assert!(shape.channels == 1 && shape.frames == 1 && shape.height == 1, "ids {shape} of `{name}`");
        assert!(shape.width <= rows[1], "positions of `{name}`");
        let tokens = self.stored(paths[0], &[rows[0], channels], WeightLayout::Table);
        let positions = self.stored(paths[1], &[rows[1], channels], WeightLayout::Table);
        let out = self.scratch(name, shape.with_channels(channels));
        self.graph.ops.push(Op::Embed { out, ids, tokens, positions });
        out
    }

    /// A linear combination into a new tensor.
    pub fn combine(
        &mut self,
        name: &str,
        terms: &[TensorId],
        coefficients: View,
        precision: Precision,
    ) -> TensorId {
        let out = self.tensor(name, self.shape(terms[0]), TensorKind::Scratch, precision);
        self.combine_into(out, terms, coefficients);
        out
    }

    /// A linear combination into a tensor that exists: a state, also one of the terms.
    pub fn combine_into(&mut self, out: TensorId, terms: &[TensorId], coefficients: View) {
        let shape = self.shape(out);
        assert!(!terms.is_empty() && terms.len() <= 4, "{} terms", terms.len());
        assert!(terms.iter().all(|&term| self.shape(term) == shape), "terms of different shapes");
        assert_eq!(coefficients.channels as usize, terms.len(), "one coefficient per term");
        assert_eq!(self.graph.tensor(coefficients.tensor).precision, Precision::Single, "scalars are single");
        self.graph.ops.push(Op::Combine { out, terms: terms.to_vec(), coefficients });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv_shape(from: Shape, spec: Conv) -> Shape {
        let mut builder = Builder::new("test", "unet");
        let input = builder.input("x", from, Precision::Model);
        let out = builder.conv("conv", input, spec);
        builder.shape(out)
    }

    #[test]
    fn convolutions_infer_their_extents() {
        let from = Shape::new(3, 8, 10, 4);
        let same = Conv::same(16);
        let down = Conv { stride: 2, ..same };
        let right_bottom = Conv { pad: Pad { top: 0, left: 0, bottom: 1, right: 1 }, ..down };
        let up = Conv { upsample: true, ..same };
        let point = Conv { kernel: 1, pad: Pad::even(0), ..same };
        for (spec, height, width) in
            [(same, 8, 10), (down, 4, 5), (right_bottom, 4, 5), (up, 16, 20), (point, 8, 10)]
        {
            assert_eq!(conv_shape(from, spec), Shape::new(3, height, width, 16), "{spec:?}");
        }
    }

    #[test]
    fn a_weight_used_twice_is_listed_once() {
        let mut builder = Builder::new("test", "unet");
        let input = builder.input("x", Shape::new(1, 1, 2, 8), Precision::Model);
        let spec = LinearSpec { channels: 8, bias: true, residual: None };
        let first = builder.linear("fc", input, spec);
        builder.rename(first, "first");
        let second = builder.linear("fc", first, spec);
        builder.output(second);
        let graph = builder.finish();
        assert_eq!(graph.weights.len(), 2);
        assert_eq!(graph.parameters(), 72);
        assert_eq!(graph.weights[0].name, "unet/fc.weight");
        assert_eq!(graph.find("first"), Some(first));
    }

    #[test]
    fn joined_matrices_keep_their_parts_in_order() {
        let mut builder = Builder::new("test", "unet");
        let input = builder.input("x", Shape::new(1, 1, 2, 8), Precision::Model);
        let parts = [("to_q".to_owned(), 8), ("to_k".to_owned(), 4)];
        let spec = LinearSpec { channels: 12, bias: false, residual: None };
        let out = builder.linear_joined("to_qk", &parts, input, spec);
        builder.output(out);
        let graph = builder.finish();
        let names: Vec<_> = graph.weights[0].parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["unet/to_q.weight", "unet/to_k.weight"]);
        assert_eq!(graph.weights[0].dims, [12, 8]);
    }

    #[test]
    #[should_panic(expected = "residual of `fc`")]
    fn a_residual_of_another_shape_is_refused() {
        let mut builder = Builder::new("test", "unet");
        let input = builder.input("x", Shape::new(1, 1, 2, 8), Precision::Model);
        builder.linear("fc", input, LinearSpec { channels: 4, bias: false, residual: Some(input) });
    }
}
