//! `headroom simulate`: one scenario as it is written, so many replications.

use std::path::Path;
use std::time::Instant;

use reports::parquet::{Origin, Provenance, RunRecords, write_run};
use scenarios::Loaded;
use sim::experiment::{self, Experiment, RunOptions};
use sim::replication::Keep;
use sim::summary::{Summary, summarize};

use super::inputs::{load_inputs, load_scenario};
use super::run_args::{RunArgs, SimulateArgs};
use super::summary_text;
use crate::failure::{Failure, Status};
use crate::progress::Progress;
use crate::screen::Screen;
use crate::whole_file::WholeFile;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom simulate launch.toml
  headroom simulate launch.toml --json --replications 20
  headroom simulate launch.toml --trace requests.csv --spot-trace zones/
  headroom simulate launch.toml --set fleet.pool.main.count=40 --out results/";

/// Runs `headroom simulate`.
pub(crate) fn run(args: &SimulateArgs, screen: &Screen) -> Result<(), Failure> {
    let loaded = load_scenario(&args.file, &args.run.overrides, screen)?;
    let keep = if args.run.out.is_some() { Keep::Records } else { Keep::Statistics };
    let (experiment, summary) = simulate(&loaded, &args.run, keep, screen)?;
    if let Some(folder) = &args.run.out {
        write_results(folder, &loaded, &experiment, &summary, screen)?;
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
    let progress = Replications(Progress::steps(screen, "replications", u64::from(loaded.scenario.run.replications)));
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

/// Writes the records of the first replication, the summary, the resolved scenario and the chart of the load.
pub(crate) fn write_results(
    folder: &Path,
    loaded: &Loaded,
    experiment: &Experiment,
    summary: &Summary,
    screen: &Screen,
) -> Result<(), Failure> {
    let first = &experiment.outcomes[0];
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
    write_run(folder, &records)?;
    let summary = serde_json::to_string_pretty(summary).map_err(Failure::json)?;
    write_text(&folder.join("summary.json"), &format!("{summary}\n"))?;
    write_text(&folder.join("scenario.toml"), &loaded.resolved_toml)?;
    if !first.records.minutes.is_empty() {
        let chart = reports::chart::load_chart(&loaded.scenario.name, &first.records.minutes)
            .map_err(|error| Failure::new(Status::Failed, "output::chart", error.to_string()))?;
        write_text(&folder.join("load.svg"), &chart)?;
    }
    screen.note(&format!("wrote records, summary and chart to {}", folder.display()));
    Ok(())
}

/// Writes a text file whole or not at all.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = WholeFile::create(path)?;
    file.write(|out| out.write_all(text.as_bytes()))?;
    Ok(file.finish()?)
}
