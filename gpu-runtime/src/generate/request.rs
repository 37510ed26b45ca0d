//! What is asked for, what comes back, and how the one who asked follows and stops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::picture::Picture;
use crate::schedule::Sampler;

/// A picture or an animation that is asked for. There are no negative prompts: guidance is distilled or absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What it shows.
    pub prompt: String,
    /// Seed of all noise; the same request with the same seed gives the same frames on one backend.
    pub seed: u64,
    /// Denoising steps, 1 to [`crate::schedule::STEPS_MAX`].
    pub steps: u32,
    /// Frames; 1 is a picture.
    pub frames: u32,
    /// Pixels per row, a multiple of [`crate::model::Model::side_step`].
    pub width: u32,
    /// Rows, likewise.
    pub height: u32,
    /// Guidance scale: 1 to [`GUIDANCE_MAX`] for models that embed it, otherwise exactly 1 (no guidance).
    pub guidance: f64,
    /// Picture to begin with, instead of noise alone.
    pub start: Option<Start>,
    /// Sampler; the folder's own where it is `None`.
    pub sampler: Option<Sampler>,
}

/// Largest guidance scale. Latent consistency models are distilled with 2 to 14 (Luo et al. 2023, arXiv 2310.04378).
pub const GUIDANCE_MAX: f64 = 30.0;

/// A picture to begin with: every frame starts as this picture, noised.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Scaled and cut to the request's size.
    pub picture: Picture,
    /// How far it is noised, within 0 (exclusive) to 1 (nothing of it is left).
    pub strength: f64,
}

/// Where a request stands. Sent between launches, never during one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The prompt is encoded, and the start picture where there is one.
    Conditioned,
    /// Steps done.
    Step {
        /// How many are done.
        done: u32,
        /// How many there are.
        of: u32,
    },
    /// Frames decoded.
    Frame {
        /// How many are done.
        done: u32,
        /// How many there are.
        of: u32,
    },
}

/// Stops a request from another thread, before its next step or frame.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that has not been used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops every request that holds this token.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was used.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long the parts of a request took, each until the device had finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Making programs ready that were not.
    pub prepare: Duration,
    /// Prompt to keys and values of the context.
    pub text: Duration,
    /// Start picture to latents; zero without one.
    pub encode: Duration,
    /// All steps.
    pub steps: Duration,
    /// All frames.
    pub decode: Duration,
}

/// What was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Frames in order.
    pub frames: Vec<Picture>,
    /// Steps that were taken; fewer than asked for with a start picture and some samplers.
    pub steps: u32,
    /// Tokens at the prompt's end that found no room.
    pub tokens_cut: usize,
    /// How long it took.
    pub timings: Timings,
}
