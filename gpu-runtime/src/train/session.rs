//! A training from pictures to adapters: encoding, the loop, and the loss before and after.

use std::collections::BTreeMap;

use super::adapter::Scope;
use super::checkpoint::Checkpoint;
use super::request::{Keeping, Subject, TrainProgress, TrainRequest, Trained};
use super::trainer::{Conditions, Sample, Settings, Trainer};
use crate::RuntimeError;
use crate::generate::{Backend, CancelToken, GUIDANCE_MAX, Loaded};
use crate::model::program::{self, LatentSize};
use crate::model::{Model, ModelSource};
use crate::noise::{Noise, philox4x32_10};
use crate::picture::Picture;
use crate::schedule::SchedulerFile;
use crate::tokenizer::Tokenizer;

/// Fixed samples by which a training is judged: timesteps at the middles of as many equal parts of the schedule.
const PROBES: u32 = 8;

/// Guidance that latent consistency models are shown with.
const GUIDANCE_USUAL: f64 = 8.0;

/// Trains adapters on pictures, on a backend. The same request gives the same adapters on the same backend, on the CPU
/// whatever the number of threads, and whether or not it was stopped and gone on with from a checkpoint.
///
/// # Errors
/// [`RuntimeError::BadRequest`] with the allowed range, also when the loss is no number any more, or the checkpoint is of
/// another training;
/// [`RuntimeError::BadModel`]; [`RuntimeError::OutOfMemory`] before the network is read; [`RuntimeError::Cancelled`] between
/// two steps; [`RuntimeError::Sticky`] when the device has failed.
pub fn train(
    source: &ModelSource,
    request: &TrainRequest,
    mut backend: Box<dyn Backend>,
    mut keeping: Option<Keeping<'_>>,
    progress: &mut dyn FnMut(TrainProgress),
    cancel: &CancelToken,
) -> Result<Trained, RuntimeError> {
    request.check()?;
    let model = Model::open(source)?;
    let (frames, scope) = match request.subject {
        Subject::Pictures => (1, Scope::Spatial),
        Subject::Clip { scope } => (request.images.len() as u32, scope),
    };
    let side = model.unet.sample_size * model.vae.factor();
    let (width, height) = request.size.unwrap_or((side, side));
    let size = model.latent_size(frames, width, height)?;
    let guidance = guidance(&model, request.guidance)?;
    let schedule = SchedulerFile::load(&source.folder.join("scheduler"))?.resolve(request.sampler)?;
    let mut described = BTreeMap::new();
    let mut from = None;
    if let Some(keeping) = &mut keeping {
        described = request.described(size, guidance, &schedule, &model.weights);
        from = keeping.from.take();
        from.iter().try_for_each(|from: &Checkpoint| from.check(&described))?;
    }
    let (context, tokens_cut) = encode_prompt(&model, &request.prompt, &mut *backend)?;
    let lessons = encode_pictures(&model, request, size, &mut *backend)?;
    let settings = Settings {
        rank: request.rank,
        alpha: request.alpha.map_or(request.rank as f32, |alpha| alpha as f32),
        scope,
        seed: request.seed,
        optimizer: request.optimizer,
    };
    let conditions = Conditions { context, guidance };
    let mut trainer = Trainer::new(&model, &schedule, &conditions, size, &settings, backend)?;
    let lessons = Lessons { latents: lessons, seed: request.seed, timesteps: schedule.train_timesteps };

    let mut checkpoint = match from {
        Some(from) => {
            trainer.go_on(&from)?;
            from
        }
        None => Checkpoint {
            of: described,
            losses: Vec::new(),
            loss_before: lessons.judge(&mut trainer)?,
            layers: BTreeMap::new(),
        },
    };
    let steps_before = checkpoint.steps();
    for index in steps_before..request.steps {
        if cancel.is_cancelled() {
            return Err(RuntimeError::Cancelled { steps_done: index, steps: request.steps });
        }
        let samples: Vec<_> = (0..request.batch)
            .map(|n| lessons.sample(u64::from(index) * u64::from(request.batch) + u64::from(n)))
            .collect();
        let loss = trainer.step(&samples)?.loss;
        if !loss.is_finite() {
            return Err(diverged(index, request));
        }
        checkpoint.losses.push(loss);
        let done = index + 1;
        progress(TrainProgress { done, of: request.steps, loss });
        if let Some(Keeping { every, keep, .. }) = &mut keeping
            && done.is_multiple_of(every.get())
            && done < request.steps
        {
            checkpoint.layers = trainer.layers();
            keep(&checkpoint);
        }
    }
    let loss_after = lessons.judge(&mut trainer)?;
    if !loss_after.is_finite() {
        return Err(diverged(request.steps, request));
    }
    let bytes = trainer.bytes();
    let Checkpoint { losses, loss_before, .. } = checkpoint;
    let adapters = trainer.adapters().clone();
    Ok(Trained { adapters, losses, loss_before, loss_after, tokens_cut, bytes, steps_before })
}

