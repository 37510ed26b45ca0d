//! The discrete-event simulator and the planner that searches with it.

mod bill;
pub mod experiment;
pub mod inputs;
pub mod kernel;
pub mod models;
pub mod outcome;
pub mod plan;
pub mod recurrence;
pub mod replication;
pub mod stats;
pub mod summary;
pub mod theory;
mod theory_check;
pub mod world;
