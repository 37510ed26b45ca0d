//! Every kernel, in the emulator through the real host code, against the CPU backend at odd and small shapes.
//!
//! Both run the same graph with the same bf16 weights and inputs. The CPU computes in f32; what differs is the rounding
//! of bf16 results, 2^-9 of each value, and inside attention the rounding of probabilities.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod beside_cpu;
mod golden;
mod graphs;
mod stand_in;

use beside_cpu::check;
use gpu_runtime::graph::{
    ActivationFunction, AttentionPattern, Builder, Conv, GroupNormSpec, LinearSpec, Pad, Precision, Shape,
    View,
};
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{TextActivation, VaeConfig, VideoUnetConfig, VisionConfig};
use graphs::graph_of;
use stand_in::StandIn;

/// One rounding of the result.
const ONE_ROUNDING: f64 = 2.5e-3;
/// Attention also rounds its probabilities.
const ATTENTION: f64 = 6e-3;

#[test]
fn convolutions_of_all_kinds() {
    let Some(stand_in) = StandIn::new() else { return };
    let same = |channels| Conv::same(channels);
    let down = Conv { stride: 2, ..Conv::same(24) };
    let down_right = Conv { stride: 2, pad: Pad { top: 0, left: 0, bottom: 1, right: 1 }, ..Conv::same(16) };
    let skew = Conv { pad: Pad { top: 0, left: 2, bottom: 2, right: 1 }, ..Conv::same(16) };
    let point = Conv { kernel: 1, pad: Pad::even(0), ..Conv::same(20) };
    for (what, shape, spec) in [
        ("odd picture", Shape::new(1, 5, 7, 16), same(40)),
        ("several frames", Shape::new(3, 8, 8, 40), same(16)),
        ("channels past one tile", Shape::new(2, 6, 5, 72), same(136)),
        ("channels no multiple of 8", Shape::new(2, 7, 6, 4), same(12)),
        ("columns no multiple of 8", Shape::new(1, 9, 9, 16), same(3)),
        ("three channels", Shape::new(1, 6, 6, 3), same(8)),
        ("stride", Shape::new(1, 9, 8, 16), down),
        ("stride, padded right and below", Shape::new(2, 8, 8, 8), down_right),
        ("padded left and below", Shape::new(1, 6, 7, 8), skew),
        ("doubled", Shape::new(2, 3, 5, 16), Conv { upsample: true, ..same(24) }),
        ("one by one", Shape::new(1, 5, 5, 24), point),
        ("one by one of 4 channels", Shape::new(1, 5, 5, 4), point),
    ] {
        let graph = graph_of(&[shape], |b, x| b.conv("conv", x[0], spec));
        check(&stand_in, what, &graph, ONE_ROUNDING);
    }
}

#[test]
fn convolutions_add_time_and_residual() {
    let Some(stand_in) = StandIn::new() else { return };
    for (frames, rows) in [(1, 1), (3, 1), (3, 3)] {
        let shape = Shape::new(frames, 5, 6, 16);
        let graph = graph_of(&[shape, Shape::new(rows, 1, 1, 64), shape.with_channels(40)], |b, x| {
            let add = View { tensor: x[1], offset: 16, channels: 40 };
            b.conv("conv", x[0], Conv { channel_add: Some(add), residual: Some(x[2]), ..Conv::same(40) })
        });
        check(&stand_in, &format!("{rows} rows added to {frames} frames"), &graph, ONE_ROUNDING);
    }
}

/// That the kernel with this name is among those that ran.
fn assert_launched(stand_in: &StandIn, kernel: &str) {
    let launched = stand_in.launched();
    assert!(launched.iter().any(|name| name == kernel), "no `{kernel}` in {launched:?}");
}

