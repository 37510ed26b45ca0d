//! News as they come: of a job's life, and of what policies decide.

use serde_json::{Value, json};

use crate::client::Event;
use crate::house::House;

const HOLD: &str = r#"{"payload":{"hold":true}}"#;

fn data(event: &Event) -> Value {
    serde_json::from_str(&event.data).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_told_from_queue_to_end() {
    let house = House::open().await;
    let mut client = house.client().await;
    let place = client.post("/v1/jobs", HOLD).await.header("location").expect("a place").to_owned();
    house.until_held(1).await;
    let mut stream = house.client().await;
    stream.stream(&format!("{place}/events"), None).await;
    let first = stream.event().await.expect("how it stands");
    assert_eq!((first.name.as_str(), &data(&first)["state"]), ("changed", &json!("running")));
    assert_eq!(first.id.map(Value::from), Some(data(&first)["version"].clone()));
    house.bench().progress(3, 10);
    let progress = stream.event().await.expect("progress");
    assert_eq!((progress.name.as_str(), progress.id), ("progress", None));
    assert_eq!(data(&progress), json!({"done": 3, "of": 10}));
    house.bench().release().await;
    let last = stream.event().await.expect("the end");
    assert_eq!((last.name.as_str(), &data(&last)["result"]), ("ended", &json!("released")));
    assert!(last.id > first.id);
    assert_eq!(stream.event().await, None, "nothing follows");
    assert_eq!(data(&last), client.get(&place).await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_it_was() {
    let house = House::open().await;
    let mut client = house.client().await;
    let place = client.post("/v1/jobs", HOLD).await.header("location").expect("a place").to_owned();
    let path = format!("{place}/events");
    house.until_held(1).await;
    let mut stream = house.client().await;
    stream.stream(&path, Some(1)).await;
    let seen = stream.event().await.expect("newer than 1").id;
    drop(stream);
    let mut stream = house.client().await;
    stream.stream(&path, seen).await;
    house.bench().release().await;
    let last = stream.event().await.expect("the end");
    assert_eq!(last.name, "ended", "what was seen is not told again");
    let mut stream = house.client().await;
    stream.stream(&path, seen).await;
    assert_eq!(stream.event().await, Some(last), "the end is told to those who missed it");
    let end = client.get(&place).await.json()["version"].to_string();
    let reply = client.ask("GET", &path, &[("last-event-id", &end)], "").await;
    assert_eq!(reply.status, 204, "and to nobody twice");
    client.ask("GET", &path, &[("last-event-id", "x")], "").await.is_problem(400, "invalid-request");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_watch_see_the_same_end() {
    let house = House::open().await;
    let mut client = house.client().await;
    let place = client.post("/v1/jobs", HOLD).await.header("location").expect("a place").to_owned();
    house.until_held(1).await;
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut stream = house.client().await;
        stream.stream(&format!("{place}/events"), None).await;
        streams.spawn(async move {
            let mut last = None;
            while let Some(event) = stream.event().await {
                assert!(event.id.is_none() || event.id > last, "versions grow");
                last = event.id.or(last);
            }
            last
        });
    }
    house.bench().release().await;
    let ends: std::collections::BTreeSet<_> = streams.join_all().await.into_iter().collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_with_line_breaks_stay_one_event() {
    let house = House::open().await;
    let mut client = house.client().await;
    let body = "{\"payload\":{\n\"a\":\r\n\"b\\nc\"}}";
    let reply = client.post("/v1/jobs?wait=20", body).await;
    let place = format!("/v1/jobs/{}/events", reply.json()["id"].as_str().expect("an id"));
    let mut stream = house.client().await;
    stream.stream(&place, None).await;
    let end = stream.event().await.expect("the end");
    assert_eq!(data(&end)["result"], json!({"a": "b\nc"}));
}
