//! Blocks that several networks share: residual blocks, transformer blocks, motion modules.

use crate::graph::{AttentionPattern, Builder, Conv, GroupNormSpec, LinearSpec, TensorId, View};

/// Added to the variance in the group normalisation before a transformer (diffusers' Transformer2DModel and
/// AnimateDiffTransformer3D; residual blocks have their own).
pub(super) const TRANSFORMER_EPS: f32 = 1e-6;

/// Added to the variance in the layer normalisations of transformer blocks.
pub(super) const BLOCK_EPS: f32 = 1e-5;

/// Group normalisation of residual blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    /// Number of groups.
    pub(super) groups: u32,
    /// Added to the variance.
    pub(super) eps: f32,
}

impl Norm {
    /// Followed by SiLU, statistics of one frame.
    pub(super) fn silu(self) -> GroupNormSpec {
        GroupNormSpec { groups: self.groups, eps: self.eps, silu: true, frames_together: 1 }
    }
}

/// conv(silu(norm(conv(silu(norm(x))) + time))) + shortcut(x).
pub(super) fn resnet(
    b: &mut Builder,
    path: &str,
    x: TensorId,
    channels: u32,
    norm: Norm,
    time: Option<View>,
) -> TensorId {
    let h = b.group_norm(&format!("{path}.norm1"), x, norm.silu());
    let h = b.conv(&format!("{path}.conv1"), h, Conv { channel_add: time, ..Conv::same(channels) });
    let h = b.group_norm(&format!("{path}.norm2"), h, norm.silu());
    let shortcut = if b.shape(x).channels == channels {
        x
    } else {
        b.linear(&format!("{path}.conv_shortcut"), x, LinearSpec { channels, bias: true, residual: None })
    };
    let out = b.conv(&format!("{path}.conv2"), h, Conv { residual: Some(shortcut), ..Conv::same(channels) });
    b.rename(out, path);
    out
}

/// What an attention layer looks at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sight {
    /// Its own input.
    Itself(AttentionPattern),
    /// Keys and values computed beforehand.
    Context {
        /// Keys.
        key: View,
        /// Values.
        value: View,
    },
}

/// An attention layer with output projection, added to `residual`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    /// Number of heads.
    pub(super) heads: u32,
    /// What it looks at.
    pub(super) sight: Sight,
    /// Whether the projections of queries, keys and values have a bias.
    pub(super) bias: bool,
    /// Added to the result.
    pub(super) residual: TensorId,
}

/// residual + to_out(attention(x)); the result is named `path`.
pub(super) fn attention(b: &mut Builder, path: &str, x: TensorId, spec: Attention) -> TensorId {
    let channels = b.shape(x).channels;
    let attended = attended(b, path, x, spec);
    let spec = LinearSpec { channels, bias: true, residual: Some(spec.residual) };
    let out = b.linear(&format!("{path}.to_out.0"), attended, spec);
    b.rename(out, path);
    out
}

/// attention(x) before its output projection.
pub(super) fn attended(b: &mut Builder, path: &str, x: TensorId, spec: Attention) -> TensorId {
    let channels = b.shape(x).channels;
    match spec.sight {
        Sight::Itself(pattern) => {
            let parts = ["to_q", "to_k", "to_v"].map(|part| (format!("{path}.{part}"), channels));
            let joined = LinearSpec { channels: 3 * channels, bias: spec.bias, residual: None };
            let qkv = b.linear_joined(&format!("{path}.to_qkv"), &parts, x, joined);
            let views = [0, 1, 2].map(|n| View { tensor: qkv, offset: n * channels, channels });
            b.attention(&format!("{path}.attended"), views, spec.heads, pattern)
        }
        Sight::Context { key, value } => {
            let plain = LinearSpec { channels, bias: spec.bias, residual: None };
            let query = b.linear(&format!("{path}.to_q"), x, plain);
            let views = [b.whole(query), key, value];
            b.attention(&format!("{path}.attended"), views, spec.heads, AttentionPattern::Cross)
        }
    }
}

