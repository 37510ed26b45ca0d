//! A model that is loaded on a device, with what it does where a command line says nothing.

use std::path::Path;

use gpu_runtime::RuntimeError;
use gpu_runtime::generate::{self, Generator};

use super::device::Opened;
use super::model_args::{ModelArgs, Size};
use crate::progress::Progress;

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
        self.generator.frames_usual()
    }

    /// What the model was trained for.
    pub(crate) fn size_default(&self) -> Size {
        let side = self.generator.side_usual();
        Size { width: side, height: side }
    }

    /// The scale that was asked for, or the usual one of the kind of model.
    pub(crate) fn guidance(&self, args: &ModelArgs) -> f64 {
        args.guidance.unwrap_or_else(|| self.generator.guidance_usual())
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
