//! A disk without room: nothing is promised, nothing is lost, and the plane says what to do.

use std::time::{Duration, Instant};

use crate::client::{Crowd, ask};
use crate::disk::SmallDisk;
use crate::fleet::{WorkerProcess, addresses};
use crate::house::{FAILED, Plane, SOON, Wish};
use crate::{alone, runtime};

/// Room for what a plane reserves, and little more.
const DISK_MIB: u32 = 44;

/// Each job brings so much to the journal, bytes.
const PAD: usize = 50_000;

/// Longer than a worker may be silent; its beats are not written for as long.
const FULL_FOR: Duration = Duration::from_secs(5);

/// Starts on a full disk at most: each notes itself, until there is no room for that either.
const STARTS_MAX: u32 = 12;

struct Scene {
    plane: Plane,
    crowd: Crowd,
    _workers: [WorkerProcess; 2],
    // After the processes that use it.
    disk: SmallDisk,
    _logs: tempfile::TempDir,
}

impl Scene {
    async fn open(disk: SmallDisk) -> Self {
        let [address] = addresses::<1>();
        let logs = tempfile::tempdir().expect("a folder");
        let (data, log, role) = (disk.data(), logs.path().join("log"), "process_that_serves");
        let plane = Plane::start(Wish { role, address, data, log, variables: Vec::new() });
        let workers = [(); 2].map(|()| WorkerProcess::start(&[], &[address], ""));
        plane.until_workers(2).await;
        let pad = format!(r#","pad":"{}""#, "x".repeat(PAD));
        let crowd = Crowd::with(&[address], 4, Duration::from_millis(20), None, &pad);
        crowd.until_accepted(SOON).await;
        Self { plane, crowd, _workers: workers, disk, _logs: logs }
    }

    /// Takes the room away, and waits until the plane takes no more for good: what it reserved is used first.
    async fn fill(&self) -> usize {
        let began = Instant::now();
        let (mut last, mut since) = (self.crowd.accepted(), Instant::now());
        loop {
            self.disk.fill();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.crowd.accepted();
            if now > last {
                (last, since) = (now, Instant::now());
            }
            let refuses = self.plane.get("/readyz").await.is_ok_and(|answer| answer.status == 503);
            if refuses && since.elapsed() > Duration::from_secs(2) {
                return last;
            }
            assert!(began.elapsed() < SOON, "{last} jobs, and there is still room");
        }
    }
}

#[test]
fn a_full_disk_costs_no_promise_and_the_plane_goes_on_by_itself() {
    let _alone = alone();
    let Some(disk) = SmallDisk::mount(DISK_MIB) else { return };
    runtime().block_on(async {
        let mut scene = Scene::open(disk).await;
        let promised = scene.fill().await;
        let Scene { plane, crowd, disk, .. } = &mut scene;
        assert!(plane.get("/readyz").await.expect("an answer").body.contains("[-]journal-writable"));
        assert_eq!(plane.get("/livez").await.expect("an answer").status, 200);
        let address = plane.address();
        let refused = ask(address, "POST", "/v1/jobs", r#"{"payload":{}}"#, &[]).await.expect("an answer");
        assert_eq!(refused.status, 503, "{}", refused.body);
        assert!(refused.body.contains("free space in the data folder"), "{}", refused.body);
        for (method, path) in [
            ("GET", "/v1/jobs/job-0-999999999"),
            ("DELETE", "/v1/jobs/job-0-999999999"),
            ("GET", "/v1/jobs"),
            ("GET", "/v1/fleet/machines"),
        ] {
            let answer = ask(address, method, path, "", &[]).await.expect("an answer");
            assert!(answer.status == 503 && answer.body.contains("not-writable"), "{path}: {}", answer.body);
        }
        for job in crowd.promised().iter().take(20) {
            let answer = ask(address, "GET", &format!("/v1/jobs/{job}"), "", &[]).await.expect("an answer");
            assert!(matches!(answer.status, 200 | 503), "{job}: {}", answer.body);
        }
        tokio::time::sleep(FULL_FOR).await;
        assert_eq!(crowd.accepted(), promised, "nothing is promised that cannot be written");
        let journal = plane.data().join("journal.sqlite").display().to_string();
        assert!(plane.log().contains(&format!("no room is left at {journal}")), "{}", plane.log());
        disk.free();
        let after = crowd.until_accepted(SOON).await;
        assert!(plane.is_running(), "it goes on by itself");
        assert!(plane.log().contains("the journal takes commits again"));
        plane.until_workers(2).await;
        let verdict = scene.plane.close(scene.crowd).await;
        assert_eq!(verdict.closed, 0, "no worker was given up");
        eprintln!(
            "full disk: {promised} jobs, then none for {:?}; accepted again {after:.2?} after there was room; \
             {} ended once",
            FULL_FOR + Duration::from_secs(2),
            verdict.ended
        );
    });
}

#[test]
fn a_plane_on_a_full_disk_may_be_killed_started_and_ended() {
    let _alone = alone();
    let Some(disk) = SmallDisk::mount(DISK_MIB) else { return };
    runtime().block_on(async {
        let mut scene = Scene::open(disk).await;
        scene.fill().await;
        let Scene { plane, crowd, disk, .. } = &mut scene;
        plane.kill();
        let kept = plane.keeps(&crowd.promises);
        // Started on a disk that is still full, it serves and waits for room; or there is not even room to note the
        // start, and it says where.
        let (mut served, mut said) = (0, String::new());
        while said.is_empty() && served < STARTS_MAX {
            plane.start_again();
            if plane.serves().await {
                let refuses = async || plane.get("/readyz").await.is_ok_and(|answer| answer.status == 503);
                plane.until("it says that there is no room", refuses).await;
                served += 1;
                plane.kill();
            } else {
                said = plane.log().lines().last().unwrap_or_default().to_owned();
            }
        }
        let data = plane.data().display().to_string();
        let is_clear = said.contains(&data) && said.contains("no room is left");
        assert!(is_clear || said.is_empty(), "{said}");
        eprintln!("on the full disk it was started {served} times and served; then: {said}");
        disk.free();
        plane.start_again();
        crowd.until_accepted(SOON).await;
        // Asked to end while there is no room: what is not written is not promised, so it need not wait.
        scene.fill().await;
        let Scene { plane, crowd, disk, .. } = &mut scene;
        let asked = Instant::now();
        plane.ask_to_end();
        assert_eq!(plane.end().await, Some(FAILED), "it says that it could not write all");
        let ended = asked.elapsed();
        let kept_too = plane.keeps(&crowd.promises);
        disk.free();
        plane.start_again();
        crowd.until_accepted(SOON).await;
        let verdict = scene.plane.close(scene.crowd).await;
        eprintln!(
            "full disk: killed with {kept} promises, all kept; asked to end, it did within {ended:.2?} with \
             {kept_too}; {} ended once",
            verdict.ended
        );
    });
}
