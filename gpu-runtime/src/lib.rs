//! Distilled diffusion models in bf16 on an NVIDIA GPU, and in f32 on the CPU as the reference for everything.
//!
//! A model folder in the diffusers layout becomes a [`graph`] (a pure list of operations with shapes), which a backend
//! ([`cpu`] or [`cuda`]) executes. It knows nothing of policies, scenarios or networks.

pub mod cpu;
pub mod cuda;
pub mod device;
pub mod error;
pub mod generate;
pub mod graph;
pub mod model;
pub mod noise;
pub mod picture;
pub mod residency;
pub mod schedule;
mod small_file;
pub mod tokenizer;
pub mod train;
pub mod weights;

pub use error::RuntimeError;
