//! One denoising step and one decoding with given inputs, for comparison with PyTorch on the same weights.

use std::error::Error;

use gpu_runtime::cuda::Cuda;
use gpu_runtime::generate::{Backend, ProgramId};
use gpu_runtime::graph::Graph;
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{Model, ModelSource};
use gpu_runtime::schedule::StepCoefficients;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::{Arguments, median, open};

type Outcome = Result<bool, Box<dyn Error>>;

/// f32 tensors of a safetensors file, by name.
struct Inputs(Vec<u8>);

impl Inputs {
    fn get(&self, name: &str) -> Result<Vec<f32>, Box<dyn Error>> {
        let file = SafeTensors::deserialize(&self.0)?;
        let view = file.tensor(name)?;
        if view.dtype() != Dtype::F32 {
            return Err(format!("`{name}` is not f32").into());
        }
        Ok(view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

struct Loaded {
    cuda: Cuda,
    model: Model,
    inputs: Inputs,
    frames: u32,
    side: u32,
    runs: u32,
}

fn load(arguments: &Arguments, motion: bool) -> Result<Loaded, Box<dyn Error>> {
    let mut source = ModelSource::folder(arguments.wanted("--model")?.as_ref());
    if !motion {
        source.motion_adapter = None;
    }
    Ok(Loaded {
        cuda: open()?,
        model: Model::open(&source)?,
        inputs: Inputs(std::fs::read(arguments.wanted("--inputs")?)?),
        frames: arguments.number("--frames", None)?,
        side: arguments.number("--side", None)?,
        runs: arguments.number("--runs", Some(60))?,
    })
}

fn write(
    cuda: &mut Cuda,
    id: ProgramId,
    graph: &Graph,
    name: &str,
    values: &[f32],
) -> Result<(), Box<dyn Error>> {
    let tensor = graph.find(name).ok_or_else(|| format!("no tensor `{name}`"))?;
    Ok(cuda.write(id, tensor, values)?)
}

/// Times a program, reads one tensor, writes it as `out` and prints a line.
fn finish(loaded: &mut Loaded, arguments: &Arguments, id: ProgramId, graph: &Graph, name: &str) -> Outcome {
    let tensor = graph.find(name).ok_or_else(|| format!("no tensor `{name}`"))?;
    let shape = graph.tensor(tensor).shape;
    let cuda = &mut loaded.cuda;
    cuda.run(id)?;
    let mut values = vec![0.0; shape.elements() as usize];
    cuda.read(id, tensor, &mut values)?;
    let mut times = Vec::new();
    for _ in 0..loaded.runs {
        times.push(f64::from(cuda.time(id, 1)?));
    }
    let together = f64::from(cuda.time(id, loaded.runs)?) / f64::from(loaded.runs.max(1));
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let dims = [shape.frames, shape.height, shape.width, shape.channels].map(|extent| extent as usize);
    let view = TensorView::new(Dtype::F32, dims.to_vec(), &bytes)?;
    std::fs::write(arguments.wanted("--outputs")?, safetensors::serialize([("out", view)], None)?)?;
    let line = serde_json::json!({
        "program": graph.name,
        "frames": loaded.frames,
        "side": loaded.side,
        "median_ms": median(&mut times),
        "min_ms": times.first(),
        "max_ms": times.last(),
        "back_to_back_ms": together,
        "kernels": cuda.nodes(id)?,
        "memory_bytes": cuda.memory().used,
    });
    println!("{line}");
    Ok(values.iter().all(|value| value.is_finite()))
}

/// `latents` `[frames, height, width, channels]`, `context`, `timestep`, `guidance` in; the network's output out.
pub(crate) fn step(arguments: &Arguments) -> Outcome {
    let frames = arguments.number("--frames", None)?;
    let mut loaded = load(arguments, frames > 1)?;
    let model = &loaded.model;
    let context_graph = program::context(&model.unet, model.text.tokens);
    let context = loaded.cuda.load(&context_graph, &model.weights)?;
    write(&mut loaded.cuda, context, &context_graph, program::CONTEXT, &loaded.inputs.get("context")?)?;
    loaded.cuda.run(context)?;
    let size = LatentSize { clips: 1, frames, height: loaded.side / 8, width: loaded.side / 8 };
    let graph = program::step(&model.unet, model.motion.as_ref(), size, model.text.tokens);
    let id = loaded.cuda.load(&graph, &model.weights)?;
    let find = |graph: &Graph| graph.find(program::CONTEXT_KV).ok_or("no keys and values");
    loaded.cuda.copy((context, find(&context_graph)?), (id, find(&graph)?))?;
    // The output is left in `denoised`, and the latents stay as they are.
    let passed_on =
        StepCoefficients { input_scale: 1.0, dx: 0.0, de: 1.0, nx: 1.0, nd: 0.0, np: 0.0, nn: 0.0 };
    for (name, values) in [
        (program::LATENTS, loaded.inputs.get("latents")?),
        (program::TIMESTEP, loaded.inputs.get("timestep")?),
        (program::SCALARS, program::scalars(&passed_on).to_vec()),
    ] {
        write(&mut loaded.cuda, id, &graph, name, &values)?;
    }
    if model.unet.guidance_channels.is_some() {
        write(&mut loaded.cuda, id, &graph, program::GUIDANCE, &loaded.inputs.get("guidance")?)?;
    }
    finish(&mut loaded, arguments, id, &graph, program::DENOISED)
}

/// `latents` in, already divided by the scaling factor; pictures out.
pub(crate) fn decode(arguments: &Arguments) -> Outcome {
    let mut loaded = load(arguments, false)?;
    let side = loaded.side / 8;
    let graph = program::decode(&loaded.model.vae, loaded.frames, side, side);
    let id = loaded.cuda.load(&graph, &loaded.model.weights)?;
    write(&mut loaded.cuda, id, &graph, program::SCALED_LATENTS, &loaded.inputs.get("latents")?)?;
    finish(&mut loaded, arguments, id, &graph, program::PICTURE)
}
