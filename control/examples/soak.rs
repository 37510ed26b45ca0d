//! Kills a plane and its worker with SIGKILL, again and again, under submissions; then looks whether every accepted job
//! ended once: `soak FOLDER KILLS [PORT]`, half of the kills for each. It starts `bench_plane`, which must lie beside it.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use policy::units::random::Stream;
use serde_json::Value;
use tokio::net::TcpStream;

const CLIENTS: u64 = 16;

/// Pause between two submissions of one client: about 500 jobs a second in all.
const PAUSE: Duration = Duration::from_millis(32);

/// Everything must have ended so long after the last kill.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Book {
    /// Job id by key, once the plane said so.
    accepted: Mutex<BTreeMap<String, String>>,
    refused: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

struct Line {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> Option<(StatusCode, Value)> {
        if self.sender.is_none() {
            let stream = TcpStream::connect(&self.address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let (sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        let mut request = Request::builder().method(method).uri(path).header("host", &self.address);
        if let Some(key) = key {
            request = request.header("idempotency-key", key).header("content-type", "application/json");
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).ok()?;
        let sender = self.sender.as_mut()?;
        let answer = async {
            sender.ready().await.ok()?;
            let answer = sender.send_request(request).await.ok()?;
            let status = answer.status();
            let bytes = answer.into_body().collect().await.ok()?.to_bytes();
            Some((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
        };
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.ok().flatten();
        if answer.is_none() {
            self.sender = None;
        }
        answer
    }
}

async fn client(number: u64, address: String, book: Arc<Book>) {
    let chance = Stream::new(number, 0, "soak");
    let mut line = Line { address, sender: None };
    for count in 0.. {
        if book.stop.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("client-{number}-{count}");
        // Until the plane says yes: what it did not answer may be in or not, and the key makes both the same job.
        let times = if chance.unit(count) < 0.1 { 2 } else { 1 };
        for _ in 0..times {
            loop {
                let body = format!("{{\"payload\":{{\"n\":{count}}}}}");
                match line.ask(Method::POST, "/v1/jobs", Some(&key), &body).await {
                    Some((status, answer)) if status.is_success() => {
                        let id = answer["id"].as_str().expect("an accepted job has an id").to_owned();
                        let before = book.accepted.lock().expect("no panic").insert(key.clone(), id.clone());
                        assert!(before.is_none_or(|before| before == id), "{key} named two jobs");
                        break;
                    }
                    Some((StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _)) => {
                        book.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Some((status, answer)) => panic!("{status}: {answer}"),
                    None => {
                        book.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Household {
    folder: String,
    address: String,
    program: std::path::PathBuf,
}

impl Household {
    fn start(&self, words: &[&str]) -> Child {
        Command::new(&self.program)
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bench_plane lies beside this program")
    }

    fn plane(&self) -> Child {
        self.start(&["serve", &self.folder, &self.address])
    }

    fn worker(&self) -> Child {
        self.start(&["work", &format!("http://{}", self.address), "256"])
    }
}

fn kill(child: &mut Child) {
    child.kill().expect("a process that runs");
    child.wait().expect("it ends");
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = arguments.get(1).cloned().unwrap_or_else(|| {
        eprintln!("usage: soak FOLDER KILLS [PORT]");
        std::process::exit(2)
    });
    let kills: u64 = arguments.get(2).and_then(|text| text.parse().ok()).unwrap_or(100);
    let port = arguments.get(3).cloned().unwrap_or_else(|| "8741".to_owned());
    let house = Household {
        folder,
        address: format!("127.0.0.1:{port}"),
        program: std::env::current_exe().expect("a path").with_file_name("bench_plane"),
    };
    let book = Arc::new(Book::default());
    let (mut plane, mut worker) = (house.plane(), house.worker());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(number, house.address.clone(), book.clone())))
        .collect();
    let chance = Stream::new(7, 0, "kills");
    let began = Instant::now();
    for count in 0..kills {
        tokio::time::sleep(Duration::from_millis(100 + chance.below(count, 500))).await;
        if count % 2 == 0 {
            kill(&mut plane);
            plane = house.plane();
        } else {
            kill(&mut worker);
            worker = house.worker();
        }
    }
    book.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("clients do not panic");
    }
    let accepted = std::mem::take(&mut *book.accepted.lock().expect("no panic"));
    println!(
        "{} accepted under {kills} kills in {:.0} s; refused {}, unanswered {}",
        accepted.len(),
        began.elapsed().as_secs_f64(),
        book.refused.load(Ordering::Relaxed),
        book.failed.load(Ordering::Relaxed)
    );
    let mut line = Line { address: house.address.clone(), sender: None };
    let mut ids: Vec<&String> = accepted.values().collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), accepted.len(), "two keys share a job");
    let until = Instant::now() + PATIENCE;
    let (mut states, mut deliveries) = (BTreeMap::<String, u64>::new(), 0);
    for id in ids {
        let state = loop {
            if let Some((StatusCode::OK, job)) =
                line.ask(Method::GET, &format!("/v1/jobs/{id}"), None, "").await
            {
                let state = job["state"].as_str().unwrap_or("?").to_owned();
                if !["queued", "running"].contains(&state.as_str()) {
                    deliveries += job["deliveries"].as_u64().unwrap_or(0);
                    break state;
                }
            }
            assert!(Instant::now() < until, "{id} did not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        *states.entry(state).or_insert(0) += 1;
    }
    kill(&mut worker);
    kill(&mut plane);
    println!("ended: {states:?}, leases given: {deliveries}");
    assert_eq!(states.get("done").copied().unwrap_or(0), accepted.len() as u64, "every accepted job is done");
}
