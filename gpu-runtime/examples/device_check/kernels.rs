//! Single operations on the GPU against the CPU backend, at odd and at full sizes, with times.

use std::error::Error;

use gpu_runtime::RuntimeError;
use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::cuda::Cuda;
use gpu_runtime::generate::{Backend, ProgramId};
use gpu_runtime::graph::{
    ActivationFunction, AttentionPattern, Builder, Conv, Cost, Graph, GroupNormSpec, LinearSpec, Pad, Shape,
    TensorId, View,
};
use gpu_runtime::noise::Noise;
use half::bf16;

use crate::graphs::weights::weights_for;
use crate::graphs::{self, graph_of};
use crate::{Arguments, median, open, relative_error};

/// Rounding of one bf16 result, relative to the tensor's norm, with room for the order of sums.
const ONE_ROUNDING: f64 = 2.5e-3;
/// Attention also rounds its probabilities.
const ATTENTION: f64 = 6e-3;
/// Gradients of attention round shares and gradients of scores, and the result of the way there was rounded.
const ATTENTION_BACK: f64 = 8e-3;
/// Sums of f32 in another order.
const NO_ROUNDING: f64 = 1e-4;
/// Timed runs of each case.
const RUNS: usize = 50;

struct Case {
    name: String,
    graph: Graph,
    tolerance: f64,
}

pub(crate) fn check(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let mut cuda = open()?;
    let mut good = true;
    let mut cases = odd_cases();
    if arguments.has("--full") {
        cases.extend(full_cases());
    }
    for case in cases {
        good &= check_case(&mut cuda, &case)?;
    }
    Ok(good)
}

fn check_case(cuda: &mut Cuda, case: &Case) -> Result<bool, Box<dyn Error>> {
    let graph = &case.graph;
    let (weights, _folder) = weights_for(graph);
    let mut cpu = CpuBackend::default();
    let (on_gpu, on_cpu) = (cuda.load(graph, &weights)?, cpu.load(graph, &weights)?);
    for (index, &tensor) in graph.inputs.iter().enumerate() {
        let count = graph.tensor(tensor).shape.elements() as usize;
        let values = rounded(Noise::new(index as u64 + 1, "input").take(count));
        cuda.write(on_gpu, tensor, &values)?;
        cpu.write(on_cpu, tensor, &values)?;
    }
    cpu.run(on_cpu)?;
    let expected = outputs(&mut cpu, on_cpu, graph)?;
    cuda.run(on_gpu)?;
    let got = outputs(cuda, on_gpu, graph)?;
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        times.push(f64::from(cuda.time(on_gpu, 1)?));
    }
    // Every run gives the same bits: no sum depends on the order of blocks.
    let same = got == outputs(cuda, on_gpu, graph)?;
    let errors = got.iter().zip(&expected).map(|(got, expected)| relative_error(got, expected));
    let error = errors.fold(0.0, f64::max);
    // Also no number at all is an error.
    let good = error <= case.tolerance && same && got.iter().flatten().all(|value| value.is_finite());
    let milliseconds = median(&mut times);
    let cost = Cost::of(graph, 2).total();
    let line = serde_json::json!({
        "case": case.name,
        "error": error,
        "tolerance": case.tolerance,
        "repeatable": same,
        "good": good,
        "ms": milliseconds,
        "tflops": cost.flops as f64 / milliseconds / 1e9,
        "gb_per_s": (cost.weight_bytes + cost.tensor_bytes) as f64 / milliseconds / 1e6,
    });
    println!("{line}");
    cuda.unload(on_gpu)?;
    Ok(good)
}

fn outputs(
    backend: &mut dyn Backend,
    program: ProgramId,
    graph: &Graph,
) -> Result<Vec<Vec<f32>>, RuntimeError> {
    let read = |&tensor: &TensorId| {
        let mut values = vec![0.0; graph.tensor(tensor).shape.elements() as usize];
        backend.read(program, tensor, &mut values).map(|()| values)
    };
    graph.outputs.iter().map(read).collect()
}

fn rounded(mut values: Vec<f32>) -> Vec<f32> {
    values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
    values
}

fn case(
    name: &str,
    inputs: &[Shape],
    tolerance: f64,
    build: impl FnOnce(&mut Builder, &[TensorId]) -> TensorId,
) -> Case {
    Case { name: format!("{name} {}", inputs[0]), graph: graph_of(inputs, build), tolerance }
}

fn conv(shape: Shape, spec: Conv) -> Case {
    let name = format!("conv {}x{} to {} stride {}", spec.kernel, spec.kernel, spec.channels, spec.stride);
    case(&name, &[shape], ONE_ROUNDING, |b, x| b.conv("conv", x[0], spec))
}

fn linear(rows: u32, from: u32, to: u32) -> Case {
    let shape = Shape::new(1, 1, rows, from);
    case(&format!("linear to {to}"), &[shape, shape.with_channels(to)], ONE_ROUNDING, |b, x| {
        b.linear("linear", x[0], LinearSpec { channels: to, bias: true, residual: Some(x[1]) })
    })
}

