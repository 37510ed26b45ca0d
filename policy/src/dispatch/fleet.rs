//! How the fleet changes: ticks, launches, readiness, notices, losses, drains.

use super::group::TickCounts;
use super::instance::InstanceState;
use super::job::NONE;
use super::{Dispatcher, MINUTE, Output, Sink};
use crate::model::{CapacityType, GroupId, InstanceId, PoolId, RegionId};
use crate::policies::routing::RingLoad;
use crate::policies::{Observation, PoolEvent, PoolView, Routing, RoutingTable};
use crate::records::{DecisionRow, InstanceEnd, InstanceLife, MinuteRow};
use crate::units::{Duration, Instant};

/// Part of the notice kept for handing a job back (policies.md B5: finish only if it ends 5 s before).
const NOTICE_RESERVE: Duration = Duration::from_secs(5);

impl Dispatcher {
    /// Asks for the initial instances; a driver makes them ready at time zero.
    pub(super) fn launch_initial(&mut self, out: &mut impl Sink) {
        for index in 0..self.pools.len() {
            if self.system.pools[index].offering.capacity_type != CapacityType::External {
                for _ in 0..self.system.pools[index].count_initial {
                    self.launch(Instant::START, PoolId(index as u16), out);
                }
            }
        }
    }

    fn launch(&mut self, now: Instant, pool: PoolId, out: &mut impl Sink) {
        let state = &mut self.pools[pool.index()];
        let seat = state.take_seat();
        state.starting += 1;
        let instance = self.instances.insert(pool, seat, now);
        self.pools[pool.index()].seated[seat as usize] = instance;
        out.emit(Output::Launch { instance, pool });
    }

    pub(super) fn booted(&mut self, now: Instant, id: InstanceId) {
        if self.instances.state(id) == InstanceState::Requested {
            let instance = &mut self.instances[id];
            instance.state = InstanceState::Loading;
            instance.booted = Some(now);
        } else {
            self.totals.stale += 1;
        }
    }

    pub(super) fn instance_ready(&mut self, now: Instant, id: InstanceId, out: &mut impl Sink) {
        if !matches!(self.instances.state(id), InstanceState::Requested | InstanceState::Loading) {
            self.totals.stale += 1;
            return;
        }
        let instance = &mut self.instances[id];
        instance.booted = instance.booted.or(Some(now));
        instance.ready = Some(now);
        let pool = instance.pool;
        let group_id = self.join_ready(id);
        self.fill(now, group_id, out);
        if now > Instant::START {
            self.groups[group_id.index()].purchase.on_event(now, PoolEvent::Launched(pool));
            self.purchase(now, group_id, out);
        }
    }

    pub(super) fn launch_failed(&mut self, now: Instant, id: InstanceId, out: &mut impl Sink) {
        match self.instances.state(id) {
            InstanceState::Silent if self.instances[id].ready.is_some() => self.totals.stale += 1,
            InstanceState::Requested | InstanceState::Loading | InstanceState::Silent => {
                out.emit(Output::InstanceEnded(Box::new(self.life(id, now, InstanceEnd::Refused))));
                let (pool, seat) = (self.instances[id].pool, self.instances[id].seat);
                self.pools[pool.index()].starting -= 1;
                self.pools[pool.index()].leave_seat(seat);
                self.instances.remove(id);
                let group = self.pools[pool.index()].group;
                self.groups[group.index()].purchase.on_event(now, PoolEvent::LaunchFailed(pool));
                self.pools[pool.index()].refused_until = self.groups[group.index()].next_tick;
                self.purchase(now, group, out);
            }
            InstanceState::Terminating => self.instances.remove(id),
            _ => self.totals.stale += 1,
        }
    }

    pub(super) fn interruption_notice(
        &mut self,
        now: Instant,
        id: InstanceId,
        gone_at: Instant,
        out: &mut impl Sink,
    ) {
        let pool = match self.instances.state(id) {
            InstanceState::Ready => self.instances[id].pool,
            InstanceState::Requested | InstanceState::Loading | InstanceState::Silent => {
                let pool = self.instances[id].pool;
                self.give_up_start(now, id, InstanceEnd::Interrupted, out);
                return self.interrupted(now, pool, out);
            }
            InstanceState::Draining => {
                self.instances[id].end = InstanceEnd::Interrupted;
                return self.release_late_jobs(now, id, gone_at, out);
            }
            InstanceState::Free | InstanceState::Terminating => {
                self.totals.stale += 1;
                return;
            }
        };
        self.drain(now, id, InstanceEnd::Interrupted, out);
        self.release_late_jobs(now, id, gone_at, out);
        self.interrupted(now, pool, out);
    }

