//! What drivers tell the dispatcher, and what it tells them. Both enums are closed: a driver matches every variant.

use crate::model::{ClassId, InstanceId, JobId, Lease, PoolId, QualityId, RegionId, StageId};
use crate::records::{DecisionRow, InstanceLife, JobOutcome, MinuteRow};
use crate::units::{Duration, Instant, UsdPerHour};

/// Something happened in the world.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum Input {
    /// A client submitted a job; `tag` is the driver's own number for it and keys its chance.
    JobArrived { tag: u64, class: ClassId, region: RegionId },
    /// The same with what the client asked for: `priority` (0..=7, 0 first; more counts as 7) and `deadline` (time in
    /// the system) in place of the class's. Whether a late job expires stays the class's matter.
    JobSubmitted {
        tag: u64,
        class: ClassId,
        region: RegionId,
        priority: Option<u8>,
        deadline: Option<Duration>,
    },
    /// A client left or an operator cancels.
    JobCancelled { job: JobId, scope: CancelScope },
    /// A worker is still at it: its lease runs from now again.
    LeaseRenewed { lease: Lease },
    /// A worker finished a stage, well or not.
    StageFinished { lease: Lease, result: StageResult },
    /// A requested machine runs and starts to pull its image and load its models.
    InstanceBooted { instance: InstanceId },
    /// An instance can take jobs.
    InstanceReady { instance: InstanceId },
    /// The provider refused a launch (no capacity, quota); the id is free again.
    LaunchFailed { instance: InstanceId },
    /// The provider will take the instance at `gone_at`.
    InterruptionNotice { instance: InstanceId, gone_at: Instant },
    /// The instance is gone, announced or not; the id is free again.
    InstanceLost { instance: InstanceId },
    /// A termination that was asked for is complete, or a silent instance was found gone; the id is free again.
    InstanceGone { instance: InstanceId },
    /// The worker on a loading, ready or draining instance does not answer: its jobs go elsewhere at once. A draining
    /// instance terminates; any other is held, and takes no jobs until it is heard or ends.
    InstanceSilent { instance: InstanceId },
    /// The worker on a silent instance answers again; whatever it ran is lost to it.
    InstanceHeard { instance: InstanceId },
    /// The price of a pool changed.
    PriceChanged { pool: PoolId, price: UsdPerHour },
    /// The time that [`super::Dispatcher::poll_timeout`] named has come.
    TimeReached,
}

/// Which jobs a cancellation reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum CancelScope {
    /// Only a job that has not begun to be served: a client that lost patience.
    BeforeService,
    /// Any job: work in progress is revoked.
    Always,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum StageResult {
    /// The stage is complete.
    Done,
    /// The attempt failed; the retry policy decides.
    Failed,
    /// It failed, and so would every other attempt: the job ends as failed.
    Hopeless,
}

/// Why a job was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum Rejection {
    /// It would have been late.
    WouldBeLate,
    /// The queue is full.
    QueueFull,
}

/// A job begins a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct Started {
    /// The right to report on it.
    pub lease: Lease,
    /// The driver's number of the job.
    pub tag: u64,
    /// Which stage.
    pub stage: StageId,
    /// On which instance; `None` outside or external.
    pub instance: Option<InstanceId>,
    /// In which pool; `None` outside.
    pub pool: Option<PoolId>,
    /// Region that serves it.
    pub cell: RegionId,
    /// Level of the quality ladder.
    pub quality: QualityId,
    /// Jobs on the instance's slots of this kind, this one included; 0 outside or external.
    pub busy: u16,
    /// How often this stage of this job has been started, this time included.
    pub delivery: u16,
    /// Time it waited for this start.
    pub waited: Duration,
}

/// A job left the system.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct Ended {
    /// The job.
    pub job: JobId,
    /// The driver's number of it.
    pub tag: u64,
    /// How it ended.
    pub outcome: JobOutcome,
    /// Its class.
    pub class: ClassId,
    /// Region of its client.
    pub region: RegionId,
    /// Region that served it last.
    pub cell: RegionId,
    /// When it arrived.
    pub arrived: Instant,
    /// Time in queues and between attempts.
    pub waited: Duration,
    /// Time being served.
    pub served: Duration,
    /// Leases given.
    pub deliveries: u16,
    /// Last level of quality.
    pub quality: QualityId,
}

/// What the driver must do or note.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize))]
pub enum Output {
    /// The job is in; `job` names it from now on.
    Accepted { job: JobId, tag: u64 },
    /// The job was turned away and may come back after `retry_after`.
    Rejected { tag: u64, class: ClassId, region: RegionId, why: Rejection, retry_after: Duration },
    /// Have the stage worked on.
    Started(Started),
    /// Stop working on it; reports under this lease are void.
    Revoked { lease: Lease, instance: Option<InstanceId> },
    /// An attempt found no slot in `cell`.
    ProbeRefused { tag: u64, cell: RegionId },
    /// The job left the system; its id is free again.
    Ended(Ended),
    /// Launch an instance.
    Launch { instance: InstanceId, pool: PoolId },
    /// Terminate an instance, or give up its launch; answer with [`Input::InstanceGone`].
    Terminate { instance: InstanceId, pool: PoolId },
    /// An instance's life is over: bill it.
    InstanceEnded(Box<InstanceLife>),
    /// A policy changed something.
    Decided(Box<DecisionRow>),
    /// A minute of a group is over.
    Minute(Box<MinuteRow>),
}

/// Takes what the dispatcher says, in order.
///
/// A driver may keep outputs and perform them later (`Vec<Output>` does), or perform each at once; what it has to say
/// in return it says by its next [`super::Dispatcher::handle_input`], never from within.
pub trait Sink {
    /// Takes one output.
    fn emit(&mut self, output: Output);
}

impl Sink for Vec<Output> {
    #[inline]
    fn emit(&mut self, output: Output) {
        self.push(output);
    }
}