#[test]
fn large_tiles_of_convolutions_and_linear_layers() {
    let Some(stand_in) = StandIn::new() else { return };
    // The last tile of each direction is partly empty; inner tiles are more than stages. Few multiprocessors make large tiles pay at small sizes.
    for (capability, channels, conv, linear) in [
        (80, 200, "conv_128x128", "linear_128x128"),
        (90, 320, "hopper_conv_128x160", "hopper_linear_128x160"),
        (90, 248, "hopper_conv_128x128", "hopper_linear_128x128"),
    ] {
        stand_in.set("capability", capability);
        stand_in.set("processors", 4);
        let (shape, rows) = (Shape::new(2, 9, 27, 40), 2 * 9 * 27);
        let graph = graph_of(&[shape], |b, x| b.conv("conv", x[0], Conv::same(channels)));
        check(&stand_in, conv, &graph, ONE_ROUNDING);
        assert_launched(&stand_in, conv);
        let graph = graph_of(&[Shape::new(1, 1, rows, 328), Shape::new(1, 1, rows, channels)], |b, x| {
            b.linear("linear", x[0], LinearSpec { channels, bias: true, residual: Some(x[1]) })
        });
        check(&stand_in, linear, &graph, ONE_ROUNDING);
        assert_launched(&stand_in, linear);
    }
}

#[test]
fn linear_layers_of_all_sizes() {
    let Some(stand_in) = StandIn::new() else { return };
    for (rows, from, to, bias) in [
        (1, 32, 64, true),
        (8, 40, 24, false),
        (9, 16, 40, true),
        (77, 32, 96, true),
        (65, 72, 7, true),
        (3, 20, 12, true),
        (130, 4, 4, true),
    ] {
        let graph = graph_of(&[Shape::new(1, 1, rows, from)], |b, x| {
            b.linear("linear", x[0], LinearSpec { channels: to, bias, residual: None })
        });
        check(&stand_in, &format!("{rows} x {from} x {to}"), &graph, ONE_ROUNDING);
    }
}

#[test]
fn convolutions_across_frames_stay_within_their_clip() {
    let Some(stand_in) = StandIn::new() else { return };
    for (frames, clip, rows, from, to) in
        [(4, 4, 1, 16, 24), (6, 3, 6, 40, 16), (5, 1, 5, 8, 8), (4, 2, 1, 12, 20)]
    {
        let shape = Shape::new(frames, 3, 5, from);
        let shapes = [shape, Shape::new(rows, 1, 1, 64), shape.with_channels(to)];
        let graph = graph_of(&shapes, |b, x| {
            let add = View { tensor: x[1], offset: 8, channels: to };
            let spec = Conv { channel_add: Some(add), residual: Some(x[2]), ..Conv::same(to) };
            b.temporal_conv("conv", x[0], clip, spec)
        });
        check(&stand_in, &format!("{frames} frames in clips of {clip}"), &graph, ONE_ROUNDING);
    }
}

#[test]
fn gates_run_inside_their_linear_layers() {
    let Some(stand_in) = StandIn::new() else { return };
    for (processors, rows, channels, bias, kernel) in [
        (132, 9, 16, true, "linear_64x64"),
        (132, 70, 136, false, "linear_64x64"),
        (4, 486, 160, true, "hopper_linear_128x160"),
        (4, 486, 120, true, "hopper_linear_128x128"),
        (132, 8, 16, true, "geglu_8"),
        (132, 9, 12, true, "geglu_1"),
    ] {
        stand_in.set("processors", processors);
        let graph = graph_of(&[Shape::new(1, 1, rows, 40)], |b, x| {
            let wide = b.linear("wide", x[0], LinearSpec { channels: 2 * channels, bias, residual: None });
            b.geglu("y", wide)
        });
        // Fused, the wide tensor is not rounded; apart, it is, and its roundings are multiplied.
        let tolerance = if kernel.contains("linear") { ONE_ROUNDING } else { 2.0 * ONE_ROUNDING };
        check(&stand_in, &format!("gate of {rows} x {channels}"), &graph, tolerance);
        assert_eq!(stand_in.launched().last().map(String::as_str), Some(kernel), "{rows} x {channels}");
    }
}

#[test]
fn long_inner_axes_are_split() {
    let Some(stand_in) = StandIn::new() else { return };
    for columns in [40, 6] {
        let shape = Shape::new(1, 4, 4, 200);
        let graph = graph_of(&[shape, shape.with_channels(columns)], |b, x| {
            b.conv("conv", x[0], Conv { residual: Some(x[1]), ..Conv::same(columns) })
        });
        check(&stand_in, &format!("split, {columns} columns"), &graph, ONE_ROUNDING);
        assert!(stand_in.launched().iter().any(|name| name.starts_with("split_finish")));
    }
}

