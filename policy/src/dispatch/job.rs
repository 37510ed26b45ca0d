//! The table of jobs: a slab of slots, each used again and again.

use super::{Ended, Started};
use crate::model::{
    ClassId, GroupId, InstanceId, JobId, KindId, Lease, PoolId, QualityId, RegionId, StageId,
};
use crate::records::JobOutcome;
use crate::units::{Duration, Instant};

/// No slot, instance or pool.
pub(super) const NONE: u32 = u32::MAX;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
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

/// What is known of a job when it arrives.
#[derive(Clone, Copy)]
pub(super) struct NewJob {
    pub(super) tag: u64,
    pub(super) class: ClassId,
    pub(super) region: RegionId,
    pub(super) cell: RegionId,
    /// 0..=7, 0 first.
    pub(super) priority: u8,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
}

impl NewJob {
    /// What a slot that nobody holds keeps.
    #[cfg(feature = "image")]
    pub(super) fn nobody() -> Self {
        let (class, region, cell) = (ClassId(0), RegionId(0), RegionId(0));
        let (arrived, deadline) = (Instant::START, Instant::NEVER);
        Self { tag: 0, class, region, cell, priority: 0, arrived, deadline }
    }
}

/// Two cache lines; an index becomes an address by a shift.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
#[repr(align(64))]
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
    #[cfg_attr(feature = "image", serde(skip))]
    pub(super) prev: u32,
    #[cfg_attr(feature = "image", serde(skip))]
    pub(super) next: u32,
    #[cfg_attr(feature = "image", serde(skip))]
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

/// Where a job was that left its slot.
#[derive(Clone, Copy)]
pub(super) struct Left {
    /// [`NONE`] for a job that had none.
    pub(super) instance: InstanceId,
    pub(super) pool: PoolId,
    pub(super) group: GroupId,
    pub(super) kind: usize,
    /// Neighbours on the instance.
    pub(super) prev: u32,
    pub(super) next: u32,
    /// Nanoseconds.
    pub(super) held: u64,
}

impl Job {
    /// A job that begins, in a slot that was used `generation` times and gave out leases up to `token`.
    #[inline(always)]
    pub(super) fn new(new: NewJob, generation: u32, token: u32) -> Self {
        Self {
            tag: new.tag,
            arrived: new.arrived,
            since: new.arrived,
            deadline: new.deadline,
            lease_until: Instant::NEVER,
            waited: 0,
            served: 0,
            generation,
            token,
            prev: NONE,
            next: NONE,
            instance: NONE,
            class: new.class,
            region: new.region,
            cell: new.cell,
            group: GroupId(0),
            pool: PoolId(u16::MAX),
            stage: StageId(0),
            quality: QualityId(0),
            kind: KindId(0),
            attempts: 0,
            stage_deliveries: 0,
            deliveries: 0,
            priority: new.priority,
            state: JobState::Held,
            was_served: false,
        }
    }

    /// What it leaves behind when its lease ends at `now`.
    #[inline(always)]
    pub(super) fn left(&self, now: Instant) -> Left {
        Left {
            instance: InstanceId(self.instance),
            pool: self.pool,
            group: self.group,
            kind: self.kind.index(),
            prev: self.prev,
            next: self.next,
            held: now.since(self.since).as_nanos(),
        }
    }

    /// Ends the lease: the job is held, and on no slot.
    #[inline(always)]
    pub(super) fn leave(&mut self, now: Instant) -> Left {
        let left = self.left(now);
        self.served += left.held;
        self.state = JobState::Held;
        self.since = now;
        self.instance = NONE;
        left
    }

    /// Leaves its slot of the table, and says what became of it; `served` nanoseconds are not counted yet. The slot is free once
    /// the table knows.
    #[inline(always)]
    pub(super) fn end(&mut self, slot: u32, outcome: JobOutcome, served: u64) -> Ended {
        let generation = self.generation;
        self.state = JobState::Free;
        self.generation = generation.wrapping_add(1);
        Ended {
            job: JobId { slot, generation },
            tag: self.tag,
            outcome,
            class: self.class,
            region: self.region,
            cell: self.cell,
            arrived: self.arrived,
            waited: Duration::from_nanos(self.waited),
            served: Duration::from_nanos(self.served + served),
            deliveries: self.deliveries,
            quality: self.quality,
        }
    }

    /// Gives a new lease, and says so.
    #[inline(always)]
    pub(super) fn start(
        &mut self,
        now: Instant,
        slot: u32,
        pool: Option<PoolId>,
        instance: Option<InstanceId>,
        busy: u16,
    ) -> Started {
        // A held job's pause was counted when it ended.
        let waited = if self.state == JobState::Waiting { now.since(self.since) } else { Duration::ZERO };
        self.waited += waited.as_nanos();
        self.state = JobState::Running;
        self.since = now;
        self.token = self.token.wrapping_add(1);
        self.instance = instance.map_or(NONE, |id| id.0);
        self.pool = pool.unwrap_or(PoolId(u16::MAX));
        self.deliveries = self.deliveries.saturating_add(1);
        self.stage_deliveries = self.stage_deliveries.saturating_add(1);
        // Stages outside (the client's own upload) are not yet service: patience still runs.
        self.was_served |= pool.is_some();
        Started {
            lease: Lease { slot, token: self.token },
            tag: self.tag,
            stage: self.stage,
            instance,
            pool,
            cell: self.cell,
            quality: self.quality,
            busy,
            delivery: self.stage_deliveries,
            waited,
        }
    }
}

/// The slab.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) slots: Vec<Job>,
    /// The last is used next.
    pub(super) free: Vec<u32>,
}

impl Jobs {
    #[inline(always)]
    pub(super) fn insert(&mut self, new: NewJob) -> JobId {
        let fresh = |generation, token| Job::new(new, generation, token);
        if let Some(slot) = self.free.pop() {
            let job = &mut self.slots[slot as usize];
            let generation = job.generation;
            *job = fresh(generation, job.token);
            return JobId { slot, generation };
        }
        self.slots.push(fresh(0, 0));
        let slot = u32::try_from(self.slots.len() - 1);
        JobId { slot: slot.expect("fewer than 2^32 jobs are in the system at once"), generation: 0 }
    }

    /// Frees a slot and says what became of its job; `served` nanoseconds of it are not counted yet.
    #[inline(always)]
    pub(super) fn remove(&mut self, slot: u32, outcome: JobOutcome, served: u64) -> Ended {
        let ended = self.slots[slot as usize].end(slot, outcome, served);
        self.free.push(slot);
        ended
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

    /// A slot is added only where none is free, so the slab is as long as it was ever full.
    pub(super) fn len_max(&self) -> usize {
        self.slots.len()
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

    #[inline(always)]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Job> {
        self.slots.get_mut(slot as usize)
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
