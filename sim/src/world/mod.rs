//! The world around the dispatcher: clients, arrivals, work on slots, storage, machines and their market.
//!
//! It answers the dispatcher's outputs with sampled delays. It never decides: no choice made here could be a policy's.

pub mod arrivals;
mod clients;
mod fleet;
mod pipeline;
mod storage;

pub(crate) use clients::{ReaskTable, Reasking};
pub(crate) use fleet::warm_time;
pub use fleet::{FleetWorld, LaunchPlan, Loss};
pub(crate) use pipeline::{CHAIN, Pipeline, WHOLE, WorkKind};
pub(crate) use storage::StorageWorld;
pub use storage::TierUse;
