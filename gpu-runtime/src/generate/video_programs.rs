//! Programs of one image-to-video model on one backend. Those of one size are kept: a clip's tensors are large.

use std::collections::BTreeMap;

use super::backend::Backend;
use super::loaded::Loaded;
use crate::RuntimeError;
use crate::model::VideoModel;
use crate::model::program::{self, LatentSize};

/// All programs of a model.
#[derive(Debug)]
pub(super) struct VideoPrograms {
    image: Loaded,
    sized: Option<Sized>,
}

/// Programs of one size.
#[derive(Debug)]
struct Sized {
    size: LatentSize,
    step: Loaded,
    encode: Loaded,
    /// By the number of frames that they decode.
    decode: BTreeMap<u32, Loaded>,
}

impl VideoPrograms {
    /// Loads what does not depend on a size.
    pub(super) fn new(backend: &mut dyn Backend, model: &VideoModel) -> Result<Self, RuntimeError> {
        let image = Loaded::new(backend, &model.weights, program::image(&model.vision))?;
        Ok(Self { image, sized: None })
    }

    /// Makes the programs of a size the current ones, with decoders for runs of `together` frames and what is left.
    pub(super) fn sized(
        &mut self,
        backend: &mut dyn Backend,
        model: &VideoModel,
        size: LatentSize,
        together: u32,
    ) -> Result<(), RuntimeError> {
        let runs = [together, size.frames % together];
        let kept = self.sized.as_ref().is_some_and(|sized| {
            sized.size == size && runs.iter().all(|run| *run == 0 || sized.decode.contains_key(run))
        });
        if kept {
            return Ok(());
        }
        self.evict(backend)?;
        let mut loaded = Vec::new();
        let graphs =
            [program::video_step(&model.unet, size), program::encode(&model.vae, size.height, size.width)]
                .into_iter()
                .chain(
                    runs.into_iter()
                        .filter(|run| *run > 0)
                        .map(|frames| program::decode(&model.vae, frames, size.height, size.width)),
                );
        for graph in graphs {
            match Loaded::new(backend, &model.weights, graph) {
                Ok(program) => loaded.push(program),
                Err(error) => {
                    loaded.into_iter().try_for_each(|program| program.unload(backend))?;
                    return Err(error);
                }
            }
        }
        let mut loaded = loaded.into_iter();
        let mut next = || loaded.next().expect("as many programs as graphs");
        let (step, encode) = (next(), next());
        let decode = runs.into_iter().filter(|run| *run > 0).map(|run| (run, next())).collect();
        let sized = self.sized.insert(Sized { size, step, encode, decode });
        sized.step.write(backend, program::SHARES, &program::shares(&model.unet, &model.weights)?)
    }

    /// Picture to embedding.
    pub(super) fn image(&self) -> &Loaded {
        &self.image
    }

    /// One denoising step.
    pub(super) fn step(&self) -> &Loaded {
        &self.current().step
    }

    /// Start picture to latents.
    pub(super) fn encode(&self) -> &Loaded {
        &self.current().encode
    }

    /// Latents of so many frames to pictures.
    ///
    /// # Panics
    /// When no decoder for them was asked for.
    pub(super) fn decode(&self, frames: u32) -> &Loaded {
        self.current().decode.get(&frames).expect("loaded for the request")
    }

    fn current(&self) -> &Sized {
        self.sized.as_ref().expect("a size was asked for")
    }

    fn evict(&mut self, backend: &mut dyn Backend) -> Result<(), RuntimeError> {
        let Some(Sized { step, encode, decode, .. }) = self.sized.take() else { return Ok(()) };
        [step, encode].into_iter().chain(decode.into_values()).try_for_each(|program| program.unload(backend))
    }

    /// Unloads everything.
    pub(super) fn unload(mut self, backend: &mut dyn Backend) -> Result<(), RuntimeError> {
        self.evict(backend)?;
        self.image.unload(backend)
    }
}
