//! What is measured: a model of either class on a device, and what it is asked for.

use std::path::Path;
use std::time::Instant;

use gpu_runtime::RuntimeError;
use gpu_runtime::generate::{
    CancelToken, DECODE_FRAMES_USUAL, Generator, MOTION_USUAL, Memory, NOISE_USUAL, RATE_USUAL, Request,
    Start, Timings, VideoGenerator, VideoRequest,
};
use gpu_runtime::model::Class;
use gpu_runtime::picture::Picture;

use super::{ProfileArgs, Size};
use crate::commands::device::Opened;

/// A model on a device.
pub(super) struct Subject {
    maker: Maker,
    /// What it runs on.
    pub(super) device: String,
    /// Processor and versions.
    pub(super) host: String,
    /// Why it does not run on a GPU, where it would have.
    pub(super) note: Option<String>,
}

/// A generator, and a request of which every kind takes what it does not say.
enum Maker {
    /// Of a prompt.
    Text(Box<Generator>, Request),
    /// Of a picture.
    Video(Box<VideoGenerator>, VideoRequest),
}

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) steps: u32,
    pub(super) frames: u32,
    pub(super) size: Size,
}

impl Subject {
    /// Opens device and model.
    ///
    /// # Errors
    /// What the runtime says about either.
    pub(super) fn open(model: &Path, args: &ProfileArgs) -> Result<Self, RuntimeError> {
        let class = Class::of(model)?;
        let source = args.parts.source(model);
        let Opened { backend, host, note } = args.parts.device.open()?;
        let device = backend.device();
        let (seed, sampler, picture) = (args.seed, args.parts.sampler, start_picture());
        let maker = match class {
            Class::Text => {
                let generator = Generator::new(&source, backend)?;
                let side = generator.side_usual();
                let request = Request {
                    prompt: args.prompt.clone(),
                    seed,
                    steps: 1,
                    frames: generator.frames_usual(),
                    width: side,
                    height: side,
                    guidance: args.parts.guidance.unwrap_or_else(|| generator.guidance_usual()),
                    // At strength 1 every sampler takes all its steps.
                    start: Some(Start { picture, strength: 1.0 }),
                    sampler,
                };
                Maker::Text(Box::new(generator), request)
            }
            Class::Video => {
                let generator = VideoGenerator::new(&source, backend)?;
                let (width, height) = generator.model().size_usual();
                let request = VideoRequest {
                    picture,
                    seed,
                    steps: 1,
                    frames: generator.model().unet.frames,
                    width,
                    height,
                    rate: RATE_USUAL.into(),
                    motion: MOTION_USUAL,
                    noise: NOISE_USUAL,
                    guidance: args.parts.guidance.unwrap_or(1.0),
                    decode_frames: DECODE_FRAMES_USUAL,
                    sampler,
                };
                Maker::Video(Box::new(generator), request)
            }
        };
        Ok(Self { maker, device, host, note })
    }

    /// Every combination that the flags name, the stage's own first: first size, first frames, most steps.
    pub(super) fn kinds(&self, args: &ProfileArgs) -> Vec<Kind> {
        let (width, height, usual) = match &self.maker {
            Maker::Text(_, Request { width, height, frames, .. })
            | Maker::Video(_, VideoRequest { width, height, frames, .. }) => (*width, *height, *frames),
        };
        let mut steps: Vec<u32> = args.steps.iter().map(|steps| steps.get()).collect();
        steps.sort_unstable_by(|a, b| b.cmp(a));
        steps.dedup();
        let frames: Vec<u32> = args.frames.iter().map(|frames| frames.get()).collect();
        let frames = if frames.is_empty() { vec![usual] } else { frames };
        let sizes = if args.size.is_empty() { vec![Size { width, height }] } else { args.size.clone() };
        let mut kinds = Vec::new();
        for &size in &sizes {
            for &frames in &frames {
                kinds.extend(steps.iter().map(|&steps| Kind { steps, frames, size }));
            }
        }
        kinds
    }

    /// Whether it can serve a kind of request, without doing anything for it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self, kind: Kind) -> Result<(), RuntimeError> {
        match &self.maker {
            Maker::Text(generator, request) => generator.check(&kind.of_text(request)),
            Maker::Video(generator, request) => generator.check(&kind.of_video(request)),
        }
    }

    /// Makes everything ready for a kind of request.
    ///
    /// # Errors
    /// What the runtime says.
    pub(super) fn prepare(&mut self, kind: Kind) -> Result<(), RuntimeError> {
        match &mut self.maker {
            Maker::Text(generator, _) => {
                generator.prepare(kind.frames, kind.size.width, kind.size.height, true)
            }
            Maker::Video(generator, request) => generator.prepare(&kind.of_video(request)),
        }
    }

    /// Serves a request; gives the times of its parts, and of all of it in seconds.
    ///
    /// # Errors
    /// What the runtime says.
    pub(super) fn serve(&mut self, kind: Kind) -> Result<(Timings, f64), RuntimeError> {
        let (never, mut deaf) = (CancelToken::new(), |_| {});
        let (started, made) = match &mut self.maker {
            Maker::Text(generator, request) => {
                let request = kind.of_text(request);
                (Instant::now(), generator.generate(&request, &mut deaf, &never)?)
            }
            Maker::Video(generator, request) => {
                let request = kind.of_video(request);
                (Instant::now(), generator.generate(&request, &mut deaf, &never)?)
            }
        };
        Ok((made.timings, started.elapsed().as_secs_f64()))
    }

    /// Memory of the device.
    pub(super) fn memory(&self) -> Memory {
        match &self.maker {
            Maker::Text(generator, _) => generator.memory(),
            Maker::Video(generator, _) => generator.memory(),
        }
    }
}

impl Kind {
    fn of_text(self, like: &Request) -> Request {
        let Self { steps, frames, size: Size { width, height } } = self;
        Request { steps, frames, width, height, ..like.clone() }
    }

    fn of_video(self, like: &VideoRequest) -> VideoRequest {
        let Self { steps, frames, size: Size { width, height } } = self;
        VideoRequest { steps, frames, width, height, ..like.clone() }
    }
}

/// Any picture: what it shows changes no time.
fn start_picture() -> Picture {
    const SIDE: u32 = 64;
    let level = |i: u32| (i % (SIDE * 3) + i / (SIDE * 3)) as u8;
    Picture::new(SIDE, SIDE, (0..SIDE * SIDE * 3).map(level).collect())
}
