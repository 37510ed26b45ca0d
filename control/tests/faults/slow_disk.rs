//! A disk whose syncs take long: answers wait for it, clients are held off, workers are not given up.

use std::time::Duration;

use crate::client::Crowd;
use crate::disk::SlowSyncs;
use crate::fleet::{WorkerProcess, addresses};
use crate::house::{Plane, SOON, Wish};
use crate::{alone, runtime};

/// Each sync takes so much longer.
const SLOW: Duration = Duration::from_millis(300);

/// One of them takes longer than a worker may be silent.
const STALL: Duration = Duration::from_secs(6);

/// Jobs in the system at most.
const JOBS_MAX: usize = 24;

/// More clients than jobs there may be.
const CLIENTS: usize = 64;

#[test]
fn a_slow_disk_makes_clients_wait_and_nobody_lose() {
    let _alone = alone();
    let Some(syncs) = SlowSyncs::build() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let [address] = addresses::<1>();
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        let mut variables = syncs.variables();
        variables.push(("HEADROOM_TEST_JOBS_MAX", JOBS_MAX.to_string()));
        let mut plane = Plane::start(Wish { role: "process_that_serves", address, data, log, variables });
        let workers = [(); 2].map(|()| WorkerProcess::start(&[], &[address], ""));
        plane.until_workers(2).await;
        syncs.take(SLOW);
        // Commits that are under way now may still be fast.
        tokio::time::sleep(2 * SLOW).await;
        let crowd = Crowd::with(&[address], CLIENTS, Duration::from_millis(20), None, "");
        crowd.until_accepted(SOON).await;
        let mut jobs_most = 0.0_f64;
        for _ in 0..50 {
            jobs_most = plane.figure("headroom_jobs").await.map_or(jobs_most, |jobs| jobs_most.max(jobs));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let held_off = crowd.promises.other.lock().expect("no panic").get("429").copied().unwrap_or(0);
        assert!(held_off > 0, "more clients than room, and none is told to come back");
        assert!(jobs_most <= JOBS_MAX as f64, "{jobs_most} jobs in the system");

        // The next sync takes it, and is still at it when the time is over.
        syncs.take(STALL);
        tokio::time::sleep(STALL / 2).await;
        syncs.take(SLOW);
        let longest = async || plane.figure("headroom_commit_max_seconds").await;
        plane.until("a sync took long", async || longest().await >= Some(STALL.as_secs_f64())).await;
        crowd.until_accepted(SOON).await;
        plane.until_workers(2).await;
        assert_eq!(plane.figure("headroom_job_retries_total").await, Some(0.0), "no worker was given up");

        let longest = longest().await.unwrap_or_default();
        // Right behind a promise.
        crowd.until_accepted(SOON).await;
        plane.kill();
        let kept = plane.keeps(&crowd.promises);
        let shortest = crowd.promises.waits.lock().expect("no panic").iter().min().copied().expect("some");
        assert!(shortest >= SLOW, "a job was accepted after {shortest:?}, before it was on disk");
        plane.start_again();
        crowd.until_accepted(SOON).await;
        syncs.take(Duration::ZERO);
        let verdict = plane.close(crowd).await;
        eprintln!(
            "slow disk: the shortest promise took {shortest:.2?} at {SLOW:?} a sync; {held_off} times a client was \
             told to come back; longest commit {:.1} s; killed with {kept} promises, all kept; {} ended once",
            longest,
            verdict.ended
        );
        drop(workers);
    });
}
