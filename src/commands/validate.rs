//! `headroom validate`: whether scenarios, and the files that they name, are right.

use std::path::{Path, PathBuf};

use clap::Args;
use policy::model::CapacityType;
use scenarios::scenario::Scenario;
use serde::Serialize;

use super::inputs::{load_inputs, load_scenario};
use super::run_args::OverrideArgs;
use crate::failure::{Failure, Mistake};
use crate::screen::Screen;

const EXAMPLES: &str = "\
Examples:
  headroom validate launch.toml
  headroom validate scenarios/*.toml --json
  headroom validate launch.toml --set fleet.pool.spot.count_max=200
  headroom validate launch.toml --trace requests.csv --spot-trace zones/

The files that a scenario names (traces, spot availability) are read, too.";

#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct ValidateArgs {
    /// The scenarios.
    #[arg(value_name = "SCENARIO", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArgs,
}

/// What is said about one file.
#[derive(Serialize)]
struct Verdict<'a> {
    file: String,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    errors: &'a [Mistake],
}

pub(crate) fn run(args: &ValidateArgs, screen: &Screen) -> Result<(), Failure> {
    let checked: Vec<(&Path, Result<Scenario, Failure>)> =
        args.files.iter().map(|file| (file.as_path(), check(file, args, screen))).collect();
    if screen.json {
        let verdicts: Vec<Verdict<'_>> = checked.iter().map(|(file, result)| verdict(file, result)).collect();
        screen.print_json(&serde_json::json!({ "files": verdicts }))?;
    } else {
        for (file, scenario) in
            checked.iter().filter_map(|(file, result)| Some((file, result.as_ref().ok()?)))
        {
            screen.print(&format!("{}: {}\n", file.display(), summary(scenario)))?;
        }
    }
    Failure::all(checked.into_iter().filter_map(|(_, result)| result.err()).collect())
}

fn check(file: &Path, args: &ValidateArgs, screen: &Screen) -> Result<Scenario, Failure> {
    let loaded = load_scenario(file, &args.overrides, screen)?;
    load_inputs(&loaded.scenario)?;
    Ok(loaded.scenario)
}

fn verdict<'a>(file: &Path, result: &'a Result<Scenario, Failure>) -> Verdict<'a> {
    let scenario = result.as_ref().ok();
    Verdict {
        file: file.display().to_string(),
        valid: scenario.is_some(),
        name: scenario.map(|scenario| scenario.name.as_str()),
        digest: scenario.map(|scenario| scenario.digest.as_str()),
        errors: result.as_ref().err().map_or(&[], Failure::mistakes),
    }
}

/// Digits of the digest that tell scenarios apart at a glance.
const DIGEST_SHOWN: usize = 12;

fn summary(scenario: &Scenario) -> String {
    let counted = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let pools = &scenario.system.pools;
    let spot = pools.iter().filter(|pool| pool.offering.capacity_type == CapacityType::Spot).count();
    let spot = if spot > 0 { format!(" ({spot} spot)") } else { String::new() };
    format!(
        "valid; `{}`, {}, {}, {}{spot}; digest {}",
        scenario.name,
        counted(scenario.workload.len(), "source"),
        counted(scenario.stages.len(), "stage"),
        counted(pools.len(), "pool"),
        &scenario.digest[..DIGEST_SHOWN.min(scenario.digest.len())]
    )
}
