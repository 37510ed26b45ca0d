//! Configuration of UNet2DConditionModel, the denoiser of Stable Diffusion 1.5.

use std::path::Path;

use serde_json::{Value, json};

use super::{BLOCKS_MAX, CHANNELS_MAX, LAYERS_MAX, check_groups, levels_with_attention};
use crate::RuntimeError;
use crate::model::keys::Keys;

/// `unet/config.json`: UNet2DConditionModel of the Stable Diffusion 1.5 class.
#[derive(Debug, Clone, PartialEq)]
pub struct UnetConfig {
    /// Channels of the latents.
    pub latent_channels: u32,
    /// Side of the latents that it was trained for.
    pub sample_size: u32,
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
    /// Channels of the text context.
    pub context_channels: u32,
    /// Groups of the group normalisations.
    pub groups: u32,
    /// Added to the variance in residual blocks.
    pub eps: f32,
    /// Channels of the guidance embedding, of models with distilled guidance.
    pub guidance_channels: Option<u32>,
}

impl UnetConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] naming the key at fault.
    pub fn read(path: &Path) -> Result<Self, RuntimeError> {
        let mut keys = Keys::read(path)?;
        keys.only(&Self::implemented())?;
        keys.harmless(&[
            "addition_embed_type_num_heads",
            "class_embeddings_concat",
            "dropout",
            "upcast_attention",
            "use_linear_projection",
        ]);
        let channels = keys.numbers("block_out_channels", 1..=CHANNELS_MAX, 1..=BLOCKS_MAX)?;
        let levels = channels.len();
        let down = keys.words("down_block_types", &[])?;
        let up = keys.words("up_block_types", &[])?;
        let attention_down = levels_with_attention(&keys, "down_block_types", &down, levels, "DownBlock2D")?;
        let attention_up = levels_with_attention(&keys, "up_block_types", &up, levels, "UpBlock2D")?;
        // `attention_head_dim` is the number of heads in every published configuration of this class; diffusers
        // keeps the misnomer for them (UNet2DConditionModel: num_attention_heads or attention_head_dim).
        let mut heads = keys.per_block("attention_head_dim", 1..=256, levels, 8)?;
        if let Some(named) = keys.optional_number("num_attention_heads", 1..=256)? {
            heads = vec![named; levels];
        }
        let config = Self {
            latent_channels: keys.number("in_channels", 1..=64, Some(4))?,
            sample_size: keys.number("sample_size", 1..=1024, Some(64))?,
            layers: keys.number("layers_per_block", 1..=LAYERS_MAX, Some(2))?,
            transformer_layers: keys.per_block("transformer_layers_per_block", 1..=LAYERS_MAX, levels, 1)?,
            heads,
            context_channels: keys.number("cross_attention_dim", 1..=CHANNELS_MAX, None)?,
            groups: keys.number("norm_num_groups", 1..=CHANNELS_MAX, Some(32))?,
            eps: keys.positive("norm_eps", 1e-5)? as f32,
            guidance_channels: keys.optional_number("time_cond_proj_dim", 4..=CHANNELS_MAX)?,
            channels,
            attention_down,
            attention_up,
        };
        let out = keys.number("out_channels", 1..=64, Some(4))?;
        if out != config.latent_channels {
            return Err(keys.bad(format!(
                "`in_channels` {} and `out_channels` {out} differ; models with image conditioning in the channels are not implemented",
                config.latent_channels
            )));
        }
        check_groups(&keys, &config.channels, config.groups)?;
        if !config.channels[0].is_multiple_of(2) {
            return Err(
                keys.bad(format!("`block_out_channels` begins with {}, an odd number", config.channels[0]))
            );
        }
        for (channels, heads) in config.channels.iter().zip(&config.heads) {
            if channels % heads != 0 {
                return Err(keys.bad(format!("{channels} channels are not a multiple of {heads} heads")));
            }
        }
        keys.finish()?;
        Ok(config)
    }

    /// Keys that change results, with the only value that is implemented.
    fn implemented() -> Vec<(&'static str, Value)> {
        vec![
            ("_class_name", json!("UNet2DConditionModel")),
            ("act_fn", json!("silu")),
            ("addition_embed_type", Value::Null),
            ("addition_time_embed_dim", Value::Null),
            ("attention_type", json!("default")),
            ("center_input_sample", json!(false)),
            ("class_embed_type", Value::Null),
            ("conv_in_kernel", json!(3)),
            ("conv_out_kernel", json!(3)),
            ("cross_attention_norm", Value::Null),
            ("downsample_padding", json!(1)),
            ("dual_cross_attention", json!(false)),
            ("encoder_hid_dim", Value::Null),
            ("encoder_hid_dim_type", Value::Null),
            ("flip_sin_to_cos", json!(true)),
            ("freq_shift", json!(0)),
            ("mid_block_only_cross_attention", json!(false)),
            ("mid_block_scale_factor", json!(1)),
            ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
            ("num_class_embeds", Value::Null),
            ("only_cross_attention", json!(false)),
            ("projection_class_embeddings_input_dim", Value::Null),
            ("resnet_out_scale_factor", json!(1.0)),
            ("resnet_skip_time_act", json!(false)),
            ("resnet_time_scale_shift", json!("default")),
            ("reverse_transformer_layers_per_block", Value::Null),
            ("time_embedding_act_fn", Value::Null),
            ("time_embedding_dim", Value::Null),
            ("time_embedding_type", json!("positional")),
            ("timestep_post_act", Value::Null),
        ]
    }
}
