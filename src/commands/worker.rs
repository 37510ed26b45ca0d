//! `headroom worker --once`: one request on this machine, from a prompt to a file that plays.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use gpu_runtime::generate::{CancelToken, Request, Start, Timings};
use gpu_runtime::picture::{Animation, Format, FrameRate, Picture, Provenance, ReadLimits};
use serde::Serialize;

use super::animator::{Animator, told};
use super::model_args::{ModelArgs, Size, size};
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

The ending of --out chooses the format: png and apng are the same and lossless, webp is lossless, gif has 256 colours.
Metadata say that the picture was generated, by which model, with which seed.";

/// Frames a second, unless said otherwise; what motion models were trained with.
const RATE_DEFAULT: u16 = 8;

/// `headroom worker`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WorkerArgs {
    /// Make one animation and end.
    #[arg(long, required = true)]
    once: bool,
    /// Folder of the model, in the diffusers layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What is to be seen.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Start from this picture (PNG, JPEG or WebP), cut to the shape of the frames.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// How far from the start picture: near 0 keeps it, 1 forgets it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, requires = "image")]
    strength: f64,
    /// Seed of the noise.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Denoising steps.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Frames. Default: 16, or as many as the model can; 1 without motion modules.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    frames: Option<u32>,
    /// Pixels, e.g. `512` or `512x768`. Default: what the model was trained for.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<Size>,
    /// Frames a second.
    #[arg(long, value_name = "N", default_value_t = RATE_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=100))]
    rate: u16,
    /// File to write: png, apng, gif or webp.
    #[arg(long, value_name = "FILE", default_value = "animation.png")]
    out: PathBuf,
    #[command(flatten)]
    parts: ModelArgs,
}

/// What was made, for programs.
#[derive(Serialize)]
struct Made<'a> {
    out: &'a Path,
    bytes: u64,
    media_type: &'static str,
    model: &'a str,
    device: &'a str,
    prompt: &'a str,
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
    let format = Format::of(&args.out).ok_or_else(|| {
        let message = format!("`{}` names no format for animations", args.out.display());
        Failure::new(Status::Usage, "worker::format", message)
            .with_help("end it with .png, .apng, .gif or .webp")
    })?;
    let image =
        args.image.as_ref().map(|path| Picture::read_file(path, ReadLimits::default())).transpose()?;
    let started = Instant::now();
    let mut animator = {
        let _loading = Progress::spinner(screen, &format!("loading {}", args.model.display()));
        Animator::open(&args.model, &args.parts)?
    };
    animator.note.iter().for_each(|note| screen.note(note));
    let load_s = started.elapsed().as_secs_f64();
    let size = args.size.unwrap_or_else(|| animator.size_default());
    let request = Request {
        prompt: args.prompt.clone(),
        seed: args.seed,
        steps: args.steps,
        frames: args.frames.unwrap_or_else(|| animator.frames_default()),
        width: size.width,
        height: size.height,
        guidance: animator.guidance(&args.parts),
        start: image.map(|picture| Start { picture, strength: args.strength }),
        sampler: args.parts.sampler,
    };
    let progress = Progress::steps(screen, "steps", u64::from(args.steps));
    let made = animator.generator.generate(&request, &mut |at| told(&progress, at), &CancelToken::new())?;
    drop(progress);
    let provenance = Provenance {
        model: animator.generator.model().name.clone(),
        seed: args.seed,
        steps: made.steps,
        program: concat!("headroom ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let animation = Animation::new(made.frames, FrameRate::new(args.rate, 1));
    let started = Instant::now();
    let bytes = write(&animation, format, &provenance, &args.out)?;
    let report = Made {
        out: &args.out,
        bytes,
        media_type: format.media_type(),
        model: &provenance.model,
        device: &animator.device,
        prompt: &args.prompt,
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
