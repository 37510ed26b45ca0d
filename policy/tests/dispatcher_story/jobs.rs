//! Jobs: their way through stages and queues, leases, retries and ends.

use policy::dispatch::{CancelScope, Input, Output, Rejection, StageResult};
use policy::model::{InstanceId, JobId, Lease, PoolId, QueueOrder, RegionId};
use policy::policies::routing::Rings;
use policy::policies::{Packing, Retry, Routing, Shedding};
use policy::records::JobOutcome;
use policy::units::{Duration, Instant};

use crate::desk::Desk;
use crate::systems::{backoff, class, outside, plain, secs, stage, three_regions};

#[test]
fn multi_stage_job_passes() {
    let mut system = plain(1);
    system.pools[0].slots = [1, 2, 0, 0];
    system.stages = vec![outside("upload"), stage("prepare", 1), stage("infer", 0), outside("download")];
    let mut desk = Desk::ready(system);
    let job = desk.job();
    let mut stages = Vec::new();
    for _ in 0..4 {
        let start = desk.the_start();
        stages.push((start.stage.0, start.instance.map(|id| id.0)));
        desk.wait(secs(3));
        desk.done(start.lease);
    }
    assert_eq!(stages, [(0, None), (1, Some(0)), (2, Some(0)), (3, None)]);
    let ended = desk.ended()[0];
    assert_eq!((ended.job, ended.outcome, ended.deliveries), (job, JobOutcome::Done, 4));
    assert_eq!((ended.waited, ended.served), (Duration::ZERO, secs(12)));
}

#[test]
fn full_pool_queues_the_job() {
    let mut desk = Desk::ready(plain(1));
    let (first, second) = (desk.job(), desk.job());
    assert!(desk.runs(first) && !desk.runs(second));
    desk.wait(secs(7));
    desk.done(desk.lease(first));
    let start = desk.the_start();
    assert_eq!((start.lease, start.waited), (desk.lease(second), secs(7)));
}

#[test]
fn stale_report_changes_nothing() {
    let mut desk = Desk::ready(plain(2));
    let job = desk.job();
    let old = desk.lease(job);
    desk.lost(desk.the_start_instance());
    assert!(desk.runs(job), "it moved to the other instance");
    for input in [
        Input::StageFinished { lease: old, result: StageResult::Done },
        Input::StageFinished { lease: old, result: StageResult::Failed },
        Input::LeaseRenewed { lease: old },
        Input::StageFinished { lease: Lease { slot: 77, token: 0 }, result: StageResult::Done },
        Input::JobCancelled {
            job: JobId { generation: job.generation + 1, ..job },
            scope: CancelScope::Always,
        },
        Input::InstanceReady { instance: InstanceId(99) },
        Input::InstanceGone { instance: InstanceId(1) },
    ] {
        let stale = desk.dispatcher.totals().stale;
        assert!(desk.give(input).is_empty(), "{input:?}");
        assert_eq!(desk.dispatcher.totals().stale, stale + 1, "{input:?}");
    }
    assert!(desk.runs(job));
    desk.done(desk.lease(job));
    assert_eq!(desk.outcomes(), [JobOutcome::Done]);
}

#[test]
fn interrupted_job_goes_to_the_front_and_is_delivered_again() {
    let mut desk = Desk::ready(plain(2));
    let (first, second) = (desk.job(), desk.job());
    let instance = desk.the_start_instance();
    let third = desk.job();
    desk.lost(instance);
    assert!(!desk.runs(second), "there is no free slot");
    desk.done(desk.lease(first));
    let start = desk.the_start();
    assert_eq!((start.lease, start.delivery), (desk.lease(second), 2));
    assert!(!desk.runs(third), "the interrupted job was before it");
}

#[test]
fn dead_letter_after_deliveries_max() {
    let mut desk = Desk::ready(plain(4));
    desk.job();
    for delivery in 1..=3 {
        let start = desk.the_start();
        assert_eq!(start.delivery, delivery);
        desk.lost(start.instance.unwrap());
    }
    assert_eq!(desk.outcomes(), [JobOutcome::Failed]);
}

#[test]
fn failed_attempts_count_as_deliveries() {
    let mut system = plain(1);
    system.policies.retry = Retry::Immediate { attempts_max: 99, pause: Duration::ZERO };
    let mut desk = Desk::ready(system);
    let job = desk.job();
    for _ in 0..2 {
        desk.give(Input::StageFinished { lease: desk.lease(job), result: StageResult::Failed });
        desk.wait(Duration::ZERO);
    }
    desk.give(Input::StageFinished { lease: desk.lease(job), result: StageResult::Failed });
    assert_eq!(desk.outcomes(), [JobOutcome::Failed], "three deliveries are the most");
}

