//! The dispatcher: the state machine that the simulator and the live control plane both drive.
//!
//! ```text
//! dispatcher.handle_input(now, input, &mut outputs);   // one change ...
//! for output in outputs.drain(..) { perform(output) }  // ... then everything that follows from it,
//! let wake_at = dispatcher.poll_timeout();             // then sleep, or jump the clock
//! ```
//!
//! It performs no input or output, reads no clock and draws no chance but from its own seeded stream. It is the only
//! place where a job changes its state. A report under an old lease changes nothing, so a worker that died, hung or
//! reappeared does no harm.

mod admit;
mod check;
mod fleet;
mod flow;
mod free;
mod group;
#[cfg(feature = "image")]
mod image;
mod input;
mod instance;
mod job;
mod queue;
mod reload;
#[cfg(feature = "image")]
mod restore;
mod shape;
mod timer;

pub use check::Violation;
#[cfg(feature = "image")]
pub use image::{Image, ImageRef};
pub use input::{CancelScope, Ended, Input, Output, Rejection, Sink, StageResult, Started};
pub use instance::InstanceState;
pub use reload::ReloadError;
#[cfg(feature = "image")]
pub use restore::RestoreError;
pub use shape::ShapeError;

use crate::model::{
    ClassId, GroupId, JobClass, JobId, KindId, Lease, Place, PoolId, RegionId, StageId, System, SystemError,
};
use crate::policies::scaling::GroupContext;
use crate::policies::{Packing, Retry, Routing, RoutingTable};
use crate::units::random::Stream;
use crate::units::{Duration, Instant};
use admit::Wish;
use group::{Group, MinuteCounts, TickCounts};
use instance::{Instances, PoolState};
use job::{JobState, Jobs};
use queue::Queue;
use timer::{Heap, Ring};

const MINUTE: Duration = Duration::from_secs(60);

/// Shortest time between two scaling ticks, or two rebuilds of the routing table.
const PERIOD_MIN: Duration = Duration::from_millis(100);

/// How fast the measured demand of a region follows its last interval (weight of the newest).
const DEMAND_WEIGHT: f64 = 0.3;

/// What the dispatcher counted; every job is in exactly one of the ended ones or still in the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct Totals {
    /// Jobs submitted.
    pub arrived: u64,
    /// Jobs done.
    pub done: u64,
    /// Jobs failed.
    pub failed: u64,
    /// Jobs expired.
    pub expired: u64,
    /// Jobs cancelled.
    pub cancelled: u64,
    /// Jobs turned away.
    pub rejected: u64,
    /// Reports under an old lease, for a job or instance that is no more, or out of order.
    pub stale: u64,
    /// Attempts that found no slot.
    pub probes_refused: u64,
    /// Attempts after the first.
    pub retries: u64,
}

/// A stage as the hot path needs it.
#[derive(Clone, Copy, Debug)]
struct StageRow {
    place: Place,
    lease: Option<Duration>,
    deliveries_max: u16,
    has_quality: bool,
    /// Expected slot time of this stage and all later ones.
    remaining: Duration,
}

/// A class as the hot path needs it.
#[derive(Clone, Copy, Debug)]
struct ClassRow {
    /// 0..=7, 0 first.
    priority: u8,
    /// [`Duration::MAX`] for none.
    deadline: Duration,
    expires: bool,
    /// Whether a job with a deadline of its own expires.
    expires_own: bool,
}

