//! When the recurrence gives the engine's answers.

use policy::model::{CapacityType, Place, QueueOrder};
use policy::policies::{Admission, Purchase, Quality, Retry, Scaling};
use scenarios::scenario::{PoolWorld, Scenario, StepKind};

use super::station::JOBS_MAX;

/// Longest service that keys can hold beside the time already passed, nanoseconds (one hour).
const SERVICE_MAX_NS: u64 = 3_600_000_000_000;

/// Whether the recurrence gives the engine's answers for `scenario`: first come, first served, capacity known ahead,
/// nothing lost, refused, repeated or throttled, and every queue served by one pool for one stage.
pub fn permits(scenario: &Scenario) -> bool {
    let system = &scenario.system;
    let policies = &system.policies;
    let held_back = matches!(&policies.retry, Retry::Backoff { execution_delay: Some(_), .. });
    let policies_permit = policies.scaling == Scaling::Static
        && matches!(policies.purchase, Purchase::OnDemandOnly | Purchase::PoolOrder)
        && !policies.routing.is_regional()
        && policies.admission == Admission::ALL
        && matches!(policies.quality, Quality::Fixed(_))
        && !held_back;
    let queues_permit = system.queue_order == QueueOrder::Fifo
        && system.queue_per_slot_max.is_none()
        && system.classes.iter().all(|class| class.priority == system.classes[0].priority && !class.expires);
    let clients_permit = scenario.clients.patience.is_none() && scenario.clients.reask.is_none();
    policies_permit
        && queues_permit
        && clients_permit
        && scenario.pools.iter().all(is_reliable)
        && pools_permit(scenario)
        && scenario.tiers.iter().all(|tier| tier.get.rate_max.is_none() && tier.put.rate_max.is_none())
        && (0..scenario.stages.len()).all(|stage| stage_permits(scenario, stage))
}

fn is_reliable(pool: &PoolWorld) -> bool {
    let loss = &pool.interruption;
    loss.hazard_per_hour == 0.0 && loss.shock.is_none() && loss.trace.is_none()
}

/// Each pool class is one pool that is bought as it stands.
fn pools_permit(scenario: &Scenario) -> bool {
    let pools = &scenario.system.pools;
    let kept = |kind: CapacityType| matches!(kind, CapacityType::OnDemand | CapacityType::Reserved);
    let alone = |class: u16| pools.iter().filter(|pool| pool.pool_class == class).count() == 1;
    let slots = |pool: &policy::model::Pool| {
        u64::from(pool.count_initial) * pool.slots.iter().map(|s| u64::from(*s)).sum::<u64>()
    };
    pools.iter().all(|pool| {
        kept(pool.offering.capacity_type)
            && alone(pool.pool_class)
            && pool.count_initial > 0
            && slots(pool) < JOBS_MAX as u64 / 4
    })
}

fn stage_permits(scenario: &Scenario, stage: usize) -> bool {
    let (row, work) = (&scenario.system.stages[stage], &scenario.stages[stage]);
    let shared = scenario.system.stages.iter().filter(|other| other.place == row.place).count() > 1;
    let time_max = |step: &scenarios::scenario::Step| match &step.kind {
        StepKind::Compute { time, .. } | StepKind::Wait { time } => time.mean().as_nanos(),
        StepKind::Transfer { .. } => 0,
    };
    // A quality level other than the best is a factor that only the engine applies.
    let quality =
        !row.has_quality || scenario.system.policies.quality == Quality::Fixed(policy::model::QualityId(0));
    work.failure == 0.0
        && row.lease.is_none()
        && (work.slowdown.is_empty() || work.slowdown.iter().all(|factor| *factor == 1.0))
        && (row.place == Place::Outside || !shared)
        && quality
        && scenario.system.qualities[0].service_factor == 1.0
        && work.steps.iter().map(time_max).sum::<u64>() < SERVICE_MAX_NS / 20
}
