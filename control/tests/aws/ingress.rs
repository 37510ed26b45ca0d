//! Jobs from a queue.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_sqs::types::Message;
use control::clock::{Clock, unix_ms};
use control::engine::Engine;
use control::ingress::sqs::{SqsIngress, SqsSettings};
use control::ingress::{Tenant, parse_by};
use control::plane::{Patience, Rules};
use control::shell::{Handle, Outlets, start};
use control::store::{Disk, DiskStore};
use tokio::sync::watch;

use super::fake::{Fake, Fault};
use super::setup::{SOON, sqs};

const SCENARIO: &str = r#"
    [[workload.source]]
    name = "users"
    arrivals = { kind = "constant", rate = "1/s" }
    [[pipeline.stage]]
    name = "generate"
    pool = "gpu"
    time = "1s"
    [fleet.pool.gpu]
    provider = "aws"
    region = "us-east-1"
    instance_type = "g6.xlarge"
    [objective]
    deadline = "5min"
    [run]
    horizon = "1h"
    "#;

/// A plane without a fleet: jobs wait in it.
fn plane() -> (Handle, control::ingress::Parse) {
    let loaded = scenarios::load_str("test", SCENARIO, std::path::Path::new("."), &[]).expect("a scenario");
    let rules = Rules::new(&loaded.scenario, 0, [7; 32], Patience::default()).expect("rules");
    let names = control::api::Names::of(&rules);
    let engine = Engine::open(DiskStore::open(&Disk::default()), rules, unix_ms()).expect("an engine");
    let clock = Clock::starting(engine.plane().last());
    let (outlets, orders, webhooks) = Outlets::new(engine.plane().epoch());
    std::mem::forget((orders, webhooks));
    let (handle, _thread) = start(engine, clock, outlets).expect("a thread");
    (handle, parse_by(names))
}

fn settings(queue: &str, results: Option<&str>, jobs_max: u32) -> SqsSettings {
    SqsSettings {
        queue: queue.to_owned(),
        results: results.map(str::to_owned),
        tenant: Tenant { id: 5, jobs_max },
        pollers: 2,
        hidden: Duration::from_secs(1),
    }
}

async fn send(client: &aws_sdk_sqs::Client, queue: &str, body: &str) {
    client.send_message().queue_url(queue).message_body(body).send().await.expect("sent");
}

async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + SOON;
    while !reached().await {
        assert!(tokio::time::Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn receive(client: &aws_sdk_sqs::Client, queue: &str) -> Vec<Message> {
    let request = client.receive_message().queue_url(queue).max_number_of_messages(10).wait_time_seconds(1);
    request.send().await.expect("messages").messages.unwrap_or_default()
}

async fn jobs(handle: &Handle) -> usize {
    handle.list(Some(5), None, 100).await.expect("a list").jobs.len()
}

/// Messages become jobs, once; what is no job goes to the dead letters; ends go to the queue of results.
pub(crate) async fn everything(client: &aws_sdk_sqs::Client, queue: &str, results: &str, dead: &str) {
    let (handle, parse) = plane();
    let ingress = SqsIngress::new(client.clone(), settings(queue, Some(results), 100), handle.clone(), parse);
    let counts = ingress.counts();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(ingress.run(stopped));
    for number in 0..12 {
        send(client, queue, &format!(r#"{{"payload": {{"number": {number}}}}}"#)).await;
    }
    send(client, queue, "{}").await;
    send(client, queue, r#"{"payload": 1, "class": "no-such-class"}"#).await;
    until("jobs", async || jobs(&handle).await == 12).await;
    until("deletions", async || counts.accepted.load(Ordering::Relaxed) == 12).await;
    let mut letters = Vec::new();
    until("dead letters", async || {
        letters.extend(receive(client, dead).await);
        letters.len() >= 2
    })
    .await;
    assert_eq!(counts.malformed.load(Ordering::Relaxed), 4, "two messages, received twice each");
    // The end of one of them.
    let job = handle.list(Some(5), None, 1).await.expect("a list").jobs[0].job;
    let cancel = control::command::Command::Cancel { job, tenant: Some(5) };
    handle.ask(cancel).await.expect("an answer");
    let mut ends = Vec::new();
    until("a result", async || {
        ends.extend(receive(client, results).await);
        !ends.is_empty()
    })
    .await;
    let end: serde_json::Value = serde_json::from_str(ends[0].body().expect("a body")).expect("JSON");
    assert_eq!(
        (end["job"].as_str(), end["state"].as_str()),
        (Some(job.to_string().as_str()), Some("cancelled"))
    );
    stop.send_replace(true);
    tokio::time::timeout(SOON, task).await.expect("it stops").expect("it ends");
    assert_eq!(jobs(&handle).await, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_queue_and_the_ingress_agree() {
    let fake = Fake::start().await;
    let url = |name: &str| format!("{}/1/{name}", fake.url());
    fake.account().queues.queue(&url("jobs")).redrive = Some((2, url("dead")));
    everything(&sqs(&fake.url()).await, &url("jobs"), &url("results"), &url("dead")).await;
    assert!(fake.account().queues.queue(&url("jobs")).messages.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_twice_is_one_job() {
    let fake = Fake::start().await;
    let queue = format!("{}/1/jobs", fake.url());
    let (handle, parse) = plane();
    // Its deletion never arrives: the message becomes visible again.
    for _ in 0..2 {
        fake.account().faults.push_back(("DeleteMessageBatch", Fault::Error(500, "InternalFailure")));
    }
    let ingress = SqsIngress::new(sqs(&fake.url()).await, settings(&queue, None, 100), handle.clone(), parse);
    let counts = ingress.counts();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(ingress.run(stopped));
    fake.account().queues.send(&queue, r#"{"payload": {}}"#);
    until("deletion", async || fake.account().queues.queue(&queue).messages.is_empty()).await;
    assert_eq!((counts.received.load(Ordering::Relaxed), jobs(&handle).await), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_turned_away_stays_in_the_queue_and_comes_again() {
    let fake = Fake::start().await;
    let queue = format!("{}/1/jobs", fake.url());
    let (handle, parse) = plane();
    let ingress = SqsIngress::new(sqs(&fake.url()).await, settings(&queue, None, 1), handle.clone(), parse);
    let counts = ingress.counts();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(ingress.run(stopped));
    for _ in 0..2 {
        fake.account().queues.send(&queue, r#"{"payload": {}}"#);
    }
    until("a rejection", async || counts.rejected.load(Ordering::Relaxed) > 0).await;
    assert_eq!(jobs(&handle).await, 1);
    assert_eq!(fake.account().queues.queue(&queue).messages.len(), 1);
    let job = handle.list(Some(5), None, 1).await.expect("a list").jobs[0].job;
    let cancel = control::command::Command::Cancel { job, tenant: None };
    handle.ask(cancel).await.expect("an answer");
    until("the other", async || fake.account().queues.queue(&queue).messages.is_empty()).await;
    assert_eq!(jobs(&handle).await, 1);
}
