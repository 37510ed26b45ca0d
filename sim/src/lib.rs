//! The discrete-event simulator and the planner that searches with it.

pub mod stats;
pub mod theory;
pub mod kernel;
mod bill;
pub mod inputs;
pub mod models;
pub mod outcome;
pub mod replication;
pub mod world;
pub mod experiment;
pub mod summary;
mod theory_check;
