//! Operators: the fleet, a hold, a reload, metrics, the audit log.

use control::api::Scope;
use serde_json::{Value, json};

use crate::house::{House, Plan, SCENARIO, until, wish};

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_shown() {
    let house = House::open().await;
    let mut client = house.client().await;
    until("the worker is ready", || house.handle.figures().pools.first().is_some_and(|pool| pool.1 == 1))
        .await;
    let fleet = client.get("/v1/fleet").await.json();
    assert_eq!(fleet["pools"], json!([{"name": "gpu", "ready": 1, "starting": 0, "draining": 0}]));
    assert_eq!((&fleet["workers"], fleet.get("hold")), (&json!(1), None));
    assert!(fleet["burn_usd_per_hour"].as_f64().is_some_and(|usd| usd > 0.0), "{fleet}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_machine_is_shown_with_its_worker_and_its_work() {
    let house = House::open().await;
    let mut client = house.client().await;
    until("the worker is ready", || house.handle.figures().pools.first().is_some_and(|pool| pool.1 == 1))
        .await;
    let job = client.post("/v1/jobs", r#"{"payload":{"hold":true}}"#).await.json()["id"].clone();
    let mut shown = Value::Null;
    for _ in 0..600 {
        shown = client.get("/v1/fleet/machines?pool=gpu&limit=1").await.json();
        if shown["machines"][0]["jobs"] == json!([job]) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let machine = &shown["machines"][0];
    assert_eq!(machine["jobs"], json!([job]), "{shown}");
    assert_eq!(
        (&machine["pool"], &machine["state"], &machine["slots"]),
        (&json!("gpu"), &json!("ready"), &json!(4))
    );
    assert_eq!(machine["is_connected"], true, "{shown}");
    assert!(machine["worker"].is_string() && machine["launch"].is_string(), "{shown}");
    assert!(machine["usd_per_hour"].as_f64().is_some_and(|usd| usd > 0.1), "{shown}");
    let heard: jiff::Timestamp = machine["heard_at"].as_str().expect("a time").parse().expect("a time");
    assert!(jiff::Timestamp::now().duration_since(heard).as_secs() < 60, "{shown}");
    assert_eq!((shown["machines"].as_array().map(Vec::len), shown.get("cursor")), (Some(1), None), "{shown}");
    let behind = format!("/v1/fleet/machines?cursor={}", machine["number"]);
    assert_eq!(client.get(&behind).await.json(), json!({"machines": []}));
    for (wrong, remedy) in
        [("pool=x", "the scenario has gpu"), ("limit=0", "use 1 to 1000"), ("cursor=a", "page before")]
    {
        let problem =
            client.get(&format!("/v1/fleet/machines?{wrong}")).await.is_problem(400, "invalid-request");
        assert!(problem["remedy"].as_str().is_some_and(|text| text.contains(remedy)), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_seen_and_lifted_and_audited() {
    let keys = vec![wish(&[Scope::Operate]), wish(&[Scope::Submit])];
    let house = House::with(Plan { keys, ..Plan::default() }).await;
    let mut client = house.client_with(0).await;
    let reply = client.post("/v1/operate/hold", r#"{"held":true,"why":"the bill"}"#).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"held": true, "why": "the bill"})));
    until("it shows", || house.handle.figures().hold.as_deref() == Some("the bill")).await;
    assert_eq!(client.get("/v1/fleet").await.json()["hold"], "the bill");
    assert!(client.get("/metrics").await.text().contains("headroom_launches_held 1"));
    assert_eq!(client.post("/v1/operate/hold", r#"{"held":false}"#).await.status, 200);
    until("it is lifted", || house.handle.figures().hold.is_none()).await;
    let mut tenant = house.client_with(1).await;
    tenant.post("/v1/operate/hold", r#"{"held":true}"#).await.is_problem(403, "scope");
    let place = tenant.post("/v1/jobs", r#"{"payload":{"hold":true}}"#).await;
    let place = place.header("location").expect("a place").to_owned();
    tenant.ask("DELETE", &place, &[], "").await;
    let path = house.folder.path().join("audit.jsonl");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    until("the log is written", || read().lines().count() == 3).await;
    let lines: Vec<Value> = read().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let actions: Vec<&Value> = lines.iter().map(|line| &line["action"]).collect();
    assert_eq!(actions, ["hold", "lift", "cancel"]);
    assert_eq!(
        (&lines[0]["subject"], &lines[0]["outcome"], &lines[0]["tenant"]),
        (&json!("the bill"), &json!("done"), &json!(1))
    );
    assert_eq!(lines[2]["tenant"], 2);
    let secret = |token: &String| token.rsplit('_').next().expect("a secret").to_owned();
    assert!(house.tokens.iter().map(secret).all(|secret| !read().contains(&secret)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_a_good_scenario_only() {
    let house = House::open().await;
    let mut client = house.client().await;
    let reply = client.post("/v1/operate/reload", SCENARIO).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"reloaded": true})), "{}", reply.text());
    for wrong in ["", "nonsense", &SCENARIO.replace("[policy]", "[policies]")] {
        client.post("/v1/operate/reload", wrong).await.is_problem(422, "invalid-scenario");
    }
    let job = client.post("/v1/jobs?wait=20", r#"{"payload":1,"class":"bulk"}"#).await;
    assert_eq!(job.json()["state"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happens() {
    let house = House::open().await;
    let mut client = house.client().await;
    for _ in 0..3 {
        assert_eq!(client.post("/v1/jobs?wait=20", r#"{"payload":1}"#).await.status, 200);
    }
    client.post("/v1/jobs?wait=20", r#"{"payload":{"fail":"x"},"class":"bulk"}"#).await;
    client.post("/v1/jobs", "nonsense").await;
    let mut page = String::new();
    for _ in 0..600 {
        let reply = client.get("/metrics").await;
        assert!(
            reply.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text"))
        );
        page = reply.text();
        if page.contains(r#"headroom_jobs_ended_total{class="bulk",outcome="failed"} 1"#) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for line in [
        r#"headroom_jobs_submitted_total{class="dance",outcome="accepted"} 3"#,
        r#"headroom_jobs_ended_total{class="dance",outcome="done"} 3"#,
        r#"headroom_jobs_ended_total{class="bulk",outcome="failed"} 1"#,
        r#"headroom_http_requests_total{route="/v1/jobs",code="200"} 4"#,
        r#"headroom_http_requests_total{route="/v1/jobs",code="400"} 1"#,
        r#"headroom_job_wait_seconds_count{class="dance"} 3"#,
        "headroom_journal_writable 1",
        "headroom_rows_lost_total 0",
        "headroom_build_info{version=",
    ] {
        assert!(page.contains(line), "{line} is missing in\n{page}");
    }
    assert!(page.ends_with("# EOF\n"));
    assert!(!page.contains("job-0-"), "no job is a label");
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("headroom_"), "{line}");
        let value = line.rsplit(' ').next().expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}
