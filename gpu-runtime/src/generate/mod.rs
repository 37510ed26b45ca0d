//! A request becomes frames: text encoding, denoising steps, decoding, with progress and cancellation.

mod backend;

pub use backend::{Backend, Memory, ProgramId};
