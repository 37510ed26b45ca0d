//! Load on a plane's job API: `load URL closed IN_FLIGHT SECONDS`, `load URL open RATE SECONDS`, or
//! `load URL batch IN_FLIGHT SECONDS` (64 jobs a request). A job is 256 bytes of JSON and complete when the answer that
//! waited for its end has been read; in a batch, when it is accepted. Open-loop latencies count from the scheduled instant.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const BATCH: usize = 64;
const PAYLOAD_BYTES: usize = 256;

struct Target {
    authority: String,
    key: Option<String>,
}

impl Target {
    fn new(url: &str) -> Self {
        let authority = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { authority, key: std::env::var("HEADROOM_KEY").ok() }
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(&self.authority).await.expect("the plane listens");
        stream.set_nodelay(true).expect("a socket takes its options");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        sender
    }

    fn request(&self, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request =
            Request::post(path).header("host", &self.authority).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request.body(Full::new(body)).expect("a request")
    }
}

fn job() -> String {
    let head = "{\"prompt\":\"a photo of a cat on a red sofa\",\"width\":1024,\"height\":1024,\"pad\":\"";
    format!("{{\"payload\":{head}{}\"}}}}", "x".repeat(PAYLOAD_BYTES - head.len() - 2))
}

fn quantiles(name: &str, mut nanos: Vec<u64>) -> String {
    if nanos.is_empty() {
        return format!("{name}: nothing");
    }
    nanos.sort_unstable();
    let at =
        |p: f64| nanos[((nanos.len() as f64 * p).ceil() as usize).clamp(1, nanos.len()) - 1] as f64 / 1e6;
    let (p50, p90, p99, p999, max) = (at(0.5), at(0.9), at(0.99), at(0.999), at(1.0));
    format!(
        "{name}: n={} p50={p50:.2} p90={p90:.2} p99={p99:.2} p99.9={p999:.2} max={max:.2} ms",
        nanos.len()
    )
}

async fn once(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> bool {
    if sender.ready().await.is_err() {
        return false;
    }
    match sender.send_request(request).await {
        Ok(answer) => {
            let good = answer.status().is_success();
            answer.into_body().collect().await.is_ok() && good
        }
        Err(_) => false,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, mode, amount, seconds] = &arguments[..] else {
        eprintln!("usage: load URL closed|open|batch AMOUNT SECONDS");
        std::process::exit(2);
    };
    let (amount, seconds): (u64, u64) =
        (amount.parse().expect("a number"), seconds.parse().expect("a number"));
    let target = Arc::new(Target::new(url));
    let (latencies, failed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    let (path, body, jobs) = match mode.as_str() {
        "batch" => {
            let all = vec![job(); BATCH].join(",");
            ("/v1/jobs/batch", Bytes::from(format!("[{all}]")), BATCH as u64)
        }
        _ => ("/v1/jobs?wait=30", Bytes::from(job()), 1),
    };
    let mut tasks = Vec::new();
    if mode == "open" {
        let mut due = pace(started, amount, amount * seconds);
        // A connection per request in flight, kept for the next one.
        let idle = Arc::new(Mutex::new(Vec::new()));
        while let Some(due) = due.recv().await {
            let (target, idle) = (target.clone(), idle.clone());
            let (latencies, failed, body) = (latencies.clone(), failed.clone(), body.clone());
            tasks.push(tokio::spawn(async move {
                let kept = idle.lock().expect("no panic").pop();
                let mut sender = match kept {
                    Some(sender) => sender,
                    None => target.connect().await,
                };
                if once(&mut sender, target.request(path, body)).await {
                    latencies.lock().expect("no panic").push(due.elapsed().as_nanos() as u64);
                    idle.lock().expect("no panic").push(sender);
                } else {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
    } else {
        for _ in 0..amount {
            let (target, latencies, failed) = (target.clone(), latencies.clone(), failed.clone());
            let body = body.clone();
            tasks.push(tokio::spawn(async move {
                let mut sender = target.connect().await;
                let mut mine = Vec::new();
                while Instant::now() < end {
                    let began = Instant::now();
                    if once(&mut sender, target.request(path, body.clone())).await {
                        mine.push(began.elapsed().as_nanos() as u64);
                    } else {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        sender = target.connect().await;
                    }
                }
                latencies.lock().expect("no panic").extend(mine);
            }));
        }
    }
    for task in tasks {
        let _ = task.await;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let latencies = std::mem::take(&mut *latencies.lock().expect("no panic"));
    let done = latencies.len() as u64 * jobs;
    println!(
        "{mode} {amount}: done={done} failed={} {:.1} jobs/s",
        failed.load(Ordering::Relaxed),
        done as f64 / elapsed
    );
    println!("{}", quantiles("  latency", latencies));
}

/// Sends each of `count` due instants when it has come. A thread of its own: tokio's timer rounds up to a millisecond.
fn pace(started: Instant, rate: u64, count: u64) -> tokio::sync::mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for index in 0..count {
            let due = started + Duration::from_nanos(index * 1_000_000_000 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
        }
    });
    receiver
}