#[test]
fn group_norms_of_all_groupings() {
    let Some(stand_in) = StandIn::new() else { return };
    for (shape, groups, silu, frames_together) in [
        (Shape::new(1, 8, 8, 40), 4, false, 1),
        (Shape::new(4, 5, 3, 16), 4, true, 1),
        (Shape::new(4, 5, 3, 16), 4, false, 4),
        (Shape::new(6, 4, 4, 24), 8, true, 3),
        (Shape::new(1, 7, 7, 12), 4, true, 1),
        (Shape::new(2, 40, 33, 320), 32, true, 1),
        (Shape::new(1, 2, 3, 2560), 32, true, 1),
        (Shape::new(1, 1, 1, 8), 4, false, 1),
    ] {
        let graph = graph_of(&[shape], |b, x| {
            b.group_norm("norm", x[0], GroupNormSpec { groups, eps: 1e-5, silu, frames_together })
        });
        check(&stand_in, &format!("{shape} in {groups} groups"), &graph, ONE_ROUNDING);
    }
}

#[test]
fn layer_norms_of_all_widths() {
    let Some(stand_in) = StandIn::new() else { return };
    for (rows, channels) in [(5, 16), (9, 40), (33, 320), (3, 1280), (7, 20), (1, 8)] {
        let graph = graph_of(&[Shape::new(1, 1, rows, channels)], |b, x| b.layer_norm("norm", x[0], 1e-5));
        check(&stand_in, &format!("{rows} x {channels}"), &graph, ONE_ROUNDING);
    }
}

#[test]
fn attention_of_all_widths_and_patterns() {
    let Some(stand_in) = StandIn::new() else { return };
    let (spatial, causal) = (AttentionPattern::Spatial, AttentionPattern::Causal);
    for (what, [frames, height, columns], heads, width, pattern) in [
        ("width 8", [2, 8, 8], 2, 8, spatial),
        ("width 20", [1, 5, 9], 2, 20, spatial),
        ("width 40", [2, 9, 9], 1, 40, spatial),
        ("width 64", [1, 1, 77], 3, 64, causal),
        ("width 16", [1, 1, 16], 2, 16, causal),
        ("width 80", [1, 10, 10], 2, 80, spatial),
        ("width 96", [1, 3, 3], 2, 96, spatial),
        ("width 160", [1, 9, 8], 2, 160, spatial),
        ("width 512", [1, 9, 8], 1, 512, spatial),
        ("width 200", [2, 3, 5], 1, 200, spatial),
        ("4 frames", [4, 3, 5], 2, 8, AttentionPattern::Temporal { frames: 4 }),
        ("2 clips of 3 frames", [6, 2, 3], 1, 20, AttentionPattern::Temporal { frames: 3 }),
        ("16 frames", [16, 2, 2], 2, 40, AttentionPattern::Temporal { frames: 16 }),
        ("20 frames", [20, 2, 1], 1, 160, AttentionPattern::Temporal { frames: 20 }),
        ("33 frames", [33, 1, 2], 1, 80, AttentionPattern::Temporal { frames: 33 }),
    ] {
        // Queries, keys and values are column ranges of one tensor.
        let channels = heads * width;
        let shape = Shape::new(frames, height, columns, 3 * channels);
        let graph = graph_of(&[shape], |b, x| {
            let view = |n: u32| View { tensor: x[0], offset: n * channels, channels };
            b.attention("attention", [view(0), view(1), view(2)], heads, pattern)
        });
        check(&stand_in, what, &graph, ATTENTION);
    }
}

#[test]
fn cross_attention_shares_its_keys_over_frames() {
    let Some(stand_in) = StandIn::new() else { return };
    for (tokens, heads, width) in [(16, 2, 8), (77, 2, 40), (1, 1, 20), (130, 1, 64)] {
        let channels = heads * width;
        let context = Shape::new(1, 1, tokens, 4 * channels);
        let graph = graph_of(&[Shape::new(3, 5, 4, channels), context], |b, x| {
            let view = |n: u32| View { tensor: x[1], offset: n * channels, channels };
            let query = b.whole(x[0]);
            b.attention("attention", [query, view(1), view(3)], heads, AttentionPattern::Cross)
        });
        check(&stand_in, &format!("{tokens} tokens, width {width}"), &graph, ATTENTION);
    }
}

