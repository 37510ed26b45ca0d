//! Fine-tuning: low-rank adapters of the attention layers, trained on a handful of frames.
//!
//! The network that generates is differentiated as it is: [`crate::graph::Op`] by [`crate::graph::Op`], which makes a program
//! that every backend runs. Nothing here knows how a file became a picture, or where adapters are kept.

mod adapter;
mod attach;
mod checkpoint;
mod file;
mod optimizer;
mod program;
mod reach;
mod request;
mod reverse;
mod session;
mod trainer;

pub use adapter::{Adapters, Layer, Pair, Scope};
pub use checkpoint::Checkpoint;
pub use optimizer::OptimizerSettings;
pub use program::graph;
pub use request::{
    BATCH_MAX, IMAGES_MAX, Keeping, RANK_MAX, STEPS_MAX, Subject, TrainProgress, TrainRequest, Trained,
};
pub use session::train;
pub use trainer::{Conditions, Sample, Settings, StepReport, Trainer};

#[cfg(test)]
mod rule_tests;