    fn interrupted(&mut self, now: Instant, pool: PoolId, out: &mut impl Sink) {
        let group = self.pools[pool.index()].group;
        self.groups[group.index()].purchase.on_event(now, PoolEvent::Interrupted(pool));
        self.purchase(now, group, out);
    }

    /// Hands back at once the jobs that the notice leaves no time to finish.
    fn release_late_jobs(&mut self, now: Instant, id: InstanceId, gone_at: Instant, out: &mut impl Sink) {
        let grace = gone_at.since(now) - NOTICE_RESERVE;
        let mut late = Vec::new();
        if self.instances.state(id) != InstanceState::Draining {
            return;
        }
        let mut slot = self.instances[id].first_job;
        while slot != NONE {
            let job = &self.jobs[slot];
            let group = &self.groups[job.group.index()];
            let expected = Duration::from_nanos(group.service_ns[job.kind.index()] as u64);
            if expected - now.since(job.since) > grace {
                late.push(slot);
            }
            slot = job.next;
        }
        for slot in late {
            self.requeue(now, slot, out);
        }
    }

    pub(super) fn instance_lost(&mut self, now: Instant, id: InstanceId, out: &mut impl Sink) {
        let before = self.instances.state(id);
        match before {
            InstanceState::Free => {
                self.totals.stale += 1;
                return;
            }
            InstanceState::Terminating => return self.instances.remove(id),
            InstanceState::Requested | InstanceState::Loading | InstanceState::Silent => {
                let pool = self.instances[id].pool;
                self.instances[id].is_gone = true;
                self.give_up_start(now, id, InstanceEnd::Interrupted, out);
                self.instances.remove(id);
                return self.interrupted(now, pool, out);
            }
            InstanceState::Ready | InstanceState::Draining => {}
        }
        let pool = self.instances[id].pool;
        self.instances[id].end = InstanceEnd::Interrupted;
        self.instances[id].is_gone = true;
        if before == InstanceState::Ready {
            self.leave_ready(id);
            self.instances[id].state = InstanceState::Draining;
            self.pools[pool.index()].draining += 1;
        }
        // The last job to leave a draining instance terminates it; nobody has to be asked for a machine that is gone.
        if self.instances[id].busy_total() == 0 {
            self.terminate(now, id, out);
        }
        while self.instances[id].state == InstanceState::Draining {
            self.requeue(now, self.instances[id].first_job, out);
        }
        self.instances.remove(id);
        if before == InstanceState::Ready {
            self.interrupted(now, pool, out);
        }
    }

    pub(super) fn instance_gone(&mut self, now: Instant, id: InstanceId, out: &mut impl Sink) {
        match self.instances.state(id) {
            InstanceState::Terminating => self.instances.remove(id),
            InstanceState::Silent => self.instance_lost(now, id, out),
            _ => self.totals.stale += 1,
        }
    }

    /// Takes an instance's work away, since its worker does not answer. Nothing is bought in its place: it may come back.
    #[inline(never)]
    pub(super) fn instance_silent(&mut self, now: Instant, id: InstanceId, out: &mut impl Sink) {
        match self.instances.state(id) {
            InstanceState::Ready => {
                self.leave_ready(id);
                self.pools[self.instances[id].pool.index()].starting += 1;
                self.instances[id].state = InstanceState::Silent;
                while self.instances[id].first_job != NONE {
                    self.requeue(now, self.instances[id].first_job, out);
                }
            }
            InstanceState::Loading => self.instances[id].state = InstanceState::Silent,
            // The last job to leave it terminates it.
            InstanceState::Draining => {
                while self.instances[id].state == InstanceState::Draining {
                    self.requeue(now, self.instances[id].first_job, out);
                }
            }
            _ => self.totals.stale += 1,
        }
    }

    /// A silent instance goes on where it was: it loads, or takes jobs.
    #[inline(never)]
    pub(super) fn instance_heard(&mut self, now: Instant, id: InstanceId, out: &mut impl Sink) {
        if self.instances.state(id) != InstanceState::Silent {
            self.totals.stale += 1;
        } else if self.instances[id].ready.is_none() {
            self.instances[id].state = InstanceState::Loading;
        } else {
            let group = self.join_ready(id);
            self.fill(now, group, out);
        }
    }

