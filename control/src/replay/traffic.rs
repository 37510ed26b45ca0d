//! What a journal says of a day: who came, what became of them, how long work and start-ups took, what it cost.

use std::collections::BTreeMap;

use policy::dispatch::InstanceState;
use policy::model::{ClassId, Lease, PoolId, RegionId};
use policy::records::{InstanceEnd, JobOutcome};
use policy::units::{Duration, Instant, Usd};

use super::{Origin, ReplayError, Step, Watch, walk};
use crate::command::{Command, LaunchToken};
use crate::effect::{Answer, Effect, JobState, Refusal};
use crate::number::JobNumber;
use crate::plane::Plane;
use crate::protocol::{Report, ToWorker};
use crate::store::{Store, StoreError};

/// A job that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// Its class.
    pub class: ClassId,
    /// Region of its client.
    pub region: RegionId,
    /// Its own priority; the class's where it has none.
    pub priority: Option<u8>,
    /// Its own deadline; the class's where it has none.
    pub deadline: Option<Duration>,
}

/// What became of those who came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Submissions that were new: not repetitions, and within their tenant's quota.
    pub arrived: u64,
    /// By outcome, in the order of [`JobOutcome::ALL`].
    pub ended: [u64; 5],
    /// Not ended when the journal does.
    pub unfinished: u64,
    /// Submissions that named a job that was there already.
    pub repeated: u64,
    /// Submissions beyond their tenant's quota; no policy would have taken them.
    pub over_quota: u64,
    /// Jobs that a client or an operator cancelled.
    pub cancellations: u64,
    /// Attempts that failed.
    pub attempts_failed: u64,
    /// Instances that were taken away or died.
    pub instances_lost: u64,
    /// Other parameters that were read while the plane ran.
    pub reloads: u64,
}

impl Counts {
    /// Jobs that ended so.
    pub fn of(&self, outcome: JobOutcome) -> u64 {
        self.ended[index(outcome)]
    }
}

/// Times as they were, nanoseconds, not sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// From the start of a stage's attempt to its report, by stage, pool and quality level; done attempts only.
    pub services: BTreeMap<(u16, u16, u16), Vec<u64>>,
    /// Attempts that ended in a report, and those among them that failed, by stage.
    pub attempts: BTreeMap<u16, (u64, u64)>,
    /// From a launch to a worker that is ready, by pool; where workers join by themselves nothing is known.
    pub startups: BTreeMap<u16, Vec<u64>>,
}

/// A day, as its journal tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// By time.
    pub arrivals: Vec<Arrival>,
    /// What became of them.
    pub counts: Counts,
    /// Arrival to end of each done job, nanoseconds, by end.
    pub latencies: Vec<u64>,
    /// Time that each done job waited, nanoseconds, by end.
    pub waits: Vec<u64>,
    /// Times of work and of start-ups.
    pub measured: Measured,
    /// When the journal begins that is kept, on the plane's clock; all times here count from then.
    pub begun: Instant,
    /// Jobs that were in the system then; what became of them is left out.
    pub carried: u64,
    /// Time of the last command.
    pub last: Instant,
    /// What the machines cost until then.
    pub spent: Usd,
    /// Most machines at once, by pool.
    pub peaks: Vec<u32>,
}

/// Reads a day out of a journal.
///
/// # Errors
/// [`ReplayError`].
pub fn live_outcomes(store: &mut dyn Store, origins: &[Origin]) -> Result<Traffic, ReplayError> {
    let mut watch = Observer::default();
    let plane = walk(store, origins, &mut watch)?;
    let mut traffic = watch.traffic;
    traffic.last = Instant::START + plane.last().since(traffic.begun);
    traffic.spent = Usd::from_nanos(plane.figures(plane.last()).spent_nanousd - watch.spent_nanousd);
    traffic.counts.unfinished = plane.jobs_in_system() as u64;
    traffic.peaks.resize(plane.rules().system.pools.len(), 0);
    Ok(traffic)
}

/// An attempt under way.
struct Attempt {
    lease: Lease,
    began: Instant,
    place: (u16, u16, u16),
}

#[derive(Default)]
struct Observer {
    traffic: Traffic,
    attempts: BTreeMap<JobNumber, Attempt>,
    /// Launches whose worker is not ready yet.
    launches: BTreeMap<LaunchToken, (PoolId, Instant)>,
    /// Launches that count among the machines, by token.
    machines: BTreeMap<LaunchToken, PoolId>,
    counts: Vec<u32>,
    /// The first that arrives in the journal, where its beginning is forgotten.
    first_job: Option<JobNumber>,
    /// Spent before the journal begins.
    spent_nanousd: i64,
}

