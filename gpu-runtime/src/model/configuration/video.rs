//! Configuration of UNetSpatioTemporalConditionModel, the denoiser of Stable Video Diffusion.

use std::path::Path;

use serde_json::json;

use super::{BLOCKS_MAX, CHANNELS_MAX, LAYERS_MAX, check_groups, levels_with_attention};
use crate::RuntimeError;
use crate::model::keys::Keys;

/// Groups of all its normalisations; diffusers has no key for it.
pub(in crate::model) const GROUPS: u32 = 32;

/// `unet/config.json` of an image-to-video model.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoUnetConfig {
    /// Channels of the latents that come out; as many of the start picture's go in beside them.
    pub latent_channels: u32,
    /// Side of the latents that it was trained for.
    pub sample_size: u32,
    /// Frames that it was trained for.
    pub frames: u32,
    /// Channels of each level, finest first.
    pub channels: Vec<u32>,
    /// Whether each level of the way down has attention.
    pub attention_down: Vec<bool>,
    /// Whether each level of the way up has attention, coarsest first.
    pub attention_up: Vec<bool>,
    /// Residual blocks per level on the way down; one more on the way up.
    pub layers: u32,
    /// Transformer blocks of each attention, per level.
    pub transformer_layers: Vec<u32>,
    /// Heads of the attention, per level.
    pub heads: Vec<u32>,
    /// Channels of the picture's embedding.
    pub context_channels: u32,
    /// Channels of the embedding of each added number (frame rate, motion, noise of the start picture).
    pub added_channels: u32,
    /// Channels of these embeddings side by side.
    pub added_channels_all: u32,
}

impl VideoUnetConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] naming the key at fault.
    pub fn read(path: &Path) -> Result<Self, RuntimeError> {
        let mut keys = Keys::read(path)?;
        keys.only(&[("_class_name", json!("UNetSpatioTemporalConditionModel"))])?;
        let channels = keys.numbers("block_out_channels", 1..=CHANNELS_MAX, 1..=BLOCKS_MAX)?;
        let levels = channels.len();
        let down = keys.words("down_block_types", &[])?;
        let up = keys.words("up_block_types", &[])?;
        let plain = ["DownBlockSpatioTemporal", "UpBlockSpatioTemporal"];
        let config = Self {
            attention_down: levels_with_attention(&keys, "down_block_types", &down, levels, plain[0])?,
            attention_up: levels_with_attention(&keys, "up_block_types", &up, levels, plain[1])?,
            latent_channels: keys.number("out_channels", 1..=64, Some(4))?,
            sample_size: keys.number("sample_size", 1..=1024, Some(96))?,
            frames: keys.number("num_frames", 1..=1024, Some(25))?,
            layers: keys.number("layers_per_block", 1..=LAYERS_MAX, Some(2))?,
            transformer_layers: keys.per_block("transformer_layers_per_block", 1..=LAYERS_MAX, levels, 1)?,
            heads: keys.per_block("num_attention_heads", 1..=256, levels, 5)?,
            context_channels: keys.number("cross_attention_dim", 1..=CHANNELS_MAX, Some(1024))?,
            added_channels: keys.number("addition_time_embed_dim", 2..=CHANNELS_MAX, Some(256))?,
            added_channels_all: keys.number(
                "projection_class_embeddings_input_dim",
                2..=CHANNELS_MAX,
                Some(768),
            )?,
            channels,
        };
        let into = keys.number("in_channels", 1..=128, Some(8))?;
        if into != 2 * config.latent_channels {
            return Err(keys.bad(format!(
                "`in_channels` {into} is not twice `out_channels` {}; only a start picture beside the latents is implemented",
                config.latent_channels
            )));
        }
        if !config.added_channels_all.is_multiple_of(config.added_channels) {
            return Err(keys.bad(format!(
                "`projection_class_embeddings_input_dim` {} is not a multiple of `addition_time_embed_dim` {}",
                config.added_channels_all, config.added_channels
            )));
        }
        check_groups(&keys, &config.channels, GROUPS)?;
        for (channels, heads) in config.channels.iter().zip(&config.heads) {
            if channels % heads != 0 {
                return Err(keys.bad(format!("{channels} channels are not a multiple of {heads} heads")));
            }
        }
        keys.finish()?;
        Ok(config)
    }
}
