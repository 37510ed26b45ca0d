//! A model folder: its configurations and weights, checked against each other.

use std::path::{Path, PathBuf};

use super::configuration::{MotionConfig, TextConfig, UnetConfig, VaeConfig};
use super::program::{self, LatentSize};
use crate::RuntimeError;
use crate::graph::Graph;
use crate::weights::{Component, Weights};

/// Largest side of a frame in pixels.
pub(super) const SIDE_MAX: u32 = 2048;

/// Most frames of one request.
pub(super) const FRAMES_MAX: u32 = 64;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSource {
    /// A pipeline's folder in the diffusers layout: `text_encoder`, `unet`, `vae`, `tokenizer`, `scheduler`.
    pub folder: PathBuf,
    /// The folder of a motion adapter.
    pub motion_adapter: Option<PathBuf>,
    /// Low-rank adapters fused at load, with their strengths.
    pub adapters: Vec<(PathBuf, f32)>,
}

impl ModelSource {
    /// A folder as it is, with its own `motion_adapter` where it has one.
    #[must_use]
    pub fn folder(folder: &Path) -> Self {
        let own = folder.join(Component::MotionAdapter.name());
        Self { folder: folder.to_owned(), motion_adapter: own.is_dir().then_some(own), adapters: Vec::new() }
    }
}

/// An opened model: configurations, and weights that are read when a backend loads a program.
#[derive(Debug)]
pub struct Model {
    /// Name of the folder.
    pub name: String,
    /// Where it came from.
    pub source: ModelSource,
    /// Text encoder.
    pub text: TextConfig,
    /// Denoising network.
    pub unet: UnetConfig,
    /// Motion modules, of models that make clips.
    pub motion: Option<MotionConfig>,
    /// Encoder and decoder of pictures.
    pub vae: VaeConfig,
    /// Stored tensors.
    pub weights: Weights,
}

impl Model {
    /// Opens a model and checks that every weight of every program is there and fits.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] naming the file, the key or tensor at fault, and the remedy.
    pub fn open(source: &ModelSource) -> Result<Self, RuntimeError> {
        let folder = &source.folder;
        if !folder.is_dir() {
            return Err(RuntimeError::BadModel { path: folder.clone(), why: "is no folder".to_owned() });
        }
        let config = |component: Component| folder.join(component.name()).join("config.json");
        let unet = UnetConfig::read(&config(Component::Unet))?;
        let motion = source
            .motion_adapter
            .as_ref()
            .map(|motion| MotionConfig::read(&motion.join("config.json"), &unet))
            .transpose()?;
        let mut weights = Weights::new();
        for component in [Component::TextEncoder, Component::Unet, Component::Vae] {
            weights.add(component, &folder.join(component.name()))?;
        }
        if let Some(motion) = &source.motion_adapter {
            weights.add(Component::MotionAdapter, motion)?;
        }
        for (path, strength) in &source.adapters {
            weights.fuse_adapter(path, *strength)?;
        }
        let name =
            folder.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into());
        let model = Self {
            name,
            source: source.clone(),
            text: TextConfig::read(&config(Component::TextEncoder))?,
            vae: VaeConfig::read(&config(Component::Vae))?,
            unet,
            motion,
            weights,
        };
        model.check_agreement()?;
        for graph in smallest_programs(&model.text, &model.unet, model.motion.as_ref(), &model.vae) {
            model.weights.check(&graph)?;
        }
        Ok(model)
    }

    fn check_agreement(&self) -> Result<(), RuntimeError> {
        let bad = |why: String| RuntimeError::BadModel { path: self.source.folder.clone(), why };
        if self.text.channels != self.unet.context_channels {
            return Err(bad(format!(
                "its text encoder gives {} channels and its UNet expects {}; they are of different models",
                self.text.channels, self.unet.context_channels
            )));
        }
        if self.vae.temporal_decoder {
            return Err(bad(
                "its VAE has a temporal decoder, which goes with image-to-video models only".to_owned()
            ));
        }
        if self.vae.latent_channels != self.unet.latent_channels {
            return Err(bad(format!(
                "its VAE has {} latent channels and its UNet {}; they are of different models",
                self.vae.latent_channels, self.unet.latent_channels
            )));
        }
        Ok(())
    }

    /// Pixels of which a frame's sides must be multiples, so that every level of the networks has whole positions.
    #[must_use]
    pub fn side_step(&self) -> u32 {
        self.vae.factor() << (self.unet.channels.len() - 1)
    }

    /// Latents of a request for `frames` frames of `width × height` pixels.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] when the model cannot make them.
    pub fn latent_size(&self, frames: u32, width: u32, height: u32) -> Result<LatentSize, RuntimeError> {
        let bad = |why: String| Err(RuntimeError::BadRequest { why });
        let step = self.side_step();
        for (name, side) in [("width", width), ("height", height)] {
            if side == 0 || side > SIDE_MAX || !side.is_multiple_of(step) {
                return bad(format!("{name} {side} is not a multiple of {step} from {step} to {SIDE_MAX}"));
            }
        }
        let frames_max = self.motion.as_ref().map_or(1, |motion| motion.frames_max.min(FRAMES_MAX));
        if frames == 0 || frames > frames_max {
            let remedy = if self.motion.is_some() { "" } else { " (more need a motion adapter)" };
            return bad(format!("{frames} frames are not within 1 to {frames_max}{remedy}"));
        }
        let factor = self.vae.factor();
        Ok(LatentSize { clips: 1, frames, height: height / factor, width: width / factor })
    }
}

/// All programs at the smallest size; together they name every weight of a model.
pub(crate) fn smallest_programs(
    text: &TextConfig,
    unet: &UnetConfig,
    motion: Option<&MotionConfig>,
    vae: &VaeConfig,
) -> [Graph; 5] {
    let side = 1 << (unet.channels.len() - 1);
    let size = LatentSize { clips: 1, frames: 1, height: side, width: side };
    [
        program::text(text),
        program::context(unet, text.tokens),
        program::step(unet, motion, size, text.tokens),
        program::decode(vae, 1, side, side),
        program::encode(vae, side, side),
    ]
}
