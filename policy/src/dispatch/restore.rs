//! A dispatcher taken up again from its [`Image`]. The image may come from a damaged disk: every number in it is checked
//! before it is used, links are made anew, and what it says twice must agree.

use super::image::{FORMAT, GroupImage, Image, JobSlot, calls_max, instance_id};
use super::instance::{Instance, InstanceState};
use super::job::{Job, JobState, NONE, NewJob};
use super::shape::{ShapeError, Timing, same_shape, shape_of};
use super::timer::{Entry, Heap, Ring};
use super::{Dispatcher, Violation};
use crate::model::{
    ClassId, InstanceId, JobId, POOL_INSTANCES_MAX, Place, PoolId, SLOT_KINDS_MAX, System, SystemError,
};
use crate::policies::{Routing, RoutingTable};
use crate::units::Instant;
use crate::units::random::Stream;

/// Most that a sum of times can come to, in nanoseconds (146 years).
const SPAN_MAX: u64 = 1 << 62;

/// Most that anything can be counted to.
const COUNT_MAX: u64 = 1 << 60;

/// An image that cannot be taken up.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RestoreError {
    /// The system cannot run.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The system is another one.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The image was made by another version.
    #[error(
        "the image has format {found}, this version reads {FORMAT}; take it up with the version that made it"
    )]
    Format { found: u16 },
    /// An external pool takes another number of calls.
    #[error("pool `{pool}` took {was} calls at once and takes {is} now; restore with {was} and reload")]
    Calls { pool: String, was: u32, is: u32 },
    /// The image contradicts itself.
    #[error("the image is damaged: {what}; take an older one")]
    Damaged { what: String },
}

impl From<Violation> for RestoreError {
    fn from(violation: Violation) -> Self {
        Self::Damaged { what: violation.0 }
    }
}

type Checked = Result<(), RestoreError>;

/// An error unless `fact` holds.
fn require(fact: bool, what: impl FnOnce() -> String) -> Checked {
    if fact { Ok(()) } else { Err(RestoreError::Damaged { what: what() }) }
}

/// Whether `free` lists every slot that is free, once.
fn require_free(kind: &str, free: &[u32], is_free: &[bool]) -> Checked {
    let mut left = is_free.to_vec();
    for slot in free {
        let was_free = left.get_mut(*slot as usize).is_some_and(std::mem::take);
        require(was_free, || format!("{kind} {slot} is not free, or free twice"))?;
    }
    require(!left.contains(&true), || format!("a free {kind} is not listed"))
}

impl Dispatcher {
    /// The dispatcher whose [`Dispatcher::image`] this is: it answers every further input as that one would.
    ///
    /// `system` must have the shape that it had; its parameters may differ, as with [`Dispatcher::reload`] (but limits
    /// act from the next tick on). `chance` is the stream that [`Dispatcher::new`] was given.
    ///
    /// # Errors
    /// [`RestoreError`] when the system cannot run or is of another shape, or the image contradicts itself. Numbers that
    /// were changed into others just as possible are not noticed: whoever stores images keeps a checksum with them.
    pub fn restore(system: System, chance: Stream, image: Image) -> Result<Self, RestoreError> {
        if image.format != FORMAT {
            return Err(RestoreError::Format { found: image.format });
        }
        same_shape(&image.shape, &shape_of(&system))?;
        let mut restored = Self::empty(system, chance)?;
        restored.require_lengths(&image)?;
        restored.require_calls(&image)?;
        restored.take_jobs(&image.jobs, image.jobs_free)?;
        let mut placed = vec![false; image.jobs.len()];
        restored.take_instances(image.instances, image.instances_free, &mut placed)?;
        for (index, group) in image.groups.into_iter().enumerate() {
            restored.take_group(index, group, &mut placed)?;
        }
        restored.place_others(&placed)?;
        for (state, pool) in restored.pools.iter_mut().zip(image.pools) {
            (state.price, state.refused_until) = (pool.price, pool.refused_until);
        }
        restored.take_regions(image.table, image.demand)?;
        (restored.last_refresh, restored.next_minute) = (image.last_refresh, image.next_minute);
        require(image.next_minute != Instant::NEVER, || "no minute ever ends".to_owned())?;
        restored.next_refresh = match restored.system.policies.routing.refresh() {
            Some(period) if image.next_refresh == Instant::NEVER => image.last_refresh + period,
            Some(_) => image.next_refresh,
            None => Instant::NEVER,
        };
        let rings = (image.leases, image.deadlines);
        restored.take_timers(rings, image.own_deadlines, image.backoffs, &image.timing)?;
        let t = &image.totals;
        let counts = [t.arrived, t.done, t.failed, t.expired, t.cancelled, t.rejected];
        let others = [t.stale, t.probes_refused, t.retries];
        let is_sane = counts.iter().chain(&others).all(|count| *count <= COUNT_MAX);
        require(is_sane, || format!("totals of {t:?}"))?;
        restored.totals = image.totals;
        restored.check()?;
        restored.retime(&image.timing, None);
        restored.reschedule();
        restored.wake = restored.wake.min(image.wake);
        Ok(restored)
    }

