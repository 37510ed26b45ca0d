//! The programs of one request: text, context, step, decode, encode. Tensors that the host touches have the names
//! given here.

use super::configuration::{MotionConfig, TextConfig, UnetConfig, VaeConfig, VideoUnetConfig, VisionConfig};
use super::{text, unet, vae, video, vision};
use crate::RuntimeError;
use crate::graph::{Builder, Graph, LinearSpec, Precision, Shape, TensorId, View};
use crate::schedule::StepCoefficients;
use crate::weights::Weights;

/// Output of [`text()`] and input of [`context`].
pub const CONTEXT: &str = "context";
/// Output of [`context`] and input of [`step`].
pub const CONTEXT_KV: &str = "context_kv";
/// Input of [`text()`]: token ids.
pub const IDS: &str = "ids";
/// Output of [`prediction()`].
pub const PREDICTION: &str = "prediction";
/// State of [`step`]: the noisy latents, before and after. Input of [`prediction()`].
pub const LATENTS: &str = "latents";
/// State of [`step`]: the prediction of the clean latents; that of the step before on entry.
pub const DENOISED: &str = "denoised";
/// Input of [`step`]: fresh noise.
pub const NOISE: &str = "noise";
/// Input of [`step`]: [`scalars`].
pub const SCALARS: &str = "scalars";
/// Input of [`step`]: sinusoid of the time step.
pub const TIMESTEP: &str = "timestep";
/// Input of [`step`], of models with distilled guidance: embedding of the guidance scale.
pub const GUIDANCE: &str = "guidance";
/// Input of [`decode`]: latents divided by the scaling factor.
pub const SCALED_LATENTS: &str = "scaled_latents";
/// Output of [`decode`] and input of [`encode`]: pictures in -1..1.
pub const PICTURE: &str = "picture";
/// Output of [`encode`]: means, then log variances.
pub const MOMENTS: &str = "moments";

/// Input of [`video_step`]: latents of the start picture in every frame.
pub const START_LATENTS: &str = "start_latents";
/// Input of [`video_step`]: sinusoids of frame rate, motion and noise of the start picture, side by side.
pub const ADDED: &str = "added";
/// Input of [`video_step`]: [`shares`].
pub const SHARES: &str = "shares";

/// Input of [`image()`]: the picture's patches row by row after a row of zeros; a patch is its red, then green, then blue
/// levels, rows from the top.
pub const PATCHES: &str = "patches";
/// Input of [`image()`]: 1, then zeros.
pub const MARKER: &str = "marker";
/// Output of [`image()`], of which the first row is the picture's embedding.
pub const EMBEDDINGS: &str = "embeddings";

/// Number of scalars of one step.
const SCALAR_COUNT: u32 = 8;

/// The values of [`SCALARS`] for one sampling step, in the order in which [`step`] reads them; the last is one.
#[must_use]
pub fn scalars(c: &StepCoefficients) -> [f32; SCALAR_COUNT as usize] {
    [c.input_scale, c.dx, c.de, c.nx, c.nd, c.np, c.nn, 1.0].map(|value| value as f32)
}

/// Extents of the latents of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LatentSize {
    /// Clips (or pictures) that are made at once.
    pub clips: u32,
    /// Frames of one clip; 1 for pictures.
    pub frames: u32,
    /// Rows of a frame.
    pub height: u32,
    /// Columns of a frame.
    pub width: u32,
}

impl LatentSize {
    /// Shape of latents with these channels.
    #[must_use]
    pub fn shape(self, channels: u32) -> Shape {
        Shape::new(self.clips * self.frames, self.height, self.width, channels)
    }
}

/// A picture's patches to its embedding.
#[must_use]
pub fn image(config: &VisionConfig) -> Graph {
    let mut b = Builder::new("image", "image_encoder");
    let out = vision::encoder(&mut b, config, [PATCHES, MARKER]);
    b.rename(out, EMBEDDINGS);
    b.output(out);
    b.finish()
}

/// Token ids to text features.
#[must_use]
pub fn text(config: &TextConfig) -> Graph {
    let mut b = Builder::new("text", "text_encoder");
    let out = text::encoder(&mut b, config);
    b.rename(out, CONTEXT);
    b.output(out);
    b.finish()
}

