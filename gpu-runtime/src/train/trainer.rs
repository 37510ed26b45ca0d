//! A denoising network whose adapters learn: noise is added to latents, and the network's error in predicting it lowered.

use super::adapter::{Adapters, Pair, Scope, sites};
use super::optimizer::{AdamW, OptimizerSettings};
use super::tape::{Tape, elements, read_weights, until};
use crate::RuntimeError;
use crate::graph::{Graph, TensorId};
use crate::model::program::{self, LatentSize};
use crate::model::{Model, MotionConfig, UnetConfig};
use crate::schedule::embedding::{guidance_embedding, timestep_embedding};
use crate::schedule::{Prediction, ScheduleConfig, StepCoefficients};

/// Name of the network's prediction in the step's program.
const PREDICTED: &str = "conv_out";

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

/// Network, adapters and optimizer, on the CPU in f32.
#[derive(Debug)]
pub struct Trainer {
    /// Text features to keys and values.
    context: Tape,
    step: Tape,
    adapters: Adapters,
    optimizer: AdamW,
    /// Share of signal variance at every timestep.
    variances: Vec<f64>,
    prediction: Prediction,
    timestep_channels: usize,
}

/// A program with the tensor that is wanted of it, and the inputs by which it is differentiated.
struct Program {
    graph: Graph,
    result: TensorId,
    leaves: Vec<TensorId>,
}

impl Program {
    fn new(graph: Graph, result: &str, leaves: &[&str]) -> Self {
        let find = |name: &str| graph.find(name).expect("programs have the tensors that their module names");
        let (result, leaves) = (find(result), leaves.iter().map(|leaf| find(leaf)).collect());
        Self { graph: until(graph, result), result, leaves }
    }
}

/// Text features to keys and values; noised latents, with these, to a prediction.
fn programs(unet: &UnetConfig, motion: Option<&MotionConfig>, size: LatentSize, tokens: u32) -> [Program; 2] {
    let motion = motion.filter(|_| size.frames > 1);
    [
        Program::new(program::context(unet, tokens), program::CONTEXT_KV, &[]),
        Program::new(program::step(unet, motion, size, tokens), PREDICTED, &[program::CONTEXT_KV]),
    ]
}

/// What training holds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingBytes {
    /// Weights of the network, in f32.
    pub weights: u64,
    /// Tensors that are kept for the way back.
    pub tensors: u64,
}

impl TrainingBytes {
    /// Counts a network and samples of a size, from configurations alone.
    #[must_use]
    pub fn of(unet: &UnetConfig, motion: Option<&MotionConfig>, size: LatentSize, tokens: u32) -> Self {
        let parts = programs(unet, motion, size, tokens).map(|program| elements(&program.graph));
        let [weights, tensors] = [0, 1].map(|part| parts.iter().map(|elements| 4 * elements[part]).sum());
        Self { weights, tensors }
    }
}

impl Trainer {
    /// Reads the network's weights and gives it fresh adapters. With more than one frame the samples are clips and go
    /// through the motion modules.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] when a weight does not fit.
    ///
    /// # Panics
    /// When the context's length is not that of the model.
    pub fn new(
        model: &Model,
        schedule: &ScheduleConfig,
        conditions: &Conditions,
        size: LatentSize,
        settings: &Settings,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        let rank = settings.rank as usize;
        let mut adapters = Adapters { rank, alpha: settings.alpha, layers: Vec::new() };
        let mut tape = |Program { graph, result, leaves }: Program| {
            let sites = sites(&graph, settings.scope, settings.seed, &mut adapters);
            let weights = read_weights(&graph, &model.weights)?;
            Ok::<_, RuntimeError>(Tape::new(graph, result, weights, sites, &leaves, threads))
        };
        let [context, step] = programs(&model.unet, model.motion.as_ref(), size, model.text.tokens);
        let (mut context, mut step) = (tape(context)?, tape(step)?);
        context.write(program::CONTEXT, &conditions.context);
        // The prediction alone is wanted: latents enter as they are.
        let plain =
            StepCoefficients { input_scale: 1.0, dx: 0.0, de: 0.0, nx: 0.0, nd: 0.0, np: 0.0, nn: 0.0 };
        step.write(program::SCALARS, &program::scalars(&plain));
        if let (Some(channels), Some(guidance)) = (model.unet.guidance_channels, conditions.guidance) {
            step.write(program::GUIDANCE, &guidance_embedding(guidance, channels as usize));
        }
        Ok(Self {
            context,
            step,
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
        &mut self.adapters
    }

    /// Bytes of weights and of all tensors that are kept for the way back; gradients need about as much as the largest
    /// few of them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.context.bytes() + self.step.bytes()
    }

    /// Elements of one sample's latents.
    #[must_use]
    pub fn sample_elements(&self) -> usize {
        self.step.elements(program::LATENTS)
    }

    /// What the network with its adapters predicts in noised latents.
    ///
    /// # Panics
    /// When the number of latents is not [`Trainer::sample_elements`].
    pub fn predict(&mut self, noised: &[f32], timestep: u32) -> &[f32] {
        self.context.forward(&self.adapters);
        self.step.write(program::CONTEXT_KV, self.context.result());
        let timestep = timestep_embedding(f64::from(timestep), self.timestep_channels, true, 0.0);
        self.step.write(program::TIMESTEP, &timestep);
        self.step.write(program::LATENTS, noised);
        self.step.forward(&self.adapters);
        self.step.result()
    }

    /// Mean squared error of the prediction for one sample.
    ///
    /// # Panics
    /// As [`Trainer::predict`], and when the timestep is beyond those of training.
    pub fn loss(&mut self, sample: &Sample) -> f64 {
        let (noised, target) = self.task(sample);
        let errors = self.predict(&noised, sample.timestep).iter().zip(&target);
        let sum: f64 = errors.map(|(got, wanted)| (f64::from(*got) - f64::from(*wanted)).powi(2)).sum();
        sum / target.len() as f64
    }

    /// Mean loss of samples, and its gradients, one pair for each layer of the adapters.
    ///
    /// # Panics
    /// As [`Trainer::loss`].
    pub fn gradients(&mut self, samples: &[Sample]) -> (f64, Vec<Pair>) {
        let mut gradients: Vec<_> = self.adapters.layers.iter().map(|layer| layer.pair.zeros()).collect();
        let mut loss = 0.0;
        for sample in samples {
            loss += self.loss(sample) / samples.len() as f64;
            let (_, target) = self.task(sample);
            let factor = 2.0 / (target.len() * samples.len()) as f64;
            let of_prediction: Vec<f32> = self
                .step
                .result()
                .iter()
                .zip(&target)
                .map(|(got, wanted)| (factor * (f64::from(*got) - f64::from(*wanted))) as f32)
                .collect();
            for of_context in self.step.backward(&of_prediction, &self.adapters, &mut gradients) {
                self.context.backward(&of_context, &self.adapters, &mut gradients);
            }
        }
        (loss, gradients)
    }

    /// One step of the optimizer on the mean loss of samples.
    ///
    /// # Panics
    /// As [`Trainer::loss`].
    pub fn step(&mut self, samples: &[Sample]) -> StepReport {
        let (loss, gradients) = self.gradients(samples);
        let gradient_norm = self.optimizer.step(&mut self.adapters, &gradients);
        StepReport { loss, gradient_norm }
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
