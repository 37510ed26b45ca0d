//! How a job moves: arrival, stages, waiting, starting, finishing, failing, leaving.

use super::instance::InstanceState;
use super::job::{Job, JobState, Left, NONE, NewJob};
use super::timer::{Entry, Ring};
use super::{CancelScope, Dispatcher, Ended, Output, Sink, StageResult};
use crate::model::{
    ClassId, GroupId, InstanceId, JobId, KindId, Lease, Place, PoolId, QualityId, RegionId, StageId,
};
use crate::policies::{AdmissionVerdict, RetryVerdict};
use crate::records::JobOutcome;
use crate::units::{Duration, Instant};

/// Purposes of the draws that one attempt of one job may need; attempt `n` uses `8n + purpose`. Routing uses 0.
const DRAW_JITTER: u64 = 1;
const DRAW_HELD: u64 = 2;
const DRAW_HELD_LENGTH: u64 = 3;

/// Lets the lease of the job in `slot` run until `until`.
#[inline(always)]
fn time_lease(leases: &mut [Ring], wake: &mut Instant, job: &mut Job, slot: u32, until: Instant) {
    job.lease_until = until;
    leases[job.stage.index()].push((until, slot, job.token));
    *wake = (*wake).min(until);
}

impl Dispatcher {
    #[inline(always)]
    pub(super) fn arrive(
        &mut self,
        now: Instant,
        tag: u64,
        class: ClassId,
        region: RegionId,
        out: &mut impl Sink,
    ) {
        let row = self.classes[class.index()];
        let cell = if self.cells == 1 { RegionId(0) } else { self.route(tag, 0, region) };
        let (priority, deadline) = (row.priority, now + row.deadline);
        let new = NewJob { tag, class, region, cell, priority, arrived: now, deadline };
        self.take_in::<false>(now, new, row.expires, out);
    }

    /// Takes a job in, or turns it away. `OWN` says that its deadline is not its class's.
    #[inline(always)]
    pub(super) fn take_in<const OWN: bool>(
        &mut self,
        now: Instant,
        new: NewJob,
        expires: bool,
        out: &mut impl Sink,
    ) {
        self.totals.arrived += 1;
        let NewJob { tag, class, region, deadline, .. } = new;
        self.demand[region.index()].arrived += 1;
        let job = self.jobs.insert(new);
        let slot = job.slot;
        if self.may_refuse
            && let Some(why) = self.refuses(now, slot)
        {
            self.reject(slot, why, out);
            return;
        }
        if expires {
            let timer = (deadline, slot, job.generation);
            if OWN {
                self.own_deadlines.push(timer);
                let jobs = &self.jobs;
                let live = |&(_, slot, generation): &Entry| jobs.live(JobId { slot, generation }).is_some();
                self.own_deadlines.drop_void(jobs.len(), live);
            } else {
                self.deadlines[class.index()].push(timer);
            }
            self.note_wake(deadline);
        }
        out.emit(Output::Accepted { job, tag });
        if self.starts_outside {
            self.note_first_group(slot);
        }
        if self.delays_execution {
            let chance = self.chance.child(tag);
            let (held, length) = (chance.unit(DRAW_HELD), chance.unit(DRAW_HELD_LENGTH));
            let delay = self.system.policies.retry.execution_delay(held, length);
            if delay > Duration::ZERO {
                self.note_first_group(slot);
                return self.hold(now, slot, delay);
            }
        }
        self.enter_stage(now, slot, out);
    }

    /// Names the group whose minutes count a job that leaves before it reaches any queue.
    fn note_first_group(&mut self, slot: u32) {
        let cell = self.jobs[slot].cell;
        if let Some((group, _)) = self.first_slot_stage.and_then(|stage| self.stage_group(stage, cell)) {
            self.jobs[slot].group = group;
        }
    }

    #[inline]
    pub(super) fn has_free_slot(&self, group: GroupId, kind: KindId) -> bool {
        let pools = &self.groups[group.index()].pools;
        pools.iter().any(|pool| self.pools[pool.index()].free_slots[kind.index()] > 0)
    }

