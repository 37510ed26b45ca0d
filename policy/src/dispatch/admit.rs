//! Whether a new job may come in, and what becomes of one at a full queue. Changes no state but that of a refused job.

use super::{Dispatcher, Output, Rejection, Sink};
use crate::model::{GroupId, KindId, PoolId};
use crate::policies::AdmissionVerdict;
use crate::records::JobOutcome;
use crate::units::{Duration, Instant};

impl Dispatcher {
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
