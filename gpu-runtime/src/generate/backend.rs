//! What executes programs: the CPU reference or a GPU. The same graph runs on both.

use crate::RuntimeError;
use crate::graph::{Graph, TensorId};
use crate::weights::Weights;

/// A loaded program of one backend; never used again after it was unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(pub u32);

/// Memory of a backend in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Held by this backend: weights, arenas, tensors of programs.
    pub used: u64,
    /// What could still be allocated.
    pub free: u64,
}

/// A device with loaded programs.
///
/// Element order on the host is always the tensor's: frames, height, width, channels, in f32.
pub trait Backend {
    /// What it runs on, for messages and profiles: `cpu`, or a GPU's name.
    fn device(&self) -> String;

    /// Reads the weights of a graph (once for all programs that name the same weight) and makes it ready to run.
    ///
    /// States are zero after loading.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] when a weight does not fit, [`RuntimeError::OutOfMemory`].
    fn load(&mut self, graph: &Graph, weights: &Weights) -> Result<ProgramId, RuntimeError>;

    /// Writes an input or a state.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed.
    ///
    /// # Panics
    /// When the number of values is not that of the tensor's elements, or the tensor is neither input nor state.
    fn write(&mut self, program: ProgramId, tensor: TensorId, values: &[f32]) -> Result<(), RuntimeError>;

    /// Runs all operations of a program once. It may return before the device has finished; `read` waits.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed.
    fn run(&mut self, program: ProgramId) -> Result<(), RuntimeError>;

    /// Waits for the device and reads an output or a state.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed.
    ///
    /// # Panics
    /// When the number of values is not that of the tensor's elements, or the tensor is scratch.
    fn read(&mut self, program: ProgramId, tensor: TensorId, values: &mut [f32]) -> Result<(), RuntimeError>;

    /// Copies a tensor of one program to an input or state of another (or the same), on the device.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed.
    ///
    /// # Panics
    /// When the number of elements differs, or one of them is scratch.
    fn copy(&mut self, from: (ProgramId, TensorId), to: (ProgramId, TensorId)) -> Result<(), RuntimeError>;

    /// Frees a program, and its weights where no other program uses them.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed.
    fn unload(&mut self, program: ProgramId) -> Result<(), RuntimeError>;

    /// Memory held and free.
    fn memory(&self) -> Memory;
}
