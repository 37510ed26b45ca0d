//! Encoder and decoder of pictures as graphs: AutoencoderKL, and the temporal decoder of video models.

use super::blocks::{Attention, Norm, Sight, attention, resnet};
use super::configuration::VaeConfig;
use super::video::{SpatioTemporal, spatio_temporal_resnet};
use crate::graph::{AttentionPattern, Builder, Conv, GroupNormSpec, LinearSpec, Pad, TensorId};

/// Added to the variance in all normalisations within frames.
const EPS: f32 = 1e-6;

/// Added to the variance across frames.
const TEMPORAL_EPS: f32 = 1e-5;

/// As [`decoder`], with blocks across all frames: the temporal decoder of image-to-video models.
pub(super) fn temporal_decoder(b: &mut Builder, config: &VaeConfig, latents: TensorId) -> TensorId {
    let frames = b.shape(latents).frames;
    let block = |channels| SpatioTemporal {
        channels,
        frames,
        eps: [EPS, TEMPORAL_EPS],
        times: None,
        // Its blends have the shares exchanged (diffusers' switch_spatial_to_temporal_mix).
        complement: false,
    };
    let channels: Vec<u32> = config.channels.iter().rev().copied().collect();
    let mut h = b.conv("decoder.conv_in", latents, Conv::same(channels[0]));
    for n in 0..config.layers {
        let path = format!("decoder.mid_block.resnets.{n}");
        h = spatio_temporal_resnet(b, &path, h, block(channels[0]));
        // One attention, after the first block, however many there are.
        if n == 0 {
            h = self_attention(b, "decoder.mid_block.attentions.0", h, config.groups);
        }
    }
    for (index, &channels) in channels.iter().enumerate() {
        let path = format!("decoder.up_blocks.{index}");
        for n in 0..=config.layers {
            h = spatio_temporal_resnet(b, &format!("{path}.resnets.{n}"), h, block(channels));
        }
        if index + 1 < config.channels.len() {
            let up = Conv { upsample: true, ..Conv::same(channels) };
            h = b.conv(&format!("{path}.upsamplers.0.conv"), h, up);
            b.rename(h, &format!("{path}.upsamplers.0"));
        }
    }
    let norm = Norm { groups: config.groups, eps: EPS };
    h = b.group_norm("decoder.conv_norm_out", h, norm.silu());
    h = b.conv("decoder.conv_out", h, Conv::same(3));
    let out = b.temporal_conv("decoder.time_conv_out", h, frames, Conv::same(3));
    b.rename(out, "decoder");
    out
}

/// Latents `[frames, h, w, latent channels]` (divided by the scaling factor) to pictures in -1..1, `[frames, factor · h,
/// factor · w, 3]`.
pub(super) fn decoder(b: &mut Builder, config: &VaeConfig, latents: TensorId) -> TensorId {
    let norm = Norm { groups: config.groups, eps: EPS };
    let channels: Vec<u32> = config.channels.iter().rev().copied().collect();
    let mut h = latents;
    if config.dequantize {
        let spec = LinearSpec { channels: config.latent_channels, bias: true, residual: None };
        h = b.linear("post_quant_conv", h, spec);
    }
    h = b.conv("decoder.conv_in", h, Conv::same(channels[0]));
    h = middle(b, "decoder.mid_block", h, config);
    for (index, &channels) in channels.iter().enumerate() {
        let path = format!("decoder.up_blocks.{index}");
        for n in 0..=config.layers {
            h = resnet(b, &format!("{path}.resnets.{n}"), h, channels, norm, None);
        }
        if index + 1 < config.channels.len() {
            let up = Conv { upsample: true, ..Conv::same(channels) };
            h = b.conv(&format!("{path}.upsamplers.0.conv"), h, up);
            b.rename(h, &format!("{path}.upsamplers.0"));
        }
    }
    h = b.group_norm("decoder.conv_norm_out", h, norm.silu());
    let out = b.conv("decoder.conv_out", h, Conv::same(3));
    b.rename(out, "decoder");
    out
}

/// Pictures in -1..1 to moments: mean and log variance of the latents, side by side.
pub(super) fn encoder(b: &mut Builder, config: &VaeConfig, picture: TensorId) -> TensorId {
    let norm = Norm { groups: config.groups, eps: EPS };
    let mut h = b.conv("encoder.conv_in", picture, Conv::same(config.channels[0]));
    for (index, &channels) in config.channels.iter().enumerate() {
        let path = format!("encoder.down_blocks.{index}");
        for n in 0..config.layers {
            h = resnet(b, &format!("{path}.resnets.{n}"), h, channels, norm, None);
        }
        if index + 1 < config.channels.len() {
            // Pads right and bottom only (diffusers' Downsample2D with padding 0).
            let pad = Pad { top: 0, left: 0, bottom: 1, right: 1 };
            let down = Conv { stride: 2, pad, ..Conv::same(channels) };
            h = b.conv(&format!("{path}.downsamplers.0.conv"), h, down);
            b.rename(h, &format!("{path}.downsamplers.0"));
        }
    }
    h = middle(b, "encoder.mid_block", h, config);
    h = b.group_norm("encoder.conv_norm_out", h, norm.silu());
    let moments = 2 * config.latent_channels;
    h = b.conv("encoder.conv_out", h, Conv::same(moments));
    b.rename(h, "encoder");
    if config.quantize {
        let spec = LinearSpec { channels: moments, bias: true, residual: None };
        h = b.linear("quant_conv", h, spec);
    }
    h
}

fn middle(b: &mut Builder, path: &str, x: TensorId, config: &VaeConfig) -> TensorId {
    let norm = Norm { groups: config.groups, eps: EPS };
    let channels = b.shape(x).channels;
    let mut h = resnet(b, &format!("{path}.resnets.0"), x, channels, norm, None);
    if config.attention {
        h = self_attention(b, &format!("{path}.attentions.0"), h, config.groups);
    }
    resnet(b, &format!("{path}.resnets.1"), h, channels, norm, None)
}

/// x + attention of one head within each frame.
fn self_attention(b: &mut Builder, path: &str, x: TensorId, groups: u32) -> TensorId {
    let spec = GroupNormSpec { groups, eps: EPS, silu: false, frames_together: 1 };
    let n = b.group_norm(&format!("{path}.group_norm"), x, spec);
    let sight = Sight::Itself(AttentionPattern::Spatial);
    attention(b, path, n, Attention { heads: 1, sight, bias: true, residual: x })
}
