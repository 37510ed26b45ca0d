//! `headroom worker`: `--once`, one request on this machine, from a prompt to a file that plays; `--join`, see
//! `worker_join`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use gpu_runtime::generate::{
    self, CancelToken, DECODE_FRAMES_USUAL, Generated, Generator, MOTION_USUAL, NOISE_USUAL, RATE_USUAL,
    Request, Start, Timings, VideoGenerator, VideoRequest,
};
use gpu_runtime::model::Class;
use gpu_runtime::picture::{Animation, Format, FrameRate, Picture, Provenance, ReadLimits};
use serde::Serialize;

use super::device::Opened;
use super::model_args::{ModelArgs, Size, size};
use super::worker_join::{self, JoinArgs};
use crate::failure::{Failure, Status};
use crate::numerals::time;
use crate::progress::Progress;
use crate::screen::Screen;
use crate::whole_file::WholeFile;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom profile --make-tiny tiny
  headroom worker --once --model tiny --prompt \"a cat running\" --out cat.webp
  headroom worker --once --model LCM_Dreamshaper_v7 --prompt \"a harbour at dawn\" --steps 4 --out harbour.png
  headroom worker --once --model LCM_Dreamshaper_v7 --motion-adapter AnimateLCM --lora AnimateLCM_lora.safetensors \\
      --image harbour.png --strength 0.8 --prompt \"boats sway\" --frames 16 --out harbour.gif
  headroom worker --once --model AnimateLCM-SVD-xt --image harbour.png --frames 14 --out harbour.webp

  headroom worker --join http://127.0.0.1:8080 --pool gpu --model LCM_Dreamshaper_v7
  headroom worker --join http://127.0.0.1:8080 --pool gpu --slots 4 --simulate --scenario quickstart.toml

The ending of --out chooses the format: png and apng are the same and lossless, webp is lossless, gif has 256 colours.
Metadata say that the picture was generated, by which model, with which seed.

A worker that joins keeps its work over lost connections and restarts of the plane. SIGTERM and Ctrl-C: it takes nothing new,
finishes within --grace and leaves; a second one ends it at once. HEADROOM_JOIN holds the join token, HEADROOM_LAUNCH the
token of the launch that made it. It ends with 5 when its device has failed: only a new process helps then.";

/// Frames a second of models with prompts, unless said otherwise; what motion models were trained with.
const RATE_DEFAULT: u16 = 8;
/// How far from a start picture, unless said otherwise.
const STRENGTH_DEFAULT: f64 = 0.8;

/// `headroom worker`.
#[derive(Args, Clone, Debug)]
#[command(group(clap::ArgGroup::new("mode").required(true).args(["once", "join"])))]
pub(crate) struct WorkerArgs {
    /// Make one animation and end.
    #[arg(long)]
    once: bool,
    /// Join the plane at this address, and work on its jobs.
    #[arg(long, value_name = "URL", requires = "pool")]
    pub(super) join: Option<String>,
    /// Folder of the model, in the diffusers layout; a worker that joins may hold several.
    #[arg(long, value_name = "DIR")]
    pub(super) model: Vec<PathBuf>,
    /// What is to be seen. Image-to-video models take none, all others need it.
    #[arg(long, value_name = "TEXT", conflicts_with = "join")]
    prompt: Option<String>,
    /// Start from this picture (PNG, JPEG or WebP), cut to the shape of the frames. Image-to-video models need it.
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    image: Option<PathBuf>,
    /// How far from the start picture: near 0 keeps it, 1 forgets it [0.8].
    #[arg(long, value_name = "SHARE", requires = "image")]
    strength: Option<f64>,
    /// Seed of the noise.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "join")]
    seed: u64,
    /// Denoising steps.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "join")]
    steps: u32,
    /// Frames. Default: 16, or as many as the model can; 1 without motion modules; what an image-to-video model has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "join")]
    frames: Option<u32>,
    /// Pixels, e.g. `512` or `512x768`. Default: what the model was trained for.
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "join")]
    size: Option<Size>,
    /// Frames a second [8; image to video: 7, which the model is told].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    rate: Option<u16>,
    /// Image to video: how much moves, the model's motion bucket, usually 1 to 255; 127 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1023))]
    motion: Option<u32>,
    /// Image to video: noise on the picture; more of it moves more [0.02].
    #[arg(long, value_name = "DEVIATION")]
    noise: Option<f64>,
    /// Image to video: frames that are decoded together at most; fewer need less memory; 8 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    decode_frames: Option<u32>,
    /// File to write: png, apng, gif or webp.
    #[arg(long, value_name = "FILE", default_value = "animation.png", conflicts_with = "join")]
    out: PathBuf,
    #[command(flatten)]
    pub(super) parts: ModelArgs,
    #[command(flatten)]
    pub(super) joining: JoinArgs,
}

