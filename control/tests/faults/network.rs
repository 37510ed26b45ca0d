//! A network that cuts connections and stalls: clients send again, workers come back, and each key is one job.

use std::time::{Duration, Instant};

use policy::units::random::Stream;

use crate::client::Crowd;
use crate::fleet::{WorkerProcess, addresses};
use crate::house::{Plane, SOON, Wish};
use crate::proxy::{Fate, Proxy};
use crate::{alone, runtime};

/// How long the network is bad.
const STORM: Duration = Duration::from_secs(12);

/// A request is about 240 bytes, its answer about 300.
fn client_fate(chance: Stream, number: u64) -> Fate {
    let (kind, size) = (chance.below(2 * number, 10), chance.below(2 * number + 1, 300));
    match kind {
        0 | 1 => Fate::CutThere { after: size },
        2 | 3 => Fate::CutBack { after: size },
        4 => Fate::CutAt { after: Duration::from_millis(size / 30) },
        // Sometimes longer than a client waits.
        5 => {
            Fate::Stalls { after: Duration::from_millis(size / 60), until: Duration::from_millis(size * 15) }
        }
        _ => Fate::Whole,
    }
}

/// Workers keep their connections.
fn worker_fate(chance: Stream, number: u64) -> Fate {
    let (kind, size) = (chance.below(2 * number, 8), chance.below(2 * number + 1, 4096));
    match kind {
        0 => Fate::CutThere { after: size },
        1 | 2 => Fate::CutBack { after: size },
        3 => Fate::Stalls { after: Duration::from_millis(200), until: Duration::from_millis(200 + size) },
        _ => Fate::CutAt { after: Duration::from_millis(100 + size / 4) },
    }
}

#[test]
fn cut_connections_make_no_second_job_and_lose_none() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let [address] = addresses::<1>();
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        let role = "process_that_serves";
        let mut plane = Plane::start(Wish { role, address, data, log, variables: Vec::new() });
        plane.until_ready().await;
        let clients = Proxy::start(address, "clients", client_fate).await;
        let workers = Proxy::start(address, "workers", worker_fate).await;
        let mut processes = [(); 2].map(|()| WorkerProcess::start(&[], &[workers.address], ""));
        let crowd = Crowd::start(&[clients.address], 8, Duration::from_millis(10), None);
        crowd.until_accepted(SOON).await;
        tokio::time::sleep(STORM).await;
        // Until each way of being cut was met.
        let replayed = async || {
            let page = plane.get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
            let is_it = |line: &&str| line.contains("headroom_jobs_submitted_total") && line.contains("replayed");
            page.lines().find(is_it).and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        let until = Instant::now() + SOON;
        while clients.cuts().contains(&0) || workers.cuts().contains(&0) {
            assert!(Instant::now() < until, "{:?} {:?}", clients.cuts(), workers.cuts());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let (again, cuts) = (replayed().await, [clients.cuts(), workers.cuts()]);
        let came_back = workers.connections();
        clients.calm_down();
        workers.calm_down();
        assert!(processes.iter_mut().all(WorkerProcess::is_running), "workers outlive their connections");
        plane.until_workers(2).await;
        crowd.until_accepted(SOON).await;
        let verdict = plane.close(crowd).await;
        eprintln!(
            "cut connections: of clients {:?}, of workers {:?} (cut there, back, at a time, after a stall); workers \
             connected {came_back} times, {again} submissions came again; {} jobs ended once",
            cuts[0], cuts[1], verdict.ended
        );
        assert!(again > 0.0, "answers were lost whose jobs were accepted");
    });
}
