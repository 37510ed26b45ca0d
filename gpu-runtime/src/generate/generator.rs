//! One model on one backend, serving requests one after the other.

use std::time::Instant;

use super::backend::{Backend, Memory};
use super::programs::Programs;
use super::request::{CancelToken, GUIDANCE_MAX, Generated, Progress, Request, Timings};
use crate::RuntimeError;
use crate::model::program::{self, LatentSize};
use crate::model::{Model, ModelSource};
use crate::noise::Noise;
use crate::picture::Picture;
use crate::schedule::embedding::{guidance_embedding, timestep_embedding};
use crate::schedule::{Schedule, SchedulerFile};
use crate::tokenizer::{Tokenizer, Tokens};

/// Frames that motion models were trained with.
const FRAMES_TRAINED: u32 = 16;

/// Guidance that latent consistency models are shown with.
const GUIDANCE_USUAL: f64 = 8.0;

/// A model, ready to generate.
pub struct Generator {
    model: Model,
    tokenizer: Tokenizer,
    scheduler: SchedulerFile,
    backend: Box<dyn Backend>,
    programs: Programs,
}

/// Exactly what a request computes with: for comparisons with other implementations.
pub struct Inputs<'a> {
    /// Start picture in -1..1, `[1, height, width, 3]`, with its strength.
    pub start: Option<(&'a [f32], f64)>,
    /// Fills standard normal noise, `[frames, height, width, latent channels]`, of the stream with a name: `start`, or
    /// `step n` from 0.
    pub noise: &'a mut dyn FnMut(&str, &mut [f32]),
}

/// Exactly what a request computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Exact {
    /// Latents after the last step, `[frames, height, width, latent channels]`.
    pub latents: Vec<f32>,
    /// Pictures in -1..1, each `[1, height, width, 3]`.
    pub frames: Vec<Vec<f32>>,
    /// Steps that were taken.
    pub steps: u32,
    /// Tokens at the prompt's end that found no room.
    pub tokens_cut: usize,
    /// How long it took.
    pub timings: Timings,
}

/// A request, checked.
struct Checked {
    size: LatentSize,
    tokens: Tokens,
    schedule: Schedule,
    guidance: Option<Vec<f32>>,
}

impl Generator {
    /// Opens a model and loads what does not depend on a request's size.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`], [`RuntimeError::OutOfMemory`], [`RuntimeError::Sticky`].
    pub fn new(source: &ModelSource, mut backend: Box<dyn Backend>) -> Result<Self, RuntimeError> {
        let model = Model::open(source)?;
        let tokenizer = Tokenizer::load(&source.folder.join("tokenizer"))?;
        if tokenizer.id_max() >= model.text.vocabulary {
            return Err(RuntimeError::BadModel {
                path: source.folder.join("tokenizer"),
                why: format!(
                    "gives ids up to {}, but the text encoder has {} embeddings; they are of different models",
                    tokenizer.id_max(),
                    model.text.vocabulary
                ),
            });
        }
        let scheduler = SchedulerFile::load(&source.folder.join("scheduler"))?;
        let programs = Programs::new(backend.as_mut(), &model)?;
        Ok(Self { model, tokenizer, scheduler, backend, programs })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What it runs on.
    #[must_use]
    pub fn device(&self) -> String {
        self.backend.device()
    }

    /// Memory of the backend.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.backend.memory()
    }

    /// Frames of a clip where nobody says how many; 1 without motion modules.
    #[must_use]
    pub fn frames_usual(&self) -> u32 {
        self.model.motion.as_ref().map_or(1, |motion| motion.frames_max.min(FRAMES_TRAINED))
    }

    /// Pixels of a side that the model was trained for.
    #[must_use]
    pub fn side_usual(&self) -> u32 {
        self.model.unet.sample_size * self.model.vae.factor()
    }

    /// The guidance scale that models of this kind are shown with; 1, which is none, where it is no input.
    #[must_use]
    pub fn guidance_usual(&self) -> f64 {
        if self.model.unet.guidance_channels.is_some() { GUIDANCE_USUAL } else { 1.0 }
    }

    /// Loads the programs of a size before a request needs them, also that of start pictures where `encode` is set.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] when the model cannot make that size; [`RuntimeError::OutOfMemory`],
    /// [`RuntimeError::Sticky`].
    pub fn prepare(
        &mut self,
        frames: u32,
        width: u32,
        height: u32,
        encode: bool,
    ) -> Result<(), RuntimeError> {
        let size = self.model.latent_size(frames, width, height)?;
        self.programs.sized(self.backend.as_mut(), &self.model, size, encode)
    }