    /// Puts a job that is in no queue and on no slot to its present stage.
    #[inline(always)]
    fn enter_stage(&mut self, now: Instant, slot: u32, out: &mut impl Sink) {
        let job = &mut self.jobs[slot];
        let (pool_class, kind) = match self.stages[job.stage.index()].place {
            Place::Outside => return self.start_unplaced(now, slot, None, out),
            Place::Slot { pool_class, kind } => (pool_class, kind),
        };
        let group_id = self.group_at[pool_class as usize * self.cells + job.cell.index()]
            .expect("jobs are routed to serving regions only");
        let group = &mut self.groups[group_id.index()];
        if job.attempts == 0 && job.stage_deliveries == 0 {
            // Scaling sees the work of the slots that run out first, so that arrivals times service time is their load.
            group.tick.arrived += u64::from(kind.index() == group.scarce_kind);
            group.minute.arrived += 1;
        }
        (job.group, job.kind) = (group_id, kind);
        for pool in &group.pools {
            if let Some(instance) = self.pools[pool.index()].take(kind.index(), self.packing) {
                let pool = *pool;
                return self.take_slot(now, slot, pool, instance, out);
            }
        }
        self.enter_full_stage(now, slot, group_id, kind, out);
    }

    /// No slot is free: an external service, another attempt later, the end, or the queue.
    #[inline(never)]
    fn enter_full_stage(
        &mut self,
        now: Instant,
        slot: u32,
        group_id: GroupId,
        kind: KindId,
        out: &mut impl Sink,
    ) {
        if self.groups[group_id.index()].external.is_some()
            && self.verdict(now, slot, group_id, kind) == AdmissionVerdict::Overflow
        {
            return self.start_external(now, slot, group_id, out);
        }
        if self.system.queue_per_slot_max == Some(0.0) {
            return self.probe_refused(now, slot, group_id, out);
        }
        if self.is_past_its_deadline(now, slot) {
            return self.end(slot, JobOutcome::Expired, out);
        }
        self.wait(now, slot, group_id, kind);
    }

    /// Whether a job of an expiring class is past its deadline: it may finish what runs, but wait no more.
    #[inline]
    fn is_past_its_deadline(&self, now: Instant, slot: u32) -> bool {
        let job = &self.jobs[slot];
        job.deadline <= now && self.classes[job.class.index()].expires_own
    }

    #[inline(always)]
    fn wait(&mut self, now: Instant, slot: u32, group: GroupId, kind: KindId) {
        let job = &mut self.jobs[slot];
        job.state = JobState::Waiting;
        job.since = now;
        self.groups[group.index()].queues[kind.index()].push(&mut self.jobs, slot);
    }

    fn start_external(&mut self, now: Instant, slot: u32, group: GroupId, out: &mut impl Sink) {
        let pool = self.groups[group.index()].external.expect("the verdict asked for an external pool");
        self.pools[pool.index()].external_running += 1;
        self.jobs[slot].group = group;
        self.start_unplaced(now, slot, Some(pool), out);
    }

    /// A probe met no free slot: the retry policy decides.
    fn probe_refused(&mut self, now: Instant, slot: u32, group: GroupId, out: &mut impl Sink) {
        self.totals.probes_refused += 1;
        self.groups[group.index()].minute.probes_refused += 1;
        out.emit(Output::ProbeRefused { tag: self.jobs[slot].tag, cell: self.jobs[slot].cell });
        self.attempt_failed(now, slot, out);
    }

    fn attempt_failed(&mut self, now: Instant, slot: u32, out: &mut impl Sink) {
        let job = &mut self.jobs[slot];
        job.attempts = job.attempts.saturating_add(1);
        let (tag, attempts) = (job.tag, job.attempts);
        if job.stage_deliveries >= self.stages[job.stage.index()].deliveries_max {
            return self.end(slot, JobOutcome::Failed, out);
        }
        let chance = self.chance.child(tag).unit((u64::from(attempts) << 3) | DRAW_JITTER);
        match self.system.policies.retry.after_failure(u32::from(attempts), chance) {
            RetryVerdict::After(_) if self.is_past_its_deadline(now, slot) => {
                self.end(slot, JobOutcome::Expired, out);
            }
            RetryVerdict::After(pause) => {
                self.totals.retries += 1;
                self.hold(now, slot, pause);
            }
            RetryVerdict::GiveUp => self.end(slot, JobOutcome::Failed, out),
        }
    }

    /// Keeps a job out of every queue for `pause`, which counts as waiting.
    fn hold(&mut self, now: Instant, slot: u32, pause: Duration) {
        let at = now + pause;
        let job = &mut self.jobs[slot];
        job.state = JobState::Held;
        job.since = now;
        job.token = job.token.wrapping_add(1);
        self.backoffs.push((at, slot, job.token));
        self.note_wake(at);
    }