#[test]
fn priority_comes_before_order() {
    let mut system = plain(1);
    system.classes = vec![class("paid", 0, None, false), class("free", 5, None, false)];
    let mut desk = Desk::ready(system);
    let running = desk.job();
    desk.arrive(1, 0);
    let free = desk.accepted().unwrap();
    let paid = desk.job();
    desk.done(desk.lease(running));
    assert!(desk.runs(paid) && !desk.runs(free));
}

#[test]
fn queue_order_decides_within_a_priority() {
    let check = |order: QueueOrder, classes: [u16; 3], expected: [u64; 3]| {
        let mut system = plain(1);
        system.queue_order = order;
        system.classes = vec![
            class("far", 0, Some(secs(900)), false),
            class("near", 0, Some(secs(90)), false),
            class("never", 0, None, false),
        ];
        let mut desk = Desk::ready(system);
        desk.job(); // tag 1 runs
        for class in classes {
            desk.arrive(class, 0); // tags 2, 3, 4 wait
        }
        let mut served = Vec::new();
        let mut lease = Lease { slot: 0, token: 1 };
        for _ in 0..3 {
            desk.done(lease);
            lease = desk.the_start().lease;
            served.push(desk.the_start().tag);
        }
        assert_eq!(served, expected, "{order:?}");
    };
    check(QueueOrder::Fifo, [0, 1, 2], [2, 3, 4]);
    check(QueueOrder::Lifo, [0, 1, 2], [4, 3, 2]);
    check(QueueOrder::Deadline, [2, 0, 1], [4, 3, 2]);
}

#[test]
fn cancelled_job_leaves_a_queue_by_deadline_at_once() {
    let mut system = plain(1);
    system.queue_order = QueueOrder::Deadline;
    system.classes = vec![class("default", 0, Some(secs(90)), false)];
    let mut desk = Desk::ready(system);
    let (running, next, last) = (desk.job(), desk.job(), desk.job());
    desk.give(Input::JobCancelled { job: next, scope: CancelScope::BeforeService });
    assert_eq!(desk.outcomes(), [JobOutcome::Cancelled]);
    let reused = desk.job();
    assert_eq!(reused.slot, next.slot);
    desk.done(desk.lease(running));
    assert!(desk.runs(last), "the slot's new job came after it");
}

#[test]
fn many_cancelled_jobs_leave_the_others_in_order() {
    let mut system = plain(1);
    system.queue_order = QueueOrder::Deadline;
    system.classes = vec![class("default", 0, Some(secs(9000)), false)];
    let mut desk = Desk::ready(system);
    let mut running = desk.job();
    let waiting: Vec<JobId> = (0..400).map(|_| desk.job()).collect();
    let (kept, cancelled): (Vec<JobId>, Vec<JobId>) = waiting.iter().partition(|job| job.slot % 8 == 0);
    for job in cancelled {
        desk.give(Input::JobCancelled { job, scope: CancelScope::BeforeService });
    }
    for job in kept {
        desk.done(desk.lease(running));
        assert!(desk.runs(job), "{job:?} is next");
        running = job;
    }
}

#[test]
fn patience_ends_when_service_begins() {
    let mut desk = Desk::ready(plain(1));
    let (running, waiting) = (desk.job(), desk.job());
    for job in [running, waiting] {
        desk.give(Input::JobCancelled { job, scope: CancelScope::BeforeService });
    }
    assert!(desk.runs(running));
    assert_eq!(desk.ended()[0].job, waiting);
    desk.give(Input::JobCancelled { job: running, scope: CancelScope::Always });
    assert!(matches!(desk.outputs[0], Output::Revoked { .. }), "{:?}", desk.outputs);
    assert_eq!(desk.outcomes(), [JobOutcome::Cancelled]);
}

#[test]
fn failed_attempt_waits_its_backoff() {
    let mut system = plain(1);
    system.policies.retry = backoff(0.0);
    system.stages[0].deliveries_max = 9;
    let mut desk = Desk::ready(system);
    let job = desk.job();
    for attempt in 1..=4_u32 {
        desk.give(Input::StageFinished { lease: desk.lease(job), result: StageResult::Failed });
        if attempt < 4 {
            assert!(!desk.runs(job));
            desk.wait(Duration::from_millis(100 << (attempt - 1)));
            assert_eq!(desk.the_start().lease, desk.lease(job));
        }
    }
    assert_eq!(desk.outcomes(), [JobOutcome::Failed]);
    assert_eq!(desk.dispatcher.totals().retries, 3);
}

