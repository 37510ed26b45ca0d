//! `simulate`, `plan` and `compare` as their users meet them: what the JSON holds, that a seed means the same bytes,
//! what is left on disk, and how each ends.

mod ran;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use ran::{Ran, headroom};

/// Two stages and a transfer, two pools of which one is taken away at times, a span and a window of time.
const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "2/s" }

[[pipeline.stage]]
name = "infer"
pool = "gpu"
steps = [
    { get = "bucket", size = "1MB", name = "fetch" },
    { compute = "model", time = { lognormal = { mean = "4s", cv = 0.3 } } },
    { put = "bucket", size = "1MB", name = "store" },
]

[[pipeline.span]]
name = "whole"
from = "infer.fetch.start"
to = "infer.store.end"

[storage.tier.bucket]
get = { latency = "50ms" }
put = { latency = "80ms" }
price = "s3-standard"

[fleet.pool.steady]
class = "gpu"
price = "0.526 USD/h"
count = 10

[fleet.pool.cheap]
class = "gpu"
region = "us-east-1"
zone = "us-east-1a"
capacity_type = "spot"
price = "0.2 USD/h"
count = 4
count_max = 10
interruption = { hazard_per_hour = 2.0 }

[fleet]
slot_kinds = ["slot"]

[network]
round_trip_default = "10ms"

[objective]
deadline = "20s"

[run]
horizon = "20min"
replications = 3
"#;

/// Small enough for a search in a test build.
const SMALL: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }

[[pipeline.stage]]
name = "infer"
pool = "gpu"
time = { lognormal = { mean = "3s", cv = 0.25 } }

[fleet.pool.gpu]
price = "0.8 USD/h"
count = 6
count_max = 12

[objective]
deadline = "10s"
on_time_min = 0.95

[run]
horizon = "20min"
replications = 3
"#;

/// Longest that a test waits for something to begin.
const PATIENCE: Duration = Duration::from_secs(60);

struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder can be made") };
        desk.write("s.toml", SCENARIO);
        desk.write("small.toml", SMALL);
        desk
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        headroom(self.folder.path(), args)
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    /// Names in a folder below, sorted.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).expect("the folder is there");
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.expect("an entry can be read").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }
}

/// Asks for numbers (or any value where `name` ends with `*`) at `fields` of `value`.
fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        match field.strip_suffix('*') {
            Some(name) => assert!(!value[name].is_null(), "no `{name}` in {value}"),
            None => assert!(value[field].is_number(), "no number `{field}` in {value}"),
        }
    }
}

