//! `headroom train`: a handful of pictures becomes a low-rank adapter, which `worker --lora` draws with.

use std::error::Error;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use gpu_runtime::generate::CancelToken;
use gpu_runtime::picture::{Picture, ReadLimits};
use gpu_runtime::train::{
    self, Checkpoint, Keeping, OptimizerSettings, Scope, Subject, TrainRequest, Trained,
};
use serde::Serialize;

use super::device::Opened;
use super::model_args::{ModelArgs, Size, size};
use crate::failure::Failure;
use crate::numerals::{figure, time};
use crate::progress::Progress;
use crate::screen::Screen;
use crate::whole_file::{WholeFile, WholeFileError};

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom profile --make-tiny tiny
  headroom train --model tiny --images cat1.png cat2.png --prompt \"the cat\" --steps 100 --out cat.safetensors
  headroom worker --once --model tiny --lora cat.safetensors=1 --prompt \"the cat running\" --out cat.webp
  headroom train --model BASE --motion-adapter AnimateLCM --clip --motion --images frame*.png --prompt \"the cat running\" \\
      --out running.safetensors

The network runs on the GPU in bf16 where there is one, else on the CPU in f32; the adapter itself is always f32. The loss is
judged before and after on fixed noise, which no step sees.";

/// Weight decay and largest gradient norm of diffusers' training scripts.
const WEIGHT_DECAY: f64 = 1e-2;
const NORM_MAX: f64 = 1.0;
/// The learning rate rises over a tenth of the steps, at most so many.
const WARM_UP_STEPS_MAX: u32 = 100;

/// `headroom train`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TrainArgs {
    /// Folder of the model, in the diffusers layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Pictures to learn from (PNG, JPEG or WebP), cut to the shape of the frames.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// What they show.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// The pictures are the frames of one clip, in order, and go through the motion modules.
    #[arg(long)]
    clip: bool,
    /// Train the motion modules as well.
    #[arg(long, requires = "clip")]
    motion: bool,
    /// Steps of the optimizer.
    #[arg(long, value_name = "N", default_value_t = 200)]
    steps: u32,
    /// Samples of one step.
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: u32,
    /// Rank of the adapter: how much it can hold.
    #[arg(long, value_name = "N", default_value_t = 4)]
    rank: u32,
    /// The adapter counts alpha / rank times while it is trained. Default: the rank.
    #[arg(long, value_name = "ALPHA")]
    alpha: Option<f64>,
    /// Learning rate after warming up.
    #[arg(long, value_name = "RATE", default_value_t = 1e-4)]
    learning_rate: f64,
    /// Seed of the adapter, of timesteps and of noise.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Pixels, e.g. `512` or `512x768`. Default: what the model was trained for.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<Size>,
    /// File to write.
    #[arg(long, value_name = "FILE", default_value = "lora.safetensors")]
    out: PathBuf,
    /// Keep what is learned in this file meanwhile, and go on from it where it is there: a training that is killed loses the
    /// steps since. It is removed in the end.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Steps from one checkpoint to the next.
    #[arg(long, value_name = "N", default_value = "50", requires = "checkpoint")]
    checkpoint_every: NonZeroU32,
    #[command(flatten)]
    parts: ModelArgs,
}

/// What was learned, for programs.
#[derive(Serialize)]
struct Learned<'a> {
    out: &'a Path,
    bytes: usize,
    model: &'a Path,
    prompt: &'a str,
    tokens_cut: usize,
    images: usize,
    seed: u64,
    steps: u32,
    /// Of these, what an earlier run had done.
    steps_before: u32,
    batch: u32,
    rank: u32,
    learning_rate: f64,
    layers: usize,
    parameters: usize,
    loss_before: f64,
    loss_after: f64,
    losses: &'a [f64],
    memory_bytes: u64,
    device: &'a str,
    train_s: f64,
}

