//! Image to video: one model on one backend turns pictures into clips, one after the other.

use std::time::Instant;

use super::backend::{Backend, Memory};
use super::generator::Exact;
use super::request::{CancelToken, Generated, Progress, Timings};
use super::video_programs::VideoPrograms;
use super::video_request::{NOISE_MAX, VideoRequest};
use crate::RuntimeError;
use crate::model::program::{self, LatentSize};
use crate::model::{ModelSource, VideoModel};
use crate::noise::Noise;
use crate::picture::Picture;
use crate::schedule::embedding::timestep_embedding;
use crate::schedule::{Sampler, Schedule, SchedulerFile};

/// An image-to-video model, ready to generate.
pub struct VideoGenerator {
    model: VideoModel,
    scheduler: SchedulerFile,
    backend: Box<dyn Backend>,
    programs: VideoPrograms,
}

/// A request, checked.
struct Checked {
    size: LatentSize,
    schedule: Schedule,
    /// Frames that are decoded at once.
    together: u32,
}

impl VideoGenerator {
    /// Opens a model and loads what does not depend on a request's size.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`], [`RuntimeError::OutOfMemory`], [`RuntimeError::Sticky`].
    pub fn new(source: &ModelSource, mut backend: Box<dyn Backend>) -> Result<Self, RuntimeError> {
        let model = VideoModel::open(source)?;
        let scheduler = SchedulerFile::load(&source.folder.join("scheduler"))?;
        let programs = VideoPrograms::new(backend.as_mut(), &model)?;
        Ok(Self { model, scheduler, backend, programs })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &VideoModel {
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
    /// asks for what is not implemented.
    pub fn check(&self, request: &VideoRequest) -> Result<(), RuntimeError> {
        self.checked(request).map(|_| ())
    }

    /// Makes everything ready for requests like this one.
    ///
    /// # Errors
    /// As [`VideoGenerator::check`]; [`RuntimeError::OutOfMemory`], [`RuntimeError::Sticky`].
    pub fn prepare(&mut self, request: &VideoRequest) -> Result<(), RuntimeError> {
        let Checked { size, together, .. } = self.checked(request)?;
        self.programs.sized(self.backend.as_mut(), &self.model, size, together)
    }

    fn checked(&self, request: &VideoRequest) -> Result<Checked, RuntimeError> {
        let size = self.model.latent_size(request.frames, request.width, request.height)?;
        request.check()?;
        let config = self.scheduler.resolve(request.sampler)?;
        if !matches!(config.sampler, Sampler::Euler | Sampler::Consistency) {
            return Err(RuntimeError::BadRequest {
                why: format!(
                    "sampler {}: image-to-video models are trained on noise levels that only euler and consistency walk here",
                    config.sampler.name()
                ),
            });
        }
        let schedule = config.schedule(request.steps, 1.0)?;
        // In equal runs as far as possible: each length of a run is a program with tensors of its own.
        let runs = request.frames.div_ceil(request.decode_frames);
        Ok(Checked { size, schedule, together: request.frames.div_ceil(runs) })
    }

    /// Makes the frames of a request.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`], [`RuntimeError::Cancelled`], [`RuntimeError::OutOfMemory`],
    /// [`RuntimeError::Sticky`].
    pub fn generate(
        &mut self,
        request: &VideoRequest,
        progress: &mut dyn FnMut(Progress),
        cancel: &CancelToken,
    ) -> Result<Generated, RuntimeError> {
        let mut noise = |stream: &str, values: &mut [f32]| Noise::new(request.seed, stream).fill(0, values);
        let Exact { frames, steps, tokens_cut, timings, .. } =
            self.generate_exactly(request, &mut noise, progress, cancel)?;
        let pictures = frames.iter().map(|values| Picture::from_model(request.width, request.height, values));
        Ok(Generated { frames: pictures.collect(), steps, tokens_cut, timings })
    }

    /// The same with given noise, before rounding to pixels: `noise` fills the stream with a name, `image` (added to the
    /// start picture, `[1, height, width, 3]`), `start` or, for `consistency`, `step 0`, `step 1`, ... (`[frames, height,
    /// width, latent channels]`).
    ///
    /// # Errors
    /// As [`VideoGenerator::generate`].
    pub fn generate_exactly(
        &mut self,
        request: &VideoRequest,
        noise: &mut dyn FnMut(&str, &mut [f32]),
        progress: &mut dyn FnMut(Progress),
        cancel: &CancelToken,
    ) -> Result<Exact, RuntimeError> {
        let checked = self.checked(request)?;
        let mut timings = Timings::default();
        let mut clock = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            now - std::mem::replace(&mut clock, now)
        };
        self.programs.sized(self.backend.as_mut(), &self.model, checked.size, checked.together)?;
        timings.prepare = lap();
        let picture = request.picture.fitted(request.width, request.height);
        let embedding = self.embed(&picture)?;
        timings.text = lap();
        let start = self.encode(&picture, request.noise, noise)?;
        self.write_conditions(request, &checked, &embedding, &start, noise)?;
        timings.encode = lap();
        progress(Progress::Conditioned);

        let of = checked.schedule.steps.len() as u32;
        for index in 0..of {
            if cancel.is_cancelled() {
                return Err(RuntimeError::Cancelled { steps_done: index, steps: of });
            }
            self.step(&checked, index as usize, noise)?;
            progress(Progress::Step { done: index + 1, of });
        }
        let latents = self.programs.step().read(self.backend.as_mut(), program::LATENTS)?;
        timings.steps = lap();

        let all = checked.size.frames;
        let per_frame = latents.len() / all as usize;
        let mut frames = Vec::with_capacity(all as usize);
        for chunk in latents.chunks(per_frame * checked.together as usize) {
            if cancel.is_cancelled() {
                return Err(RuntimeError::Cancelled { steps_done: of, steps: of });
            }
            frames.extend(self.decode(chunk, (chunk.len() / per_frame) as u32)?);
            progress(Progress::Frame { done: frames.len() as u32, of: all });
        }
        timings.decode = lap();
        Ok(Exact { latents, frames, steps: of, tokens_cut: 0, timings })
    }

    /// The image encoder's embedding of a picture, `[context channels]`.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`].
    pub fn embed(&mut self, picture: &Picture) -> Result<Vec<f32>, RuntimeError> {
        let (vision, pixels) = (&self.model.vision, &self.model.pixels);
        let levels = picture.antialiased(vision.side);
        let (side, patch) = (vision.side as usize, vision.patch as usize);
        let mut patches = vec![0.0; patch * patch * 3];
        for (top, left) in
            (0..side).step_by(patch).flat_map(|top| (0..side).step_by(patch).map(move |left| (top, left)))
        {
            for channel in 0..3 {
                let (mean, deviation) = (pixels.mean[channel], pixels.deviation[channel]);
                for row in top..top + patch {
                    let columns = left..left + patch;
                    patches.extend(columns.map(|column| {
                        ((levels[(row * side + column) * 3 + channel] - mean) / deviation) as f32
                    }));
                }
            }
        }
        let mut marker = vec![0.0; vision.tokens() as usize];
        marker[0] = 1.0;
        let backend = self.backend.as_mut();
        let image = self.programs.image();
        image.write(backend, program::PATCHES, &patches)?;
        image.write(backend, program::MARKER, &marker)?;
        image.run(backend)?;
        let mut embeddings = image.read(backend, program::EMBEDDINGS)?;
        embeddings.truncate(vision.projection as usize);
        Ok(embeddings)
    }

    /// The noised start picture's latents: the mean of the encoder's distribution. They are not scaled, unlike those
    /// that are denoised.
    fn encode(
        &mut self,
        picture: &Picture,
        strength: f64,
        noise: &mut dyn FnMut(&str, &mut [f32]),
    ) -> Result<Vec<f32>, RuntimeError> {
        let mut values = picture.to_model();
        let mut added = vec![0.0; values.len()];
        noise("image", &mut added);
        for (value, added) in values.iter_mut().zip(added) {
            *value += strength as f32 * added;
        }
        let backend = self.backend.as_mut();
        let encode = self.programs.encode();
        encode.write(backend, program::PICTURE, &values)?;
        encode.run(backend)?;
        let moments = encode.read(backend, program::MOMENTS)?;
        let channels = self.model.vae.latent_channels as usize;
        Ok(moments.chunks_exact(2 * channels).flat_map(|row| &row[..channels]).copied().collect())
    }

    /// Everything that stays the same during a request, and the first state.
    fn write_conditions(
        &mut self,
        request: &VideoRequest,
        checked: &Checked,
        embedding: &[f32],
        start: &[f32],
        noise: &mut dyn FnMut(&str, &mut [f32]),
    ) -> Result<(), RuntimeError> {
        let backend = self.backend.as_mut();
        let step = self.programs.step();
        step.write(backend, program::CONTEXT, embedding)?;
        step.write(backend, program::START_LATENTS, &start.repeat(checked.size.frames as usize))?;
        let channels = self.model.unet.added_channels as usize;
        // Models are told one less than the frame rate (Stability's and diffusers' pipelines).
        let numbers = [f64::from(request.rate - 1), f64::from(request.motion), request.noise];
        let added: Vec<f32> =
            numbers.iter().flat_map(|&number| timestep_embedding(number, channels, true, 0.0)).collect();
        step.write(backend, program::ADDED, &added)?;
        let mut state = vec![0.0; step.elements(program::LATENTS)];
        // Zero times what a failed request left could be no number.
        step.write(backend, program::DENOISED, &state)?;
        step.write(backend, program::NOISE, &state)?;
        noise("start", &mut state);
        let sigma = checked.schedule.init_noise_sigma as f32;
        state.iter_mut().for_each(|value| *value *= sigma);
        step.write(backend, program::LATENTS, &state)
    }

    fn step(
        &mut self,
        checked: &Checked,
        index: usize,
        noise: &mut dyn FnMut(&str, &mut [f32]),
    ) -> Result<(), RuntimeError> {
        let backend = self.backend.as_mut();
        let step = self.programs.step();
        let coefficients = &checked.schedule.steps[index];
        let channels = self.model.unet.channels[0] as usize;
        let timestep = timestep_embedding(checked.schedule.timesteps[index], channels, true, 0.0);
        step.write(backend, program::TIMESTEP, &timestep)?;
        step.write(backend, program::SCALARS, &program::scalars(coefficients))?;
        if coefficients.nn != 0.0 {
            let mut fresh = vec![0.0; step.elements(program::NOISE)];
            noise(&format!("step {index}"), &mut fresh);
            step.write(backend, program::NOISE, &fresh)?;
        }
        step.run(backend)
    }

    /// Pictures in -1..1 of `frames` frames that are decoded together.
    fn decode(&mut self, latents: &[f32], frames: u32) -> Result<Vec<Vec<f32>>, RuntimeError> {
        let backend = self.backend.as_mut();
        let decode = self.programs.decode(frames);
        let scale = (1.0 / self.model.vae.scaling_factor) as f32;
        let scaled: Vec<f32> = latents.iter().map(|latent| latent * scale).collect();
        decode.write(backend, program::SCALED_LATENTS, &scaled)?;
        decode.run(backend)?;
        let pictures = decode.read(backend, program::PICTURE)?;
        Ok(pictures.chunks_exact(pictures.len() / frames as usize).map(<[f32]>::to_vec).collect())
    }
}

impl VideoRequest {
    /// What does not depend on the model.
    fn check(&self) -> Result<(), RuntimeError> {
        let bad = |why: String| Err(RuntimeError::BadRequest { why });
        if self.guidance != 1.0 {
            return bad(format!(
                "guidance {}: scales that rise from frame to frame take two passes a step, which are not implemented; \
                 only 1 (none) can be asked for, with a model that is distilled for it (AnimateLCM-SVD)",
                self.guidance
            ));
        }
        if self.rate == 0 {
            return bad("0 frames a second; at least 1".to_owned());
        }
        if !(0.0..=NOISE_MAX).contains(&self.noise) {
            return bad(format!("noise {} of the start picture is not within 0 to {NOISE_MAX}", self.noise));
        }
        if self.decode_frames == 0 {
            return bad("0 frames decoded at once; at least 1".to_owned());
        }
        Ok(())
    }
}
