//! What is asked of an image-to-video model.

use crate::picture::Picture;
use crate::schedule::Sampler;

/// A clip that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoRequest {
    /// Picture that moves; scaled and cut to the request's size.
    pub picture: Picture,
    /// Seed of all noise; the same request with the same seed gives the same frames on one backend.
    pub seed: u64,
    /// Denoising steps, 1 to [`crate::schedule::STEPS_MAX`].
    pub steps: u32,
    /// Frames.
    pub frames: u32,
    /// Pixels per row, a multiple of [`crate::model::VideoModel::side_step`].
    pub width: u32,
    /// Rows, likewise.
    pub height: u32,
    /// Frames a second that the clip is made for; at least 1.
    pub rate: u32,
    /// How much moves: the model's motion bucket. Stable Video Diffusion was trained with 0 to 255.
    pub motion: u32,
    /// Deviation of the noise on the start picture, 0 to [`NOISE_MAX`].
    pub noise: f64,
    /// Exactly 1, no guidance.
    pub guidance: f64,
    /// Frames that are decoded together, at most: more keep their neighbours in sight, fewer need less memory.
    pub decode_frames: u32,
    /// Sampler; the folder's own where it is `None`.
    pub sampler: Option<Sampler>,
}

/// Largest deviation of the noise on the start picture, whose pixels lie in -1..1.
pub const NOISE_MAX: f64 = 10.0;
/// Frame rate that Stable Video Diffusion is shown with, in frames a second.
pub const RATE_USUAL: u16 = 7;
/// Motion bucket that it is shown with.
pub const MOTION_USUAL: u32 = 127;
/// Deviation of the start picture's noise that it is shown with.
pub const NOISE_USUAL: f64 = 0.02;
/// Frames decoded together in its published examples.
pub const DECODE_FRAMES_USUAL: u32 = 8;