    /// Gives the backend back, with this model unloaded.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`].
    pub fn unload(mut self) -> Result<Box<dyn Backend>, RuntimeError> {
        self.programs.unload(self.backend.as_mut())?;
        Ok(self.backend)
    }

    /// Whether a request can be served, without doing anything for it.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] with the allowed range; [`RuntimeError::BadModel`] when the folder's scheduler file
    /// does not go with the sampler.
    pub fn check(&self, request: &Request) -> Result<(), RuntimeError> {
        self.checked(request, request.start.as_ref().map(|start| start.strength)).map(|_| ())
    }

    fn checked(&self, request: &Request, strength: Option<f64>) -> Result<Checked, RuntimeError> {
        let size = self.model.latent_size(request.frames, request.width, request.height)?;
        let tokens = self.tokenizer.encode(&request.prompt, self.model.text.tokens as usize)?;
        let config = self.scheduler.resolve(request.sampler)?;
        let schedule = config.schedule(request.steps, strength.unwrap_or(1.0))?;
        let bad = |why: String| Err(RuntimeError::BadRequest { why });
        let guidance = match self.model.unet.guidance_channels {
            Some(channels) if (1.0..=GUIDANCE_MAX).contains(&request.guidance) => {
                Some(guidance_embedding(request.guidance, channels as usize))
            }
            Some(_) => {
                return bad(format!("guidance {} is not within 1 to {GUIDANCE_MAX}", request.guidance));
            }
            None if request.guidance == 1.0 => None,
            None => {
                return bad(format!(
                    "guidance {}: this model embeds no guidance scale; only 1 (none) can be asked for",
                    request.guidance
                ));
            }
        };
        Ok(Checked { size, tokens, schedule, guidance })
    }

    /// Makes the frames of a request.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`], [`RuntimeError::Cancelled`], [`RuntimeError::OutOfMemory`],
    /// [`RuntimeError::Sticky`].
    pub fn generate(
        &mut self,
        request: &Request,
        progress: &mut dyn FnMut(Progress),
        cancel: &CancelToken,
    ) -> Result<Generated, RuntimeError> {
        self.check(request)?;
        let start = request
            .start
            .as_ref()
            .map(|start| (start.picture.fitted(request.width, request.height).to_model(), start.strength));
        let mut noise = |stream: &str, values: &mut [f32]| Noise::new(request.seed, stream).fill(0, values);
        let inputs = Inputs {
            start: start.as_ref().map(|(values, strength)| (values.as_slice(), *strength)),
            noise: &mut noise,
        };
        let exact = self.generate_exactly(request, inputs, progress, cancel)?;
        let frames = exact
            .frames
            .iter()
            .map(|values| Picture::from_model(request.width, request.height, values))
            .collect();
        let Exact { steps, tokens_cut, timings, .. } = exact;
        Ok(Generated { frames, steps, tokens_cut, timings })
    }

    /// The same with given noise and start picture (those of the request do not count), before rounding to pixels.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    ///
    /// # Panics
    /// When the start picture has not the request's size.
    pub fn generate_exactly(
        &mut self,
        request: &Request,
        mut inputs: Inputs<'_>,
        progress: &mut dyn FnMut(Progress),
        cancel: &CancelToken,
    ) -> Result<Exact, RuntimeError> {
        let checked = self.checked(request, inputs.start.map(|(_, strength)| strength))?;
        let mut timings = Timings::default();
        let mut clock = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            now - std::mem::replace(&mut clock, now)
        };
        self.programs.sized(self.backend.as_mut(), &self.model, checked.size, inputs.start.is_some())?;
        timings.prepare = lap();
        self.encode_text(&checked)?;
        timings.text = lap();
        let latents = match inputs.start {
            None => None,
            Some((picture, _)) => Some(self.encode_start(picture, checked.size)?),
        };
        self.write_start(&checked, latents.as_deref(), &mut inputs)?;
        timings.encode = lap();
        progress(Progress::Conditioned);

        let of = checked.schedule.steps.len() as u32;
        for index in 0..of {
            if cancel.is_cancelled() {
                return Err(RuntimeError::Cancelled { steps_done: index, steps: of });
            }
            self.step(&checked, index as usize, &mut inputs)?;
            progress(Progress::Step { done: index + 1, of });
        }
        let latents = self.programs.current().step.read(self.backend.as_mut(), program::LATENTS)?;
        timings.steps = lap();

