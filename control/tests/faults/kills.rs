//! `kill -9` of a plane and of its eight workers, which paint with a diffusion model, at random under load.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gpu_runtime::generate::make_tiny;
use policy::units::random::Stream;

use crate::client::Crowd;
use crate::fleet::addresses;
use crate::house::{Plane, SOON, Wish};
use crate::painters::{COUNT, SCENE};
use crate::{alone, runtime};

/// How long is killed in a common run.
const KILLING: Duration = Duration::from_secs(20);

/// The workers of a data folder, whoever began them; they end with this.
struct Workers(std::path::PathBuf);

impl Workers {
    /// Numbers of their processes, as the plane notes them.
    fn numbers(&self) -> Vec<u64> {
        let number = |path: &Path| -> Option<u64> {
            let bytes = std::fs::read(path).ok()?;
            let record: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
            record["process"]["number"].as_u64()
        };
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        entries
            .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
            .filter_map(|path| number(&path))
            .collect()
    }

    /// Kills one, if it is a worker still: its number may be somebody else's by now.
    fn kill(&self, number: u64) -> bool {
        let words = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let is_worker = String::from_utf8_lossy(&words).contains("process_that_paints");
        is_worker
            && Command::new("kill")
                .args(["-KILL", &number.to_string()])
                .status()
                .is_ok_and(|done| done.success())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for number in self.numbers() {
            self.kill(number);
        }
    }
}

#[test]
fn kills_of_the_plane_and_of_eight_painters_lose_nothing() {
    let _alone = alone();
    let minutes = std::env::var("HEADROOM_FAULTS_MINUTES").ok().and_then(|text| text.parse::<f64>().ok());
    let killing = minutes.map_or(KILLING, |minutes| Duration::from_secs_f64(60.0 * minutes));
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("tiny");
    make_tiny(&model, 1).expect("a tiny model");
    runtime().block_on(async {
        let [address] = addresses::<1>();
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        let variables = vec![
            ("HEADROOM_TEST_SCENARIO", SCENE.toml()),
            ("HEADROOM_TEST_MODEL", model.display().to_string()),
        ];
        let workers = Workers(data.join("workers"));
        let role = "process_that_serves_painters";
        let mut plane = Plane::start(Wish { role, address, data, log, variables });
        plane.until_workers(COUNT).await;
        let more = r#","prompt":"a cat","seed":3,"frames":2,"steps":4,"format":"apng""#;
        let crowd = Crowd::with(&[address], 4, Duration::from_millis(100), None, more);
        crowd.until_accepted(SOON).await;
        let (chance, began) = (Stream::new(5, 0, "kills"), Instant::now());
        let mut kills = [0_u32; 2];
        for round in 0.. {
            tokio::time::sleep(Duration::from_millis(200 + chance.below(3 * round, 1300))).await;
            if chance.below(3 * round + 1, 3) == 0 {
                plane.kill();
                plane.start_again();
                kills[0] += 1;
            } else {
                let numbers = workers.numbers();
                let which = chance.below(3 * round + 2, COUNT as u64) as usize % numbers.len().max(1);
                kills[1] += u32::from(numbers.get(which).is_some_and(|number| workers.kill(*number)));
            }
            // Until a worker was hit at work, too.
            let is_hit = plane.figure("headroom_job_retries_total").await > Some(0.0);
            if began.elapsed() >= killing && is_hit && kills.iter().all(|count| *count > 0) {
                break;
            }
            assert!(began.elapsed() < killing + SOON, "{kills:?}, and no worker was hit at work");
        }
        crowd.until_accepted(SOON).await;
        plane.until_workers(COUNT).await;
        let verdict = plane.close(crowd).await;
        eprintln!(
            "{COUNT} workers with a diffusion model: {} kills of the plane, {} of workers in {:.0} s; {} jobs ended \
             once, {} of them begun again: {:?}",
            kills[0],
            kills[1],
            began.elapsed().as_secs_f64(),
            verdict.ended,
            verdict.begun_again,
            verdict.outcomes
        );
        assert_eq!(verdict.outcomes.get("done"), Some(&verdict.ended), "every picture was made");
    });
}
