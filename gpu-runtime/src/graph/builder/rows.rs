//! Normalisations, elementwise operations, tables: what costs bytes alone.

use super::Builder;
use crate::graph::{
    ActivationFunction, GroupNormSpec, Op, PartSource, Precision, TensorId, TensorKind, View, WeightId,
    WeightLayout, WeightPart, WeightUse,
};

impl Builder {
    /// Group normalisation with `path.weight`, `path.bias`; the result is named `path`.
    pub fn group_norm(&mut self, path: &str, input: TensorId, spec: GroupNormSpec) -> TensorId {
        let shape = self.shape(input);
        assert_eq!(shape.channels % spec.groups, 0, "groups of `{path}`");
        assert_eq!(shape.frames % spec.frames_together, 0, "frames of `{path}`");
        let (gamma, beta) = self.scale_and_shift(path, shape.channels);
        let out = self.scratch(path, shape);
        self.graph.ops.push(Op::GroupNorm { out, input, gamma, beta, spec });
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
            turned: false,
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
