//! Programs of one model on one backend: loaded when a size is first asked for, kept for the sizes asked for last.

use super::backend::Backend;
use super::loaded::Loaded;
use crate::RuntimeError;
use crate::graph::Graph;
use crate::model::Model;
use crate::model::program::{self, LatentSize};

/// Sizes whose programs are kept. Each holds an arena; weights are shared.
const SIZES_MAX: usize = 4;

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
                text.unload(backend)?;
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
                        step.unload(backend)?;
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
            .try_for_each(|program| program.unload(backend))
    }

    /// Unloads everything.
    pub(super) fn unload(mut self, backend: &mut dyn Backend) -> Result<(), RuntimeError> {
        while !self.sizes.is_empty() {
            self.evict(backend)?;
        }
        self.text.unload(backend)?;
        self.context.unload(backend)
    }
}
