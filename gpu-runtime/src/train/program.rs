//! The programs of a training: the network with its adapters, and the same with the way back. Text features go through both,
//! so that the keys and values of cross attentions are trained as well.

use std::collections::BTreeMap;

use super::adapter::{Adapters, Pair, Scope, sites};
use super::attach::{Joint, attach};
use super::reverse::{Ends, UNITS, UNITS_NAME, reverse};
use crate::RuntimeError;
use crate::generate::{Backend, ProgramId};
use crate::graph::{Builder, Graph, Precision, Shape, TensorId, View};
use crate::model::program::{self, LatentSize};
use crate::model::{MotionConfig, UnetConfig};
use crate::weights::Weights;

/// Input of the way back: what should have been predicted.
pub(super) const TARGET: &str = "target";
/// Input of the way back: factors of prediction and target in the gradient of the loss by the prediction.
const FACTORS: &str = "factors";

/// The programs, not loaded yet. Pure.
pub(super) struct Programs {
    /// Text features and noised latents to a prediction.
    there: Graph,
    /// The same and the way back.
    back: Graph,
    result: TensorId,
    joints: Vec<Joint>,
    /// Gradients of each joint's down and up.
    gradients: Vec<[Option<TensorId>; 2]>,
}

impl Programs {
    /// The programs for samples of a size, with a fresh adapter for each layer of the scope.
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
        let (back, gradients) = with_way_back(there.clone(), result, &joints);
        Self { there, back, result, joints, gradients }
    }

    pub(super) fn load(self, weights: &Weights, backend: &mut dyn Backend) -> Result<Loaded, RuntimeError> {
        let back = backend.load(&self.back, weights)?;
        let there = backend.load(&self.there, weights)?;
        if let Some(units) = self.back.find(UNITS_NAME) {
            backend.write(back, units, &UNITS)?;
        }
        Ok(Loaded { programs: self, ids: [there, back], fresh: [false; 2] })
    }
}

/// What training holds in a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingBytes {
    /// Weights of the network, those that the way back uses turned once more.
    pub weights: u64,
    /// Tensors of the network with and without the way back.
    pub tensors: u64,
}

impl TrainingBytes {
    /// Counts a network, samples of a size and adapters of a rank, from configurations alone. `memory_of` is a backend's
    /// count of a program's weights and tensors: [`crate::cpu::memory_of`], [`crate::cuda::memory_of`].
    #[must_use]
    pub fn of(
        unet: &UnetConfig,
        motion: Option<&MotionConfig>,
        samples: (LatentSize, u32),
        (rank, scope): (u32, Scope),
        memory_of: impl Fn(&Graph) -> (u64, u64),
    ) -> Self {
        let [there, back] = graphs(unet, motion, samples, (rank, scope)).map(|graph| memory_of(&graph));
        Self { weights: back.0, tensors: there.1 + back.1 }
    }
}

/// The graphs of a training without and with the way back, for samples of a size with so many tokens, and adapters of a rank:
/// for counts, and for launches without a device.
#[must_use]
pub fn graphs(
    unet: &UnetConfig,
    motion: Option<&MotionConfig>,
    samples: (LatentSize, u32),
    (rank, scope): (u32, Scope),
) -> [Graph; 2] {
    let mut adapters = Adapters { rank: rank as usize, alpha: 1.0, layers: Vec::new() };
    let programs = Programs::new(unet, motion, samples, (scope, 0), &mut adapters);
    [programs.there, programs.back]
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

/// The programs on a backend.
pub(super) struct Loaded {
    programs: Programs,
    /// Without and with the way back.
    ids: [ProgramId; 2],
    /// Whether each has the adapters as they are.
    fresh: [bool; 2],
}

impl Loaded {
    /// Writes an input by its name wherever it is one.
    pub(super) fn write(
        &mut self,
        backend: &mut dyn Backend,
        name: &str,
        values: &[f32],
    ) -> Result<(), RuntimeError> {
        let mut found = false;
        for (graph, id) in [&self.programs.there, &self.programs.back].into_iter().zip(self.ids) {
            if let Some(tensor) = graph.find(name) {
                backend.write(id, tensor, values)?;
                found = true;
            }
        }
        assert!(found, "programs have the tensors that their module names, `{name}` too");
        Ok(())
    }

    /// Says that the adapters have changed.
    pub(super) fn forget_adapters(&mut self) {
        self.fresh = [false; 2];
    }

    pub(super) fn sample_elements(&self) -> usize {
        let latents = self.programs.there.find(program::LATENTS).expect("samples enter as latents");
        self.programs.there.tensor(latents).shape.elements() as usize
    }

    /// Runs the program without (0) or with (1) the way back; gives the prediction.
    fn run(
        &mut self,
        backend: &mut dyn Backend,
        which: usize,
        adapters: &Adapters,
    ) -> Result<Vec<f32>, RuntimeError> {
        let id = self.ids[which];
        if !self.fresh[which] {
            for joint in &self.programs.joints {
                joint.write(backend, id, adapters, which == 1)?;
            }
            self.fresh[which] = true;
        }
        backend.run(id)?;
        read(backend, id, &self.programs.there, self.programs.result)
    }

    /// The prediction for what was written last.
    pub(super) fn predict(
        &mut self,
        backend: &mut dyn Backend,
        adapters: &Adapters,
    ) -> Result<Vec<f32>, RuntimeError> {
        self.run(backend, 0, adapters)
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
        let predicted = self.run(backend, 1, adapters)?;
        let Programs { back, joints, gradients: found, .. } = &self.programs;
        for (joint, of_matrices) in joints.iter().zip(found) {
            let mut values = joint.elements().map(|elements| vec![0.0; elements]);
            for (of_matrix, values) in of_matrices.iter().zip(&mut values) {
                if let Some(of_matrix) = of_matrix {
                    *values = read(backend, self.ids[1], back, *of_matrix)?;
                }
            }
            joint.add(&values[0], &values[1], adapters, gradients);
        }
        Ok(predicted)
    }
}

fn read(
    backend: &mut dyn Backend,
    program: ProgramId,
    graph: &Graph,
    tensor: TensorId,
) -> Result<Vec<f32>, RuntimeError> {
    let mut values = vec![0.0; graph.tensor(tensor).shape.elements() as usize];
    backend.read(program, tensor, &mut values)?;
    Ok(values)
}
