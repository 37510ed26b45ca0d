//! Whether a new job may come in, with what wishes, and what becomes of one at a full queue. Changes no state but that
//! of a new job.

use super::job::NewJob;
use super::{Dispatcher, Output, Rejection, Sink};
use crate::model::{ClassId, GroupId, KindId, PoolId, RegionId};
use crate::policies::AdmissionVerdict;
use crate::records::JobOutcome;
use crate::units::{Duration, Instant};

/// What a client asked for in place of what its class says.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    pub(super) priority: Option<u8>,
    /// Time in the system.
    pub(super) deadline: Option<Duration>,
}

impl Dispatcher {
    /// A job with wishes of its own arrives.
    #[inline(never)]
    pub(super) fn submit(
        &mut self,
        now: Instant,
        tag: u64,
        class: ClassId,
        region: RegionId,
        wish: Wish,
        out: &mut impl Sink,
    ) {
        let row = self.classes[class.index()];
        let cell = if self.cells == 1 { RegionId(0) } else { self.route(tag, 0, region) };
        let priority = wish.priority.map_or(row.priority, |priority| priority.min(7));
        let length = wish.deadline.unwrap_or(row.deadline);
        let new = NewJob { tag, class, region, cell, priority, arrived: now, deadline: now + length };
        if length == row.deadline {
            self.take_in::<false>(now, new, row.expires, out);
        } else {
            self.take_in::<true>(now, new, row.expires_own, out);
        }
    }

    /// Whether a new job is turned away: its first queue would make it late or is full.
    #[inline]
    pub(super) fn refuses(&self, now: Instant, slot: u32) -> Option<Rejection> {
        let job = &self.jobs[slot];
        let (group_id, kind) = self.stage_group(self.first_slot_stage?, job.cell)?;
        if self.has_free_slot(group_id, kind) {
            return None;
        }
        let group = &self.groups[group_id.index()];
        if let Some(per_slot) = self.system.queue_per_slot_max
            && per_slot > 0.0
            && f64::from(group.queues[kind.index()].len) >= per_slot * f64::from(group.slots[kind.index()])
            && group.external.is_none()
        {
            return Some(Rejection::QueueFull);
        }
        match self.verdict(now, slot, group_id, kind) {
            AdmissionVerdict::Shed => Some(Rejection::WouldBeLate),
            AdmissionVerdict::Queue | AdmissionVerdict::Overflow => None,
        }
    }

    pub(super) fn verdict(
        &self,
        now: Instant,
        slot: u32,
        group_id: GroupId,
        kind: KindId,
    ) -> AdmissionVerdict {
        let group = &self.groups[group_id.index()];
        let job = &self.jobs[slot];
        let time_left = (job.deadline != Instant::NEVER).then(|| job.deadline.since(now));
        let wait = group.wait_expected(kind.index(), self.starting_slots(group_id, kind));
        let service = self.stages[job.stage.index()].remaining;
        let has_external = group.external.is_some_and(|pool| self.external_has_room(pool));
        if has_external && group.pools.is_empty() {
            return AdmissionVerdict::Overflow; // there is nothing else to wait for
        }
        self.system.policies.admission.verdict(wait, service, time_left, has_external)
    }

    fn starting_slots(&self, group: GroupId, kind: KindId) -> u32 {
        let slots = |pool: &PoolId| {
            let state = &self.pools[pool.index()];
            state.starting * u32::from(state.slots[kind.index()])
        };
        self.groups[group.index()].pools.iter().map(slots).sum()
    }

    /// Whether a group has no instances at all, and its external service takes another call now.
    pub(super) fn only_external_has_room(&self, group: GroupId) -> bool {
        let group = &self.groups[group.index()];
        group.pools.is_empty() && group.external.is_some_and(|pool| self.external_has_room(pool))
    }

    fn external_has_room(&self, pool: PoolId) -> bool {
        self.pools[pool.index()].external_running < self.system.pools[pool.index()].count_max
    }

    pub(super) fn reject(&mut self, slot: u32, why: Rejection, out: &mut impl Sink) {
        self.totals.rejected += 1;
        let job = &self.jobs[slot];
        let retry_after = Duration::from_nanos(self.stages[0].remaining.as_nanos());
        out.emit(Output::Rejected { tag: job.tag, class: job.class, region: job.region, why, retry_after });
        let first = self.first_slot_stage.and_then(|stage| self.stage_group(stage, job.cell));
        if let Some((group, _)) = first {
            let group = &mut self.groups[group.index()];
            group.minute.lost += 1;
            group.minute.arrived += 1;
            group.tick.arrived += 1;
        }
        self.jobs.remove(slot, JobOutcome::Rejected, 0);
    }
}
