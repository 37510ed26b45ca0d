//! `headroom simulate`: one scenario as it is written, so many replications.

use std::path::Path;
use std::time::Instant;

use reports::parquet::{Origin, Provenance, RunRecords, write_run};
use scenarios::Loaded;
use sim::experiment::{self, Experiment, RunOptions};
use sim::outcome::Outcome;
use sim::replication::Keep;
use sim::summary::{Summary, summarize};

use super::inputs::{load_inputs, load_scenario};
use super::result_folder::ResultFolder;
use super::run_args::{RunArgs, SimulateArgs};
use super::summary_text;
use crate::failure::{Failure, Status};
use crate::progress::Progress;
use crate::screen::Screen;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom simulate launch.toml
  headroom simulate launch.toml --json --replications 20
  headroom simulate launch.toml --trace requests.csv --spot-trace zones/
  headroom simulate launch.toml --set fleet.pool.main.count=40 --out results/";

/// Runs `headroom simulate`.
pub(crate) fn run(args: &SimulateArgs, screen: &Screen) -> Result<(), Failure> {
    let loaded = load_scenario(&args.file, &args.run.overrides, screen)?;
    let folder = args.run.out.as_deref().map(ResultFolder::create).transpose()?;
    let keep = if folder.is_some() { Keep::Records } else { Keep::Statistics };
    let (experiment, summary) = simulate(&loaded, &args.run, keep, screen)?;
    if let Some(folder) = folder {
        write_results(&folder, &args.file, &loaded, &experiment.outcomes[0], &summary)?;
        finish(folder, args.run.out.as_deref(), screen)?;
    }
    if screen.json { screen.print_json(&summary) } else { screen.print(&summary_text::summary(&summary)) }
}

/// Runs a scenario and summarises it, with the time and the memory it took.
///
/// # Errors
/// What keeps the scenario from running.
pub(crate) fn simulate(
    loaded: &Loaded,
    args: &RunArgs,
    keep: Keep,
    screen: &Screen,
) -> Result<(Experiment, Summary), Failure> {
    let inputs = load_inputs(&loaded.scenario)?;
    let options = RunOptions { threads: threads(args), keep };
    let progress =
        Replications(Progress::steps(screen, "replications", u64::from(loaded.scenario.run.replications)));
    let started = Instant::now();
    let experiment = experiment::run(&loaded.scenario, &inputs, options, &progress)?;
    let mut summary = summarize(&loaded.scenario, &experiment);
    summary.engine.wall_s = started.elapsed().as_secs_f64();
    summary.engine.events_per_s = summary.engine.events as f64 / summary.engine.wall_s.max(1e-9);
    summary.engine.peak_rss_bytes = peak_rss_bytes();
    Ok((experiment, summary))
}

/// Threads to run on.
pub(crate) fn threads(args: &RunArgs) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    args.threads.map_or_else(cores, std::num::NonZeroUsize::get)
}

struct Replications(Progress);

impl experiment::Progress for Replications {
    fn replications(&self, _done: u64, _total: u64) {
        self.0.advance(1);
    }
}

/// Most memory this process has held, bytes; zero where the system does not tell.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Writes the records of the replication `first`, the summary, the resolved scenario and the chart of the load.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write_results(
    folder: &ResultFolder,
    file: &Path,
    loaded: &Loaded,
    first: &Outcome,
    summary: &Summary,
) -> Result<(), Failure> {
    let provenance = Provenance {
        origin: Origin::Simulated,
        facts: vec![
            ("scenario".to_owned(), summary.scenario.clone()),
            ("scenario_sha256".to_owned(), summary.scenario_sha256.clone()),
            ("seed".to_owned(), summary.seed.to_string()),
            ("replication".to_owned(), "0".to_owned()),
            ("version".to_owned(), summary.version.to_owned()),
        ],
    };
    let records = RunRecords {
        provenance: &provenance,
        jobs: &first.records.jobs,
        minutes: &first.records.minutes,
        instances: &first.records.instances,
        decisions: &first.records.decisions,
        charges: first.ledger.rows(),
    };
    write_run(folder.staged(), &records)?;
    let summary = serde_json::to_string_pretty(summary).map_err(Failure::json)?;
    folder.add_text("summary.json", &format!("{summary}\n"))?;
    folder.add_text("scenario.toml", &with_whole_paths(&loaded.resolved_toml, file))?;
    if !first.records.minutes.is_empty() {
        let chart = reports::chart::load_chart(&loaded.scenario.name, &first.records.minutes)
            .map_err(|error| Failure::new(Status::Failed, "output::chart", error.to_string()))?;
        folder.add_text("load.svg", &chart)?;
    }
    Ok(())
}

/// Puts the results in their place and says so.
///
/// # Errors
/// A file cannot take its name.
pub(crate) fn finish(folder: ResultFolder, place: Option<&Path>, screen: &Screen) -> Result<(), Failure> {
    folder.finish()?;
    if let Some(place) = place {
        screen.note(&format!("wrote records, summary and charts to {}", place.display()));
    }
    Ok(())
}

/// The resolved scenario with the files that it names relative to `file` named whole: it is read elsewhere.
pub(crate) fn with_whole_paths(resolved: &str, file: &Path) -> String {
    let folder = file.parent().and_then(|folder| std::path::absolute(folder).ok()).unwrap_or_default();
    let folder =
        if folder.as_os_str().is_empty() { std::env::current_dir().unwrap_or_default() } else { folder };
    let whole = |line: &str| {
        let text = line.strip_prefix("path = ").and_then(|value| serde_json::from_str::<String>(value).ok());
        match text.filter(|path| Path::new(path).is_relative()) {
            Some(path) => {
                format!("path = {}\n", serde_json::Value::from(folder.join(path).display().to_string()))
            }
            None => format!("{line}\n"),
        }
    };
    resolved.lines().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_become_whole_and_nothing_else_changes() {
        let check = |line: &str, expected: &str| {
            assert_eq!(with_whole_paths(line, Path::new("/a/b.toml")), format!("{expected}\n"));
        };
        check("path = \"t.csv\"", "path = \"/a/t.csv\"");
        check("path = \"/x/t.csv\"", "path = \"/x/t.csv\"");
        check("name = \"t.csv\"", "name = \"t.csv\"");
    }
}
