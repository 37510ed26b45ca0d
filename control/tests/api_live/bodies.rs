//! Requests that are too large, malformed, broken off or slow.

use std::time::Duration;

use control::api::Limits;

use crate::house::{House, Plan, until};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded() {
    let house = House::open().await;
    let payload = |length: usize| format!(r#"{{"payload":"{}"}}"#, "x".repeat(length));
    let mut client = house.client().await;
    let largest = client.post("/v1/jobs?wait=20", &payload(64 * 1024 - 2)).await;
    assert_eq!(largest.status, 200, "{:.200}", largest.text());
    client.post("/v1/jobs", &payload(64 * 1024)).await.is_problem(413, "too-large");
    let mut client = house.client().await;
    client.post("/v1/jobs", &payload(1 << 20)).await.is_problem(413, "too-large");
    // Without a length, the bytes are counted as they come.
    let mut client = house.client().await;
    client.raw(b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = format!("{:x}\r\n{}\r\n", 32 * 1024, " ".repeat(32 * 1024));
    for _ in 0..5 {
        client.raw(chunk.as_bytes()).await;
    }
    client.reply("POST").await.is_problem(413, "too-large");
    // Only the length is said: nothing of 5 MiB needs to come.
    let mut client = house.client().await;
    let head = "POST /v1/jobs/batch HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5242880\r\n\r\n";
    client.raw(head.as_bytes()).await;
    client.reply("POST").await.is_problem(413, "too-large");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bodies_are_named() {
    let house = House::open().await;
    let mut client = house.client().await;
    for (body, status) in
        [("", 400), ("{", 400), ("nonsense", 400), ("{}", 422), (r#"{"payload":1,"x":1}"#, 422)]
    {
        let reply = client.post("/v1/jobs", body).await;
        assert_eq!(reply.status, status, "{body}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
    client.post("/v1/operate/hold", "{}").await.is_problem(422, "invalid-hold");
    client.post("/v1/operate/reload", "x = ").await.is_problem(422, "invalid-scenario");
    assert_eq!(house.handle.figures().totals.arrived, 0, "nothing was taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_pieces_is_whole() {
    let house = House::open().await;
    let mut client = house.client().await;
    let body = r#"{"payload":"in pieces"}"#;
    let head = format!(
        "POST /v1/jobs?wait=20 HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.raw(head.as_bytes()).await;
    for piece in body.as_bytes().chunks(5) {
        client.raw(piece).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(client.reply("POST").await.json()["result"], "in pieces");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_no_job() {
    let house = House::open().await;
    for kept in [0, 1, 20] {
        let mut client = house.client().await;
        let body = r#"{"payload":"broken off"}"#;
        let head =
            format!("POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        client.raw(format!("{head}{}", &body[..kept]).as_bytes()).await;
        client.hang_up().await;
        let said = String::from_utf8(client.until_closed().await).expect("text");
        assert!(said.is_empty() || said.contains(" 400 "), "{said}");
    }
    let mut client = house.client().await;
    assert_eq!(client.post("/v1/jobs?wait=20", r#"{"payload":1}"#).await.status, 200, "the server goes on");
    until("figures are renewed", || house.handle.figures().totals.done == 1).await;
    assert_eq!(house.handle.figures().totals.arrived, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slow_are_cut_off() {
    let short = Duration::from_millis(300);
    let limits = Limits { head_patience: short, body_patience: short, ..Limits::default() };
    let house = House::with(Plan { limits, ..Plan::default() }).await;
    let mut silent = house.client().await;
    assert_eq!(silent.until_closed().await, b"", "nothing is said");
    let mut slow_head = house.client().await;
    slow_head.raw(b"POST /v1/jobs HTTP/1.1\r\nhost: loc").await;
    let said = String::from_utf8(slow_head.until_closed().await).expect("text");
    assert!(said.is_empty() || said.contains(" 408 "), "{said}");
    let mut slow_body = house.client().await;
    slow_body.raw(b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{").await;
    slow_body.reply("POST").await.is_problem(408, "slow-body");
    // A drip keeps nobody alive: the time is for the whole.
    let mut drip = house.client().await;
    drip.raw(b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n").await;
    for _ in 0..10 {
        drip.raw(b" ").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drip.reply("POST").await.is_problem(408, "slow-body");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_refused() {
    let house = House::open().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for wrong in
        ["\r\n\r\nnonsense\r\n\r\n", "\x16\x03\x01\x02\x00", "GET /\0 HTTP/1.1\r\n\r\n", &long, &many]
    {
        let mut client = house.client().await;
        client.raw(wrong.as_bytes()).await;
        client.hang_up().await;
        let said = String::from_utf8_lossy(&client.until_closed().await).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{wrong:.40}: {said}");
    }
    // Two lengths that differ are how requests are smuggled past a proxy.
    let mut client = house.client().await;
    client
        .raw(b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 13\r\ncontent-length: 4\r\n\r\n{\"payload\":1}")
        .await;
    client.hang_up().await;
    let said = String::from_utf8_lossy(&client.until_closed().await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    assert_eq!(house.handle.figures().totals.arrived, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_and_methods_are_named() {
    let house = House::open().await;
    let mut client = house.client().await;
    for path in ["/", "/v1", "/v1/jobs/job-0-0/nothing", "/v1/workers/connect", "/v1/objects/a", "/v2/jobs"] {
        client.get(path).await.is_problem(404, "no-such-path");
    }
    for (method, path, allow) in [
        ("PUT", "/v1/jobs", "GET, HEAD, POST"),
        ("POST", "/v1/fleet", "GET, HEAD"),
        ("GET", "/v1/jobs/job-0-0/cancel", "POST"),
        ("PATCH", "/v1/jobs/job-0-0", "GET, HEAD, DELETE"),
        ("POST", "/healthz", "GET, HEAD"),
    ] {
        let reply = client.ask(method, path, &[], "").await;
        reply.is_problem(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), Some(allow));
    }
}