/// What was made, for programs.
#[derive(Serialize)]
struct Made<'a> {
    out: &'a Path,
    bytes: u64,
    media_type: &'static str,
    model: &'a str,
    device: &'a str,
    prompt: Option<&'a str>,
    tokens_cut: usize,
    seed: u64,
    steps: u32,
    frames: usize,
    width: u32,
    height: u32,
    load_s: f64,
    #[serde(flatten)]
    parts: Parts,
    write_s: f64,
}

/// Seconds of the parts of a request.
#[derive(Serialize)]
struct Parts {
    prepare_s: f64,
    text_s: f64,
    encode_s: f64,
    steps_s: f64,
    decode_s: f64,
}

impl From<&Timings> for Parts {
    fn from(timings: &Timings) -> Self {
        Self {
            prepare_s: timings.prepare.as_secs_f64(),
            text_s: timings.text.as_secs_f64(),
            encode_s: timings.encode.as_secs_f64(),
            steps_s: timings.steps.as_secs_f64(),
            decode_s: timings.decode.as_secs_f64(),
        }
    }
}

/// Runs `headroom worker`.
pub(crate) fn run(args: &WorkerArgs, screen: &Screen) -> Result<(), Failure> {
    match (&args.join, args.model.as_slice()) {
        (Some(url), _) => worker_join::run(url, args, screen),
        (None, [model]) => make_once(model, args, screen),
        (None, _) => Err(misused("--once takes one model", "name its folder with --model")),
    }
}