#[test]
fn refused_probes_give_up_in_the_end() {
    let mut system = three_regions(0);
    for pool in &mut system.pools {
        pool.count_max = 1;
    }
    system.queue_per_slot_max = Some(0.0);
    system.policies.routing = Routing::Rings(Rings::default_params());
    system.policies.retry = Retry::Immediate { attempts_max: 3, pause: secs(1) };
    let mut desk = Desk::ready(system);
    desk.arrive(0, 1);
    assert!(matches!(desk.outputs[1], Output::ProbeRefused { cell: RegionId(1), .. }), "{:?}", desk.outputs);
    desk.wait(secs(1));
    assert!(desk.ended().is_empty());
    desk.wait(secs(1));
    assert_eq!(desk.outcomes(), [JobOutcome::Failed]);
    assert_eq!(desk.dispatcher.totals().probes_refused, 3);
}

#[test]
fn execution_delay_holds_jobs_back() {
    let mut system = plain(1);
    system.policies.retry = backoff(1.0);
    let mut desk = Desk::ready(system);
    let job = desk.job();
    assert!(!desk.runs(job) && desk.dispatcher.poll_timeout() <= Instant::START + secs(4));
    desk.wait(secs(4));
    assert!(desk.runs(job));
}

#[test]
fn jobs_that_would_be_late_are_shed_on_arrival() {
    let mut system = plain(1);
    system.classes[0].deadline = Some(secs(25));
    system.policies.admission.shedding = Some(Shedding { slack: 1.0 });
    let mut desk = Desk::ready(system);
    desk.job();
    desk.job(); // waits ten, done after twenty
    desk.arrive(0, 0); // would be done after thirty
    assert_eq!(desk.rejections(), [Rejection::WouldBeLate]);
}

#[test]
fn jobs_that_have_become_late_are_shed_when_their_turn_comes() {
    let mut system = plain(1);
    system.classes[0].deadline = Some(secs(25));
    system.policies.admission.shedding = Some(Shedding { slack: 1.0 });
    let mut desk = Desk::ready(system);
    let (slow, late) = (desk.job(), desk.job());
    desk.wait(secs(16)); // nine seconds are left, ten are needed
    desk.done(desk.lease(slow));
    assert_eq!(desk.outcomes(), [JobOutcome::Expired, JobOutcome::Done]);
    assert_eq!(desk.ended()[0].job, late);
}

#[test]
fn bounded_queue_turns_away() {
    let mut system = plain(1);
    system.queue_per_slot_max = Some(2.0);
    let mut desk = Desk::ready(system);
    for _ in 0..3 {
        desk.job();
    }
    desk.arrive(0, 0);
    assert_eq!(desk.rejections(), [Rejection::QueueFull]);
}

#[test]
fn waiting_job_expires_at_its_deadline() {
    let mut system = plain(1);
    system.classes = vec![class("default", 0, Some(secs(30)), true)];
    let mut desk = Desk::ready(system);
    let (running, waiting) = (desk.job(), desk.job());
    desk.wait(secs(31));
    assert_eq!(desk.outcomes(), [JobOutcome::Expired]);
    let ended = desk.ended()[0];
    assert_eq!((ended.job, ended.waited), (waiting, secs(30)));
    assert!(desk.runs(running), "what runs may finish");
}

#[test]
fn job_past_its_deadline_does_not_wait_again() {
    let mut system = plain(1);
    system.classes = vec![class("default", 0, Some(secs(30)), true)];
    let mut desk = Desk::ready(system);
    desk.job();
    let instance = desk.the_start_instance();
    desk.wait(secs(31));
    desk.lost(instance);
    assert_eq!(desk.outcomes(), [JobOutcome::Expired]);
}

#[test]
fn lease_that_is_not_renewed_brings_the_job_back() {
    let mut system = plain(2);
    system.stages[0].lease = Some(secs(30));
    let mut desk = Desk::ready(system);
    let job = desk.job();
    let old = desk.lease(job);
    desk.wait(secs(29));
    assert_eq!(desk.lease(job), old);
    desk.wait(secs(1));
    assert!(matches!(desk.outputs[0], Output::Revoked { lease, .. } if lease == old));
    assert_eq!(desk.the_start().delivery, 2);
    assert!(desk.done(old).is_empty(), "the first worker comes too late");
}

