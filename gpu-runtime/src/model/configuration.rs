//! Configurations of the components, checked so that every graph built from them has shapes that fit.

use std::path::Path;

use serde_json::{Value, json};

use super::keys::Keys;
use super::video_config::GROUPS;
use crate::RuntimeError;

/// Widest layer that is accepted.
pub(super) const CHANNELS_MAX: u32 = 8192;
/// Most resolution levels of a network.
pub(super) const BLOCKS_MAX: usize = 8;
/// Most layers per level, and most blocks per transformer. Published models have up to 3 and 10; together with
/// [`BLOCKS_MAX`] this bounds the plan that a configuration can ask for.
pub(super) const LAYERS_MAX: u32 = 16;
/// Most layers of a text encoder.
const TEXT_LAYERS_MAX: u32 = 64;

/// Activation of the text encoder's feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextActivation {
    /// x · sigmoid(1.702 x): OpenAI's CLIP.
    QuickGelu,
    /// Exact-erf GELU: OpenCLIP.
    Gelu,
}

/// `text_encoder/config.json`: CLIPTextModel.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Number of tokens that have an embedding.
    pub vocabulary: u32,
    /// Features of a token.
    pub channels: u32,
    /// Features within the feed-forward layers.
    pub intermediate: u32,
    /// Number of layers.
    pub layers: u32,
    /// Heads of the attention.
    pub heads: u32,
    /// Length of a prompt in tokens, padding included.
    pub tokens: u32,
    /// Activation of the feed-forward layers.
    pub activation: TextActivation,
    /// Added to the variance in layer normalisations.
    pub eps: f32,
}

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

impl TextConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] naming the key at fault.
    pub fn read(path: &Path) -> Result<Self, RuntimeError> {
        let mut keys = Keys::read(path)?;
        keys.only(&[("model_type", json!("clip_text_model"))])?;
        keys.harmless(&[
            "architectures",
            "attention_dropout",
            "bos_token_id",
            "dropout",
            "dtype",
            "eos_token_id",
            "gradient_checkpointing",
            "initializer_factor",
            "initializer_range",
            "pad_token_id",
            "projection_dim",
            "torch_dtype",
            "transformers_version",
        ]);
        let activation = match keys.word("hidden_act")?.as_deref() {
            None | Some("quick_gelu") => TextActivation::QuickGelu,
            Some("gelu") => TextActivation::Gelu,
            Some(other) => return Err(keys.bad(format!("`hidden_act` is {other}, not quick_gelu or gelu"))),
        };
        let config = Self {
            vocabulary: keys.number("vocab_size", 1..=1 << 20, Some(49_408))?,
            channels: keys.number("hidden_size", 1..=CHANNELS_MAX, Some(512))?,
            intermediate: keys.number("intermediate_size", 1..=4 * CHANNELS_MAX, Some(2048))?,
            layers: keys.number("num_hidden_layers", 1..=TEXT_LAYERS_MAX, Some(12))?,
            heads: keys.number("num_attention_heads", 1..=256, Some(8))?,
            tokens: keys.number("max_position_embeddings", 2..=1024, Some(77))?,
            activation,
            eps: keys.positive("layer_norm_eps", 1e-5)? as f32,
        };
        if !config.channels.is_multiple_of(config.heads) {
            return Err(keys.bad(format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                config.channels, config.heads
            )));
        }
        keys.finish()?;
        Ok(config)
    }
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

/// Which levels have attention; the types of all levels must be those of this class.
pub(super) fn levels_with_attention(
    keys: &Keys,
    key: &str,
    types: &[String],
    levels: usize,
    plain: &str,
) -> Result<Vec<bool>, RuntimeError> {
    if types.len() != levels {
        return Err(keys.bad(format!("`{key}` names {} levels, `block_out_channels` {levels}", types.len())));
    }
    let attention = format!("CrossAttn{plain}");
    types
        .iter()
        .map(|kind| match kind.as_str() {
            kind if kind == attention => Ok(true),
            kind if kind == plain => Ok(false),
            other => {
                Err(keys.bad(format!("`{key}` names `{other}`; {attention} and {plain} are implemented")))
            }
        })
        .collect()
}

pub(super) fn check_groups(keys: &Keys, channels: &[u32], groups: u32) -> Result<(), RuntimeError> {
    match channels.iter().find(|channels| *channels % groups != 0) {
        None => Ok(()),
        Some(channels) => Err(keys.bad(format!("{channels} channels are not a multiple of {groups} groups"))),
    }
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
