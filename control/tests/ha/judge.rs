//! Whether everything that was promised was kept: from the journal itself, folded anew.

use std::collections::{BTreeMap, BTreeSet};

use control::effect::Effect;
use control::engine::{Commands, encode_record, first_served};
use control::number::JobNumber;
use control::plane::Plane;
use control::store::{Recovered, Store};

use crate::client::Promises;

/// What a journal says.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) commands: u64,
    pub(crate) takeovers: u64,
    pub(crate) ended: u64,
    /// Those of them that were begun again.
    pub(crate) begun_again: u64,
    /// Sessions of workers that the plane ended.
    pub(crate) closed: u64,
    /// How they did.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
}

/// Reads the whole journal again: every job that was promised ended once, nothing ended that was not submitted, each
/// key is one job, and what is kept of the ended ones is what the journal says. Must not be called from an asynchronous
/// task.
pub(crate) fn judge(mut store: impl Store, promises: &Promises) -> Verdict {
    let (plane, ended, mut verdict) = fold(&mut store);
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

/// Reads the whole journal while jobs are on their way: every job that was promised so far is in it. How many were.
pub(crate) fn kept(mut store: impl Store, promises: &Promises) -> usize {
    let jobs = promises.jobs.lock().expect("no panic");
    let (plane, ended, _) = fold(&mut store);
    for (key, job) in jobs.iter() {
        let job: JobNumber = job.parse().expect("a job's id");
        let is_there = ended.contains_key(&job) || plane.job(job).is_some();
        assert!(is_there, "{key} was promised as {job} and is not in the journal");
    }
    jobs.len()
}

/// The fold of a whole journal, and what it keeps of each job that ended: once.
fn fold(store: &mut impl Store) -> (Plane, BTreeMap<JobNumber, Vec<u8>>, Verdict) {
    let (secret, mut begun) = (store.secret(), None);
    let mut verdict = Verdict::default();
    let mut ended: BTreeMap<JobNumber, Vec<u8>> = BTreeMap::new();
    let mut effects = Vec::new();
    let read = store.history(&mut |recovered| {
        let Recovered::Batch { body, .. } = recovered else { panic!("a history has no image") };
        let plane = match &mut begun {
            Some(plane) => plane,
            none => {
                let served = first_served(&body)?.expect("the first batch says what is served");
                let rules = served.rules(secret).expect("it can be served");
                none.insert(Plane::new(rules, &mut Vec::new()).expect("a plane"))
            }
        };
        for command in Commands::new(&body) {
            let (now, command) = command?;
            verdict.commands += 1;
            verdict.takeovers += u64::from(matches!(command, control::command::Command::TookOver { .. }));
            plane.apply(now, command, &mut effects);
            for effect in effects.drain(..) {
                verdict.closed += u64::from(matches!(effect, Effect::Close { .. }));
                if let Effect::Ended(record) = effect {
                    verdict.begun_again += u64::from(record.deliveries > 1);
                    *verdict.outcomes.entry(record.outcome.name()).or_default() += 1;
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
    (begun.expect("a plane began it"), ended, verdict)
}
