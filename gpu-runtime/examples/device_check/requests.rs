//! Whole requests: the tiny model on both backends, and an animation with its idle time.

use std::error::Error;
use std::time::Instant;

use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::{Backend, CancelToken, Exact, Generator, Inputs, Request};
use gpu_runtime::model::ModelSource;
use gpu_runtime::noise::Noise;

use crate::{Arguments, median, open, relative_error};

/// Twice 1.5 times what PyTorch's bf16 loses in one forward pass of this model: errors of four steps add up.
const TINY_TOLERANCE: f64 = 3.1e-2;

fn request(frames: u32, side: u32, steps: u32, guidance: f64) -> Request {
    Request {
        prompt: "a photo of the cat running".to_owned(),
        seed: 7,
        steps,
        frames,
        width: side,
        height: side,
        guidance,
        start: None,
        sampler: None,
    }
}

fn exactly(
    source: &ModelSource,
    backend: Box<dyn Backend>,
    request: &Request,
) -> Result<Exact, Box<dyn Error>> {
    let mut generator = Generator::new(source, backend)?;
    let mut noise = |stream: &str, values: &mut [f32]| Noise::new(7, stream).fill(0, values);
    let inputs = Inputs { start: None, noise: &mut noise };
    Ok(generator.generate_exactly(request, inputs, &mut |_| {}, &CancelToken::new())?)
}

/// The tiny model with the same noise on the CPU, which matches the recorded outputs, and on the GPU.
pub(crate) fn tiny(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let mut source = ModelSource::folder(arguments.wanted("--model")?.as_ref());
    let mut good = true;
    for frames in [4, 1] {
        if frames == 1 {
            source.motion_adapter = None;
        }
        let request = request(frames, 16, 4, 8.0);
        let cpu = exactly(&source, Box::new(CpuBackend::default()), &request)?;
        let gpu = exactly(&source, Box::new(open()?), &request)?;
        let latents = relative_error(&gpu.latents, &cpu.latents);
        let pictures = relative_error(&gpu.frames.concat(), &cpu.frames.concat());
        let within = latents <= TINY_TOLERANCE && pictures <= TINY_TOLERANCE;
        let line = serde_json::json!({
            "tiny_frames": frames,
            "latents_error": latents,
            "pictures_error": pictures,
            "tolerance": TINY_TOLERANCE,
            "good": within,
        });
        println!("{line}");
        good &= within;
    }
    Ok(good)
}

/// Load time with everything cached, then medians of whole requests.
pub(crate) fn animate(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let source = ModelSource::folder(arguments.wanted("--model")?.as_ref());
    let (frames, side) = (arguments.number("--frames", None)?, arguments.number("--side", None)?);
    let steps = arguments.number("--steps", None)?;
    let runs = arguments.number("--runs", Some(5))?;
    let mut loads = Vec::new();
    let mut open_model = || -> Result<Generator, Box<dyn Error>> {
        let started = Instant::now();
        let mut generator = Generator::new(&source, Box::new(open()?))?;
        generator.prepare(frames, side, side, false)?;
        loads.push(started.elapsed().as_secs_f64());
        Ok(generator)
    };
    // The first load fills the page cache and the cache of kernels.
    drop(open_model()?);
    let mut generator = open_model()?;
    let guidance = if generator.model().unet.guidance_channels.is_some() { 8.0 } else { 1.0 };
    let request = request(frames, side, steps, guidance);
    let (mut walls, mut step_times, mut decode_times) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..=runs {
        let started = Instant::now();
        let made = generator.generate(&request, &mut |_| {}, &CancelToken::new())?;
        if run > 0 {
            walls.push(started.elapsed().as_secs_f64() * 1e3);
            step_times.push(made.timings.steps.as_secs_f64() * 1e3);
            decode_times.push(made.timings.decode.as_secs_f64() * 1e3);
        }
    }
    let line = serde_json::json!({
        "animation_frames": frames,
        "side": side,
        "steps": steps,
        "first_load_s": loads[0],
        "cached_load_s": loads[1],
        "wall_ms": median(&mut walls),
        "steps_ms": median(&mut step_times),
        "decode_ms": median(&mut decode_times),
        "memory_bytes": generator.memory().used,
    });
    println!("{line}");
    Ok(true)
}