/// Text features to keys and values of every cross attention, in one matrix product: once per request, for all steps
/// and frames.
#[must_use]
pub fn context(config: &UnetConfig, tokens: u32) -> Graph {
    let mut b = Builder::new("context", "unet");
    let out = keys_and_values(&mut b, config, tokens);
    b.output(out);
    b.finish()
}

fn keys_and_values(b: &mut Builder, config: &UnetConfig, tokens: u32) -> TensorId {
    let features = b.input(CONTEXT, Shape::new(1, 1, tokens, config.context_channels), Precision::Model);
    let parts: Vec<_> = unet::context_parts(config)
        .into_iter()
        .flat_map(|(path, channels)| [(format!("{path}.to_k"), channels), (format!("{path}.to_v"), channels)])
        .collect();
    let channels = context_channels(config);
    b.linear_joined(CONTEXT_KV, &parts, features, LinearSpec { channels, bias: false, residual: None })
}

/// The same by a matrix for each cross attention, so that adapters of one are not as large as those of all.
fn keys_and_values_apart(b: &mut Builder, config: &UnetConfig, tokens: u32) -> TensorId {
    let features = b.input(CONTEXT, Shape::new(1, 1, tokens, config.context_channels), Precision::Model);
    let mut all = None;
    for (path, channels) in unet::context_parts(config) {
        let parts = [(format!("{path}.to_k"), channels), (format!("{path}.to_v"), channels)];
        let spec = LinearSpec { channels: 2 * channels, bias: false, residual: None };
        let both = b.linear_joined(&format!("{path}.to_kv"), &parts, features, spec);
        all = Some(match all {
            None => both,
            Some(before) => b.concat(&format!("{CONTEXT_KV} to {path}"), before, both),
        });
    }
    all.expect("a network attends to its text")
}

/// Channels of all keys and values side by side.
fn context_channels(config: &UnetConfig) -> u32 {
    unet::context_parts(config).iter().map(|(_, channels)| 2 * channels).sum()
}

fn conditions(b: &mut Builder, config: &UnetConfig, context: TensorId) -> unet::Conditions {
    let timestep = b.input(TIMESTEP, Shape::new(1, 1, 1, config.channels[0]), Precision::Model);
    let guidance = config
        .guidance_channels
        .map(|channels| b.input(GUIDANCE, Shape::new(1, 1, 1, channels), Precision::Model));
    unet::Conditions { timestep, guidance, context }
}

/// Text features and noised latents to the network's prediction, [`PREDICTION`], without a sampler: what is trained.
#[must_use]
pub fn prediction(
    config: &UnetConfig,
    motion: Option<&MotionConfig>,
    size: LatentSize,
    tokens: u32,
) -> Graph {
    let mut b = Builder::new("prediction", "unet");
    let context = keys_and_values_apart(&mut b, config, tokens);
    let latents = b.input(LATENTS, size.shape(config.latent_channels), Precision::Model);
    let conditions = conditions(&mut b, config, context);
    let motion = motion.map(|adapter| (adapter, size.frames));
    let predicted = unet::denoiser(&mut b, config, motion, latents, conditions);
    b.rename(predicted, PREDICTION);
    b.output(predicted);
    b.finish()
}

/// One denoising step: the network, then the sampler as linear combinations with [`scalars`].
///
/// `motion` is the adapter's configuration for clips; without it every frame is a picture of its own.
#[must_use]
pub fn step(config: &UnetConfig, motion: Option<&MotionConfig>, size: LatentSize, tokens: u32) -> Graph {
    let mut b = Builder::new("step", "unet");
    let shape = size.shape(config.latent_channels);
    let latents = b.state(LATENTS, shape);
    let previous = b.state(DENOISED, shape);
    let noise = b.input(NOISE, shape, Precision::Single);
    let scalars = b.input(SCALARS, Shape::new(1, 1, 1, SCALAR_COUNT), Precision::Single);
    let kv = Shape::new(1, 1, tokens, context_channels(config));
    let context = b.input(CONTEXT_KV, kv, Precision::Model);
    let view = |offset, channels| View { tensor: scalars, offset, channels };

    let sample = b.combine("sample", &[latents], view(0, 1), Precision::Model);
    let conditions = conditions(&mut b, config, context);
    let motion = motion.map(|adapter| (adapter, size.frames));
    let predicted = unet::denoiser(&mut b, config, motion, sample, conditions);
    let denoised = b.combine("denoised_now", &[latents, predicted], view(1, 2), Precision::Single);
    b.combine_into(latents, &[latents, denoised, previous, noise], view(3, 4));
    b.combine_into(previous, &[denoised], view(7, 1));
    b.output(latents);
    b.output(previous);
    b.finish()
}

