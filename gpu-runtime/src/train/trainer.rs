//! A denoising network whose adapters learn: noise is added to latents, and the network's error in predicting it lowered.

use std::collections::BTreeMap;

use super::adapter::{Adapters, Pair, Scope};
use super::checkpoint::Checkpoint;
use super::optimizer::{AdamW, OptimizerSettings};
use super::program::{Network, Program, TARGET};
use crate::RuntimeError;
use crate::generate::Backend;
use crate::model::Model;
use crate::model::program::{self, LatentSize};
use crate::schedule::embedding::{guidance_embedding, timestep_embedding};
use crate::schedule::{Prediction, ScheduleConfig};

/// What is trained and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Rank of every product.
    pub rank: u32,
    /// Products are multiplied by alpha / rank.
    pub alpha: f32,
    /// Which layers.
    pub scope: Scope,
    /// Seed of the adapters' first values.
    pub seed: u64,
    /// How steps are taken.
    pub optimizer: OptimizerSettings,
}

/// What the network is told in every step.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// Text features, `[1, 1, tokens, context channels]`.
    pub context: Vec<f32>,
    /// Guidance scale, of models that embed it.
    pub guidance: Option<f64>,
}

/// One thing to learn from: latents `[frames, height, width, latent channels]`, noise of the same extents, and how much of
/// it is added.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Scaled latents without noise.
    pub latents: Vec<f32>,
    /// Standard normal noise.
    pub noise: Vec<f32>,
    /// Timestep of training, below [`ScheduleConfig::train_timesteps`].
    pub timestep: u32,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean squared error before the step, over the samples.
    pub loss: f64,
    /// Norm of all gradients before it was cut.
    pub gradient_norm: f64,
}

/// Network, adapters and optimizer. The network runs on a backend, forward and backward; the adapters' own values and the
/// optimizer's are here, in f32.
pub struct Trainer {
    backend: Box<dyn Backend>,
    network: Network,
    adapters: Adapters,
    optimizer: AdamW,
    /// Share of signal variance at every timestep.
    variances: Vec<f64>,
    prediction: Prediction,
    timestep_channels: usize,
}

impl Trainer {
    /// Loads the network and gives it fresh adapters. With more than one frame the samples are clips and go through the
    /// motion modules.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] when a weight does not fit; [`RuntimeError::OutOfMemory`]; [`RuntimeError::Sticky`].
    ///
    /// # Panics
    /// When the context's length is not that of the model.
    pub fn new(
        model: &Model,
        schedule: &ScheduleConfig,
        conditions: &Conditions,
        size: LatentSize,
        settings: &Settings,
        mut backend: Box<dyn Backend>,
    ) -> Result<Self, RuntimeError> {
        let mut adapters =
            Adapters { rank: settings.rank as usize, alpha: settings.alpha, layers: Vec::new() };
        let program = Program::new(
            &model.unet,
            model.motion.as_ref(),
            (size, model.text.tokens),
            (settings.scope, settings.seed),
            &mut adapters,
        );
        let network = program.load(&model.weights, &mut *backend)?;
        network.write(&mut *backend, program::CONTEXT, &conditions.context)?;
        if let (Some(channels), Some(guidance)) = (model.unet.guidance_channels, conditions.guidance) {
            network.write(
                &mut *backend,
                program::GUIDANCE,
                &guidance_embedding(guidance, channels as usize),
            )?;
        }
        Ok(Self {
            backend,
            network,
            optimizer: AdamW::new(settings.optimizer, &adapters),
            adapters,
            variances: schedule.signal_variances(),
            prediction: schedule.prediction,
            timestep_channels: model.unet.channels[0] as usize,
        })
    }

    /// What has been learned.
    #[must_use]
    pub fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    /// The same, to be changed: for comparisons with other implementations.
    pub fn adapters_mut(&mut self) -> &mut Adapters {
        self.network.forget_adapters();
        &mut self.adapters
    }

    /// What was learned and what the optimizer remembers, by layer: values, means of gradients, means of their squares.
    pub(super) fn layers(&self) -> BTreeMap<String, [Pair; 3]> {
        let layers = self.adapters.layers.iter().zip(self.optimizer.moments());
        layers
            .map(|(layer, [mean, square])| {
                (layer.name.clone(), [layer.pair.clone(), mean.clone(), square.clone()])
            })
            .collect()
    }

