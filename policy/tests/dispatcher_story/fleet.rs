//! Instances: where jobs go, what is bought and given back, instances that fall silent.

use policy::dispatch::{Dispatcher, Input, InstanceState, Output};
use policy::model::{CapacityType, InstanceId, JobId, Place, Pool, PoolId, QualityId, RegionId, StageId};
use policy::policies::scaling::{Schedule, ScheduleStep};
use policy::policies::{Packing, Purchase, Quality, Routing, Scaling};
use policy::records::{InstanceEnd, JobOutcome};
use policy::units::random::Stream;
use policy::units::{Duration, Instant};

use crate::desk::Desk;
use crate::systems::{external_only, outside, overflowing, plain, pool, secs, three_regions};

/// The count is `to` from `at` on.
fn at_count(at: Duration, to: u32) -> Scaling {
    let steps = vec![ScheduleStep { at, instances: to }];
    Scaling::Schedule(Schedule { steps, lead: Some(Duration::ZERO), repeat: None })
}

#[test]
fn jobs_wait_for_an_instance_that_starts() {
    let mut desk = Desk::starting(plain(1));
    let instance = desk.launched()[0];
    let job = desk.job();
    desk.give(Input::InstanceBooted { instance });
    assert!(!desk.runs(job));
    desk.give(Input::InstanceReady { instance });
    assert!(desk.runs(job));
}

#[test]
fn long_waits_overflow_to_the_external_service() {
    // Ten seconds a job on one slot: the second job would wait ten, the third twenty.
    let mut desk = Desk::ready(overflowing());
    let (own, queued, outer) = (desk.job(), desk.job(), desk.job());
    assert!(desk.runs(own) && !desk.runs(queued) && desk.runs(outer));
    let start = desk.the_start();
    assert_eq!((start.pool, start.instance), (Some(PoolId(1)), None));
}

#[test]
fn external_service_alone_works_off_its_queue() {
    let mut desk = Desk::ready(external_only());
    let jobs: Vec<JobId> = (0..4).map(|_| desk.job()).collect();
    let running: Vec<bool> = jobs.iter().map(|job| desk.runs(*job)).collect();
    assert_eq!(running, [true, true, false, false], "two calls at once");
    desk.done(desk.lease(jobs[1]));
    assert_eq!(desk.the_start().lease, desk.lease(jobs[2]));
}

#[test]
fn drain_finishes_jobs_and_then_terminates() {
    let mut system = plain(1);
    system.policies.scaling = at_count(secs(20), 0);
    let mut desk = Desk::ready(system);
    let job = desk.job();
    let instance = desk.the_start_instance();
    desk.wait(secs(40));
    assert_eq!(desk.dispatcher.instance_state(instance), InstanceState::Draining);
    assert!(desk.terminated().is_empty());
    let second = desk.job();
    assert!(!desk.runs(second), "a draining instance takes no job");
    desk.done(desk.lease(job));
    assert_eq!((desk.outcomes(), desk.terminated()), (vec![JobOutcome::Done], vec![instance]));
    assert_eq!(desk.lives(), [InstanceEnd::Released]);
    desk.give(Input::InstanceGone { instance });
    assert_eq!(desk.dispatcher.instance_state(instance), InstanceState::Free);
}

#[test]
fn notice_hands_back_only_what_cannot_finish() {
    let check = |notice: Duration, still_runs: bool| {
        let mut desk = Desk::ready(plain(1));
        let job = desk.job(); // expected to take ten seconds
        let instance = desk.the_start_instance();
        desk.wait(secs(4));
        desk.give(Input::InterruptionNotice { instance, gone_at: desk.now + notice });
        assert_eq!(desk.runs(job), still_runs, "{notice}");
        assert_eq!(desk.terminated().is_empty(), still_runs, "{notice}");
        assert_eq!(desk.launched().len(), 1, "{notice}: a replacement is on its way");
    };
    check(secs(12), true); // six are left, five are kept in reserve
    check(secs(10), false);
}