#[test]
fn elementwise_kernels() {
    let Some(stand_in) = StandIn::new() else { return };
    for channels in [16, 12] {
        let shape = Shape::new(4, 3, 5, channels);
        for function in [ActivationFunction::Silu, ActivationFunction::Gelu, ActivationFunction::QuickGelu] {
            let graph = graph_of(&[shape], |b, x| b.activation("y", x[0], function));
            check(&stand_in, &format!("{function:?}"), &graph, ONE_ROUNDING);
        }
        let graph = graph_of(&[shape], |b, x| b.geglu("y", x[0]));
        check(&stand_in, "gate", &graph, ONE_ROUNDING);
        let graph = graph_of(&[shape], |b, x| b.add_frame_table("y", "table", 9, x[0], 2));
        check(&stand_in, "frame table", &graph, ONE_ROUNDING);
        let graph = graph_of(&[shape, shape.with_channels(24)], |b, x| b.concat("y", x[0], x[1]));
        check(&stand_in, "concatenation", &graph, 0.0);
    }
}

#[test]
fn embeddings_are_looked_up() {
    let Some(stand_in) = StandIn::new() else { return };
    let mut b = Builder::new("test", "unet");
    let ids = b.input("ids", Shape::new(1, 1, 16, 1), Precision::Single);
    let out = b.embed("y", ids, ["tokens", "positions"], [600, 20], 24);
    b.output(out);
    check(&stand_in, "embedding", &b.finish(), ONE_ROUNDING);
}

#[test]
fn combinations_mix_precisions_and_work_in_place() {
    let Some(stand_in) = StandIn::new() else { return };
    let mut b = Builder::new("test", "unet");
    let shape = Shape::new(2, 3, 5, 4);
    let scalars = b.input("scalars", Shape::new(1, 1, 1, 7), Precision::Single);
    let noise = b.input("noise", shape, Precision::Single);
    let eps = b.input("eps", shape, Precision::Model);
    let state = b.state("state", shape);
    let view = |offset, channels| View { tensor: scalars, offset, channels };
    b.combine_into(state, &[noise, eps], view(1, 2));
    b.combine_into(state, &[state, eps, noise], view(3, 3));
    let rounded = b.combine("rounded", &[state], view(6, 1), Precision::Model);
    b.output(state);
    b.output(rounded);
    check(&stand_in, "combination", &b.finish(), ONE_ROUNDING);
}

/// The tiny image-to-video networks, whose graphs hold convolutions across frames and blends.
#[test]
fn video_networks_agree_with_the_cpu() {
    let Some(stand_in) = StandIn::new() else { return };
    let facts = std::fs::read(golden::fixtures().join("golden/svd.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str, class: &str| {
        let mut keys = facts[format!("{name}_config")].clone();
        keys["_class_name"] = class.into();
        let file = folder.path().join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec(&keys).unwrap()).unwrap();
        file
    };
    let unet = VideoUnetConfig::read(&config("unet", "UNetSpatioTemporalConditionModel")).unwrap();
    let vae = VaeConfig::read(&config("vae", "AutoencoderKLTemporalDecoder")).unwrap();
    let size = LatentSize { clips: 1, frames: 3, height: 4, width: 6 };
    // A whole network: many roundings, within what PyTorch's own bf16 loses on a UNet of this size.
    check(&stand_in, "video step", &program::video_step(&unet, size), 1.6e-2);
    check(&stand_in, "video decoder", &program::decode(&vae, 3, 4, 6), 1.6e-2);
}

/// With the published patches, whose 588 numbers are no multiple of eight, and the width of its heads.
#[test]
fn the_image_encoder_agrees_with_the_cpu() {
    let Some(stand_in) = StandIn::new() else { return };
    let vision = VisionConfig {
        side: 42,
        patch: 14,
        channels: 160,
        intermediate: 320,
        layers: 2,
        heads: 2,
        projection: 64,
        activation: TextActivation::Gelu,
        eps: 1e-5,
    };
    check(&stand_in, "image encoder", &program::image(&vision), 1.6e-2);
}
