//! Every operation of the way back, in the emulator through the real host code, against the CPU backend at odd and small
//! shapes. What the operations compute is compared with differences elsewhere (`src/train/rule_tests.rs`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod beside_cpu;
mod golden;
mod stand_in;

use beside_cpu::check;
use gpu_runtime::graph::{
    ActivationFunction, AttentionPattern, Builder, Conv, Gradient, Graph, GroupNormSpec, LinearSpec, Op, Pad,
    Precision, Shape, TensorId, View,
};
use stand_in::StandIn;

/// One rounding of the result.
const ONE_ROUNDING: f64 = 2.5e-3;
/// Sums of f32.
const NO_ROUNDING: f64 = 1e-5;
/// Shares and gradients of scores are rounded, and the result of the way there was.
const ATTENTION: f64 = 5e-3;

/// Inputs of these shapes; all that `build` gives is an output.
fn graph_of(inputs: &[Shape], build: impl FnOnce(&mut Builder, &[TensorId]) -> Vec<TensorId>) -> Graph {
    let mut b = Builder::new("test", "unet");
    let ids: Vec<TensorId> = inputs
        .iter()
        .enumerate()
        .map(|(index, shape)| b.input(&format!("x{index}"), *shape, Precision::Model))
        .collect();
    for out in build(&mut b, &ids) {
        b.output(out);
    }
    b.finish()
}

fn last(b: &Builder) -> Op {
    b.graph().ops.last().unwrap().clone()
}

#[test]
fn products_with_tensors() {
    let Some(stand_in) = StandIn::new() else { return };
    for (what, rows, columns, depth) in
        [("few rows", 3, 24, 40), ("odd", 77, 20, 8), ("more than a tile", 150, 136, 200)]
    {
        let shapes = [
            Shape::new(1, 1, rows, depth),
            Shape::new(1, 1, columns, depth),
            Shape::new(1, 1, rows, columns),
        ];
        let graph = graph_of(&shapes, |b, x| {
            vec![b.product("plain", x[0], x[1], None), b.product("added", x[0], x[1], Some(x[2]))]
        });
        check(&stand_in, what, &graph, ONE_ROUNDING);
    }
}

#[test]
fn turned_weights() {
    let Some(stand_in) = StandIn::new() else { return };
    for (what, from, to) in [("even", 24, 40), ("odd", 20, 12)] {
        let graph = graph_of(&[Shape::new(2, 4, 6, from), Shape::new(2, 4, 6, to)], |b, x| {
            let fc = b.linear("fc", x[0], LinearSpec { channels: to, bias: true, residual: None });
            let Op::Linear { weight: matrix, .. } = last(b) else { unreachable!() };
            let conv = b.conv("conv", x[0], Conv::same(to));
            let Op::Conv2d { weight: filters, .. } = last(b) else { unreachable!() };
            let time = b.temporal_conv("time", x[0], 2, Conv::same(to));
            let Op::TemporalConv { weight: taps, .. } = last(b) else { unreachable!() };
            let skew = Pad { top: 2, left: 1, bottom: 0, right: 1 };
            vec![
                fc,
                conv,
                time,
                b.linear_turned("of fc", x[1], matrix, Some(x[0])),
                b.conv_turned("of conv", x[1], filters, (3, Pad::even(1)), Some(x[0])),
                b.conv_turned("skew", x[1], filters, (3, skew), None),
                b.temporal_conv_turned("of time", x[1], taps, 2, None),
            ]
        });
        check(&stand_in, what, &graph, ONE_ROUNDING);
    }
}

#[test]
fn normalisations() {
    let Some(stand_in) = StandIn::new() else { return };
    for (frames, side, channels, groups, together, silu) in [
        (1, 5, 32, 4, 1, true),
        (4, 6, 40, 5, 2, false),
        (2, 3, 18, 3, 1, true),
        (1, 40, 64, 32, 1, true),
        (3, 2, 2560, 32, 3, true),
    ] {
        let shape = Shape::new(frames, side, side + 1, channels);
        let spec = GroupNormSpec { groups, eps: 1e-5, silu, frames_together: together };
        let graph = graph_of(&[shape; 3], |b, x| {
            b.group_norm("norm", x[0], spec);
            let Op::GroupNorm { gamma, beta, groups, eps, silu, frames_together, .. } = last(b) else {
                unreachable!()
            };
            let gradient = |b: &mut Builder, name: &str, residual| {
                b.gradient_like(name, x[0], |out| Gradient::GroupNorm {
                    out,
                    of_out: x[1],
                    input: x[0],
                    residual,
                    gamma,
                    beta,
                    groups,
                    eps,
                    silu,
                    frames_together,
                })
            };
            vec![gradient(b, "alone", None), gradient(b, "added", Some(x[2]))]
        });
        check(&stand_in, &format!("group norm of {shape}"), &graph, ONE_ROUNDING);
    }
    for (rows, channels) in [(9, 40), (70, 320), (5, 13)] {
        let shape = Shape::new(1, 1, rows, channels);
        let graph = graph_of(&[shape; 3], |b, x| {
            b.layer_norm("norm", x[0], 1e-5);
            let Op::LayerNorm { gamma, eps, .. } = last(b) else { unreachable!() };
            let gradient = |b: &mut Builder, name: &str, residual| {
                b.gradient_like(name, x[0], |out| Gradient::LayerNorm {
                    out,
                    of_out: x[1],
                    input: x[0],
                    residual,
                    gamma,
                    eps,
                })
            };
            vec![gradient(b, "alone", None), gradient(b, "added", Some(x[2]))]
        });
        check(&stand_in, &format!("layer norm of {shape}"), &graph, ONE_ROUNDING);
    }
}

