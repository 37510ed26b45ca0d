//! Backward rules: for each operation, what the gradient of its result adds to the gradients of what it read.
//!
//! Gradients of stored weights are not here: what is trained is added to matrices ([`super::adapter`]), and the weights
//! themselves stay. Each rule is compared with differences of the forward pass in `super::rule_tests`.

mod attention;
mod elementwise;
mod norm;
mod product;

use crate::cpu::Operands;
use crate::graph::{Op, TensorId, View};

/// What is added to the gradient of a view's channels: `[rows of the tensor, channels of the view]`, dense.
pub(super) type Contribution = (View, Vec<f32>);

/// What `of_out`, the gradient of an operation's result, adds to the gradients of the tensors that are `wanted`.
pub(super) fn contributions(
    op: &Op,
    operands: Operands<'_>,
    of_out: &[f32],
    wanted: &dyn Fn(TensorId) -> bool,
    threads: usize,
) -> Vec<Contribution> {
    let Operands { graph, weights, tensors } = operands;
    let shape = |id: TensorId| graph.tensor(id).shape;
    let values = |id: TensorId| tensors[id.0 as usize].as_slice();
    let whole = |id: TensorId| View { tensor: id, offset: 0, channels: shape(id).channels };
    let only = |id: TensorId, gradient: &dyn Fn() -> Vec<f32>| -> Vec<Contribution> {
        if wanted(id) { vec![(whole(id), gradient())] } else { Vec::new() }
    };
    // A convolution and a matrix product pass the gradient on to what was added to them.
    let added = |mut found: Vec<Contribution>, channel_add: Option<View>, residual: Option<TensorId>| {
        if let Some(residual) = residual.filter(|&id| wanted(id)) {
            found.push((whole(residual), of_out.to_vec()));
        }
        if let Some(view) = channel_add.filter(|view| wanted(view.tensor)) {
            let rows = of_out.len() / (shape(view.tensor).frames * view.channels) as usize;
            found.push((view, elementwise::sum_rows(of_out, rows, view.channels as usize)));
        }
        found
    };
    match op {
        Op::Conv2d { out, input, weight, kernel, stride, pad, upsample, channel_add, residual, .. } => {
            let geometry = product::Geometry {
                from: shape(*input),
                to: shape(*out),
                kernel: *kernel,
                stride: *stride,
                pad: *pad,
                upsample: *upsample,
            };
            let filters = weights[weight.0 as usize].as_slice();
            let input = only(*input, &|| product::conv(of_out, filters, geometry, threads));
            added(input, *channel_add, *residual)
        }
        Op::TemporalConv { out, input, weight, frames, channel_add, residual, .. } => {
            let filters = weights[weight.0 as usize].as_slice();
            let shapes = [shape(*input), shape(*out)];
            let input =
                only(*input, &|| product::temporal_conv(of_out, filters, shapes, *frames as usize, threads));
            added(input, *channel_add, *residual)
        }
        Op::Linear { out, input, weight, residual, .. } => {
            let matrix = weights[weight.0 as usize].as_slice();
            let channels = [shape(*input).channels as usize, shape(*out).channels as usize];
            added(only(*input, &|| product::linear(of_out, matrix, channels, threads)), None, *residual)
        }
        Op::GroupNorm { input, gamma, beta, groups, eps, silu, frames_together, .. } => {
            let rule = norm::Groups {
                shape: shape(*input),
                gamma: &weights[gamma.0 as usize],
                beta: &weights[beta.0 as usize],
                groups: *groups as usize,
                eps: *eps,
                silu: *silu,
                frames_together: *frames_together as usize,
            };
            only(*input, &|| norm::group_norm(of_out, values(*input), rule, threads))
        }
        Op::LayerNorm { input, gamma, eps, .. } => {
            let gamma = weights[gamma.0 as usize].as_slice();
            only(*input, &|| norm::layer_norm(of_out, values(*input), gamma, *eps, threads))
        }
        Op::Geglu { out, input } => {
            let channels = shape(*out).channels as usize;
            only(*input, &|| elementwise::geglu(of_out, values(*input), channels))
        }
        Op::Attention { query, key, value, heads, pattern, .. } => {
            if ![query, key, value].iter().any(|view| wanted(view.tensor)) {
                return Vec::new();
            }
            let rows = [query, key, value].map(|view| attention::Rows {
                data: &values(view.tensor)[view.offset as usize..],
                stride: shape(view.tensor).channels as usize,
                channels: view.channels as usize,
            });
            let shapes = [shape(query.tensor), shape(key.tensor)];
            let found = attention::attention(of_out, rows, shapes, *heads as usize, *pattern, threads);
            let views = [*query, *key, *value].into_iter().zip(found);
            views.filter(|(view, _)| wanted(view.tensor)).collect()
        }
        Op::Activation { input, function, .. } => {
            only(*input, &|| elementwise::activation(of_out, values(*input), *function))
        }
        Op::AddFrameTable { input, .. } => only(*input, &|| of_out.to_vec()),
        Op::Concat { left, right, .. } => {
            let channels = [*left, *right].map(|id| shape(id).channels as usize);
            let parts = elementwise::split(of_out, channels);
            let parts = [*left, *right].into_iter().zip(parts).filter(|(id, _)| wanted(*id));
            parts.map(|(id, part)| (whole(id), part)).collect()
        }
        // Ids name rows of a table: nothing can be differentiated by them.
        Op::Embed { .. } => Vec::new(),
        Op::Combine { terms, coefficients, .. } => {
            let scalars = &values(coefficients.tensor)[coefficients.offset as usize..];
            let terms = terms.iter().zip(scalars).filter(|(term, _)| wanted(**term));
            terms
                .map(|(term, scalar)| (whole(*term), of_out.iter().map(|value| value * scalar).collect()))
                .collect()
        }
    }
}
