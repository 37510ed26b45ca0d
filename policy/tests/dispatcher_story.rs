//! What the dispatcher does, told as short stories: one behaviour each, on the smallest system that shows it.

mod systems;

use policy::dispatch::{
    CancelScope, Dispatcher, Ended, Input, InstanceState, Output, Rejection, StageResult, Started,
};
use policy::model::{
    CapacityType, ClassId, InstanceId, JobId, Lease, Place, Pool, PoolId, QualityId, QueueOrder, RegionId,
    StageId, System,
};
use policy::policies::routing::Rings;
use policy::policies::scaling::{Schedule, ScheduleStep};
use policy::policies::{Packing, Purchase, Quality, Retry, Routing, Scaling, Shedding};
use policy::records::{InstanceEnd, JobOutcome};
use policy::units::random::Stream;
use policy::units::{Duration, Instant};
use systems::{backoff, class, external_only, outside, overflowing, plain, pool, secs, stage, three_regions};

/// A dispatcher with a clock and the outputs of its last input.
struct Desk {
    dispatcher: Dispatcher,
    now: Instant,
    outputs: Vec<Output>,
    tag: u64,
}

impl Desk {
    /// A desk whose initial instances are still starting.
    fn starting(system: System) -> Self {
        let mut outputs = Vec::new();
        let dispatcher = Dispatcher::new(system, Stream::new(1, 0, "dispatcher"), &mut outputs)
            .expect("test systems can run");
        Self { dispatcher, now: Instant::START, outputs, tag: 0 }
    }

    /// A desk whose initial instances are ready.
    fn ready(system: System) -> Self {
        let mut desk = Self::starting(system);
        for instance in desk.launched() {
            desk.give(Input::InstanceReady { instance });
        }
        desk
    }

    fn give(&mut self, input: Input) -> &[Output] {
        self.outputs.clear();
        self.dispatcher.handle_input(self.now, input, &mut self.outputs);
        self.dispatcher.check().expect("every invariant holds");
        &self.outputs
    }

    /// Lets `time` pass; the outputs of all timers on the way stay.
    fn wait(&mut self, time: Duration) -> &[Output] {
        let until = self.now + time;
        self.outputs.clear();
        while self.dispatcher.poll_timeout() <= until {
            self.now = self.dispatcher.poll_timeout();
            self.dispatcher.handle_input(self.now, Input::TimeReached, &mut self.outputs);
            self.dispatcher.check().expect("every invariant holds");
        }
        self.now = until;
        &self.outputs
    }

    /// A job of `class` arrives in `region`.
    fn arrive(&mut self, class: u16, region: u16) -> &[Output] {
        self.tag += 1;
        self.give(Input::JobArrived { tag: self.tag, class: ClassId(class), region: RegionId(region) })
    }

    /// A job of class 0 is submitted with wishes of its own, and accepted.
    fn submit(&mut self, priority: Option<u8>, deadline: Option<Duration>) -> JobId {
        self.tag += 1;
        let (class, region) = (ClassId(0), RegionId(0));
        self.give(Input::JobSubmitted { tag: self.tag, class, region, priority, deadline });
        self.accepted().expect("the job is accepted")
    }

    /// A job of class 0 arrives in region 0 and is accepted.
    fn job(&mut self) -> JobId {
        self.arrive(0, 0);
        self.accepted().expect("the job is accepted")
    }

    fn accepted(&self) -> Option<JobId> {
        self.outputs.iter().find_map(|output| match output {
            Output::Accepted { job, .. } => Some(*job),
            _ => None,
        })
    }

    fn done(&mut self, lease: Lease) -> &[Output] {
        self.give(Input::StageFinished { lease, result: StageResult::Done })
    }

    fn lost(&mut self, instance: InstanceId) -> &[Output] {
        self.give(Input::InstanceLost { instance })
    }

    fn lease(&self, job: JobId) -> Lease {
        self.dispatcher.lease_of(job).expect("the job runs")
    }

    fn runs(&self, job: JobId) -> bool {
        self.dispatcher.lease_of(job).is_some()
    }

    fn started(&self) -> Vec<Started> {
        let started = |output: &Output| if let Output::Started(s) = output { Some(*s) } else { None };
        self.outputs.iter().filter_map(started).collect()
    }

    /// The one stage that the last input started.
    fn the_start(&self) -> Started {
        let started = self.started();
        assert_eq!(started.len(), 1, "{:?}", self.outputs);
        started[0]
    }

    fn ended(&self) -> Vec<Ended> {
        let ended = |output: &Output| if let Output::Ended(e) = output { Some(*e) } else { None };
        self.outputs.iter().filter_map(ended).collect()
    }

    fn outcomes(&self) -> Vec<JobOutcome> {
        self.ended().iter().map(|ended| ended.outcome).collect()
    }

    fn rejections(&self) -> Vec<Rejection> {
        let why = |output: &Output| if let Output::Rejected { why, .. } = output { Some(*why) } else { None };
        self.outputs.iter().filter_map(why).collect()
    }

    fn launched(&self) -> Vec<InstanceId> {
        let launch = |output: &Output| {
            if let Output::Launch { instance, .. } = output { Some(*instance) } else { None }
        };
        self.outputs.iter().filter_map(launch).collect()
    }

    fn launched_in(&self, pool: u16) -> usize {
        let there = |output: &&Output| matches!(output, Output::Launch { pool: p, .. } if *p == PoolId(pool));
        self.outputs.iter().filter(there).count()
    }

    fn terminated(&self) -> Vec<InstanceId> {
        let terminate = |output: &Output| {
            if let Output::Terminate { instance, .. } = output { Some(*instance) } else { None }
        };
        self.outputs.iter().filter_map(terminate).collect()
    }

    fn lives(&self) -> Vec<InstanceEnd> {
        let life =
            |output: &Output| if let Output::InstanceEnded(life) = output { Some(life.end) } else { None };
        self.outputs.iter().filter_map(life).collect()
    }
}

/// The count is `to` from `at` on.
fn at_count(at: Duration, to: u32) -> Scaling {
    let steps = vec![ScheduleStep { at, instances: to }];
    Scaling::Schedule(Schedule { steps, lead: Some(Duration::ZERO), repeat: None })
}

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

impl Desk {
    fn the_start_instance(&self) -> InstanceId {
        self.the_start().instance.expect("it started on an instance")
    }
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
