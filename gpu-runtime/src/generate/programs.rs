//! Programs of one model on one backend: loaded when a size is first asked for, kept for the sizes asked for last.

use super::backend::{Backend, ProgramId};
use crate::RuntimeError;
use crate::graph::{Graph, TensorId};
use crate::model::Model;
use crate::model::program::{self, LatentSize};
use crate::weights::Weights;

/// Sizes whose programs are kept. Each holds an arena; weights are shared.
const SIZES_MAX: usize = 4;

/// A loaded program with the names of its tensors.
#[derive(Debug)]
pub(super) struct Loaded {
    id: ProgramId,
    graph: Graph,
}

impl Loaded {
    /// Loads a program with weights of its model.
    pub(super) fn new(
        backend: &mut dyn Backend,
        weights: &Weights,
        graph: Graph,
    ) -> Result<Self, RuntimeError> {
        let id = backend.load(&graph, weights)?;
        Ok(Self { id, graph })
    }

    /// Unloads it.
    pub(super) fn unload(self, backend: &mut dyn Backend) -> Result<(), RuntimeError> {
        backend.unload(self.id)
    }

    /// A tensor's address on the backend.
    pub(super) fn tensor(&self, name: &str) -> (ProgramId, TensorId) {
        let tensor = self.graph.find(name).expect("programs have the tensors that their module names");
        (self.id, tensor)
    }

    /// Number of a tensor's elements.
    pub(super) fn elements(&self, name: &str) -> usize {
        self.graph.tensor(self.tensor(name).1).shape.elements() as usize
    }

    /// Writes a tensor.
    pub(super) fn write(
        &self,
        backend: &mut dyn Backend,
        name: &str,
        values: &[f32],
    ) -> Result<(), RuntimeError> {
        let (program, tensor) = self.tensor(name);
        backend.write(program, tensor, values)
    }

    /// Runs it once.
    pub(super) fn run(&self, backend: &mut dyn Backend) -> Result<(), RuntimeError> {
        backend.run(self.id)
    }

    /// Waits, and reads a tensor.
    pub(super) fn read(&self, backend: &mut dyn Backend, name: &str) -> Result<Vec<f32>, RuntimeError> {
        let (program, tensor) = self.tensor(name);
        let mut values = vec![0.0; self.elements(name)];
        backend.read(program, tensor, &mut values)?;
        Ok(values)
    }
}

/// Programs of one size.
#[derive(Debug)]
pub(super) struct Sized {
    size: LatentSize,
    /// One denoising step.
    pub(super) step: Loaded,
    /// One frame of latents to a picture.
    pub(super) decode: Loaded,
    /// A picture to latents; loaded when the first start picture comes.
    pub(super) encode: Option<Loaded>,
}

/// All programs of a model.
#[derive(Debug)]
pub(super) struct Programs {
    /// Token ids to features.
    pub(super) text: Loaded,
    /// Features to keys and values.
    pub(super) context: Loaded,
    /// By size; the last was used last.
    sizes: Vec<Sized>,
}

impl Programs {
    /// Loads what does not depend on a size.
    pub(super) fn new(backend: &mut dyn Backend, model: &Model) -> Result<Self, RuntimeError> {
        let text = Loaded::new(backend, &model.weights, program::text(&model.text))?;
        let context = program::context(&model.unet, model.text.tokens);
        let context = match Loaded::new(backend, &model.weights, context) {
            Ok(context) => context,
            Err(error) => {
                backend.unload(text.id)?;
                return Err(error);
            }
        };
        Ok(Self { text, context, sizes: Vec::new() })
    }

    /// The programs of a size, loaded where they are not; other sizes make room where memory is short.
    pub(super) fn sized(
        &mut self,
        backend: &mut dyn Backend,
        model: &Model,
        size: LatentSize,
        encode: bool,
    ) -> Result<(), RuntimeError> {
        let mut sized = match self.sizes.iter().position(|sized| sized.size == size) {
            Some(index) => self.sizes.remove(index),
            None => {
                while self.sizes.len() >= SIZES_MAX {
                    self.evict(backend)?;
                }
                let motion = model.motion.as_ref().filter(|_| size.frames > 1);
                let step = program::step(&model.unet, motion, size, model.text.tokens);
                let step = self.load(backend, model, &step)?;
                let decode = program::decode(&model.vae, 1, size.height, size.width);
                let decode = match self.load(backend, model, &decode) {
                    Ok(decode) => decode,
                    Err(error) => {
                        backend.unload(step.id)?;
                        return Err(error);
                    }
                };
                Sized { size, step, decode, encode: None }
            }
        };
        let loaded = if encode && sized.encode.is_none() {
            let graph = program::encode(&model.vae, size.height, size.width);
            self.load(backend, model, &graph).map(|program| sized.encode = Some(program))
        } else {
            Ok(())
        };
        self.sizes.push(sized);
        loaded
    }

    /// The programs of the size that was asked for last.
    ///
    /// # Panics
    /// When none was.
    pub(super) fn current(&self) -> &Sized {
        self.sizes.last().expect("a size was asked for")
    }

    /// Loads a program; where memory is short, sizes that were not used for longest are unloaded until it fits.
    fn load(
        &mut self,
        backend: &mut dyn Backend,
        model: &Model,
        graph: &Graph,
    ) -> Result<Loaded, RuntimeError> {
        loop {
            match Loaded::new(backend, &model.weights, graph.clone()) {
                Err(RuntimeError::OutOfMemory { .. }) if !self.sizes.is_empty() => self.evict(backend)?,
                loaded => return loaded,
            }
        }
    }

    fn evict(&mut self, backend: &mut dyn Backend) -> Result<(), RuntimeError> {
        let Sized { step, decode, encode, .. } = self.sizes.remove(0);
        [Some(step), Some(decode), encode]
            .into_iter()
            .flatten()
            .try_for_each(|program| backend.unload(program.id))
    }

    /// Unloads everything.
    pub(super) fn unload(mut self, backend: &mut dyn Backend) -> Result<(), RuntimeError> {
        while !self.sizes.is_empty() {
            self.evict(backend)?;
        }
        backend.unload(self.text.id)?;
        backend.unload(self.context.id)
    }
}