/// Runs `headroom train`.
pub(crate) fn run(args: &TrainArgs, screen: &Screen) -> Result<(), Failure> {
    let read = |path: &PathBuf| Picture::read_file(path, ReadLimits::default());
    let request = TrainRequest {
        images: args.images.iter().map(read).collect::<Result<_, _>>()?,
        subject: match (args.clip, args.motion) {
            (false, _) => Subject::Pictures,
            (true, false) => Subject::Clip { scope: Scope::Spatial },
            (true, true) => Subject::Clip { scope: Scope::SpatialAndMotion },
        },
        prompt: args.prompt.clone(),
        size: args.size.map(|size| (size.width, size.height)),
        steps: args.steps,
        batch: args.batch,
        rank: args.rank,
        alpha: args.alpha,
        optimizer: OptimizerSettings {
            learning_rate: args.learning_rate,
            warm_up_steps: (args.steps / 10).min(WARM_UP_STEPS_MAX),
            weight_decay: WEIGHT_DECAY,
            norm_max: NORM_MAX,
        },
        guidance: args.parts.guidance,
        sampler: args.parts.sampler,
        seed: args.seed,
    };
    let from = args.checkpoint.as_deref().map(begin).transpose()?.flatten();
    let Opened { backend, note, .. } = args.parts.device.open()?;
    note.iter().for_each(|note| screen.note(note));
    let device = backend.device();
    let started = Instant::now();
    let progress = Progress::steps(screen, "steps", u64::from(args.steps));
    let mut told = |at: train::TrainProgress| progress.reach("steps", at.done.into(), at.of.into());
    let mut is_warned = false;
    let mut keep = |checkpoint: &Checkpoint| {
        let kept = args.checkpoint.as_deref().map_or(Ok(()), |path| keep_in(path, checkpoint));
        if let Err(error) = kept
            && !is_warned
        {
            is_warned = true;
            progress.aside(|| {
                screen.warn(&format!("a checkpoint was not written, the training goes on: {error}"))
            });
        }
    };
    let keeping = Keeping { from, every: args.checkpoint_every, keep: &mut keep };
    let keeping = args.checkpoint.is_some().then_some(keeping);
    let source = args.parts.source(&args.model);
    let trained = train::train(&source, &request, backend, keeping, &mut told, &CancelToken::new())?;
    drop(progress);
    let train_s = started.elapsed().as_secs_f64();
    let file = trained.adapters.to_safetensors()?;
    write(&file, &args.out)?;
    if let Some(path) = &args.checkpoint {
        // What is left behind is refused by another training and taken for its end by this one.
        let _ = fs::remove_file(path);
    }
    let learned = learned(args, &trained, &device, file.len(), train_s);
    if learned.tokens_cut > 0 {
        screen.warn(&format!(
            "the last {} tokens of the prompt found no room and were not read",
            learned.tokens_cut
        ));
    }
    if screen.json { screen.print_json(&learned) } else { screen.print(&learned.text()) }
}

fn learned<'a>(
    args: &'a TrainArgs,
    trained: &'a Trained,
    device: &'a str,
    bytes: usize,
    train_s: f64,
) -> Learned<'a> {
    Learned {
        out: &args.out,
        bytes,
        model: &args.model,
        prompt: &args.prompt,
        tokens_cut: trained.tokens_cut,
        images: args.images.len(),
        seed: args.seed,
        steps: args.steps,
        steps_before: trained.steps_before,
        batch: args.batch,
        rank: args.rank,
        learning_rate: args.learning_rate,
        layers: trained.adapters.layers.len(),
        parameters: trained.adapters.parameters(),
        loss_before: trained.loss_before,
        loss_after: trained.loss_after,
        losses: &trained.losses,
        memory_bytes: trained.bytes,
        device,
        train_s,
    }
}

impl Learned<'_> {
    fn text(&self) -> String {
        let Self { images, steps, layers, rank, parameters, device, .. } = self;
        let (out, images_word) = (self.out.display(), if *images == 1 { "image" } else { "images" });
        let before = match self.steps_before {
            0 => String::new(),
            before => format!(" after {before} of an earlier run"),
        };
        let steps = steps - self.steps_before;
        format!(
            "{out}: {images} {images_word}, {steps} steps{before} in {} on {device}, seed {}; loss {} to {}\n{layers} layers of rank {rank}, \
             {parameters} values; draw with it: headroom worker --once --model {} --lora {out}=1 --prompt ...\n",
            time(self.train_s),
            self.seed,
            figure(self.loss_before),
            figure(self.loss_after),
            self.model.display(),
        )
    }
}

/// Where a training is kept, if it was; the file can be written.
fn begin(path: &Path) -> Result<Option<Checkpoint>, Failure> {
    drop(WholeFile::create(path)?);
    Ok(if path.exists() { Some(Checkpoint::read_file(path)?) } else { None })
}

fn keep_in(path: &Path, checkpoint: &Checkpoint) -> Result<(), Box<dyn Error>> {
    Ok(write(&checkpoint.to_safetensors()?, path)?)
}

/// Writes the file, whole or not at all.
fn write(bytes: &[u8], path: &Path) -> Result<(), WholeFileError> {
    let mut file = WholeFile::create(path)?;
    file.write(|out| out.write_all(bytes))?;
    file.finish()?;
    Ok(())
}
