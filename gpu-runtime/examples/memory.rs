//! Prints the memory and the work of one request as a Markdown table, from configuration files alone.
//!
//! usage: memory UNET_CONFIG TEXT_CONFIG VAE_CONFIG [MOTION_CONFIG]

use std::path::Path;
use std::process::ExitCode;

use gpu_runtime::cuda::{Target, memory_of};
use gpu_runtime::graph::{Cost, Graph};
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{MotionConfig, TextConfig, UnetConfig, VaeConfig};
use gpu_runtime::train::{self, Scope};
use gpu_runtime::{RuntimeError, cpu};

/// Frames and side of the frames in pixels.
const KINDS: [(u32, u32); 5] = [(1, 512), (8, 256), (16, 256), (8, 512), (16, 512)];

/// Rank of the adapters that are trained.
const RANK: u32 = 4;

/// What the workspace of kernels depends on.
const H100: Target = Target { processors: 132, warpgroups: true };

struct Configurations {
    unet: UnetConfig,
    text: TextConfig,
    vae: VaeConfig,
    motion: Option<MotionConfig>,
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if !(3..=4).contains(&paths.len()) {
        eprintln!("usage: memory UNET_CONFIG TEXT_CONFIG VAE_CONFIG [MOTION_CONFIG]");
        return ExitCode::from(2);
    }
    match read(&paths) {
        Ok(configurations) => {
            print(&configurations);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn read(paths: &[String]) -> Result<Configurations, RuntimeError> {
    let unet = UnetConfig::read(Path::new(&paths[0]))?;
    let motion = paths.get(3).map(|path| MotionConfig::read(Path::new(path), &unet)).transpose()?;
    let text = TextConfig::read(Path::new(&paths[1]))?;
    Ok(Configurations { text, vae: VaeConfig::read(Path::new(&paths[2]))?, unet, motion })
}

fn print(of: &Configurations) {
    println!(
        "| frames | size | TFLOP per step | weights GB | tensors GB | GPU (bf16) GB | CPU (f32) GB | training, GPU GB | training, CPU GB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (frames, side) in KINDS {
        if frames > 1 && of.motion.is_none() {
            continue;
        }
        let latents = side / of.vae.factor();
        let size = LatentSize { clips: 1, frames, height: latents, width: latents };
        let motion = of.motion.as_ref().filter(|_| frames > 1);
        let step = program::step(&of.unet, motion, size, of.text.tokens);
        let flops = Cost::of(&step, 2).total().flops;
        let programs = [
            program::text(&of.text),
            program::context(&of.unet, of.text.tokens),
            step,
            program::decode(&of.vae, 1, latents, latents),
            program::encode(&of.vae, latents, latents),
        ];
        let giga = |bytes: u64| bytes as f64 / 1e9;
        let both = |(weights, tensors): (u64, u64), graph: (u64, u64)| (weights + graph.0, tensors + graph.1);
        let gpu = programs.iter().map(|graph| memory_of(graph, H100)).fold((0, 0), both);
        let on_cpu = programs.iter().map(cpu::memory_of).fold((0, 0), both);
        let training = |memory_of: &dyn Fn(&Graph) -> (u64, u64)| {
            let of_rank = (RANK, Scope::SpatialAndMotion);
            let (weights, tensors) =
                memory_of(&train::graph(&of.unet, motion, (size, of.text.tokens), of_rank));
            giga(weights + tensors)
        };
        println!(
            "| {frames} | {side} x {side} | {:.3} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            flops as f64 / 1e12,
            giga(gpu.0),
            giga(gpu.1),
            giga(gpu.0 + gpu.1),
            giga(on_cpu.0 + on_cpu.1),
            training(&|graph| memory_of(graph, H100)),
            training(&cpu::memory_of),
        );
    }
}
