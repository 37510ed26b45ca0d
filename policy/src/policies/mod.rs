//! Policies: an observation and a time go in; decisions come out, each with its reason.
//!
//! What runs per job (routing, admission, retry, quality, packing) is an enum; what runs per tick (scaling, purchase)
//! is a boxed trait. No policy keeps time or draws chance by itself: both are arguments.

mod admission;
mod packing;
pub mod purchase;
mod quality;
mod retry;
pub mod routing;
pub mod scaling;

pub use admission::{Admission, AdmissionVerdict, Shedding};
pub use packing::Packing;
pub use purchase::{PoolEvent, PoolTarget, PoolView, Purchase, PurchaseMemory, PurchasePolicy};
pub use quality::{Quality, QualityState};
pub use retry::{Backoff, ExecutionDelay, Retry, RetryVerdict};
pub use routing::{Routing, RoutingTable};
pub use scaling::{Observation, Scaling, ScalingMemory, ScalingPolicy, Target};

/// Why a decision was taken, in the policy's own words; a stable code first, for grouping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable, machine-readable, e.g. `backlog-above-target`.
    pub code: &'static str,
    /// One sentence with the numbers that led here.
    pub text: String,
}

impl Reason {
    /// A reason with a stable code and a sentence.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Who decides what, in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Policies {
    /// How many instances each group should hold.
    pub scaling: Scaling,
    /// Which pools of the group they come from.
    pub purchase: Purchase,
    /// Which region serves a job.
    pub routing: Routing,
    /// Whether a job may wait.
    pub admission: Admission,
    /// What happens after a failed attempt.
    pub retry: Retry,
    /// Which level of the quality ladder a job gets.
    pub quality: Quality,
    /// Which of several free instances takes a job.
    pub packing: Packing,
}
