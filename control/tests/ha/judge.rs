//! Whether everything that was promised was kept: from the journal itself, folded anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use control::effect::Effect;
use control::engine::{Commands, encode_record};
use control::number::JobNumber;
use control::plane::Plane;
use control::store::{PostgresPlace, PostgresStore, Recovered, Store};

use crate::client::Promises;
use crate::cluster::Cluster;
use crate::fleet::rules;

/// What a journal says.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) commands: u64,
    pub(crate) takeovers: u64,
    pub(crate) ended: u64,
}

/// Waits until as many jobs have ended as were promised.
pub(crate) async fn all_ended(cluster: &Cluster, database: &str, promises: &Promises) {
    let promised = promises.jobs.lock().expect("no panic").len();
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let ended = cluster.query(database, "SELECT COUNT(*) FROM headroom_ended").unwrap_or_default();
        if ended.parse::<usize>().is_ok_and(|ended| ended >= promised) {
            return;
        }
        assert!(Instant::now() < until, "{ended} of {promised} jobs have ended, and no more do");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Reads the whole journal again: every job that was promised ended once, nothing ended that was not submitted, each
/// key is one job, and what is kept of the ended ones is what the journal says. Must not be called from an asynchronous
/// task.
pub(crate) fn judge(place: PostgresPlace, promises: &Promises) -> Verdict {
    let mut store = PostgresStore::open(place.clone(), 0).expect("a store");
    let mut plane = Plane::new(rules(place.shard, store.secret()), &mut Vec::new()).expect("a plane");
    let mut verdict = Verdict::default();
    let mut ended: BTreeMap<JobNumber, Vec<u8>> = BTreeMap::new();
    let mut effects = Vec::new();
    let read = store.history(&mut |recovered| {
        let Recovered::Batch { body, .. } = recovered else { panic!("a history has no image") };
        for command in Commands::new(&body) {
            let (now, command) = command?;
            verdict.commands += 1;
            verdict.takeovers += u64::from(matches!(command, control::command::Command::TookOver { .. }));
            plane.apply(now, command, &mut effects);
            for effect in effects.drain(..) {
                if let Effect::Ended(record) = effect {
                    assert!(
                        ended.insert(record.job, encode_record(&record)).is_none(),
                        "{} ended twice",
                        record.job
                    );
                }
            }
        }
        Ok(())
    });
    read.expect("the journal has no gap");
    assert_eq!(plane.jobs_in_system(), 0, "all ended");
    verdict.ended = ended.len() as u64;
    let mut archive = store.archive();
    for (job, record) in &ended {
        assert_eq!(archive.ended(*job).expect("read").as_ref(), Some(record), "{job} as it is kept");
    }
    let jobs = promises.jobs.lock().expect("no panic");
    for (key, job) in jobs.iter() {
        let job: JobNumber = job.parse().expect("a job's id");
        assert!(ended.contains_key(&job), "{key} was promised as {job} and is lost");
    }
    let distinct: BTreeSet<&String> = jobs.values().collect();
    assert_eq!(distinct.len(), jobs.len(), "no two keys are one job");
    assert_eq!(ended.len(), jobs.len(), "no job was made twice");
    verdict
}