#[test]
fn elements_and_rows() {
    let Some(stand_in) = StandIn::new() else { return };
    for channels in [24, 10] {
        let shape = Shape::new(2, 6, 4, channels);
        let wide = shape.with_channels(2 * channels);
        let graph =
            graph_of(&[shape, shape, wide], |b, x| {
                let (of_out, input, both) = (x[0], x[1], x[2]);
                let mut found =
                    vec![b.gradient_like("geglu", both, |out| Gradient::Geglu { out, of_out, input: both })];
                for function in
                    [ActivationFunction::Silu, ActivationFunction::Gelu, ActivationFunction::QuickGelu]
                {
                    found.push(b.gradient_like(&format!("{function:?}"), input, |out| {
                        Gradient::Activation { out, of_out, input, function }
                    }));
                }
                found.push(b.spread("spread", input, [12, 8]));
                found.push(b.spread("spread without the last", input, [11, 7]));
                found.push(b.sum_of_four("sum", input));
                found.push(b.channels("first", View { tensor: both, offset: 0, channels }));
                found.push(b.channels("last", View { tensor: both, offset: channels, channels }));
                found.push(b.channels("few", View { tensor: both, offset: 3, channels: 5 }));
                found
            });
        check(&stand_in, &format!("{channels} channels"), &graph, ONE_ROUNDING);
    }
}

#[test]
fn matrices() {
    let Some(stand_in) = StandIn::new() else { return };
    for (rows, left, right) in [(77, 40, 8), (1, 8, 16), (900, 136, 24), (64, 200, 72), (300, 13, 5)] {
        let graph = graph_of(&[Shape::new(1, 1, rows, left), Shape::new(1, 1, rows, right)], |b, x| {
            vec![b.matrix("matrix", x[0], x[1])]
        });
        check(&stand_in, &format!("{rows} rows of {left} and {right}"), &graph, NO_ROUNDING);
    }
    assert!(stand_in.launched().iter().any(|kernel| kernel == "matrix_64_any"));
}

/// The gradients of an attention and what they are computed from; `views` as in `Builder::attention`.
fn attention_gradients(
    b: &mut Builder,
    views: [View; 3],
    of_out: TensorId,
    heads: u32,
    pattern: AttentionPattern,
) -> Vec<TensorId> {
    b.attention("attended", views, heads, pattern);
    let forward = last(b);
    let of = b.attention_rows("rows", &forward, of_out);
    vec![of.rows, b.attention_query("query", of), b.attention_key_value("key and value", of)]
}

#[test]
fn attention_within_one_tensor() {
    let Some(stand_in) = StandIn::new() else { return };
    let temporal = |frames| AttentionPattern::Temporal { frames };
    for (pattern, frames, height, heads, width) in [
        (AttentionPattern::Spatial, 2, 3, 2, 8),
        (AttentionPattern::Spatial, 1, 15, 2, 40),
        (AttentionPattern::Spatial, 1, 13, 1, 160),
        (AttentionPattern::Spatial, 2, 10, 1, 80),
        (AttentionPattern::Spatial, 1, 12, 1, 64),
        (AttentionPattern::Spatial, 1, 9, 1, 128),
        (AttentionPattern::Spatial, 1, 10, 3, 5),
        (AttentionPattern::Causal, 1, 11, 2, 32),
        (AttentionPattern::Causal, 2, 2, 1, 16),
        (temporal(4), 4, 2, 2, 8),
        (temporal(16), 32, 1, 1, 40),
        (temporal(24), 24, 1, 2, 160),
        (temporal(3), 6, 2, 1, 6),
    ] {
        let shape = Shape::new(frames, height, 7, 3 * heads * width);
        let graph = graph_of(&[shape, shape.with_channels(heads * width)], |b, x| {
            let channels = heads * width;
            let view = |offset| View { tensor: x[0], offset, channels };
            let views = [view(0), view(channels), view(2 * channels)];
            attention_gradients(b, views, x[1], heads, pattern)
        });
        check(&stand_in, &format!("{pattern:?}, {shape}, {heads} heads"), &graph, ATTENTION);
    }
}

#[test]
fn attention_to_another_tensor() {
    let Some(stand_in) = StandIn::new() else { return };
    for (frames, height, tokens, heads, width) in
        [(1, 3, 5, 2, 8), (3, 20, 77, 2, 40), (2, 30, 9, 1, 160), (1, 80, 77, 1, 64), (2, 3, 7, 1, 12)]
    {
        let channels = heads * width;
        let shape = Shape::new(frames, height, 7, channels);
        let graph = graph_of(&[shape, Shape::new(1, 1, tokens, 3 * channels), shape], |b, x| {
            let view = |tensor, offset| View { tensor, offset, channels };
            let views = [view(x[0], 0), view(x[1], channels), view(x[1], 2 * channels)];
            attention_gradients(b, views, x[2], heads, AttentionPattern::Cross)
        });
        check(&stand_in, &format!("{shape} to {tokens} tokens, {heads} heads"), &graph, ATTENTION);
    }
    assert!(stand_in.launched().iter().any(|kernel| kernel == "split_sums"), "some keys are split");
}
