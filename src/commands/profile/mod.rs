//! `headroom profile`: what a model takes on this machine, as a part of a scenario; or a tiny model to try that with.

mod account;
mod measure;
mod page_cache;
mod spread;
mod subject;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gpu_runtime::generate;

use super::model_args::{ModelArgs, Size, size};
use crate::failure::Failure;
use crate::screen::Screen;
use crate::whole_file::WholeFile;
use account::Names;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom profile --make-tiny tiny
  headroom profile --make-tiny tiny-video --kind video
  headroom profile tiny --steps 8,4,2 --density 2 --out tiny.toml
  headroom profile tiny-video --frames 14 --steps 4,2
  headroom profile LCM_Dreamshaper_v7 --motion-adapter AnimateLCM --frames 16 --size 512 --steps 8,4 --out l4.toml

A scenario takes the file over with `extends = \"tiny.toml\"`; docs/profiles.md says what stands in it.";

/// Replicas at once; more fit on no GPU.
const DENSITY_MAX: i64 = 64;

/// `headroom profile`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProfileArgs {
    /// Folder of the model, in the diffusers layout.
    #[arg(value_name = "MODEL", required_unless_present = "make_tiny")]
    model: Option<PathBuf>,
    /// Write a tiny model with random weights into this new folder, and end.
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    make_tiny: Option<PathBuf>,
    /// What the tiny model makes of what.
    #[arg(long, value_enum, value_name = "KIND", default_value_t, requires = "make_tiny")]
    kind: TinyKind,
    /// Numbers of denoising steps: the levels of the quality ladder.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "8,4,2,1")]
    steps: Vec<NonZeroU32>,
    /// Numbers of frames; the stage of the scenario has the first. Default: 16, or as many as the model can.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    frames: Vec<NonZeroU32>,
    /// Sizes in pixels; the stage has the first. Default: what the model was trained for.
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = size)]
    size: Vec<Size>,
    /// Measure 1, 2, ... up to so many replicas at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=DENSITY_MAX))]
    density: u32,
    /// Requests of each kind, after one that is not counted.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repetitions: u32,
    /// Prompt of the requests; image-to-video models take none.
    #[arg(long, value_name = "TEXT", default_value = "a photo of the cat running")]
    prompt: String,
    /// Seed of the noise, and of the weights of --make-tiny.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Name of the stage.
    #[arg(long, value_name = "NAME", default_value = "animate", help_heading = "Scenario")]
    stage: String,
    /// Pool class that serves the stage.
    #[arg(long, value_name = "NAME", default_value = "gpu", help_heading = "Scenario")]
    pool: String,
    /// Write the profile into this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    parts: ModelArgs,
}

/// Kinds of tiny models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TinyKind {
    /// Pictures and animations of a prompt.
    #[default]
    Text,
    /// Clips of a picture.
    Video,
}

/// Runs `headroom profile`.
pub(crate) fn run(args: &ProfileArgs, screen: &Screen) -> Result<(), Failure> {
    let Some(model) = &args.model else {
        let folder = args.make_tiny.as_deref().expect("the parser demands one of the two");
        return make_tiny(folder, args.kind, args.seed, screen);
    };
    let profile = measure::profile(model, args, screen)?;
    let text = profile.toml(Names { stage: &args.stage, pool: &args.pool });
    if let Some(path) = &args.out {
        let mut file = WholeFile::create(path)?;
        file.write(|out| out.write_all(text.as_bytes()))?;
        file.finish()?;
    }
    match (screen.json, &args.out) {
        (true, _) => screen.print_json(&profile),
        (false, None) => screen.print(&text),
        (false, Some(path)) => {
            screen.note(&format!("wrote {}", path.display()));
            screen.print(&profile.tables())
        }
    }
}

/// Writes a tiny model into a folder that is absent or empty.
fn make_tiny(folder: &Path, kind: TinyKind, seed: u64, screen: &Screen) -> Result<(), Failure> {
    match kind {
        TinyKind::Text => generate::make_tiny(folder, seed)?,
        TinyKind::Video => generate::make_tiny_video(folder, seed)?,
    }
    if screen.json {
        return screen.print_json(&serde_json::json!({ "model": folder, "seed": seed }));
    }
    screen.print(&format!("{}\n", folder.display()))?;
    screen.note(
        "a tiny model with random weights: it makes noise, not pictures, but in the layout of real ones",
    );
    Ok(())
}
