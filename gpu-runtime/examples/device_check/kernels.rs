//! Single operations on the GPU against the CPU backend, at odd and at full sizes, with times.

use std::error::Error;

use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::cuda::Cuda;
use gpu_runtime::generate::Backend;
use gpu_runtime::graph::{
    ActivationFunction, AttentionPattern, Builder, Conv, Cost, Graph, GroupNormSpec, LinearSpec, Pad,
    Precision, Shape, TensorId, View,
};
use gpu_runtime::noise::Noise;
use gpu_runtime::weights::{Component, Weights};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView};

use crate::{Arguments, median, open, relative_error};

/// Rounding of one bf16 result, relative to the tensor's norm, with room for the order of sums.
const ONE_ROUNDING: f64 = 2.5e-3;
/// Attention also rounds its probabilities.
const ATTENTION: f64 = 6e-3;
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
    let folder = tempfile::tempdir()?;
    let weights = random_weights(graph, folder.path())?;
    let mut cpu = CpuBackend::default();
    let (on_gpu, on_cpu) = (cuda.load(graph, &weights)?, cpu.load(graph, &weights)?);
    for (index, &tensor) in graph.inputs.iter().enumerate() {
        let count = graph.tensor(tensor).shape.elements() as usize;
        let values = rounded(Noise::new(index as u64 + 1, "input").take(count));
        cuda.write(on_gpu, tensor, &values)?;
        cpu.write(on_cpu, tensor, &values)?;
    }
    cpu.run(on_cpu)?;
    let output = graph.outputs[0];
    let mut results = [(); 3].map(|()| vec![0.0; graph.tensor(output).shape.elements() as usize]);
    cpu.read(on_cpu, output, &mut results[0])?;
    cuda.run(on_gpu)?;
    cuda.read(on_gpu, output, &mut results[1])?;
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        times.push(f64::from(cuda.time(on_gpu, 1)?));
    }
    // Every run gives the same bits: no sum depends on the order of blocks.
    cuda.read(on_gpu, output, &mut results[2])?;
    let same = results[1] == results[2];
    let error = relative_error(&results[1], &results[0]);
    let good = error <= case.tolerance && same;
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

fn rounded(mut values: Vec<f32>) -> Vec<f32> {
    values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
    values
}

fn random_weights(graph: &Graph, folder: &std::path::Path) -> Result<Weights, Box<dyn Error>> {
    let mut stored = Vec::new();
    for weight in &graph.weights {
        let dims: Vec<usize> = weight.dims.iter().map(|&extent| extent as usize).collect();
        let fan_in: usize = dims[1..].iter().product();
        let scale = 1.0 / (fan_in as f32).sqrt();
        let values = Noise::new(7, &weight.name).take(dims.iter().product());
        let bytes: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(v * scale).to_le_bytes()).collect();
        stored.push((weight.name.trim_start_matches("unet/").to_owned(), dims, bytes));
    }
    let mut weights = Weights::new();
    if !stored.is_empty() {
        let views = stored
            .iter()
            .map(|(name, dims, bytes)| Ok((name, TensorView::new(Dtype::BF16, dims.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        let file = folder.join("diffusion_pytorch_model.safetensors");
        std::fs::write(file, safetensors::serialize(views, None)?)?;
        weights.add(Component::Unet, folder)?;
    }
    Ok(weights)
}

fn case(
    name: &str,
    inputs: &[Shape],
    tolerance: f64,
    build: impl FnOnce(&mut Builder, &[TensorId]) -> TensorId,
) -> Case {
    let mut b = Builder::new("case", "unet");
    let ids: Vec<TensorId> = inputs
        .iter()
        .enumerate()
        .map(|(index, shape)| b.input(&format!("x{index}"), *shape, Precision::Model))
        .collect();
    let out = build(&mut b, &ids);
    b.output(out);
    Case { name: format!("{name} {}", inputs[0]), graph: b.finish(), tolerance }
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
    cases.push(linear(1, 1280, 1280));
    cases.push(conv(Shape::new(1, 512, 512, 128), Conv::same(128)));
    cases.push(conv(Shape::new(1, 256, 256, 256), Conv::same(256)));
    cases.push(conv(Shape::new(1, 64, 64, 512), Conv { upsample: true, ..Conv::same(512) }));
    cases.push(conv(Shape::new(1, 512, 512, 128), Conv::same(3)));
    cases.push(attention(1, 64, 64, 1, 512, AttentionPattern::Spatial));
    cases
}