    /// A held job tries again, perhaps elsewhere.
    pub(super) fn resume(&mut self, now: Instant, slot: u32, out: &mut impl Sink) {
        let job = &self.jobs[slot];
        let (tag, attempts, region) = (job.tag, job.attempts, job.region);
        // Later stages keep their region: their input is there.
        let cell = if self.cells > 1 && job.stage == StageId(0) {
            self.route(tag, attempts, region)
        } else {
            job.cell
        };
        let job = &mut self.jobs[slot];
        job.cell = cell;
        job.waited += now.since(job.since).as_nanos();
        job.since = now;
        self.enter_stage(now, slot, out);
    }

    /// Starts the job on a slot that is on no free list.
    #[inline(always)]
    fn take_slot(
        &mut self,
        now: Instant,
        slot: u32,
        pool: PoolId,
        instance: InstanceId,
        out: &mut impl Sink,
    ) {
        let job = &mut self.jobs[slot];
        let kind = job.kind.index();
        let row = &self.stages[job.stage.index()];
        let group = &mut self.groups[job.group.index()];
        group.running[kind] += 1;
        if row.has_quality {
            let load = group.load(kind);
            job.quality = self.system.policies.quality.level(&mut group.quality, load);
        }
        let held = &mut self.instances[instance];
        held.busy[kind] += 1;
        let first = std::mem::replace(&mut held.first_job, slot);
        (job.prev, job.next) = (NONE, first);
        let started = job.start(now, slot, Some(pool), Some(instance), held.busy[kind]);
        if let Some(length) = row.lease {
            time_lease(&mut self.leases, &mut self.wake, job, slot, now + length);
        }
        if first != NONE {
            self.jobs[first].prev = slot;
        }
        out.emit(Output::Started(started));
    }

    /// Starts the job on no slot: outside, or by an external service.
    #[inline]
    fn start_unplaced(&mut self, now: Instant, slot: u32, pool: Option<PoolId>, out: &mut impl Sink) {
        let job = &mut self.jobs[slot];
        let started = job.start(now, slot, pool, None, 0);
        if let Some(length) = self.stages[job.stage.index()].lease {
            time_lease(&mut self.leases, &mut self.wake, job, slot, now + length);
        }
        out.emit(Output::Started(started));
    }

    #[inline(always)]
    pub(super) fn finish(&mut self, now: Instant, lease: Lease, result: StageResult, out: &mut impl Sink) {
        let slot = lease.slot;
        let job = match self.jobs.get_mut(slot) {
            Some(job) if job.token == lease.token && job.state == JobState::Running => job,
            _ => {
                self.totals.stale += 1;
                return;
            }
        };
        if result == StageResult::Done && job.stage.index() + 1 == self.stages.len() {
            // Removed before its slot goes on, while it is at hand; what is said of it comes after.
            let left = job.left(now);
            let ended = job.end(slot, JobOutcome::Done, left.held);
            self.jobs.free.push(slot);
            self.vacate_slot(now, left, true, out);
            return self.say_end(left.group, ended, out);
        }
        let left = job.leave(now);
        self.vacate_slot(now, left, result == StageResult::Done, out);
        match result {
            StageResult::Done => {}
            StageResult::Failed => return self.attempt_failed(now, slot, out),
            StageResult::Hopeless => return self.end(slot, JobOutcome::Failed, out),
        }
        let job = &mut self.jobs[slot];
        job.stage.0 += 1;
        job.attempts = 0;
        job.stage_deliveries = 0;
        self.enter_stage(now, slot, out);
    }

    /// Takes a running job off its slot, which the next waiting job gets at once.
    fn leave_slot(&mut self, now: Instant, slot: u32, out: &mut impl Sink) {
        let left = self.jobs[slot].leave(now);
        self.vacate_slot(now, left, false, out);
    }

    /// Gives the slot that a job left to the next waiting job.
    #[inline(always)]
    fn vacate_slot(&mut self, now: Instant, left: Left, completed: bool, out: &mut impl Sink) {
        let Left { instance: id, pool, group: group_id, kind, prev, next, held } = left;
        if id.0 == NONE {
            if pool.0 != u16::MAX {
                self.pools[pool.index()].external_running -= 1;
                self.fill_external(now, group_id, kind, out);
            }
            return;
        }
        let on = &mut self.instances[id];
        if prev == NONE {
            on.first_job = next;
        } else {
            self.jobs[prev].next = next;
        }
        if next != NONE {
            self.jobs[next].prev = prev;
        }
        let busy = on.busy[kind];
        on.busy[kind] = busy - 1;
        on.busy_ns += held;
        let group = &mut self.groups[group_id.index()];
        group.running[kind] -= 1;
        if completed {
            group.note_service(kind, held);
        }
        match on.state {
            InstanceState::Ready if group.queues[kind].len == 0 => {
                self.pools[pool.index()].vacate(on.seat, kind, busy);
            }
            InstanceState::Ready => match self.next_waiting(now, group_id, kind, out) {
                Some(next) => self.take_slot(now, next, pool, id, out),
                None => {
                    let seat = self.instances[id].seat;
                    self.pools[pool.index()].vacate(seat, kind, busy);
                }
            },
            InstanceState::Draining if on.busy_total() == 0 => self.terminate(now, id, out),
            _ => {}
        }
    }

