//! `headroom trace fit`: the generator that stands in for a trace, as a section of a scenario.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::mapping_args::MappingArgs;
use super::source_section::section;
use crate::failure::Failure;
use crate::numerals::{figure, percent};
use crate::progress::Progress;
use crate::screen::Screen;
use crate::table::{Align, Table};

const EXAMPLES: &str = "\
Examples:
  headroom trace fit AzureLLMInferenceTrace_conv.csv
  headroom trace fit requests.csv >> scenario.toml

Goodness and warnings go to stderr. A fit that is warned about is worse than the trace: name the trace itself.";

#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct FitArgs {
    /// The trace: CSV, JSON lines (gzipped or not) or Parquet.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    mapping: MappingArgs,
}

/// The fit as programs read it.
#[derive(Serialize)]
struct FitRecord<'a> {
    name: &'a str,
    sha256: Option<&'a str>,
    #[serde(flatten)]
    fit: &'a scenarios::trace::Fit,
}

pub(crate) fn run(args: &FitArgs, screen: &Screen) -> Result<(), Failure> {
    let trace = args.mapping.read(&args.file, screen)?;
    let mut fit = {
        let _progress = Progress::spinner(screen, "fitting");
        trace.fit()
    };
    let source = &trace.source;
    fit.toml = section(&source.name, source.sha256.as_deref(), &fit);
    if screen.json {
        return screen.print_json(&FitRecord {
            name: &source.name,
            sha256: source.sha256.as_deref(),
            fit: &fit,
        });
    }
    screen.print(&fit.toml)?;
    let mut table = Table::new(&[
        ("kind", Align::Left),
        ("parameters", Align::Right),
        ("R2", Align::Right),
        ("AIC", Align::Right),
        ("", Align::Left),
    ]);
    for candidate in &fit.candidates {
        let decay = match candidate.shape {
            scenarios::trace::GeneratorShape::Viral { decay, .. } => format!(", {decay:?}").to_lowercase(),
            _ => String::new(),
        };
        let chosen = if candidate.shape == fit.shape { "chosen" } else { "" };
        table.push(vec![
            format!("{}{decay}", candidate.shape.kind()),
            candidate.parameters.to_string(),
            format!("{:.3}", (candidate.r2 * 1e3).round() / 1e3 + 0.0),
            format!("{:.0}", candidate.aic),
            chosen.to_owned(),
        ]);
    }
    screen.note("");
    screen.note(&table.text(""));
    screen.note(&format!(
        "explains {} of the variance of the rate on {} s bins; fitted peak {} times the measured one; counts about it \
         {} times as dispersed as Poisson",
        percent(fit.r2),
        figure(fit.bin_s),
        figure(fit.peak_ratio),
        figure(fit.dispersion_left)
    ));
    fit.warnings.iter().for_each(|warning| screen.warn(warning));
    Ok(())
}