fn norm(shape: Shape, groups: u32, frames_together: u32) -> Case {
    case(&format!("group norm over {frames_together}"), &[shape], ONE_ROUNDING, |b, x| {
        b.group_norm("norm", x[0], GroupNormSpec { groups, eps: 1e-5, silu: true, frames_together })
    })
}

fn attention(
    frames: u32,
    height: u32,
    columns: u32,
    heads: u32,
    width: u32,
    pattern: AttentionPattern,
) -> Case {
    let channels = heads * width;
    let shape = Shape::new(frames, height, columns, 3 * channels);
    case(&format!("{pattern:?} attention, {heads} x {width}"), &[shape], ATTENTION, |b, x| {
        let view = |n: u32| View { tensor: x[0], offset: n * channels, channels };
        b.attention("attention", [view(0), view(1), view(2)], heads, pattern)
    })
}

fn cross(frames: u32, positions: u32, tokens: u32, heads: u32, width: u32) -> Case {
    let channels = heads * width;
    let shapes = [Shape::new(frames, 1, positions, channels), Shape::new(1, 1, tokens, 2 * channels)];
    case(&format!("cross attention, {tokens} tokens, {heads} x {width}"), &shapes, ATTENTION, |b, x| {
        let view = |n: u32| View { tensor: x[1], offset: n * channels, channels };
        let query = b.whole(x[0]);
        b.attention("attention", [query, view(0), view(1)], heads, AttentionPattern::Cross)
    })
}

fn rowwise(rows: u32, channels: u32) -> Vec<Case> {
    let shape = Shape::new(1, 1, rows, channels);
    vec![
        case("layer norm", &[shape], ONE_ROUNDING, |b, x| b.layer_norm("norm", x[0], 1e-5)),
        case("gate", &[shape], ONE_ROUNDING, |b, x| b.geglu("y", x[0])),
        case("gelu", &[shape], ONE_ROUNDING, |b, x| b.activation("y", x[0], ActivationFunction::Gelu)),
        case("silu", &[shape], ONE_ROUNDING, |b, x| b.activation("y", x[0], ActivationFunction::Silu)),
        case("quick gelu", &[shape], ONE_ROUNDING, |b, x| {
            b.activation("y", x[0], ActivationFunction::QuickGelu)
        }),
        case("concatenation", &[shape, shape], 0.0, |b, x| b.concat("y", x[0], x[1])),
    ]
}

/// The way back of one kind of layer.
fn back(name: String, tolerance: f64, graph: Graph) -> Case {
    Case { name: format!("gradients of {name}"), graph, tolerance }
}

fn norm_back(shape: Shape, groups: u32, frames_together: u32) -> Case {
    let spec = GroupNormSpec { groups, eps: 1e-5, silu: true, frames_together };
    let graph = graphs::group_norm_gradient(shape, spec);
    back(format!("group norm over {frames_together} {shape}"), ONE_ROUNDING, graph)
}

fn layer_norm_back(shape: Shape) -> Case {
    back(format!("layer norm {shape}"), ONE_ROUNDING, graphs::layer_norm_gradient(shape))
}

fn elements_back(shape: Shape) -> Case {
    back(format!("elements {shape}"), ONE_ROUNDING, graphs::element_gradients(shape))
}

fn turned_back(shape: Shape, to: u32) -> Case {
    back(format!("layers {shape} to {to}"), ONE_ROUNDING, graphs::turned(shape, to))
}

fn matrix_back(rows: u32, left: u32, right: u32) -> Case {
    let graph = graphs::matrix_gradient(rows, left, right);
    back(format!("a matrix, {rows} rows of {left} and {right}"), NO_ROUNDING, graph)
}

fn attention_back(extents: [u32; 3], heads: u32, width: u32, pattern: AttentionPattern) -> Case {
    let graph = graphs::attention_gradients(extents, (heads, width), pattern);
    back(format!("{pattern:?} attention, {extents:?}, {heads} x {width}"), ATTENTION_BACK, graph)
}

fn cross_back(extents: [u32; 3], tokens: u32, heads: u32, width: u32) -> Case {
    let graph = graphs::cross_attention_gradients(extents, tokens, (heads, width));
    back(format!("cross attention, {extents:?} to {tokens} tokens, {heads} x {width}"), ATTENTION_BACK, graph)
}

