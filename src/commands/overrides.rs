//! What flags mean for a scenario: each becomes a `key=value`, as `--set` takes it. Pure: reads no file.

use std::path::Path;

use super::run_args::{OverrideArgs, PlanArgs};

/// The overrides of all flags but `--trace` and `--spot-trace`, those of `--set` first.
pub(crate) fn of_flags(args: &OverrideArgs) -> Vec<String> {
    let mut overrides = args.set.clone();
    overrides.extend(args.seed.map(|seed| format!("run.seed={seed}")));
    overrides.extend(args.replications.map(|count| format!("run.replications={count}")));
    overrides.extend(args.horizon.as_ref().map(|horizon| format!("run.horizon={}", quoted(horizon))));
    overrides.extend(args.confidence.map(|share| format!("run.confidence={share}")));
    overrides
}

/// The override of `--budget`.
pub(crate) fn of_budget(args: &PlanArgs) -> Option<String> {
    args.budget.as_ref().map(|budget| format!("objective.budget={}", quoted(budget)))
}

/// Replaces the arrivals of `source` (its name, or its position from 0) by the trace in `path`.
pub(crate) fn of_trace(source: &str, path: &Path) -> String {
    let path = quoted(&path.display().to_string());
    format!("workload.source.{}.arrivals={{ kind = \"trace\", path = {path} }}", step(source))
}

/// Takes the availability of the pool at `key` (such as `fleet.pool.main`) from `path`, in which `nodes_full`
/// nodes mean full availability.
pub(crate) fn of_availability(key: &str, path: &Path, nodes_full: u16) -> String {
    let path = quoted(&path.display().to_string());
    format!("{key}.interruption.trace={{ path = {path}, nodes_full = {} }}", nodes_full.max(1))
}

/// The key of a pool.
pub(crate) fn pool_key(name: &str) -> String {
    format!("fleet.pool.{}", step(name))
}

/// Splits `SOURCE=FILE`; `whole_exists` says that a file of the whole name is there, which then is meant.
pub(crate) fn split_source(text: &str, whole_exists: bool) -> (&str, &str) {
    match text.split_once('=') {
        Some((source, file)) if !whole_exists && !source.is_empty() => (source, file),
        _ => ("0", text),
    }
}

/// A step of a path: quoted where it holds more than letters, digits, `-` and `_`.
fn step(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if bare && !name.is_empty() { name.to_owned() } else { format!("\"{name}\"") }
}

/// A TOML text. JSON's escapes are TOML's too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }
factor = 2.0
[[workload.source]]
name = "fans.of x"
arrivals = { kind = "constant", rate = "2/s" }
[[pipeline.stage]]
name = "infer"
pool = "gpu"
time = "4s"
[fleet.pool.main]
class = "gpu"
price = "1 USD/h"
count = 10
[fleet.pool."spare.1"]
class = "gpu"
capacity_type = "spot"
price = "0.3 USD/h"
count_max = 10
interruption = { hazard_per_hour = 0.1 }
"#;

    fn load(folder: &Path, overrides: &[String]) -> scenarios::scenario::Scenario {
        let loaded = scenarios::load_str("t", SCENARIO, folder, overrides);
        loaded.unwrap_or_else(|errors| panic!("{overrides:?}: {errors:?}")).scenario
    }

    #[test]
    fn flags_reach_the_scenario_and_win_over_set() {
        let args = OverrideArgs {
            set: vec!["run.seed=1".into(), "fleet.pool.main.count=7".into()],
            seed: Some(42),
            replications: Some(3),
            horizon: Some("1h30min".into()),
            confidence: Some(0.9),
            ..OverrideArgs::default()
        };
        let overrides = of_flags(&args);
        assert_eq!(
            overrides[2..],
            ["run.seed=42", "run.replications=3", "run.horizon=\"1h30min\"", "run.confidence=0.9"]
        );
        let scenario = load(Path::new("."), &overrides);
        assert_eq!((scenario.run.seed, scenario.run.replications), (42, 3));
        assert_eq!(scenario.run.horizon, policy::units::Duration::from_secs(5400));
        assert_eq!(scenario.system.pools[0].count_initial, 7);
        assert!(of_flags(&OverrideArgs::default()).is_empty());
    }

    #[test]
    fn traces_replace_arrivals_and_keep_the_rest_of_the_source() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a \"b\".csv");
        std::fs::write(&file, "time_s\n0\n").unwrap();
        for (source, index) in [("0", 0), ("users", 0), ("fans.of x", 1)] {
            let scenario = load(folder.path(), &[of_trace(source, &file)]);
            let scenarios::scenario::Arrivals::Trace(trace) = &scenario.workload[index].arrivals else {
                panic!("{source}: not replaced")
            };
            assert_eq!(trace.path, file);
            let before = &load(folder.path(), &[]).workload[index];
            assert_eq!(scenario.workload[index].rate_factor, before.rate_factor);
            assert_eq!(scenario.workload[index].name, before.name);
        }
    }

    #[test]
    fn availability_reaches_the_pool_and_keeps_its_hazard() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("us-east-1a_v100_1.json");
        std::fs::write(&file, "{}").unwrap();
        let scenario = load(folder.path(), &[of_availability(&pool_key("spare.1"), &file, 16)]);
        let interruption = &scenario.pools[1].interruption;
        let trace = interruption.trace.as_ref().expect("it was set");
        assert_eq!((&trace.path, trace.nodes_full, interruption.hazard_per_hour), (&file, 16, 0.1));
    }

    #[test]
    fn source_names_are_split_off_unless_the_file_has_that_name() {
        assert_eq!(split_source("a.csv", false), ("0", "a.csv"));
        assert_eq!(split_source("users=a.csv", false), ("users", "a.csv"));
        assert_eq!(split_source("users=a.csv", true), ("0", "users=a.csv"));
        assert_eq!(split_source("=a.csv", false), ("0", "=a.csv"));
    }
}
