//! Record rows: what a run leaves behind. The same columns from a simulated and from a live day; where types end, the
//! column's name carries the unit. Plain data: nothing here decides, and nothing imports `dispatch`.

use crate::model::{InstanceId, PoolId};
use crate::units::{Duration, Instant};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum JobOutcome {
    /// All stages done.
    Done,
    /// An attempt failed and no retry was left, or it was delivered too often (dead letter).
    Failed,
    /// Its deadline passed, or was sure to pass, while it waited.
    Expired,
    /// The client left, or somebody cancelled it.
    Cancelled,
    /// Turned away on arrival.
    Rejected,
}

impl JobOutcome {
    /// All outcomes, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::Expired, Self::Cancelled, Self::Rejected];

    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

/// One job.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct JobRow {
    /// The submitter's number.
    pub job: u64,
    /// Class name.
    pub class: String,
    /// Region of the client.
    pub region: String,
    /// Arrival, seconds from the start.
    pub arrived_s: f64,
    /// End, seconds from the start.
    pub ended_s: f64,
    /// How it ended.
    pub outcome: JobOutcome,
    /// Time in queues, all stages, seconds.
    pub wait_s: f64,
    /// Time on slots and outside stages, all attempts, seconds.
    pub service_s: f64,
    /// Leases given for it.
    pub deliveries: u32,
    /// Level of the quality ladder at its end.
    pub quality: String,
    /// Jobs this row stands for (above 1 in a sample).
    pub weight: f64,
}

/// One minute of one group of pools.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct MinuteRow {
    /// End of the minute, seconds from the start.
    pub at_s: f64,
    /// Group: pool class, and region where queues are regional.
    pub group: String,
    /// Jobs that entered the queue.
    pub arrived: u64,
    /// Jobs that ended here done.
    pub done: u64,
    /// Jobs that ended here otherwise.
    pub lost: u64,
    /// Attempts that found no slot.
    pub probes_refused: u64,
    /// Jobs waiting at the end of the minute.
    pub waiting: u32,
    /// Jobs on slots at the end of the minute.
    pub running: u32,
    /// Instances ready.
    pub ready: u32,
    /// Instances on their way.
    pub starting: u32,
    /// Instances finishing their last jobs.
    pub draining: u32,
    /// Instances wanted by the scaling policy.
    pub target: u32,
    /// Slots of all ready and draining instances.
    pub slots: u32,
}

/// One instance.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize))]
pub struct InstanceRow {
    /// Pool name.
    pub pool: String,
    /// Number within the run.
    pub instance: u32,
    /// Capacity type name.
    pub capacity_type: &'static str,
    /// Launch, seconds from the start.
    pub requested_s: f64,
    /// Ready for work; `None` if it never was.
    pub ready_s: Option<f64>,
    /// Gone.
    pub ended_s: f64,
    /// Busy slot-seconds.
    pub busy_slot_s: f64,
    /// Billed, billionths of a dollar.
    pub billed_nanousd: i64,
    /// Why it ended.
    pub end: InstanceEnd,
}

/// Why an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum InstanceEnd {
    /// Given back by scaling.
    Released,
    /// Taken by the provider.
    Interrupted,
    /// The launch was refused.
    Refused,
    /// The run ended.
    RunEnded,
}

impl InstanceEnd {
    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Interrupted => "interrupted",
            Self::Refused => "refused",
            Self::RunEnded => "run-ended",
        }
    }
}

/// One decision of a policy that changed something.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize))]
pub struct DecisionRow {
    /// When, seconds from the start.
    pub at_s: f64,
    /// Which policy: `scaling`, `purchase`, `routing`.
    pub policy: &'static str,
    /// Group or pool.
    pub subject: String,
    /// Before.
    pub from: u32,
    /// After.
    pub to: u32,
    /// Stable code of the reason.
    pub code: &'static str,
    /// The reason in a sentence.
    pub reason: String,
}

/// What a charge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum ChargeCategory {
    /// Instances.
    Compute,
    /// Data at rest.
    Storage,
    /// Requests to storage and queues.
    Requests,
    /// Bytes moved.
    Transfer,
    /// Calls to external services.
    External,
}

impl ChargeCategory {
    /// All categories, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Compute, Self::Storage, Self::Requests, Self::Transfer, Self::External];

    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Storage => "storage",
            Self::Requests => "requests",
            Self::Transfer => "transfer",
            Self::External => "external",
        }
    }
}

/// One line of the bill.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize))]
pub struct ChargeRow {
    /// Start of what is charged, seconds from the start of the run.
    pub from_s: f64,
    /// Its end.
    pub to_s: f64,
    /// What it is for.
    pub category: ChargeCategory,
    /// Pool, tier or service.
    pub resource: String,
    /// e.g. `instance-hours on-demand`, `get`, `put`, `storage`.
    pub item: String,
    /// Amount consumed, in `unit`.
    pub quantity: f64,
    /// e.g. `h`, `requests`, `GiB`, `GiB-month`.
    pub unit: &'static str,
    /// Billed, billionths of a dollar.
    pub billed_nanousd: i64,
    /// At list price, billionths of a dollar.
    pub list_nanousd: i64,
    /// Price row: source and date.
    pub source: String,
}

/// The life of one instance, for the ledger.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct InstanceLife {
    /// Which instance.
    pub instance: InstanceId,
    /// Of which pool.
    pub pool: PoolId,
    /// When it was asked for.
    pub requested: Instant,
    /// When it ran, and so began to cost; `None` if it never did.
    pub booted: Option<Instant>,
    /// When it could take jobs; `None` if it never could.
    pub ready: Option<Instant>,
    /// When it was given back or taken.
    pub ended: Instant,
    /// Busy slot-time.
    pub busy: Duration,
    /// Slots it offered, all kinds.
    pub slots: u16,
    /// Why it ended.
    pub end: InstanceEnd,
}
