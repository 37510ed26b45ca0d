//! The denoising network of image-to-video models as a graph: UNetSpatioTemporalConditionModel.
//!
//! Two savings are exact. A blend a · s + (1 - a) · (s + f) is s + (1 - a) · f, so the share goes into the weights of the
//! layer that ends f. Attention to a context of one token is a constant vector, since a softmax over one key is one: its
//! queries, keys and normalisation are not computed, and their weights not read.

use super::blocks::{Attention, BLOCK_EPS, Norm, Sight, TRANSFORMER_EPS, attended, feed_forward, resnet};
use super::configuration::{GROUPS, VideoUnetConfig};
use crate::graph::{
    ActivationFunction, AttentionPattern, Builder, Conv, GroupNormSpec, LinearSpec, Mixing, Pad, Precision,
    TensorId, View,
};

/// Added to the variance at the network's end, in its middle and in levels without attention on the way down. Levels
/// with attention and the way up have 1e-6 (diffusers' defaults; there is no key for it).
const EPS_WIDE: f32 = 1e-5;
const EPS_NARROW: f32 = 1e-6;

/// Tensors that the network reads beside the latents.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    /// Sinusoid of the time step, `[1, 1, 1, channels of the first level]`.
    pub(super) timestep: TensorId,
    /// Sinusoids of the added numbers side by side.
    pub(super) added: TensorId,
    /// Embedding of the start picture, `[1, 1, 1, context channels]`.
    pub(super) context: TensorId,
    /// Pairs of shares of [`blends`], `[1, 1, 1, 2 × blends]`.
    pub(super) shares: TensorId,
}

/// Path, level and ε of every residual block, in the order of the forward pass.
fn resnet_parts(config: &VideoUnetConfig) -> Vec<(String, usize, f32)> {
    let levels = config.channels.len();
    let mut parts = Vec::new();
    for level in 0..levels {
        let eps = if config.attention_down[level] { EPS_NARROW } else { EPS_WIDE };
        (0..config.layers).for_each(|n| parts.push((format!("down_blocks.{level}.resnets.{n}"), level, eps)));
    }
    (0..2).for_each(|n| parts.push((format!("mid_block.resnets.{n}"), levels - 1, EPS_WIDE)));
    for step in 0..levels {
        (0..=config.layers).for_each(|n| {
            parts.push((format!("up_blocks.{step}.resnets.{n}"), levels - 1 - step, EPS_NARROW))
        });
    }
    parts
}

/// Paths of all transformers, in the order of the forward pass.
fn transformer_paths(config: &VideoUnetConfig) -> Vec<String> {
    let levels = 0..config.channels.len();
    let down = levels
        .clone()
        .filter(|&level| config.attention_down[level])
        .flat_map(|level| (0..config.layers).map(move |n| format!("down_blocks.{level}.attentions.{n}")));
    let up = levels
        .filter(|&step| config.attention_up[step])
        .flat_map(|step| (0..=config.layers).map(move |n| format!("up_blocks.{step}.attentions.{n}")));
    down.chain(["mid_block.attentions.0".to_owned()]).chain(up).collect()
}

/// The learned shares of each transformer's two branches: of the frame alone, then of the clip.
pub(super) fn blends(config: &VideoUnetConfig) -> Vec<[Mixing; 2]> {
    let share =
        |path: &str, complement| Mixing { factor: format!("unet/{path}.time_mixer.mix_factor"), complement };
    transformer_paths(config).iter().map(|path| [share(path, false), share(path, true)]).collect()
}

/// Predicts what the model was trained for in `sample`, clips of `frames` frames; the result is named `conv_out`.
pub(super) fn denoiser(
    b: &mut Builder,
    config: &VideoUnetConfig,
    frames: u32,
    sample: TensorId,
    conditions: Conditions,
) -> TensorId {
    let times = time_projections(b, config, conditions);
    let resnets = resnet_parts(config).into_iter();
    let mut net = Net { b, config, frames, conditions, times, times_from: 0, blend: 0, resnets };
    let levels = config.channels.len();
    let mut h = net.b.conv("conv_in", sample, Conv::same(config.channels[0]));
    let mut skips = vec![h];
    for level in 0..levels {
        let path = format!("down_blocks.{level}");
        for n in 0..config.layers {
            h = net.layer(&path, n, h, level, config.attention_down[level]);
            skips.push(h);
        }
        if level + 1 < levels {
            let down = Conv { stride: 2, ..Conv::same(config.channels[level]) };
            h = net.b.conv(&format!("{path}.downsamplers.0.conv"), h, down);
            net.b.rename(h, &format!("{path}.downsamplers.0"));
            skips.push(h);
        }
    }
    h = net.resnet(h);
    h = net.transformer("mid_block.attentions.0", h, levels - 1);
    h = net.resnet(h);
    for step in 0..levels {
        let path = format!("up_blocks.{step}");
        let level = levels - 1 - step;
        for n in 0..=config.layers {
            let skip = skips.pop().expect("as many skips as layers on the way up");
            let joined = net.b.concat(&format!("{path}.skip.{n}"), h, skip);
            h = net.layer(&path, n, joined, level, config.attention_up[step]);
        }
        if step + 1 < levels {
            let up = Conv { upsample: true, ..Conv::same(config.channels[level]) };
            h = net.b.conv(&format!("{path}.upsamplers.0.conv"), h, up);
            net.b.rename(h, &format!("{path}.upsamplers.0"));
        }
    }
    assert!(skips.is_empty() && net.resnets.next().is_none(), "every skip and block is used");
    let h = b.group_norm("conv_norm_out", h, Norm { groups: GROUPS, eps: EPS_WIDE }.silu());
    b.conv("conv_out", h, Conv::same(config.latent_channels))
}

