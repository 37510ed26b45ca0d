//! What-if files: their schema, defaults, diagnostics, the price catalog and traces.
//!
//! `file` follows the TOML, `resolve` makes the typed [`scenario::Scenario`], and nothing else reads TOML. Imports
//! `policy` only; knows neither tokio nor polars nor the simulation.

pub mod catalog;
mod defaults;
pub mod diagnostics;
mod file;
mod load;
mod overrides;
mod resolve;
pub mod scenario;
mod schema;

pub mod trace;

pub use diagnostics::{ErrorKind, ScenarioError};
pub use load::{Loaded, load, load_str};
pub use schema::json_schema;
