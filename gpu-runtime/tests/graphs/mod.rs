//! Graphs of single operations, for comparisons of one backend with another. Tests and `device_check` share them.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each program uses its part; a graph that cannot be built fails it"
)]

pub(crate) mod weights;

use gpu_runtime::graph::{
    ActivationFunction, AttentionPattern, Builder, Conv, Gradient, Graph, GroupNormSpec, LinearSpec, Op, Pad,
    Precision, Shape, TensorId, View,
};

/// Inputs of these shapes; what `build` gives is the output.
pub(crate) fn graph_of(inputs: &[Shape], build: impl FnOnce(&mut Builder, &[TensorId]) -> TensorId) -> Graph {
    graph_of_all(inputs, |b, x| vec![build(b, x)])
}

/// Inputs of these shapes; all that `build` gives is an output.
pub(crate) fn graph_of_all(
    inputs: &[Shape],
    build: impl FnOnce(&mut Builder, &[TensorId]) -> Vec<TensorId>,
) -> Graph {
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

/// Matrices that are tensors, with and without something to add.
pub(crate) fn product(rows: u32, columns: u32, depth: u32) -> Graph {
    let shapes =
        [Shape::new(1, 1, rows, depth), Shape::new(1, 1, columns, depth), Shape::new(1, 1, rows, columns)];
    graph_of_all(&shapes, |b, x| {
        vec![b.product("plain", x[0], x[1], None), b.product("added", x[0], x[1], Some(x[2]))]
    })
}

/// Each kind of weight as it is stored and turned, of frames of this shape to so many channels.
pub(crate) fn turned(shape: Shape, to: u32) -> Graph {
    graph_of_all(&[shape, shape.with_channels(to)], |b, x| {
        let fc = b.linear("fc", x[0], LinearSpec { channels: to, bias: true, residual: None });
        let Op::Linear { weight: matrix, .. } = last(b) else { unreachable!() };
        let conv = b.conv("conv", x[0], Conv::same(to));
        let Op::Conv2d { weight: filters, .. } = last(b) else { unreachable!() };
        let time = b.temporal_conv("time", x[0], shape.frames, Conv::same(to));
        let Op::TemporalConv { weight: taps, .. } = last(b) else { unreachable!() };
        let skew = Pad { top: 2, left: 1, bottom: 0, right: 1 };
        vec![
            fc,
            conv,
            time,
            b.linear_turned("of fc", x[1], matrix, Some(x[0])),
            b.conv_turned("of conv", x[1], filters, (3, Pad::even(1)), Some(x[0])),
            b.conv_turned("skew", x[1], filters, (3, skew), None),
            b.temporal_conv_turned("of time", x[1], taps, shape.frames, None),
        ]
    })
}

/// The gradient of a group normalisation's input, with and without something to add.
pub(crate) fn group_norm_gradient(shape: Shape, spec: GroupNormSpec) -> Graph {
    norm_gradient(shape, |b, input| b.group_norm("norm", input, spec))
}

/// The same of a layer normalisation.
pub(crate) fn layer_norm_gradient(shape: Shape) -> Graph {
    norm_gradient(shape, |b, input| b.layer_norm("norm", input, 1e-5))
}

fn norm_gradient(shape: Shape, forward: impl FnOnce(&mut Builder, TensorId) -> TensorId) -> Graph {
    graph_of_all(&[shape; 3], |b, x| {
        forward(b, x[0]);
        let norm = last(b);
        vec![b.norm_gradient("alone", &norm, x[1], None), b.norm_gradient("added", &norm, x[1], Some(x[2]))]
    })
}

/// The gradients of gates and functions of a picture, and what moves its pixels and channels. Sides are even.
pub(crate) fn element_gradients(shape: Shape) -> Graph {
    let Shape { height, width, channels, .. } = shape;
    graph_of_all(&[shape, shape, shape.with_channels(2 * channels)], |b, x| {
        let (of_out, input, both) = (x[0], x[1], x[2]);
        let mut found =
            vec![b.gradient_like("geglu", both, |out| Gradient::Geglu { out, of_out, input: both })];
        for function in [ActivationFunction::Silu, ActivationFunction::Gelu, ActivationFunction::QuickGelu] {
            let activation = |out| Gradient::Activation { out, of_out, input, function };
            found.push(b.gradient_like(&format!("{function:?}"), input, activation));
        }
        found.push(b.spread("spread", input, [2 * height, 2 * width]));
        found.push(b.spread("spread without the last", input, [2 * height - 1, 2 * width - 1]));
        found.push(b.sum_of_four("sum", input));
        found.push(b.channels("first", View { tensor: both, offset: 0, channels }));
        found.push(b.channels("last", View { tensor: both, offset: channels, channels }));
        found.push(b.channels("few", View { tensor: both, offset: 3, channels: 5 }));
        found
    })
}

/// The gradient of a matrix.
pub(crate) fn matrix_gradient(rows: u32, left: u32, right: u32) -> Graph {
    graph_of(&[Shape::new(1, 1, rows, left), Shape::new(1, 1, rows, right)], |b, x| {
        b.matrix("matrix", x[0], x[1])
    })
}

/// The gradients of an attention whose queries, keys and values are the channels of one tensor.
pub(crate) fn attention_gradients(
    [frames, height, width]: [u32; 3],
    (heads, head_width): (u32, u32),
    pattern: AttentionPattern,
) -> Graph {
    let channels = heads * head_width;
    let shape = Shape::new(frames, height, width, 3 * channels);
    graph_of_all(&[shape, shape.with_channels(channels)], |b, x| {
        let view = |offset| View { tensor: x[0], offset, channels };
        gradients_of(b, [view(0), view(channels), view(2 * channels)], x[1], heads, pattern)
    })
}

/// The same of an attention to tokens, whose keys and values are the last channels of another tensor.
pub(crate) fn cross_attention_gradients(
    [frames, height, width]: [u32; 3],
    tokens: u32,
    (heads, head_width): (u32, u32),
) -> Graph {
    let channels = heads * head_width;
    let shape = Shape::new(frames, height, width, channels);
    graph_of_all(&[shape, Shape::new(1, 1, tokens, 3 * channels), shape], |b, x| {
        let view = |tensor, offset| View { tensor, offset, channels };
        let views = [view(x[0], 0), view(x[1], channels), view(x[1], 2 * channels)];
        gradients_of(b, views, x[2], heads, AttentionPattern::Cross)
    })
}

fn gradients_of(
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
