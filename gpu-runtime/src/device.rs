//! The device that models run on: chosen, opened, and told about in words.

use crate::RuntimeError;
use crate::cpu::CpuBackend;
use crate::cuda::{Cuda, Options};
use crate::generate::Backend;

/// Where a model is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first NVIDIA GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU, in f32.
    Cpu,
    /// The first NVIDIA GPU, in bf16.
    Cuda,
}

/// A device that is ready.
pub struct Opened {
    /// Runs programs.
    pub backend: Box<dyn Backend>,
    /// Versions of what it depends on, for profiles.
    pub host: String,
    /// Why it is not a GPU, where one would have been taken.
    pub note: Option<String>,
}

impl Choice {
    /// Opens the device.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when there is no GPU and one was asked for; what the driver says.
    pub fn open(self) -> Result<Opened, RuntimeError> {
        match self {
            Self::Cpu => Ok(cpu()),
            Self::Cuda => cuda(),
            Self::Auto => match cuda() {
                Err(RuntimeError::Unavailable { what, why }) => {
                    let note = format!("on the CPU, because {what} is not available: {why}");
                    Ok(Opened { note: Some(note), ..cpu() })
                }
                opened => opened,
            },
        }
    }
}

fn cpu() -> Opened {
    Opened { backend: Box::new(CpuBackend::default()), host: processor(), note: None }
}

fn cuda() -> Result<Opened, RuntimeError> {
    let cuda = Cuda::open(&Options::from_environment())?;
    let facts = cuda.facts();
    let (driver, (major, minor)) = (facts.driver_version, facts.compiler_version);
    let driver = format!("{}.{}", driver / 1000, driver % 1000 / 10);
    let architecture = facts.architecture();
    let host = format!(
        "{}, driver for CUDA {driver}, kernels by NVRTC {major}.{minor} for {architecture}",
        processor()
    );
    Ok(Opened { backend: Box::new(cuda), host, note: None })
}

/// The processor as Linux names it, with the cores that this process may use.
fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let facts = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = facts.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let name = name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned());
    format!("{name}, {cores} cores")
}