/// The state machine that the simulator and the live control plane both drive.
pub struct Dispatcher {
    system: System,
    stages: Vec<StageRow>,
    classes: Vec<ClassRow>,
    jobs: Jobs,
    instances: Instances,
    pools: Vec<PoolState>,
    groups: Vec<Group>,
    /// Group by `pool_class * cells + cell`.
    group_at: Vec<Option<GroupId>>,
    cells: usize,
    /// Regions that can serve every pool class.
    serving: Vec<RegionId>,
    /// Nearest serving region, by client region.
    nearest: Vec<RegionId>,
    table: RoutingTable,
    demand: Vec<RegionDemand>,
    next_refresh: Instant,
    last_refresh: Instant,
    leases: Vec<Ring>,
    deadlines: Vec<Ring>,
    /// Deadlines that are not their class's.
    own_deadlines: Heap,
    backoffs: Heap,
    next_minute: Instant,
    wake: Instant,
    chance: Stream,
    totals: Totals,
    /// Whether admission must look at deadlines at all.
    sheds: bool,
    /// Whether any new job can be turned away.
    may_refuse: bool,
    /// Whether new jobs may be held back before their first attempt.
    delays_execution: bool,
    packing: Packing,
    /// The first stage that needs a slot; admission is decided there.
    first_slot_stage: Option<StageId>,
    /// Whether it is not the very first stage.
    starts_outside: bool,
}

#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
struct RegionDemand {
    arrived: u64,
    rate: f64,
}

impl Dispatcher {
    /// A dispatcher at time zero, and the launches of the initial instances in `out`.
    ///
    /// `chance` decides jitter and routing shares and nothing else.
    ///
    /// # Errors
    /// [`SystemError`] when the system cannot run.
    pub fn new(system: System, chance: Stream, out: &mut impl Sink) -> Result<Self, SystemError> {
        let mut dispatcher = Self::empty(system, chance)?;
        dispatcher.launch_initial(out);
        dispatcher.refresh_routing(Instant::START);
        dispatcher.reschedule();
        Ok(dispatcher)
    }

    /// A dispatcher without jobs and instances, before its first timer is set.
    fn empty(system: System, chance: Stream) -> Result<Self, SystemError> {
        system.check()?;
        let regional = system.policies.routing.is_regional();
        let cells = if regional { system.regions.len() } else { 1 };
        let mut remaining = Duration::ZERO;
        let mut stages: Vec<StageRow> = Vec::with_capacity(system.stages.len());
        for stage in system.stages.iter().rev() {
            remaining += stage.service_expected;
            stages.push(StageRow {
                place: stage.place,
                lease: stage.lease,
                deliveries_max: stage.deliveries_max.clamp(1, u32::from(u16::MAX)) as u16,
                has_quality: stage.has_quality,
                remaining,
            });
        }
        stages.reverse();
        let class_row = |class: &JobClass| ClassRow {
            priority: class.priority.min(7),
            deadline: class.deadline.unwrap_or(Duration::MAX),
            expires: class.expires && class.deadline.is_some(),
            expires_own: class.expires,
        };
        let mut dispatcher = Self {
            stages,
            classes: system.classes.iter().map(class_row).collect(),
            jobs: Jobs::default(),
            instances: Instances::default(),
            pools: Vec::new(),
            groups: Vec::new(),
            group_at: vec![None; system.pool_classes.len() * cells],
            cells,
            serving: Vec::new(),
            nearest: Vec::new(),
            table: RoutingTable::identity(system.regions.len()),
            demand: vec![RegionDemand::default(); system.regions.len()],
            next_refresh: Instant::NEVER,
            last_refresh: Instant::START,
            leases: system.stages.iter().map(|_| Ring::default()).collect(),
            deadlines: system.classes.iter().map(|_| Ring::default()).collect(),
            own_deadlines: Heap::default(),
            backoffs: Heap::default(),
            next_minute: Instant::START + MINUTE,
            wake: Instant::NEVER,
            chance,
            totals: Totals::default(),
            sheds: system.policies.admission.shedding.is_some(),
            may_refuse: system.policies.admission.shedding.is_some() || system.queue_per_slot_max.is_some(),
            delays_execution: matches!(
                system.policies.retry,
                Retry::Backoff { execution_delay: Some(_), .. }
            ),
            packing: system.policies.packing,
            starts_outside: system.stages.first().is_none_or(|stage| stage.place == Place::Outside),
            first_slot_stage: system
                .stages
                .iter()
                .position(|stage| stage.place != Place::Outside)
                .map(|index| StageId(index as u16)),
            system,
        };
        dispatcher.form_groups(regional);
        dispatcher.find_serving_regions();
        if dispatcher.serving.is_empty() {
            return Err(SystemError::NoServingRegion);
        }
        Ok(dispatcher)
    }

