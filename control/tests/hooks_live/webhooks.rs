//! Announcements to receivers that fail, hang, are gone, and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use control::number::JobNumber;
use control::webhook::{Bounds, WebhookSettings};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::house::{House, Plan, SOON, json_of};
use super::verifier::{Received, Verifier};

/// What a receiver answers to the message of this number, after a pause.
type Answer = Arc<dyn Fn(usize) -> (StatusCode, Duration) + Send + Sync>;

/// A receiver that keeps all that it got, with its answers.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<(Received, StatusCode)>>>,
}

impl Receiver {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let got: Arc<Mutex<Vec<(Received, StatusCode)>>> = Arc::default();
        let kept = got.clone();
        let receive = async move |headers: HeaderMap, body: Bytes| {
            let header = |name| headers[name].to_str().expect("text").to_owned();
            let received = Received {
                id: header("webhook-id"),
                timestamp: header("webhook-timestamp"),
                signature: header("webhook-signature"),
                body: body.to_vec(),
            };
            assert_eq!(headers["content-type"], "application/json");
            let (status, pause) = {
                let mut kept = kept.lock().expect("not poisoned");
                let (status, pause) = answer(kept.len());
                kept.push((received, status));
                (status, pause)
            };
            tokio::time::sleep(pause).await;
            status
        };
        let router = axum::Router::new().fallback(receive);
        tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, got }
    }

    async fn always(status: StatusCode) -> Self {
        Self::start(Arc::new(move |_| (status, Duration::ZERO))).await
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn got(&self) -> Vec<(Received, StatusCode)> {
        self.got.lock().expect("not poisoned").clone()
    }

    /// Messages that were answered with success, by job.
    fn taken(&self) -> BTreeMap<JobNumber, Vec<Received>> {
        let mut taken: BTreeMap<JobNumber, Vec<Received>> = BTreeMap::new();
        for (received, status) in self.got() {
            if status.is_success() {
                let job = received.json()["data"]["job"].as_str().expect("a job").parse().expect("a job");
                taken.entry(job).or_default().push(received);
            }
        }
        taken
    }
}

fn plan(pauses: &[u64]) -> Plan {
    let pauses = pauses.iter().map(|ms| Duration::from_millis(*ms)).collect();
    let webhooks = WebhookSettings { allow_private: true, pauses, ..WebhookSettings::default() };
    Plan { webhooks, ..Plan::default() }
}

