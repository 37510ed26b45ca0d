//! The discrete-event simulator and the planner that searches with it.

pub mod stats;
pub mod theory;
pub mod kernel;
