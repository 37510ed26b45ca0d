//! Who may ask: every path with no key, a wrong one, a lesser one, one that is over.

use control::api::{KeyWish, Scope, create, revoke};

use crate::client::Client;
use crate::house::{House, Plan, until, wish};

/// Every path that needs a key, and the scopes of which one is enough.
const PATHS: [(&str, &str, &str, &[Scope]); 14] = [
    ("POST", "/v1/jobs", r#"{"payload":1}"#, &[Scope::Submit]),
    ("POST", "/v1/jobs/batch", r#"[{"payload":1}]"#, &[Scope::Submit]),
    ("GET", "/v1/jobs", "", &[Scope::Read, Scope::Operate]),
    ("GET", "/v1/jobs/job-0-0", "", &[Scope::Read, Scope::Operate]),
    ("GET", "/v1/jobs/job-0-0/result", "", &[Scope::Read, Scope::Operate]),
    ("GET", "/v1/jobs/job-0-0/events", "", &[Scope::Read, Scope::Operate]),
    ("POST", "/v1/jobs/job-0-0/cancel", "", &[Scope::Submit, Scope::Operate]),
    ("DELETE", "/v1/jobs/job-0-0", "", &[Scope::Submit, Scope::Operate]),
    ("GET", "/v1/fleet", "", &[Scope::Observe, Scope::Operate]),
    ("GET", "/v1/fleet/machines", "", &[Scope::Observe, Scope::Operate]),
    ("GET", "/metrics", "", &[Scope::Observe, Scope::Operate]),
    ("POST", "/v1/operate/hold", r#"{"held":false}"#, &[Scope::Operate]),
    ("POST", "/v1/operate/reload", "", &[Scope::Operate]),
    ("GET", "/nothing", "", &Scope::ALL),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_path_asks_for_its_scope() {
    let keys = Scope::ALL.iter().map(|scope| wish(&[*scope])).collect();
    let house = House::with(Plan { keys, ..Plan::default() }).await;
    for (method, path, body, enough) in PATHS {
        let mut nobody = house.client().await;
        let reply = nobody.ask(method, path, &[], body).await;
        reply.is_problem(401, "unauthorized");
        assert!(reply.header("www-authenticate").is_some());
        for (number, scope) in Scope::ALL.into_iter().enumerate() {
            let mut client = house.client_with(number).await;
            let reply = client.ask(method, path, &[], body).await;
            if enough.contains(&scope) {
                assert!(!matches!(reply.status, 401 | 403), "{method} {path} {scope:?}: {}", reply.text());
            } else {
                let problem = reply.is_problem(403, "scope");
                assert!(problem["remedy"].as_str().is_some_and(|text| text.contains("--scope")));
            }
        }
    }
    for open in ["/healthz", "/livez", "/readyz", "/v1/openapi.json"] {
        assert_eq!(house.client().await.get(open).await.status, 200, "{open}");
    }
    // A stream of decisions begins for those who may see it.
    house.client_with(2).await.stream("/v1/decisions", None).await;
    house.client_with(1).await.get("/v1/decisions").await.is_problem(403, "scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_wrong_or_over_are_refused_everywhere() {
    let past = jiff::Timestamp::from_second(1_000).expect("a time");
    let all = || wish(&Scope::ALL);
    let keys = vec![all(), KeyWish { expires: Some(past), ..all() }, all()];
    let house = House::with(Plan { keys, ..Plan::default() }).await;
    let revoked = house.tokens[2].split('_').nth(1).expect("an id");
    revoke(house.folder.path(), revoked).expect("revoked");
    wait_until_refused(&house, 2).await;
    let mut wrong = house.tokens[0].clone();
    let last = if wrong.pop() == Some('0') { '1' } else { '0' };
    wrong.push(last);
    for (method, path, body, _) in PATHS {
        for token in
            [house.tokens[1].clone(), house.tokens[2].clone(), wrong.clone(), "x".to_owned(), String::new()]
        {
            let mut client = Client::connect(house.address).await;
            client.token = Some(token);
            client.ask(method, path, &[], body).await.is_problem(401, "unauthorized");
        }
        let mut client = Client::connect(house.address).await;
        let basic = [("authorization", "Basic dXNlcjpwYXNz")];
        client.ask(method, path, &basic, body).await.is_problem(401, "unauthorized");
    }
}

async fn wait_until_refused(house: &House, key: usize) {
    for _ in 0..600 {
        if house.client_with(key).await.get("/v1/jobs").await.status == 401 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the key is still good");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_others_do_not_exist() {
    let tenant = || wish(&[Scope::Submit, Scope::Read]);
    let keys = vec![tenant(), tenant(), wish(&[Scope::Operate])];
    let house = House::with(Plan { keys, ..Plan::default() }).await;
    let (mut alice, mut bob, mut operator) =
        (house.client_with(0).await, house.client_with(1).await, house.client_with(2).await);
    let key = [("idempotency-key", "same")];
    let body = r#"{"payload":{"hold":true}}"#;
    let reply = alice.ask("POST", "/v1/jobs", &key, body).await;
    let path = reply.header("location").expect("a location").to_owned();
    let other = bob.ask("POST", "/v1/jobs", &key, r#"{"payload":"bob"}"#).await;
    assert_eq!(other.status, 202, "keys of tenants are apart: {}", other.text());
    house.until_held(1).await;
    for _ in 0..2 {
        for suffix in ["", "?wait=1", "/result", "/events"] {
            bob.get(&format!("{path}{suffix}")).await.is_problem(404, "no-such-job");
        }
        bob.ask("DELETE", &path, &[], "").await.is_problem(404, "no-such-job");
        assert_eq!(operator.get(&path).await.status, 200);
        let listed = |reply: crate::client::Reply| reply.json()["jobs"].as_array().map_or(0, Vec::len);
        assert_eq!(listed(bob.get("/v1/jobs?state=live").await), 0);
        // Again, once the job has ended.
        operator.ask("DELETE", &path, &[], "").await;
    }
    assert_eq!(alice.get(&path).await.json()["state"], "cancelled");
    let ended = async |client: &mut Client| {
        client.get("/v1/jobs?state=ended").await.json()["jobs"].as_array().map_or(0, Vec::len)
    };
    let mut counts = (0, 0, 0);
    for _ in 0..600 {
        counts = (ended(&mut alice).await, ended(&mut bob).await, ended(&mut operator).await);
        if counts == (1, 1, 2) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(counts, (1, 1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_held_to_its_rate() {
    let keys = vec![KeyWish { rate: Some(0.5), burst: Some(3), ..wish(&Scope::ALL) }, wish(&Scope::ALL)];
    let house = House::with(Plan { keys, ..Plan::default() }).await;
    let mut client = house.client_with(0).await;
    for _ in 0..3 {
        assert_eq!(client.get("/v1/fleet").await.status, 200);
    }
    let reply = client.get("/v1/fleet").await;
    reply.is_problem(429, "rate");
    let after: u64 = reply.header("retry-after").expect("when").parse().expect("seconds");
    assert!((1..=2).contains(&after), "{after}");
    assert_eq!(house.client_with(1).await.get("/v1/fleet").await.status, 200, "others are not held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_only_as_many_jobs_as_its_key_says() {
    let keys = vec![KeyWish { jobs_max: Some(2), ..wish(&Scope::ALL) }];
    let house = House::with(Plan { keys, ..Plan::default() }).await;
    let mut client = house.client_with(0).await;
    let body = r#"{"payload":{"hold":true}}"#;
    for _ in 0..2 {
        assert_eq!(client.post("/v1/jobs", body).await.status, 202);
    }
    let reply = client.post("/v1/jobs", body).await;
    reply.is_problem(429, "tenant-full");
    assert!(reply.header("retry-after").is_some());
    house.until_held(2).await;
    house.bench().release().await;
    until("they ended", || house.handle.figures().jobs == 0).await;
    assert_eq!(client.post("/v1/jobs", body).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_closes_an_open_server() {
    let house = House::open().await;
    assert_eq!(house.client().await.get("/v1/fleet").await.status, 200);
    let (token, _) = create(house.folder.path(), wish(&[Scope::Observe])).expect("a key");
    for _ in 0..600 {
        if house.client().await.get("/v1/fleet").await.status == 401 {
            let mut client = house.client().await;
            client.token = Some(token);
            assert_eq!(client.get("/v1/fleet").await.status, 200);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the server stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_answers_this_machine_alone() {
    let everybody = Plan { listen: ([0, 0, 0, 0], 0).into(), ..Plan::default() };
    let error = House::build(everybody).await.err().expect("refused").to_string();
    assert!(error.contains("headroom keys create"), "{error}");
    let house = House::open().await;
    for (header, value) in [("origin", "https://example.com"), ("origin", "null")] {
        let mut client = house.client().await;
        client.ask("GET", "/v1/fleet", &[(header, value)], "").await.is_problem(403, "local-only");
    }
    for host in ["example.com", "example.com:80", "localhost.example.com", "10.0.0.1"] {
        let mut client = house.client().await;
        client.raw(format!("GET /v1/fleet HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await;
        client.reply("GET").await.is_problem(403, "local-only");
    }
    for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]"] {
        let mut client = house.client().await;
        client.raw(format!("GET /v1/fleet HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await;
        assert_eq!(client.reply("GET").await.status, 200, "{host}");
    }
    let keyed =
        Plan { listen: ([0, 0, 0, 0], 0).into(), keys: vec![wish(&[Scope::Read])], ..Plan::default() };
    House::with(keyed).await;
}
