//! Configuration of AnimateDiff's motion adapters.

use std::path::Path;

use serde_json::{Value, json};

use super::{BLOCKS_MAX, CHANNELS_MAX, LAYERS_MAX, UnetConfig, check_groups};
use crate::RuntimeError;
use crate::model::keys::Keys;

/// `motion_adapter/config.json`: MotionAdapter of AnimateDiff.
#[derive(Debug, Clone, PartialEq)]
pub struct MotionConfig {
    /// Channels of each level; those of the UNet.
    pub channels: Vec<u32>,
    /// Motion modules per level on the way down; one more on the way up.
    pub layers: u32,
    /// Transformer blocks of each module.
    pub transformer_layers: u32,
    /// Whether the middle has a module too.
    pub middle: bool,
    /// Heads of the temporal attention.
    pub heads: u32,
    /// Groups of the group normalisation.
    pub groups: u32,
    /// Rows of the position table: most frames of one clip.
    pub frames_max: u32,
}

impl MotionConfig {
    /// Reads and checks a file against the UNet to which it belongs.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] naming the key at fault.
    pub fn read(path: &Path, unet: &UnetConfig) -> Result<Self, RuntimeError> {
        let mut keys = Keys::read(path)?;
        keys.only(&[
            ("_class_name", json!("MotionAdapter")),
            ("conv_in_channels", Value::Null),
            ("motion_mid_block_layers_per_block", json!(1)),
            ("motion_transformer_layers_per_mid_block", json!(1)),
        ])?;
        let channels = keys.numbers("block_out_channels", 1..=CHANNELS_MAX, 1..=BLOCKS_MAX)?;
        let config = Self {
            layers: keys.number("motion_layers_per_block", 1..=LAYERS_MAX, Some(2))?,
            transformer_layers: keys.number(
                "motion_transformer_layers_per_block",
                1..=LAYERS_MAX,
                Some(1),
            )?,
            middle: keys.flag("use_motion_mid_block", true)?,
            heads: keys.number("motion_num_attention_heads", 1..=256, Some(8))?,
            groups: keys.number("motion_norm_num_groups", 1..=CHANNELS_MAX, Some(32))?,
            frames_max: keys.number("motion_max_seq_length", 1..=1024, Some(32))?,
            channels,
        };
        if config.channels != unet.channels || config.layers != unet.layers {
            return Err(keys.bad(format!(
                "is made for levels of {:?} channels with {} layers, but the UNet has {:?} with {}",
                config.channels, config.layers, unet.channels, unet.layers
            )));
        }
        check_groups(&keys, &config.channels, config.groups)?;
        if let Some(channels) = config.channels.iter().find(|channels| *channels % config.heads != 0) {
            return Err(keys.bad(format!("{channels} channels are not a multiple of {} heads", config.heads)));
        }
        keys.finish()?;
        Ok(config)
    }
}
