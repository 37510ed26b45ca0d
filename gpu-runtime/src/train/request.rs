//! What a training is asked for, checked, and what comes back.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use sha2::{Digest, Sha256};

use super::adapter::{Adapters, Scope};
use super::checkpoint::Checkpoint;
use super::optimizer::OptimizerSettings;
use crate::RuntimeError;
use crate::model::program::LatentSize;
use crate::picture::Picture;
use crate::schedule::{Sampler, ScheduleConfig};
use crate::weights::Weights;

/// Most pictures of one training.
pub const IMAGES_MAX: usize = 1000;
/// Most steps of one training.
pub const STEPS_MAX: u32 = 100_000;
/// Most samples of one step.
pub const BATCH_MAX: u32 = 256;
/// Largest rank: that of adapters which are read.
pub const RANK_MAX: u32 = 1024;

/// How pictures are shown to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Each alone. Motion modules are not used.
    Pictures,
    /// As the frames of one clip, in order, through the motion modules.
    Clip {
        /// Which layers are trained.
        scope: Scope,
    },
}

/// A training that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainRequest {
    /// What is to be learned; scaled and cut to the size.
    pub images: Vec<Picture>,
    /// How they are shown.
    pub subject: Subject,
    /// What they show.
    pub prompt: String,
    /// Pixels per row and rows, multiples of [`crate::model::Model::side_step`]; what the model was trained for where it
    /// is `None`.
    pub size: Option<(u32, u32)>,
    /// Steps of the optimizer, 1 to [`STEPS_MAX`].
    pub steps: u32,
    /// Samples of one step, 1 to [`BATCH_MAX`].
    pub batch: u32,
    /// Rank of the adapters, 1 to [`RANK_MAX`].
    pub rank: u32,
    /// Products are multiplied by alpha / rank; the rank where it is `None`.
    pub alpha: Option<f64>,
    /// How steps are taken.
    pub optimizer: OptimizerSettings,
    /// Guidance scale that a model which embeds it is told; where it is `None`, what such models are shown with.
    pub guidance: Option<f64>,
    /// Sampler by whose class the scheduler's file is read; the folder's own where it is `None`.
    pub sampler: Option<Sampler>,
    /// Seed of adapters, timesteps and noise.
    pub seed: u64,
}

impl TrainRequest {
    /// Whatever makes two trainings differ, by name: the request, what it means for the model, and the model.
    pub(super) fn described(
        &self,
        LatentSize { frames, height, width, .. }: LatentSize,
        guidance: Option<f64>,
        schedule: &ScheduleConfig,
        weights: &Weights,
    ) -> BTreeMap<String, String> {
        let mut images = Sha256::new();
        for image in &self.images {
            images.update(image.width().to_le_bytes());
            images.update(image.rgb());
        }
        let hex = |bytes: &[u8]| bytes[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let OptimizerSettings { learning_rate, warm_up_steps, weight_decay, norm_max } = self.optimizer;
        let ScheduleConfig { train_timesteps, beta_start, beta_end, beta_spacing, prediction, .. } = schedule;
        let all = [
            ("images", format!("{} of {}", self.images.len(), hex(&images.finalize()))),
            ("model", hex(&weights.fingerprint())),
            ("subject", format!("{:?}", self.subject)),
            ("prompt", self.prompt.clone()),
            ("latents", format!("{frames} x {height} x {width}")),
            ("steps", self.steps.to_string()),
            ("batch", self.batch.to_string()),
            ("rank", self.rank.to_string()),
            ("alpha", self.alpha.map_or("the rank".to_owned(), |alpha| alpha.to_string())),
            ("learning rate", learning_rate.to_string()),
            ("warm-up", warm_up_steps.to_string()),
            ("weight decay", weight_decay.to_string()),
            ("largest gradient norm", norm_max.to_string()),
            ("guidance", guidance.map_or("none".to_owned(), |scale| scale.to_string())),
            (
                "schedule",
                format!(
                    "{train_timesteps} timesteps with betas {beta_start} to {beta_end} ({beta_spacing:?}), {prediction:?}"
                ),
            ),
            ("seed", self.seed.to_string()),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Demands what can be said without a model.
    pub(super) fn check(&self) -> Result<(), RuntimeError> {
        let bad = |why: String| Err(RuntimeError::BadRequest { why });
        if self.images.is_empty() {
            return bad("no image is given; name 1 or more pictures to learn from".to_owned());
        }
        if self.images.len() > IMAGES_MAX {
            return bad(format!("{} images; at most {IMAGES_MAX} are taken", self.images.len()));
        }
        for (name, value, most) in [
            ("steps", self.steps, STEPS_MAX),
            ("batch", self.batch, BATCH_MAX),
            ("rank", self.rank, RANK_MAX),
        ] {
            if value == 0 || value > most {
                return bad(format!("{name} {value} is not within 1 to {most}"));
            }
        }
        let OptimizerSettings { learning_rate, weight_decay, norm_max, .. } = self.optimizer;
        let checks = [
            ("alpha", self.alpha.unwrap_or(1.0), 0.0, 1e6),
            ("learning rate", learning_rate, 0.0, 1.0),
            ("largest gradient norm", norm_max, 0.0, 1e9),
        ];
        for (name, value, above, most) in checks {
            if !(value > above && value <= most) {
                return bad(format!("{name} {value} is not above {above} and at most {most}"));
            }
        }
        if !(0.0..=1.0).contains(&weight_decay) {
            return bad(format!("weight decay {weight_decay} is not within 0 to 1"));
        }
        if self.subject != Subject::Pictures && self.images.len() < 2 {
            return bad("1 image makes no clip; give 2 or more frames, or train on pictures".to_owned());
        }
        Ok(())
    }
}

/// How a training is kept while it runs, so that another run can go on with it.
pub struct Keeping<'a> {
    /// Where it goes on; from the beginning where it is `None`.
    pub from: Option<Checkpoint>,
    /// Steps from one checkpoint to the next.
    pub every: NonZeroU32,
    /// Takes each checkpoint. None comes after the last step.
    pub keep: &'a mut dyn FnMut(&Checkpoint),
}

/// Where a training stands. Sent between steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainProgress {
    /// Steps done.
    pub done: u32,
    /// Steps asked for.
    pub of: u32,
    /// Mean squared error of the last step's samples, before it.
    pub loss: f64,
}

/// What was learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The adapters.
    pub adapters: Adapters,
    /// Loss of every step, each with its own noise.
    pub losses: Vec<f64>,
    /// Mean loss over fixed timesteps and noise, before the first step.
    pub loss_before: f64,
    /// The same after the last.
    pub loss_after: f64,
    /// Tokens at the prompt's end that found no room.
    pub tokens_cut: usize,
    /// Bytes that the backend held.
    pub bytes: u64,
    /// Steps that an earlier run had done.
    pub steps_before: u32,
}
