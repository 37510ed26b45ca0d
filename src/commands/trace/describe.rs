//! `headroom trace describe`: what a trace, a folder of traces, spot capacity or spot prices are like.

use std::path::{Path, PathBuf};

use clap::Args;
use scenarios::trace::{ClientRates, Description, Survey, TraceFormat};

use super::mapping_args::{MappingArgs, advised};
use super::portrait;
use crate::commands::parquet_rows::is_parquet;
use crate::failure::{Failure, Status};
use crate::screen::Screen;

const EXAMPLES: &str = "\
Examples:
  headroom trace describe requests.csv
  headroom trace describe log.csv --time at --time-unit ms
  headroom trace describe spot-zones/ --json

Public formats are known by their content: Alibaba GenAI, Azure LLM, ServeGen, World Cup 98, NAB, SkyPilot spot
availability, AWS spot prices and Spot Advisor.";

/// Most files of a folder.
const FILES_MAX: usize = 10_000;

/// Endings of files that may hold a trace; all but the last also with `.gz`.
const ENDINGS: [&str; 5] = ["csv", "jsonl", "ndjson", "json", "parquet"];

#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// A trace (CSV, JSON lines, JSON, gzipped or not, or Parquet), or a folder of them.
    #[arg(value_name = "FILE_OR_DIR")]
    path: PathBuf,
    #[command(flatten)]
    mapping: MappingArgs,
}

/// What was found, with the course of the rate at the width of the screen.
pub(super) enum Found {
    Trace(Box<Description>, Vec<Option<f64>>),
    Other(Survey),
}

pub(crate) fn run(args: &DescribeArgs, screen: &Screen) -> Result<(), Failure> {
    if !args.path.is_dir() {
        let found = describe(&args.path, &args.mapping, screen)?;
        return show(&found, screen);
    }
    let files = files_in(&args.path)?;
    let width = portrait::spark_width(screen);
    let (mut described, mut failures) = (Vec::new(), Vec::new());
    for file in &files {
        match describe(file, &args.mapping, screen) {
            Ok(found) => described.push(found),
            Err(failure) => failures.push(failure),
        }
    }
    let zones = described.iter().all(|found| matches!(found, Found::Other(Survey::Spot(_))));
    if zones && failures.is_empty() {
        // Zones are described together: how they move with each other matters most.
        let survey =
            Survey::of(&args.path, &args.mapping.options()).map_err(|error| advised(error.into()))?;
        return show(&Found::Other(survey), screen);
    }
    if screen.json {
        screen.print_json(&described.iter().map(survey_of).collect::<Vec<_>>())?;
    } else {
        let texts: Vec<String> = described.iter().map(|found| portrait::text(found, screen, width)).collect();
        screen.print(&texts.join("\n"))?;
    }
    Failure::all(failures)
}

fn show(found: &Found, screen: &Screen) -> Result<(), Failure> {
    match found {
        _ if screen.json => screen.print_json(&survey_of(found)),
        found => screen.print(&portrait::text(found, screen, portrait::spark_width(screen))),
    }
}

fn survey_of(found: &Found) -> Survey {
    match found {
        Found::Trace(description, _) => Survey::Trace(description.clone()),
        Found::Other(survey) => survey.clone(),
    }
}

fn describe(path: &Path, mapping: &MappingArgs, screen: &Screen) -> Result<Found, Failure> {
    let width = portrait::spark_width(screen);
    match mapping.read(path, screen) {
        Ok(trace) => {
            let description = match trace.source.format {
                TraceFormat::ServegenClients => ClientRates::read(path)?.describe()?,
                _ => trace.describe(),
            };
            Ok(Found::Trace(Box::new(description), trace.profile(width)))
        }
        Err(failure) if failure.mistakes().iter().any(|mistake| mistake.code == "trace::wrong-kind") => {
            let survey = Survey::of(path, &mapping.options()).map_err(|error| advised(error.into()))?;
            Ok(Found::Other(survey))
        }
        Err(failure) => Err(failure),
    }
}

/// Files of a folder that may hold a trace, in order of name.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |error: std::io::Error| {
        let message = format!("could not read folder `{}`: {error}", folder.display());
        Failure::new(Status::InvalidInput, "trace::read", message)
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_file() && (has_trace_ending(&path) || is_parquet(&path)) {
            files.push(path);
        }
    }
    if files.is_empty() || files.len() > FILES_MAX {
        let message = match files.len() {
            0 => format!("folder `{}` holds no trace", folder.display()),
            count => format!("folder `{}` holds {count} files, more than {FILES_MAX}", folder.display()),
        };
        return Err(Failure::new(Status::InvalidInput, "trace::empty-folder", message).with_help(
            "name a trace, or a folder with .csv, .jsonl, .json or .parquet files; sub-folders are not read",
        ));
    }
    files.sort();
    Ok(files)
}

fn has_trace_ending(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ending = |name: &str| name.rsplit_once('.').map(|(_, ending)| ending.to_owned());
    ending(name.trim_end_matches(".gz")).is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_tell_what_may_be_a_trace() {
        let check = |name: &str, expected| assert_eq!(has_trace_ending(Path::new(name)), expected, "{name}");
        check("a.csv", true);
        check("a.CSV.gz", true);
        check("a.parquet", true);
        check("README.md", false);
        check("csv", false);
    }
}
