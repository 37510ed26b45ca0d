//! A client as the documentation tells to write one: it knows all planes, sends again until it has an answer, always
//! with the same Idempotency-Key, and writes down what was promised to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A plane that does not answer for so long is not waited for.
const ANSWER: Duration = Duration::from_secs(3);

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

/// Asks one plane once.
pub(crate) async fn ask(
    plane: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, String> {
    let exchange = async {
        let stream = TcpStream::connect(plane).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let mut request =
            Request::builder().method(method).uri(path).header("host", format!("127.0.0.1:{}", plane.port()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        let location = location.map(str::to_owned);
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, location, body: String::from_utf8_lossy(&body).into_owned() })
    };
    tokio::time::timeout(ANSWER, exchange).await.map_err(|_| "no answer".to_owned())?
}

/// The plane that a redirect names, and the path.
pub(crate) fn target(location: &str) -> Option<(SocketAddr, &str)> {
    let rest = location.strip_prefix("http://")?;
    let (host, path) = rest.split_at(rest.find('/')?);
    Some((host.parse().ok()?, path))
}

/// What was promised, and when.
#[derive(Default)]
pub(crate) struct Promises {
    /// Job ids by idempotency key.
    pub(crate) jobs: Mutex<BTreeMap<String, String>>,
    /// Instants of the promises.
    pub(crate) times: Mutex<Vec<Instant>>,
    /// How long each was waited for, of those that were made at the first asking.
    pub(crate) waits: Mutex<Vec<Duration>>,
    /// Answers that were not what one hopes for, by what they were.
    pub(crate) other: Mutex<BTreeMap<String, u64>>,
    count: AtomicU64,
}

/// Clients at work.
pub(crate) struct Crowd {
    pub(crate) promises: Arc<Promises>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// `count` clients, each with the next job as soon as the last one is accepted and `pause` is over.
    pub(crate) fn start(planes: &[SocketAddr], count: usize, pause: Duration, key: Option<&str>) -> Self {
        Self::with(planes, count, pause, key, "")
    }

    /// The same, with `more` members in each payload.
    pub(crate) fn with(
        planes: &[SocketAddr],
        count: usize,
        pause: Duration,
        key: Option<&str>,
        more: &str,
    ) -> Self {
        let (promises, stop) = (Arc::new(Promises::default()), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (promises, stop, planes) = (promises.clone(), stop.clone(), planes.to_vec());
            let (authorization, more) = (key.map(|key| format!("Bearer {key}")), more.to_owned());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("key-{}", promises.count.fetch_add(1, Ordering::Relaxed));
                    submit(&planes, &promises, name, authorization.as_deref(), &more).await;
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { promises, stop, tasks }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.promises.jobs.lock().expect("no panic").len()
    }

    /// The ids of the accepted jobs.
    pub(crate) fn promised(&self) -> Vec<String> {
        self.promises.jobs.lock().expect("no panic").values().cloned().collect()
    }

    /// Waits until a job is accepted that was submitted after now; how long that took.
    pub(crate) async fn until_accepted(&self, within: Duration) -> Duration {
        let started = Instant::now();
        loop {
            let last = self.promises.times.lock().expect("no panic").last().copied();
            if let Some(last) = last.filter(|last| *last > started) {
                return last - started;
            }
            let other = || format!("{:?}", self.promises.other.lock().expect("no panic"));
            assert!(started.elapsed() < within, "no job is accepted: {}", other());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets every submission that is under way come to its end.
    pub(crate) async fn stop(mut self) -> Arc<Promises> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no panic");
        }
        self.promises
    }
}

/// Submits until it is accepted.
async fn submit(
    planes: &[SocketAddr],
    promises: &Promises,
    name: String,
    authorization: Option<&str>,
    more: &str,
) {
    let body = format!(r#"{{"payload":{{"service_s":0.02,"key":"{name}"{more}}}}}"#);
    let mut headers = vec![("idempotency-key", name.as_str())];
    headers.extend(authorization.map(|value| ("authorization", value)));
    let mut turn = 0;
    let mut plane = planes[0];
    let mut is_first = true;
    loop {
        let asked = Instant::now();
        let answer = ask(plane, "POST", "/v1/jobs", &body, &headers).await;
        let other = match &answer {
            Ok(answer) if answer.status == 202 => {
                let id: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
                let id = id["id"].as_str().expect("an id").to_owned();
                let before = promises.jobs.lock().expect("no panic").insert(name.clone(), id.clone());
                assert!(before.is_none_or(|before| before == id), "one key, two jobs");
                promises.times.lock().expect("no panic").push(Instant::now());
                if is_first {
                    promises.waits.lock().expect("no panic").push(asked.elapsed());
                }
                return;
            }
            Ok(answer) => {
                let found = answer.location.as_deref().and_then(target);
                if let Some((leader, _)) = found.filter(|_| answer.status == 307)
                    && leader != plane
                {
                    plane = leader;
                    continue;
                }
                answer.status.to_string()
            }
            Err(error) => error.clone(),
        };
        is_first = false;
        *promises.other.lock().expect("no panic").entry(other).or_default() += 1;
        turn += 1;
        plane = planes[turn % planes.len()];
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
