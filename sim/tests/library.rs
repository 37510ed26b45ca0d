//! The scenario library: every file against its stored summary, and the figures of the case studies as facts.
//!
//! `scenarios/library/golden/NAME.json` holds `overrides`, which shorten a run that would take long in a test build, and
//! the summary under them. `UPDATE_GOLDEN=1` rewrites the summaries and keeps the overrides; review the difference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use policy::ledger::Ledger;
use scenarios::scenario::Scenario;
use serde_json::{Map, Value, json};
use sim::experiment::{Experiment, RunOptions, Unwatched, run};
use sim::inputs::Inputs;
use sim::replication::Keep;
use sim::summary::{Summary, summarize};

/// Figures compared, in significant digits.
const DIGITS: i32 = 6;

/// Differences shown of one file.
const DIFFERENCES_MAX: usize = 20;

/// What says when and by what a summary was made, rather than what was found.
const UNSTABLE: [&str; 3] = ["engine", "version", "scenario_sha256"];

fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/library")
}

fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(library()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    files.sort();
    files
}

fn simulate(path: &Path, overrides: &[String]) -> (Scenario, Experiment, Summary) {
    let loaded = scenarios::load(path, overrides);
    let scenario = loaded.unwrap_or_else(|errors| panic!("{}: {errors:?}", path.display())).scenario;
    let inputs = Inputs::load(&scenario).unwrap();
    let options = RunOptions { threads: 2, keep: Keep::Statistics };
    let experiment = run(&scenario, &inputs, options, &Unwatched).unwrap();
    let summary = summarize(&scenario, &experiment);
    (scenario, experiment, summary)
}

/// The scenario `name` of the library under `overrides`.
fn under(name: &str, overrides: &[&str]) -> Summary {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    simulate(&library().join(format!("{name}.toml")), &overrides).2
}

/// `value` with every number rounded to [`DIGITS`] significant digits.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if !number.is_i64() && !number.is_u64() => {
            let text = format!("{:.*e}", DIGITS as usize - 1, number.as_f64().unwrap());
            json!(text.parse::<f64>().unwrap())
        }
        Value::Array(values) => values.into_iter().map(rounded).collect(),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (key, rounded(value))).collect())
        }
        other => other,
    }
}

fn stored_form(summary: &Summary) -> Value {
    let mut value = serde_json::to_value(summary).unwrap();
    let fields = value.as_object_mut().unwrap();
    UNSTABLE.iter().for_each(|key| drop(fields.remove(*key)));
    rounded(value)
}

/// The places where two values differ.
fn differences(place: &str, stored: &Value, found: &Value, into: &mut Vec<String>) {
    match (stored, found) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let [x, y] = [a, b].map(|fields| fields.get(key).unwrap_or(&Value::Null));
                differences(&format!("{place}.{key}"), x, y, into);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (x, y)) in a.iter().zip(b).enumerate() {
                differences(&format!("{place}[{index}]"), x, y, into);
            }
        }
        _ if stored != found => into.push(format!("  {place}: stored {stored}, found {found}")),
        _ => {}
    }
}

/// Compares one file with its golden, or rewrites that; says what is wrong.
fn against_golden(path: &Path, update: bool) -> Result<(), String> {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let golden = library().join(format!("golden/{name}.json"));
    let remedy = "UPDATE_GOLDEN=1 cargo test -p sim --test library, then review the difference";
    let stored: Value = match fs::read_to_string(&golden) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| format!("golden of {name}: {error}"))?,
        Err(_) if update => Value::Object(Map::new()),
        Err(_) => return Err(format!("{name} has no golden summary; make it with: {remedy}")),
    };
    let overrides = stored.get("overrides").cloned().unwrap_or_else(|| json!([]));
    let texts: Vec<String> =
        serde_json::from_value(overrides.clone()).map_err(|error| format!("overrides of {name}: {error}"))?;
    let found = stored_form(&simulate(path, &texts).2);
    if update {
        let file = json!({ "overrides": overrides, "summary": found });
        fs::create_dir_all(library().join("golden")).unwrap();
        fs::write(&golden, serde_json::to_string_pretty(&file).unwrap() + "\n").unwrap();
        return Ok(());
    }
    let mut different = Vec::new();
    differences("summary", stored.get("summary").unwrap_or(&Value::Null), &found, &mut different);
    if different.is_empty() {
        return Ok(());
    }
    let more = different.len().saturating_sub(DIFFERENCES_MAX);
    different.truncate(DIFFERENCES_MAX);
    let list = different.join("\n");
    Err(format!("{name} differs from its golden summary:\n{list}\n  and {more} more; if meant: {remedy}"))
}