#[test]
fn insufficient_capacity_falls_to_the_other_pool() {
    let mut system = plain(0);
    system.pools = vec![pool("spot", CapacityType::Spot, 0), pool("on-demand", CapacityType::OnDemand, 0)];
    system.policies.scaling = at_count(secs(10), 1);
    system.policies.purchase =
        Purchase::SpotHedge { overprovision: 0, dynamic_fallback: false, on_demand_base: 0 };
    let mut desk = Desk::ready(system.clone());
    desk.wait(secs(15));
    assert_eq!((desk.launched_in(0), desk.launched_in(1)), (1, 0));
    let instance = desk.launched()[0];

    system.policies.purchase =
        Purchase::SpotHedge { overprovision: 0, dynamic_fallback: true, on_demand_base: 0 };
    let mut hedged = Desk::ready(system);
    hedged.wait(secs(15));
    assert_eq!((hedged.launched_in(0), hedged.launched_in(1)), (1, 1), "on-demand stands in at once");

    desk.give(Input::LaunchFailed { instance });
    assert_eq!(desk.lives(), [InstanceEnd::Refused]);
    assert_eq!(desk.launched_in(0), 0, "the pool that refused is not asked again at once");
    assert_eq!(desk.dispatcher.instance_state(instance), InstanceState::Free);
}

#[test]
fn ladder_lowers_quality_under_load() {
    let mut system = plain(1);
    system.stages[0].has_quality = true;
    let best = system.qualities[0].clone();
    system.qualities.push(policy::model::QualityLevel { name: "fast".to_owned(), ..best });
    system.policies.quality = Quality::Ladder { thresholds: vec![2.5], recover: 0.8 };
    let mut desk = Desk::ready(system);
    let first = desk.job();
    assert_eq!(desk.the_start().quality, QualityId(0));
    let jobs: Vec<JobId> = (0..3).map(|_| desk.job()).collect();
    desk.done(desk.lease(first)); // two wait beside the one that starts: 3 per slot
    assert_eq!(desk.the_start().quality, QualityId(1));
    desk.done(desk.lease(jobs[0])); // 2 per slot: the threshold times 0.8 is not undercut
    assert_eq!(desk.the_start().quality, QualityId(1));
    desk.done(desk.lease(jobs[1]));
    assert_eq!(desk.the_start().quality, QualityId(0));
}

#[test]
fn pack_fills_the_fullest_and_spread_the_emptiest() {
    let check = |packing: Packing, expected: [u32; 4]| {
        let mut system = plain(2);
        system.pools[0].slots[0] = 2;
        system.policies.packing = packing;
        let mut desk = Desk::ready(system);
        let mut chosen = Vec::new();
        for _ in 0..4 {
            desk.job();
            chosen.push(desk.the_start_instance().0);
        }
        assert_eq!(chosen, expected, "{packing:?}");
    };
    check(Packing::Pack, [0, 0, 1, 1]);
    check(Packing::Spread, [0, 1, 0, 1]);
}

#[test]
fn reserved_pools_are_served_first() {
    let mut system = plain(1);
    system.pools.push(pool("reserved", CapacityType::Reserved, 1));
    let mut desk = Desk::ready(system);
    desk.job();
    assert_eq!(desk.the_start().pool, Some(PoolId(1)));
}

#[test]
fn launch_given_up_early_frees_its_id_when_gone() {
    let mut system = plain(1);
    system.policies.scaling = at_count(secs(10), 0);
    let mut desk = Desk::starting(system);
    let instance = desk.launched()[0];
    desk.wait(secs(15));
    assert_eq!(desk.terminated(), [instance]);
    assert!(desk.give(Input::InstanceReady { instance }).is_empty(), "it became ready too late");
    desk.give(Input::LaunchFailed { instance }); // the provider had refused all along
    assert_eq!(desk.dispatcher.instance_state(instance), InstanceState::Free);
    desk.give(Input::InstanceGone { instance });
    assert_eq!(desk.dispatcher.instance_state(instance), InstanceState::Free);
}

#[test]
fn region_without_pools_is_served_by_the_nearest() {
    let mut system = three_regions(1);
    system.policies.routing = Routing::Nearest;
    let kept: Vec<Pool> = system.pools.drain(..2).collect();
    system.pools = kept;
    let mut desk = Desk::ready(system);
    desk.arrive(0, 2);
    assert_eq!(desk.the_start().cell, RegionId(1));
}

#[test]
fn pipeline_without_any_pool_runs() {
    let mut system = plain(0);
    system.pools.clear();
    system.pool_classes.clear();
    system.stages = vec![outside("upload")];
    let mut desk = Desk::starting(system);
    desk.job();
    let start = desk.the_start();
    assert_eq!((start.stage, start.instance, start.pool), (StageId(0), None, None));
    desk.done(start.lease);
    assert_eq!(desk.outcomes(), [JobOutcome::Done]);
}

#[test]
fn stage_that_no_pool_can_serve_is_refused() {
    let mut system = plain(1);
    system.stages[0].place = Place::Slot { pool_class: 0, kind: policy::model::KindId(1) };
    assert!(Dispatcher::new(system, Stream::new(1, 0, "dispatcher"), &mut Vec::new()).is_err());
}

