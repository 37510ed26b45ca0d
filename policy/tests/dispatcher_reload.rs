//! New parameters for a dispatcher at work: what they change at once, what stays, and what is refused. Any sequence of
//! inputs with reloads between them is `dispatcher_inputs`' matter.

mod systems;

use policy::dispatch::{Dispatcher, Input, InstanceState, Output, ReloadError, StageResult};
use policy::model::{ClassId, InstanceId, JobId, PoolId, QueueOrder, RegionId, System};
use policy::policies::scaling::{BacklogTarget, Schedule, TargetTracking};
use policy::policies::{Purchase, Scaling};
use policy::records::JobOutcome;
use policy::units::random::Stream;
use policy::units::{Duration, Instant, UsdPerHour};
use systems::{class, external_only, plain, pool, secs, stage};

/// A dispatcher whose initial instances are ready, with a clock.
struct Desk {
    dispatcher: Dispatcher,
    now: Instant,
    outputs: Vec<Output>,
    tag: u64,
}

impl Desk {
    fn new(system: &System) -> Self {
        let mut outputs = Vec::new();
        let chance = Stream::new(1, 0, "dispatcher");
        let dispatcher = Dispatcher::new(system.clone(), chance, &mut outputs).expect("test systems can run");
        let mut desk = Self { dispatcher, now: Instant::START, outputs: Vec::new(), tag: 0 };
        for output in outputs {
            if let Output::Launch { instance, .. } = output {
                desk.give(Input::InstanceReady { instance });
            }
        }
        desk
    }

    fn give(&mut self, input: Input) {
        self.outputs.clear();
        self.dispatcher.handle_input(self.now, input, &mut self.outputs);
        self.dispatcher.check().expect("every invariant holds");
    }

    fn reload(&mut self, system: &System) -> Result<(), ReloadError> {
        self.outputs.clear();
        let reloaded = self.dispatcher.reload(self.now, system.clone(), &mut self.outputs);
        self.dispatcher.check().expect("every invariant holds");
        reloaded
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        self.outputs.clear();
        while self.dispatcher.poll_timeout() <= until {
            self.now = self.now.max(self.dispatcher.poll_timeout());
            self.dispatcher.handle_input(self.now, Input::TimeReached, &mut self.outputs);
        }
        self.now = until;
        self.dispatcher.check().expect("every invariant holds");
    }

    fn job(&mut self) -> JobId {
        self.tag += 1;
        self.give(Input::JobArrived { tag: self.tag, class: ClassId(0), region: RegionId(0) });
        let accepted = self.outputs.iter().find_map(|output| match output {
            Output::Accepted { job, .. } => Some(*job),
            _ => None,
        });
        accepted.expect("the job is accepted")
    }

    fn done(&mut self, job: JobId) {
        let lease = self.dispatcher.lease_of(job).expect("the job runs");
        self.give(Input::StageFinished { lease, result: StageResult::Done });
    }

    fn runs(&self, job: JobId) -> bool {
        self.dispatcher.lease_of(job).is_some()
    }

    fn expired(&self) -> Vec<JobId> {
        let expired = |output: &Output| match output {
            Output::Ended(ended) if ended.outcome == JobOutcome::Expired => Some(ended.job),
            _ => None,
        };
        self.outputs.iter().filter_map(expired).collect()
    }

    fn count(&self, what: fn(&Output) -> bool) -> usize {
        self.outputs.iter().filter(|output| what(output)).count()
    }
}

fn is_launch(output: &Output) -> bool {
    matches!(output, Output::Launch { .. })
}

fn is_termination(output: &Output) -> bool {
    matches!(output, Output::Terminate { .. })
}

#[test]
fn jobs_inside_keep_their_deadlines_and_priorities() {
    let mut system = plain(1);
    system.classes = vec![class("default", 3, Some(secs(100)), true)];
    let mut desk = Desk::new(&system);
    let running = desk.job();
    let old = desk.job();
    system.classes = vec![class("default", 2, Some(secs(10)), true)];
    desk.reload(&system).expect("the shape is the same");
    let (first, second) = (desk.job(), desk.job());
    desk.done(running);
    assert!(desk.runs(first), "the new priority comes first");
    desk.wait(secs(50));
    assert_eq!(desk.expired(), [second]);
    desk.wait(secs(50));
    assert_eq!(desk.expired(), [old]);
}

