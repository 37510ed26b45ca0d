//! Stress: the largest spike a plan survives, and what gives way first.

use policy::model::CapacityType;
use policy::policies::Scaling;
use scenarios::scenario::Scenario;

use crate::outcome::Outcome;

/// The largest spike that a plan survives.
#[derive(Clone, Debug, PartialEq)]
pub struct Survival {
    /// Times the planned arrivals at which the objective still holds; zero when it never does.
    pub factor: f64,
    /// Highest arrival rate at that factor, per second.
    pub peak_per_s: f64,
    /// Whether the search stopped at its upper end without a failure.
    pub is_at_least: bool,
    /// What gives way just above it.
    pub limit: Limit,
}

/// What gives way first.
#[derive(Clone, Debug, PartialEq)]
pub enum Limit {
    /// Nothing did, within the search.
    None,
    /// A fixed or scheduled fleet is full: its size.
    FleetSize { instances: u32 },
    /// Pools stand at their limit or quota.
    Quota { pools: Vec<String> },
    /// The provider refuses launches.
    Refusals { pool: String, share: f64 },
    /// Instances come later than demand: the expected time from launch to ready, seconds.
    ColdStart { startup_s: f64 },
    /// Storage throttles: refused share of the tier's requests.
    Throttling { tier: String, share: f64 },
    /// The budget is spent.
    Budget,
}

impl Limit {
    /// One sentence for people.
    pub fn sentence(&self) -> String {
        match self {
            Self::None => "nothing within the search".to_owned(),
            Self::FleetSize { instances } => format!("the planned fleet of {instances} instances is full"),
            Self::Quota { pools } => format!("pools at their instance limit: {}", pools.join(", ")),
            Self::Refusals { pool, share } => {
                format!("no capacity: {:.0} % of launches in {pool} are refused", share * 100.0)
            }
            Self::ColdStart { startup_s } => {
                format!("cold starts: demand grows faster than instances become ready ({startup_s:.0} s)")
            }
            Self::Throttling { tier, share } => {
                format!("storage tier {tier} throttles {:.0} % of its requests", share * 100.0)
            }
            Self::Budget => "the budget".to_owned(),
        }
    }

    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FleetSize { .. } => "fleet-size",
            Self::Quota { .. } => "quota",
            Self::Refusals { .. } => "insufficient-capacity",
            Self::ColdStart { .. } => "cold-start",
            Self::Throttling { .. } => "storage-throttling",
            Self::Budget => "budget",
        }
    }
}

/// Share of a tier's requests that must be refused before it counts as the limit.
const THROTTLED_SHARE: f64 = 0.01;

/// Share of launches that must be refused before the provider counts as the limit.
const REFUSED_SHARE: f64 = 0.3;

/// Names what gave way in a run that missed the objective: the first cause that shows in its figures.
pub(super) fn limit_of(scenario: &Scenario, outcome: &Outcome, only_budget: bool) -> Limit {
    if only_budget {
        return Limit::Budget;
    }
    for (tier, uses) in scenario.tiers.iter().zip(&outcome.tiers) {
        let requests: u64 = uses.iter().map(|used| used.requests).sum();
        let throttled: u64 = uses.iter().map(|used| used.throttled).sum();
        let share = throttled as f64 / requests.max(1) as f64;
        if share > THROTTLED_SHARE {
            return Limit::Throttling { tier: tier.name.clone(), share };
        }
    }
    let pools = || scenario.system.pools.iter().zip(&outcome.pools);
    let instances = || pools().filter(|(pool, _)| pool.offering.capacity_type != CapacityType::External);
    let is_planned = matches!(scenario.system.policies.scaling, Scaling::Static | Scaling::Schedule(_));
    // A pool at its limit only matters once no other pool of its class has room left.
    let full = |class: u16| {
        instances()
            .filter(|(pool, _)| pool.pool_class == class)
            .all(|(pool, stats)| stats.peak >= pool.count_max)
    };
    let at_quota: Vec<String> = instances()
        .filter(|(pool, stats)| full(pool.pool_class) && stats.peak >= pool.count_max && pool.count_max > 0)
        .map(|(pool, _)| pool.name.clone())
        .collect();
    if !at_quota.is_empty() && !is_planned {
        return Limit::Quota { pools: at_quota };
    }
    let refused = instances()
        .filter(|(_, stats)| stats.launches > 0)
        .map(|(pool, stats)| (pool, stats.refusals as f64 / stats.launches as f64));
    if let Some((pool, share)) = refused.max_by(|a, b| a.1.total_cmp(&b.1))
        && share > REFUSED_SHARE
    {
        return Limit::Refusals { pool: pool.name.clone(), share };
    }
    if is_planned {
        return Limit::FleetSize { instances: instances().map(|(_, stats)| stats.peak).sum() };
    }
    let startup = instances().map(|(pool, _)| pool.startup_expected.as_secs_f64()).fold(0.0, f64::max);
    Limit::ColdStart { startup_s: startup }
}
