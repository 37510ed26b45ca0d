//! The live control plane: the plan, running.
//!
//! Read [`command`] (all that can happen) and [`effect`] (all that can follow), then [`plane`] (the state machine between
//! them, which holds the dispatcher), [`engine`] (the plane on its journal) and [`shell`] (the thread that owns it).
//! Around it: the job API, workers, fleet providers, announcements.

pub mod api;
#[cfg(feature = "aws")]
pub mod aws;
pub mod clock;
pub mod command;
pub mod connect;
pub mod effect;
pub mod engine;
pub mod fleet;
pub mod ha;
pub mod ingress;
pub mod journal;
pub mod number;
pub mod objects;
pub mod plane;
pub mod prices;
pub mod protocol;
pub mod remote;
pub mod replay;
pub mod retention;
pub mod service;
pub mod shell;
#[cfg(test)]
mod specimen;
pub mod store;
pub mod submission;
pub mod trace;
pub mod webhook;
pub mod worker;
