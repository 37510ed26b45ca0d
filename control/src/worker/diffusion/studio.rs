//! A model on a thread of its own, which serves requests one after the other; backends do not leave their thread.

use std::sync::mpsc;
use std::thread::JoinHandle;

use gpu_runtime::RuntimeError;
use gpu_runtime::device::{Choice, Opened};
use gpu_runtime::generate::{
    CancelToken, DECODE_FRAMES_USUAL, Generator, MOTION_USUAL, NOISE_USUAL, Progress, RATE_USUAL, Request,
    Start as StartPicture, VideoGenerator, VideoRequest,
};
use gpu_runtime::model::{Class, ModelSource};
use gpu_runtime::picture::{Animation, FrameRate, Picture, Provenance};

use super::wish::Wish;

/// Frames a second of models with prompts, where nobody says how many.
const RATE_TEXT: u16 = 8;

/// How far from a start picture, where nobody says.
const STRENGTH_USUAL: f64 = 0.8;

/// A request, complete.
pub(super) struct Order {
    pub(super) wish: Wish,
    pub(super) steps: u32,
    pub(super) image: Option<Picture>,
    pub(super) cancel: CancelToken,
    pub(super) progress: Box<dyn FnMut(u32, u32) + Send>,
}

/// What was made.
pub(super) struct Made {
    pub(super) animation: Animation,
    pub(super) provenance: Provenance,
    pub(super) device: String,
    pub(super) tokens_cut: usize,
}

type Reply = mpsc::Sender<Result<Made, RuntimeError>>;

/// A model that is loaded.
pub(super) struct Studio {
    orders: Option<mpsc::Sender<(Order, Reply)>>,
    thread: Option<JoinHandle<()>>,
}

impl Studio {
    /// Loads a model; returns once it is ready.
    pub(super) fn open(source: &ModelSource, choice: Choice) -> Result<Self, RuntimeError> {
        let (orders, taken) = mpsc::channel::<(Order, Reply)>();
        let (ready, is_ready) = mpsc::channel();
        let source = source.clone();
        let work = move || {
            let mut model = match Loaded::open(&source, choice) {
                Ok(model) => model,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            for (order, reply) in taken {
                let _ = reply.send(model.make(order));
            }
        };
        let gone = || RuntimeError::Sticky { why: "the thread of a model ended".to_owned() };
        let thread = std::thread::Builder::new().name("model".to_owned()).spawn(work).map_err(|_| gone())?;
        is_ready.recv().map_err(|_| gone())??;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Serves a request; waits while others are served.
    pub(super) fn make(&self, order: Order) -> Result<Made, RuntimeError> {
        let gone = || RuntimeError::Sticky { why: "the thread of a model ended".to_owned() };
        let (reply, made) = mpsc::channel();
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send((order, reply)).map_err(|_| gone())?;
        made.recv().map_err(|_| gone())?
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // what it held of the device is free afterwards
        }
    }
}

enum Loaded {
    Text(Box<Generator>),
    Video(Box<VideoGenerator>),
}

impl Loaded {
    fn open(source: &ModelSource, choice: Choice) -> Result<Self, RuntimeError> {
        let class = Class::of(&source.folder)?;
        let Opened { backend, note, .. } = choice.open()?;
        if let Some(note) = note {
            tracing::info!("{note}");
        }
        Ok(match class {
            Class::Text => Self::Text(Box::new(Generator::new(source, backend)?)),
            Class::Video => Self::Video(Box::new(VideoGenerator::new(source, backend)?)),
        })
    }

    fn make(&mut self, order: Order) -> Result<Made, RuntimeError> {
        let Order { wish, steps, image, cancel, mut progress } = order;
        let bad = |why: String| RuntimeError::BadRequest { why };
        let sampler = wish.sampler().map_err(bad)?;
        let mut told = |at: Progress| match at {
            Progress::Conditioned => progress(0, steps),
            Progress::Step { done, of } => progress(done, of),
            Progress::Frame { .. } => progress(steps, steps),
        };
        let (made, model, device, rate) = match self {
            Self::Text(generator) => {
                let prompt = wish.prompt.ok_or_else(|| bad("this model takes a prompt".to_owned()))?;
                let side = generator.side_usual();
                let request = Request {
                    prompt,
                    seed: wish.seed,
                    steps,
                    frames: wish.frames.unwrap_or_else(|| generator.frames_usual()),
                    width: wish.width.unwrap_or(side),
                    height: wish.height.unwrap_or(side),
                    guidance: wish.guidance.unwrap_or_else(|| generator.guidance_usual()),
                    start: image.map(|picture| StartPicture {
                        picture,
                        strength: wish.strength.unwrap_or(STRENGTH_USUAL),
                    }),
                    sampler,
                };
                let made = generator.generate(&request, &mut told, &cancel)?;
                (made, generator.model().name.clone(), generator.device(), wish.rate.unwrap_or(RATE_TEXT))
            }
            Self::Video(generator) => {
                let picture =
                    image.ok_or_else(|| bad("this model needs a picture as input object".to_owned()))?;
                let (width, height) = generator.model().size_usual();
                let rate = wish.rate.unwrap_or(RATE_USUAL).max(1);
                let request = VideoRequest {
                    picture,
                    seed: wish.seed,
                    steps,
                    frames: wish.frames.unwrap_or(generator.model().unet.frames),
                    width: wish.width.unwrap_or(width),
                    height: wish.height.unwrap_or(height),
                    rate: rate.into(),
                    motion: wish.motion.unwrap_or(MOTION_USUAL),
                    noise: wish.noise.unwrap_or(NOISE_USUAL),
                    guidance: wish.guidance.unwrap_or(1.0),
                    decode_frames: DECODE_FRAMES_USUAL,
                    sampler,
                };
                let made = generator.generate(&request, &mut told, &cancel)?;
                (made, generator.model().name.clone(), generator.device(), rate)
            }
        };
        Ok(Made {
            animation: Animation::new(made.frames, FrameRate::new(rate.clamp(1, 100), 1)),
            provenance: Provenance {
                model,
                seed: wish.seed,
                steps: made.steps,
                program: concat!("headroom ", env!("CARGO_PKG_VERSION")).to_owned(),
            },
            device,
            tokens_cut: made.tokens_cut,
        })
    }
}