impl Watch for Observer {
    fn begin(&mut self, plane: &Plane, _: u64) {
        self.traffic.begun = plane.last();
        self.traffic.carried = plane.jobs_in_system() as u64;
        self.first_job = Some(plane.next_job());
        self.spent_nanousd = plane.figures(plane.last()).spent_nanousd;
        let ends = |state| matches!(state, InstanceState::Free | InstanceState::Terminating);
        for machine in plane.machines(None, None, usize::MAX).0.iter().filter(|one| !ends(one.state)) {
            self.machine(plane, machine.token, machine.pool);
        }
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), StoreError> {
        let counts = &mut self.traffic.counts;
        match step.command {
            Command::Finished { lease, job, report, .. } => {
                let ack = |effect: &Effect| matches!(effect, Effect::Tell { message: ToWorker::Ack { accepted: true, lease: of }, .. } if of == lease);
                if step.effects.iter().any(ack) {
                    self.finished(step.now, *job, *lease, report);
                }
            }
            Command::Ready { session } => {
                if let Some(token) = step.plane.launch_of(*session)
                    && let Some((pool, at)) = self.launches.remove(&token)
                {
                    let took = step.now.since(at).as_nanos();
                    self.traffic.measured.startups.entry(pool.0).or_default().push(took);
                }
            }
            Command::Reload { .. } => {
                let taken = |effect: &Effect| matches!(effect, Effect::Answer(Answer::Reloaded));
                counts.reloads += u64::from(step.effects.iter().any(taken));
            }
            Command::Cancel { .. } => {
                let done = |effect: &Effect| matches!(effect, Effect::Answer(Answer::Cancelled));
                counts.cancellations += u64::from(step.effects.iter().any(done));
            }
            Command::LaunchFailed { token, .. } | Command::MachineGone { token } => {
                self.launches.remove(token);
            }
            _ => {}
        }
        step.effects.iter().for_each(|effect| self.effect(step, effect));
        Ok(())
    }
}

impl Observer {
    fn effect(&mut self, step: &Step<'_>, effect: &Effect) {
        match effect {
            Effect::Answer(answer) => self.answered(step, answer),
            Effect::Changed(event) if event.state == JobState::Running => {
                if let Some((lease, pool, quality)) = step.plane.work_on(event.job) {
                    let place = (event.stage, pool.0, quality);
                    self.attempts.insert(event.job, Attempt { lease, began: event.at, place });
                }
            }
            Effect::Ended(record) => {
                self.attempts.remove(&record.job);
                if self.first_job.is_some_and(|first| record.job < first) {
                    return;
                }
                self.traffic.counts.ended[index(record.outcome)] += 1;
                if record.outcome == JobOutcome::Done {
                    self.traffic.latencies.push(record.ended.since(record.arrived).as_nanos());
                    self.traffic.waits.push(record.waited.as_nanos());
                }
            }
            Effect::Launch { token, pool } => self.launched(step, *token, *pool),
            Effect::InstanceEnded(row) => {
                self.traffic.counts.instances_lost += u64::from(row.end == InstanceEnd::Interrupted);
                let pools = &step.plane.rules().system.pools;
                if let Some(at) = pools.iter().position(|pool| pool.name == row.pool)
                    && let Some(count) = self.counts.get_mut(at)
                {
                    *count = count.saturating_sub(1);
                }
            }
            _ => {}
        }
    }

    fn launched(&mut self, step: &Step<'_>, token: LaunchToken, pool: PoolId) {
        // Orders are repeated after a restart.
        if self.machine(step.plane, token, pool) && !step.plane.rules().joined.contains(&pool) {
            self.launches.insert(token, (pool, step.now));
        }
    }

    /// Counts a machine; whether it is new.
    fn machine(&mut self, plane: &Plane, token: LaunchToken, pool: PoolId) -> bool {
        if self.machines.insert(token, pool).is_some() {
            return false;
        }
        let pools = plane.rules().system.pools.len();
        self.counts.resize(pools, 0);
        self.traffic.peaks.resize(pools, 0);
        let count = &mut self.counts[pool.index()];
        *count += 1;
        let peak = &mut self.traffic.peaks[pool.index()];
        *peak = (*peak).max(*count);
        true
    }

    fn answered(&mut self, step: &Step<'_>, answer: &Answer) {
        let Command::Submit(submission) = step.command else { return };
        let counts = &mut self.traffic.counts;
        match answer {
            Answer::Accepted(_) => {}
            Answer::Rejected { why: Refusal::WouldBeLate | Refusal::QueueFull, .. } => {
                counts.ended[index(JobOutcome::Rejected)] += 1;
            }
            Answer::Rejected { why: Refusal::TenantFull, .. } => return counts.over_quota += 1,
            Answer::Known(_) | Answer::OtherBody(_) => return counts.repeated += 1,
            _ => return,
        }
        counts.arrived += 1;
        self.traffic.arrivals.push(Arrival {
            at: Instant::START + step.now.since(self.traffic.begun),
            class: submission.class,
            region: submission.region,
            priority: submission.priority,
            deadline: submission.deadline,
        });
    }

    fn finished(&mut self, now: Instant, job: JobNumber, lease: Lease, report: &Report) {
        // The attempt may be over by now, and the next begun: then its lease is another.
        let Some(attempt) = self.attempts.get(&job).filter(|attempt| attempt.lease == lease) else { return };
        let place = attempt.place;
        let (ended, failed) = self.traffic.measured.attempts.entry(place.0).or_default();
        *ended += 1;
        if matches!(report, Report::Failed { .. }) {
            *failed += 1;
            self.traffic.counts.attempts_failed += 1;
        } else {
            let took = now.since(attempt.began).as_nanos();
            self.traffic.measured.services.entry(place).or_default().push(took);
        }
        self.attempts.remove(&job);
    }
}

fn index(outcome: JobOutcome) -> usize {
    JobOutcome::ALL.iter().position(|known| *known == outcome).expect("all outcomes are listed")
}
