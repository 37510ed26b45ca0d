//! Configuration of encoders and decoders of pictures.

use std::path::Path;

use serde_json::{Value, json};

use super::video::GROUPS;
use super::{BLOCKS_MAX, CHANNELS_MAX, LAYERS_MAX, check_groups};
use crate::RuntimeError;
use crate::model::keys::Keys;

/// `vae/config.json`: AutoencoderKL or AutoencoderKLTemporalDecoder.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeConfig {
    /// Channels of each level, finest first.
    pub channels: Vec<u32>,
    /// Residual blocks per level of the encoder; one more in the decoder.
    pub layers: u32,
    /// Groups of the group normalisations.
    pub groups: u32,
    /// Channels of the latents.
    pub latent_channels: u32,
    /// Latents of the denoiser are those of the encoder times this.
    pub scaling_factor: f64,
    /// Whether the middle has attention.
    pub attention: bool,
    /// Whether a 1 × 1 convolution follows the encoder.
    pub quantize: bool,
    /// Whether a 1 × 1 convolution precedes the decoder.
    pub dequantize: bool,
    /// Whether the decoder looks across frames: AutoencoderKLTemporalDecoder of image-to-video models.
    pub temporal_decoder: bool,
}

impl VaeConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] naming the key at fault.
    pub fn read(path: &Path) -> Result<Self, RuntimeError> {
        let mut keys = Keys::read(path)?;
        let temporal_decoder = match keys.word("_class_name")?.as_deref() {
            None | Some("AutoencoderKL") => false,
            Some("AutoencoderKLTemporalDecoder") => true,
            Some(other) => return Err(keys.bad(format!("`_class_name` is {other}, not AutoencoderKL"))),
        };
        keys.only(&[
            ("act_fn", json!("silu")),
            ("in_channels", json!(3)),
            ("out_channels", json!(3)),
            ("latents_mean", Value::Null),
            ("latents_std", Value::Null),
            ("shift_factor", json!(0)),
        ])?;
        keys.harmless(&["force_upcast", "sample_size"]);
        let channels = keys.numbers("block_out_channels", 1..=CHANNELS_MAX, 1..=BLOCKS_MAX)?;
        let ways = [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")];
        for (key, implemented) in if temporal_decoder { &ways[..1] } else { &ways[..] } {
            let types = keys.words(key, &[])?;
            if types.len() != channels.len() || types.iter().any(|kind| kind != *implemented) {
                return Err(keys.bad(format!("`{key}` is {types:?}, not {} × {implemented}", channels.len())));
            }
        }
        let config = Self {
            layers: keys.number("layers_per_block", 1..=LAYERS_MAX, Some(1))?,
            groups: keys.number("norm_num_groups", 1..=CHANNELS_MAX, Some(32))?,
            latent_channels: keys.number("latent_channels", 1..=64, Some(4))?,
            temporal_decoder,
            scaling_factor: keys.positive("scaling_factor", 0.18215)?,
            attention: keys.flag("mid_block_add_attention", true)?,
            quantize: keys.flag("use_quant_conv", true)?,
            dequantize: keys.flag("use_post_quant_conv", !temporal_decoder)?,
            channels,
        };
        check_groups(&keys, &config.channels, config.groups)?;
        if temporal_decoder && (config.groups != GROUPS || config.layers < 2 || config.dequantize) {
            return Err(keys.bad(format!(
                "a temporal decoder with {} groups and {} layers; {GROUPS} and at least 2 are implemented",
                config.groups, config.layers
            )));
        }
        keys.finish()?;
        Ok(config)
    }

    /// Pixels per latent in each direction.
    #[must_use]
    pub fn factor(&self) -> u32 {
        1 << (self.channels.len() - 1)
    }
}
