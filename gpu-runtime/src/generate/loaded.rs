//! A program on a backend, with the names of its tensors.

use super::backend::{Backend, ProgramId};
use crate::RuntimeError;
use crate::graph::{Graph, TensorId};
use crate::weights::Weights;

/// A loaded program. It is unloaded by [`Loaded::unload`] or with its backend.
#[derive(Debug)]
pub(crate) struct Loaded {
    id: ProgramId,
    graph: Graph,
}

impl Loaded {
    /// Loads a program with weights of its model.
    pub(crate) fn new(
        backend: &mut dyn Backend,
        weights: &Weights,
        graph: Graph,
    ) -> Result<Self, RuntimeError> {
        let id = backend.load(&graph, weights)?;
        Ok(Self { id, graph })
    }

    /// Unloads it.
    pub(crate) fn unload(self, backend: &mut dyn Backend) -> Result<(), RuntimeError> {
        backend.unload(self.id)
    }

    /// A tensor's address on the backend.
    ///
    /// # Panics
    /// When the program has no tensor of this name.
    pub(crate) fn tensor(&self, name: &str) -> (ProgramId, TensorId) {
        let tensor = self.graph.find(name).expect("programs have the tensors that their module names");
        (self.id, tensor)
    }

    /// Number of a tensor's elements.
    pub(crate) fn elements(&self, name: &str) -> usize {
        self.graph.tensor(self.tensor(name).1).shape.elements() as usize
    }

    /// Writes a tensor.
    pub(crate) fn write(
        &self,
        backend: &mut dyn Backend,
        name: &str,
        values: &[f32],
    ) -> Result<(), RuntimeError> {
        self.write_at(backend, self.tensor(name).1, values)
    }

    /// The same by its id.
    pub(crate) fn write_at(
        &self,
        backend: &mut dyn Backend,
        tensor: TensorId,
        values: &[f32],
    ) -> Result<(), RuntimeError> {
        backend.write(self.id, tensor, values)
    }

    /// Runs it once.
    pub(crate) fn run(&self, backend: &mut dyn Backend) -> Result<(), RuntimeError> {
        backend.run(self.id)
    }

    /// Waits, and reads a tensor.
    pub(crate) fn read(&self, backend: &mut dyn Backend, name: &str) -> Result<Vec<f32>, RuntimeError> {
        self.read_at(backend, self.tensor(name).1)
    }

    /// The same by its id.
    pub(crate) fn read_at(
        &self,
        backend: &mut dyn Backend,
        tensor: TensorId,
    ) -> Result<Vec<f32>, RuntimeError> {
        let mut values = vec![0.0; self.graph.tensor(tensor).shape.elements() as usize];
        backend.read(self.id, tensor, &mut values)?;
        Ok(values)
    }
}