fn is_interval(value: &Value) {
    let bound = |name: &str| value[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {value}"));
    assert!(bound("low") <= bound("mean") && bound("mean") <= bound("high"), "{value}");
}

/// A summary without what depends on the machine.
fn without_engine(mut summary: Value) -> String {
    let removed = summary.as_object_mut().and_then(|fields| fields.remove("engine"));
    assert!(removed.is_some(), "no `engine` in {summary}");
    summary.to_string()
}

#[test]
fn simulation_gives_the_fields_that_programs_rely_on() {
    let desk = Desk::new();
    let json = desk.run(&["simulate", "s.toml", "--json"]).json();
    has(&json, &["scenario*", "source*", "seed", "replications", "success_ratio", "on_time_ratio"]);
    has(&json, &["cost_per_1000_usd"]);
    has(&json["jobs"], &["arrived", "done", "failed", "expired", "cancelled", "rejected"]);
    has(&json["latency_s"], &["mean", "p50", "p90", "p95", "p99", "max"]);
    has(&json["cost_usd"], &["total", "compute", "storage", "requests", "transfer", "external"]);
    has(&json["engine"], &["events", "wall_s", "events_per_s", "peak_rss_bytes"]);
    let stage = &json["stages"][0];
    has(stage, &["name*", "retries"]);
    has(&stage["wait_s"], &["mean", "p50", "p99"]);
    has(&stage["service_s"], &["mean", "p50", "p99"]);
    has(&json["transfers"][0], &["tier*", "operation*", "p50_s", "p99_s", "count"]);
    has(&json["spans"][0], &["name*", "mean_s", "p50_s", "p95_s", "p99_s"]);
    for pool in [&json["pools"][0], &json["pools"][1]] {
        has(pool, &["name*", "capacity_type*", "instance_hours", "interruptions", "peak_instances"]);
        has(pool, &["utilization_ratio"]);
    }
    for interval in [
        &json["_ci"]["success_ratio"],
        &json["_ci"]["on_time_ratio"],
        &json["_ci"]["cost_usd"]["total"],
        &json["_ci"]["cost_per_1000_usd"],
        &json["_ci"]["latency_s"]["p95"],
        &stage["_ci"]["wait_s"]["mean"],
    ] {
        is_interval(interval);
    }
    let cost = &json["cost_usd"];
    let parts = ["compute", "storage", "requests", "transfer", "external"];
    let sum: f64 = parts.iter().filter_map(|part| cost[part].as_f64()).sum();
    assert!((sum - cost["total"].as_f64().unwrap()).abs() < 1e-6, "{cost}");
    let alone = desk.run(&["simulate", "s.toml", "--json", "--replications", "1"]).json();
    assert!(alone["_ci"].is_null() && alone["replications"] == 1, "{}", alone["_ci"]);
}

#[test]
fn one_seed_is_one_result_on_any_number_of_threads() {
    let desk = Desk::new();
    let simulate =
        |more: &[&str]| without_engine(desk.run(&[&["simulate", "s.toml", "--json"], more].concat()).json());
    let one = simulate(&["--threads", "1"]);
    assert_eq!(one, simulate(&["--threads", "2"]));
    assert_eq!(one, simulate(&["--threads", "7"]));
    assert_ne!(one, simulate(&["--seed", "2"]));
    for threads in ["1", "3"] {
        let out = format!("out{threads}");
        desk.run(&["simulate", "s.toml", "--threads", threads, "--out", &out]).ends(0, &[]);
    }
    for name in ["jobs.parquet", "charges.parquet", "instances.parquet", "scenario.toml", "load.svg"] {
        let bytes = |folder: &str| fs::read(desk.path(folder).join(name)).unwrap();
        assert!(bytes("out1") == bytes("out3"), "{name} differs");
    }
}

#[test]
fn results_are_whole_files_and_can_be_run_again() {
    let desk = Desk::new();
    desk.write("below/t.csv", "time_s,count\n0,60\n60,90\n120,30\n");
    let arrivals = "arrivals = { kind = \"constant\", rate = \"2/s\" }";
    let traced = SCENARIO.replace(arrivals, "arrivals = { kind = \"trace\", path = \"t.csv\" }");
    desk.write("below/s.toml", &traced);
    let ran = desk.run(&["simulate", "below/s.toml", "--out", "new/results", "--json"]);
    let summary = ran.ends(0, &["wrote records", "new/results"]).json();
    let tables = ["charges", "decisions", "instances", "jobs", "minutes"];
    let mut expected: Vec<String> = tables.iter().map(|table| format!("{table}.parquet")).collect();
    expected.extend(["load.svg", "scenario.toml", "summary.json"].map(str::to_owned));
    expected.sort();
    assert_eq!((desk.names("new/results"), desk.names("new")), (expected, vec!["results".to_owned()]));
    for table in tables {
        let bytes = fs::read(desk.path(&format!("new/results/{table}.parquet"))).unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{table}");
    }
    assert!(fs::read_to_string(desk.path("new/results/load.svg")).unwrap().contains("</svg>"));
    let again = desk.run(&["simulate", "new/results/scenario.toml", "--json"]).json();
    assert_eq!((&summary["jobs"], &summary["cost_usd"]), (&again["jobs"], &again["cost_usd"]));
}

#[test]
fn wrong_runs_end_with_their_code_and_name_the_place() {
    let desk = Desk::new();
    desk.write("bad.toml", &SMALL.replace("count = 6", "cuont = 6"));
    desk.write("taken", "kept");
    for command in ["simulate", "plan"] {
        desk.run(&[command]).ends(2, &["<SCENARIO>"]);
        desk.run(&[command, "s.toml", "--threads", "0"]).ends(2, &["whole number from 1"]);
        desk.run(&[command, "s.toml", "--horizon", "5"]).ends(2, &["has no unit"]);
        desk.run(&[command, "absent.toml"]).ends(3, &["could not read scenario `absent.toml`"]);
        desk.run(&[command, "smal.toml"]).ends(3, &["did you mean `small.toml`?"]);
        desk.run(&[command, "bad.toml"]).ends(3, &["unknown key `cuont`", "bad.toml:13:1", "`count`"]);
        desk.run(&[command, "small.toml", "--set", "fleet.pool.gpu.cuont=3"])
            .ends(3, &["scenario::unknown-key", "did you mean `count`?"]);
        desk.run(&[command, "small.toml", "--set", "run.seed"]).ends(3, &["sets nothing"]);
        desk.run(&[command, "small.toml", "--trace", "absent.csv"]).ends(3, &["absent.csv"]);
        desk.run(&[command, "small.toml", "--spot-trace", "absent"]).ends(3, &["absent"]);
        let ran = desk.run(&[command, "small.toml", "--out", "taken"]).ends(1, &["`taken` is no folder"]);
        assert_eq!(ran.stdout(), "");
        desk.run(&[command, "small.toml", "--out", "taken/below"]).ends(1, &["output::folder"]);
    }
    assert_eq!(fs::read_to_string(desk.path("taken")).unwrap(), "kept");
    desk.run(&["compare", "small.toml"]).ends(2, &["name two or more"]);
    desk.run(&["compare", "small.toml", "s.toml", "--out", "x"]).ends(2, &["simulate SCENARIO --out"]);
    desk.run(&["compare", "small.toml", "bad.toml"]).ends(3, &["bad.toml:13:1"]);
    let errors = desk.run(&["simulate", "bad.toml", "--json"]).ends(3, &[]);
    let errors: Value = serde_json::from_slice(&errors.output.stderr).unwrap();
    assert_eq!(errors["errors"][0]["code"], "scenario::unknown-key");
}

#[test]
fn plan_is_complete_and_its_settings_reproduce_it() {
    let desk = Desk::new();
    let plan =
        desk.run(&["plan", "small.toml", "--quick", "--seed", "5", "--json", "--out", "planned"]).json();
    has(&plan, &["recommendation*", "runners_up*", "pareto*", "survival*", "search*"]);
    assert_eq!(plan["meets"], true);
    let chosen = &plan["recommendation"];
    has(chosen, &["name*", "set*", "cost_usd", "latency_p95_s", "on_time_ratio", "replications"]);
    has(&plan["survival"], &["factor", "limit*", "limit_text*"]);
    assert!(!plan["runners_up"].as_array().unwrap().is_empty());
    assert!(plan["runners_up"].as_array().unwrap().iter().all(|lost| lost["why_lost"].is_string()));
    assert!(plan["pareto"].as_array().unwrap().iter().any(|point| point["front"] == true));
    let count = chosen["replications"].to_string();
    let mut args = vec!["simulate", "small.toml", "--json", "--seed", "5", "--replications", &count];
    for set in chosen["set"].as_array().unwrap() {
        args.extend(["--set", set.as_str().unwrap()]);
    }
    let simulated = desk.run(&args).json();
    let near = |a: &Value, b: &Value| {
        let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
        assert!((a - b).abs() <= 1e-9 * a.abs(), "{a} is not {b}");
    };
    near(&simulated["cost_usd"]["total"], &chosen["cost_usd"]);
    near(&simulated["on_time_ratio"], &chosen["on_time_ratio"]);
    near(&plan["summary"]["cost_usd"]["total"], &chosen["cost_usd"]);
    let written = desk.names("planned");
    for name in ["plan.json", "plan.svg", "scenario.toml", "jobs.parquet", "summary.json"] {
        assert!(written.iter().any(|file| file == name), "no {name} in {written:?}");
    }
    let again = desk.run(&["simulate", "planned/scenario.toml", "--json", "--replications", &count]).json();
    near(&again["cost_usd"]["total"], &chosen["cost_usd"]);
}

#[test]
fn plan_as_text_gives_the_whole_command() {
    let desk = Desk::new();
    let args = ["plan", "small.toml", "--quick", "--set", "workload.source.0.factor=1.5"];
    let text = desk.run(&args).ends(0, &[]).stdout();
    for part in [
        "Recommended for small",
        "95 % of jobs within 10s",
        "Runners-up:",
        "objective: p95 latency within 10 s",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert!(text.contains("--set 'workload.source.0.factor=1.5'"), "{text}");
    let command =
        text.split_once("To run it: headroom ").expect("it says how").1.split("\n\n").next().unwrap();
    let words = command.replace(" \\\n", " ");
    let args: Vec<&str> = words
        .split('\'')
        .flat_map(|part| if part.contains('=') { vec![part] } else { part.split_whitespace().collect() })
        .collect();
    desk.run(&args).ends(0, &[]);
}

#[test]
fn objective_that_nothing_meets_ends_with_4_and_the_nearest_miss() {
    let desk = Desk::new();
    let ran = desk.run(&["plan", "small.toml", "--quick", "--budget", "0.01"]);
    let ran = ran.ends(4, &["plan::objective-not-met", "the nearest miss is", "the budget is $0.01"]);
    assert!(
        ran.stdout().starts_with("No plan meets the objective of small. Nearest miss: "),
        "{}",
        ran.stdout()
    );
    let ran = desk.run(&["plan", "small.toml", "--quick", "--budget", "0.01", "--json"]).ends(4, &[]);
    let plan: Value = serde_json::from_str(&ran.stdout()).unwrap();
    assert_eq!(plan["meets"], false);
    assert!(!plan["shortfalls"].as_array().unwrap().is_empty());
    let errors: Value = serde_json::from_slice(&ran.output.stderr).unwrap();
    assert_eq!(errors["errors"][0]["code"], "plan::objective-not-met");
}

#[test]
fn comparison_is_paired_and_shows_no_interval_without_width() {
    let desk = Desk::new();
    desk.write("more.toml", &format!("extends = \"small.toml\"\n{}", "[fleet.pool.gpu]\ncount = 12\n"));
    let json = desk.run(&["compare", "small.toml", "more.toml", "small.toml", "--json"]).json();
    assert!(json[0]["difference"].is_null());
    is_interval(&json[1]["difference"]["cost_usd"]);
    assert!(json[1]["difference"]["cost_usd"]["low"].as_f64().unwrap() > 0.0, "12 cost more than 6");
    assert_eq!(
        json[2]["difference"]["cost_usd"]["high"].as_f64(),
        Some(0.0),
        "the same scenario costs the same"
    );
    let text = desk.run(&["compare", "small.toml", "small.toml"]).ends(0, &[]).stdout();
    assert!(text.contains("paired 95 % intervals") && !text.contains(" to "), "{text}");
}

#[test]
fn scenario_without_arrivals_is_simulated_and_cannot_be_planned() {
    let desk = Desk::new();
    let nobody = ["small.toml", "--set", "workload.source.0.factor=0"];
    let text = desk.run(&[&["simulate"], &nobody[..]].concat()).ends(0, &[]).stdout();
    assert!(text.contains("none arrived within the horizon") && !text.contains("p95"), "{text}");
    desk.run(&[&["plan", "--quick"], &nobody[..]].concat()).ends(3, &["plan::no-arrivals", "`small.toml`"]);
}

#[cfg(unix)]
#[test]
fn interrupted_runs_end_with_130_and_leave_nothing() {
    let desk = Desk::new();
    let long = ["--out", "out/results", "--set", "workload.source.0.factor=4"];
    for command in [&["simulate", "s.toml", "--horizon", "20d"][..], &["plan", "s.toml", "--horizon", "20d"]]
    {
        let args = [command, &long].concat();
        let mut child = desk.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // The folder in which results are staged shows that the run has begun.
        let begun = Instant::now();
        while !desk.path("out").is_dir() || desk.names("out").is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{args:?} never began");
            assert!(child.try_wait().unwrap().is_none(), "{args:?} ended by itself");
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!((child.wait().unwrap().code(), printed.as_str()), (Some(130), ""), "{args:?}");
        assert_eq!(desk.names("out"), Vec::<String>::new(), "{args:?}");
        fs::remove_dir(desk.path("out")).unwrap();
    }
}

fn public_traces() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces");
    let folder = std::env::var_os("HEADROOM_TRACES").map_or(default, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: traces not found at {}", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn public_traces_drive_arrivals_and_spot_capacity() {
    let Some(folder) = public_traces() else { return };
    let desk = Desk::new();
    let requests = folder.join("1_genai_requests/lora_request_trace_2024-11-15_to_2024-11-30.csv");
    let counts = folder.join("3_viral_counts/Twitter_volume_AMZN.csv");
    let zones = folder.join("4_spot_availability/aws-02-15-2023_p3.2xlarge_1node");
    let (requests, counts, zones) =
        (requests.to_str().unwrap(), counts.to_str().unwrap(), zones.to_str().unwrap());
    let simulate = |more: &[&str]| {
        let base = ["simulate", "s.toml", "--json", "--replications", "1", "--horizon", "6h"];
        desk.run(&[&base[..], more].concat())
    };
    let plain = simulate(&[]).json();
    let mut arrived = Vec::new();
    for trace in [requests, counts] {
        let json = simulate(&["--trace", trace]).json();
        let described = desk.run(&["trace", "describe", trace, "--json"]).json();
        let count = json["jobs"]["arrived"].as_f64().unwrap();
        assert!(count > 0.0 && count <= described["count"].as_f64().unwrap(), "{trace}: {count}");
        assert_eq!(without_engine(json), without_engine(simulate(&["--trace", trace]).json()));
        arrived.push(count);
    }
    assert!(arrived[0] != arrived[1] && plain["jobs"]["arrived"].as_f64() != Some(arrived[0]));
    let spot = simulate(&["--spot-trace", zones]).ends(0, &["pool `cheap` follows", "us-east-1a"]).json();
    assert_ne!(spot["pools"][1]["instance_hours"], plain["pools"][1]["instance_hours"]);
}
