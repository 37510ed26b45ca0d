//! Storage: request-rate limits, and what was used.

use policy::units::Bytes;
use policy::units::random::Stream;
use scenarios::scenario::{Operation, OperationLatency, Scenario};

/// What one operation of one tier used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierUse {
    /// Requests, refused ones included.
    pub requests: u64,
    /// Requests refused with a 503 and sent again.
    pub throttled: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Bytes moved that carry a per-GB price.
    pub priced_bytes: u64,
}

/// Storage during a run.
pub(crate) struct StorageWorld {
    lanes: Vec<Lane>,
    jitter: Stream,
    drawn: u64,
}

/// One operation of one tier.
struct Lane {
    used: TierUse,
    free_bytes: u64,
    /// Nanoseconds between operations at the limit; zero without a limit.
    spacing: f64,
    /// When the next operation would be due if all came at the limit (generic cell rate algorithm, ITU-T I.371).
    due: f64,
    backoff: f64,
}

/// Operations that may come at once before the limit bites: one second's worth.
const BURST_NS: f64 = 1e9;

/// Refusals of one operation at most.
const REFUSALS_MAX: u32 = 40;

impl StorageWorld {
    pub(crate) fn new(scenario: &Scenario, replication: u64) -> Self {
        let lane = |row: &OperationLatency, free: Bytes| Lane {
            used: TierUse::default(),
            free_bytes: free.get(),
            spacing: row.rate_max.map_or(0.0, |rate| 1e9 / rate),
            due: 0.0,
            backoff: row.throttle_backoff.as_nanos() as f64,
        };
        let tiers = scenario.tiers.iter();
        let lanes = tiers.flat_map(|tier| {
            let free = tier.prices.free_bytes;
            [lane(&tier.get, free), lane(&tier.put, free)]
        });
        let jitter = Stream::new(scenario.run.seed, replication, "storage/backoff");
        Self { lanes: lanes.collect(), jitter, drawn: 0 }
    }

    fn lane(tier: usize, operation: Operation) -> usize {
        tier * 2 + usize::from(operation == Operation::Put)
    }

    /// Counts `requests` operations of `size` each.
    pub(crate) fn count(&mut self, tier: usize, operation: Operation, size: Bytes, requests: u64) {
        let lane = &mut self.lanes[Self::lane(tier, operation)];
        lane.used.requests += requests;
        lane.used.bytes += size.get() * requests;
        lane.used.priced_bytes += size.get().saturating_sub(lane.free_bytes) * requests;
    }

    /// Sends an operation that begins at `now` again, with exponential backoff and full jitter, until the limit lets it
    /// through; returns how long that holds it back, nanoseconds.
    pub(crate) fn throttle(&mut self, now: u64, tier: usize, operation: Operation) -> u64 {
        let lane = &mut self.lanes[Self::lane(tier, operation)];
        let mut waited = 0.0;
        for refusal in 0..REFUSALS_MAX {
            let at = now as f64 + waited;
            if lane.due <= at + BURST_NS {
                break;
            }
            lane.used.throttled += 1;
            lane.used.requests += 1;
            self.drawn += 1;
            let top = lane.backoff * f64::from(1_u32 << refusal.min(10));
            waited += top * self.jitter.unit(self.drawn);
        }
        lane.due = lane.due.max(now as f64 + waited) + lane.spacing;
        waited as u64
    }

    pub(crate) fn used(&self, tier: usize, operation: Operation) -> TierUse {
        self.lanes[Self::lane(tier, operation)].used
    }
}
