//! A scenario as it stands in a TOML file: types that follow the text key by key. Holds no default and no rule that
//! spans two values; `resolve` does. Nothing else reads TOML.

pub(crate) mod fleet;
pub(crate) mod law;
mod merge;
pub(crate) mod named;
pub(crate) mod network;
pub(crate) mod pipeline;
pub(crate) mod policy;
pub(crate) mod quantity;
mod read;
pub(crate) mod run;
pub(crate) mod storage;
mod tree;
pub(crate) mod workload;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use merge::merge;
pub(crate) use read::read;
pub(crate) use tree::{Entry, Node, Value};

use fleet::FleetFile;
use network::{NetworkFile, QueueFile};
use pipeline::PipelineFile;
use policy::PolicyFile;
use run::{ObjectiveFile, PlanFile, RunFile};
use storage::StorageFile;
use workload::WorkloadFile;

/// A what-if question: a system, the world around it, and what to measure.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ScenarioFile {
    /// Address of the JSON Schema, for editors; not read.
    #[serde(rename = "$schema")]
    pub(crate) schema: Option<String>,
    /// Short name. Default: the file's stem.
    pub(crate) name: Option<String>,
    /// One sentence for people.
    pub(crate) description: Option<String>,
    /// Another scenario, relative to this file, that this one changes: sections are merged key by key, arrays of
    /// named sections by name, everything else (inline tables too) is replaced.
    pub(crate) extends: Option<String>,
    /// Who asks, when, and how they wait.
    pub(crate) workload: WorkloadFile,
    /// What happens to a job, in order.
    pub(crate) pipeline: PipelineFile,
    /// Storage tiers.
    pub(crate) storage: StorageFile,
    /// Pools of instances.
    pub(crate) fleet: FleetFile,
    /// What lies between clients and regions.
    pub(crate) network: NetworkFile,
    /// The queue between clients and workers.
    pub(crate) queue: QueueFile,
    /// Who decides what.
    pub(crate) policy: PolicyFile,
    /// What the operator wants.
    pub(crate) objective: ObjectiveFile,
    /// How the run is made.
    pub(crate) run: RunFile,
    /// What the planner may vary.
    pub(crate) plan: PlanFile,
}
