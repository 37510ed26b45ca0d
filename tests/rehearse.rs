//! A rehearsal from its command to its journal: a live plane, played machines that boot, scale and are taken away, and the
//! three commands that read what is left. It takes some twenty seconds and claims no speed.
#![cfg(feature = "live")]

mod ran;

use std::path::Path;

use ran::{Ran, headroom};

/// Fifteen minutes in fifteen seconds: too few machines at first, more when they have started, some taken away.
const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "0.25/s" }

[[pipeline.stage]]
name = "render"
pool = "gpu"
time = { lognormal = { mean = "12s", cv = 0.3 } }

[[pipeline.stage]]
name = "finish"
pool = "gpu"
time = "3s"

[fleet.pool.main]
class = "gpu"
capacity_type = "spot"
price = "3.6 USD/h"
count = 2
count_min = 1
count_max = 10
startup = { boot = "40s", weights = "20s" }
interruption = { hazard_per_hour = 2.0 }

[policy.purchase]
kind = "pool-order"

[policy.scaling]
kind = "target-tracking"

[objective]
deadline = "120s"

[run]
horizon = "15min"
"#;

fn run(folder: &Path, args: &[&str]) -> Ran {
    Ran::of(&mut headroom(folder, args))
}

#[test]
fn a_rehearsal_ends_every_job_and_its_journal_can_be_judged() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::write(at.join("launch.toml"), SCENARIO).expect("a scenario");
    let rehearse =
        ["rehearse", "launch.toml", "--compress", "60", "--data", "kept", "--replications", "4", "--json"];
    let found = run(at, &rehearse).json();
    let live = |key: &str| found["live"][key].as_f64().expect("a figure");
    let planned = |key: &str| found["simulated"][key].as_f64().expect("a figure");
    assert!(live("arrived") > 150.0, "{found}");
    assert_eq!(live("arrived"), live("done"), "every job was done: {found}");
    assert_eq!(live("arrived"), planned("arrived"), "the same jobs were planned for");
    let peak = found["live"]["pools"][0]["peak_instances"].as_f64().expect("a figure");
    assert!((3.0..=10.0).contains(&peak), "machines were added: {found}");
    assert!(live("compute_usd") > 0.5 * planned("compute_usd"), "{found}");
    assert!(live("compute_usd") < 2.0 * planned("compute_usd"), "{found}");

    let again = run(at, &["replay", "kept", "--json"]).json();
    assert_eq!(again["is_same"], true, "{again}");
    assert_eq!(again["batches"], again["batches_compared"]);
    assert_eq!(again["jobs_compared"].as_f64(), Some(live("done")));
    let said = run(at, &["replay", "kept"]).ends(0, &[]).stdout();
    assert!(said.contains("the same decisions"), "{said}");

    let measured = run(at, &["fidelity", "kept", "--measured", "--json"]).json();
    assert_eq!(measured["is_measured"], true);
    // Service takes a quarter of a second, as it was drawn and as it was measured.
    let fastest = measured["simulated"]["latency_s"]["p50"].as_f64().expect("a figure");
    assert!(fastest > 0.15, "{measured}");

    let more = ["replay", "kept", "--set", "fleet.pool.main.count=9", "--replications", "4", "--json"];
    let what_if = run(at, &more).json();
    let wait = |side: &str| what_if[side]["wait_mean_s"].as_f64().expect("a figure");
    assert!(wait("what_if") < 0.5 * wait("as_it_was"), "with nine machines hardly a job waits: {what_if}");
    std::fs::write(at.join("more.toml"), "[fleet.pool.main]\ncount = 9\n").expect("a file");
    let by_file = ["replay", "kept", "--policy", "more.toml", "--replications", "4", "--json"];
    assert_eq!(run(at, &by_file).json()["what_if"], what_if["what_if"], "a file says the same");
}

#[test]
fn mistakes_are_told_with_their_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::write(at.join("launch.toml"), SCENARIO).expect("a scenario");
    run(at, &["replay", "nowhere"]).ends(3, &["there is no such file", "serve --data"]);
    run(at, &["fidelity", "launch.toml"]).ends(3, &["launch.toml"]);
    run(at, &["rehearse", "launch.toml", "--compress", "0"]).ends(2, &["from 1 to 10000"]);
    let twice = ["rehearse", "launch.toml", "--against", "http://127.0.0.1:9", "--data", "x"];
    run(at, &twice).ends(2, &["--data"]);
    std::fs::create_dir(at.join("used")).expect("a folder");
    std::fs::write(at.join("used/journal.sqlite"), "").expect("a file");
    run(at, &["rehearse", "launch.toml", "--data", "used"]).ends(3, &["holds a journal already"]);
}