    fn require_lengths(&self, image: &Image) -> Checked {
        let (stages, classes, groups) = (self.stages.len(), self.classes.len(), self.groups.len());
        for (what, said, is) in [
            ("pools", image.pools.len(), self.pools.len()),
            ("groups", image.groups.len(), groups),
            ("regions", image.demand.len(), self.demand.len()),
            ("lease lengths", image.timing.leases.len(), stages),
            ("lease timers", image.leases.len(), stages),
            ("deadline lengths", image.timing.deadlines.len(), classes),
            ("deadline timers", image.deadlines.len(), classes),
        ] {
            require(said == is, || format!("it has {said} {what}, not {is}"))?;
        }
        require(image.jobs.len() < NONE as usize && image.instances.len() < NONE as usize, || {
            "there are too many jobs or instances".to_owned()
        })
    }

    /// Jobs may wait beside an external pool whose limit rose, and nothing would start them.
    fn require_calls(&self, image: &Image) -> Checked {
        for (index, is) in calls_max(&self.system) {
            let was = image.calls_max.get(&index).copied().unwrap_or_default();
            if was != is {
                let pool = self.system.pools[usize::from(index)].name.clone();
                return Err(RestoreError::Calls { pool, was, is });
            }
        }
        Ok(())
    }

    fn take_jobs(&mut self, slots: &[JobSlot], free: Vec<u32>) -> Checked {
        let is_free: Vec<bool> = slots.iter().map(|slot| matches!(slot, JobSlot::Free { .. })).collect();
        require_free("job", &free, &is_free)?;
        for (slot, held) in slots.iter().enumerate() {
            let job = match held {
                JobSlot::Free { generation, token } => {
                    let mut job = Job::new(NewJob::nobody(), *generation, *token);
                    job.state = JobState::Free;
                    job
                }
                JobSlot::Held(job) => {
                    self.require_job(job).map_err(|what| RestoreError::Damaged {
                        what: format!("job {slot} has an impossible {what}"),
                    })?;
                    let mut job = job.clone();
                    (job.prev, job.next, job.instance) = (NONE, NONE, NONE);
                    job
                }
            };
            self.jobs.slots.push(job);
        }
        self.jobs.free = free;
        Ok(())
    }