    /// Takes work away from a job whose worker let the lease run out, and gives it to another instance where one has a free
    /// slot: this one may hang. Where none has, its slot is as good as any.
    #[inline(never)]
    pub(super) fn requeue_elsewhere(&mut self, now: Instant, slot: u32, out: &mut impl Sink) {
        let job = &self.jobs[slot];
        let (id, group, kind) = (InstanceId(job.instance), job.group, job.kind.index());
        if self.instances.state(id) != InstanceState::Ready || !self.has_free_slot_beside(id, group, kind) {
            return self.requeue(now, slot, out);
        }
        // For as long as the job looks for a slot this instance has none.
        self.leave_ready(id);
        self.pools[self.instances[id].pool.index()].starting += 1;
        self.instances[id].state = InstanceState::Silent;
        self.requeue(now, slot, out);
        let group = self.join_ready(id);
        self.fill(now, group, out);
    }

    /// Whether an instance other than `id` has a free slot.
    fn has_free_slot_beside(&self, id: InstanceId, group: GroupId, kind: usize) -> bool {
        let instance = &self.instances[id];
        let own = self.pools[instance.pool.index()].slots[kind] - instance.busy[kind];
        let pools = self.groups[group.index()].pools.iter();
        pools.map(|pool| self.pools[pool.index()].free_slots[kind]).sum::<u32>() > u32::from(own)
    }

    /// Puts a starting or silent instance on the free lists and into the counts of ready ones; returns its group.
    fn join_ready(&mut self, id: InstanceId) -> GroupId {
        let instance = &mut self.instances[id];
        instance.state = InstanceState::Ready;
        let state = &mut self.pools[instance.pool.index()];
        state.starting -= 1;
        state.ready += 1;
        state.open(instance);
        let (group_id, slots) = (state.group, state.slots);
        let group = &mut self.groups[group_id.index()];
        for (total, slots) in group.slots.iter_mut().zip(slots) {
            *total += u32::from(slots);
        }
        group_id
    }

    /// Takes a ready instance off the free lists and out of the counts.
    fn leave_ready(&mut self, id: InstanceId) {
        let pool = self.instances[id].pool;
        let state = &mut self.pools[pool.index()];
        state.close(&self.instances[id]);
        state.ready -= 1;
        let slots = state.slots;
        let group = &mut self.groups[state.group.index()];
        for (total, slots) in group.slots.iter_mut().zip(slots) {
            *total -= u32::from(slots);
        }
    }

    /// A ready instance takes no further job and ends when its last one leaves.
    fn drain(&mut self, now: Instant, id: InstanceId, end: InstanceEnd, out: &mut impl Sink) {
        self.leave_ready(id);
        let instance = &mut self.instances[id];
        instance.state = InstanceState::Draining;
        instance.end = end;
        let (pool, idle) = (instance.pool, instance.busy_total() == 0);
        self.pools[pool.index()].draining += 1;
        if idle {
            self.terminate(now, id, out);
        }
    }

    /// Ends a draining instance.
    pub(super) fn terminate(&mut self, now: Instant, id: InstanceId, out: &mut impl Sink) {
        let (pool, end) = (self.instances[id].pool, self.instances[id].end);
        out.emit(Output::InstanceEnded(Box::new(self.life(id, now, end))));
        if !self.instances[id].is_gone {
            out.emit(Output::Terminate { instance: id, pool });
        }
        let seat = self.instances[id].seat;
        self.instances[id].state = InstanceState::Terminating;
        self.pools[pool.index()].draining -= 1;
        self.pools[pool.index()].leave_seat(seat);
    }

    /// Gives up an instance that is not ready: it starts, or it is silent.
    fn give_up_start(&mut self, now: Instant, id: InstanceId, end: InstanceEnd, out: &mut impl Sink) {
        let pool = self.instances[id].pool;
        out.emit(Output::InstanceEnded(Box::new(self.life(id, now, end))));
        if !self.instances[id].is_gone {
            out.emit(Output::Terminate { instance: id, pool });
        }
        let seat = self.instances[id].seat;
        self.instances[id].state = InstanceState::Terminating;
        self.pools[pool.index()].starting -= 1;
        self.pools[pool.index()].leave_seat(seat);
    }

