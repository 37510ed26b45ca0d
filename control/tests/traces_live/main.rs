//! Traces of jobs as a collector gets them, from a whole service and real workers.

mod collector;
mod house;
#[path = "../scene/mod.rs"]
mod scene;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use control::effect::JobState;
use control::trace::TraceSettings;
use policy::records::JobOutcome;
use serde_json::json;
use tokio::net::TcpListener;

use collector::{Collector, Seen};
use house::{House, SOON, traces};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// Clocks of a plane and a worker on one machine differ by less, nanoseconds.
const CLOCKS_APART: u64 = 50_000_000;

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CLIENT}-{flags}")
}

fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

/// Asserts that `child` lies within `parent` and hangs at it.
fn is_within(child: &Seen, parent: &Seen) {
    assert_eq!((&child.parent, &child.trace), (&parent.span, &parent.trace), "{child:?}\n{parent:?}");
    assert!(child.began <= child.ended);
    assert!(child.began + CLOCKS_APART >= parent.began, "{child:?}\n{parent:?}");
    assert!(child.ended <= parent.ended + CLOCKS_APART, "{child:?}\n{parent:?}");
}

/// A receiver of webhooks that fails once.
async fn receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let calls = Arc::new(AtomicU64::new(0));
    let answer = async move || match calls.fetch_add(1, Ordering::Relaxed) {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    tokio::spawn(async move {
        let _ = axum::serve(listener, axum::Router::new().fallback(answer)).await;
    });
    format!("http://{address}/hook")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_of_a_client_that_traces_is_one_trace_from_its_span_to_the_webhook() {
    let collector = Collector::start().await;
    let house = House::open(traces(&collector.url(), 0.0)).await;
    let worker = house.employ(&collector.url());
    let hook = receiver().await;
    let before = unix_nanos();
    let payload = json!({ "service_s": 0.3, "progress": 4 });
    let job = house.submit(payload, Some(&traceparent("01")), Some(&hook)).await;
    let record = house.end(job).await;
    assert_eq!(record.outcome, JobOutcome::Done);
    let counts = [("job", 1), ("queue", 1), ("attempt", 1), ("run", 1), ("webhook", 2)];
    let spans = collector.until(&counts).await;
    let after = unix_nanos();

    let (root, queue, attempt) = (&spans["job"][0], &spans["queue"][0], &spans["attempt"][0]);
    let (run, hooks) = (&spans["run"][0], &spans["webhook"]);
    assert_eq!((root.trace.as_str(), root.parent.as_str()), (TRACE, CLIENT));
    assert!(before <= root.began + CLOCKS_APART && root.ended <= after + CLOCKS_APART);
    is_within(queue, root);
    is_within(attempt, root);
    is_within(run, attempt);
    assert_eq!((queue.began, queue.ended), (root.began, attempt.began), "it waited until it was leased");
    assert_eq!(attempt.ended, root.ended);
    assert!(run.ended - run.began >= 290_000_000, "the work took 0.3 s: {run:?}");

    assert_eq!(root.error, None);
    for (name, value) in [
        ("headroom.job", job.to_string().as_str()),
        ("headroom.class", "default"),
        ("headroom.tenant", &record.tenant.to_string()),
        ("headroom.outcome", "done"),
        ("headroom.deliveries", "1"),
    ] {
        assert_eq!(root.attribute(name), value, "{name}: {root:?}");
    }
    assert!(!root.attribute("headroom.region").is_empty() && !root.attribute("headroom.quality").is_empty());
    for (name, value) in [
        ("headroom.pool", "gpu"),
        ("headroom.delivery", "1"),
        ("headroom.stage", "generate"),
        ("headroom.end", "done"),
    ] {
        assert_eq!(attempt.attribute(name), value, "{name}: {attempt:?}");
    }
    assert_eq!(attempt.attribute("headroom.worker").len(), 32);
    assert!(!attempt.attribute("headroom.session").is_empty());
    assert_eq!(run.attribute("headroom.steps"), "4");
    assert_eq!((hooks[0].parent.as_str(), hooks[1].parent.as_str()), (&*root.span, &*root.span));
    assert!(hooks[0].began + CLOCKS_APART >= root.ended && hooks[1].began >= hooks[0].ended);
    assert!(hooks[0].error.as_deref().is_some_and(|why| why.contains("503")), "{:?}", hooks[0]);
    assert_eq!((&hooks[1].error, hooks[1].attribute("headroom.webhook.attempt")), (&None, "2"));
    assert_eq!(root.resource["service.name"], "headroom");
    assert_eq!(run.resource["service.name"], "headroom-worker");

    assert!(house.metric("headroom_trace_spans_exported_total ").await.is_some_and(|count| count >= 3.0));
    let dropped = house.metric("headroom_trace_spans_dropped_total{reason=\"not-taken\"}").await;
    assert_eq!(dropped, Some(0.0));
    worker.dismiss().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_with_a_model_tells_what_it_fetched_ran_and_uploaded() {
    let collector = Collector::start().await;
    let house = House::open(traces(&collector.url(), 0.0)).await;
    let model = house.folder.path().join("tiny");
    gpu_runtime::generate::make_tiny(&model, 1).expect("a tiny model");
    let worker = house.employ_with(&collector.url(), &model);
    let payload = json!({ "prompt": "the cat", "seed": 3, "frames": 1, "steps": 2 });
    let first = house.submit(payload.clone(), None, None).await;
    let record = house.end(first).await;
    assert_eq!(record.outcome, JobOutcome::Done, "{}", String::from_utf8_lossy(&record.result));
    let body = json!({ "payload": payload, "inputs": record.objects });
    let second = house.submit_body(body, Some(&traceparent("01")), None).await;
    let record = house.end(second).await;
    assert_eq!(record.outcome, JobOutcome::Done, "{}", String::from_utf8_lossy(&record.result));
    let counts = [("job", 1), ("queue", 1), ("attempt", 1), ("fetch", 1), ("run", 1), ("upload", 1)];
    let spans = collector.until(&counts).await;
    let parts = ["fetch", "run", "upload"].map(|name| &spans[name][0]);
    for part in parts {
        is_within(part, &spans["attempt"][0]);
        assert_eq!(part.error, None);
    }
    assert!(parts.is_sorted_by(|before, after| before.ended <= after.began), "{parts:#?}");
    assert!(!parts[1].attribute("headroom.steps").is_empty(), "the model tells its steps: {parts:#?}");
    worker.dismiss().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_whose_worker_dies_has_two_attempts() {
    let collector = Collector::start().await;
    let house = House::open(traces(&collector.url(), 1.0)).await;
    let first = house.employ(&collector.url());
    let job = house.submit(json!({ "service_s": 0.6 }), None, None).await;
    house.until(JobState::Running, job).await;
    first.die().await;
    house.until(JobState::Queued, job).await;
    let second = house.employ(&collector.url());
    assert_eq!(house.end(job).await.deliveries, 2);
    let spans = collector.until(&[("job", 1), ("queue", 2), ("attempt", 2), ("run", 1)]).await;

    let (root, queues, attempts) = (&spans["job"][0], &spans["queue"], &spans["attempt"]);
    assert!(root.parent.is_empty(), "nobody began it before us: {root:?}");
    for part in queues.iter().chain(attempts) {
        is_within(part, root);
    }
    let ends: Vec<&str> = attempts.iter().map(|attempt| attempt.attribute("headroom.end")).collect();
    assert_eq!(ends, ["lost", "done"]);
    assert_eq!((attempts[0].error.as_deref(), attempts[1].error.as_deref()), (Some("lost"), None));
    let turns: Vec<u64> = [&queues[0], &attempts[0], &queues[1], &attempts[1]]
        .iter()
        .flat_map(|part| [part.began, part.ended])
        .collect();
    assert!(turns.is_sorted(), "it waits and runs in turns: {turns:?}");
    is_within(&spans["run"][0], &attempts[1]);
    let mut ids: Vec<&str> = spans.values().flatten().map(|span| span.span.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6, "every span has its own id");
    second.dismiss().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_and_cancelled_jobs_are_errors() {
    let collector = Collector::start().await;
    let house = House::open(traces(&collector.url(), 1.0)).await;
    let worker = house.employ(&collector.url());
    let failed = house.submit(json!({ "service_s": 0.05, "fail": "no cat in it" }), None, None).await;
    let cancelled = house.submit(json!({ "service_s": 30 }), None, None).await;
    house.until(JobState::Running, cancelled).await;
    house.cancel(cancelled).await;
    house.end(failed).await;
    house.end(cancelled).await;
    let spans = collector.until(&[("job", 2), ("queue", 2), ("attempt", 2), ("run", 1)]).await;
    let of = |name: &str, job: control::number::JobNumber| {
        let mine = |span: &&Seen| span.attribute("headroom.job") == job.to_string();
        spans[name].iter().find(mine).cloned().unwrap_or_else(|| panic!("no {name} of {job}: {spans:#?}"))
    };
    assert_eq!(of("job", failed).error.as_deref(), Some(JobOutcome::Failed.name()));
    assert_eq!(of("attempt", failed).attribute("headroom.end"), "failed-for-good");
    assert_eq!(of("run", failed).error.as_deref(), Some("no cat in it"));
    let outcome = of("job", cancelled).attribute("headroom.outcome").to_owned();
    assert_eq!(of("job", cancelled).error, Some(outcome));
    assert_eq!(of("attempt", cancelled).attribute("headroom.end"), "revoked");
    worker.dismiss().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_nobody_wants_traced_are_not() {
    let collector = Collector::start().await;
    for (ratio, traceparent) in [(0.0, None), (1.0, Some(traceparent("00")))] {
        let house = House::open(traces(&collector.url(), ratio)).await;
        let worker = house.employ(&collector.url());
        let job = house.submit(json!({ "service_s": 0.02 }), traceparent.as_deref(), None).await;
        house.end(job).await;
        worker.dismiss().await;
        house.close().await; // sends what there is
    }
    tokio::time::sleep(Duration::from_millis(1500)).await; // a worker's spans gather for a second
    assert_eq!(collector.seen(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_though_the_collector_is_down_and_drops_are_counted() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let house = House::open(traces(&nobody, 1.0)).await;
    let worker = house.employ(&nobody);
    let job = house.submit(json!({ "service_s": 0.02 }), None, None).await;
    assert_eq!(house.end(job).await.outcome, JobOutcome::Done);
    let until = tokio::time::Instant::now() + SOON;
    let line = "headroom_trace_spans_dropped_total{reason=\"not-taken\"}";
    while house.metric(line).await.expect("it is on the page") < 3.0 {
        assert!(tokio::time::Instant::now() < until, "the drops are not counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(house.metric("headroom_trace_spans_exported_total ").await, Some(0.0));
    worker.dismiss().await;
    let closing = tokio::time::Instant::now();
    house.close().await;
    assert!(closing.elapsed() < Duration::from_secs(20), "a dead collector holds up nobody's end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_goes_on_over_a_restart_of_the_plane() {
    let collector = Collector::start().await;
    let house = House::open(traces(&collector.url(), 1.0)).await;
    let worker = house.employ(&collector.url());
    let running = house.submit(json!({ "service_s": 2.0 }), Some(&traceparent("01")), None).await;
    house.until(JobState::Running, running).await;
    let (folder, address) = house.close().await;
    let house = House::open_in(folder, address, traces(&collector.url(), 1.0)).await;
    assert_eq!(house.end(running).await.deliveries, 1);
    let spans = collector.until(&[("job", 1), ("queue", 1), ("attempt", 1), ("run", 1)]).await;
    let (root, attempt, run) = (&spans["job"][0], &spans["attempt"][0], &spans["run"][0]);
    assert_eq!((root.trace.as_str(), root.parent.as_str()), (TRACE, CLIENT));
    assert_eq!(spans["queue"][0].parent, root.span, "the plane before made the same id");
    assert_eq!(run.parent, attempt.span, "and gave it to the worker");
    assert_eq!(attempt.attribute("headroom.resumed"), "true");
    assert!(run.began < attempt.began, "when it began is not known to the second plane");
    assert!(root.ended - root.began >= 1_900_000_000, "the job's times are known: {root:?}");
    worker.dismiss().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_variables_are_honoured() {
    let collector = Collector::start().await;
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["process_that_serves", "--exact", "--ignored", "--nocapture"])
        .env("HEADROOM_TEST_SERVES", "1")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret")
        .env("OTEL_SERVICE_NAME", "dances")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other")
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    let spans = collector.until(&[("job", 1), ("queue", 1)]).await;
    let root = &spans["job"][0];
    assert_eq!(root.resource["service.name"], "dances");
    assert_eq!(root.resource["deployment.environment.name"], "test");
    assert!(collector.headers().iter().all(|headers| headers["x-token"] == "secret"));
    let ended = tokio::task::spawn_blocking(move || child.wait()).await.expect("no panic");
    assert!(ended.expect("a child").success());
}

/// A plane in a process of its own, traced by its environment; does nothing by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "begun by another test, as a process of its own"]
async fn process_that_serves() {
    if std::env::var("HEADROOM_TEST_SERVES").is_err() {
        return;
    }
    let settings = TraceSettings::wished(None, 1.0);
    assert!(settings.is_some(), "the environment names a collector");
    let house = House::open(settings).await;
    let job = house.submit(json!({}), None, None).await;
    house.cancel(job).await;
    house.end(job).await;
    house.close().await;
}
