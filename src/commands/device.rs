//! The device that models run on: chosen by a flag, told about in words.

use clap::ValueEnum;
use gpu_runtime::RuntimeError;
use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::Backend;

use crate::screen::Screen;

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// The first NVIDIA GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU, in f32.
    Cpu,
    /// The first NVIDIA GPU, in bf16.
    Cuda,
}
