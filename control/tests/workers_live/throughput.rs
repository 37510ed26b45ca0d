//! How many jobs one connection carries, and that bursts of all sizes come through whole. Figures are printed, not judged.

use std::time::Instant;

use control::store::{Disk, DiskStore, SqliteStore};
use control::worker::Stop;
use policy::records::JobOutcome;

use super::house::{House, Plan, end, submission};
use super::{employ, settings};

async fn carry(house: House, jobs: usize, in_flight: usize) -> f64 {
    let (worker, stop) = employ(settings(&house.url(), 256));
    house.until(1, 1).await;
    let began = Instant::now();
    let tasks = (0..in_flight).map(|_| {
        let handle = house.handle.clone();
        tokio::spawn(async move {
            for _ in 0..jobs / in_flight {
                let submitted = handle.submit(submission("{}"), true).await.expect("the plane takes it");
                let record = end(submitted.end.expect("an end was wished")).await;
                assert_eq!((record.outcome, record.deliveries), (JobOutcome::Done, 1));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("every job ends");
    }
    let rate = jobs as f64 / began.elapsed().as_secs_f64();
    stop.send_replace(Stop::Now);
    worker.await.expect("no panic");
    house.close().await;
    rate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_of_a_burst_ends_once() {
    let house = House::open(&Plan::joined(1, 256), &Disk::default(), None).await;
    let rate = carry(house, 2_000, 200).await;
    println!("{rate:.0} jobs/s on one connection, journal in memory, unoptimised");
}

/// `cargo test --release -p control --test workers_live -- --ignored --nocapture measure`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_jobs_of_one_connection() {
    for in_flight in [64, 256] {
        let memory = DiskStore::open(&Disk::default());
        let house = House::open_with(&Plan::joined(1, 256), memory, None).await;
        println!("{in_flight} in flight, memory: {:.0} jobs/s", carry(house, 50_000, in_flight).await);
        let folder = tempfile::tempdir_in(".").expect("a folder");
        let sqlite = SqliteStore::open(folder.path()).expect("a journal");
        let house = House::open_with(&Plan::joined(1, 256), sqlite, None).await;
        println!("{in_flight} in flight, SQLite synced: {:.0} jobs/s", carry(house, 50_000, in_flight).await);
    }
}
