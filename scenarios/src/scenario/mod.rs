//! A scenario after resolution: typed, checked, complete. Only `resolve` makes one; nothing downstream reads TOML.

mod compressed;
mod fleet;
mod law;
mod run;
mod storage;
mod work;
mod workload;

use policy::model::{Objective, System};

pub use compressed::compressed;
pub use fleet::{AvailabilityTrace, Interruption, Launch, PoolWorld, Shock, Startup};
pub use law::{Law, LawError};
pub use run::{PlanSearch, Precision, Run, Window};
pub use storage::{Operation, OperationLatency, StorageTier, TransferPrices};
pub use work::{Edge, Span, SpanPoint, StageWork, Step, StepKind};
pub use workload::{Arrivals, Clients, Decay, Generator, Network, Reask, Shape, Source, TraceSource};

/// A what-if question: a system, the world around it, and what to measure.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Short name, by default the file's stem.
    pub name: String,
    /// One sentence for people.
    pub description: String,
    /// What the dispatcher knows.
    pub system: System,
    /// What each stage does, by `StageId`.
    pub stages: Vec<StageWork>,
    /// What each pool's instances do in the world, by `PoolId`.
    pub pools: Vec<PoolWorld>,
    /// Storage tiers, named by [`StepKind::Transfer`].
    pub tiers: Vec<StorageTier>,
    /// Measured stretches of the pipeline.
    pub spans: Vec<Span>,
    /// Who asks, when.
    pub workload: Vec<Source>,
    /// How clients wait and ask again.
    pub clients: Clients,
    /// What lies between clients and regions.
    pub network: Network,
    /// Queue service prices, per million requests, and how many requests one delivery and one idle poll cost.
    pub queue: QueuePrices,
    /// What the operator wants.
    pub objective: Objective,
    /// How the run is made.
    pub run: Run,
    /// Stretches of the run reported by themselves (`[[run.window]]`: name, from, to).
    pub windows: Vec<Window>,
    /// What the planner may vary.
    pub plan: PlanSearch,
    /// SHA-256 of the resolved text, for provenance.
    pub digest: String,
}

/// What the queue service costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueuePrices {
    /// Price of a million requests; zero for a queue of one's own.
    pub per_million_requests: policy::units::Usd,
    /// Requests per delivered job and stage (send, receive, delete).
    pub requests_per_delivery: f64,
    /// Long-poll length of an idle slot: it asks once per this time; `None` never polls.
    pub idle_poll: Option<policy::units::Duration>,
}