#[test]
fn jobs_inside_expire_once_their_class_does() {
    let mut system = plain(1);
    system.classes = vec![class("default", 0, Some(secs(30)), false)];
    let mut desk = Desk::new(&system);
    desk.job();
    let waiting = desk.job();
    desk.wait(secs(40));
    assert_eq!(desk.expired(), []);
    system.classes[0].expires = true;
    desk.reload(&system).expect("the shape is the same");
    desk.wait(Duration::ZERO);
    assert_eq!(desk.expired(), [waiting]);
}

#[test]
fn leases_follow_the_stage() {
    let check = |was: Option<u64>, is: Option<u64>, ends_at: Option<u64>| {
        let mut system = plain(1);
        system.stages[0].lease = was.map(secs);
        let mut desk = Desk::new(&system);
        let job = desk.job();
        let lease = desk.dispatcher.lease_of(job);
        desk.wait(secs(5));
        system.stages[0].lease = is.map(secs);
        desk.reload(&system).expect("the shape is the same");
        if let Some(ends_at) = ends_at {
            desk.wait(secs(ends_at - 6));
            assert_eq!(desk.dispatcher.lease_of(job), lease, "{was:?} -> {is:?}");
            desk.wait(secs(1));
            assert_ne!(desk.dispatcher.lease_of(job), lease, "{was:?} -> {is:?}");
        } else {
            desk.wait(secs(1000));
            assert_eq!(desk.dispatcher.lease_of(job), lease, "{was:?} -> {is:?}");
        }
    };
    check(Some(30), Some(60), Some(30));
    check(Some(30), Some(10), Some(30));
    check(Some(30), None, None);
    check(None, Some(20), Some(25));
    check(None, None, None);
}

#[test]
fn limits_act_at_once() {
    let mut system = plain(4);
    let mut desk = Desk::new(&system);
    let job = desk.job();
    system.pools[0].count_initial = 1;
    system.pools[0].count_max = 2;
    desk.reload(&system).expect("the shape is the same");
    assert_eq!((desk.count(is_launch), desk.count(is_termination)), (0, 2));
    assert!(desk.runs(job), "idle ones go first");
    system.pools[0].count_initial = 6;
    system.pools[0].count_max = 8;
    system.pools[0].count_min = 5;
    desk.reload(&system).expect("the shape is the same");
    assert_eq!(desk.count(is_launch), 3);
}

#[test]
fn jobs_begin_when_an_external_limit_rises() {
    let mut system = external_only();
    let mut desk = Desk::new(&system);
    let jobs: Vec<JobId> = (0..6).map(|_| desk.job()).collect();
    let running = |desk: &Desk| jobs.iter().filter(|job| desk.runs(**job)).count();
    assert_eq!(running(&desk), 2);
    system.pools[0].count_max = 5;
    desk.reload(&system).expect("the shape is the same");
    assert_eq!(running(&desk), 5);
    system.pools[0].count_max = 1;
    desk.reload(&system).expect("the shape is the same");
    assert_eq!(running(&desk), 5, "what runs goes on");
    desk.done(jobs[0]);
    assert_eq!(running(&desk), 4);
}

#[test]
fn waiting_jobs_are_lined_up_anew() {
    let check = |order: QueueOrder, next: usize| {
        let mut system = plain(1);
        system.classes = vec![class("default", 0, Some(secs(900)), false)];
        let mut desk = Desk::new(&system);
        let running = desk.job();
        let (class, region) = (ClassId(0), RegionId(0));
        let old = desk.job();
        let deadline = Some(secs(60));
        desk.give(Input::JobSubmitted { tag: 77, class, region, priority: None, deadline });
        let mut jobs = desk.dispatcher.live_jobs();
        jobs.retain(|job| *job != running);
        assert_eq!(jobs[0], old);
        system.queue_order = order;
        desk.reload(&system).expect("the shape is the same");
        desk.done(running);
        assert!(desk.runs(jobs[next]), "{order:?}");
    };
    check(QueueOrder::Fifo, 0);
    check(QueueOrder::Lifo, 0); // those inside stay in line; the next to arrive goes ahead
    check(QueueOrder::Deadline, 1);
}