/// x + feed-forward(norm(x)) with GEGLU; the result is named `path`.
pub(super) fn feed_forward(b: &mut Builder, path: &str, norm: &str, x: TensorId) -> TensorId {
    let channels = b.shape(x).channels;
    let h = b.layer_norm(norm, x, BLOCK_EPS);
    let wide = LinearSpec { channels: 8 * channels, bias: true, residual: None };
    let h = b.linear(&format!("{path}.net.0.proj"), h, wide);
    let h = b.geglu(&format!("{path}.net.0"), h);
    let narrow = LinearSpec { channels, bias: true, residual: Some(x) };
    let out = b.linear(&format!("{path}.net.2"), h, narrow);
    b.rename(out, path);
    out
}

/// Attention within a frame, attention to the context, feed-forward: one Transformer2DModel with its blocks.
///
/// `context` gives keys and values of each block, in order.
pub(super) fn spatial_transformer(
    b: &mut Builder,
    path: &str,
    x: TensorId,
    heads: u32,
    groups: u32,
    context: &[(View, View)],
) -> TensorId {
    let channels = b.shape(x).channels;
    let norm = GroupNormSpec { groups, eps: TRANSFORMER_EPS, silu: false, frames_together: 1 };
    let h = b.group_norm(&format!("{path}.norm"), x, norm);
    let mut h = b.linear(&format!("{path}.proj_in"), h, LinearSpec { channels, bias: true, residual: None });
    for (index, &(key, value)) in context.iter().enumerate() {
        let block = format!("{path}.transformer_blocks.{index}");
        let n = b.layer_norm(&format!("{block}.norm1"), h, BLOCK_EPS);
        let sight = Sight::Itself(AttentionPattern::Spatial);
        h = attention(b, &format!("{block}.attn1"), n, Attention { heads, sight, bias: false, residual: h });
        let n = b.layer_norm(&format!("{block}.norm2"), h, BLOCK_EPS);
        let sight = Sight::Context { key, value };
        h = attention(b, &format!("{block}.attn2"), n, Attention { heads, sight, bias: false, residual: h });
        h = feed_forward(b, &format!("{block}.ff"), &format!("{block}.norm3"), h);
    }
    let out = LinearSpec { channels, bias: true, residual: Some(x) };
    let out = b.linear(&format!("{path}.proj_out"), h, out);
    b.rename(out, path);
    out
}

/// What a motion module needs beside its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Motion {
    /// Frames of one clip.
    pub(super) frames: u32,
    /// Rows of the position table.
    pub(super) frames_max: u32,
    /// Heads of the attention.
    pub(super) heads: u32,
    /// Groups of the normalisation.
    pub(super) groups: u32,
    /// Transformer blocks.
    pub(super) layers: u32,
}

/// Attention across the frames of each position, twice, and feed-forward: AnimateDiffTransformer3D.
///
/// Nothing is permuted: the attention reads with a stride, the statistics of the normalisation span the clip.
pub(super) fn motion_module(b: &mut Builder, path: &str, x: TensorId, motion: Motion) -> TensorId {
    let channels = b.shape(x).channels;
    let component = b.weights_from("motion_adapter");
    let Motion { frames, frames_max, heads, groups, layers } = motion;
    let norm = GroupNormSpec { groups, eps: TRANSFORMER_EPS, silu: false, frames_together: frames };
    let h = b.group_norm(&format!("{path}.norm"), x, norm);
    let mut h = b.linear(&format!("{path}.proj_in"), h, LinearSpec { channels, bias: true, residual: None });
    for index in 0..layers {
        let block = format!("{path}.transformer_blocks.{index}");
        let table = format!("{block}.pos_embed.pe");
        for n in [1, 2] {
            let normed = b.layer_norm(&format!("{block}.norm{n}"), h, BLOCK_EPS);
            let placed =
                b.add_frame_table(&format!("{block}.pos_embed.{n}"), &table, frames_max, normed, frames);
            let sight = Sight::Itself(AttentionPattern::Temporal { frames });
            let spec = Attention { heads, sight, bias: false, residual: h };
            h = attention(b, &format!("{block}.attn{n}"), placed, spec);
        }
        h = feed_forward(b, &format!("{block}.ff"), &format!("{block}.norm3"), h);
    }
    let out = LinearSpec { channels, bias: true, residual: Some(x) };
    let out = b.linear(&format!("{path}.proj_out"), h, out);
    b.rename(out, path);
    b.weights_from(&component);
    out
}
