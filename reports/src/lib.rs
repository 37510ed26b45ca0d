//! Tables, Parquet, charts and exports made from record rows.
//!
//! Imports `policy` for its record rows and knows neither the simulation nor the control plane: a live day and a
//! simulated day get the same report. The only crate that knows polars and plotters, and neither shows in its API.

pub mod chart;
pub mod front;
pub mod parquet;
pub mod terminal;
pub mod trace;