/// Target tracking adds instances after three minutes above its target, reloaded or not.
#[test]
fn policy_of_the_same_kind_keeps_what_it_remembers() {
    let rule = TargetTracking { target: BacklogTarget::PerInstance(1.0), ..TargetTracking::default_params() };
    let check = |between: Scaling, launches: bool| {
        let mut system = plain(1);
        system.policies.scaling = Scaling::TargetTracking(rule);
        let mut desk = Desk::new(&system);
        desk.wait(secs(10));
        for _ in 0..5 {
            desk.job();
        }
        desk.wait(secs(115)); // two values above the target so far
        system.policies.scaling = between;
        desk.reload(&system).expect("the shape is the same");
        system.policies.scaling = Scaling::TargetTracking(TargetTracking { periods_in: 9, ..rule });
        desk.reload(&system).expect("the shape is the same");
        desk.wait(secs(60));
        assert_eq!(desk.count(is_launch) > 0, launches);
    };
    check(Scaling::TargetTracking(rule), true);
    check(Scaling::Schedule(Schedule::default_params()), false);
}

#[test]
fn market_price_stays_unless_the_system_names_another() {
    let mut system = plain(0);
    system.policies.purchase = Purchase::OnDemandOnly;
    system.pools.push(pool("other", policy::model::CapacityType::OnDemand, 0));
    let dollars = |dollars: i64| UsdPerHour::from_nanos(dollars * 1_000_000_000);
    let mut desk = Desk::new(&system); // both cost 3 dollars
    desk.give(Input::PriceChanged { pool: PoolId(1), price: dollars(2) });
    let launched_in = |desk: &Desk| {
        desk.outputs.iter().find_map(|output| match output {
            Output::Launch { pool, .. } => Some(*pool),
            _ => None,
        })
    };
    system.policies.scaling = systems::scaling(1); // at least one instance
    desk.reload(&system).expect("the shape is the same");
    desk.wait(secs(20));
    assert_eq!(launched_in(&desk), Some(PoolId(1)));
    system.pools[0].offering.price = dollars(1);
    desk.reload(&system).expect("the shape is the same");
    assert_eq!(launched_in(&desk), Some(PoolId(0)));
}

#[test]
fn other_shapes_are_refused_and_change_nothing() {
    let check = |edit: fn(&mut System), expected: &str| {
        let mut system = plain(1);
        let mut desk = Desk::new(&system);
        let (running, waiting) = (desk.job(), desk.job());
        let before = (desk.dispatcher.poll_timeout(), desk.dispatcher.totals());
        edit(&mut system);
        let error = desk.reload(&system).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(desk.outputs.is_empty());
        assert_eq!((desk.dispatcher.poll_timeout(), desk.dispatcher.totals()), before);
        assert_eq!(*desk.dispatcher.system(), plain(1));
        desk.done(running);
        assert!(desk.runs(waiting));
        assert_eq!(desk.dispatcher.instance_state(InstanceId(0)), InstanceState::Ready);
    };
    check(|system| system.pools[0].name = "renamed".to_owned(), "the system has pool `renamed`");
    check(|system| system.stages.push(stage("more", 0)), "the system has stage `more` on slot kind 0");
    check(|system| system.regions[0].name = "moon".to_owned(), "the system has region `moon`");
    check(|system| system.qualities[0].name = "worse".to_owned(), "quality level `worse`");
    check(|system| system.policies.routing = policy::policies::Routing::Nearest, "one queue per region");
    check(|system| system.pools[0].count_min = 2, "instance counts must satisfy");
}