/// Makes one animation.
fn make_once(folder: &Path, args: &WorkerArgs, screen: &Screen) -> Result<(), Failure> {
    let format = Format::of(&args.out).ok_or_else(|| {
        let message = format!("`{}` names no format for animations", args.out.display());
        Failure::new(Status::Usage, "worker::format", message)
            .with_help("end it with .png, .apng, .gif or .webp")
    })?;
    let image =
        args.image.as_ref().map(|path| Picture::read_file(path, ReadLimits::default())).transpose()?;
    let Ready { load_s, size, device, model, rate, made } = match Class::of(folder)? {
        Class::Text => animated(folder, args, image, screen)?,
        Class::Video => filmed(folder, args, image, screen)?,
    };
    let provenance = Provenance {
        model,
        seed: args.seed,
        steps: made.steps,
        program: concat!("headroom ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let animation = Animation::new(made.frames, FrameRate::new(rate, 1));
    let started = Instant::now();
    let bytes = write(&animation, format, &provenance, &args.out)?;
    let report = Made {
        out: &args.out,
        bytes,
        media_type: format.media_type(),
        model: &provenance.model,
        device: &device,
        prompt: args.prompt.as_deref(),
        tokens_cut: made.tokens_cut,
        seed: args.seed,
        steps: made.steps,
        frames: animation.frames().len(),
        width: size.width,
        height: size.height,
        load_s,
        parts: Parts::from(&made.timings),
        write_s: started.elapsed().as_secs_f64(),
    };
    if report.tokens_cut > 0 {
        screen.warn(&format!(
            "the last {} tokens of the prompt found no room and were not read",
            report.tokens_cut
        ));
    }
    if screen.json { screen.print_json(&report) } else { screen.print(&report.text()) }
}

/// What a model made.
struct Ready {
    load_s: f64,
    size: Size,
    device: String,
    model: String,
    rate: u16,
    made: Generated,
}

/// With a model that takes prompts.
fn animated(
    folder: &Path,
    args: &WorkerArgs,
    image: Option<Picture>,
    screen: &Screen,
) -> Result<Ready, Failure> {
    let Some(prompt) = args.prompt.clone() else {
        return Err(misused("this model takes a prompt", "say what is to be seen with --prompt"));
    };
    if args.motion.is_some() || args.noise.is_some() || args.decode_frames.is_some() {
        let help = "leave out --motion, --noise and --decode-frames, or name an image-to-video model";
        return Err(misused("this model is no image-to-video model", help));
    }
    let started = Instant::now();
    let (mut generator, note) = {
        let _loading = Progress::spinner(screen, &format!("loading {}", folder.display()));
        let Opened { backend, note, .. } = args.parts.device.open()?;
        (Generator::new(&args.parts.source(folder), backend)?, note)
    };
    note.iter().for_each(|note| screen.note(note));
    let load_s = started.elapsed().as_secs_f64();
    let side = generator.side_usual();
    let size = args.size.unwrap_or(Size { width: side, height: side });
    let strength = args.strength.unwrap_or(STRENGTH_DEFAULT);
    let request = Request {
        prompt,
        seed: args.seed,
        steps: args.steps,
        frames: args.frames.unwrap_or_else(|| generator.frames_usual()),
        width: size.width,
        height: size.height,
        guidance: args.parts.guidance.unwrap_or_else(|| generator.guidance_usual()),
        start: image.map(|picture| Start { picture, strength }),
        sampler: args.parts.sampler,
    };
    let progress = Progress::steps(screen, "steps", u64::from(args.steps));
    let made = generator.generate(&request, &mut |at| told(&progress, at), &CancelToken::new())?;
    drop(progress);
    let model = generator.model().name.clone();
    let rate = args.rate.unwrap_or(RATE_DEFAULT);
    Ok(Ready { load_s, size, device: generator.device(), model, rate, made })
}

/// With an image-to-video model.
fn filmed(
    folder: &Path,
    args: &WorkerArgs,
    image: Option<Picture>,
    screen: &Screen,
) -> Result<Ready, Failure> {
    let Some(picture) = image else {
        return Err(misused("this model makes clips of a picture", "name one with --image"));
    };
    if args.prompt.is_some() || args.strength.is_some() {
        let help = "leave out --prompt and --strength; --motion and --noise say how much moves";
        return Err(misused("this model takes a picture alone", help));
    }
    let started = Instant::now();
    let (mut generator, note) = {
        let _loading = Progress::spinner(screen, &format!("loading {}", folder.display()));
        let Opened { backend, note, .. } = args.parts.device.open()?;
        (VideoGenerator::new(&args.parts.source(folder), backend)?, note)
    };
    note.iter().for_each(|note| screen.note(note));
    let load_s = started.elapsed().as_secs_f64();
    let model = generator.model();
    let (width, height) = model.size_usual();
    let Size { width, height } = args.size.unwrap_or(Size { width, height });
    let rate = args.rate.unwrap_or(RATE_USUAL);
    let request = VideoRequest {
        picture,
        seed: args.seed,
        steps: args.steps,
        frames: args.frames.unwrap_or(model.unet.frames),
        width,
        height,
        rate: rate.into(),
        motion: args.motion.unwrap_or(MOTION_USUAL),
        noise: args.noise.unwrap_or(NOISE_USUAL),
        guidance: args.parts.guidance.unwrap_or(1.0),
        decode_frames: args.decode_frames.unwrap_or(DECODE_FRAMES_USUAL),
        sampler: args.parts.sampler,
    };
    let progress = Progress::steps(screen, "steps", u64::from(args.steps));
    let made = generator.generate(&request, &mut |at| told(&progress, at), &CancelToken::new())?;
    drop(progress);
    let model = generator.model().name.clone();
    Ok(Ready { load_s, size: Size { width, height }, device: generator.device(), model, rate, made })
}

/// Shows where a request stands.
fn told(progress: &Progress, at: generate::Progress) {
    match at {
        generate::Progress::Conditioned => progress.reach("steps", 0, 1),
        generate::Progress::Step { done, of } => progress.reach("steps", done.into(), of.into()),
        generate::Progress::Frame { done, of } => progress.reach("frames", done.into(), of.into()),
    }
}

/// Flags that do not go with the model.
fn misused(message: &str, help: &str) -> Failure {
    Failure::new(Status::Usage, "worker::flags", message.to_owned()).with_help(help)
}

impl Made<'_> {
    fn text(&self) -> String {
        let Self { out, frames, width, height, model, device, seed, parts, .. } = self;
        let (out, frames_word) = (out.display(), if *frames == 1 { "frame" } else { "frames" });
        format!(
            "{out}: {frames} {frames_word} of {width} x {height}, seed {seed}, by {model} on {device}\nload {}, prepare {}, \
             text {}, encode {}, {} steps {}, decode {}, write {}\n",
            time(self.load_s),
            time(parts.prepare_s),
            time(parts.text_s),
            time(parts.encode_s),
            self.steps,
            time(parts.steps_s),
            time(parts.decode_s),
            time(self.write_s),
        )
    }
}

/// Writes the file, whole or not at all; gives its length.
fn write(
    animation: &Animation,
    format: Format,
    provenance: &Provenance,
    path: &Path,
) -> Result<u64, Failure> {
    let mut file = WholeFile::create(path)?;
    file.write(|out| animation.write(format, provenance, out))?;
    let bytes = std::fs::metadata(file.part()).map_or(0, |metadata| metadata.len());
    file.finish()?;
    Ok(bytes)
}
