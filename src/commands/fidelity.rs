//! `headroom fidelity`: how far is the simulator from what a live plane did?

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use control::replay::Traffic;
use policy::model::System;
use serde::Serialize;

use super::beside::{self, Errors, Side};
use super::day::Day;
use super::inputs::load_scenario;
use super::played::{Names, played};
use super::replay::REPLICATIONS;
use super::run_args::OverrideArgs;
use crate::failure::{Failure, Status};
use crate::screen::Screen;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom fidelity headroom-data                          the scenario's own service times
  headroom fidelity headroom-data --measured               those that were measured
  headroom fidelity headroom-data --scenario plan.toml --json

The day's arrivals are simulated; everything else comes from the scenario. A difference is the scenario's error and the
simulator's together; with --measured it is the simulator's alone.";

/// `headroom fidelity`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FidelityArgs {
    /// Data folder of a plane, or its journal.
    #[arg(value_name = "JOURNAL")]
    journal: PathBuf,
    /// Simulate this scenario instead of the one that was served.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Take service and start-up times as they were measured.
    #[arg(long)]
    measured: bool,
    /// Simulated repetitions of the day.
    #[arg(long, value_name = "N", default_value_t = REPLICATIONS, value_parser = clap::value_parser!(u32).range(1..))]
    replications: u32,
    /// Threads for replications. Default: all cores.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// A live day beside a simulated one.
#[derive(Serialize)]
pub(super) struct Fidelity {
    pub(super) scenario: String,
    /// Whether service times were measured ones.
    pub(super) is_measured: bool,
    pub(super) live: Side,
    pub(super) simulated: Side,
    /// The simulated figure over the live one, less 1.
    pub(super) errors: Errors,
    pub(super) notes: Vec<String>,
}

/// Runs `headroom fidelity`.
pub(crate) fn run(args: &FidelityArgs, screen: &Screen) -> Result<(), Failure> {
    let mut day = Day::open(&args.journal, args.scenario.as_deref(), screen)?;
    let mut scenario = match &args.scenario {
        Some(file) if day.starts > 0 => load_scenario(file, &OverrideArgs::default(), screen)?.scenario,
        _ => day.served.load(None, &[])?,
    };
    scenario.run.replications = args.replications;
    let found = compare(&day.traffic()?, day.recorded(), scenario, args.measured, args.threads)?;
    found.show(["live", "simulated"], screen)
}

/// Simulates a day and compares.
///
/// # Errors
/// The scenario cannot play it.
pub(super) fn compare(
    traffic: &Traffic,
    recorded: &System,
    scenario: scenarios::scenario::Scenario,
    is_measured: bool,
    threads: Option<NonZeroUsize>,
) -> Result<Fidelity, Failure> {
    let live = Side::live(traffic, recorded, scenario.objective.deadline);
    let name = scenario.name.clone();
    let played = played(scenario, traffic, &Names { recorded }, is_measured)
        .map_err(|message| Failure::new(Status::InvalidInput, "fidelity::names", message))?;
    let simulated = beside::simulate(&played, threads)?;
    let errors = Errors::of(&live, &simulated);
    Ok(Fidelity { scenario: name, is_measured, live, simulated, errors, notes: played.notes })
}

impl Fidelity {
    /// Prints it, under these names of the columns.
    ///
    /// # Errors
    /// Stdout takes nothing.
    pub(super) fn show(&self, names: [&'static str; 2], screen: &Screen) -> Result<(), Failure> {
        self.notes.iter().for_each(|note| screen.note(note));
        if screen.json {
            return screen.print_json(self);
        }
        screen.print(&beside::text(&names, &[&self.live, &self.simulated], true))
    }
}