#[test]
fn lease_that_runs_out_takes_the_job_to_another_instance_where_one_is_free() {
    for packing in [Packing::Pack, Packing::Spread] {
        for slots in [1, 3] {
            let mut system = plain(2);
            system.stages[0].lease = Some(secs(30));
            system.policies.packing = packing;
            for pool in &mut system.pools {
                pool.slots[0] = slots;
            }
            let mut desk = Desk::ready(system);
            let job = desk.submit(None, None);
            let first = desk.the_start().instance;
            let beside = (slots > 1).then(|| desk.submit(None, None));
            desk.wait(secs(30));
            let start =
                desk.started().into_iter().find(|start| start.lease == desk.lease(job)).expect("it starts");
            assert_ne!(start.instance, first, "{packing:?}, {slots} slots");
            assert_eq!(start.delivery, 2);
            // What else runs there runs on, or follows when its own lease is over.
            assert!(beside.is_none_or(|beside| desk.runs(beside)));
            assert_eq!(desk.dispatcher.pool_counts(PoolId(0)), (2, 0, 0));
        }
    }
}

#[test]
fn lease_that_runs_out_where_nothing_else_is_free_leaves_the_slot_to_who_is_first() {
    let mut system = plain(1);
    system.stages[0].lease = Some(secs(30));
    let mut desk = Desk::ready(system);
    let (job, next) = (desk.submit(None, None), desk.submit(None, None));
    desk.wait(secs(30));
    assert!(desk.runs(next) && !desk.runs(job));
    let lease = desk.lease(next);
    desk.done(lease);
    assert!(desk.runs(job));
}

#[test]
fn renewed_lease_runs_on() {
    let mut system = plain(1);
    system.stages[0].lease = Some(secs(30));
    let mut desk = Desk::ready(system);
    let job = desk.job();
    let lease = desk.lease(job);
    for _ in 0..5 {
        desk.wait(secs(20));
        desk.give(Input::LeaseRenewed { lease });
    }
    assert_eq!(desk.lease(job), lease);
    desk.wait(secs(29));
    assert_eq!(desk.lease(job), lease, "it runs from its last renewal");
    desk.wait(secs(1));
    assert_ne!(desk.lease(job), lease);
}

#[test]
fn submitted_job_has_the_priority_that_it_asks_for() {
    let check = |asked: Option<u8>, is_first: bool| {
        let mut system = plain(1);
        system.classes = vec![class("default", 4, None, false)];
        let mut desk = Desk::ready(system);
        let running = desk.job();
        let waiting = desk.job();
        let submitted = desk.submit(asked, None);
        desk.done(desk.lease(running));
        assert_eq!((desk.runs(submitted), desk.runs(waiting)), (is_first, !is_first), "{asked:?}");
    };
    check(Some(3), true);
    check(Some(4), false);
    check(Some(200), false);
    check(None, false);
}

#[test]
fn submitted_job_expires_at_the_deadline_that_it_asks_for() {
    let check = |class_says: Option<u64>, expires: bool, asked: Option<u64>, ends_at: Option<u64>| {
        let mut system = plain(1);
        system.classes = vec![class("default", 0, class_says.map(secs), expires)];
        let mut desk = Desk::ready(system);
        desk.submit(None, Some(secs(5))); // runs, and may finish
        desk.wait(secs(1));
        let waiting = desk.submit(None, asked.map(secs));
        desk.wait(secs(100));
        let ended: Vec<_> = desk.ended().iter().map(|ended| (ended.job, ended.waited)).collect();
        let expected: Vec<_> = ends_at.map(|at| (waiting, secs(at))).into_iter().collect();
        assert_eq!(ended, expected, "{class_says:?}, {expires}, {asked:?}");
    };
    check(Some(30), true, Some(10), Some(10));
    check(Some(30), true, Some(60), Some(60));
    check(Some(30), true, Some(30), Some(30));
    check(Some(30), true, None, Some(30));
    check(None, true, Some(10), Some(10));
    check(None, true, None, None);
    check(Some(30), false, Some(10), None);
}

#[test]
fn submitted_deadline_decides_the_order_by_deadline() {
    let mut system = plain(1);
    system.queue_order = QueueOrder::Deadline;
    system.classes = vec![class("default", 0, Some(secs(90)), false)];
    let mut desk = Desk::ready(system);
    let running = desk.job();
    let (waiting, urgent) = (desk.job(), desk.submit(None, Some(secs(20))));
    desk.done(desk.lease(running));
    assert!(desk.runs(urgent) && !desk.runs(waiting));
}
