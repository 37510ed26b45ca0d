//! The table of jobs: a slab of slots, each used again and again.

use crate::model::{ClassId, GroupId, JobId, KindId, PoolId, QualityId, RegionId, StageId};
use crate::units::Instant;

/// No slot, instance or pool.
pub(super) const NONE: u32 = u32::MAX;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobState {
    /// The slot is free.
    Free,
    /// Held back until a timer fires (execution delay, backoff).
    Held,
    /// In a queue.
    Waiting,
    /// Being served: on a slot, outside, or by an external service.
    Running,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) tag: u64,
    pub(super) arrived: Instant,
    /// Since when it is in its present state.
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    pub(super) lease_until: Instant,
    pub(super) waited: u64,
    pub(super) served: u64,
    pub(super) generation: u32,
    pub(super) token: u32,
    /// Neighbours in a queue, or among the jobs running on one instance.
    pub(super) prev: u32,
    pub(super) next: u32,
    pub(super) instance: u32,
    pub(super) class: ClassId,
    pub(super) region: RegionId,
    pub(super) cell: RegionId,
    pub(super) group: GroupId,
    pub(super) pool: PoolId,
    pub(super) stage: StageId,
    pub(super) quality: QualityId,
    pub(super) kind: KindId,
    /// Attempts at this stage that failed or found no slot.
    pub(super) attempts: u16,
    /// Leases given for this stage.
    pub(super) stage_deliveries: u16,
    /// Leases given for all stages.
    pub(super) deliveries: u16,
    pub(super) priority: u8,
    pub(super) state: JobState,
    /// Whether service has ever begun; patience ends then.
    pub(super) was_served: bool,
}

/// The slab.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    slots: Vec<Job>,
    free: Vec<u32>,
}

impl Jobs {
    pub(super) fn insert(&mut self, tag: u64, class: ClassId, region: RegionId, now: Instant) -> u32 {
        let fresh = |generation, token| Job {
            tag,
            arrived: now,
            since: now,
            deadline: Instant::NEVER,
            lease_until: Instant::NEVER,
            waited: 0,
            served: 0,
            generation,
            token,
            prev: NONE,
            next: NONE,
            instance: NONE,
            class,
            region,
            cell: region,
            group: GroupId(0),
            pool: PoolId(u16::MAX),
            stage: StageId(0),
            quality: QualityId(0),
            kind: KindId(0),
            attempts: 0,
            stage_deliveries: 0,
            deliveries: 0,
            priority: 0,
            state: JobState::Held,
            was_served: false,
        };
        if let Some(slot) = self.free.pop() {
            let job = &mut self.slots[slot as usize];
            *job = fresh(job.generation, job.token);
            return slot;
        }
        self.slots.push(fresh(0, 0));
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 jobs are in the system at once")
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let job = &mut self.slots[slot as usize];
        job.state = JobState::Free;
        job.generation = job.generation.wrapping_add(1);
        self.free.push(slot);
    }

    #[inline(always)]
    pub(super) fn id(&self, slot: u32) -> JobId {
        JobId { slot, generation: self.slots[slot as usize].generation }
    }

    /// The slot of a job that is still in the system.
    pub(super) fn live(&self, job: JobId) -> Option<u32> {
        let held = self.slots.get(job.slot as usize)?;
        (held.generation == job.generation && held.state != JobState::Free).then_some(job.slot)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Job)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, job)| job.state != JobState::Free)
            .map(|(slot, job)| (slot as u32, job))
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Job> {
        self.slots.get(slot as usize)
    }
}

impl std::ops::Index<u32> for Jobs {
    type Output = Job;
    #[inline(always)]
    fn index(&self, slot: u32) -> &Job {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<u32> for Jobs {
    #[inline(always)]
    fn index_mut(&mut self, slot: u32) -> &mut Job {
        &mut self.slots[slot as usize]
    }
}
