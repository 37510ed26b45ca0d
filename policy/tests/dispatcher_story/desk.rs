//! A dispatcher at work, with the questions that a story asks of it.

use policy::dispatch::{Dispatcher, Ended, Input, Output, Rejection, StageResult, Started};
use policy::model::{ClassId, InstanceId, JobId, Lease, PoolId, RegionId, System};
use policy::records::{InstanceEnd, JobOutcome};
use policy::units::random::Stream;
use policy::units::{Duration, Instant};

/// A dispatcher with a clock and the outputs of its last input.
pub(crate) struct Desk {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) now: Instant,
    pub(crate) outputs: Vec<Output>,
    pub(crate) tag: u64,
}

impl Desk {
    /// A desk whose initial instances are still starting.
    pub(crate) fn starting(system: System) -> Self {
        let mut outputs = Vec::new();
        let dispatcher = Dispatcher::new(system, Stream::new(1, 0, "dispatcher"), &mut outputs)
            .expect("test systems can run");
        Self { dispatcher, now: Instant::START, outputs, tag: 0 }
    }

    /// A desk whose initial instances are ready.
    pub(crate) fn ready(system: System) -> Self {
        let mut desk = Self::starting(system);
        for instance in desk.launched() {
            desk.give(Input::InstanceReady { instance });
        }
        desk
    }

    pub(crate) fn give(&mut self, input: Input) -> &[Output] {
        self.outputs.clear();
        self.dispatcher.handle_input(self.now, input, &mut self.outputs);
        self.dispatcher.check().expect("every invariant holds");
        &self.outputs
    }

    /// Lets `time` pass; the outputs of all timers on the way stay.
    pub(crate) fn wait(&mut self, time: Duration) -> &[Output] {
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
    pub(crate) fn arrive(&mut self, class: u16, region: u16) -> &[Output] {
        self.tag += 1;
        self.give(Input::JobArrived { tag: self.tag, class: ClassId(class), region: RegionId(region) })
    }

    /// A job of class 0 is submitted with wishes of its own, and accepted.
    pub(crate) fn submit(&mut self, priority: Option<u8>, deadline: Option<Duration>) -> JobId {
        self.tag += 1;
        let (class, region) = (ClassId(0), RegionId(0));
        self.give(Input::JobSubmitted { tag: self.tag, class, region, priority, deadline });
        self.accepted().expect("the job is accepted")
    }

    /// A job of class 0 arrives in region 0 and is accepted.
    pub(crate) fn job(&mut self) -> JobId {
        self.arrive(0, 0);
        self.accepted().expect("the job is accepted")
    }

    pub(crate) fn accepted(&self) -> Option<JobId> {
        self.outputs.iter().find_map(|output| match output {
            Output::Accepted { job, .. } => Some(*job),
            _ => None,
        })
    }

    pub(crate) fn done(&mut self, lease: Lease) -> &[Output] {
        self.give(Input::StageFinished { lease, result: StageResult::Done })
    }

    pub(crate) fn lost(&mut self, instance: InstanceId) -> &[Output] {
        self.give(Input::InstanceLost { instance })
    }

    pub(crate) fn lease(&self, job: JobId) -> Lease {
        self.dispatcher.lease_of(job).expect("the job runs")
    }

    pub(crate) fn runs(&self, job: JobId) -> bool {
        self.dispatcher.lease_of(job).is_some()
    }

    pub(crate) fn started(&self) -> Vec<Started> {
        let started = |output: &Output| if let Output::Started(s) = output { Some(*s) } else { None };
        self.outputs.iter().filter_map(started).collect()
    }

    /// The one stage that the last input started.
    pub(crate) fn the_start(&self) -> Started {
        let started = self.started();
        assert_eq!(started.len(), 1, "{:?}", self.outputs);
        started[0]
    }

    pub(crate) fn ended(&self) -> Vec<Ended> {
        let ended = |output: &Output| if let Output::Ended(e) = output { Some(*e) } else { None };
        self.outputs.iter().filter_map(ended).collect()
    }

    pub(crate) fn outcomes(&self) -> Vec<JobOutcome> {
        self.ended().iter().map(|ended| ended.outcome).collect()
    }

    pub(crate) fn rejections(&self) -> Vec<Rejection> {
        let why = |output: &Output| if let Output::Rejected { why, .. } = output { Some(*why) } else { None };
        self.outputs.iter().filter_map(why).collect()
    }

    pub(crate) fn launched(&self) -> Vec<InstanceId> {
        let launch = |output: &Output| {
            if let Output::Launch { instance, .. } = output { Some(*instance) } else { None }
        };
        self.outputs.iter().filter_map(launch).collect()
    }

    pub(crate) fn launched_in(&self, pool: u16) -> usize {
        let there = |output: &&Output| matches!(output, Output::Launch { pool: p, .. } if *p == PoolId(pool));
        self.outputs.iter().filter(there).count()
    }

    pub(crate) fn terminated(&self) -> Vec<InstanceId> {
        let terminate = |output: &Output| {
            if let Output::Terminate { instance, .. } = output { Some(*instance) } else { None }
        };
        self.outputs.iter().filter_map(terminate).collect()
    }

    pub(crate) fn lives(&self) -> Vec<InstanceEnd> {
        let life =
            |output: &Output| if let Output::InstanceEnded(life) = output { Some(life.end) } else { None };
        self.outputs.iter().filter_map(life).collect()
    }

    pub(crate) fn the_start_instance(&self) -> InstanceId {
        self.the_start().instance.expect("it started on an instance")
    }
}