/// Embeds the time step and the added numbers, and projects them for all residual blocks in one matrix product: each
/// block's spatial part, then its temporal part.
fn time_projections(b: &mut Builder, config: &VideoUnetConfig, conditions: Conditions) -> TensorId {
    let wide = |residual| LinearSpec { channels: 4 * config.channels[0], bias: true, residual };
    let mut embed = |path: &str, input: TensorId, residual: Option<TensorId>| {
        let h = b.linear(&format!("{path}.linear_1"), input, wide(None));
        let h = b.activation(&format!("{path}.act"), h, ActivationFunction::Silu);
        let out = b.linear(&format!("{path}.linear_2"), h, wide(residual));
        b.rename(out, path);
        out
    };
    let added = embed("add_embedding", conditions.added, None);
    let e = embed("time_embedding", conditions.timestep, Some(added));
    let e = b.activation("time_embedding.silu", e, ActivationFunction::Silu);
    let parts: Vec<_> = resnet_parts(config)
        .into_iter()
        .flat_map(|(path, level, _)| {
            ["spatial", "temporal"]
                .map(|kind| (format!("{path}.{kind}_res_block.time_emb_proj"), config.channels[level]))
        })
        .collect();
    let channels = parts.iter().map(|(_, channels)| channels).sum();
    b.linear_joined("time_emb_proj", &parts, e, LinearSpec { channels, bias: true, residual: None })
}

/// A residual block within frames and one across them, blended. Shared with the temporal decoder, whose blocks have no
/// time and exchange the shares.
pub(super) fn spatio_temporal_resnet(
    b: &mut Builder,
    path: &str,
    x: TensorId,
    block: SpatioTemporal,
) -> TensorId {
    let SpatioTemporal { channels, frames, eps, times, complement } = block;
    let norm = Norm { groups: GROUPS, eps: eps[0] };
    let spatial = format!("{path}.spatial_res_block");
    let s = resnet(b, &spatial, x, channels, norm, times.map(|times| times[0]));
    let path_t = format!("{path}.temporal_res_block");
    let norm = GroupNormSpec { groups: GROUPS, eps: eps[1], silu: true, frames_together: frames };
    let h = b.group_norm(&format!("{path_t}.norm1"), s, norm);
    let first = Conv { channel_add: times.map(|times| times[1]), ..Conv::same(channels) };
    let h = b.temporal_conv(&format!("{path_t}.conv1"), h, frames, first);
    let h = b.group_norm(&format!("{path_t}.norm2"), h, norm);
    b.mix(Some((&format!("{path}.time_mixer.mix_factor"), complement)));
    let last = Conv { residual: Some(s), ..Conv::same(channels) };
    let out = b.temporal_conv(&format!("{path_t}.conv2"), h, frames, last);
    b.mix(None);
    b.rename(out, path);
    out
}

/// What a block of [`spatio_temporal_resnet`] needs beside its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpatioTemporal {
    /// Channels of the result.
    pub(super) channels: u32,
    /// Frames of one clip.
    pub(super) frames: u32,
    /// Added to the variance: within frames, across them.
    pub(super) eps: [f32; 2],
    /// Time projections of both parts.
    pub(super) times: Option<[View; 2]>,
    /// Whether the temporal branch's share is 1 - sigmoid instead of sigmoid.
    pub(super) complement: bool,
}

/// The network while it is built: what is common to its layers.
struct Net<'a> {
    b: &'a mut Builder,
    config: &'a VideoUnetConfig,
    frames: u32,
    conditions: Conditions,
    times: TensorId,
    /// First channel of the next block within the time projections.
    times_from: u32,
    /// Number of the next transformer.
    blend: u32,
    resnets: std::vec::IntoIter<(String, usize, f32)>,
}

