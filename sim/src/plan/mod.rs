//! The planner: searches scaling, purchase, admission and storage for the cheapest plan that meets the objective, with
//! the same engine that `simulate` uses, and says what the plan survives and what limits it.
//!
//! A candidate is a list of `key=value` overrides, so that every plan can be simulated, changed and run by hand.

mod candidate;
mod demand;
mod search;
mod stress;
mod sweep;
mod verdict;

pub use candidate::{Candidate, Fleet, Typed};
pub use demand::Demand;
pub use search::{Plan, PlanError, PlanOptions, Point, RunnerUp, Variant, Watch, search};
pub use stress::{Limit, Survival};
pub use verdict::{Evaluation, Shortfall};