fn odd_cases() -> Vec<Case> {
    let temporal = |frames| AttentionPattern::Temporal { frames };
    let same = Conv::same;
    let mut cases = vec![
        conv(Shape::new(1, 5, 7, 16), same(40)),
        conv(Shape::new(2, 7, 6, 4), same(12)),
        conv(Shape::new(1, 9, 9, 16), same(3)),
        conv(Shape::new(1, 9, 8, 16), Conv { stride: 2, ..same(24) }),
        conv(
            Shape::new(2, 8, 8, 8),
            Conv { stride: 2, pad: Pad { top: 0, left: 0, bottom: 1, right: 1 }, ..same(16) },
        ),
        conv(Shape::new(2, 3, 5, 16), Conv { upsample: true, ..same(24) }),
        conv(Shape::new(11, 29, 27, 40), same(200)),
        conv(Shape::new(1, 4, 4, 200), same(40)),
        linear(1, 32, 64),
        linear(9, 16, 40),
        linear(65, 72, 7),
        linear(130, 4, 4),
        linear(6001, 136, 320),
        norm(Shape::new(4, 5, 3, 16), 4, 4),
        norm(Shape::new(1, 7, 7, 12), 4, 1),
        attention(2, 8, 8, 2, 8, AttentionPattern::Spatial),
        attention(1, 5, 9, 2, 20, AttentionPattern::Spatial),
        attention(1, 1, 77, 3, 64, AttentionPattern::Causal),
        attention(1, 9, 8, 1, 512, AttentionPattern::Spatial),
        attention(6, 2, 3, 1, 20, temporal(3)),
        attention(20, 2, 1, 1, 160, temporal(20)),
        attention(33, 1, 2, 1, 80, temporal(33)),
        cross(3, 20, 77, 2, 40),
        cross(1, 20, 1, 1, 20),
    ];
    cases.extend(rowwise(5, 40));
    cases.extend(rowwise(7, 20));
    cases.extend([
        back("a product of tensors".to_owned(), ONE_ROUNDING, graphs::product(150, 136, 200)),
        turned_back(Shape::new(2, 4, 6, 20), 12),
        turned_back(Shape::new(3, 9, 7, 24), 40),
        norm_back(Shape::new(4, 6, 7, 40), 5, 2),
        norm_back(Shape::new(2, 3, 4, 18), 3, 1),
        layer_norm_back(Shape::new(1, 1, 70, 320)),
        layer_norm_back(Shape::new(1, 1, 5, 13)),
        elements_back(Shape::new(2, 6, 4, 24)),
        elements_back(Shape::new(2, 6, 4, 10)),
        matrix_back(77, 40, 8),
        matrix_back(300, 13, 5),
        attention_back([1, 15, 7], 2, 40, AttentionPattern::Spatial),
        attention_back([1, 10, 7], 3, 5, AttentionPattern::Spatial),
        attention_back([1, 13, 7], 1, 128, AttentionPattern::Spatial),
        attention_back([1, 1, 77], 2, 64, AttentionPattern::Causal),
        attention_back([24, 1, 7], 2, 160, temporal(24)),
        attention_back([6, 2, 7], 1, 6, temporal(3)),
        cross_back([3, 20, 7], 77, 2, 40),
        cross_back([2, 3, 7], 7, 1, 12),
    ]);
    cases
}

/// The shapes of SD1.5 with motion modules at 512 x 512, one picture and 16 frames, and of its decoder.
fn full_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for frames in [1, 16] {
        for (side, channels, width) in [(64, 320, 40), (32, 640, 80), (16, 1280, 160), (8, 1280, 160)] {
            let shape = Shape::new(frames, side, side, channels);
            let rows = frames * side * side;
            cases.push(conv(shape, Conv::same(channels)));
            cases.push(linear(rows, channels, 3 * channels));
            cases.push(linear(rows, channels, 8 * channels));
            cases.push(linear(rows, 4 * channels, channels));
            cases.push(norm(shape, 32, 1));
            cases.push(attention(frames, side, side, 8, width, AttentionPattern::Spatial));
            cases.push(cross(frames, side * side, 77, 8, width));
            if frames > 1 {
                let pattern = AttentionPattern::Temporal { frames };
                cases.push(attention(frames, side, side, 8, width, pattern));
                cases.push(norm(shape, 32, frames));
            }
        }
        cases.extend(rowwise(frames * 4096, 640));
    }
    let temporal = AttentionPattern::Temporal { frames: 16 };
    for (side, channels, width) in [(64, 320, 40), (32, 640, 80), (16, 1280, 160)] {
        let one = Shape::new(1, side, side, channels);
        cases.push(norm_back(one, 32, 1));
        cases.push(norm_back(Shape { frames: 16, ..one }, 32, 16));
        cases.push(layer_norm_back(one));
        cases.push(elements_back(one));
        cases.push(turned_back(one, channels));
        cases.push(matrix_back(side * side, channels, 8));
        cases.push(attention_back([1, side, side], 8, width, AttentionPattern::Spatial));
        cases.push(cross_back([1, side, side], 77, 8, width));
        cases.push(attention_back([16, side, side], 8, width, temporal));
    }
    cases.push(linear(1, 1280, 1280));
    cases.push(conv(Shape::new(1, 512, 512, 128), Conv::same(128)));
    cases.push(conv(Shape::new(1, 256, 256, 256), Conv::same(256)));
    cases.push(conv(Shape::new(1, 64, 64, 512), Conv { upsample: true, ..Conv::same(512) }));
    cases.push(conv(Shape::new(1, 512, 512, 128), Conv::same(3)));
    cases.push(attention(1, 64, 64, 1, 512, AttentionPattern::Spatial));
    cases
}
