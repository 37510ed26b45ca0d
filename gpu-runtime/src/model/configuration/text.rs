//! Configuration of CLIP text encoders.

use std::path::Path;

use serde_json::json;

use super::CHANNELS_MAX;
use crate::RuntimeError;
use crate::model::keys::Keys;

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
