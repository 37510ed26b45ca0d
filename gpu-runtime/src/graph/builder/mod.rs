//! Builds a graph operation by operation: infers shapes and asserts that operands fit. A misfit is a bug of the model
//! definition; configurations are checked before they come here.

mod gradients;
mod products;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Graph, Mixing, Op, Pad, PartSource, Precision, Shape, Tensor, TensorId, TensorKind, View, WeightId,
    WeightLayout, WeightPart, WeightUse,
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

    /// Goes on with a finished graph.
    #[must_use]
    pub fn resume(graph: Graph) -> Self {
        let id = |index: usize| WeightId(u32::try_from(index).expect("a graph has few weights"));
        Self {
            names: graph.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
            weights: graph.weights.iter().enumerate().map(|(at, used)| (used.name.clone(), id(at))).collect(),
            component: String::new(),
            mixing: None,
            graph,
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

    /// What was built so far.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Puts an operation whose result is a tensor that exists.
    pub fn push(&mut self, op: Op) {
        self.graph.ops.push(op);
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

    /// What was built, also without outputs.
    #[must_use]
    pub fn into_graph(self) -> Graph {
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
        let wanted = WeightUse {
            name: format!("{}{suffix}", full(name)),
            parts,
            dims: dims.to_vec(),
            layout,
            turned: false,
        };
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