    /// Goes on where a training was kept.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] when it was of other layers; nothing is changed then.
    pub(super) fn go_on(&mut self, from: &Checkpoint) -> Result<(), RuntimeError> {
        let found = self.adapters.layers.iter().map(|layer| from.layer(&layer.name, &layer.pair));
        let found = found.collect::<Result<Vec<_>, _>>()?;
        let mut moments = Vec::with_capacity(found.len());
        for (layer, [value, mean, square]) in self.adapters.layers.iter_mut().zip(found) {
            layer.pair.clone_from(value);
            moments.push([mean.clone(), square.clone()]);
        }
        self.optimizer.go_on(from.steps(), moments);
        self.network.forget_adapters();
        Ok(())
    }

    /// Bytes that the backend holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.backend.memory().used
    }

    /// Elements of one sample's latents.
    #[must_use]
    pub fn sample_elements(&self) -> usize {
        self.network.sample_elements()
    }

    /// What the network with its adapters predicts in noised latents.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed.
    ///
    /// # Panics
    /// When the number of latents is not [`Trainer::sample_elements`].
    pub fn predict(&mut self, noised: &[f32], timestep: u32) -> Result<Vec<f32>, RuntimeError> {
        self.ask(noised, timestep)?;
        self.network.predict(&mut *self.backend, &self.adapters)
    }

    fn ask(&mut self, noised: &[f32], timestep: u32) -> Result<(), RuntimeError> {
        let timestep = timestep_embedding(f64::from(timestep), self.timestep_channels, true, 0.0);
        self.network.write(&mut *self.backend, program::TIMESTEP, &timestep)?;
        self.network.write(&mut *self.backend, program::LATENTS, noised)
    }

    /// Mean squared error of the prediction for one sample.
    ///
    /// # Errors
    /// As [`Trainer::predict`].
    ///
    /// # Panics
    /// As [`Trainer::predict`], and when the timestep is beyond those of training.
    pub fn loss(&mut self, sample: &Sample) -> Result<f64, RuntimeError> {
        let (noised, target) = self.task(sample);
        Ok(mean_square(&self.predict(&noised, sample.timestep)?, &target))
    }

    /// Mean loss of samples, and its gradients, one pair for each layer of the adapters.
    ///
    /// # Errors
    /// As [`Trainer::predict`].
    ///
    /// # Panics
    /// As [`Trainer::loss`].
    pub fn gradients(&mut self, samples: &[Sample]) -> Result<(f64, Vec<Pair>), RuntimeError> {
        let mut gradients: Vec<_> = self.adapters.layers.iter().map(|layer| layer.pair.zeros()).collect();
        let mut loss = 0.0;
        for sample in samples {
            let (noised, target) = self.task(sample);
            self.ask(&noised, sample.timestep)?;
            self.network.write(&mut *self.backend, TARGET, &target)?;
            let factor = 2.0 / (target.len() * samples.len()) as f64;
            let predicted =
                self.network.differentiate(&mut *self.backend, &self.adapters, factor, &mut gradients)?;
            loss += mean_square(&predicted, &target) / samples.len() as f64;
        }
        Ok((loss, gradients))
    }

    /// One step of the optimizer on the mean loss of samples.
    ///
    /// # Errors
    /// As [`Trainer::predict`].
    ///
    /// # Panics
    /// As [`Trainer::loss`].
    pub fn step(&mut self, samples: &[Sample]) -> Result<StepReport, RuntimeError> {
        let (loss, gradients) = self.gradients(samples)?;
        let gradient_norm = self.optimizer.step(&mut self.adapters, &gradients);
        self.network.forget_adapters();
        Ok(StepReport { loss, gradient_norm })
    }

    /// Noised latents, and what the model is to predict in them.
    fn task(&self, sample: &Sample) -> (Vec<f32>, Vec<f32>) {
        let variance = self.variances[sample.timestep as usize];
        let (signal, noise) = (variance.sqrt(), (1.0 - variance).sqrt());
        let both = |of_latents: f64, of_noise: f64| {
            let pairs = sample.latents.iter().zip(&sample.noise);
            let sum = |(latent, noise): (&f32, &f32)| {
                (of_latents * f64::from(*latent) + of_noise * f64::from(*noise)) as f32
            };
            pairs.map(sum).collect::<Vec<_>>()
        };
        let target = match self.prediction {
            Prediction::Epsilon => sample.noise.clone(),
            Prediction::Sample => sample.latents.clone(),
            Prediction::Velocity => both(-noise, signal),
        };
        (both(signal, noise), target)
    }
}

fn mean_square(got: &[f32], wanted: &[f32]) -> f64 {
    let squares = got.iter().zip(wanted).map(|(got, wanted)| (f64::from(*got) - f64::from(*wanted)).powi(2));
    squares.sum::<f64>() / wanted.len() as f64
}
