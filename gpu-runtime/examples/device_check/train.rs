//! Training: gradients of a model on both backends, and the time of a step.

use std::error::Error;
use std::time::Instant;

use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::Backend;
use gpu_runtime::model::program::LatentSize;
use gpu_runtime::model::{Model, ModelSource};
use gpu_runtime::noise::Noise;
use gpu_runtime::schedule::SchedulerFile;
use gpu_runtime::train::{Conditions, OptimizerSettings, Sample, Scope, Settings, Trainer};

use crate::{Arguments, median, open, relative_error};

/// 1.5 times what PyTorch's bf16 loses in the gradients of the tiny model (`tests/fixtures/train/facts.json`).
const TINY_TOLERANCE: f64 = 2.7e-2;

/// Standard deviation of the adapters' up matrices, which begin at zero, where the gradients of all are compared.
const UP_DEVIATION: f32 = 0.1;

fn trainer(
    source: &ModelSource,
    frames: u32,
    side: u32,
    backend: Box<dyn Backend>,
) -> Result<Trainer, Box<dyn Error>> {
    let model = Model::open(source)?;
    let schedule = SchedulerFile::load(&source.folder.join("scheduler"))?.resolve(None)?;
    let features = (model.text.tokens * model.unet.context_channels) as usize;
    let conditions = Conditions {
        context: Noise::new(1, "context").take(features),
        guidance: model.unet.guidance_channels.map(|_| 8.0),
    };
    let latents = side / model.vae.factor();
    let size = LatentSize { clips: 1, frames, height: latents, width: latents };
    let optimizer =
        OptimizerSettings { learning_rate: 1e-4, warm_up_steps: 10, weight_decay: 1e-2, norm_max: 1.0 };
    let settings = Settings { rank: 4, alpha: 4.0, scope: Scope::SpatialAndMotion, seed: 1, optimizer };
    Ok(Trainer::new(&model, &schedule, &conditions, size, &settings, backend)?)
}

fn sample(trainer: &Trainer) -> Sample {
    let values = |stream: &str| Noise::new(2, stream).take(trainer.sample_elements());
    Sample { latents: values("latents"), noise: values("noise"), timestep: 400 }
}

/// Loss and all gradients of one sample, the same on every backend.
fn gradients(mut trainer: Trainer) -> Result<(f64, Vec<f32>), Box<dyn Error>> {
    for layer in &mut trainer.adapters_mut().layers {
        let up = Noise::new(3, &layer.name).take(layer.pair.up.len());
        layer.pair.up = up.into_iter().map(|value| UP_DEVIATION * value).collect();
    }
    let sample = sample(&trainer);
    let (loss, pairs) = trainer.gradients(&[sample])?;
    Ok((loss, pairs.into_iter().flat_map(|pair| [pair.down, pair.up].concat()).collect()))
}

/// The tiny model's gradients on the GPU beside those of the CPU, which are PyTorch's.
pub(crate) fn tiny(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let source = ModelSource::folder(arguments.wanted("--model")?.as_ref());
    let mut good = true;
    for frames in [1, 4] {
        let (cpu_loss, cpu) = gradients(trainer(&source, frames, 16, Box::new(CpuBackend::default()))?)?;
        let (loss, gpu) = gradients(trainer(&source, frames, 16, Box::new(open()?))?)?;
        let error = relative_error(&gpu, &cpu);
        let within = error <= TINY_TOLERANCE;
        let line = serde_json::json!({
            "tiny_training_frames": frames,
            "gradients_error": error,
            "loss_error": (loss / cpu_loss - 1.0).abs(),
            "tolerance": TINY_TOLERANCE,
            "good": within,
        });
        println!("{line}");
        good &= within;
    }
    Ok(good)
}

/// Wall time of whole steps: adapters up, the way there and back, gradients down, optimizer.
pub(crate) fn steps(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let mut source = ModelSource::folder(arguments.wanted("--model")?.as_ref());
    let (frames, side) = (arguments.number("--frames", None)?, arguments.number("--side", None)?);
    if frames == 1 {
        source.motion_adapter = None;
    }
    let runs = arguments.number("--runs", Some(20))?;
    let mut trainer = trainer(&source, frames, side, Box::new(open()?))?;
    let sample = sample(&trainer);
    let mut times = Vec::new();
    let mut loss = f64::NAN;
    for run in 0..=runs {
        let started = Instant::now();
        loss = trainer.step(std::slice::from_ref(&sample))?.loss;
        if run > 0 {
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    let line = serde_json::json!({
        "training_frames": frames,
        "side": side,
        "median_ms": median(&mut times),
        "memory_bytes": trainer.bytes(),
        "loss": loss,
    });
    println!("{line}");
    Ok(loss.is_finite())
}
