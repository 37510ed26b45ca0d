//! The CUDA backend: a graph in bf16 on one NVIDIA GPU, through cudarc's driver calls and kernels of our own.
//!
//! [`probe`] finds the libraries, [`nvrtc`] compiles `kernels/*.cu`, [`lower()`] turns operations into launches, and
//! [`Cuda`] hands everything to the one thread that owns the device. Without a driver all of it is
//! [`crate::RuntimeError::Unavailable`], never a panic.

mod arguments;
mod backend;
mod device;
mod fuse;
mod layout;
mod lower;
pub mod nvrtc;
pub mod probe;
mod program;

pub use arguments::Launch;
pub use backend::{Cuda, Options};
pub use device::Facts;
pub use lower::{Addresses, Lowered, Target, lower};
pub use program::memory_of;