    /// Whether everything that a job refers to is there, and fits its state; names what does not.
    fn require_job(&self, job: &Job) -> Result<(), &'static str> {
        let fits = |fact: bool, what| if fact { Ok(()) } else { Err(what) };
        fits(job.class.index() < self.classes.len(), "class")?;
        fits(job.region.index() < self.system.regions.len(), "region")?;
        fits(self.serving.contains(&job.cell), "serving region")?;
        fits(job.stage.index() < self.stages.len(), "stage")?;
        fits(job.quality.index() < self.system.qualities.len(), "level of quality")?;
        fits(job.kind.index() < SLOT_KINDS_MAX, "kind of slot")?;
        fits(job.group.index() < self.groups.len().max(1), "group")?;
        fits(job.priority < 8, "priority")?;
        fits(job.waited.max(job.served) <= SPAN_MAX, "time in the system")?;
        let place = self.stage_group(job.stage, job.cell);
        match job.state {
            JobState::Free => Err("state"),
            JobState::Held => Ok(()),
            JobState::Waiting => fits(place == Some((job.group, job.kind)), "queue"),
            JobState::Running if self.stages[job.stage.index()].place == Place::Outside => {
                fits(job.pool == PoolId(u16::MAX), "pool")
            }
            JobState::Running => {
                fits(place == Some((job.group, job.kind)), "group")?;
                let group = &self.groups[job.group.index()];
                fits(group.pools.contains(&job.pool) || group.external == Some(job.pool), "pool")
            }
        }
    }

    fn take_instances(
        &mut self,
        slots: Vec<Option<(Instance, Vec<u32>)>>,
        free: Vec<u32>,
        placed: &mut [bool],
    ) -> Checked {
        let is_free: Vec<bool> = slots.iter().map(Option::is_none).collect();
        require_free("instance", &free, &is_free)?;
        for (index, slot) in slots.into_iter().enumerate() {
            let id = instance_id(index);
            let Some((mut instance, jobs)) = slot else {
                self.instances.slots.push(Instance::free());
                continue;
            };
            self.require_instance(&instance, &jobs).map_err(|what| RestoreError::Damaged {
                what: format!("instance {index} has an impossible {what}"),
            })?;
            (instance.first_job, instance.busy, instance.is_gone) = (NONE, [0; SLOT_KINDS_MAX], false);
            for slot in jobs.into_iter().rev() {
                self.put_on(id, &mut instance, slot, placed)?;
            }
            self.seat(id, &instance)?;
            self.instances.slots.push(instance);
        }
        self.instances.free = free;
        Ok(())
    }

    fn require_instance(&self, instance: &Instance, jobs: &[u32]) -> Result<(), &'static str> {
        let fits = |fact: bool, what| if fact { Ok(()) } else { Err(what) };
        let pool = self.pools.get(instance.pool.index()).ok_or("pool")?;
        fits(self.groups[pool.group.index()].pools.contains(&instance.pool), "pool")?;
        fits(instance.busy_ns <= SPAN_MAX, "busy time")?;
        let (booted, ready) = (instance.booted.is_some(), instance.ready.is_some());
        let history = match instance.state {
            InstanceState::Free => return Err("state"),
            InstanceState::Requested => !booted && !ready,
            InstanceState::Loading => booted && !ready,
            InstanceState::Ready | InstanceState::Draining => booted && ready,
            InstanceState::Silent => booted,
            InstanceState::Terminating => true,
        };
        fits(history, "history")?;
        fits(instance.seat < POOL_INSTANCES_MAX, "seat")?;
        match instance.state {
            InstanceState::Ready => Ok(()),
            InstanceState::Draining => fits(!jobs.is_empty(), "end: it drains without a job"),
            _ => fits(jobs.is_empty(), "job"),
        }
    }

    /// Puts a running job in front of those on its instance.
    fn put_on(&mut self, id: InstanceId, instance: &mut Instance, slot: u32, placed: &mut [bool]) -> Checked {
        let first = std::mem::replace(&mut instance.first_job, slot);
        let is_news = placed.get_mut(slot as usize).is_some_and(|placed| !std::mem::replace(placed, true));
        require(is_news, || format!("instance {} runs job {slot}, which is elsewhere", id.0))?;
        let job = &mut self.jobs[slot];
        let (kind, slots) = (job.kind.index(), self.pools[instance.pool.index()].slots);
        let is_here = job.state == JobState::Running
            && job.pool == instance.pool
            && matches!(self.stages[job.stage.index()].place, Place::Slot { .. })
            && instance.busy[kind] < slots[kind];
        require(is_here, || format!("instance {} cannot run job {slot}", id.0))?;
        (job.prev, job.next, job.instance) = (NONE, first, id.0);
        instance.busy[kind] += 1;
        self.groups[job.group.index()].running[kind] += 1;
        if first != NONE {
            self.jobs[first].prev = slot;
        }
        Ok(())
    }

    /// Counts an instance in its pool and group.
    fn seat(&mut self, id: InstanceId, instance: &Instance) -> Checked {
        if instance.state == InstanceState::Terminating {
            return Ok(());
        }
        let pool = &mut self.pools[instance.pool.index()];
        let is_vacant = pool.sit(id, instance.seat);
        require(is_vacant, || format!("instance {} sits where another does", id.0))?;
        match instance.state {
            InstanceState::Draining => pool.draining += 1,
            InstanceState::Ready => {
                pool.ready += 1;
                pool.open(instance);
                let group = &mut self.groups[pool.group.index()];
                for (total, slots) in group.slots.iter_mut().zip(pool.slots) {
                    *total += u32::from(slots);
                }
            }
            _ => pool.starting += 1,
        }
        Ok(())
    }

    fn take_group(&mut self, index: usize, image: GroupImage, placed: &mut [bool]) -> Checked {
        for (kind, queue) in image.queues.iter().enumerate() {
            for slot in queue {
                let is_news =
                    placed.get_mut(*slot as usize).is_some_and(|placed| !std::mem::replace(placed, true));
                let waits = is_news && {
                    let job = &self.jobs[*slot];
                    job.state == JobState::Waiting && job.group.index() == index && job.kind.index() == kind
                };
                require(waits, || format!("job {slot} does not wait in group {index}"))?;
                self.groups[index].queues[kind].append(&mut self.jobs, *slot);
            }
        }
        let group = &mut self.groups[index];
        let counts = [
            image.tick.arrived,
            image.tick.finished,
            image.minute.arrived,
            image.minute.done,
            image.minute.lost,
            image.minute.probes_refused,
        ];
        let is_sane = counts.iter().all(|count| *count <= COUNT_MAX)
            && image.tick.service_ns <= SPAN_MAX
            && image.service_ns.iter().all(|mean| mean.is_finite() && *mean >= 0.0)
            && (image.next_tick == Instant::NEVER) == group.pools.is_empty();
        require(is_sane, || format!("group `{}` has impossible counts", group.name))?;
        let pools = || group.pools.iter().map(|pool| &self.system.pools[pool.index()]);
        let (min, max) = (pools().map(|pool| pool.count_min).sum(), pools().map(|pool| pool.count_max).sum());
        group.target = image.target.clamp(min, max);
        group.service_ns = image.service_ns;
        group.quality = image.quality;
        self.system.policies.quality.settle(&mut group.quality);
        group.scaling.recall(image.scaling);
        group.purchase.recall(image.purchase);
        (group.next_tick, group.last_tick) = (image.next_tick, image.last_tick);
        (group.tick, group.minute) = (image.tick, image.minute);
        Ok(())
    }

    /// Every job that waits or runs on an instance was met there; the others run outside or by an external service.
    fn place_others(&mut self, placed: &[bool]) -> Checked {
        for (slot, job) in self.jobs.iter() {
            let (is_placed, pool) = (placed[slot as usize], job.pool);
            let is_right = match job.state {
                JobState::Free | JobState::Held => !is_placed,
                JobState::Waiting => is_placed,
                JobState::Running if pool == PoolId(u16::MAX) => !is_placed,
                JobState::Running => {
                    let is_external = self.groups[job.group.index()].external == Some(pool);
                    self.pools[pool.index()].external_running += u32::from(is_external);
                    is_placed != is_external
                }
            };
            require(is_right, || format!("job {slot} is not where it says"))?;
        }
        Ok(())
    }

    fn take_regions(&mut self, table: RoutingTable, demand: Vec<super::RegionDemand>) -> Checked {
        let is_sane = |region: &super::RegionDemand| {
            region.arrived <= COUNT_MAX && region.rate.is_finite() && region.rate >= 0.0
        };
        require(demand.iter().all(is_sane), || "a region has an impossible demand".to_owned())?;
        self.demand = demand;
        if matches!(self.system.policies.routing, Routing::Rings(_)) {
            let is_sound = table.is_sound(self.system.regions.len(), &self.serving);
            require(is_sound, || "the routing table sends jobs nowhere".to_owned())?;
            self.table = table;
        }
        Ok(())
    }

    /// Takes timers up, and checks that each belongs to a job and that no job misses one; `timing` is what they were set
    /// by.
    fn take_timers(
        &mut self,
        (leases, deadlines): (Vec<Vec<Entry>>, Vec<Vec<Entry>>),
        own_deadlines: Vec<Entry>,
        backoffs: Vec<Entry>,
        timing: &Timing,
    ) -> Checked {
        let mut leased = vec![false; self.jobs.slots.len()];
        for (stage, entries) in leases.iter().enumerate() {
            require(entries.is_sorted_by_key(|entry| entry.0), || "leases are out of order".to_owned())?;
            for (at, slot, token) in entries {
                let is_held = self.jobs.get(*slot).is_some_and(|job| {
                    job.state == JobState::Running && job.token == *token && job.stage.index() == stage
                });
                require(is_held && *at <= self.jobs[*slot].lease_until, || {
                    format!("a lease on job {slot} is nobody's")
                })?;
                leased[*slot as usize] = true;
            }
        }
        for (_, slot, token) in &backoffs {
            let job = self.jobs.get(*slot);
            require(job.is_some(), || format!("a timer names job {slot}, and there is none"))?;
            leased[*slot as usize] |= job.is_some_and(|job| job.token == *token);
        }
        let mut expiring = vec![false; self.jobs.slots.len()];
        let classes =
            deadlines.iter().enumerate().map(|(class, entries)| (Some(ClassId(class as u16)), entries));
        for (class, entries) in classes.chain([(None, &own_deadlines)]) {
            require(entries.is_sorted_by_key(|entry| entry.0), || "deadlines are out of order".to_owned())?;
            for (at, slot, generation) in entries {
                let live = self
                    .jobs
                    .live(JobId { slot: *slot, generation: *generation })
                    .map(|slot| &self.jobs[slot]);
                let is_its = live
                    .is_some_and(|job| job.deadline == *at && class.is_none_or(|class| class == job.class));
                require(is_its, || format!("a deadline of job {slot} is not its own"))?;
                expiring[*slot as usize] = true;
            }
        }
        for (slot, job) in self.jobs.iter() {
            let has_timer = match job.state {
                JobState::Held => leased[slot as usize],
                JobState::Running => leased[slot as usize] || timing.leases[job.stage.index()].is_none(),
                JobState::Waiting | JobState::Free => true,
            };
            let expires = timing.deadlines[job.class.index()].1 && job.deadline != Instant::NEVER;
            let has_deadline = expiring[slot as usize] || !expires || job.state == JobState::Running;
            require(has_timer && has_deadline, || format!("job {slot} misses a timer"))?;
        }
        self.leases = leases.into_iter().map(Ring::settled).collect();
        self.deadlines = deadlines.into_iter().map(Ring::settled).collect();
        self.own_deadlines = Heap::of(own_deadlines);
        self.backoffs = Heap::of(backoffs);
        Ok(())
    }
}