impl Net<'_> {
    fn layer(&mut self, path: &str, n: u32, x: TensorId, level: usize, attention: bool) -> TensorId {
        let h = self.resnet(x);
        if attention { self.transformer(&format!("{path}.attentions.{n}"), h, level) } else { h }
    }

    /// The next residual block of [`resnet_parts`].
    fn resnet(&mut self, x: TensorId) -> TensorId {
        let (path, level, eps) = self.resnets.next().expect("as many blocks as are listed");
        let channels = self.config.channels[level];
        let times =
            [0, 1].map(|n| View { tensor: self.times, offset: self.times_from + n * channels, channels });
        self.times_from += 2 * channels;
        let block = SpatioTemporal {
            channels,
            frames: self.frames,
            eps: [eps; 2],
            times: Some(times),
            complement: true,
        };
        spatio_temporal_resnet(self.b, &path, x, block)
    }

    /// TransformerSpatioTemporalModel: blocks within frames, each followed by one across them.
    fn transformer(&mut self, path: &str, x: TensorId, level: usize) -> TensorId {
        let channels = self.config.channels[level];
        let plain = |residual| LinearSpec { channels, bias: true, residual };
        let norm = GroupNormSpec { groups: GROUPS, eps: TRANSFORMER_EPS, silu: false, frames_together: 1 };
        let h = self.b.group_norm(&format!("{path}.norm"), x, norm);
        let mut h = self.b.linear(&format!("{path}.proj_in"), h, plain(None));
        for index in 0..self.config.transformer_layers[level] {
            let block = format!("{path}.transformer_blocks.{index}");
            h = self.attend(&block, h, level, AttentionPattern::Spatial);
            h = feed_forward(self.b, &format!("{block}.ff"), &format!("{block}.norm3"), h);
            let block = format!("{path}.temporal_transformer_blocks.{index}");
            h = self.temporal_block(path, &block, h, level);
        }
        self.blend += 1;
        let out = self.b.linear(&format!("{path}.proj_out"), h, plain(Some(x)));
        self.b.rename(out, path);
        out
    }

    /// TemporalBasicTransformerBlock with the blend that follows it.
    fn temporal_block(&mut self, path: &str, block: &str, x: TensorId, level: usize) -> TensorId {
        let hidden = 4 * self.config.channels[level];
        let embedding = format!("{path}.time_pos_embed");
        let m = self.b.add_frame_embedding(&format!("{block}.placed"), &embedding, hidden, x, self.frames);
        let m = feed_forward(self.b, &format!("{block}.ff_in"), &format!("{block}.norm_in"), m);
        let m = self.attend(block, m, level, AttentionPattern::Temporal { frames: self.frames });
        // share · x + (1 - share) · m, to which the feed-forward layer adds (1 - share) · ff(m).
        let shares = View { tensor: self.conditions.shares, offset: 2 * self.blend, channels: 2 };
        let blended = self.b.combine(&format!("{block}.blended"), &[x, m], shares, Precision::Model);
        let n = self.b.layer_norm(&format!("{block}.norm3"), m, BLOCK_EPS);
        let channels = self.config.channels[level];
        let wide = LinearSpec { channels: 8 * channels, bias: true, residual: None };
        let n = self.b.linear(&format!("{block}.ff.net.0.proj"), n, wide);
        let n = self.b.geglu(&format!("{block}.ff.net.0"), n);
        self.b.mix(Some((&format!("{path}.time_mixer.mix_factor"), true)));
        let narrow = LinearSpec { channels, bias: true, residual: Some(blended) };
        let out = self.b.linear(&format!("{block}.ff.net.2"), n, narrow);
        self.b.mix(None);
        self.b.rename(out, block);
        out
    }

    /// x + attn1(norm1(x)) + attn2, of which the last is a vector that does not depend on x.
    fn attend(&mut self, block: &str, x: TensorId, level: usize, pattern: AttentionPattern) -> TensorId {
        let channels = self.config.channels[level];
        let b = &mut *self.b;
        let to_v = LinearSpec { channels, bias: false, residual: None };
        let v = b.linear(&format!("{block}.attn2.to_v"), self.conditions.context, to_v);
        let to_out = LinearSpec { channels, bias: true, residual: None };
        let constant = b.linear(&format!("{block}.attn2.to_out.0"), v, to_out);
        let n = b.layer_norm(&format!("{block}.norm1"), x, BLOCK_EPS);
        let spec = Attention {
            heads: self.config.heads[level],
            sight: Sight::Itself(pattern),
            bias: false,
            residual: x,
        };
        let path = format!("{block}.attn1");
        let h = attended(b, &path, n, spec);
        let out = Conv {
            kernel: 1,
            pad: Pad::even(0),
            channel_add: Some(b.whole(constant)),
            residual: Some(x),
            ..Conv::same(channels)
        };
        let out = b.conv(&format!("{path}.to_out.0"), h, out);
        b.rename(out, &path);
        out
    }
}
