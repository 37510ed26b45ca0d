//! Configuration of CLIP image encoders, and of what is done to a picture before.

use std::path::Path;

use serde_json::json;

use super::{CHANNELS_MAX, TextActivation};
use crate::RuntimeError;
use crate::model::keys::Keys;

/// Most layers of an image encoder; ViT-bigG has 48.
const VISION_LAYERS_MAX: u32 = 64;
/// Longest side of the pictures that it takes.
const SIDE_MAX: u32 = 1024;

/// `image_encoder/config.json`: CLIPVisionModelWithProjection.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Side of the picture in pixels.
    pub side: u32,
    /// Side of a patch in pixels; divides `side`.
    pub patch: u32,
    /// Features of a token.
    pub channels: u32,
    /// Features within the feed-forward layers.
    pub intermediate: u32,
    /// Number of layers.
    pub layers: u32,
    /// Heads of the attention.
    pub heads: u32,
    /// Channels of the embedding.
    pub projection: u32,
    /// Activation of the feed-forward layers.
    pub activation: TextActivation,
    /// Added to the variance in layer normalisations.
    pub eps: f32,
}

impl VisionConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] naming the key at fault.
    pub fn read(path: &Path) -> Result<Self, RuntimeError> {
        let mut keys = Keys::read(path)?;
        keys.only(&[("model_type", json!("clip_vision_model")), ("num_channels", json!(3))])?;
        keys.harmless(&[
            "architectures",
            "attention_dropout",
            "dropout",
            "dtype",
            "initializer_factor",
            "initializer_range",
            "torch_dtype",
            "transformers_version",
        ]);
        let activation = match keys.word("hidden_act")?.as_deref() {
            None | Some("quick_gelu") => TextActivation::QuickGelu,
            Some("gelu") => TextActivation::Gelu,
            Some(other) => return Err(keys.bad(format!("`hidden_act` is {other}, not quick_gelu or gelu"))),
        };
        let config = Self {
            side: keys.number("image_size", 1..=SIDE_MAX, Some(224))?,
            patch: keys.number("patch_size", 1..=SIDE_MAX, Some(32))?,
            channels: keys.number("hidden_size", 1..=CHANNELS_MAX, Some(768))?,
            intermediate: keys.number("intermediate_size", 1..=4 * CHANNELS_MAX, Some(3072))?,
            layers: keys.number("num_hidden_layers", 1..=VISION_LAYERS_MAX, Some(12))?,
            heads: keys.number("num_attention_heads", 1..=256, Some(12))?,
            projection: keys.number("projection_dim", 1..=CHANNELS_MAX, Some(512))?,
            activation,
            eps: keys.positive("layer_norm_eps", 1e-5)? as f32,
        };
        if !config.channels.is_multiple_of(config.heads) {
            return Err(keys.bad(format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                config.channels, config.heads
            )));
        }
        let patches = config.side / config.patch;
        if !config.side.is_multiple_of(config.patch) || patches * patches > 4095 {
            return Err(keys.bad(format!(
                "`image_size` {} is not 1 to 63 times `patch_size` {}",
                config.side, config.patch
            )));
        }
        keys.finish()?;
        Ok(config)
    }

    /// Patches and the class token.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        let patches = self.side / self.patch;
        patches * patches + 1
    }

    /// Numbers of one patch.
    #[must_use]
    pub fn patch_elements(&self) -> u32 {
        3 * self.patch * self.patch
    }
}

/// `feature_extractor/preprocessor_config.json`: how levels in 0..1 are normalised. How a picture is cut and scaled does
/// not count: image-to-video pipelines do that themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelNorm {
    /// Subtracted, by red, green, blue.
    pub mean: [f64; 3],
    /// Then divided by.
    pub deviation: [f64; 3],
}

impl PixelNorm {
    /// Reads a file.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] naming the key at fault.
    pub fn read(path: &Path) -> Result<Self, RuntimeError> {
        let mut keys = Keys::read(path)?;
        keys.only(&[("do_normalize", json!(true))])?;
        let mean = keys.triple("image_mean")?;
        let deviation = keys.triple("image_std")?;
        if deviation.iter().any(|value| *value <= 0.0) {
            return Err(keys.bad(format!("`image_std` is {deviation:?}, not three positive numbers")));
        }
        Ok(Self { mean, deviation })
    }
}