fn diverged(steps: u32, request: &TrainRequest) -> RuntimeError {
    RuntimeError::BadRequest {
        why: format!(
            "the loss is no number after {steps} steps; learning rate {} is too high for this model, lower it",
            request.optimizer.learning_rate
        ),
    }
}

fn guidance(model: &Model, scale: Option<f64>) -> Result<Option<f64>, RuntimeError> {
    let bad = |why: String| Err(RuntimeError::BadRequest { why });
    let embedded = model.unet.guidance_channels.is_some();
    let scale = scale.unwrap_or(if embedded { GUIDANCE_USUAL } else { 1.0 });
    match model.unet.guidance_channels {
        Some(_) if (1.0..=GUIDANCE_MAX).contains(&scale) => Ok(Some(scale)),
        Some(_) => bad(format!("guidance {scale} is not within 1 to {GUIDANCE_MAX}")),
        None if scale == 1.0 => Ok(None),
        None => bad(format!("guidance {scale}: this model embeds no guidance scale; train it with 1 (none)")),
    }
}

/// Latents to learn from.
struct Lessons {
    /// One for each sample: of a picture, or of a clip.
    latents: Vec<Vec<f32>>,
    seed: u64,
    timesteps: u32,
}

impl Lessons {
    /// Sample `index` of the training: pictures in turn, timesteps uniform, noise of a stream of its own.
    fn sample(&self, index: u64) -> Sample {
        let draw = Noise::new(self.seed, "timesteps");
        let word = philox4x32_10(draw.counter(index), draw.key())[0];
        // Lemire 2019, without rejection: timesteps differ in probability by less than one in a million.
        let timestep = (u64::from(word) * u64::from(self.timesteps)) >> 32;
        self.noised(index, timestep as u32, &format!("sample {index}"))
    }

    /// Mean loss of the fixed samples.
    fn judge(&self, trainer: &mut Trainer) -> Result<f64, RuntimeError> {
        let mut sum = 0.0;
        for probe in 0..PROBES {
            let timestep = (2 * probe + 1) * self.timesteps / (2 * PROBES);
            sum += trainer.loss(&self.noised(u64::from(probe), timestep, &format!("probe {probe}")))?;
        }
        Ok(sum / f64::from(PROBES))
    }

    fn noised(&self, index: u64, timestep: u32, stream: &str) -> Sample {
        let latents = self.latents[(index % self.latents.len() as u64) as usize].clone();
        Sample { noise: Noise::new(self.seed, stream).take(latents.len()), latents, timestep }
    }
}

/// Text features of a prompt, and how many tokens were cut.
fn encode_prompt(
    model: &Model,
    prompt: &str,
    backend: &mut dyn Backend,
) -> Result<(Vec<f32>, usize), RuntimeError> {
    let folder = model.source.folder.join("tokenizer");
    let tokenizer = Tokenizer::load(&folder)?;
    if tokenizer.id_max() >= model.text.vocabulary {
        let why = format!(
            "gives ids up to {}, but the text encoder has {} embeddings; they are of different models",
            tokenizer.id_max(),
            model.text.vocabulary
        );
        return Err(RuntimeError::BadModel { path: folder, why });
    }
    let tokens = tokenizer.encode(prompt, model.text.tokens as usize)?;
    let ids: Vec<f32> = tokens.ids.iter().map(|&id| id as f32).collect();
    let text = Loaded::new(backend, &model.weights, program::text(&model.text))?;
    let features = answer(&text, backend, (program::IDS, &ids), program::CONTEXT)?;
    text.unload(backend)?;
    Ok((features, tokens.cut))
}

/// Scaled latents of the pictures, the means of the encoder's distributions: one list for each picture, or one for all
/// frames of a clip.
fn encode_pictures(
    model: &Model,
    request: &TrainRequest,
    size: LatentSize,
    backend: &mut dyn Backend,
) -> Result<Vec<Vec<f32>>, RuntimeError> {
    let graph = program::encode(&model.vae, size.height, size.width);
    let encoder = Loaded::new(backend, &model.weights, graph)?;
    let (channels, factor) = (model.vae.latent_channels as usize, model.vae.factor());
    let scale = model.vae.scaling_factor as f32;
    let mut encoded = |picture: &Picture| {
        let pixels = picture.fitted(size.width * factor, size.height * factor).to_model();
        let moments = answer(&encoder, backend, (program::PICTURE, &pixels), program::MOMENTS)?;
        let means = moments.chunks_exact(2 * channels).flat_map(|row| &row[..channels]);
        Ok::<Vec<f32>, RuntimeError>(means.map(|mean| mean * scale).collect())
    };
    let latents = request.images.iter().map(&mut encoded).collect::<Result<Vec<_>, _>>()?;
    encoder.unload(backend)?;
    Ok(match request.subject {
        Subject::Pictures => latents,
        Subject::Clip { .. } => vec![latents.concat()],
    })
}

/// What a program makes of one input.
fn answer(
    program: &Loaded,
    backend: &mut dyn Backend,
    (input, values): (&str, &[f32]),
    output: &str,
) -> Result<Vec<f32>, RuntimeError> {
    program.write(backend, input, values)?;
    program.run(backend)?;
    program.read(backend, output)
}
