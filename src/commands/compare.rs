//! `headroom compare`: scenarios side by side on the same chance, with paired intervals.

use std::path::PathBuf;

use scenarios::Loaded;
use serde::Serialize;
use sim::experiment::Experiment;
use sim::outcome::Outcome;
use sim::replication::Keep;
use sim::stats::{Confidence, Interval};
use sim::summary::{Ci, Summary};

use super::inputs::load_scenario;
use super::run_args::CompareArgs;
use super::simulate::simulate;
use super::summary_text::{dollars, range, share, stated};
use crate::failure::{Failure, Status};
use crate::numerals::time;
use crate::screen::Screen;
use crate::table::{Align, Table};

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom compare before.toml after.toml
  headroom compare a.toml b.toml c.toml --replications 20 --json

The first scenario is what the others are compared with. All see the same arrivals and the same chance.";

/// One scenario beside the first.
#[derive(Serialize)]
struct Compared {
    summary: Summary,
    /// This scenario's figure less the first one's, paired by replication; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Differences>,
}

/// Differences to the first scenario.
#[derive(Serialize)]
struct Differences {
    /// Dollars.
    cost_usd: Option<Ci>,
    /// Share of the first one's cost; none where that costs nothing.
    cost_ratio: Option<f64>,
    /// Seconds.
    latency_p95_s: Option<Ci>,
    /// Share of jobs.
    on_time_ratio: Option<Ci>,
}

/// Runs `headroom compare`.
pub(crate) fn run(args: &CompareArgs, screen: &Screen) -> Result<(), Failure> {
    if args.files.len() < 2 {
        let message = "one scenario alone cannot be compared";
        return Err(Failure::new(Status::Usage, "compare::one-scenario", message)
            .with_help("name two or more: headroom compare before.toml after.toml"));
    }
    if args.run.out.is_some() {
        return Err(Failure::new(Status::Usage, "compare::out", "compare writes no records")
            .with_help("run each scenario: headroom simulate SCENARIO --out DIR"));
    }
    // All are read before the first runs: a mistake in the last one is told at once.
    let read = |file: &PathBuf| load_scenario(file, &args.run.overrides, screen);
    let scenarios: Vec<Loaded> = args.files.iter().map(read).collect::<Result<_, _>>()?;
    let level = scenarios[0].scenario.run.confidence;
    let simulated = |loaded: &Loaded| simulate(loaded, &args.run, Keep::Statistics, screen);
    let results: Vec<(Experiment, Summary)> = scenarios.iter().map(simulated).collect::<Result<_, _>>()?;
    let first = results[0].0.outcomes.as_slice();
    let base = results[0].1.cost_usd.total;
    let compared: Vec<Compared> = results
        .iter()
        .enumerate()
        .map(|(index, (experiment, summary))| Compared {
            summary: summary.clone(),
            difference: (index > 0).then(|| Differences {
                cost_usd: paired(first, &experiment.outcomes, level, Outcome::cost),
                cost_ratio: (base > 0.0).then(|| summary.cost_usd.total / base),
                latency_p95_s: paired(first, &experiment.outcomes, level, |outcome| {
                    outcome.latency.quantile(0.95).unwrap_or(0) as f64 * 1e-9
                }),
                on_time_ratio: paired(first, &experiment.outcomes, level, |outcome| {
                    outcome.jobs.share(outcome.jobs.on_time)
                }),
            }),
        })
        .collect();
    if screen.json { screen.print_json(&compared) } else { screen.print(&text(&compared, level)) }
}

/// Interval of the second less the first, paired by replication.
fn paired(first: &[Outcome], second: &[Outcome], level: f64, of: impl Fn(&Outcome) -> f64) -> Option<Ci> {
    let n = first.len().min(second.len());
    let values = |outcomes: &[Outcome]| outcomes[..n].iter().map(&of).collect::<Vec<f64>>();
    let interval =
        Interval::of_difference(&values(second), &values(first), Confidence::new(level).ok()?).ok()?;
    Some(Ci { mean: interval.mean, low: interval.low, high: interval.high })
}

fn text(compared: &[Compared], level: f64) -> String {
    let mut table = Table::new(&[
        ("scenario", Align::Left),
        ("cost", Align::Right),
        ("per 1,000", Align::Right),
        ("on time", Align::Right),
        ("done", Align::Right),
        ("p50", Align::Right),
        ("p95", Align::Right),
        ("p99", Align::Right),
    ]);
    for row in compared {
        let summary = &row.summary;
        table.push(vec![
            summary.scenario.clone(),
            dollars(summary.cost_usd.total),
            dollars(summary.cost_per_1000_usd),
            share(summary.on_time_ratio),
            share(summary.success_ratio),
            time(summary.latency_s.p50),
            time(summary.latency_s.p95),
            time(summary.latency_s.p99),
        ]);
    }
    let mut text = table.text("");
    let signed = |value: f64| {
        let shown = dollars(value.abs());
        if value < 0.0 && shown != dollars(0.0) { format!("-{shown}") } else { shown }
    };
    let bounds = |ci: Ci, show: &dyn Fn(f64) -> String| {
        let text = range(ci.low, ci.high, show);
        text.map_or(String::new(), |text| format!(" ({text})"))
    };
    for row in compared {
        let Some(difference) = &row.difference else { continue };
        text += &format!("\n{} against {}", row.summary.scenario, compared[0].summary.scenario);
        if difference.cost_usd.is_some() {
            text += &format!(" (paired {} intervals)", stated(level));
        }
        let ratio = difference.cost_ratio.map(|ratio| format!("{:+.1} %", (ratio - 1.0) * 100.0));
        let cost = difference.cost_usd.map(|ci| format!("{} a run{}", signed(ci.mean), bounds(ci, &signed)));
        let cost: Vec<String> = ratio.into_iter().chain(cost).collect();
        text += &format!(":\n  cost     {}", cost.join(", "));
        if let Some(ci) = difference.latency_p95_s {
            let seconds = |value: f64| format!("{value:+.3} s");
            text += &format!("\n  p95      {}{}", seconds(ci.mean), bounds(ci, &seconds));
        }
        if let Some(ci) = difference.on_time_ratio {
            let points = |share: f64| format!("{:+.2}", share * 100.0);
            text += &format!("\n  on time  {} points{}", points(ci.mean), bounds(ci, &points));
        }
        text.push('\n');
    }
    text
}