#[test]
fn every_scenario_of_the_library_gives_its_stored_summary() {
    let update = std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1");
    let files = files();
    assert!(files.len() >= 7, "the library is there");
    let wrong: Vec<String> = files.iter().filter_map(|path| against_golden(path, update).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_golden_summary_has_its_scenario() {
    for entry in fs::read_dir(library().join("golden")).unwrap() {
        let golden = entry.unwrap().path();
        let scenario = library().join(golden.file_stem().unwrap()).with_extension("toml");
        assert!(scenario.exists(), "{} is left over: its scenario is gone", golden.display());
    }
}

#[test]
fn rounding_keeps_six_significant_digits() {
    let check = |from: f64, to: f64| assert_eq!(rounded(json!({ "x": [from] })), json!({ "x": [to] }));
    check(1234.56789, 1234.57);
    check(0.000_123_456_789, 0.000_123_457);
    check(-2.0, -2.0);
    check(0.0, 0.0);
    assert_eq!(rounded(json!(123_456_789_u64)), json!(123_456_789_u64), "counts stay");
}

#[test]
fn differences_name_their_place() {
    let mut found = Vec::new();
    differences("s", &json!({ "a": [1, 2], "b": 1 }), &json!({ "a": [1, 3], "c": 1 }), &mut found);
    assert_eq!(
        found,
        ["  s.a[1]: stored 2, found 3", "  s.b: stored 1, found null", "  s.c: stored null, found 1"]
    );
}

/// Asserts that `found` lies within `slack` of `stated`.
fn near(what: &str, found: f64, stated: f64, slack: f64) {
    assert!((found - stated).abs() <= slack, "{what}: {found}, not {stated} ± {slack}");
}

/// Relative change from `before` to `after`.
fn change(before: f64, after: f64) -> f64 {
    after / before - 1.0
}

fn span_p50(summary: &Summary, name: &str) -> f64 {
    summary.spans.iter().find(|span| span.name == name).unwrap().p50_s
}

mod lyrebird {
    use super::*;

    /// One run of the benchmark's 20 minutes: a third of a million requests.
    const ONE: [&str; 1] = ["run.replications=1"];

    #[test]
    fn two_inferences_take_1662_ms_of_transfers_on_standard_and_321_ms_on_express() {
        let [standard, express] =
            ["lyrebird-s3-standard", "lyrebird-s3-express"].map(|name| under(name, &ONE));
        near("Standard total", span_p50(&standard, "total"), 1.662, 0.03 * 1.662);
        near("Express total", span_p50(&express, "total"), 0.321, 0.03 * 0.321);
        near("total", change(span_p50(&standard, "total"), span_p50(&express, "total")), -0.80, 0.02);
        for span in ["down_p1", "down_p2"] {
            let before = standard.spans.iter().find(|row| row.name == span).unwrap();
            near(span, before.mean_s, 0.5, 0.05);
            near(span, change(before.p50_s, span_p50(&express, span)), -0.95, 0.005);
        }
        for span in ["up_p0", "up_p1", "up_p2"] {
            let before = span_p50(&standard, span);
            assert!((0.285..=0.505).contains(&before), "{span}: {before}");
            near(span, change(before, span_p50(&express, span)), -0.82, 0.005);
        }
        near("p1_p2", change(span_p50(&standard, "p1_p2"), span_p50(&express, "p1_p2")), 0.0, 0.01);
    }

    #[test]
    fn eighteen_thousand_requests_a_minute_leave_no_queue_at_180_nodes_a_stage() {
        let standard = under("lyrebird-s3-standard", &ONE);
        near("requests per minute", standard.jobs.arrived / 20.0, 18_000.0, 180.0);
        assert_eq!(standard.jobs.done, standard.jobs.arrived);
        assert!(
            standard.stages.iter().all(|stage| stage.wait_s.p99 < 0.001),
            "no wait in {:?}",
            standard.stages
        );
    }

    #[test]
    fn nodes_that_hold_one_request_at_a_time_cannot_carry_standard_but_can_carry_express() {
        let one =
            ["run.replications=1", "run.horizon=5min", "fleet.pool.p1.slots=1", "fleet.pool.p2.slots=1"];
        let wait =
            |name| under(name, &one).stages.iter().find(|stage| stage.name == "p1").unwrap().wait_s.p95;
        assert!(wait("lyrebird-s3-standard") > 30.0, "the queue grows");
        assert!(wait("lyrebird-s3-express") < 0.01, "none waits");
    }

    /// Six hours around the peak of the day.
    const PEAK: [&str; 3] =
        ["run.replications=1", "run.horizon=6h", "workload.source.images.arrivals.peak_at=3h"];

    /// Dollars of requests and storage of all tiers.
    fn storage(name: &str, more: &[&str]) -> (f64, Summary) {
        let overrides: Vec<String> = PEAK.iter().chain(more).map(|text| (*text).to_owned()).collect();
        let (scenario, experiment, summary) = simulate(&library().join(format!("{name}.toml")), &overrides);
        let booked = |ledger: &Ledger| -> f64 {
            let of_tier = |name: &String| scenario.tiers.iter().any(|tier| tier.name == *name);
            let rows = ledger.rows().iter().filter(|row| of_tier(&row.resource));
            rows.map(|row| row.billed_nanousd as f64 * 1e-9).sum()
        };
        (booked(&experiment.outcomes[0].ledger), summary)
    }

    #[test]
    fn express_saves_11_percent_of_compute_35_of_storage_and_18_in_all_in_production() {
        let (storage_before, before) = storage("lyrebird-production-standard", &[]);
        let (storage_after, after) = storage("lyrebird-production-express", &[]);
        assert_eq!(before.jobs.arrived, after.jobs.arrived, "the same images");
        near("compute", change(before.cost_usd.compute, after.cost_usd.compute), -0.11, 0.02);
        near("storage", change(storage_before, storage_after), -0.35, 0.02);
        near("in all", change(before.cost_usd.total, after.cost_usd.total), -0.18, 0.02);
        let (storage_now, _) = storage(
            "lyrebird-production-express",
            &["storage.tier.exchange.price=s3-express-from-2025-04-10"],
        );
        assert!(storage_now < storage_after, "prices since April 2025: {storage_now} < {storage_after}");
        let wait =
            |summary: &Summary| summary.stages.iter().map(|stage| stage.wait_s.p95).fold(0.0, f64::max);
        assert!(wait(&before) < 0.5 && wait(&after) < 0.5, "both fleets meet the same wait");
    }

    #[test]
    fn requests_of_one_megabyte_were_dearer_on_express_until_april_2025() {
        let cost = |name| {
            let overrides = ["run.replications=1".to_owned(), "run.horizon=2min".to_owned()];
            let (_, experiment, _) = simulate(&library().join(format!("{name}.toml")), &overrides);
            let ledger = &experiment.outcomes[0].ledger;
            let rows = ledger.rows().iter().filter(|row| row.resource == "exchange" && row.item != "storage");
            rows.map(|row| row.billed_nanousd as f64).sum::<f64>()
        };
        let [standard, then, now] =
            ["lyrebird-s3-standard", "lyrebird-s3-express", "lyrebird-s3-express-2025"].map(cost);
        assert!(standard < then, "{standard} < {then}");
        assert!(now < standard, "{now} < {standard}");
    }
}

mod humen {
    use super::*;

    fn instance_hours(summary: &Summary) -> f64 {
        summary.pools.iter().map(|pool| pool.instance_hours).sum()
    }

    #[test]
    fn dense_spot_machines_cut_the_cost_of_a_dance_by_70_percent_and_nobody_waits_longer() {
        let [before, after] = ["humen-on-demand", "humen-spot-dense"].map(|name| under(name, &[]));
        assert_eq!(before.jobs.arrived, after.jobs.arrived, "the same demand");
        assert_eq!(before.pools[0].peak_instances, 400.0);
        for summary in [&before, &after] {
            assert!(summary.success_ratio >= 0.9999, "{}: {}", summary.scenario, summary.success_ratio);
        }
        near("cost", change(before.cost_per_1000_usd, after.cost_per_1000_usd), -0.70, 0.05);
        let p95 = |summary: &Summary| summary.latency_s.p95;
        assert!(p95(&after) <= p95(&before), "{} s against {} s", p95(&after), p95(&before));
        assert!(p95(&after) < 300.0, "minutes");
        let interruptions: f64 = after.pools.iter().map(|pool| pool.interruptions).sum();
        assert!(interruptions > 10.0, "spot machines were taken: {interruptions}");
    }

    #[test]
    fn a_dense_machine_finishes_two_to_three_times_as_many_dances() {
        let flood = r#"workload.source.fans.arrivals={kind="constant",rate="12/s"}"#;
        let base = ["run.replications=1", "run.horizon=1h", flood];
        let all_on_demand = [
            r#"policy.scaling="static""#,
            r#"policy.purchase="on-demand-only""#,
            "fleet.pool.bridge.count=400",
            "fleet.pool.spot-az2.count=0",
            "fleet.pool.spot-az5.count=0",
            "fleet.pool.spot-az4.count=0",
        ];
        let per_hour = |summary: &Summary| summary.jobs.done / instance_hours(summary);
        let before = per_hour(&under("humen-on-demand", &base));
        let after = per_hour(&under("humen-spot-dense", &[&base[..], &all_on_demand].concat()));
        let gain = after / before;
        assert!((2.0..=3.0).contains(&gain), "{after} against {before} an hour: {gain} times");
    }
}
