//! Everything that decides and accounts, shared whole by the simulator and the live control plane.
//!
//! Pure: no file, socket, thread, clock, log, async or global random source. Time is an argument, chance is a
//! named seeded stream. `units` imports nothing, `model` imports `units`, everything else imports those two;
//! `records` and `ledger` never import `dispatch`.

pub mod dispatch;
pub mod ledger;
pub mod model;
pub mod policies;
pub mod records;
pub mod units;
