//! A request becomes frames: text encoding, denoising steps, decoding, with progress and cancellation.
//!
//! [`Generator`] holds one model on one [`Backend`], [`VideoGenerator`] one that makes pictures move. They know neither how
//! requests arrive nor what a frame costs.

mod backend;
mod generator;
mod loaded;
mod programs;
mod request;
mod tiny;
mod tiny_video;
mod video;
mod video_programs;
mod video_request;

pub use backend::{Backend, Memory, ProgramId};
pub use generator::{Exact, Generator, Inputs};
pub(crate) use loaded::Loaded;
pub use request::{CancelToken, GUIDANCE_MAX, Generated, Progress, Request, Start, Timings};
pub use tiny::make_tiny;
pub use tiny_video::make_tiny_video;
pub use video::VideoGenerator;
pub use video_request::{
    DECODE_FRAMES_USUAL, MOTION_USUAL, NOISE_MAX, NOISE_USUAL, RATE_USUAL, VideoRequest,
};
