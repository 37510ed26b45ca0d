//! The folder of an image-to-video model: its configurations and weights, checked against each other.

use std::path::Path;

use super::ModelSource;
use super::configuration::{PixelNorm, VaeConfig, VideoUnetConfig, VisionConfig};
use super::folder::{FRAMES_MAX, SIDE_MAX};
use super::keys::Keys;
use super::program::{self, LatentSize};
use crate::RuntimeError;
use crate::graph::Graph;
use crate::weights::{Component, Weights};

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Text to pictures and animations: [`super::Model`].
    Text,
    /// A picture to a clip: [`VideoModel`].
    Video,
}

impl Class {
    /// Reads the class of the folder's denoising network.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] when there is none.
    pub fn of(folder: &Path) -> Result<Self, RuntimeError> {
        if !folder.is_dir() {
            return Err(RuntimeError::BadModel { path: folder.to_owned(), why: "is no folder".to_owned() });
        }
        let path = folder.join(Component::Unet.name()).join("config.json");
        let class = Keys::read(&path)?.word("_class_name")?;
        Ok(if class.as_deref() == Some("UNetSpatioTemporalConditionModel") {
            Self::Video
        } else {
            Self::Text
        })
    }
}

/// Numbers that the network is told beside the time: frame rate, motion, noise of the start picture.
const ADDED_NUMBERS: u32 = 3;

/// An opened image-to-video model.
#[derive(Debug)]
pub struct VideoModel {
    /// Name of the folder.
    pub name: String,
    /// Where it came from.
    pub source: ModelSource,
    /// Image encoder.
    pub vision: VisionConfig,
    /// What a picture's levels become before it.
    pub pixels: PixelNorm,
    /// Denoising network.
    pub unet: VideoUnetConfig,
    /// Encoder of the start picture and decoder of the clip.
    pub vae: VaeConfig,
    /// Stored tensors.
    pub weights: Weights,
}

impl VideoModel {
    /// Opens a model and checks that every weight of every program is there and fits.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] naming the file, the key or tensor at fault, and the remedy.
    pub fn open(source: &ModelSource) -> Result<Self, RuntimeError> {
        let folder = &source.folder;
        let bad = |why: String| RuntimeError::BadModel { path: folder.clone(), why };
        if let Some(motion) = &source.motion_adapter {
            let why = format!("makes clips by itself and takes no motion adapter (`{}`)", motion.display());
            return Err(bad(why));
        }
        let config = |component: Component| folder.join(component.name()).join("config.json");
        let unet = VideoUnetConfig::read(&config(Component::Unet))?;
        let vision = VisionConfig::read(&config(Component::ImageEncoder))?;
        let vae = VaeConfig::read(&config(Component::Vae))?;
        let pixels = PixelNorm::read(&folder.join("feature_extractor").join("preprocessor_config.json"))?;
        check_agreement(&unet, &vision, &vae).map_err(bad)?;
        let mut weights = Weights::new();
        for component in [Component::ImageEncoder, Component::Unet, Component::Vae] {
            weights.add(component, &folder.join(component.name()))?;
        }
        for (path, strength) in &source.adapters {
            weights.fuse_adapter(path, *strength)?;
        }
        for graph in smallest_video_programs(&vision, &unet, &vae) {
            weights.check(&graph)?;
        }
        // The shares of blends are no weights of an operation.
        program::shares(&unet, &weights)?;
        let name =
            folder.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into());
        Ok(Self { name, source: source.clone(), vision, pixels, unet, vae, weights })
    }

    /// Pixels of which a frame's sides must be multiples, so that every level of the networks has whole positions.
    #[must_use]
    pub fn side_step(&self) -> u32 {
        self.vae.factor() << (self.unet.channels.len() - 1)
    }

    /// Width and height of frames where nothing is said: the area that it was trained for, at 16 to 9.
    #[must_use]
    pub fn size_usual(&self) -> (u32, u32) {
        let side = self.unet.sample_size * self.vae.factor();
        let step = self.side_step();
        let whole = |pixels: u32| (pixels / step).clamp(1, SIDE_MAX / step) * step;
        (whole(side * 4 / 3), whole(side * 3 / 4))
    }

    /// Latents of a clip of `frames` frames of `width × height` pixels.
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
        if frames == 0 || frames > FRAMES_MAX {
            return bad(format!("{frames} frames are not within 1 to {FRAMES_MAX}"));
        }
        let factor = self.vae.factor();
        Ok(LatentSize { clips: 1, frames, height: height / factor, width: width / factor })
    }
}

fn check_agreement(unet: &VideoUnetConfig, vision: &VisionConfig, vae: &VaeConfig) -> Result<(), String> {
    if vision.projection != unet.context_channels {
        return Err(format!(
            "its image encoder gives {} channels and its UNet expects {}; they are of different models",
            vision.projection, unet.context_channels
        ));
    }
    if !vae.temporal_decoder {
        return Err("its VAE has no temporal decoder, which image-to-video models need".to_owned());
    }
    if vae.latent_channels != unet.latent_channels {
        return Err(format!(
            "its VAE has {} latent channels and its UNet {}; they are of different models",
            vae.latent_channels, unet.latent_channels
        ));
    }
    let numbers = unet.added_channels_all / unet.added_channels;
    if numbers != ADDED_NUMBERS {
        return Err(format!(
            "its UNet is told {numbers} numbers; {ADDED_NUMBERS} (frame rate, motion, noise) are implemented"
        ));
    }
    Ok(())
}

/// All programs at the smallest size; together they name every weight of a model that is read.
pub(crate) fn smallest_video_programs(
    vision: &VisionConfig,
    unet: &VideoUnetConfig,
    vae: &VaeConfig,
) -> [Graph; 4] {
    let side = 1 << (unet.channels.len() - 1);
    let size = LatentSize { clips: 1, frames: 1, height: side, width: side };
    [
        program::image(vision),
        program::video_step(unet, size),
        program::decode(vae, 1, side, side),
        program::encode(vae, side, side),
    ]
}
