//! The program as its users meet it: exit codes, what goes to stdout and what to stderr, and the texts of errors.

mod ran;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reports::parquet::{Cell, Column, Origin, Provenance, Table, write_table};
use serde_json::Value;
use tempfile::TempDir;

use ran::{Ran, headroom};

const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "2/s" }

[[pipeline.stage]]
name = "infer"
pool = "gpu"
time = "4s"

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
count_max = 10
"#;

const ZONE: &str = r#"{"metadata": {"gap_seconds": 300}, "data": [0, 4, 4, 2]}"#;

/// A folder with small files, in which the program runs.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a file lies in a folder"))
                .expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
        Self { folder }
    }

    fn command(&self, args: &[&str]) -> Command {
        headroom(self.folder.path(), args)
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn wrong_use_ends_with_2_and_offers_what_was_meant() {
    let desk = Desk::new(&[("a.csv", "time_s\n0\n1\n")]);
    desk.run(&[]).ends(2, &["Usage:"]);
    desk.run(&["trace", "descrbe", "a.csv"]).ends(2, &["exists: 'describe'"]);
    desk.run(&["trace", "describe", "a.csv", "--binn", "1s"]).ends(2, &["--bin"]);
    desk.run(&["trace", "describe", "a.csv", "--count", "n"]).ends(2, &["--time"]);
    desk.run(&["trace", "describe", "a.csv", "--bin", "5"]).ends(2, &["`5` has no unit"]);
    desk.run(&["trace", "describe", "a.csv", "--time", "t", "--time-unit", "h"])
        .ends(2, &["one of s, ms, us, ns"]);
    desk.run(&["validate", "a.toml", "--replications", "0"]).ends(2, &["--replications"]);
    desk.run(&["validate", "a.toml", "--horizon", "soon"]).ends(2, &["--horizon"]);
    desk.run(&["trace", "import", "a.csv", "--json"]).ends(2, &["--out trace.csv"]);
}

#[test]
fn help_has_examples_and_exit_codes_and_goes_to_stdout() {
    let desk = Desk::new(&[]);
    let help = desk.run(&["--help"]).ends(0, &[]).stdout();
    assert!(help.contains("Examples:") && help.contains("130  interrupted"), "{help}");
    for command in [
        &["trace", "import"][..],
        &["trace", "describe"],
        &["trace", "fit"],
        &["prices", "show"],
        &["validate"],
        &["plan"],
        &["simulate"],
        &["compare"],
        &["profile"],
        &["worker"],
    ] {
        let long = desk.run(&[command, &["--help"]].concat()).ends(0, &[]).stdout();
        let short = desk.run(&[command, &["-h"]].concat()).ends(0, &[]).stdout();
        assert!(long.contains("Examples:") && !short.contains("Examples:"), "{command:?}");
        assert!(short.contains("--json"), "{short}");
    }
}

#[test]
fn traces_that_cannot_be_read_end_with_3_and_say_what_to_do() {
    let desk = Desk::new(&[
        ("requests.csv", "time_s\n0\n1\n"),
        ("plain.csv", "when,who\n1,2\n"),
        ("bad.csv", "time_s,count\n0,1\n60,x\n"),
        ("unsorted.csv", "time_s\n5\n1\n"),
        ("empty.csv", "time_s\n"),
        ("cut.csv.gz", "\u{1f}"),
        ("no.parquet", "time_s\n0\n"),
        ("folder/readme.md", "nothing"),
        ("us-east-1a_v100_1.json", ZONE),
    ]);
    let check = |args: &[&str], texts: &[&str]| {
        let ran = desk.run(&[&["trace"], args].concat()).ends(3, texts);
        assert_eq!(ran.stdout(), "", "{args:?}");
    };
    check(
        &["describe", "request.csv"],
        &["could not read trace `request.csv`", "did you mean `requests.csv`?"],
    );
    check(&["describe", "plain.csv"], &["trace::unknown-format", "--time COLUMN"]);
    check(&["describe", "plain.csv", "--time", "wen", "--time-unit", "s"], &["did you mean `when`?"]);
    check(&["fit", "bad.csv"], &["line 3", "column `count`", "`x` is not a count"]);
    check(&["describe", "unsorted.csv"], &["trace::unsorted", "--sort accepts rows in any order"]);
    check(&["describe", "empty.csv"], &["is empty"]);
    check(&["describe", "no.parquet"], &["is not a Parquet file"]);
    check(&["describe", "folder"], &["holds no trace", "sub-folders are not read"]);
    check(&["import", "us-east-1a_v100_1.json", "--out", "a.csv"], &["a spot availability trace"]);
    assert!(!desk.path("a.csv").exists());
    desk.run(&["trace", "describe", "unsorted.csv", "--sort"]).ends(0, &[]);
}

#[test]
fn errors_are_json_when_results_are() {
    let desk = Desk::new(&[]);
    let ran = desk.run(&["trace", "describe", "absent.csv", "--json"]).ends(3, &[]);
    let errors: Value = serde_json::from_slice(&ran.output.stderr).unwrap();
    assert_eq!(errors["errors"][0]["code"], "trace::read");
    assert_eq!(ran.stdout(), "");
}

#[test]
fn description_has_its_fields_in_json_and_its_figures_in_text() {
    let desk = Desk::new(&[
        ("t.csv", "at,plan\n1000,free\n1500,paid\n4000,free\n"),
        ("z/us-east-1a_v100_1.json", ZONE),
        ("z/us-east-1b_v100_1.json", ZONE),
    ]);
    let mapped = ["trace", "describe", "t.csv", "--time", "at", "--time-unit", "ms"];
    let json = desk.run(&[&mapped[..], &["--json"]].concat()).json();
    assert_eq!(
        (json["count"].as_f64(), json["span_s"].as_f64(), json["mean_per_s"].as_f64()),
        (Some(3.0), Some(3.0), Some(1.0))
    );
    assert_eq!((json["peak_per_s"].as_f64(), json["peak_to_mean"].as_f64()), (Some(2.0), Some(2.0)));
    // Gaps of 0.5 s and 2.5 s: mean 1.5, standard deviation 1.
    assert!((json["cv"].as_f64().unwrap() - 1.0 / 1.5).abs() < 1e-12);
    let text = desk.run(&mapped).ends(0, &[]).stdout();
    assert!(text.contains("requests") && text.contains("2/s over 1s") && text.contains('█'), "{text}");
    let ascii = desk.command(&mapped).env("LC_ALL", "C").output().unwrap();
    assert!(ascii.stdout.is_ascii(), "{}", String::from_utf8_lossy(&ascii.stdout));
    let zones = desk.run(&["trace", "describe", "z", "--json"]).json();
    assert_eq!(zones["zones"].as_array().map(Vec::len), Some(2));
    let zones = desk.run(&["trace", "describe", "z"]).ends(0, &[]).stdout();
    assert!(zones.contains("us-east-1b") && zones.contains("1.00 to 1.00"), "{zones}");
}

#[test]
fn folder_of_traces_describes_what_it_can_and_ends_with_3() {
    let desk = Desk::new(&[
        ("d/a.csv", "time_s\n0\n1\n"),
        ("d/b.csv", "x,y\n1,2\n"),
        ("d/c.jsonl", "{\"time_s\":0}\n{\"time_s\":3}\n"),
    ]);
    let ran = desk.run(&["trace", "describe", "d", "--json"]).ends(3, &["d/b.csv"]);
    let described: Value = serde_json::from_str(&ran.stdout()).unwrap();
    assert_eq!(described.as_array().map(Vec::len), Some(2));
    assert_eq!(described[1]["span_s"], 3.0);
}

#[test]
fn imported_traces_need_no_mapping_and_describe_alike() {
    let desk = Desk::new(&[(
        "t.csv",
        "at,n\n2026-01-01 00:00:00,3\n2026-01-01 00:01:00,0\n2026-01-01 00:03:00,5\n",
    )]);
    for out in ["n.csv", "n.jsonl"] {
        let ran = desk.run(&[
            "trace",
            "import",
            "t.csv",
            "--time",
            "at",
            "--count",
            "n",
            "--count-bin",
            "1min",
            "--out",
            out,
        ]);
        let ran = ran.ends(0, &["wrote", "8 requests over 4min"]);
        assert_eq!(ran.stdout(), "");
        let (before, after) = (
            desk.run(&[
                "trace",
                "describe",
                "t.csv",
                "--time",
                "at",
                "--count",
                "n",
                "--count-bin",
                "1min",
                "--json",
            ])
            .json(),
            desk.run(&["trace", "describe", out, "--json"]).json(),
        );
        for field in ["count", "span_s", "start", "peak_per_s", "cv", "missing_bins", "resolution_s"] {
            assert_eq!(before[field], after[field], "{out} {field}");
        }
    }
    let piped = desk.run(&["trace", "import", "n.csv"]).ends(0, &[]).stdout();
    assert_eq!(piped, fs::read_to_string(desk.path("n.csv")).unwrap());
    let json = desk.run(&["trace", "import", "n.csv", "--out", "m.csv", "--json"]).json();
    assert_eq!((json["count"].as_f64(), json["rows"].as_u64()), (Some(8.0), Some(3)));
    desk.run(&["trace", "import", "n.csv", "--out", "absent/m.csv"]).ends(1, &["output::file", "absent"]);
    assert_eq!(desk.run(&["-q", "trace", "import", "n.csv", "--out", "q.csv"]).ends(0, &[]).stderr(), "");
    let left = fs::read_dir(desk.folder.path()).unwrap().count();
    assert_eq!(left, ["t.csv", "n.csv", "n.jsonl", "m.csv", "q.csv"].len(), "no part of a file stays behind");
}

/// A request of a Parquet trace.
#[derive(Clone)]
struct Request {
    at_s: f64,
    class: &'static str,
}

static REQUESTS: Table<Request> = Table {
    name: "requests",
    columns: &[
        Column { name: "time_s", cell: Cell::F64(|row| row.at_s) },
        Column { name: "at_ms", cell: Cell::U64(|row| (row.at_s * 1e3) as u64) },
        Column { name: "class", cell: Cell::Text(|row| row.class) },
    ],
};

#[test]
fn parquet_traces_are_read_with_and_without_a_mapping() {
    let desk = Desk::new(&[("s.toml", SCENARIO), ("z/us-east-1a_v100_1.json", ZONE)]);
    let provenance = Provenance { origin: Origin::Simulated, facts: Vec::new() };
    let rows = [(0.0, "free"), (1.5, "paid"), (4.0, "free")].map(|(at_s, class)| Request { at_s, class });
    write_table(desk.folder.path(), &REQUESTS, &provenance, &rows).unwrap();
    let describe = ["trace", "describe", "requests.parquet", "--json"];
    for mapping in [&[][..], &["--time", "at_ms", "--time-unit", "ms"]] {
        let json = desk.run(&[&describe[..], mapping].concat()).json();
        assert_eq!((json["count"].as_f64(), json["span_s"].as_f64()), (Some(3.0), Some(4.0)), "{mapping:?}");
        assert_eq!(json["sha256"].as_str().map(str::len), Some(64));
    }
    let columns = [&describe[..3], &["--time", "at_m", "--time-unit", "ms"]].concat();
    desk.run(&columns).ends(3, &["trace::missing-column", "did you mean `at_ms`?"]);
    desk.run(&[&describe[..3], &["--time", "at_ms"]].concat()).ends(3, &["--time-unit"]);
    desk.run(&["trace", "import", "requests.parquet", "--out", "n.csv"]).ends(0, &["3 requests over 4s"]);
    assert_eq!(fs::read_to_string(desk.path("n.csv")).unwrap(), "time_s,class\n0,free\n1.5,paid\n4,free\n");
    let validate = ["validate", "s.toml", "--spot-trace", "z", "--trace", "requests.parquet"];
    desk.run(&validate).ends(0, &[]);
    let whole = fs::read(desk.path("requests.parquet")).unwrap();
    fs::write(desk.path("requests.parquet"), &whole[..whole.len() / 2]).unwrap();
    desk.run(&validate).ends(3, &["requests.parquet` is cut off"]);
}

#[test]
fn import_keeps_the_old_file_when_the_new_one_fails() {
    let desk = Desk::new(&[("t.csv", "time_s\n0\noops\n"), ("out.csv", "kept")]);
    desk.run(&["trace", "import", "t.csv", "--out", "out.csv"]).ends(3, &["line 3"]);
    assert_eq!(fs::read_to_string(desk.path("out.csv")).unwrap(), "kept");
}

#[test]
fn fitted_section_is_taken_by_a_scenario() {
    let times: String = (0..600).map(|second| format!("{}\n", f64::from(second) * 0.5)).collect();
    let desk = Desk::new(&[("t.csv", &format!("time_s\n{times}"))]);
    let ran = desk.run(&["trace", "fit", "t.csv"]).ends(0, &["chosen"]);
    let rest =
        SCENARIO.split("[[pipeline.stage]]").nth(1).unwrap().split("[fleet.pool.cheap]").next().unwrap();
    fs::write(desk.path("s.toml"), format!("{}\n[[pipeline.stage]]{rest}", ran.stdout())).unwrap();
    desk.run(&["validate", "s.toml"]).ends(0, &[]);
    let json = desk.run(&["trace", "fit", "t.csv", "--json"]).json();
    assert_eq!(json["shape"]["kind"], "constant");
    assert_eq!(json["toml"], ran.stdout());
}

#[test]
fn scenarios_are_checked_with_place_and_remedy() {
    let good =
        SCENARIO.replace("count_max = 10\n", "count_max = 10\ninterruption = { hazard_per_hour = 0.1 }\n");
    let bad = good.replace("count = 10", "cuont = 10");
    let desk = Desk::new(&[("good.toml", &good), ("bad.toml", &bad)]);
    let ran = desk.run(&["validate", "good.toml"]).ends(0, &[]);
    assert!(
        ran.stdout().starts_with("good.toml: valid; `good`, 1 source, 1 stage, 2 pools (1 spot)"),
        "{}",
        ran.stdout()
    );
    desk.run(&["validate", "bad.toml"])
        .ends(3, &["scenario::unknown-key", "bad.toml:14:1", "did you mean `count`?"]);
    desk.run(&["validate", "godo.toml"])
        .ends(3, &["could not read scenario `godo.toml`", "did you mean `good.toml`?"]);
    desk.run(&["validate", "good.toml", "--set", "run.sed=2"]).ends(3, &["run.sed", "did you mean `seed`?"]);
    desk.run(&["validate", "good.toml", "--set", "nonsense"]).ends(3, &["scenario::override"]);
    let json = desk.run(&["validate", "good.toml", "bad.toml", "--json"]).ends(3, &[]);
    let verdicts: Value = serde_json::from_str(&json.stdout()).unwrap();
    assert_eq!(
        (&verdicts["files"][0]["valid"], &verdicts["files"][1]["valid"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
    assert_eq!(verdicts["files"][1]["errors"][0]["line"], 14);
}

#[test]
fn traces_given_as_flags_are_read_with_the_scenario() {
    let desk = Desk::new(&[
        ("s/s.toml", SCENARIO),
        ("t.csv", "time_s\n0\n1\n"),
        ("bad.csv", "when\n0\n"),
        ("z/us-east-1a_v100_1.json", ZONE),
        ("other/eu-west-1a_v100_1.json", ZONE),
    ]);
    desk.run(&["validate", "s/s.toml"]).ends(3, &["does not say how it is interrupted"]);
    let args = ["validate", "s/s.toml", "--trace", "t.csv", "--spot-trace"];
    desk.run(&[&args[..], &["z"]].concat())
        .ends(0, &["pool `cheap` follows", "us-east-1a_v100_1.json", "the same zone"]);
    desk.run(&[&args[..], &["other"]].concat())
        .ends(0, &["eu-west-1a_v100_1.json", "no file for us-east-1a"]);
    desk.run(&[&args[..], &["absent"]].concat()).ends(3, &["absent"]);
    let spot = ["validate", "s/s.toml", "--spot-trace", "z"];
    desk.run(&[&spot[..], &["--trace", "users=t.csv"]].concat()).ends(0, &[]);
    desk.run(&[&spot[..], &["--trace", "user=t.csv"]].concat()).ends(3, &["did you mean `users`?"]);
    desk.run(&[&spot[..], &["--trace", "absent.csv"]].concat())
        .ends(3, &["could not read trace `absent.csv`"]);
    desk.run(&[&spot[..], &["--trace", "bad.csv"]].concat()).ends(3, &["headroom trace import"]);
}

#[test]
fn prices_carry_source_and_date() {
    let desk = Desk::new(&[]);
    let rows = desk
        .run(&["prices", "show", "--provider", "aws", "--region", "us-east-1", "--instance", "g5", "--json"])
        .json();
    let rows = rows.as_array().unwrap();
    assert!(
        rows.iter().any(|row| row["instance_type"] == "g5.xlarge" && row["capacity_type"] == "on-demand")
    );
    for row in rows {
        assert!(row["price_usd_per_hour"].as_f64().unwrap() > 0.0);
        assert!(
            row["as_of"].as_str().unwrap().starts_with("20") && !row["source"].as_str().unwrap().is_empty(),
            "{row}"
        );
    }
    let text =
        desk.run(&["prices", "show", "--accelerator", "l4", "--capacity-type", "spot"]).ends(0, &[]).stdout();
    assert!(text.contains("USD/h") && text.contains("Sources:\n[1] "), "{text}");
    desk.run(&["prices", "show", "--region", "us-eats-1"]).ends(3, &["did you mean `us-east-1`?"]);
    let none = desk.run(&["prices", "show", "--provider", "gcp", "--region", "us-east-1", "--json"]).json();
    assert_eq!(none, Value::Array(Vec::new()));
}

#[test]
fn schema_and_completions_are_printed() {
    let desk = Desk::new(&[]);
    assert_eq!(desk.run(&["schema"]).json()["title"], "headroom scenario");
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.run(&["completions", shell]).ends(0, &[]).stdout();
        assert!(script.contains("describe") && script.contains("validate"), "{shell}");
    }
}

#[test]
fn reader_that_leaves_is_no_error() {
    let desk = Desk::new(&[]);
    let mut child =
        desk.command(&["prices", "show"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    // The table is longer than a pipe holds, so the program still writes when its reader is gone.
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
    assert!(first.starts_with("provider"), "{first}");
}

#[cfg(unix)]
#[test]
fn interrupt_ends_with_130() {
    let desk = Desk::new(&[]);
    let pipe = desk.path("endless.csv");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child =
        desk.command(&["trace", "describe", "endless.csv"]).stderr(Stdio::null()).spawn().unwrap();
    // Opening the other end waits until the program reads: from then on it listens.
    let writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(writer);
}

#[test]
fn public_traces_are_described() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces");
    let folder = std::env::var_os("HEADROOM_TRACES").map_or(default, PathBuf::from);
    if !folder.is_dir() {
        println!("skipped: traces not found at {}", folder.display());
        return;
    }
    let desk = Desk::new(&[]);
    let azure = folder.join("2_llm_requests/AzureLLMInferenceTrace_conv.csv");
    let azure = azure.to_str().unwrap();
    let json = desk.run(&["trace", "describe", azure, "--json"]).json();
    assert_eq!(json["count"], 19_366.0);
    desk.run(&["trace", "import", azure, "--out", "azure.csv"]).ends(0, &["19,366 requests"]);
    let again = desk.run(&["trace", "describe", "azure.csv", "--json"]).json();
    for field in ["count", "span_s", "peak_per_s", "cv", "start"] {
        assert_eq!(json[field], again[field], "{field}");
    }
    let zones = folder.join("4_spot_availability/aws-02-15-2023_p3.2xlarge_1node");
    let json = desk.run(&["trace", "describe", zones.to_str().unwrap(), "--json"]).json();
    assert_eq!(json["zones"].as_array().map(Vec::len), Some(9));
}