/// One denoising step of an image-to-video model; the sampler is that of [`step`].
///
/// The start picture's latents go in beside the noisy ones, its embedding is the whole context, and [`SHARES`] are
/// written once after loading.
#[must_use]
pub fn video_step(config: &VideoUnetConfig, size: LatentSize) -> Graph {
    let mut b = Builder::new("video step", "unet");
    let shape = size.shape(config.latent_channels);
    let latents = b.state(LATENTS, shape);
    let previous = b.state(DENOISED, shape);
    let noise = b.input(NOISE, shape, Precision::Single);
    let start = b.input(START_LATENTS, shape, Precision::Model);
    let vector = |channels| Shape::new(1, 1, 1, channels);
    let scalars = b.input(SCALARS, vector(SCALAR_COUNT), Precision::Single);
    let blends = video::blends(config).len() as u32;
    let conditions = video::Conditions {
        timestep: b.input(TIMESTEP, vector(config.channels[0]), Precision::Model),
        added: b.input(ADDED, vector(config.added_channels_all), Precision::Model),
        context: b.input(CONTEXT, vector(config.context_channels), Precision::Model),
        shares: b.input(SHARES, vector(2 * blends), Precision::Single),
    };
    let view = |offset, channels| View { tensor: scalars, offset, channels };
    let scaled = b.combine("scaled", &[latents], view(0, 1), Precision::Model);
    let sample = b.concat("sample", scaled, start);
    let predicted = video::denoiser(&mut b, config, size.frames, sample, conditions);
    let denoised = b.combine("denoised_now", &[latents, predicted], view(1, 2), Precision::Single);
    b.combine_into(latents, &[latents, denoised, previous, noise], view(3, 4));
    b.combine_into(previous, &[denoised], view(7, 1));
    b.output(latents);
    b.output(previous);
    b.finish()
}

/// The values of [`SHARES`]: what each blend of [`video_step`] keeps of the frame alone and takes of the clip.
///
/// # Errors
/// [`RuntimeError::BadModel`] when a stored number is missing.
pub fn shares(config: &VideoUnetConfig, weights: &Weights) -> Result<Vec<f32>, RuntimeError> {
    video::blends(config).iter().flatten().map(|mixing| weights.share(mixing)).collect()
}

/// Latents to pictures, `frames` at once. A temporal decoder looks across them.
#[must_use]
pub fn decode(config: &VaeConfig, frames: u32, height: u32, width: u32) -> Graph {
    let mut b = Builder::new("decode", "vae");
    let shape = Shape::new(frames, height, width, config.latent_channels);
    let latents = b.input(SCALED_LATENTS, shape, Precision::Model);
    let out = if config.temporal_decoder {
        vae::temporal_decoder(&mut b, config, latents)
    } else {
        vae::decoder(&mut b, config, latents)
    };
    b.rename(out, PICTURE);
    b.output(out);
    b.finish()
}

/// One picture, of `height × width` latents, to the moments of its latents.
#[must_use]
pub fn encode(config: &VaeConfig, height: u32, width: u32) -> Graph {
    let mut b = Builder::new("encode", "vae");
    let shape = Shape::new(1, height * config.factor(), width * config.factor(), 3);
    let picture = b.input(PICTURE, shape, Precision::Model);
    let out = vae::encoder(&mut b, config, picture);
    b.rename(out, MOMENTS);
    b.output(out);
    b.finish()
}
