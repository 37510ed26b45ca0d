//! CLIP's text encoder as a graph, and the layer that its encoders of text and pictures share.

use super::configuration::{TextActivation, TextConfig};
use crate::graph::{
    ActivationFunction, AttentionPattern, Builder, LinearSpec, Precision, Shape, TensorId, View,
};

/// Token ids `[1, 1, tokens, 1]` to features `[1, 1, tokens, channels]`: the last layer's output, normalised.
///
/// Weights of a CLIPTextModel without its `text_model.` prefix. Padding is not masked, as in Stable Diffusion.
pub(super) fn encoder(b: &mut Builder, config: &TextConfig) -> TensorId {
    let ids = b.input("ids", Shape::new(1, 1, config.tokens, 1), Precision::Single);
    let tables = ["embeddings.token_embedding.weight", "embeddings.position_embedding.weight"];
    let rows = [config.vocabulary, config.tokens];
    let mut h = b.embed("embeddings", ids, tables, rows, config.channels);
    let spec = Layer {
        intermediate: config.intermediate,
        heads: config.heads,
        activation: config.activation,
        eps: config.eps,
        pattern: AttentionPattern::Causal,
    };
    for index in 0..config.layers {
        h = layer(b, &format!("encoder.layers.{index}"), h, spec);
    }
    b.layer_norm("final_layer_norm", h, config.eps)
}

/// What a CLIPEncoderLayer needs beside its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    /// Features within the feed-forward part.
    pub(super) intermediate: u32,
    /// Heads of the attention.
    pub(super) heads: u32,
    /// Activation of the feed-forward part.
    pub(super) activation: TextActivation,
    /// Added to the variance in layer normalisations.
    pub(super) eps: f32,
    /// Which tokens a token sees.
    pub(super) pattern: AttentionPattern,
}

/// CLIPEncoderLayer: attention, then a feed-forward part, each added to its input; the result is named `path`.
pub(super) fn layer(b: &mut Builder, path: &str, x: TensorId, spec: Layer) -> TensorId {
    let channels = b.shape(x).channels;
    let n = b.layer_norm(&format!("{path}.layer_norm1"), x, spec.eps);
    let parts = ["q_proj", "k_proj", "v_proj"].map(|part| (format!("{path}.self_attn.{part}"), channels));
    let joined = LinearSpec { channels: 3 * channels, bias: true, residual: None };
    let qkv = b.linear_joined(&format!("{path}.self_attn.qkv_proj"), &parts, n, joined);
    let views = [0, 1, 2].map(|n| View { tensor: qkv, offset: n * channels, channels });
    let attended = b.attention(&format!("{path}.self_attn"), views, spec.heads, spec.pattern);
    let residual = LinearSpec { channels, bias: true, residual: Some(x) };
    let x = b.linear(&format!("{path}.self_attn.out_proj"), attended, residual);

    let n = b.layer_norm(&format!("{path}.layer_norm2"), x, spec.eps);
    let wide = LinearSpec { channels: spec.intermediate, bias: true, residual: None };
    let wide = b.linear(&format!("{path}.mlp.fc1"), n, wide);
    let function = match spec.activation {
        TextActivation::QuickGelu => ActivationFunction::QuickGelu,
        TextActivation::Gelu => ActivationFunction::Gelu,
    };
    let active = b.activation(&format!("{path}.mlp.active"), wide, function);
    let residual = LinearSpec { channels, bias: true, residual: Some(x) };
    let out = b.linear(&format!("{path}.mlp.fc2"), active, residual);
    b.rename(out, path);
    out
}
