//! Load on a plane's job API: `load URL closed IN_FLIGHT SECONDS`, `load URL open RATE SECONDS`, the same by plain sockets
//! (`load URL plain RATE SECONDS`), or `load URL batch IN_FLIGHT SECONDS` (64 jobs a request). A job is 256 bytes of JSON and complete when the answer that
//! waited for its end has been read; in a batch, when it is accepted. Open-loop latencies count from the scheduled instant.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;

use line::{Target, job, once, pace, quantiles};

mod line;

const BATCH: usize = 64;

fn good(answer: Option<(StatusCode, Bytes)>) -> bool {
    answer.is_some_and(|(status, _)| status.is_success())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, mode, amount, seconds] = &arguments[..] else {
        eprintln!("usage: load URL closed|open|plain|batch AMOUNT SECONDS");
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
    if mode == "plain" {
        let (all, others) = line::plain::paced(&target, path, &job(), amount, seconds);
        *latencies.lock().expect("no panic") = all;
        failed.store(others, Ordering::Relaxed);
    } else if mode == "open" {
        let mut due = pace(
            started,
            (0..amount * seconds).map(move |at| Duration::from_nanos(at * 1_000_000_000 / amount)),
        );
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
                if good(once(&mut sender, target.request(path, body)).await) {
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
                    if good(once(&mut sender, target.request(path, body.clone())).await) {
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