    /// Changes the state by one input at `now`, appending what follows from it to `out`.
    ///
    /// `now` must never fall from call to call.
    #[inline(always)]
    pub fn handle_input(&mut self, now: Instant, input: Input, out: &mut impl Sink) {
        match input {
            Input::JobArrived { tag, class, region } => self.arrive(now, tag, class, region, out),
            Input::JobSubmitted { tag, class, region, priority, deadline } => {
                self.submit(now, tag, class, region, Wish { priority, deadline }, out)
            }
            Input::StageFinished { lease, result } => self.finish(now, lease, result, out),
            Input::JobCancelled { job, scope } => self.cancel(now, job, scope, out),
            Input::LeaseRenewed { lease } => self.renew(now, lease),
            Input::InstanceBooted { instance } => self.booted(now, instance),
            Input::InstanceReady { instance } => self.instance_ready(now, instance, out),
            Input::LaunchFailed { instance } => self.launch_failed(now, instance, out),
            Input::InterruptionNotice { instance, gone_at } => {
                self.interruption_notice(now, instance, gone_at, out)
            }
            Input::InstanceLost { instance } => self.instance_lost(now, instance, out),
            Input::InstanceGone { instance } => self.instance_gone(now, instance, out),
            Input::InstanceSilent { instance } => self.instance_silent(now, instance, out),
            Input::InstanceHeard { instance } => self.instance_heard(now, instance, out),
            Input::PriceChanged { pool, price } => self.pools[pool.index()].price = price,
            Input::TimeReached => self.time_reached(now, out),
        }
    }

