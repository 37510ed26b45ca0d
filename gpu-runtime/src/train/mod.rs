//! Fine-tuning: low-rank adapters of the attention layers, trained on a handful of frames.
//!
//! The programs that generate are differentiated as they are: [`crate::graph::Op`] by [`crate::graph::Op`], on the CPU in
//! f32. Nothing here knows how a file became a picture, or where adapters are kept. Training on a GPU is not built.

mod adapter;
mod backward;
mod file;
mod optimizer;
mod reach;
mod request;
mod session;
mod tape;
mod trainer;

pub use adapter::{Adapters, Layer, Pair, Scope};
pub use optimizer::OptimizerSettings;
pub use request::{
    BATCH_MAX, IMAGES_MAX, RANK_MAX, STEPS_MAX, Subject, TrainProgress, TrainRequest, Trained,
};
pub use session::train;
pub use trainer::{Conditions, Sample, Settings, StepReport, Trainer, TrainingBytes};

#[cfg(test)]
mod rule_tests;
