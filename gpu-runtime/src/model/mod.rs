//! Model definitions: a diffusers folder's configuration files become graphs.
//!
//! Configurations are strict: a key that changes results and has a value that is not implemented is an error, and so
//! is a key that is not known. Past [`Model::open`] every graph can be built for any size that [`Model::latent_size`]
//! accepts.

mod blocks;
mod configuration;
mod folder;
mod keys;
pub mod program;
mod text;
mod unet;
mod vae;
mod video;
mod video_folder;
mod vision;

pub use configuration::{
    MotionConfig, PixelNorm, TextActivation, TextConfig, UnetConfig, VaeConfig, VideoUnetConfig, VisionConfig,
};
pub(crate) use folder::smallest_programs;
pub use folder::{Model, ModelSource};
pub(crate) use video_folder::smallest_video_programs;
pub use video_folder::{Class, VideoModel};
