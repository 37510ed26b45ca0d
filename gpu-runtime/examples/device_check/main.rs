//! What `gpu-runtime/device/check` runs on a machine with a GPU: kernels against the CPU backend, whole models, times.
//!
//! Results are lines of JSON on standard output; the exit status is 1 when something is out of its tolerance.

mod forward;
#[path = "../../tests/graphs/mod.rs"]
mod graphs;
mod kernels;
mod requests;
mod train;

use std::process::ExitCode;

use gpu_runtime::RuntimeError;
use gpu_runtime::cuda::{Cuda, Options};

const USAGE: &str = "usage: device_check facts
       device_check kernels [--full]
       device_check tiny --model FOLDER
       device_check forward --model FOLDER --frames N --side PIXELS --inputs FILE --outputs FILE [--runs N]
       device_check decode --model FOLDER --frames N --side PIXELS --inputs FILE --outputs FILE [--runs N]
       device_check animate --model FOLDER --frames N --side PIXELS --steps N [--runs N]
       device_check tiny-training --model FOLDER
       device_check train --model FOLDER --frames N --side PIXELS [--runs N]";

/// Arguments after the command: `--name value`, or `--name` alone.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    pub(crate) fn wanted(&self, name: &str) -> Result<&str, String> {
        self.text(name).ok_or_else(|| format!("{name} is missing\n{USAGE}"))
    }

    pub(crate) fn number(&self, name: &str, default: Option<u32>) -> Result<u32, String> {
        match (self.text(name), default) {
            (Some(text), _) => text.parse().map_err(|_| format!("{name} is a number, not `{text}`")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(format!("{name} is missing\n{USAGE}")),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }
}

pub(crate) fn open() -> Result<Cuda, RuntimeError> {
    Cuda::open(&Options::from_environment())
}

/// ‖got - expected‖ / ‖expected‖.
pub(crate) fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(expected).map(|(g, e)| f64::from(*g) - f64::from(*e)));
    difference / norm(&mut expected.iter().map(|e| f64::from(*e))).max(f64::MIN_POSITIVE)
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let arguments = Arguments(words.collect());
    let outcome = match command.as_str() {
        "facts" => facts(),
        "kernels" => kernels::check(&arguments),
        "tiny" => requests::tiny(&arguments),
        "forward" => forward::step(&arguments),
        "decode" => forward::decode(&arguments),
        "animate" => requests::animate(&arguments),
        "tiny-training" => train::tiny(&arguments),
        "train" => train::steps(&arguments),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("device_check {command}: {error}");
            ExitCode::from(2)
        }
    }
}

fn facts() -> Result<bool, Box<dyn std::error::Error>> {
    let cuda = open()?;
    let facts = cuda.facts();
    let line = serde_json::json!({
        "device": facts.name,
        "driver": facts.driver_version,
        "capability": facts.capability,
        "processors": facts.processors,
        "memory_bytes": facts.memory_bytes,
        "nvrtc": format!("{}.{}", facts.compiler_version.0, facts.compiler_version.1),
    });
    println!("{line}");
    Ok(true)
}
