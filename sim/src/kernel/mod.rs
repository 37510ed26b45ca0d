//! The event engine: the calendar, and blocks of draws. Knows nothing of jobs or fleets.

pub mod calendar;
pub mod draw;
pub mod tournament;

pub use calendar::{Calendar, EventClass};
pub use draw::{BLOCK, Sampler};
pub use tournament::Tournament;
