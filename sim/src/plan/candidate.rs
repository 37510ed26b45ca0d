//! Candidates: what the planner may change, written as overrides of the scenario.

use policy::model::CapacityType;
use policy::policies::{Admission, Purchase, Scaling};
use scenarios::scenario::{Scenario, StepKind};

use super::demand::Demand;

/// One plan to try.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// What a person calls it.
    pub name: String,
    /// Overrides, as for `--set`.
    pub sets: Vec<String>,
    /// Share of the peak fleet that is always held; `None` where the fleet follows a plan of its own.
    pub floor: Option<f64>,
    /// The scaling part of the name, for grouping.
    pub scaling: String,
    /// What `sets` cannot say.
    pub typed: Typed,
}

/// Choices that the scenario's `[plan]` section lists, and storage tiers to exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Typed {
    /// Scaling policy of the list.
    pub scaling: Option<Scaling>,
    /// Purchase policy of the list.
    pub purchase: Option<Purchase>,
    /// Admission rule of the list.
    pub admission: Option<Admission>,
    /// Tier to take out of the pipeline, and the one to put in.
    pub tier_swap: Option<(usize, usize)>,
}

impl Typed {
    /// Applies the choices.
    pub fn apply(&self, scenario: &mut Scenario) {
        let policies = &mut scenario.system.policies;
        if let Some(scaling) = &self.scaling {
            policies.scaling = scaling.clone();
        }
        if let Some(purchase) = self.purchase {
            policies.purchase = purchase;
        }
        if let Some(admission) = self.admission {
            policies.admission = admission;
        }
        let Some((from, to)) = self.tier_swap else { return };
        for step in scenario.stages.iter_mut().flat_map(|stage| &mut stage.steps) {
            if let StepKind::Transfer { tier, .. } = &mut step.kind
                && *tier == from
            {
                *tier = to;
            }
        }
    }
}

/// Where a fleet is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fleet {
    /// On-demand and reserved pools only.
    OnDemand,
    /// Spot pools first.
    Spot,
}

/// Instances by pool for `share` of what `rate_per_s` needs, and whether the limits held them back.
///
/// On-demand is bought cheapest first; spot evenly over its pools, and on-demand for what they cannot hold.
pub(super) fn counts(
    scenario: &Scenario,
    demand: &Demand,
    rate_per_s: f64,
    share: f64,
    fleet: Fleet,
) -> Vec<(usize, u32)> {
    let pools = &scenario.system.pools;
    let mut counts = Vec::new();
    for class in 0..scenario.system.pool_classes.len() {
        let members = |wanted: fn(CapacityType) -> bool| {
            let of = pools.iter().enumerate();
            let of = of.filter(move |(_, pool)| {
                pool.pool_class as usize == class && wanted(pool.offering.capacity_type)
            });
            let mut found: Vec<usize> = of.map(|(index, _)| index).collect();
            found.sort_by(|a, b| effective_price(scenario, *a).total_cmp(&effective_price(scenario, *b)));
            found
        };
        let mut left = (f64::from(demand.instances(class, rate_per_s)) * share).ceil() as u32;
        if scenario.system.policies.routing.is_regional() {
            counts.extend(spread_by_size(scenario, members(|kind| kind != CapacityType::External), left));
            continue;
        }
        if fleet == Fleet::Spot {
            let spot = members(|kind| kind == CapacityType::Spot);
            for (rank, index) in spot.iter().enumerate() {
                let even = left.div_ceil((spot.len() - rank) as u32);
                let here = even.min(pools[*index].count_max);
                counts.push((*index, here));
                left -= here;
            }
        } else {
            counts.extend(members(|kind| kind == CapacityType::Spot).into_iter().map(|index| (index, 0)));
        }
        for index in members(|kind| matches!(kind, CapacityType::OnDemand | CapacityType::Reserved)) {
            let here = left.min(pools[index].count_max);
            counts.push((index, here));
            left -= here;
        }
    }
    counts
}

/// Where queues are regional every region keeps its part: counts in proportion to the pools' limits.
fn spread_by_size(scenario: &Scenario, members: Vec<usize>, total: u32) -> Vec<(usize, u32)> {
    let limit = |index: &usize| f64::from(scenario.system.pools[*index].count_max);
    let all: f64 = members.iter().map(limit).sum();
    let part = |index: usize| {
        (index, ((f64::from(total) * limit(&index) / all.max(1.0)).ceil()).min(limit(&index)) as u32)
    };
    members.into_iter().map(part).collect()
}

fn effective_price(scenario: &Scenario, pool: usize) -> f64 {
    let pool = &scenario.system.pools[pool];
    let slots: u32 = pool.slots.iter().map(|slots| u32::from(*slots)).sum();
    pool.offering.price.as_f64() * pool.speed_factor / f64::from(slots.max(1))
}

