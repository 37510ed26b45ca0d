//! The device that models run on, as a flag names it.

use clap::ValueEnum;
use gpu_runtime::RuntimeError;
use gpu_runtime::device::Choice;

pub(crate) use gpu_runtime::device::Opened;

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

impl Device {
    /// Opens the device.
    ///
    /// # Errors
    /// `Unavailable` when there is no GPU and one was asked for; what the driver says.
    pub(crate) fn open(self) -> Result<Opened, RuntimeError> {
        self.choice().open()
    }

    /// The runtime's word for it.
    pub(crate) const fn choice(self) -> Choice {
        match self {
            Self::Auto => Choice::Auto,
            Self::Cpu => Choice::Cpu,
            Self::Cuda => Choice::Cuda,
        }
    }
}
