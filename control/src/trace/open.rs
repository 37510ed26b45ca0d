//! A traced job that has not ended: what its spans will need.

use std::sync::Arc;

use policy::model::Lease;
use policy::units::Instant;

use super::context::TraceContext;
use crate::command::SessionId;
use crate::protocol::Report;

/// A traced job.
#[derive(Debug)]
pub(super) struct Open {
    /// Its root span.
    pub(super) root: TraceContext,
    /// Its client's span.
    pub(super) client: Option<TraceContext>,
    pub(super) arrived: Instant,
    pub(super) stand: Stand,
    /// The attempt before, and its end: why it ended may be said a moment later.
    pub(super) over: Option<(Box<Attempt>, Instant)>,
}

/// What the job does now.
#[derive(Debug)]
pub(super) enum Stand {
    /// It waits since then.
    Queued(Wait),
    /// A worker has it.
    Running(Box<Attempt>),
}

/// A wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) since: Instant,
    /// The job's change that began it.
    pub(super) version: u32,
    /// It began before this plane did, nobody knows when.
    pub(super) is_resumed: bool,
}

/// A lease given.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) since: Instant,
    /// Which of the job's, from 1.
    pub(super) delivery: u16,
    /// Number of the stage.
    pub(super) stage: u16,
    pub(super) span: u64,
    /// It began before this plane did, nobody knows when.
    pub(super) is_resumed: bool,
    pub(super) how: Option<How>,
    /// Known once the worker was told.
    pub(super) lease: Option<Lease>,
    pub(super) worker: Option<(SessionId, Arc<Member>)>,
    pub(super) quality: String,
}

/// A worker, as it said of itself.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pool: String,
    pub(super) name: String,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Done,
    /// It may work another time.
    Failed,
    /// It cannot work.
    FailedForGood,
    /// The plane took the lease back: it ran out, or the job ended.
    Revoked,
    /// The worker left, fell silent or broke off.
    Lost,
}

impl How {
    pub(super) fn of(report: &Report) -> Self {
        match report {
            Report::Done { .. } => Self::Done,
            Report::Failed { again: true, .. } => Self::Failed,
            Report::Failed { again: false, .. } => Self::FailedForGood,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::FailedForGood => "failed-for-good",
            Self::Revoked => "revoked",
            Self::Lost => "lost",
        }
    }
}

impl Open {
    /// The attempt under way, or the one just over, if it has this lease.
    pub(super) fn under(&mut self, lease: Lease) -> Option<&mut Attempt> {
        let over = self.over.as_mut().map(|(attempt, _)| attempt);
        let running = match &mut self.stand {
            Stand::Running(attempt) => Some(attempt),
            Stand::Queued(_) => None,
        };
        let attempts = [over, running].into_iter().flatten();
        attempts.map(|attempt| &mut **attempt).find(|attempt| attempt.lease == Some(lease))
    }
}
