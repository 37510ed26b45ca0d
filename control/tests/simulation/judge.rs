//! Reads the history: what was promised to clients and workers, and what became durable.

use std::collections::{BTreeMap, BTreeSet};

use control::effect::{Answer, Effect, JobState};
use control::number::JobNumber;
use control::protocol::ToWorker;
use policy::model::Lease;
use policy::records::JobOutcome;

/// What was seen of one job.
#[derive(Clone, Debug, Default)]
struct Seen {
    accepted: bool,
    ended: Option<JobOutcome>,
    /// The lease that was told last, with the stage.
    lease: Option<(Lease, String)>,
    /// Stages whose result was accepted.
    done: BTreeSet<String>,
    version: u32,
}

/// Reads effects in the order in which they were performed. What a crash kept from being performed it never sees, just
/// as nobody else does.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    jobs: BTreeMap<JobNumber, Seen>,
    /// Every lease that was told, and for what: a lease is the right to one stage of one job, once.
    leases: BTreeMap<Lease, (JobNumber, String)>,
    acknowledged: BTreeSet<Lease>,
    pub(crate) accepted: u64,
    pub(crate) stale: u64,
}

impl Judge {
    /// Reads one performed effect.
    pub(crate) fn read(&mut self, effect: &Effect) {
        match effect {
            Effect::Answer(Answer::Accepted(job)) => {
                let seen = self.jobs.entry(*job).or_default();
                assert!(!seen.accepted, "{job} was accepted twice");
                seen.accepted = true;
                self.accepted += 1;
            }
            Effect::Answer(Answer::Known(job)) => {
                // The acceptance itself may have been lost in a crash; the promise counts from now.
                let seen = self.jobs.entry(*job).or_default();
                self.accepted += u64::from(!seen.accepted);
                seen.accepted = true;
            }
            Effect::Tell { message: ToWorker::Start(start), .. } => {
                let seen = self.jobs.entry(start.job).or_default();
                assert_eq!(seen.ended, None, "{} was started after its end", start.job);
                assert!(
                    !seen.done.contains(&start.stage),
                    "{} started {} again after it was done",
                    start.job,
                    start.stage
                );
                let what = (start.job, start.stage.clone());
                let told = self.leases.entry(start.lease).or_insert_with(|| what.clone());
                assert_eq!(*told, what, "one lease for two pieces of work");
                seen.lease = Some((start.lease, start.stage.clone()));
            }
            Effect::Tell { message: ToWorker::Ack { lease, accepted }, .. } => {
                self.acknowledge(*lease, *accepted)
            }
            Effect::Changed(event) => {
                let seen = self.jobs.entry(event.job).or_default();
                assert!(
                    event.version > seen.version,
                    "{}: change {} after {}",
                    event.job,
                    event.version,
                    seen.version
                );
                seen.version = event.version;
                if event.state == JobState::Queued {
                    seen.lease = None;
                }
            }
            Effect::Ended(record) => {
                let seen = self.jobs.entry(record.job).or_default();
                assert_eq!(seen.ended, None, "{} ended twice", record.job);
                seen.ended = Some(record.outcome);
            }
            _ => {}
        }
    }

    fn acknowledge(&mut self, lease: Lease, accepted: bool) {
        if !accepted {
            self.stale += 1;
            return;
        }
        let (job, stage) = self.leases.get(&lease).expect("a result of a lease that was never told").clone();
        assert!(self.acknowledged.insert(lease), "a result was accepted twice under one lease of {job}");
        let seen = self.jobs.entry(job).or_default();
        if let Some((held, _)) = &seen.lease {
            assert_eq!(*held, lease, "{job}: a result was accepted under an old lease");
        }
        let _ = stage;
    }

    /// A durable end that nobody may have heard of, from the store.
    pub(crate) fn stored_end(&mut self, job: JobNumber, outcome: JobOutcome) {
        let seen = self.jobs.entry(job).or_default();
        assert!(
            seen.ended.is_none_or(|ended| ended == outcome),
            "{job} ended as {:?} and as {outcome:?}",
            seen.ended
        );
        seen.ended = Some(outcome);
    }

    /// After everything came to rest: every promise was kept.
    pub(crate) fn close(&self) {
        for (job, seen) in &self.jobs {
            assert!(!seen.accepted || seen.ended.is_some(), "{job} was accepted and never ended");
        }
    }

    /// How many jobs ended so.
    pub(crate) fn ended(&self, outcome: JobOutcome) -> u64 {
        self.jobs.values().filter(|seen| seen.ended == Some(outcome)).count() as u64
    }
}
