//! A request becomes frames: text encoding, denoising steps, decoding, with progress and cancellation.
//!
//! [`Generator`] holds one model on one [`Backend`]. It knows neither how requests arrive nor what a frame costs.

mod backend;
mod generator;
mod programs;
mod request;
mod tiny;

pub use backend::{Backend, Memory, ProgramId};
pub use generator::{Exact, Generator, Inputs};
pub use request::{CancelToken, GUIDANCE_MAX, Generated, Progress, Request, Start, Timings};
pub use tiny::make_tiny;
