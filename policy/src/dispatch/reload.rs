//! New parameters for a dispatcher at work: jobs, instances and what policies remember stay.

use super::job::JobState;
use super::queue::Queue;
use super::shape::{ShapeError, Timing, same_shape, shape_of};
use super::timer::{Entry, Heap, Ring};
use super::{Dispatcher, Group, Output, Sink};
use crate::model::{GroupId, JobId, SLOT_KINDS_MAX, System, SystemError};
use crate::policies::RoutingTable;
use crate::records::DecisionRow;
use crate::units::Instant;

/// A system that a dispatcher at work cannot go on with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReloadError {
    /// It cannot run at all.
    #[error(transparent)]
    System(#[from] SystemError),
    /// It is another one.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

impl Dispatcher {
    /// Whether the dispatcher can go on under `system`.
    ///
    /// # Errors
    /// As [`Dispatcher::reload`].
    pub fn accepts(&self, system: &System) -> Result<(), ReloadError> {
        same_shape(&shape_of(&self.system), &shape_of(system))?;
        Ok(Self::empty(system.clone(), self.chance).map(drop)?)
    }

    /// Goes on under `system`, which must be of the same shape: the same regions, classes, stages, pools and quality
    /// levels. Everything else may differ.
    ///
    /// Jobs keep the priority and the deadline they came with, leases the time they run until; what comes later follows
    /// `system`. A policy of the same kind as before keeps what it remembers. A price is taken over where `system` names
    /// another than before, so that a market price stays. Limits act at once, `out` says how.
    ///
    /// # Errors
    /// [`ReloadError`] when the system cannot run or is of another shape; then nothing has changed.
    pub fn reload(&mut self, now: Instant, system: System, out: &mut impl Sink) -> Result<(), ReloadError> {
        same_shape(&shape_of(&self.system), &shape_of(&system))?;
        let mut fresh = Self::empty(system, self.chance)?;
        let timing = self.timing();
        self.take_rows(&mut fresh);
        self.retime(&timing, Some(now));
        for (group, fresh) in self.groups.iter_mut().zip(fresh.groups) {
            group.follow(fresh, now);
        }
        let before = std::mem::replace(&mut self.system, fresh.system);
        if self.system.policies.routing != before.policies.routing {
            self.next_refresh = Instant::NEVER;
            self.table = RoutingTable::identity(self.system.regions.len());
            self.refresh_routing(now);
        }
        for (index, pool) in self.system.pools.iter().enumerate() {
            if pool.offering.price != before.pools[index].offering.price {
                self.pools[index].price = pool.offering.price;
            }
        }
        for index in 0..self.groups.len() {
            if self.system.queue_order != before.queue_order {
                self.reorder(index);
            }
            self.settle_group(now, GroupId(index as u16), out);
        }
        self.reschedule();
        Ok(())
    }

    /// Takes over what the hot path needs of the system.
    fn take_rows(&mut self, fresh: &mut Self) {
        self.stages = std::mem::take(&mut fresh.stages);
        self.classes = std::mem::take(&mut fresh.classes);
        self.nearest = std::mem::take(&mut fresh.nearest);
        self.sheds = fresh.sheds;
        self.may_refuse = fresh.may_refuse;
        self.delays_execution = fresh.delays_execution;
        self.packing = fresh.packing;
    }

    /// Brings the timers of jobs inside, set by `before`, under the present leases and deadlines. A lease that stages did
    /// not have before runs from `now`, or from when the stage began.
    pub(super) fn retime(&mut self, before: &Timing, now: Option<Instant>) {
        let timing = self.timing();
        for stage in 0..timing.leases.len() {
            if timing.leases[stage] == before.leases[stage] {
                continue;
            }
            let (was, is) = (before.leases[stage], timing.leases[stage]);
            let jobs = &self.jobs;
            let live = |&(_, slot, token): &Entry| {
                jobs.get(slot).is_some_and(|job| job.token == token && job.state == JobState::Running)
            };
            let timers = if is.is_some() { self.leases[stage].in_order(live) } else { Vec::new() };
            self.leases[stage] = Ring::settled(timers);
            for slot in 0..self.jobs.slots.len() as u32 {
                let job = &mut self.jobs[slot];
                if job.state != JobState::Running || job.stage.index() != stage {
                    continue;
                }
                match (was, is) {
                    // A timer among the backoffs finds nothing to do.
                    (_, None) => job.lease_until = Instant::NEVER,
                    (None, Some(length)) => {
                        job.lease_until = now.unwrap_or(job.since) + length;
                        self.backoffs.push((job.lease_until, slot, job.token));
                    }
                    (Some(_), Some(_)) => {}
                }
            }
        }
        if timing.deadlines == before.deadlines {
            return;
        }
        self.deadlines.fill_with(Ring::default);
        self.own_deadlines = Heap::default();
        for (slot, job) in self.jobs.iter() {
            if self.classes[job.class.index()].expires_own && job.deadline != Instant::NEVER {
                let JobId { slot, generation } = self.jobs.id(slot);
                self.own_deadlines.push((job.deadline, slot, generation));
            }
        }
    }

    /// Lines a group's queues up in the order that now holds.
    fn reorder(&mut self, group: usize) {
        for kind in 0..SLOT_KINDS_MAX {
            let queue = &mut self.groups[group].queues[kind];
            let mut waiting = Vec::with_capacity(queue.len as usize);
            while let Some(slot) = queue.pop(&mut self.jobs) {
                waiting.push(slot);
            }
            *queue = Queue::new(self.system.queue_order);
            for slot in waiting {
                queue.append(&mut self.jobs, slot);
            }
        }
    }

    /// Limits and prices act on a group at once.
    fn settle_group(&mut self, now: Instant, id: GroupId, out: &mut impl Sink) {
        let group = &mut self.groups[id.index()];
        self.system.policies.quality.settle(&mut group.quality);
        let pools = || group.pools.iter().map(|pool| &self.system.pools[pool.index()]);
        let (min, max) = (pools().map(|pool| pool.count_min).sum(), pools().map(|pool| pool.count_max).sum());
        let (before, target) = (group.target, group.target.clamp(min, max));
        if target != before {
            group.target = target;
            out.emit(Output::Decided(Box::new(DecisionRow {
                at_s: now.as_secs_f64(),
                policy: "scaling",
                subject: group.name.clone(),
                from: before,
                to: target,
                code: "reload-limits",
                reason: format!("the limits are {min}..={max} from now on"),
            })));
        }
        self.purchase(now, id, out);
        for kind in 0..SLOT_KINDS_MAX {
            while self.groups[id.index()].queues[kind].len > 0 && self.only_external_has_room(id) {
                self.fill_external(now, id, kind, out);
            }
        }
    }
}

impl Group {
    /// Goes on under the parameters of `fresh`, with what it remembers.
    fn follow(&mut self, fresh: Self, now: Instant) {
        let memories = (self.scaling.memory(), self.purchase.memory());
        (self.scaling, self.purchase) = (fresh.scaling, fresh.purchase);
        self.scaling.recall(memories.0);
        self.purchase.recall(memories.1);
        self.scarce_kind = fresh.scarce_kind;
        self.slots_per_instance = fresh.slots_per_instance;
        self.startup_expected = fresh.startup_expected;
        if self.next_tick != Instant::NEVER {
            let period = self.scaling.period().max(super::PERIOD_MIN);
            self.next_tick = self.next_tick.min(now + period);
        }
    }
}