    pub(super) fn life(&self, id: InstanceId, ended: Instant, end: InstanceEnd) -> InstanceLife {
        let instance = &self.instances[id];
        let mut busy = instance.busy_ns;
        let mut slot = instance.first_job;
        while slot != NONE {
            busy += ended.since(self.jobs[slot].since).as_nanos();
            slot = self.jobs[slot].next;
        }
        InstanceLife {
            instance: id,
            pool: instance.pool,
            requested: instance.requested,
            booted: instance.booted,
            ready: instance.ready,
            ended,
            busy: Duration::from_nanos(busy),
            slots: self.pools[instance.pool.index()].slots.iter().sum(),
            end,
        }
    }

    pub(super) fn scaling_tick(&mut self, now: Instant, group_id: GroupId, out: &mut impl Sink) {
        let seen = self.observe(now, group_id);
        let group = &mut self.groups[group_id.index()];
        let before = group.target;
        let decided = group.scaling.decide(now, &seen);
        group.target = decided.instances.clamp(seen.count_min, seen.count_max);
        group.tick = TickCounts::default();
        group.last_tick = now;
        let period = group.scaling.period().max(super::PERIOD_MIN);
        group.next_tick = now + period;
        if group.target != before {
            out.emit(Output::Decided(Box::new(DecisionRow {
                at_s: now.as_secs_f64(),
                policy: "scaling",
                subject: group.name.clone(),
                from: before,
                to: group.target,
                code: decided.reason.code,
                reason: decided.reason.text,
            })));
        }
        self.purchase(now, group_id, out);
    }

    fn observe(&self, now: Instant, group_id: GroupId) -> Observation {
        let group = &self.groups[group_id.index()];
        let mut seen = Observation {
            arrived: group.tick.arrived,
            elapsed: now.since(group.last_tick),
            waiting: group.waiting(),
            waiting_age: Duration::ZERO,
            running: group.running[group.scarce_kind],
            service_mean: Duration::from_nanos(group.service_ns[group.scarce_kind] as u64),
            slots_per_instance: group.slots_per_instance,
            ready: 0,
            starting: 0,
            draining: 0,
            count_min: 0,
            count_max: 0,
            target: group.target,
            startup_expected: group.startup_expected,
        };
        if let Some(mean) = group.tick.service_ns.checked_div(group.tick.finished) {
            seen.service_mean = Duration::from_nanos(mean);
        }
        let oldest = group.queues.iter().filter_map(|queue| queue.oldest(&self.jobs)).min();
        seen.waiting_age = oldest.map_or(Duration::ZERO, |since| now.since(since));
        for pool in &group.pools {
            let state = &self.pools[pool.index()];
            seen.ready += state.ready;
            seen.starting += state.starting;
            seen.draining += state.draining;
            seen.count_min += self.system.pools[pool.index()].count_min;
            seen.count_max += self.system.pools[pool.index()].count_max;
        }
        seen
    }

    fn views(&self, group_id: GroupId) -> Vec<PoolView> {
        let view = |pool: &PoolId| {
            let (state, row) = (&self.pools[pool.index()], &self.system.pools[pool.index()]);
            PoolView {
                pool: *pool,
                capacity_type: row.offering.capacity_type,
                price: state.price,
                ready: state.ready,
                starting: state.starting,
                count_min: row.count_min,
                count_max: row.count_max,
            }
        };
        self.groups[group_id.index()].pools.iter().map(view).collect()
    }

    /// Buys and gives back as the purchase policy says. A pool that refused a launch is not asked again before the next
    /// tick, so that two pools without capacity cannot send launches back and forth at one instant.
    pub(super) fn purchase(&mut self, now: Instant, group_id: GroupId, out: &mut impl Sink) {
        let views = self.views(group_id);
        let group = &mut self.groups[group_id.index()];
        let targets = group.purchase.allocate(now, group.target, &views);
        for target in targets {
            let view = views
                .iter()
                .find(|view| view.pool == target.pool)
                .expect("policies name pools they were shown");
            let wanted = target.instances.clamp(view.count_min, view.count_max);
            let held = view.ready + view.starting;
            // Machines that drain still count against the provider's limit.
            let draining = self.pools[target.pool.index()].draining;
            let wanted = wanted.min(view.count_max.saturating_sub(draining).max(held));
            let refused = now < self.pools[target.pool.index()].refused_until;
            if wanted == held || (wanted > held && refused) {
                continue;
            }
            out.emit(Output::Decided(Box::new(DecisionRow {
                at_s: now.as_secs_f64(),
                policy: "purchase",
                subject: self.system.pools[target.pool.index()].name.clone(),
                from: held,
                to: wanted,
                code: target.reason.code,
                reason: target.reason.text,
            })));
            if wanted > held {
                for _ in held..wanted {
                    self.launch(now, target.pool, out);
                }
            } else {
                self.give_back(now, target.pool, held - wanted, out);
            }
        }
    }

