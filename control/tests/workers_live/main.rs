//! Workers on real connections: killed, stopped, hung, disconnected, lying. Times are generous; nothing here is a claim of
//! speed.

mod fleet;
mod house;
mod interruption;
mod pictures;
mod raw;
#[path = "../scene/mod.rs"]
mod scene;
mod secure;
mod survival;
mod throughput;
mod trust;

use std::time::Duration;

use control::worker::{Address, Exit, SleepRunner, Stop, Worker, WorkerSettings};
use tokio::sync::watch;

/// Settings of a worker that joins by itself.
pub(crate) fn settings(url: &str, slots: u16) -> WorkerSettings {
    WorkerSettings {
        address: Address::new(url, house::JOIN, None).expect("an address"),
        pool: "gpu".to_owned(),
        launch: None,
        slots,
        hang_after: Duration::from_secs(120),
        alone_for: None,
    }
}

/// A worker in this process, and the way to stop it.
pub(crate) fn employ(settings: WorkerSettings) -> (tokio::task::JoinHandle<Exit>, watch::Sender<Stop>) {
    let (stop, stopped) = watch::channel(Stop::No);
    let worker = Worker::new(settings, std::sync::Arc::new(SleepRunner::new()), stopped).expect("a thread");
    (tokio::spawn(worker.run()), stop)
}

/// What the worker processes of these tests run; does nothing by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "begun by other tests, as a process of its own"]
async fn process_that_works() {
    let Ok(url) = std::env::var("HEADROOM_TEST_PLANE") else { return };
    let hang_after = std::env::var("HEADROOM_TEST_HANG_MS").ok().and_then(|text| text.parse().ok());
    let settings = WorkerSettings {
        hang_after: Duration::from_millis(hang_after.unwrap_or(120_000)),
        launch: std::env::var("HEADROOM_LAUNCH").ok(),
        ..settings(&url, 4)
    };
    let (worker, stop) = employ(settings);
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a handler");
    tokio::spawn(async move {
        terminate.recv().await;
        stop.send_replace(Stop::Within(Duration::from_secs(20)));
        terminate.recv().await;
        stop.send_replace(Stop::Now);
        std::future::pending::<()>().await;
    });
    let code = match worker.await.expect("the worker does not panic") {
        Exit::Left => 0,
        Exit::DeviceFailed(_) => 5,
        _ => 1,
    };
    std::process::exit(code);
}