/// Shares of a number, evenly enough for a test and the same each time.
fn is_unlucky(number: usize) -> bool {
    (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < (u64::from(u32::MAX) * 3) / 10
}

async fn secret(house: &House, method: Method) -> serde_json::Value {
    let answer = house.ask(method, "/v1/webhook-secret", &house.keys.one).send().await.expect("an answer");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let (status, body) = json_of(answer).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_arrives_though_three_of_ten_calls_fail() {
    const JOBS: usize = 300;
    let fails = |number| match is_unlucky(number) {
        true => (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO),
        false => (StatusCode::NO_CONTENT, Duration::ZERO),
    };
    let receiver = Receiver::start(Arc::new(fails)).await;
    let house = House::open(&plan(&[0, 5, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10])).await;
    let mut jobs = BTreeSet::new();
    for _ in 0..JOBS {
        let job = house.submit(Some(&receiver.url())).await;
        house.cancel(job).await;
        jobs.insert(job);
    }
    house.until_settled().await;
    let taken = receiver.taken();
    assert_eq!(taken.keys().copied().collect::<BTreeSet<_>>(), jobs);
    let all = receiver.got();
    let failed = all.iter().filter(|(_, status)| !status.is_success()).count();
    assert!(failed > JOBS / 5, "{failed} calls failed, so that this test says something");
    let mut ids: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (received, _) in &all {
        let body = received.json();
        assert_eq!((&body["type"], &body["id"]), (&"job.cancelled".into(), &received.id.clone().into()));
        let first = ids.entry(received.id.clone()).or_insert_with(|| received.body.clone());
        assert_eq!(*first, received.body, "the same bytes at every attempt");
    }
    assert_eq!(ids.len(), JOBS, "one id per job, over all attempts");
    let Some(verifier) = Verifier::find() else { return };
    let shown = secret(&house, Method::GET).await;
    let secret = shown["secret"].as_str().expect("a secret");
    let mut messages: Vec<Received> = all.into_iter().map(|(received, _)| received).collect();
    assert!(verifier.check(secret, &messages).iter().all(|is_right| *is_right));
    for message in &mut messages {
        message.body.push(b' ');
    }
    assert!(verifier.check(secret, &messages).iter().all(|is_right| !is_right), "a changed body is noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn done_jobs_say_where_the_result_is() {
    let receiver = Receiver::always(StatusCode::OK).await;
    let house = House::open(&plan(&[0])).await;
    let job = house.submit(Some(&receiver.url())).await;
    let mut worker = house.worker().await;
    let start = worker.work().await;
    assert_eq!(start.job, job);
    worker.finish(&start, Vec::new()).await;
    house.until_settled().await;
    let body = receiver.taken()[&job][0].json();
    assert_eq!(body["type"], "job.done");
    let result = body["data"]["result_url"].as_str().expect("a URL");
    assert_eq!(result, house.url(&format!("/v1/jobs/{job}/result")));
    let answer = house.client.get(result).bearer_auth(&house.keys.one).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.text().await.expect("a body").as_str()), (200, "{}"));
    let record = house.service.handle.ended(job).await.expect("readable").expect("ended");
    let ended: jiff::Timestamp = body["timestamp"].as_str().expect("a time").parse().expect("a time");
    let age = jiff::Timestamp::now().duration_since(ended).as_secs_f64();
    assert!((-1.0..60.0).contains(&age), "{age} after {:?}", record.ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn next_plane_goes_on_with_the_same_id() {
    let down = Receiver::always(StatusCode::INTERNAL_SERVER_ERROR).await;
    let house = House::open(&plan(&[0, 20, 60_000])).await;
    let job = house.submit(Some(&down.url())).await;
    house.cancel(job).await;
    let until = tokio::time::Instant::now() + SOON;
    while down.got().len() < 2 {
        assert!(tokio::time::Instant::now() < until, "it is tried twice");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(house.unsettled().await, 1);
    let (folder, keys) = house.close().await;
    let before = down.got().len();
    let house = House::open_in(folder, keys, &plan(&[0])).await;
    house.until_settled().await;
    let got = down.got();
    assert_eq!(got.len(), before + 1);
    // The address of the result is the new plane's; all else is as it was.
    let first = &got[0].0;
    assert!(got.iter().all(|(received, _)| {
        received.id == first.id && received.json()["timestamp"] == first.json()["timestamp"]
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_secrets_sign_after_a_change() {
    let receiver = Receiver::always(StatusCode::OK).await;
    let house = House::open(&plan(&[0])).await;
    let before = secret(&house, Method::GET).await;
    let after = secret(&house, Method::POST).await;
    assert_eq!(after["previous"], before["secret"]);
    assert_eq!(secret(&house, Method::GET).await, after);
    let job = house.submit(Some(&receiver.url())).await;
    house.cancel(job).await;
    house.until_settled().await;
    let messages = [receiver.taken()[&job][0].clone()];
    assert_eq!(messages[0].signature.split(' ').count(), 2);
    for (key, status) in [(&house.keys.worker, 403), (&"hr_0_0".to_owned(), 401)] {
        let answer = house.get("/v1/webhook-secret", key).await;
        assert_eq!(answer.status().as_u16(), status);
    }
    let others = json_of(house.get("/v1/webhook-secret", &house.keys.two).await).await.1;
    let Some(verifier) = Verifier::find() else { return };
    for (shown, is_right) in [(&before, true), (&after, true), (&others, false)] {
        let secret = shown["secret"].as_str().expect("a secret");
        assert_eq!(verifier.check(secret, &messages), [is_right]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_receiver_holds_up_nobody() {
    let hanging = Receiver::start(Arc::new(|_| (StatusCode::OK, Duration::from_secs(600)))).await;
    let quick = Receiver::always(StatusCode::OK).await;
    let house = House::open(&plan(&[0, 0])).await;
    for _ in 0..60 {
        let job = house.submit(Some(&hanging.url())).await;
        house.cancel(job).await;
    }
    let begun = tokio::time::Instant::now();
    let mut jobs = Vec::new();
    for _ in 0..50 {
        let job = house.submit(Some(&quick.url())).await;
        house.cancel(job).await;
        jobs.push(job);
    }
    while quick.taken().len() < jobs.len() {
        // The hanging one is given up after 20 s: by then the quick one is long through.
        assert!(begun.elapsed() < Duration::from_secs(15), "{} of 50", quick.taken().len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(hanging.got().len() <= Bounds::default().host_calls_max);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_in_memory_comes_later() {
    let receiver = Receiver::start(Arc::new(|_| (StatusCode::OK, Duration::from_millis(5)))).await;
    let mut plan = plan(&[0]);
    plan.webhooks.bounds = Bounds { calls_max: 4, host_calls_max: 4, waiting_max: 5, host_waiting_max: 5 };
    let house = House::open(&plan).await;
    let mut jobs = Vec::new();
    for _ in 0..60 {
        jobs.push(house.submit(Some(&receiver.url())).await);
    }
    let cancels = jobs.iter().map(|job| house.cancel(*job));
    futures_util::future::join_all(cancels).await;
    house.until_settled().await;
    assert_eq!(receiver.taken().len(), jobs.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_receivers_and_private_addresses_are_given_up_at_once() {
    let gone = Receiver::always(StatusCode::GONE).await;
    let house = House::open(&plan(&[0, 1, 1, 1])).await;
    let job = house.submit(Some(&gone.url())).await;
    house.cancel(job).await;
    house.until_settled().await;
    assert_eq!(gone.got().len(), 1);
    let private = Receiver::always(StatusCode::OK).await;
    let house = House::open(&Plan::default()).await;
    let job = house.submit(Some(&private.url())).await;
    house.cancel(job).await;
    house.until_settled().await;
    assert_eq!(private.got().len(), 0);
}

/// A receiver whose certificate nobody public vouches for gets nothing, unless the operator trusts its authority.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_verified() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, made.cert.pem()).expect("written");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let spoken = Arc::new(Mutex::new(0_usize));
    let counted = spoken.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 8192];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    *counted.lock().expect("not poisoned") += 1;
                    let _ = stream.write_all(b"HTTP/1.1 204 Fine\r\nconnection: close\r\n\r\n").await;
                }
            });
        }
    });
    let url = format!("https://localhost:{port}/hook");
    for (authorities, calls) in [(None, 0), (Some(authority), 1)] {
        let mut plan = plan(&[0, 1]);
        plan.webhooks.authorities = authorities;
        let house = House::open(&plan).await;
        let job = house.submit(Some(&url)).await;
        house.cancel(job).await;
        house.until_settled().await;
        assert_eq!(*spoken.lock().expect("not poisoned"), calls);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_always_fail_are_given_up_after_the_last_attempt() {
    let down = Receiver::always(StatusCode::BAD_GATEWAY).await;
    let house = House::open(&plan(&[0, 1, 2, 3])).await;
    let job = house.submit(Some(&down.url())).await;
    house.cancel(job).await;
    house.until_settled().await;
    assert_eq!(down.got().len(), 4);
}
