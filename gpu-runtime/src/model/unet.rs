//! The denoising network as a graph: UNet2DConditionModel, with motion modules where there are any.

use super::blocks::{Motion, Norm, motion_module, resnet, spatial_transformer};
use super::configuration::{MotionConfig, UnetConfig};
use crate::graph::{ActivationFunction, Builder, Conv, LinearSpec, TensorId, View};

/// Tensors that the network reads beside the latents.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    /// Sinusoid of the time step, `[1, 1, 1, channels of the first level]`.
    pub(super) timestep: TensorId,
    /// Embedding of the guidance scale, of models with distilled guidance.
    pub(super) guidance: Option<TensorId>,
    /// Keys and values of all cross attentions, as [`context_parts`] orders them.
    pub(super) context: TensorId,
}

/// Paths of all transformer blocks with attention to the context, with their channels, in the order of the forward
/// pass. Keys and values of block n lie side by side behind those of the blocks before it.
pub(super) fn context_parts(config: &UnetConfig) -> Vec<(String, u32)> {
    let mut parts = Vec::new();
    let levels = config.channels.len();
    let mut attention = |path: String, level: usize| {
        for block in 0..config.transformer_layers[level] {
            parts.push((format!("{path}.transformer_blocks.{block}.attn2"), config.channels[level]));
        }
    };
    for level in (0..levels).filter(|&level| config.attention_down[level]) {
        (0..config.layers).for_each(|n| attention(format!("down_blocks.{level}.attentions.{n}"), level));
    }
    attention("mid_block.attentions.0".to_owned(), levels - 1);
    for step in (0..levels).filter(|&step| config.attention_up[step]) {
        (0..=config.layers)
            .for_each(|n| attention(format!("up_blocks.{step}.attentions.{n}"), levels - 1 - step));
    }
    parts
}

/// Paths and channels of all residual blocks, in the order of the forward pass.
fn resnet_parts(config: &UnetConfig) -> Vec<(String, u32)> {
    let levels = config.channels.len();
    let down = (0..levels).flat_map(|level| {
        (0..config.layers).map(move |n| (format!("down_blocks.{level}.resnets.{n}"), config.channels[level]))
    });
    let mid = (0..2).map(|n| (format!("mid_block.resnets.{n}"), config.channels[levels - 1]));
    let up = (0..levels).flat_map(|step| {
        let channels = config.channels[levels - 1 - step];
        (0..=config.layers).map(move |n| (format!("up_blocks.{step}.resnets.{n}"), channels))
    });
    down.chain(mid).chain(up).collect()
}

/// Predicts the noise (or what the model was trained for) in `sample`; the result is named `conv_out`.
///
/// `motion` holds the adapter's configuration and the frames of one clip.
pub(super) fn denoiser(
    b: &mut Builder,
    config: &UnetConfig,
    motion: Option<(&MotionConfig, u32)>,
    sample: TensorId,
    conditions: Conditions,
) -> TensorId {
    let times = time_projections(b, config, conditions);
    let mut net = Net { b, config, motion, context: conditions.context, context_from: 0, times, resnets: 0 };
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
    h = net.resnet("mid_block.resnets.0", h, levels - 1);
    h = net.transformer("mid_block.attentions.0", h, levels - 1);
    if motion.is_some_and(|(adapter, _)| adapter.middle) {
        h = net.motion_module("mid_block.motion_modules.0", h, 1);
    }
    h = net.resnet("mid_block.resnets.1", h, levels - 1);
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
    assert!(skips.is_empty(), "every skip is used");
    let h = b.group_norm("conv_norm_out", h, Norm { groups: config.groups, eps: config.eps }.silu());
    b.conv("conv_out", h, Conv::same(config.latent_channels))
}

/// Embeds the time step (and the guidance scale) and projects it for all residual blocks in one matrix product.
fn time_projections(b: &mut Builder, config: &UnetConfig, conditions: Conditions) -> TensorId {
    let first = config.channels[0];
    let embedding = LinearSpec { channels: 4 * first, bias: true, residual: None };
    let mut e = conditions.timestep;
    if let Some(guidance) = conditions.guidance {
        let onto = LinearSpec { channels: first, bias: false, residual: Some(e) };
        e = b.linear("time_embedding.cond_proj", guidance, onto);
    }
    let e = b.linear("time_embedding.linear_1", e, embedding);
    let e = b.activation("time_embedding.act", e, ActivationFunction::Silu);
    let e = b.linear("time_embedding.linear_2", e, embedding);
    b.rename(e, "time_embedding");
    let e = b.activation("time_embedding.silu", e, ActivationFunction::Silu);
    let parts: Vec<_> =
        resnet_parts(config).into_iter().map(|(path, n)| (format!("{path}.time_emb_proj"), n)).collect();
    let channels = parts.iter().map(|(_, channels)| channels).sum();
    b.linear_joined("time_emb_proj", &parts, e, LinearSpec { channels, bias: true, residual: None })
}

/// The network while it is built: what is common to its layers.
struct Net<'a> {
    b: &'a mut Builder,
    config: &'a UnetConfig,
    motion: Option<(&'a MotionConfig, u32)>,
    context: TensorId,
    /// First channel of the next keys within the context.
    context_from: u32,
    times: TensorId,
    /// First channel of the next residual block within the time projections.
    resnets: u32,
}

impl Net<'_> {
    /// Residual block, attention, motion module: layer `n` of a level.
    fn layer(&mut self, path: &str, n: u32, x: TensorId, level: usize, attention: bool) -> TensorId {
        let mut h = self.resnet(&format!("{path}.resnets.{n}"), x, level);
        if attention {
            h = self.transformer(&format!("{path}.attentions.{n}"), h, level);
        }
        if let Some((adapter, _)) = self.motion {
            h = self.motion_module(&format!("{path}.motion_modules.{n}"), h, adapter.transformer_layers);
        }
        h
    }

    fn resnet(&mut self, path: &str, x: TensorId, level: usize) -> TensorId {
        let channels = self.config.channels[level];
        let time = View { tensor: self.times, offset: self.resnets, channels };
        self.resnets += channels;
        let norm = Norm { groups: self.config.groups, eps: self.config.eps };
        resnet(self.b, path, x, channels, norm, Some(time))
    }

    fn transformer(&mut self, path: &str, x: TensorId, level: usize) -> TensorId {
        let channels = self.config.channels[level];
        let views: Vec<_> = (0..self.config.transformer_layers[level])
            .map(|_| {
                let key = View { tensor: self.context, offset: self.context_from, channels };
                self.context_from += 2 * channels;
                (key, View { offset: key.offset + channels, ..key })
            })
            .collect();
        spatial_transformer(self.b, path, x, self.config.heads[level], self.config.groups, &views)
    }

    fn motion_module(&mut self, path: &str, x: TensorId, layers: u32) -> TensorId {
        let (adapter, frames) = self.motion.expect("called for models with motion modules");
        let motion = Motion {
            frames,
            frames_max: adapter.frames_max,
            heads: adapter.heads,
            groups: adapter.groups,
            layers,
        };
        motion_module(self.b, path, x, motion)
    }
}