    /// Gives back `count` instances: silent ones, then those still starting, newest first; then idle ones; then busy ones, which finish
    /// their jobs first. Highest seats go first, since jobs are packed into low ones.
    fn give_back(&mut self, now: Instant, pool: PoolId, count: u32, out: &mut impl Sink) {
        let mut candidates: Vec<(u8, u32, std::cmp::Reverse<u32>, InstanceId)> = Vec::new();
        for (seat, id) in self.pools[pool.index()].seated.iter().enumerate() {
            if id.0 == NONE {
                continue;
            }
            let instance = &self.instances[*id];
            let rank = match instance.state {
                InstanceState::Silent => 0,
                InstanceState::Requested => 1,
                InstanceState::Loading => 2,
                InstanceState::Ready if instance.busy_total() == 0 => 3,
                InstanceState::Ready => 4,
                InstanceState::Free | InstanceState::Draining | InstanceState::Terminating => continue,
            };
            candidates.push((rank, instance.busy_total(), std::cmp::Reverse(seat as u32), *id));
        }
        candidates.sort_unstable();
        for (rank, _, _, id) in candidates.into_iter().take(count as usize) {
            if rank < 3 {
                self.give_up_start(now, id, InstanceEnd::Released, out);
            } else {
                self.drain(now, id, InstanceEnd::Released, out);
            }
        }
    }

    pub(super) fn refresh_routing(&mut self, now: Instant) {
        let elapsed = now.since(self.last_refresh).as_secs_f64();
        if elapsed > 0.0 {
            for demand in &mut self.demand {
                let rate = demand.arrived as f64 / elapsed;
                demand.rate += (rate - demand.rate) * super::DEMAND_WEIGHT;
                demand.arrived = 0;
            }
        }
        self.last_refresh = now;
        let Routing::Rings(rings) = &self.system.policies.routing else { return };
        self.next_refresh = now + rings.refresh.max(super::PERIOD_MIN);
        let mut loads: Vec<RingLoad> = (0..self.system.regions.len() as u16)
            .map(|cell| {
                let mut groups = self.groups.iter().filter(|group| group.cell == RegionId(cell));
                let serves = self.serving.contains(&RegionId(cell));
                let tight = groups.by_ref().max_by_key(|group| group.startup_expected);
                let kind = tight.map_or(0, |group| group.scarce_kind);
                RingLoad {
                    demand_rps: 0.0,
                    in_use: tight.map_or(0.0, |group| f64::from(group.running[kind])),
                    capacity: tight.filter(|_| serves).map_or(0.0, |group| f64::from(group.slots[kind])),
                    service_mean: tight
                        .map_or(Duration::ZERO, |group| Duration::from_nanos(group.service_ns[kind] as u64)),
                }
            })
            .collect();
        for (region, demand) in self.demand.iter().enumerate() {
            loads[self.nearest[region].index()].demand_rps += demand.rate;
        }
        let system = &self.system;
        self.table = RoutingTable::build(rings, &loads, |a, b| system.round_trip(a, b));
    }

    pub(super) fn close_minute(&mut self, now: Instant, out: &mut impl Sink) {
        self.next_minute = now + MINUTE;
        for group in &mut self.groups {
            let count = std::mem::take(&mut group.minute);
            let mut row = MinuteRow {
                at_s: now.as_secs_f64(),
                group: group.name.clone(),
                arrived: count.arrived,
                done: count.done,
                lost: count.lost,
                probes_refused: count.probes_refused,
                waiting: group.waiting(),
                running: group.running(),
                ready: 0,
                starting: 0,
                draining: 0,
                target: group.target,
                slots: 0,
            };
            for pool in &group.pools {
                let state = &self.pools[pool.index()];
                row.ready += state.ready;
                row.starting += state.starting;
                row.draining += state.draining;
                let per_instance: u32 = state.slots.iter().map(|slots| u32::from(*slots)).sum();
                row.slots += (state.ready + state.draining) * per_instance;
            }
            out.emit(Output::Minute(Box::new(row)));
        }
    }
}