    /// A call to an external service is over: where there is nothing else, the next waiting job follows it.
    pub(super) fn fill_external(
        &mut self,
        now: Instant,
        group_id: GroupId,
        kind: usize,
        out: &mut impl Sink,
    ) {
        if self.only_external_has_room(group_id)
            && let Some(next) = self.next_waiting(now, group_id, kind, out)
        {
            self.start_external(now, next, group_id, out);
        }
    }

    /// Takes the next job that is still worth serving out of the queue.
    #[inline(always)]
    fn next_waiting(
        &mut self,
        now: Instant,
        group_id: GroupId,
        kind: usize,
        out: &mut impl Sink,
    ) -> Option<u32> {
        loop {
            let slot = self.groups[group_id.index()].queues[kind].pop(&mut self.jobs)?;
            if !self.sheds || !self.is_too_late(now, slot) {
                return Some(slot);
            }
            let waited = now.since(self.jobs[slot].since);
            self.jobs[slot].waited += waited.as_nanos();
            self.end(slot, JobOutcome::Expired, out);
        }
    }

    /// Whether a job whose turn has come would miss its deadline even if it started now.
    fn is_too_late(&self, now: Instant, slot: u32) -> bool {
        let job = &self.jobs[slot];
        let Some(shedding) = self.system.policies.admission.shedding else { return false };
        let left = job.deadline.since(now);
        job.deadline != Instant::NEVER
            && self.stages[job.stage.index()].remaining > left.scaled(shedding.slack.max(1.0))
    }

    /// Fills free slots of a group from its queues.
    pub(super) fn fill(&mut self, now: Instant, group_id: GroupId, out: &mut impl Sink) {
        for kind in 0..crate::model::SLOT_KINDS_MAX {
            'slots: while self.groups[group_id.index()].queues[kind].len > 0 {
                for index in 0..self.groups[group_id.index()].pools.len() {
                    let pool = self.groups[group_id.index()].pools[index];
                    if self.pools[pool.index()].free_slots[kind] > 0 {
                        let Some(slot) = self.next_waiting(now, group_id, kind, out) else { break 'slots };
                        // Ending late jobs frees no slot and takes none.
                        let instance = self.pools[pool.index()].take(kind, self.packing);
                        let instance = instance.expect("a pool with free slots has an instance with one");
                        self.take_slot(now, slot, pool, instance, out);
                        continue 'slots;
                    }
                }
                break;
            }
        }
    }

    /// Takes running work away from a job and puts it back in front of its queue, or to the dead letters.
    pub(super) fn requeue(&mut self, now: Instant, slot: u32, out: &mut impl Sink) {
        let job = &self.jobs[slot];
        let lease = Lease { slot, token: job.token };
        let instance = (job.instance != NONE).then_some(InstanceId(job.instance));
        out.emit(Output::Revoked { lease, instance });
        self.leave_slot(now, slot, out);
        let job = &mut self.jobs[slot];
        job.token = job.token.wrapping_add(1);
        if job.stage_deliveries >= self.stages[job.stage.index()].deliveries_max {
            return self.end(slot, JobOutcome::Failed, out);
        }
        self.totals.retries += 1;
        let (stage, cell) = (self.jobs[slot].stage, self.jobs[slot].cell);
        let Some((group, kind)) = self.stage_group(stage, cell) else {
            return self.enter_stage(now, slot, out);
        };
        if self.system.queue_per_slot_max == Some(0.0)
            || self.has_free_slot(group, kind)
            || self.only_external_has_room(group)
        {
            return self.enter_stage(now, slot, out);
        }
        if self.is_past_its_deadline(now, slot) {
            return self.end(slot, JobOutcome::Expired, out);
        }
        let job = &mut self.jobs[slot];
        job.state = JobState::Waiting;
        job.since = now;
        self.groups[group.index()].queues[kind.index()].push_again(&mut self.jobs, slot);
    }

