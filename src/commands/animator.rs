//! A model that is loaded on a device, with what it does where a command line says nothing.

use std::path::Path;

use gpu_runtime::RuntimeError;
use gpu_runtime::generate::{self, Generator};

use super::device::Opened;
use super::model_args::{ModelArgs, Size};
use crate::progress::Progress;

/// Frames that motion models were trained with.
const FRAMES_TRAINED: u32 = 16;
/// Guidance that latent consistency models are shown with.
const GUIDANCE_DEFAULT: f64 = 8.0;

/// A model on a device.
pub(crate) struct Animator {
    pub(crate) generator: Generator,
    /// What it runs on.
    pub(crate) device: String,
    /// Processor and versions.
    pub(crate) host: String,
    /// Why it does not run on a GPU, where it would have.
    pub(crate) note: Option<String>,
}

impl Animator {
    /// Opens device and model.
    ///
    /// # Errors
    /// What the runtime says about either.
    pub(crate) fn open(model: &Path, args: &ModelArgs) -> Result<Self, RuntimeError> {
        let Opened { backend, host, note } = args.device.open()?;
        let generator = Generator::new(&args.source(model), backend)?;
        Ok(Self { device: generator.device(), generator, host, note })
    }

    /// Frames of a clip; 1 without motion modules.
    pub(crate) fn frames_default(&self) -> u32 {
        self.generator.model().motion.as_ref().map_or(1, |motion| motion.frames_max.min(FRAMES_TRAINED))
    }

    /// What the model was trained for.
    pub(crate) fn size_default(&self) -> Size {
        let model = self.generator.model();
        let side = model.unet.sample_size * model.vae.factor();
        Size { width: side, height: side }
    }

    /// The scale that was asked for, or the usual one of the kind of model.
    pub(crate) fn guidance(&self, args: &ModelArgs) -> f64 {
        let embedded = self.generator.model().unet.guidance_channels.is_some();
        args.guidance.unwrap_or(if embedded { GUIDANCE_DEFAULT } else { 1.0 })
    }
}

/// Shows where a request stands.
pub(crate) fn told(progress: &Progress, at: generate::Progress) {
    match at {
        generate::Progress::Conditioned => progress.reach("steps", 0, 1),
        generate::Progress::Step { done, of } => progress.reach("steps", done.into(), of.into()),
        generate::Progress::Frame { done, of } => progress.reach("frames", done.into(), of.into()),
    }
}
