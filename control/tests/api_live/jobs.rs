//! Jobs: submitted, waited for, looked at, cancelled, listed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::Reply;
use crate::house::{House, Plan, until};

const HOLD: &str = r#"{"payload":{"hold":true}}"#;

fn id(reply: &Reply) -> String {
    reply.json()["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_waited_for_comes_back_done() {
    let house = House::open().await;
    let mut client = house.client().await;
    let body = r#"{"class":"bulk","payload":{"n": 1.50}}"#;
    let reply = client.ask("POST", "/v1/jobs", &[("prefer", "wait=20")], body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let job = reply.json();
    assert_eq!(
        (&job["state"], &job["class"], &job["deliveries"]),
        (&json!("done"), &json!("bulk"), &json!(1))
    );
    assert!(
        reply.text().contains(r#""result":{"n": 1.50}"#),
        "the result is as it was written: {}",
        reply.text()
    );
    let created: jiff::Timestamp = job["created_at"].as_str().expect("a time").parse().expect("a time");
    let age = jiff::Timestamp::now().duration_since(created);
    assert!(age.abs() < jiff::SignedDuration::from_secs(60), "calendar time is right: {age}");
    let path = format!("/v1/jobs/{}", id(&reply));
    assert_eq!(client.get(&path).await.json(), job, "the same answer later");
    let result = client.get(&format!("{path}/result")).await;
    assert_eq!((result.status, result.text().as_str()), (200, r#"{"n": 1.50}"#));
    assert_eq!(client.ask("HEAD", &path, &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_waited_for_has_a_location() {
    let house = House::open().await;
    let mut client = house.client().await;
    let reply = client.post("/v1/jobs", HOLD).await;
    assert_eq!(reply.status, 202);
    let place = reply.header("location").expect("a location").to_owned();
    assert_eq!(place, format!("/v1/jobs/{}", id(&reply)));
    house.until_held(1).await;
    let job = client.get(&place).await.json();
    assert_eq!((&job["state"], &job["stage"]), (&json!("running"), &json!("generate")));
    client.get(&format!("{place}/result")).await.is_problem(409, "job-not-ended");
    let late = client.get(&format!("{place}?wait=1")).await.json();
    assert_eq!(late["state"], "running", "the wait is over before the job");
    client.send("GET", &format!("{place}?wait=60"), &[], "").await;
    house.bench().release().await;
    let job = client.reply("GET").await.json();
    assert_eq!((&job["state"], &job["result"]), (&json!("done"), &json!("released")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_over_gives_an_accepted_job() {
    let house = House::open().await;
    let mut client = house.client().await;
    let reply = client.post("/v1/jobs?wait=1", HOLD).await;
    assert_eq!(reply.status, 202);
    assert!(reply.header("location").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_its_message() {
    let house = House::open().await;
    let mut client = house.client().await;
    let reply = client.post("/v1/jobs?wait=20", r#"{"payload":{"fail":"no such model"}}"#).await;
    assert_eq!(reply.status, 200);
    let job = reply.json();
    assert_eq!((&job["state"], &job["error"]), (&json!("failed"), &json!("no such model")));
    let problem = client.get(&format!("/v1/jobs/{}/result", id(&reply))).await;
    problem.is_problem(409, "job-without-result");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_jobs_end_and_stay_cancelled() {
    let house = House::open().await;
    let mut client = house.client().await;
    for (method, suffix) in [("POST", "/cancel"), ("DELETE", "")] {
        let path = format!("/v1/jobs/{}", id(&client.post("/v1/jobs", HOLD).await));
        for _ in 0..2 {
            let reply = client.ask(method, &format!("{path}{suffix}"), &[], "").await;
            assert_eq!((reply.status, &reply.json()["state"]), (200, &json!("cancelled")));
        }
    }
    let done = id(&client.post("/v1/jobs?wait=20", r#"{"payload":1}"#).await);
    client.post(&format!("/v1/jobs/{done}/cancel"), "").await.is_problem(409, "job-ended");
    for unknown in ["job-0-999999", "job-7-1", "nonsense", "job-0-01"] {
        client.get(&format!("/v1/jobs/{unknown}")).await.is_problem(404, "no-such-job");
        client.ask("DELETE", &format!("/v1/jobs/{unknown}"), &[], "").await.is_problem(404, "no-such-job");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_names_one_job() {
    let house = House::open().await;
    let mut client = house.client().await;
    let key = [("idempotency-key", "order-1")];
    let first = client.ask("POST", "/v1/jobs", &key, HOLD).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, None));
    let again = client.ask("POST", "/v1/jobs", &key, HOLD).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")));
    assert_eq!((id(&first), first.header("location")), (id(&again), again.header("location")));
    let other = client.ask("POST", "/v1/jobs", &key, r#"{"payload":2}"#).await;
    assert_eq!(other.is_problem(422, "idempotency-key-reused")["job"], id(&first));
    house.until_held(1).await;
    client.send("POST", "/v1/jobs?wait=60", &key, HOLD).await;
    house.bench().release().await;
    let end = client.reply("POST").await;
    assert_eq!((end.status, end.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!((id(&end), &end.json()["state"]), (id(&first), &json!("done")));
    for wrong in [String::new(), "x".repeat(256), "\u{e9}".to_owned()] {
        let reply = client.ask("POST", "/v1/jobs", &[("idempotency-key", &wrong)], HOLD).await;
        reply.is_problem(400, "invalid-request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submissions_that_race_with_one_key_are_one_job() {
    let house = House::open().await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut client = house.client().await;
        asked.spawn(async move {
            let key = [("idempotency-key", "race")];
            id(&client.ask("POST", "/v1/jobs?wait=20", &key, r#"{"payload":1}"#).await)
        });
    }
    let ids: BTreeSet<String> = asked.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_in_order() {
    let house = House::open().await;
    let mut client = house.client().await;
    let batch =
        r#"[{"payload":1}, {"payload":2,"class":"tango"}, {"payload":{"hold":true},"class":"bulk"}, 7]"#;
    let key = [("idempotency-key", "batch-1")];
    let reply = client.ask("POST", "/v1/jobs/batch", &key, batch).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let items = reply.json()["jobs"].as_array().expect("a list").clone();
    let statuses: Vec<&Value> = items.iter().map(|item| &item["status"]).collect();
    assert_eq!(statuses, [202, 422, 202, 422]);
    assert_eq!((&items[0]["job"]["class"], &items[2]["job"]["class"]), (&json!("dance"), &json!("bulk")));
    assert!(items[1]["problem"]["detail"].as_str().is_some_and(|detail| detail.contains("tango")));
    let again = client.ask("POST", "/v1/jobs/batch", &key, batch).await.json();
    for (first, second) in items.iter().zip(again["jobs"].as_array().expect("a list")) {
        assert_eq!(first["job"]["id"], second["job"]["id"], "a repeated batch is the same jobs");
        assert_eq!(second.get("replayed").is_some(), first["status"] == 202);
    }
    let many = format!("[{}1]", r#"{"payload":1},"#.repeat(256));
    for wrong in ["[]", "{}", &many] {
        let reply = client.post("/v1/jobs/batch", wrong).await;
        assert!((400..500).contains(&reply.status), "{wrong:.20}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_every_job_once() {
    let house = House::open().await;
    let mut client = house.client().await;
    let mut expected = BTreeSet::new();
    for payload in 0..7 {
        let path = "/v1/jobs?wait=20";
        expected.insert(id(&client.post(path, &format!(r#"{{"payload":{payload}}}"#)).await));
    }
    for _ in 0..7 {
        expected.insert(id(&client.post("/v1/jobs", HOLD).await));
    }
    house.until_held(4).await;
    let mut pages = async |query: &str| {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        for _ in 0..20 {
            let page = client.get(&format!("/v1/jobs?limit=3&{query}{cursor}")).await;
            assert_eq!(page.status, 200, "{}", page.text());
            let page = page.json();
            let jobs = page["jobs"].as_array().expect("a list").clone();
            assert!(jobs.len() <= 3);
            seen.extend(jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()));
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return seen,
            }
        }
        panic!("pages without end");
    };
    let all = pages("").await;
    assert_eq!(all.len(), expected.len(), "{all:?}");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected);
    for (query, count) in [
        ("state=running", 4),
        ("state=queued", 3),
        ("state=live", 7),
        ("state=done", 7),
        ("state=failed", 0),
        ("state=ended", 7),
    ] {
        assert_eq!(pages(query).await.len(), count, "{query}");
    }
    for wrong in ["state=x", "limit=0", "limit=501", "cursor=x"] {
        client.get(&format!("/v1/jobs?{wrong}")).await.is_problem(400, "invalid-request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_is_missing_at_the_moment_of_its_end() {
    let house = House::open().await;
    let (mut client, mut other) = (house.client().await, house.client().await);
    for _ in 0..200 {
        let job = id(&client.post("/v1/jobs", r#"{"payload":1}"#).await);
        client.send("GET", &format!("/v1/jobs/{job}?wait=20"), &[], "").await;
        let looked = other.get(&format!("/v1/jobs/{job}")).await;
        assert_eq!(looked.status, 200, "{}", looked.text());
        assert_eq!(client.reply("GET").await.json()["state"], "done");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_may_be_sent_ahead() {
    let house = House::open().await;
    let mut client = house.client().await;
    for payload in 0..20 {
        client.send("POST", "/v1/jobs?wait=20", &[], &format!(r#"{{"payload":{payload}}}"#)).await;
    }
    for payload in 0..20 {
        assert_eq!(client.reply("POST").await.json()["result"], payload);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_for_a_worker() {
    let house = House::with(Plan { has_worker: false, ..Plan::default() }).await;
    let mut client = house.client().await;
    client.send("POST", "/v1/jobs?wait=60", &[], r#"{"payload":"late"}"#).await;
    until("the job is in", || house.handle.figures().jobs == 1).await;
    let _bench = crate::worker::Bench::join(&house.handle, 4).await;
    assert_eq!(client.reply("POST").await.json()["result"], "late");
}
