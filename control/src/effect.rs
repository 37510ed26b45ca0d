//! Everything that follows from a command. A plane's shell performs an effect only once the command is durable.

use policy::model::{Lease, PoolId};
use policy::records::{DecisionRow, InstanceRow, JobOutcome, MinuteRow};
use policy::units::{Duration, Instant};
use serde::{Deserialize, Serialize};

use crate::command::{LaunchToken, SessionId};
use crate::number::JobNumber;
use crate::protocol::ToWorker;
use crate::submission::TenantId;

/// What must be done or said.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answer to the command that was just applied.
    Answer(Answer),
    /// Say something to a worker.
    Tell { session: SessionId, message: ToWorker },
    /// End a connection once what was told before is sent.
    Close { session: SessionId },
    /// A job changed.
    Changed(JobEvent),
    /// A job ended: keep it for those who ask, and announce it.
    Ended(Box<JobRecord>),
    /// Announce the end of a job at its webhook.
    Webhook(Box<WebhookTask>),
    /// Launch an instance; repeated with the same token after a restart until answered.
    Launch { token: LaunchToken, pool: PoolId },
    /// Terminate an instance; repeated after a restart until answered by `MachineGone`.
    Terminate { token: LaunchToken, pool: PoolId, handle: Option<String> },
    /// A policy changed something.
    Decided(Box<DecisionRow>),
    /// A minute of a group is over.
    Minute(Box<MinuteRow>),
    /// An instance's life is over, and billed.
    InstanceEnded(Box<InstanceRow>),
    /// No launches, or launches again.
    Held { is_held: bool, why: String },
}

/// Answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The job is in.
    Accepted(JobNumber),
    /// The idempotency key named this job already.
    Known(JobNumber),
    /// The idempotency key named a job with another body.
    OtherBody(JobNumber),
    /// The job was turned away and may come back after this time.
    Rejected { why: Refusal, retry_after: Duration },
    /// Cancellation took effect.
    Cancelled,
    /// The job had ended, or is no job of that tenant.
    NotRunning,
    /// The configuration was taken.
    Reloaded,
    /// The configuration cannot be taken, with the reason.
    NotReloaded(String),
}

/// Why a job was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It would have been late.
    WouldBeLate,
    /// The queue is full.
    QueueFull,
    /// The tenant has as many jobs in the system as it may.
    TenantFull,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// In a queue, or held back before an attempt.
    Queued,
    /// A worker works on it.
    Running,
    /// It ended.
    Ended(JobOutcome),
}

impl JobState {
    /// The name used in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Ended(outcome) => outcome.name(),
        }
    }
}

/// A change of a job, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEvent {
    /// Which.
    pub job: JobNumber,
    /// Counts the job's changes from 1; the id of the server-sent event.
    pub version: u32,
    /// When, on the plane's clock.
    pub at: Instant,
    /// What it is now.
    pub state: JobState,
    /// Stage it is at.
    pub stage: u16,
    /// How often it was started.
    pub deliveries: u16,
}

/// A job that ended, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Which.
    pub job: JobNumber,
    /// Whose.
    pub tenant: TenantId,
    /// Class, by number.
    pub class: u16,
    /// Region of the client, by number.
    pub region: u16,
    /// Arrival on the plane's clock.
    pub arrived: Instant,
    /// End.
    pub ended: Instant,
    /// How.
    pub outcome: JobOutcome,
    /// Time in queues and between attempts.
    pub waited: Duration,
    /// Time being served.
    pub served: Duration,
    /// Leases given.
    pub deliveries: u16,
    /// Last level of quality, by number.
    pub quality: u16,
    /// Count of its changes.
    pub version: u32,
    /// Inline result, or the last error's message.
    pub result: Box<[u8]>,
    /// Keys of output objects.
    pub objects: Vec<String>,
}

/// A job in the system, as others may see it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// Which.
    pub job: JobNumber,
    /// Whose.
    pub tenant: TenantId,
    /// Class, by number.
    pub class: u16,
    /// Where it stands.
    pub state: JobState,
    /// Arrival on the plane's clock.
    pub arrived: Instant,
    /// Stage it is at, by number.
    pub stage: u16,
    /// Leases given.
    pub deliveries: u16,
    /// Count of its changes.
    pub version: u32,
}

/// An announcement to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookTask {
    /// Which job ended; also the id of the announcement.
    pub job: JobNumber,
    /// Whose key signs.
    pub tenant: TenantId,
    /// Where to.
    pub url: String,
    /// How it ended.
    pub outcome: JobOutcome,
    /// When, on the plane's clock.
    pub ended: Instant,
    /// When, Unix milliseconds; the same whichever plane announces it.
    pub unix_ms: u64,
}

/// A lease that a worker holds, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The right.
    pub lease: Lease,
    /// To work on this.
    pub job: JobNumber,
}