    pub(super) fn renew(&mut self, now: Instant, lease: Lease) {
        let job = match self.jobs.get(lease.slot) {
            Some(job) if job.token == lease.token && job.state == JobState::Running => job,
            _ => {
                self.totals.stale += 1;
                return;
            }
        };
        if let Some(length) = self.stages[job.stage.index()].lease {
            let job = &mut self.jobs[lease.slot];
            job.lease_until = job.lease_until.max(now + length); // to renew is never to shorten
        }
    }

    pub(super) fn expire_leases(&mut self, now: Instant, out: &mut impl Sink) {
        for stage in 0..self.leases.len() {
            while let Some((_, slot, token)) = self.leases[stage].pop_due(now) {
                if self.jobs.get(slot).is_some_and(|job| job.token == token && job.state == JobState::Running)
                {
                    self.lease_over(now, slot, out);
                }
            }
        }
    }

    /// A lease's first length is over: it was renewed, or the job goes back.
    pub(super) fn lease_over(&mut self, now: Instant, slot: u32, out: &mut impl Sink) {
        let (until, token) = (self.jobs[slot].lease_until, self.jobs[slot].token);
        if until == Instant::NEVER {
            return; // stages have no lease any more
        }
        if until > now {
            self.backoffs.push((until, slot, token));
        } else {
            self.requeue_elsewhere(now, slot, out);
        }
    }

    pub(super) fn expire_deadlines(&mut self, now: Instant, out: &mut impl Sink) {
        for class in 0..self.deadlines.len() {
            while let Some((_, slot, generation)) = self.deadlines[class].pop_due(now) {
                self.deadline_passed(now, JobId { slot, generation }, out);
            }
        }
        while let Some((_, slot, generation)) = self.own_deadlines.pop_due(now) {
            self.deadline_passed(now, JobId { slot, generation }, out);
        }
    }

    fn deadline_passed(&mut self, now: Instant, job: JobId, out: &mut impl Sink) {
        if self.jobs.live(job).is_some() && self.jobs[job.slot].state != JobState::Running {
            self.withdraw(now, job.slot, JobOutcome::Expired, out);
        }
    }

    pub(super) fn cancel(&mut self, now: Instant, job: JobId, scope: CancelScope, out: &mut impl Sink) {
        let Some(slot) = self.jobs.live(job) else {
            self.totals.stale += 1;
            return;
        };
        if scope == CancelScope::BeforeService && self.jobs[slot].was_served {
            return;
        }
        if self.jobs[slot].state == JobState::Running {
            let lease = Lease { slot, token: self.jobs[slot].token };
            let instance = self.jobs[slot].instance;
            out.emit(Output::Revoked { lease, instance: (instance != NONE).then_some(InstanceId(instance)) });
            self.leave_slot(now, slot, out);
            self.end(slot, JobOutcome::Cancelled, out);
        } else {
            self.withdraw(now, slot, JobOutcome::Cancelled, out);
        }
    }

    /// Ends a job that waits or is held.
    fn withdraw(&mut self, now: Instant, slot: u32, outcome: JobOutcome, out: &mut impl Sink) {
        let job = &mut self.jobs[slot];
        job.waited += now.since(job.since).as_nanos();
        if job.state == JobState::Waiting {
            let (group, kind) = (job.group, job.kind);
            self.groups[group.index()].queues[kind.index()].remove(&mut self.jobs, slot);
        }
        self.end(slot, outcome, out);
    }

    fn end(&mut self, slot: u32, outcome: JobOutcome, out: &mut impl Sink) {
        let group = self.jobs[slot].group;
        let ended = self.jobs.remove(slot, outcome, 0);
        self.say_end(group, ended, out);
    }

    #[inline(always)]
    fn say_end(&mut self, group: GroupId, ended: Ended, out: &mut impl Sink) {
        match ended.outcome {
            JobOutcome::Done => self.totals.done += 1,
            JobOutcome::Failed => self.totals.failed += 1,
            JobOutcome::Expired => self.totals.expired += 1,
            JobOutcome::Cancelled => self.totals.cancelled += 1,
            JobOutcome::Rejected => self.totals.rejected += 1,
        }
        // Where every stage is outside there is no group.
        if let Some(group) = self.groups.get_mut(group.index()) {
            if ended.outcome == JobOutcome::Done {
                group.minute.done += 1;
            } else {
                group.minute.lost += 1;
            }
        }
        out.emit(Output::Ended(ended));
    }

    /// The level of quality at which a job that starts now would be served, for tools.
    pub fn quality_now(&self, group: GroupId) -> QualityId {
        let group = &self.groups[group.index()];
        let mut state = group.quality;
        self.system.policies.quality.level(&mut state, group.load(group.scarce_kind))
    }
}
