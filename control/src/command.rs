//! Everything that can happen to a plane. The journal is a list of these with their times; a plane's state is their fold.

use policy::model::{Lease, PoolId};
use policy::units::UsdPerHour;
use serde::{Deserialize, Serialize};

use crate::number::JobNumber;
use crate::plane::Served;
use crate::protocol::{Hello, Report};
use crate::submission::{Submission, TenantId};

/// One connection of one worker; never used twice within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Something happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A plane took over the journal: the first command of each epoch. All sessions of the epoch before are gone.
    TookOver {
        /// Which plane's turn it is; grows by one each time.
        epoch: u64,
        /// Unix time, milliseconds, for people.
        unix_ms: u64,
    },
    /// A client submitted a job.
    Submit(Box<Submission>),
    /// A client or an operator cancels. `tenant` is `None` for an operator.
    Cancel { job: JobNumber, tenant: Option<TenantId> },
    /// A worker said hello on a new connection.
    Hello { session: SessionId, hello: Box<Hello> },
    /// A worker has its models loaded.
    Ready { session: SessionId },
    /// A worker lives and advances these leases.
    Beat { session: SessionId, alive: Vec<Lease> },
    /// A worker reports the end of work.
    Finished { session: SessionId, lease: Lease, job: JobNumber, report: Report },
    /// A connection ended.
    Disconnected { session: SessionId },
    /// A worker leaves, holding no work.
    Leaving { session: SessionId },
    /// A worker's machine will be taken away.
    Notice { session: SessionId, seconds: u32 },
    /// The provider says that a machine will be taken away.
    MachineNotice { token: LaunchToken, seconds: u32 },
    /// A launch succeeded; `handle` is the provider's name of the machine.
    Launched { token: LaunchToken, handle: String },
    /// A launch was refused.
    LaunchFailed { token: LaunchToken, why: LaunchRefusal },
    /// A machine is gone: asked for or not.
    MachineGone { token: LaunchToken },
    /// The price of a pool changed.
    PriceChanged { pool: PoolId, price: UsdPerHour },
    /// A webhook was delivered, or given up.
    WebhookSettled { job: JobNumber, delivered: bool },
    /// No launches from now on until lifted: the kill switch or the spend guard.
    Hold { is_held: bool, why: String },
    /// Policy parameters were read anew; the text is the whole scenario.
    Reload { scenario: String },
    /// The time that [`crate::plane::Plane::poll_timeout`] named has come.
    Tick,
    /// The plane that took over goes on with this scenario and these limits, from here on. Stands in the first batch of a
    /// journal, so that the fold begins with it, and wherever a plane was started with others than the one before.
    Served(Box<Served>),
}

/// Names one launch for ever: the provider's idempotency token and the worker's right to join as that instance.
/// Made from the plane's secret, epoch and a count, so that nobody guesses it and replay makes the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaunchToken(pub u128);

impl std::fmt::Display for LaunchToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for LaunchToken {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Why a provider made no instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaunchRefusal {
    /// It has none to sell now.
    InsufficientCapacity,
    /// The account's quota is used up.
    Quota,
    /// The spend guard or the kill switch forbids it.
    Held,
    /// Anything else, in the provider's words.
    Other(String),
}
