//! A rehearsal whose machines are instances of EC2, against moto: `control/tests/aws/run` starts that.
#![cfg(feature = "aws")]

#[path = "../control/tests/aws/place.rs"]
mod place;
mod ran;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use place::moto;
use ran::{Ran, headroom};

/// Ten minutes in ten seconds, on machines of which some are taken away.
const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "0.25/s" }

[[pipeline.stage]]
name = "render"
pool = "gpu"
time = "12s"

[fleet.pool.main]
class = "gpu"
provider = "aws"
region = "us-east-1"
instance_type = "g6.xlarge"
capacity_type = "spot"
count = 4
count_max = 8
startup = { boot = "40s", weights = "20s" }
interruption = { hazard_per_hour = 20.0 }

[policy.purchase]
kind = "pool-order"

[policy.scaling]
kind = "target-tracking"

[run]
horizon = "10min"
"#;

/// The answer to a call of EC2, as XML.
fn ec2(url: &str, call: &str) -> String {
    let host = url.trim_start_matches("http://").trim_end_matches('/');
    let mut socket = TcpStream::connect(host).expect("moto listens");
    let body = format!("{call}&Version=2016-11-15");
    let credential = "Credential=x/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=x";
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 {credential}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// Instances of a plane in a state.
fn instances(url: &str, plane: &str, state: &str) -> usize {
    let filters = format!(
        "Filter.1.Name=tag:headroom:plane&Filter.1.Value.1={plane}&Filter.2.Name=instance-state-name&Filter.2.Value.1={state}"
    );
    let answer = ec2(url, &format!("Action=DescribeInstances&MaxResults=1000&{filters}"));
    answer.matches("<instanceId>").count()
}

/// A folder with a scenario and the settings of a plane on moto.
fn house(url: &str, plane: &str) -> tempfile::TempDir {
    ec2(
        url,
        &format!(
            "Action=CreateLaunchTemplate&LaunchTemplateName={plane}&LaunchTemplateData.ImageId=ami-12c6146b"
        ),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let settings = format!(
        "plane = \"{plane}\"\njoin_url = \"http://127.0.0.1:1\"\n[pools.main]\nlaunch_template = \"{plane}\"\n"
    );
    for (name, text) in [("launch.toml", SCENARIO), ("ec2.toml", &settings)] {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}

fn rehearse(folder: &Path, url: &str) -> Child {
    let mut command =
        headroom(folder, &["rehearse", "launch.toml", "--ec2", "ec2.toml", "--compress", "60", "--json"]);
    command
        .envs([("AWS_ENDPOINT_URL", url), ("AWS_REGION", "us-east-1")])
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

fn plane(name: &str) -> String {
    format!("rehearsal-{name}-{}", std::process::id())
}

#[test]
fn every_machine_of_a_rehearsal_is_an_instance_and_none_is_left() {
    let Some(url) = moto() else { return };
    let plane = plane("whole");
    let folder = house(&url, &plane);
    let output = rehearse(folder.path(), &url).wait_with_output().expect("its output");
    let found = Ran { args: "rehearse --ec2".to_owned(), output }.json();
    let live = &found["live"];
    assert!(live["arrived"].as_f64().is_some_and(|arrived| arrived > 100.0), "{found}");
    assert_eq!(live["arrived"], live["done"], "every job was done: {found}");
    let peak = live["pools"][0]["peak_instances"].as_f64().expect("a figure") as usize;
    let ended = instances(&url, &plane, "terminated");
    assert!(ended >= peak && peak >= 4, "each machine was an instance: {ended} of them, {peak} at once");
    assert_eq!(instances(&url, &plane, "running") + instances(&url, &plane, "pending"), 0);
}

#[test]
fn an_interrupted_rehearsal_leaves_no_instance() {
    let Some(url) = moto() else { return };
    let plane = plane("broken-off");
    let folder = house(&url, &plane);
    let child = rehearse(folder.path(), &url);
    let until = Instant::now() + Duration::from_secs(60);
    while instances(&url, &plane, "running") < 4 {
        assert!(Instant::now() < until, "no instances");
        std::thread::sleep(Duration::from_millis(100));
    }
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(told.success());
    let output = child.wait_with_output().expect("its output");
    Ran { args: "rehearse --ec2".to_owned(), output }.ends(130, &["was interrupted"]);
    assert_eq!(instances(&url, &plane, "running") + instances(&url, &plane, "pending"), 0);
}

#[test]
fn settings_that_do_not_fit_the_scenario_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::write(at.join("launch.toml"), SCENARIO).expect("a scenario");
    std::fs::write(
        at.join("ec2.toml"),
        "join_url = \"http://127.0.0.1:1\"\n[pools.gpu]\nlaunch_template = \"x\"\n",
    )
    .expect("settings");
    let run = |settings: &str| Ran::of(&mut headroom(at, &["rehearse", "launch.toml", "--ec2", settings]));
    run("ec2.toml").ends(3, &["pool `gpu`", "the scenario has main"]);
    run("nowhere.toml").ends(3, &["nowhere.toml", "cannot be read"]);
}