/// Overrides that give pools these counts; `held` keeps them as minima too.
pub(super) fn count_sets(scenario: &Scenario, counts: &[(usize, u32)], held: bool) -> Vec<String> {
    let mut sets = Vec::new();
    for (pool, count) in counts {
        let name = &scenario.system.pools[*pool].name;
        sets.push(format!("fleet.pool.{name}.count_min={}", if held { *count } else { 0 }));
        sets.push(format!("fleet.pool.{name}.count={count}"));
    }
    sets
}

/// Purchase policies worth trying: (name, override, where the standing fleet is bought).
pub(super) fn purchases(scenario: &Scenario, peak: u32) -> Vec<(String, Option<String>, Fleet)> {
    let has = |kind: CapacityType| {
        scenario.system.pools.iter().any(|pool| pool.offering.capacity_type == kind && pool.count_max > 0)
    };
    let mut found = Vec::new();
    if has(CapacityType::OnDemand) || has(CapacityType::Reserved) {
        let set = "policy.purchase={kind=\"on-demand-only\"}".to_owned();
        found.push(("on-demand".to_owned(), Some(set), Fleet::OnDemand));
    }
    if has(CapacityType::Spot) {
        if has(CapacityType::OnDemand) {
            let set = "policy.purchase={kind=\"spot-share\",share=0.7}".to_owned();
            found.push(("70 % spot".to_owned(), Some(set), Fleet::Spot));
        }
        for percent in [5, 15] {
            let extra = (peak * percent).div_ceil(100).max(1);
            let set = format!("policy.purchase={{kind=\"spot-hedge\",overprovision={extra}}}");
            found.push((format!("SpotHedge +{extra}"), Some(set), Fleet::Spot));
        }
    }
    found
}

/// Admission rules worth trying: (name, overrides).
pub(super) fn admissions(scenario: &Scenario) -> Vec<(String, Vec<String>)> {
    let mut found = vec![(String::new(), Vec::new())];
    let has_deadline = scenario.system.classes.iter().any(|class| class.deadline.is_some());
    let admission = scenario.system.policies.admission;
    if has_deadline && admission.shedding.is_none() {
        found.push(("shedding late jobs".to_owned(), vec!["policy.admission.shed_slack=1.0".to_owned()]));
    }
    let external = |pool: &policy::model::Pool| pool.offering.capacity_type == CapacityType::External;
    if scenario.system.pools.iter().any(external) && admission.overflow_above.is_none() {
        let wait = (scenario.objective.deadline.as_secs_f64() / 4.0).clamp(1.0, 3600.0);
        found.push((
            format!("overflow above {wait:.0} s"),
            vec![format!("policy.admission.overflow_above=\"{wait:.0}s\"")],
        ));
    }
    found
}

/// The instances a schedule asks for, as an override.
pub(super) fn schedule(demand: &Demand, class: usize, multiplier: f64) -> String {
    const STEP_S: f64 = 600.0;
    let mut steps: Vec<(f64, u32)> = Vec::new();
    for (at, rate) in demand.steps(STEP_S) {
        let instances = (f64::from(demand.instances(class, rate)) * multiplier).ceil() as u32;
        if steps.last().is_none_or(|last| last.1 != instances) {
            steps.push((at, instances));
        }
    }
    let listed: Vec<String> =
        steps.iter().map(|(at, n)| format!("{{at=\"{at:.0}s\",instances={n}}}")).collect();
    format!("policy.scaling={{kind=\"schedule\",steps=[{}]}}", listed.join(","))
}

/// Scaling policies worth trying that react to the queue: (name, override).
pub(super) fn reactive(scenario: &Scenario) -> Vec<(String, String)> {
    let deadline = scenario.objective.deadline.as_secs_f64();
    let service: f64 = scenario.system.stages.iter().map(|stage| stage.service_expected.as_secs_f64()).sum();
    let slack = (deadline - service).max(service);
    let slots = |pool: &policy::model::Pool| pool.slots.iter().map(|slots| f64::from(*slots)).sum::<f64>();
    let slots = scenario.system.pools.iter().map(slots).fold(1.0, f64::max);
    let mut found = Vec::new();
    for part in [0.25, 0.05] {
        let wait = (slack * part * 10.0).round().max(1.0) / 10.0;
        let set = format!("policy.scaling={{kind=\"target-tracking\",acceptable_latency=\"{wait}s\"}}");
        found.push((format!("target tracking {wait} s"), set));
    }
    for per_slot in [1.0, 0.7] {
        let length = slots * per_slot;
        let set = format!("policy.scaling={{kind=\"keda\",queue_length={length},replicas_max=1000000}}");
        found.push((format!("KEDA queue {length}"), set));
    }
    found.push(("HPA 70 % busy".to_owned(), "policy.scaling={kind=\"hpa\",utilization=0.7}".to_owned()));
    for delay in [300, 60] {
        let set = format!("policy.scaling={{kind=\"sky-serve\",upscale_delay=\"{delay}s\"}}");
        found.push((format!("SkyServe rate {delay} s"), set));
    }
    found
}
