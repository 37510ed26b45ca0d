//! Several planes on one PostgreSQL: one leads a shard, the others stand by and take over when it is gone.
//!
//! Read [`standby`] first: it is the life of such a plane. What makes it safe is not here but in the journal, whose
//! appends carry the leader's epoch; what is here makes it quick, and keeps a leader whose time is over from answering.

mod directory;
mod door;
mod lead;
mod lease;
mod seat;
mod standby;
mod tail;

pub use directory::Directory;
pub use lease::LeaseGate;
pub use seat::{Seat, shard_of};
pub use standby::{HaEnd, HaError, HaSettings, Standby};
