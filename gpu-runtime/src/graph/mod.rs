//! The plan of a model: operations with shapes, arena offsets, floating-point operations and bytes. Pure.
//!
//! A [`Graph`] is data: backends walk [`Graph::ops`] in order, training differentiates the same list. Nothing here
//! knows a device, a file or a number of a weight. Tensors are channels last: `[frames, height, width, channels]`.

mod arena;
mod builder;
mod cost;
mod gradient;
mod op;
mod tensor;
mod weight;

pub use arena::{Arena, Slot};
pub use builder::{Builder, Conv, LinearSpec};
pub use cost::{Cost, OpCost};
pub use gradient::{AttentionGradient, Gradient};
pub use op::{ActivationFunction, AttentionPattern, GroupNormSpec, Op, Pad};
pub use tensor::{Precision, Shape, Tensor, TensorId, TensorKind, View};
pub use weight::{Mixing, PartSource, TURNED, WeightId, WeightLayout, WeightPart, WeightUse, turned};

/// A program: what is computed, over which tensors, with which weights, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// What the program does, for messages: `step`, `decode`.
    pub name: String,
    /// All tensors; a [`TensorId`] is an index.
    pub tensors: Vec<Tensor>,
    /// All weights; a [`WeightId`] is an index. No weight is listed twice.
    pub weights: Vec<WeightUse>,
    /// Operations in an order in which every input has been written before it is read.
    pub ops: Vec<Op>,
    /// Tensors that the host or another program writes before a run.
    pub inputs: Vec<TensorId>,
    /// Tensors that may be read after a run.
    pub outputs: Vec<TensorId>,
}

impl Graph {
    /// The tensor of an id.
    ///
    /// # Panics
    /// When the id is of another graph.
    #[must_use]
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0 as usize]
    }

    /// The weight of an id.
    ///
    /// # Panics
    /// When the id is of another graph.
    #[must_use]
    pub fn weight(&self, id: WeightId) -> &WeightUse {
        &self.weights[id.0 as usize]
    }

    /// The tensor with this name; names are unique within a graph.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TensorId> {
        self.tensors.iter().position(|tensor| tensor.name == name).map(|index| TensorId(index as u32))
    }

    /// The same program with every scratch tensor kept as an output, so that each can be read after a run.
    ///
    /// For comparisons block by block; it needs as much memory as all tensors together.
    #[must_use]
    pub fn keep_all(mut self) -> Self {
        for (index, tensor) in self.tensors.iter_mut().enumerate() {
            if tensor.kind == TensorKind::Scratch {
                tensor.kind = TensorKind::Output;
                self.outputs.push(TensorId(index as u32));
            }
        }
        self
    }

    /// Parameters of the weights that this program uses.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.weights.iter().map(WeightUse::elements).sum()
    }
}