    /// When [`Input::TimeReached`] is next wanted.
    #[inline(always)]
    pub fn poll_timeout(&self) -> Instant {
        self.wake
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Jobs in the system now.
    pub fn jobs_in_system(&self) -> usize {
        self.jobs.len()
    }

    /// Most jobs in the system at once so far; one that is turned away counts while it is judged.
    pub fn jobs_in_system_max(&self) -> usize {
        self.jobs.len_max()
    }

    /// The system it was made for.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// State of an instance.
    pub fn instance_state(&self, instance: crate::model::InstanceId) -> InstanceState {
        self.instances.state(instance)
    }

    /// Pool of an instance that is held; `None` once its id is free or its termination was asked for.
    pub fn pool_of(&self, instance: crate::model::InstanceId) -> Option<PoolId> {
        match self.instances.state(instance) {
            InstanceState::Free | InstanceState::Terminating => None,
            _ => Some(self.instances[instance].pool),
        }
    }

    /// Whether a job is in the system.
    pub fn holds(&self, job: JobId) -> bool {
        self.jobs.live(job).is_some()
    }

    /// Every job in the system.
    pub fn live_jobs(&self) -> Vec<JobId> {
        self.jobs.iter().map(|(slot, _)| self.jobs.id(slot)).collect()
    }

    /// Slots of ready instances in a region's groups, of the kind that runs out first.
    pub fn ready_slots(&self, cell: RegionId) -> u32 {
        let groups = self.groups.iter().filter(|group| group.cell == cell);
        groups.map(|group| group.slots[group.scarce_kind]).sum()
    }

    /// Whether each region has queues of its own.
    #[inline]
    pub fn is_regional(&self) -> bool {
        self.cells > 1
    }

    /// Instances of a pool: (ready, starting or silent, draining).
    pub fn pool_counts(&self, pool: PoolId) -> (u32, u32, u32) {
        let state = &self.pools[pool.index()];
        (state.ready, state.starting, state.draining)
    }

    /// Ends the run at `now`: every instance that is still held is billed as far as this. Call it once, last.
    pub fn close(&mut self, now: Instant, out: &mut impl Sink) {
        let held: Vec<_> = self.instances.iter().map(|(id, _)| id).collect();
        for id in held {
            if self.instances.state(id) != InstanceState::Terminating {
                out.emit(Output::InstanceEnded(Box::new(self.life(
                    id,
                    now,
                    crate::records::InstanceEnd::RunEnded,
                ))));
            }
        }
    }

    fn form_groups(&mut self, regional: bool) {
        let system = &self.system;
        let order = system.queue_order;
        for pool in &system.pools {
            self.pools.push(PoolState::new(GroupId(u16::MAX), pool.slots, pool.offering.price));
        }
        for pool_class in 0..system.pool_classes.len() as u16 {
            for cell in 0..self.cells as u16 {
                let place = regional.then_some(RegionId(cell));
                let (pools, external) = group::member_pools(system, pool_class, place);
                if pools.is_empty() && external.is_none() {
                    continue;
                }
                let id = GroupId(self.groups.len() as u16);
                let members = || pools.iter().map(|pool| &system.pools[pool.index()]);
                let (scarce_kind, slots_per_instance, service_ns) =
                    group::scarce_kind(system, pool_class, &pools);
                let startup_expected = members().map(|pool| pool.startup_expected).max().unwrap_or_default();
                let count_initial = members().map(|pool| pool.count_initial).sum();
                let scaling = system.policies.scaling.build(&GroupContext {
                    count_initial,
                    count_min: members().map(|pool| pool.count_min).sum(),
                    count_max: members().map(|pool| pool.count_max).sum(),
                    service_expected: Duration::from_nanos(service_ns[scarce_kind] as u64),
                    slots_per_instance,
                    startup_expected,
                });
                let class_name = &system.pool_classes[pool_class as usize];
                let name = match place {
                    Some(region) => format!("{class_name}@{}", system.regions[region.index()].name),
                    None => class_name.clone(),
                };
                for pool in pools.iter().chain(&external) {
                    self.pools[pool.index()].group = id;
                }
                self.group_at[pool_class as usize * self.cells + cell as usize] = Some(id);
                let first_tick = if pools.is_empty() { Instant::NEVER } else { Instant::START };
                self.groups.push(Group {
                    name,
                    cell: RegionId(cell),
                    pools,
                    external,
                    queues: std::array::from_fn(|_| Queue::new(order)),
                    running: Default::default(),
                    slots: Default::default(),
                    service_ns,
                    scarce_kind,
                    slots_per_instance,
                    startup_expected,
                    quality: Default::default(),
                    scaling,
                    purchase: system.policies.purchase.build(),
                    target: count_initial,
                    next_tick: first_tick,
                    last_tick: Instant::START,
                    tick: TickCounts::default(),
                    minute: MinuteCounts::default(),
                });
            }
        }
    }

    /// A region serves when it has a group for every pool class that stages use.
    fn find_serving_regions(&mut self) {
        let used = |class: usize| {
            let uses = |stage: &StageRow| matches!(stage.place, Place::Slot { pool_class, .. } if pool_class as usize == class);
            self.stages.iter().any(uses)
        };
        let serves = |cell: &RegionId| {
            (0..self.system.pool_classes.len())
                .all(|class| !used(class) || self.group_at[class * self.cells + cell.index()].is_some())
        };
        self.serving = (0..self.cells as u16).map(RegionId).filter(serves).collect();
        let home = |region| {
            let candidates = self.serving.iter().copied();
            crate::policies::routing::nearest(region, candidates, |a, b| self.system.round_trip(a, b))
        };
        let regions = (0..self.system.regions.len() as u16).map(RegionId);
        self.nearest = if self.cells == 1 {
            regions.map(|_| RegionId(0)).collect()
        } else {
            regions.map(|region| home(region).unwrap_or(region)).collect()
        };
        if let Some(period) = self.system.policies.routing.refresh() {
            self.next_refresh = Instant::START + period;
        }
    }

    #[inline]
    fn group_of(&self, pool_class: u16, cell: RegionId) -> Option<GroupId> {
        self.group_at[pool_class as usize * self.cells + cell.index()]
    }

    fn stage_group(&self, stage: StageId, cell: RegionId) -> Option<(GroupId, KindId)> {
        match self.stages[stage.index()].place {
            Place::Outside => None,
            Place::Slot { pool_class, kind } => Some((self.group_of(pool_class, cell)?, kind)),
        }
    }

    /// The region that serves the next attempt of a job.
    fn route(&self, tag: u64, attempt: u16, region: RegionId) -> RegionId {
        match &self.system.policies.routing {
            Routing::Global => RegionId(0),
            Routing::Nearest => self.nearest[region.index()],
            Routing::Anywhere => self.anywhere(self.chance.child(tag).unit(u64::from(attempt) << 3)),
            Routing::Rings(_) => {
                let chance = self.chance.child(tag).unit(u64::from(attempt) << 3);
                self.table.route(self.nearest[region.index()], chance)
            }
        }
    }

    /// A serving region drawn by its share of ready slots; evenly while none has any.
    fn anywhere(&self, chance: f64) -> RegionId {
        let slots = |cell: RegionId| {
            let groups = self.groups.iter().filter(|group| group.cell == cell);
            groups.map(|group| f64::from(group.slots[group.scarce_kind])).sum::<f64>()
        };
        let total: f64 = self.serving.iter().map(|cell| slots(*cell)).sum();
        let last = *self.serving.last().expect("a checked system has a serving region");
        if total == 0.0 {
            return self.serving[((chance * self.serving.len() as f64) as usize).min(self.serving.len() - 1)];
        }
        let mut left = chance * total;
        for cell in &self.serving {
            left -= slots(*cell);
            if left < 0.0 {
                return *cell;
            }
        }
        last
    }

    fn note_wake(&mut self, at: Instant) {
        self.wake = self.wake.min(at);
    }

    /// Finds the time of the next timer anew.
    fn reschedule(&mut self) {
        let mut wake = self.next_minute.min(self.next_refresh);
        for group in &self.groups {
            wake = wake.min(group.next_tick);
        }
        wake = wake.min(self.backoffs.next().unwrap_or(Instant::NEVER));
        let jobs = &self.jobs;
        for ring in &mut self.leases {
            let live = |&(_, slot, token): &timer::Entry| {
                jobs.get(slot).is_some_and(|job| job.token == token && job.state == JobState::Running)
            };
            wake = wake.min(ring.next(live).unwrap_or(Instant::NEVER));
        }
        let live = |&(_, slot, generation): &timer::Entry| jobs.live(JobId { slot, generation }).is_some();
        for ring in &mut self.deadlines {
            wake = wake.min(ring.next(live).unwrap_or(Instant::NEVER));
        }
        wake = wake.min(self.own_deadlines.next_live(live).unwrap_or(Instant::NEVER));
        self.wake = wake;
    }

    fn time_reached(&mut self, now: Instant, out: &mut impl Sink) {
        self.expire_leases(now, out);
        self.expire_deadlines(now, out);
        while let Some((_, slot, token)) = self.backoffs.pop_due(now) {
            if self.jobs.get(slot).is_some_and(|job| job.token == token && job.state == JobState::Held) {
                self.resume(now, slot, out);
            } else if self
                .jobs
                .get(slot)
                .is_some_and(|job| job.token == token && job.state == JobState::Running)
            {
                self.lease_over(now, slot, out);
            }
        }
        if self.next_refresh <= now {
            self.refresh_routing(now);
        }
        for index in 0..self.groups.len() {
            if self.groups[index].next_tick <= now {
                self.scaling_tick(now, GroupId(index as u16), out);
            }
        }
        if self.next_minute <= now {
            self.close_minute(now, out);
        }
        self.reschedule();
    }

    /// The lease that job `job` now holds, for tests and tools.
    pub fn lease_of(&self, job: JobId) -> Option<Lease> {
        let slot = self.jobs.live(job)?;
        let held = &self.jobs[slot];
        (held.state == JobState::Running).then_some(Lease { slot, token: held.token })
    }

    /// The class names of the system, for records.
    pub fn class_name(&self, class: ClassId) -> &str {
        &self.system.classes[class.index()].name
    }
}
