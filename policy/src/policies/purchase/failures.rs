//! What a purchase policy remembers of each pool's failures.

use std::collections::BTreeMap;

use super::PoolEvent;
use crate::model::PoolId;
use crate::units::{Duration, Instant};

/// How long a pool that failed to launch is left alone, unless a launch succeeds there before.
///
/// Karpenter's cache of unavailable offerings keeps an entry this long (`UnavailableOfferingsTTL`).
pub(super) const LAUNCH_BACKOFF: Duration = Duration::from_secs(180);

/// How long a failed launch or an interruption counts against a pool's capacity (our choice: twenty times the backoff).
pub(super) const RECENT: Duration = Duration::from_secs(3600);

/// What happened last in each pool.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct Failures {
    /// Last failed launch, since the last successful one.
    launch: BTreeMap<PoolId, Instant>,
    /// Last failed launch or interruption.
    any: BTreeMap<PoolId, Instant>,
}

impl Failures {
    pub(super) fn note(&mut self, now: Instant, event: PoolEvent) {
        match event {
            PoolEvent::Launched(pool) => {
                self.launch.remove(&pool);
            }
            PoolEvent::LaunchFailed(pool) => {
                self.launch.insert(pool, now);
                self.any.insert(pool, now);
            }
            PoolEvent::Interrupted(pool) => {
                self.any.insert(pool, now);
            }
        }
    }

    /// Whether a launch failed in the pool less than `pause` ago, and none has succeeded since.
    pub(super) fn in_backoff(&self, now: Instant, pool: PoolId, pause: Duration) -> bool {
        self.launch.get(&pool).is_some_and(|at| now.since(*at) < pause)
    }

    /// Whether the pool failed to launch or was interrupted within [`RECENT`].
    pub(super) fn is_recent(&self, now: Instant, pool: PoolId) -> bool {
        self.any.get(&pool).is_some_and(|at| now.since(*at) < RECENT)
    }
}
