//! Too much work, and a disk without room.

use std::time::Duration;

use control::api::Limits;
use control::store::DiskFault;

use crate::house::{House, Plan, until};

const HOLD: &str = r#"{"payload":{"hold":true}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let house = House::with(Plan { jobs_max: 5, ..Plan::default() }).await;
    let mut client = house.client().await;
    for _ in 0..5 {
        assert_eq!(client.post("/v1/jobs", HOLD).await.status, 202);
    }
    let reply = client.post("/v1/jobs?wait=5", HOLD).await;
    let problem = reply.is_problem(429, "queue-full");
    let after = reply.header("retry-after").expect("when").parse::<u64>().expect("seconds");
    assert!(after >= 1);
    assert_eq!(problem["retry_after_s"], after);
    let batch = client.post("/v1/jobs/batch", &format!("[{HOLD},{HOLD}]")).await.json();
    assert_eq!(batch["jobs"][1]["status"], 429);
    until("some are held", || house.bench().held().len() == 4).await;
    house.bench().release().await;
    until("there is room", || house.handle.figures().jobs < 5).await;
    assert_eq!(client.post("/v1/jobs", HOLD).await.status, 202);
    let metrics = client.get("/metrics").await.text();
    assert!(
        metrics.contains(r#"headroom_jobs_submitted_total{class="dance",outcome="queue-full"} 3"#),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_nothing_is_accepted_and_nothing_is_lost() {
    let house = House::open().await;
    let mut client = house.client().await;
    assert_eq!(client.get("/readyz").await.status, 200);
    let (key, body) = ([("idempotency-key", "kept")], r#"{"payload":"kept"}"#);
    let mut waiting = house.client().await;
    house.disk.fail_next(DiskFault::Full);
    waiting.send("POST", "/v1/jobs?wait=60", &key, body).await;
    let mut saw_refusal = false;
    for _ in 0..2_000 {
        if client.get("/readyz").await.status == 503 {
            let reply = client.post("/v1/jobs", r#"{"payload":1}"#).await;
            saw_refusal |= reply.status == 503 && reply.header("retry-after").is_some();
            let verbose = client.get("/readyz?verbose").await.text();
            assert!(verbose.contains("journal-writable"), "{verbose}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(saw_refusal, "a plane without room refuses");
    let mut reply = waiting.reply("POST").await;
    // The fault may have hit a beat of the worker just before: then the API refused at once, and took nothing.
    let mut tries = 0;
    while client.get("/readyz").await.status != 200 {
        tries += 1;
        assert!(tries < 600, "it goes on by itself");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if reply.status == 503 {
        reply = client.ask("POST", "/v1/jobs?wait=60", &key, body).await;
    }
    assert_eq!(reply.json()["result"], "kept", "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_that_is_silent_for_long_loses_no_job() {
    let limits = Limits { plane_patience: Duration::from_millis(200), ..Limits::default() };
    let house = House::with(Plan { limits, ..Plan::default() }).await;
    let mut client = house.client().await;
    until("the worker is ready", || house.handle.figures().pools.first().is_some_and(|pool| pool.1 == 1))
        .await;
    house.disk.fail_next(DiskFault::Full);
    let (key, body) = ([("idempotency-key", "unsure")], r#"{"payload":"once"}"#);
    let reply = client.ask("POST", "/v1/jobs?wait=20", &key, body).await;
    // The fault may have hit a beat of the worker just before: then the API refuses at once, and nothing is taken.
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.header("retry-after").is_some());
    for _ in 0..600 {
        let reply = client.ask("POST", "/v1/jobs?wait=20", &key, body).await;
        if reply.status == 200 {
            assert_eq!(reply.json()["result"], "once");
            until("figures are renewed", || house.handle.figures().totals.done == 1).await;
            assert_eq!(house.handle.figures().totals.arrived, 1);
            return;
        }
        assert_eq!(reply.status, 503, "{}", reply.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the plane stays silent");
}
