//! Invariants: what must hold after every input. Tests and the fuzz target ask after each; a run may ask now and then.

use super::Dispatcher;
use super::instance::InstanceState;
use super::job::{JobState, NONE};
use crate::model::SLOT_KINDS_MAX;

/// A broken invariant: our bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invariant broken: {0}")]
pub struct Violation(pub String);

impl Dispatcher {
    /// Checks every invariant; costs time in proportion to the jobs and instances held.
    ///
    /// # Errors
    /// The first [`Violation`] found.
    pub fn check(&self) -> Result<(), Violation> {
        self.no_job_is_lost()?;
        self.queues_agree()?;
        self.slots_agree()
    }

    fn no_job_is_lost(&self) -> Result<(), Violation> {
        let t = &self.totals;
        let ended = t.done + t.failed + t.expired + t.cancelled + t.rejected;
        let inside = self.jobs.len() as u64;
        if t.arrived == ended + inside {
            return Ok(());
        }
        Err(Violation(format!("{} jobs arrived, but {ended} ended and {inside} are inside", t.arrived)))
    }

    fn queues_agree(&self) -> Result<(), Violation> {
        let mut waiting = vec![[0_u32; SLOT_KINDS_MAX]; self.groups.len()];
        let mut running = vec![[0_u32; SLOT_KINDS_MAX]; self.groups.len()];
        let mut calls = vec![0_u32; self.pools.len()];
        for (_, job) in self.jobs.iter() {
            match job.state {
                JobState::Waiting => waiting[job.group.index()][job.kind.index()] += 1,
                JobState::Running if job.instance != NONE => {
                    running[job.group.index()][job.kind.index()] += 1
                }
                JobState::Running if job.pool.index() < calls.len() => calls[job.pool.index()] += 1,
                JobState::Running | JobState::Held | JobState::Free => {}
            }
        }
        for (index, pool) in self.pools.iter().enumerate() {
            let (says, jobs) = (pool.external_running, calls[index]);
            if says != jobs {
                let name = &self.system.pools[index].name;
                return Err(Violation(format!("pool {name} says {says} calls, jobs say {jobs}")));
            }
        }
        for (index, group) in self.groups.iter().enumerate() {
            for kind in 0..SLOT_KINDS_MAX {
                let (queued, counted) = (group.queues[kind].len, waiting[index][kind]);
                if queued != counted {
                    return Err(Violation(format!(
                        "{}: queue {kind} says {queued}, jobs say {counted}",
                        group.name
                    )));
                }
                if group.running[kind] != running[index][kind] {
                    let (says, jobs) = (group.running[kind], running[index][kind]);
                    return Err(Violation(format!("{}: running says {says}, jobs say {jobs}", group.name)));
                }
                let free: u32 =
                    group.pools.iter().map(|pool| self.pools[pool.index()].free_slots[kind]).sum();
                let outside = group.external.filter(|_| group.pools.is_empty());
                let room = outside.map_or(0, |pool| {
                    let calls_max = self.system.pools[pool.index()].count_max;
                    calls_max.saturating_sub(self.pools[pool.index()].external_running)
                });
                let free = free + room;
                if queued > 0 && free > 0 {
                    return Err(Violation(format!(
                        "{}: {queued} jobs wait beside {free} free slots",
                        group.name
                    )));
                }
            }
        }
        Ok(())
    }

    fn slots_agree(&self) -> Result<(), Violation> {
        let mut ready = vec![0_u32; self.pools.len()];
        let mut starting = vec![0_u32; self.pools.len()];
        let mut draining = vec![0_u32; self.pools.len()];
        let mut free = vec![[0_u32; SLOT_KINDS_MAX]; self.pools.len()];
        for (id, instance) in self.instances.iter() {
            let pool = &self.pools[instance.pool.index()];
            let mut busy = [0_u16; SLOT_KINDS_MAX];
            let mut slot = instance.first_job;
            while slot != NONE {
                let job = &self.jobs[slot];
                if job.instance != id.0 || job.state != JobState::Running {
                    return Err(Violation(format!("instance {} lists job {slot}, which is not there", id.0)));
                }
                busy[job.kind.index()] += 1;
                slot = job.next;
            }
            if busy != instance.busy {
                let said = instance.busy;
                return Err(Violation(format!(
                    "instance {} says busy {said:?}, its jobs say {busy:?}",
                    id.0
                )));
            }
            match instance.state {
                InstanceState::Ready => ready[instance.pool.index()] += 1,
                InstanceState::Requested | InstanceState::Loading | InstanceState::Silent => {
                    starting[instance.pool.index()] += 1
                }
                InstanceState::Draining => draining[instance.pool.index()] += 1,
                InstanceState::Terminating | InstanceState::Free => {}
            }
            for (kind, free) in free[instance.pool.index()].iter_mut().enumerate() {
                let is_idle = !matches!(instance.state, InstanceState::Ready | InstanceState::Draining);
                if is_idle && instance.busy[kind] > 0 {
                    return Err(Violation(format!(
                        "instance {} works while it is {:?}",
                        id.0, instance.state
                    )));
                }
                if instance.busy[kind] > pool.slots[kind] {
                    return Err(Violation(format!("instance {} has more jobs than slots", id.0)));
                }
                if instance.state == InstanceState::Ready {
                    let left = pool.slots[kind] - instance.busy[kind];
                    *free += u32::from(left);
                    if !pool.is_listed(instance.seat, kind, left) {
                        return Err(Violation(format!(
                            "instance {} is not listed with {left} free slots",
                            id.0
                        )));
                    }
                }
            }
        }
        for (index, pool) in self.pools.iter().enumerate() {
            let name = &self.system.pools[index].name;
            let counted = (ready[index], starting[index], draining[index]);
            if (pool.ready, pool.starting, pool.draining) != counted {
                let said = (pool.ready, pool.starting, pool.draining);
                return Err(Violation(format!("pool {name} says {said:?}, its instances say {counted:?}")));
            }
            if pool.free_slots != free[index] {
                let (said, counted) = (pool.free_slots, free[index]);
                return Err(Violation(format!(
                    "pool {name} says free {said:?}, its instances say {counted:?}"
                )));
            }
        }
        Ok(())
    }
}
