//! What a worker has on its desk: work under leases, and reports that the plane has not acknowledged. A state machine without
//! input or output; time is told to it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use policy::model::Lease;

use super::runner::JobControl;
use crate::number::JobNumber;
use crate::protocol::{FromWorker, LEASES_MAX, Report, Start, ToWorker};

/// Beats until the plane has said how often.
const BEAT: Duration = Duration::from_secs(2);

/// Where the worker stands with the plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not connected, or not answered yet.
    Out,
    /// It has an instance.
    In,
    /// It waits for one.
    Standby,
}

/// What must be done.
#[derive(Debug, PartialEq)]
pub(super) enum Act {
    /// Say it to the plane.
    Say(FromWorker),
    /// Begin to work.
    Begin(Box<Start>),
    /// The plane does not want this worker, with the reason.
    Refused(String),
}

/// Work under way.
#[derive(Debug)]
struct Work {
    job: JobNumber,
    /// Timed work has none; it cannot hang.
    control: Option<JobControl>,
}

/// A worker's desk.
#[derive(Debug)]
pub(super) struct Desk {
    work: HashMap<Lease, Work>,
    reports: HashMap<Lease, (JobNumber, Report)>,
    /// Cancelled work whose thread has not come back.
    abandoned: HashMap<Lease, (JobControl, Instant)>,
    pub(super) standing: Standing,
    pub(super) beat_every: Duration,
    /// No more work is taken.
    pub(super) is_draining: bool,
    /// Work without progress for so long is not named in beats.
    hang_after: Duration,
}

impl Desk {
    pub(super) fn new(hang_after: Duration) -> Self {
        Self {
            work: HashMap::new(),
            reports: HashMap::new(),
            abandoned: HashMap::new(),
            standing: Standing::Out,
            beat_every: BEAT,
            is_draining: false,
            hang_after,
        }
    }

    /// Leases that a hello names.
    pub(super) fn leases(&self) -> Vec<Lease> {
        self.reports.keys().chain(self.work.keys()).copied().take(LEASES_MAX).collect()
    }

    /// No work, and nothing to say.
    pub(super) fn is_clear(&self) -> bool {
        self.work.is_empty() && self.reports.is_empty()
    }

    /// Jobs being worked on.
    pub(super) fn busy(&self) -> usize {
        self.work.len()
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.standing = Standing::Out;
    }

    /// Takes what the plane said.
    pub(super) fn take(&mut self, message: ToWorker, now: Instant, out: &mut Vec<Act>) {
        match message {
            ToWorker::Welcome { beat_ms, keep, .. } => {
                self.standing = Standing::In;
                self.beat_every = Duration::from_millis(u64::from(beat_ms.max(10)));
                self.keep_only(&keep, now);
                out.extend(self.reports.iter().map(|(lease, (job, report))| {
                    let (lease, job, report) = (*lease, *job, report.clone());
                    Act::Say(FromWorker::Finished { lease, job, report })
                }));
            }
            ToWorker::Standby => {
                self.standing = Standing::Standby;
                self.keep_only(&[], now);
            }
            ToWorker::Refused { why } => out.push(Act::Refused(why)),
            ToWorker::Start(start) => self.start(start, out),
            ToWorker::Revoke { lease } => self.drop_lease(lease, now),
            ToWorker::Ack { lease, .. } => {
                self.reports.remove(&lease);
            }
            ToWorker::Drain => self.is_draining = true,
        }
    }

    fn start(&mut self, start: Box<Start>, out: &mut Vec<Act>) {
        let lease = start.lease;
        if let Some((job, report)) = self.reports.get(&lease) {
            let (job, report) = (*job, report.clone());
            out.push(Act::Say(FromWorker::Finished { lease, job, report }));
        } else if !self.is_draining && !self.work.contains_key(&lease) && self.work.len() < LEASES_MAX {
            self.work.insert(lease, Work { job: start.job, control: None });
            out.push(Act::Begin(start));
        }
    }

    /// Work under `lease` runs on a thread.
    pub(super) fn set_control(&mut self, lease: Lease, control: JobControl) {
        if let Some(work) = self.work.get_mut(&lease) {
            work.control = Some(control);
        }
    }

    /// Work ended. Gives what to say; nothing when its lease is over, or when the plane cannot hear it now.
    pub(super) fn finished(&mut self, lease: Lease, job: JobNumber, report: Report) -> Option<FromWorker> {
        self.abandoned.remove(&lease);
        self.work.remove(&lease).filter(|work| work.job == job)?;
        let told = (self.standing == Standing::In).then(|| FromWorker::Finished {
            lease,
            job,
            report: report.clone(),
        });
        self.reports.insert(lease, (job, report));
        told
    }

    /// Whether progress of this work interests the plane.
    pub(super) fn is_working(&self, lease: Lease, job: JobNumber) -> bool {
        self.standing == Standing::In && self.work.get(&lease).is_some_and(|work| work.job == job)
    }

    /// The beats to say now: one, or as many as the leases need.
    pub(super) fn beats(&self, now: Instant) -> Vec<FromWorker> {
        let lives = |work: &Work| {
            work.control.as_ref().is_none_or(|control| control.still_for(now) < self.hang_after)
        };
        let working = self.work.iter().filter(|(_, work)| lives(work)).map(|(lease, _)| *lease);
        let alive: Vec<Lease> = working.chain(self.reports.keys().copied()).collect();
        if alive.is_empty() {
            return vec![FromWorker::Beat { alive }];
        }
        alive.chunks(LEASES_MAX).map(|part| FromWorker::Beat { alive: part.to_vec() }).collect()
    }

    /// Whether cancelled work does not come back: its thread hangs, and the process must be replaced.
    pub(super) fn is_hung(&self, now: Instant) -> bool {
        self.abandoned.values().any(|(_, since)| now.saturating_duration_since(*since) >= self.hang_after)
    }

    /// Forgets everything, as a worker that nobody knows.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.cancel_all(now);
        self.reports.clear();
        self.standing = Standing::Out;
        self.is_draining = false;
    }

    /// Cancels all work; reports stay.
    pub(super) fn cancel_all(&mut self, now: Instant) {
        for (lease, work) in self.work.drain() {
            abandon(&mut self.abandoned, lease, work, now);
        }
    }

    fn keep_only(&mut self, keep: &[Lease], now: Instant) {
        let dropped: Vec<Lease> = self.work.keys().filter(|lease| !keep.contains(lease)).copied().collect();
        for lease in dropped {
            self.drop_lease(lease, now);
        }
        self.reports.retain(|lease, _| keep.contains(lease));
    }

    fn drop_lease(&mut self, lease: Lease, now: Instant) {
        self.reports.remove(&lease);
        if let Some(work) = self.work.remove(&lease) {
            abandon(&mut self.abandoned, lease, work, now);
        }
    }
}

fn abandon(abandoned: &mut HashMap<Lease, (JobControl, Instant)>, lease: Lease, work: Work, now: Instant) {
    if let Some(control) = work.control {
        control.cancel();
        abandoned.insert(lease, (control, now));
    }
}
