//! Routing: which region serves a job.

use crate::model::RegionId;
use crate::units::Duration;

mod moves;
mod rings;

pub use rings::{RingLoad, Rings, RoutingTable};

/// Which region serves a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Routing {
    /// One queue for all; pools anywhere pull from it.
    Global,
    /// Any region with equal chance weighted by its ready slots, wherever the user is.
    Anywhere,
    /// The user's own region, or the nearest that has pools of the class.
    Nearest,
    /// The user's own region until it nears capacity, then rings of ever farther regions (Meta's animate).
    Rings(Rings),
}

impl Routing {
    /// Whether each region has queues of its own.
    pub fn is_regional(&self) -> bool {
        !matches!(self, Self::Global)
    }

    /// Time between two rebuilds of the routing table; `None` for rules without one.
    pub fn refresh(&self) -> Option<Duration> {
        match self {
            Self::Rings(rings) => Some(rings.refresh),
            Self::Global | Self::Anywhere | Self::Nearest => None,
        }
    }
}

/// The region among `candidates` nearest to `from`; ties go to the lower id. `None` without candidates.
pub fn nearest(
    from: RegionId,
    candidates: impl Iterator<Item = RegionId>,
    round_trip: impl Fn(RegionId, RegionId) -> Duration,
) -> Option<RegionId> {
    candidates.min_by_key(|to| (round_trip(from, *to), *to))
}