#[test]
fn silent_instance_loses_its_jobs_and_gets_none_until_it_is_heard() {
    let mut desk = Desk::ready(plain(2));
    let (first, second) = (desk.job(), desk.job());
    let waiting = desk.job();
    let lease = desk.lease(first);
    let instance = InstanceId(0);
    desk.give(Input::InstanceSilent { instance });
    assert_eq!(desk.outputs, [Output::Revoked { lease, instance: Some(instance) }]);
    assert_eq!(desk.dispatcher.instance_state(instance), InstanceState::Silent);
    assert_eq!(desk.dispatcher.pool_counts(PoolId(0)), (1, 1, 0), "it counts as starting");
    assert!(desk.done(lease).is_empty(), "the report comes too late");
    assert_eq!(desk.dispatcher.totals().stale, 1);

    desk.done(desk.lease(second));
    let start = desk.the_start();
    assert_eq!((start.tag, start.delivery, start.instance), (1, 2, Some(InstanceId(1))), "ahead of others");
    assert!(!desk.runs(waiting));

    desk.wait(secs(600));
    assert!(desk.launched().is_empty() && desk.terminated().is_empty(), "nothing replaces it");
    desk.give(Input::InstanceHeard { instance });
    assert_eq!(desk.the_start().instance, Some(instance));
    assert!(desk.runs(waiting));
    desk.give(Input::InstanceHeard { instance });
    assert!(desk.outputs.is_empty());
    assert_eq!(desk.dispatcher.totals().stale, 2);
}

#[test]
fn silent_instance_ends_like_any_other() {
    let check = |input: fn(InstanceId) -> Input, after: InstanceState, end: InstanceEnd| {
        let mut desk = Desk::ready(plain(2));
        let instance = InstanceId(0);
        desk.give(Input::InstanceSilent { instance });
        desk.give(input(instance));
        assert_eq!((desk.dispatcher.instance_state(instance), desk.lives()), (after, vec![end]));
        assert_eq!(desk.launched().len(), 1, "a replacement is on its way");
    };
    // The replacement takes the id of an instance that is gone.
    check(|instance| Input::InstanceLost { instance }, InstanceState::Requested, InstanceEnd::Interrupted);
    check(|instance| Input::InstanceGone { instance }, InstanceState::Requested, InstanceEnd::Interrupted);
    let notice = |instance| Input::InterruptionNotice { instance, gone_at: Instant::START + secs(120) };
    check(notice, InstanceState::Terminating, InstanceEnd::Interrupted);
}

#[test]
fn silent_instance_is_given_back_first() {
    let mut system = plain(2);
    system.policies.scaling = at_count(secs(20), 1);
    let mut desk = Desk::ready(system);
    let instance = InstanceId(0);
    desk.give(Input::InstanceSilent { instance });
    desk.wait(secs(40));
    assert_eq!((desk.terminated(), desk.lives()), (vec![instance], vec![InstanceEnd::Released]));
}

#[test]
fn draining_instance_that_falls_silent_terminates() {
    let mut system = plain(1);
    system.policies.scaling = at_count(secs(20), 0);
    let mut desk = Desk::ready(system);
    let job = desk.job();
    let lease = desk.lease(job);
    let instance = desk.the_start_instance();
    desk.wait(secs(40));
    assert_eq!(desk.dispatcher.instance_state(instance), InstanceState::Draining);
    desk.give(Input::InstanceSilent { instance });
    assert!(desk.outputs.contains(&Output::Revoked { lease, instance: Some(instance) }));
    assert_eq!((desk.terminated(), desk.runs(job)), (vec![instance], false));
}

#[test]
fn loading_instance_that_is_heard_again_goes_on_loading() {
    let mut desk = Desk::starting(plain(1));
    let instance = InstanceId(0);
    desk.give(Input::InstanceSilent { instance });
    assert_eq!(desk.dispatcher.totals().stale, 1, "nobody expects it to answer yet");
    desk.give(Input::InstanceBooted { instance });
    desk.give(Input::InstanceSilent { instance });
    desk.give(Input::InstanceReady { instance });
    assert_eq!(desk.dispatcher.instance_state(instance), InstanceState::Silent);
    desk.give(Input::InstanceHeard { instance });
    assert_eq!(desk.dispatcher.instance_state(instance), InstanceState::Loading);
    desk.give(Input::InstanceReady { instance });
    let job = desk.job();
    assert!(desk.runs(job));
}
