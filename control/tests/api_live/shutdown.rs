//! The end of a server: nothing in flight is lost, nobody waits without end.

use std::time::{Duration, Instant};

use control::api::Limits;
use tokio::net::TcpStream;

use crate::house::{House, Plan};

const HOLD: &str = r#"{"payload":{"hold":true}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn waits_and_streams_end_in_good_order() {
    let house = House::open().await;
    let (mut waiting, mut streaming, mut looking) =
        (house.client().await, house.client().await, house.client().await);
    let place = looking.post("/v1/jobs", HOLD).await.header("location").expect("a place").to_owned();
    house.until_held(1).await;
    waiting.send("POST", "/v1/jobs?wait=300", &[], HOLD).await;
    house.until_held(2).await;
    looking.send("GET", &format!("{place}?wait=300"), &[], "").await;
    streaming.stream(&format!("{place}/events"), None).await;
    assert!(streaming.event().await.is_some());
    let address = house.address;
    let started = Instant::now();
    house.begin_stop();
    let reply = waiting.reply("POST").await;
    assert_eq!(reply.status, 202, "the job is accepted and can be asked for later");
    assert_eq!(looking.reply("GET").await.json()["state"], "running");
    assert_eq!(streaming.event().await, None);
    waiting.until_closed().await;
    house.stopped().await;
    assert!(started.elapsed() < Duration::from_secs(9), "nobody had to be cut off");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lame_duck_says_that_it_is_one() {
    let limits = Limits { lame_duck: Duration::from_secs(3), ..Limits::default() };
    let house = House::with(Plan { limits, ..Plan::default() }).await;
    let mut client = house.client().await;
    assert_eq!(client.get("/readyz").await.status, 200);
    house.begin_stop();
    let mut status = 200;
    for _ in 0..100 {
        status = client.get("/readyz").await.status;
        if status == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status, 503);
    assert_eq!(client.get("/livez").await.status, 200);
    let reply = client.post("/v1/jobs", HOLD).await;
    reply.is_problem(503, "draining");
    assert!(reply.header("retry-after").is_some());
    let mut late = house.client().await;
    assert_eq!(late.get("/readyz").await.status, 503, "new connections are told, too");
    house.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_end() {
    let limits = Limits { grace: Duration::from_secs(2), ..Limits::default() };
    let house = House::with(Plan { limits, ..Plan::default() }).await;
    let mut idle = house.client().await;
    assert_eq!(idle.get("/livez").await.status, 200);
    let mut halfway = house.client().await;
    halfway.raw(b"POST /v1/jobs HTTP/1.1\r\nhost: loc").await;
    let started = Instant::now();
    house.begin_stop();
    idle.until_closed().await;
    house.stopped().await;
    assert!(started.elapsed() < Duration::from_secs(20));
}
