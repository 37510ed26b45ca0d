//! The program of a training: the network with its adapters, and the way back. Text features go through it, so that the keys and
//! values of cross attentions are trained as well. Where only a prediction is wanted it runs as a whole too: that happens
//! 16 times in a training, and a second program would need its own tensors.

use std::collections::BTreeMap;

use super::adapter::{Adapters, Pair, Scope, sites};
use super::attach::{Joint, attach};
use super::reverse::{Ends, UNITS, UNITS_NAME, reverse};
use crate::RuntimeError;
use crate::generate::{Backend, Loaded};
use crate::graph::{Builder, Graph, Precision, Shape, TensorId, View};
use crate::model::program::{self, LatentSize};
use crate::model::{MotionConfig, UnetConfig};
use crate::weights::Weights;

/// Input of the way back: what should have been predicted.
pub(super) const TARGET: &str = "target";
/// Input of the way back: factors of prediction and target in the gradient of the loss by the prediction.
const FACTORS: &str = "factors";

/// The program, not loaded yet. Pure.
pub(super) struct Program {
    graph: Graph,
    result: TensorId,
    joints: Vec<Joint>,
    /// Gradients of each joint's down and up.
    gradients: Vec<[Option<TensorId>; 2]>,
}

impl Program {
    /// The program for samples of a size, with a fresh adapter for each layer of the scope.
    pub(super) fn new(
        unet: &UnetConfig,
        motion: Option<&MotionConfig>,
        (size, tokens): (LatentSize, u32),
        (scope, seed): (Scope, u64),
        adapters: &mut Adapters,
    ) -> Self {
        let motion = motion.filter(|_| size.frames > 1);
        let there = program::prediction(unet, motion, size, tokens);
        let found = sites(&there, scope, seed, adapters);
        let (there, joints) = attach(there, &found, adapters);
        let result = there.outputs[0];
        let (graph, gradients) = with_way_back(there, result, &joints);
        Self { graph, result, joints, gradients }
    }

    pub(super) fn load(self, weights: &Weights, backend: &mut dyn Backend) -> Result<Network, RuntimeError> {
        let Self { graph, result, joints, gradients } = self;
        let units = graph.find(UNITS_NAME);
        let loaded = Loaded::new(backend, weights, graph)?;
        if let Some(units) = units {
            loaded.write_at(backend, units, &UNITS)?;
        }
        Ok(Network { loaded, result, joints, gradients, fresh: false })
    }
}

/// The graph of a training, for samples of a size with so many tokens, and adapters of a rank: for counts of memory and work,
/// and for launches without a device.
#[must_use]
pub fn graph(
    unet: &UnetConfig,
    motion: Option<&MotionConfig>,
    samples: (LatentSize, u32),
    (rank, scope): (u32, Scope),
) -> Graph {
    let mut adapters = Adapters { rank: rank as usize, alpha: 1.0, layers: Vec::new() };
    Program::new(unet, motion, samples, (scope, 0), &mut adapters).graph
}

/// Appends the gradient of the mean squared error, and the way back from it to the joints' matrices.
fn with_way_back(there: Graph, result: TensorId, joints: &[Joint]) -> (Graph, Vec<[Option<TensorId>; 2]>) {
    let mut b = Builder::resume(there);
    let target = b.input(TARGET, b.shape(result), Precision::Single);
    let factors = b.input(FACTORS, Shape::new(1, 1, 1, 2), Precision::Single);
    let factors = View { tensor: factors, offset: 0, channels: 2 };
    let of_result = b.combine("error", &[result, target], factors, Precision::Model);
    let leaves: Vec<_> = joints.iter().flat_map(|joint| [joint.down, joint.up]).collect();
    let turned: BTreeMap<_, _> = joints
        .iter()
        .flat_map(|joint| [(joint.down, joint.down_turned), (joint.up, joint.up_turned)])
        .collect();
    let ends = Ends { result, of_result, leaves: &leaves, turned: &turned };
    let (graph, gradients) = reverse(b, &ends);
    (graph, gradients.as_chunks().0.to_vec())
}

/// The program on a backend.
pub(super) struct Network {
    loaded: Loaded,
    result: TensorId,
    joints: Vec<Joint>,
    gradients: Vec<[Option<TensorId>; 2]>,
    /// Whether it has the adapters as they are.
    fresh: bool,
}

impl Network {
    /// Writes an input by its name.
    pub(super) fn write(
        &self,
        backend: &mut dyn Backend,
        name: &str,
        values: &[f32],
    ) -> Result<(), RuntimeError> {
        self.loaded.write(backend, name, values)
    }

    /// Says that the adapters have changed.
    pub(super) fn forget_adapters(&mut self) {
        self.fresh = false;
    }

    pub(super) fn sample_elements(&self) -> usize {
        self.loaded.elements(program::LATENTS)
    }

    /// The prediction for what was written last.
    pub(super) fn predict(
        &mut self,
        backend: &mut dyn Backend,
        adapters: &Adapters,
    ) -> Result<Vec<f32>, RuntimeError> {
        if !self.fresh {
            for joint in &self.joints {
                joint.write(backend, &self.loaded, adapters)?;
            }
            self.fresh = true;
        }
        self.loaded.run(backend)?;
        self.loaded.read_at(backend, self.result)
    }

    /// The same; adds the gradients of Σ factor / 2 · (prediction - target)².
    pub(super) fn differentiate(
        &mut self,
        backend: &mut dyn Backend,
        adapters: &Adapters,
        factor: f64,
        gradients: &mut [Pair],
    ) -> Result<Vec<f32>, RuntimeError> {
        self.write(backend, FACTORS, &[factor as f32, -factor as f32])?;
        let predicted = self.predict(backend, adapters)?;
        for (joint, of_matrices) in self.joints.iter().zip(&self.gradients) {
            let mut values = joint.elements().map(|elements| vec![0.0; elements]);
            for (of_matrix, values) in of_matrices.iter().zip(&mut values) {
                if let Some(of_matrix) = of_matrix {
                    *values = self.loaded.read_at(backend, *of_matrix)?;
                }
            }
            joint.add(&values[0], &values[1], adapters, gradients);
        }
        Ok(predicted)
    }
}
