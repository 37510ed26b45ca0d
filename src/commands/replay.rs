//! `headroom replay`: does a journal decide alike again, and what would another policy have done with its traffic?

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use control::replay::{Difference, Verdict, verify};
use serde::Serialize;

use super::beside::{self, Side};
use super::day::{Day, replay_failure};
use super::played::{Names, played};
use crate::failure::{Failure, Status};
use crate::numerals::{figure, time};
use crate::screen::Screen;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom replay headroom-data                                       the same decisions?
  headroom replay headroom-data --set policy.scaling.kind=static      what would that have done?
  headroom replay headroom-data --policy cautious.toml --json

The journal may be in use: it is only read. With --policy or --set the day's arrivals are simulated with its measured service
and start-up times, once as it was and once changed; compare those two, and the live day with the first, to see how far the
simulation is to be trusted.";

/// Replications of a recorded day where nothing else is said.
pub(super) const REPLICATIONS: u32 = 10;

/// `headroom replay`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReplayArgs {
    /// Data folder of a plane, or its journal.
    #[arg(value_name = "JOURNAL")]
    journal: PathBuf,
    /// A file with what is different, such as a [policy] table; laid over the scenario that was served.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Change one value of the scenario that was served, e.g. `fleet.pool.main.count=8`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The scenario that was served; needed where the data folder does not say it.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Simulated repetitions of the day.
    #[arg(long, value_name = "N", default_value_t = REPLICATIONS, value_parser = clap::value_parser!(u32).range(1..))]
    replications: u32,
    /// Threads for replications. Default: all cores.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

#[derive(Serialize)]
struct Told {
    is_same: bool,
    /// Before the first command that is kept.
    commands_forgotten: u64,
    commands: u64,
    batches: u64,
    batches_compared: u64,
    effects_compared: u64,
    rows_compared: u64,
    jobs_compared: u64,
    planes: u64,
    from_s: f64,
    to_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<ToldDifference>,
}

#[derive(Serialize)]
struct ToldDifference {
    command: u64,
    at_s: f64,
    what: String,
}

impl From<&Verdict> for Told {
    fn from(verdict: &Verdict) -> Self {
        let told = |difference: &Difference| ToldDifference {
            command: difference.command,
            at_s: difference.at.as_secs_f64(),
            what: difference.what.clone(),
        };
        Self {
            is_same: verdict.difference.is_none(),
            commands_forgotten: verdict.forgotten,
            commands: verdict.commands,
            batches: verdict.batches,
            batches_compared: verdict.batches_compared,
            effects_compared: verdict.effects_compared,
            rows_compared: verdict.rows_compared,
            jobs_compared: verdict.jobs_compared,
            planes: verdict.epochs,
            from_s: verdict.first.unwrap_or_default().as_secs_f64(),
            to_s: verdict.last.as_secs_f64(),
            difference: verdict.difference.as_ref().map(told),
        }
    }
}

#[derive(Serialize)]
struct WhatIf {
    live: Side,
    /// The same policy, simulated.
    as_it_was: Side,
    what_if: Side,
    notes: Vec<String>,
}

/// Runs `headroom replay`.
pub(crate) fn run(args: &ReplayArgs, screen: &Screen) -> Result<(), Failure> {
    let mut day = Day::open(&args.journal, args.scenario.as_deref(), screen)?;
    if args.policy.is_some() || !args.set.is_empty() {
        return what_if(args, day, screen);
    }
    let verdict = verify(&mut day.store, &day.origins).map_err(replay_failure)?;
    if screen.json {
        screen.print_json(&Told::from(&verdict))?;
    } else {
        screen.print(&text(&verdict))?;
    }
    match &verdict.difference {
        None => Ok(()),
        Some(_) => {
            Err(Failure::new(Status::Failed, "replay::difference", "the journal gives other decisions")
                .with_help(
                    "replay it with the release that wrote it; if that says the same, please report it",
                ))
        }
    }
}

fn text(verdict: &Verdict) -> String {
    let length = verdict.last.since(verdict.first.unwrap_or_default()).as_secs_f64();
    let mut text = format!(
        "{} commands of {} planes over {}, in {} batches\n",
        figure(verdict.commands as f64),
        verdict.epochs,
        time(length),
        figure(verdict.batches as f64),
    );
    if verdict.forgotten > 0 {
        let count = figure(verdict.forgotten as f64);
        text += &format!(
            "the {count} commands before are no longer kept: it begins with the image behind them\n"
        );
    }
    text += &format!(
        "compared: {} effects, {} decisions, minutes and ended instances, {} ended jobs\n",
        figure(verdict.effects_compared as f64),
        figure(verdict.rows_compared as f64),
        figure(verdict.jobs_compared as f64),
    );
    if verdict.batches_compared < verdict.batches {
        let older = verdict.batches - verdict.batches_compared;
        text += &format!(
            "{older} batches are from a release that noted no effects: their ended jobs were compared\n"
        );
    }
    text += &match &verdict.difference {
        None => "the same decisions\n".to_owned(),
        Some(difference) => format!(
            "DIFFERENT from command {} at {:.6} s on: {}\n",
            difference.command,
            difference.at.as_secs_f64(),
            difference.what
        ),
    };
    text
}

fn what_if(args: &ReplayArgs, mut day: Day, screen: &Screen) -> Result<(), Failure> {
    // Both are read before the journal is: a mistake is told at once.
    let was = day.served.load(None, &[])?;
    let changed = day.served.load(args.policy.as_deref(), &args.set)?;
    let traffic = day.traffic()?;
    let names = Names { recorded: day.recorded() };
    let simulate = |mut scenario: scenarios::scenario::Scenario| {
        scenario.run.replications = args.replications;
        let played = played(scenario, &traffic, &names, true)
            .map_err(|message| Failure::new(Status::InvalidInput, "replay::names", message))?;
        Ok::<_, Failure>((beside::simulate(&played, args.threads)?, played.notes))
    };
    let deadline = changed.objective.deadline;
    let (as_it_was, _) = simulate(was)?;
    let (what_if, notes) = simulate(changed)?;
    let live = Side::live(&traffic, day.recorded(), deadline);
    notes.iter().for_each(|note| screen.note(note));
    if screen.json {
        return screen.print_json(&WhatIf { live, as_it_was, what_if, notes });
    }
    screen.print(&beside::text(&["live", "as it was", "what if"], &[&live, &as_it_was, &what_if], false))
}
