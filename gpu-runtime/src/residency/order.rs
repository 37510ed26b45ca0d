//! In which order idle models are evicted: by recency, or by what loading them again costs. Moves nothing.

use std::cmp::Ordering;

/// Which idle model goes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Eviction {
    /// The one that was used longest ago.
    LeastRecentlyUsed,
    /// The one with the least credit: GreedyDual-Size (Cao and Irani 1997, "Cost-Aware WWW Proxy Caching Algorithms",
    /// section 4). Each use sets the credit H = L + c / s, with c the measured time of the last load in seconds, s the
    /// size in bytes, and L the credit of the model that was evicted last. Small models that are slow to load stay.
    #[default]
    GreedyDualSize,
}

/// A model's place in the order; the least goes first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rank {
    /// H, in seconds per byte; 0 where recency alone counts.
    pub(super) credit: f64,
    /// Number of the last use; no two are alike.
    pub(super) used: u64,
}

impl Rank {
    pub(super) fn order(&self, other: &Self) -> Ordering {
        self.credit.total_cmp(&other.credit).then(self.used.cmp(&other.used))
    }
}

/// One tier's L.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Inflation(f64);

impl Inflation {
    /// Rank of a model that is used now, or comes into this tier.
    pub(super) fn rank(self, by: Eviction, cost_s: f64, bytes: u64, used: u64) -> Rank {
        let credit = match by {
            Eviction::LeastRecentlyUsed => 0.0,
            Eviction::GreedyDualSize => self.0 + cost_s / bytes.max(1) as f64,
        };
        Rank { credit, used }
    }

    /// A model with this rank leaves.
    pub(super) fn evicted(&mut self, rank: Rank) {
        self.0 = self.0.max(rank.credit);
    }
}

/// The first models in the order that free `bytes` together; `None` where all of them do not suffice.
pub(super) fn victims<'a>(
    idle: impl Iterator<Item = (&'a str, Rank, u64)>,
    bytes: u64,
) -> Option<Vec<(String, Rank)>> {
    let mut idle: Vec<_> = idle.collect();
    idle.sort_by(|(_, a, _), (_, b, _)| a.order(b));
    let (mut freed, mut chosen) = (0_u64, Vec::new());
    for (name, rank, size) in idle {
        if freed >= bytes {
            break;
        }
        freed += size;
        chosen.push((name.to_owned(), rank));
    }
    (freed >= bytes).then_some(chosen)
}