        let mut frames = Vec::with_capacity(checked.size.frames as usize);
        let per_frame = latents.len() / checked.size.frames as usize;
        for frame in latents.chunks_exact(per_frame) {
            if cancel.is_cancelled() {
                return Err(RuntimeError::Cancelled { steps_done: of, steps: of });
            }
            frames.push(self.decode(frame)?);
            progress(Progress::Frame { done: frames.len() as u32, of: checked.size.frames });
        }
        timings.decode = lap();
        Ok(Exact { latents, frames, steps: of, tokens_cut: checked.tokens.cut, timings })
    }

    /// Prompt to keys and values of every cross attention: once per request, for all steps and frames.
    fn encode_text(&mut self, checked: &Checked) -> Result<(), RuntimeError> {
        let backend = self.backend.as_mut();
        let Programs { text, context, .. } = &self.programs;
        let step = &self.programs.current().step;
        let ids: Vec<f32> = checked.tokens.ids.iter().map(|&id| id as f32).collect();
        text.write(backend, program::IDS, &ids)?;
        text.run(backend)?;
        backend.copy(text.tensor(program::CONTEXT), context.tensor(program::CONTEXT))?;
        context.run(backend)?;
        backend.copy(context.tensor(program::CONTEXT_KV), step.tensor(program::CONTEXT_KV))?;
        // Reading waits for the device, so that the time of this part is its own.
        text.read(backend, program::CONTEXT).map(|_| ())
    }

    /// Start picture to latents of one frame: the mean of the encoder's distribution, scaled.
    fn encode_start(&mut self, picture: &[f32], size: LatentSize) -> Result<Vec<f32>, RuntimeError> {
        let backend = self.backend.as_mut();
        let encode =
            self.programs.current().encode.as_ref().expect("loaded for a request with a start picture");
        encode.write(backend, program::PICTURE, picture)?;
        encode.run(backend)?;
        let moments = encode.read(backend, program::MOMENTS)?;
        let channels = self.model.vae.latent_channels as usize;
        debug_assert_eq!(moments.len(), 2 * channels * (size.height * size.width) as usize);
        let scale = self.model.vae.scaling_factor as f32;
        let means = moments.chunks_exact(2 * channels).flat_map(|row| &row[..channels]);
        Ok(means.map(|mean| mean * scale).collect())
    }

    /// The first state: noise, or the start picture's latents in every frame, noised.
    fn write_start(
        &mut self,
        checked: &Checked,
        start: Option<&[f32]>,
        inputs: &mut Inputs<'_>,
    ) -> Result<(), RuntimeError> {
        let backend = self.backend.as_mut();
        let step = &self.programs.current().step;
        let mut state = vec![0.0; step.elements(program::LATENTS)];
        // Zero times what a failed request left could be no number.
        step.write(backend, program::DENOISED, &state)?;
        (inputs.noise)("start", &mut state);
        match start {
            None => {
                let sigma = checked.schedule.init_noise_sigma as f32;
                state.iter_mut().for_each(|value| *value *= sigma);
            }
            Some(latents) => {
                let (of_start, of_noise) =
                    (checked.schedule.start.sample as f32, checked.schedule.start.noise as f32);
                for (value, latent) in state.iter_mut().zip(latents.iter().cycle()) {
                    *value = of_start * latent + of_noise * *value;
                }
            }
        }
        step.write(backend, program::LATENTS, &state)?;
        if let Some(guidance) = &checked.guidance {
            step.write(backend, program::GUIDANCE, guidance)?;
        }
        Ok(())
    }

    fn step(&mut self, checked: &Checked, index: usize, inputs: &mut Inputs<'_>) -> Result<(), RuntimeError> {
        let backend = self.backend.as_mut();
        let step = &self.programs.current().step;
        let coefficients = &checked.schedule.steps[index];
        let channels = self.model.unet.channels[0] as usize;
        let timestep = timestep_embedding(checked.schedule.timesteps[index], channels, true, 0.0);
        step.write(backend, program::TIMESTEP, &timestep)?;
        step.write(backend, program::SCALARS, &program::scalars(coefficients))?;
        if coefficients.nn != 0.0 {
            let mut noise = vec![0.0; step.elements(program::NOISE)];
            (inputs.noise)(&format!("step {index}"), &mut noise);
            step.write(backend, program::NOISE, &noise)?;
        }
        step.run(backend)
    }

    fn decode(&mut self, latents: &[f32]) -> Result<Vec<f32>, RuntimeError> {
        let backend = self.backend.as_mut();
        let decode = &self.programs.current().decode;
        let scale = (1.0 / self.model.vae.scaling_factor) as f32;
        let scaled: Vec<f32> = latents.iter().map(|latent| latent * scale).collect();
        decode.write(backend, program::SCALED_LATENTS, &scaled)?;
        decode.run(backend)?;
        decode.read(backend, program::PICTURE)
    }
}
