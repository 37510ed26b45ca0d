//! How a job moves: arrival, stages, waiting, starting, finishing, failing, leaving.

use super::instance::InstanceState;
use super::job::{JobState, NONE};
use super::{CancelScope, Dispatcher, Ended, Output, StageResult, Started};
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

impl Dispatcher {
    #[inline]
    pub(super) fn arrive(
        &mut self,
        now: Instant,
        tag: u64,
        class: ClassId,
        region: RegionId,
        out: &mut Vec<Output>,
    ) {
        self.totals.arrived += 1;
        self.demand[region.index()].arrived += 1;
        let slot = self.jobs.insert(tag, class, region, now);
        let cell = if self.cells == 1 { RegionId(0) } else { self.route(tag, 0, region) };
        let row = &self.system.classes[class.index()];
        let (priority, deadline, expires) = (row.priority, row.deadline, row.expires);
        let job = &mut self.jobs[slot];
        job.cell = cell;
        job.priority = priority.min(7);
        if let Some(limit) = deadline {
            job.deadline = now + limit;
        }
        if let Some(why) = self.refuses(now, slot) {
            self.reject(slot, why, out);
            return;
        }
        if expires && let Some(limit) = deadline {
            self.deadlines[class.index()].push((now + limit, slot, self.jobs[slot].generation));
            self.note_wake(now + limit);
        }
        out.push(Output::Accepted { job: self.jobs.id(slot), tag });
        let chance = self.chance.child(tag);
        if self.first_slot_stage != Some(StageId(0)) {
            self.note_first_group(slot);
        }
        let held = match &self.system.policies.retry {
            retry @ crate::policies::Retry::Backoff { execution_delay: Some(_), .. } => {
                retry.execution_delay(chance.unit(DRAW_HELD), chance.unit(DRAW_HELD_LENGTH))
            }
            _ => Duration::ZERO,
        };
        if held == Duration::ZERO {
            self.enter_stage(now, slot, out);
        } else {
            self.note_first_group(slot);
            self.hold(now, slot, held);
        }
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
    #[inline]
    fn enter_stage(&mut self, now: Instant, slot: u32, out: &mut Vec<Output>) {
        let (stage, cell) = (self.jobs[slot].stage, self.jobs[slot].cell);
        let (pool_class, kind) = match self.stages[stage.index()].place {
            Place::Outside => return self.start(now, slot, None, None, 0, out),
            Place::Slot { pool_class, kind } => (pool_class, kind),
        };
        let group_id = self.group_of(pool_class, cell).expect("jobs are routed to serving regions only");
        let first_attempt = self.jobs[slot].attempts == 0 && self.jobs[slot].stage_deliveries == 0;
        let group = &mut self.groups[group_id.index()];
        if first_attempt {
            // Scaling sees the work of the slots that run out first, so that arrivals times service time is their load.
            group.tick.arrived += u64::from(kind.index() == group.scarce_kind);
            group.minute.arrived += 1;
        }
        let job = &mut self.jobs[slot];
        (job.group, job.kind) = (group_id, kind);
        for index in 0..self.groups[group_id.index()].pools.len() {
            let pool = self.groups[group_id.index()].pools[index];
            if let Some(instance) =
                self.pools[pool.index()].choose(kind.index(), self.system.policies.packing)
            {
                return self.occupy(now, slot, pool, instance, out);
            }
        }
        if self.groups[group_id.index()].external.is_some()
            && self.verdict(now, slot, group_id, kind) == AdmissionVerdict::Overflow
        {
            return self.start_external(now, slot, group_id, out);
        }
        if self.system.queue_per_slot_max == Some(0.0) {
            return self.probe_refused(now, slot, group_id, out);
        }
        if self.is_past_its_deadline(now, slot) {
            return self.end(now, slot, JobOutcome::Expired, out);
        }
        self.wait(now, slot, group_id, kind);
    }

    /// Whether a job of an expiring class is past its deadline: it may finish what runs, but wait no more.
    #[inline]
    fn is_past_its_deadline(&self, now: Instant, slot: u32) -> bool {
        let job = &self.jobs[slot];
        job.deadline <= now && self.system.classes[job.class.index()].expires
    }

    #[inline(always)]
    fn wait(&mut self, now: Instant, slot: u32, group: GroupId, kind: KindId) {
        let job = &mut self.jobs[slot];
        job.state = JobState::Waiting;
        job.since = now;
        self.groups[group.index()].queues[kind.index()].push(&mut self.jobs, slot);
    }

    fn start_external(&mut self, now: Instant, slot: u32, group: GroupId, out: &mut Vec<Output>) {
        let pool = self.groups[group.index()].external.expect("the verdict asked for an external pool");
        self.pools[pool.index()].external_running += 1;
        self.jobs[slot].group = group;
        self.start(now, slot, Some(pool), None, 0, out);
    }

    /// A probe met no free slot: the retry policy decides.
    fn probe_refused(&mut self, now: Instant, slot: u32, group: GroupId, out: &mut Vec<Output>) {
        self.totals.probes_refused += 1;
        self.groups[group.index()].minute.probes_refused += 1;
        out.push(Output::ProbeRefused { tag: self.jobs[slot].tag, cell: self.jobs[slot].cell });
        self.attempt_failed(now, slot, out);
    }

    fn attempt_failed(&mut self, now: Instant, slot: u32, out: &mut Vec<Output>) {
        let job = &mut self.jobs[slot];
        job.attempts = job.attempts.saturating_add(1);
        let (tag, attempts) = (job.tag, job.attempts);
        if job.stage_deliveries >= self.stages[job.stage.index()].deliveries_max {
            return self.end(now, slot, JobOutcome::Failed, out);
        }
        let chance = self.chance.child(tag).unit((u64::from(attempts) << 3) | DRAW_JITTER);
        match self.system.policies.retry.after_failure(u32::from(attempts), chance) {
            RetryVerdict::After(_) if self.is_past_its_deadline(now, slot) => {
                self.end(now, slot, JobOutcome::Expired, out);
            }
            RetryVerdict::After(pause) => {
                self.totals.retries += 1;
                self.hold(now, slot, pause);
            }
            RetryVerdict::GiveUp => self.end(now, slot, JobOutcome::Failed, out),
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
    pub(super) fn resume(&mut self, now: Instant, slot: u32, out: &mut Vec<Output>) {
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

    /// Gives the job one slot of `instance`.
    #[inline(always)]
    fn occupy(&mut self, now: Instant, slot: u32, pool: PoolId, instance: InstanceId, out: &mut Vec<Output>) {
        let kind = self.jobs[slot].kind.index();
        let held = &mut self.instances[instance];
        self.pools[pool.index()].occupy(held.seat, kind, held.busy[kind]);
        self.take_slot(now, slot, pool, instance, out);
    }

    /// Starts the job on a slot that is on no free list.
    #[inline(always)]
    fn take_slot(
        &mut self,
        now: Instant,
        slot: u32,
        pool: PoolId,
        instance: InstanceId,
        out: &mut Vec<Output>,
    ) {
        let kind = self.jobs[slot].kind.index();
        let held = &mut self.instances[instance];
        held.busy[kind] += 1;
        let busy = held.busy[kind];
        let first = held.first_job;
        held.first_job = slot;
        if first != NONE {
            self.jobs[first].prev = slot;
        }
        let job = &mut self.jobs[slot];
        (job.prev, job.next) = (NONE, first);
        let group_id = job.group;
        let group = &mut self.groups[group_id.index()];
        group.running[kind] += 1;
        if self.stages[job.stage.index()].has_quality {
            let load = group.load(kind);
            job.quality = self.system.policies.quality.level(&mut group.quality, load);
        }
        self.start(now, slot, Some(pool), Some(instance), busy, out);
    }

    #[inline(always)]
    fn start(
        &mut self,
        now: Instant,
        slot: u32,
        pool: Option<PoolId>,
        instance: Option<InstanceId>,
        busy: u16,
        out: &mut Vec<Output>,
    ) {
        let job = &mut self.jobs[slot];
        let waited = if job.state == JobState::Waiting { now.since(job.since) } else { Duration::ZERO };
        job.waited += waited.as_nanos();
        job.state = JobState::Running;
        job.since = now;
        job.token = job.token.wrapping_add(1);
        job.instance = instance.map_or(NONE, |id| id.0);
        job.pool = pool.unwrap_or(PoolId(u16::MAX));
        job.deliveries = job.deliveries.saturating_add(1);
        job.stage_deliveries = job.stage_deliveries.saturating_add(1);
        // Stages outside (the client's own upload) are not yet service: patience still runs.
        job.was_served |= pool.is_some();
        let lease = Lease { slot, token: job.token };
        let (stage, quality) = (job.stage, job.quality);
        out.push(Output::Started(Started {
            lease,
            tag: job.tag,
            stage,
            instance,
            pool,
            cell: job.cell,
            quality,
            busy,
            delivery: job.stage_deliveries,
            waited,
        }));
        if let Some(length) = self.stages[stage.index()].lease {
            let until = now + length;
            self.jobs[slot].lease_until = until;
            self.leases[stage.index()].push((until, slot, lease.token));
            self.note_wake(until);
        }
    }

    #[inline]
    pub(super) fn finish(&mut self, now: Instant, lease: Lease, result: StageResult, out: &mut Vec<Output>) {
        let slot = lease.slot;
        match self.jobs.get(slot) {
            Some(job) if job.token == lease.token && job.state == JobState::Running => {}
            _ => {
                self.totals.stale += 1;
                return;
            }
        }
        self.leave_slot(now, slot, result == StageResult::Done, out);
        if result == StageResult::Failed {
            return self.attempt_failed(now, slot, out);
        }
        let job = &mut self.jobs[slot];
        if job.stage.index() + 1 == self.stages.len() {
            return self.end(now, slot, JobOutcome::Done, out);
        }
        job.stage.0 += 1;
        job.attempts = 0;
        job.stage_deliveries = 0;
        self.enter_stage(now, slot, out);
    }

    /// Takes a running job off its slot, which the next waiting job gets at once.
    #[inline(always)]
    fn leave_slot(&mut self, now: Instant, slot: u32, completed: bool, out: &mut Vec<Output>) {
        let job = &mut self.jobs[slot];
        let held = now.since(job.since).as_nanos();
        job.served += held;
        job.state = JobState::Held;
        job.since = now;
        let (instance, pool, kind, group_id) = (job.instance, job.pool, job.kind.index(), job.group);
        if instance == NONE {
            if pool.0 != u16::MAX {
                self.pools[pool.index()].external_running -= 1;
                self.fill_external(now, group_id, kind, out);
            }
            return;
        }
        let (prev, next) = (job.prev, job.next);
        job.instance = NONE;
        let id = InstanceId(instance);
        if prev == NONE {
            self.instances[id].first_job = next;
        } else {
            self.jobs[prev].next = next;
        }
        if next != NONE {
            self.jobs[next].prev = prev;
        }
        let group = &mut self.groups[group_id.index()];
        group.running[kind] -= 1;
        if completed {
            group.note_service(kind, held);
        }
        let on = &mut self.instances[id];
        let busy = on.busy[kind];
        on.busy[kind] -= 1;
        on.busy_ns += held;
        match on.state {
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
    fn fill_external(&mut self, now: Instant, group_id: GroupId, kind: usize, out: &mut Vec<Output>) {
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
        out: &mut Vec<Output>,
    ) -> Option<u32> {
        loop {
            let slot = self.groups[group_id.index()].queues[kind].pop(&mut self.jobs)?;
            if !self.sheds || !self.is_too_late(now, slot) {
                return Some(slot);
            }
            let waited = now.since(self.jobs[slot].since);
            self.jobs[slot].waited += waited.as_nanos();
            self.end(now, slot, JobOutcome::Expired, out);
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
    pub(super) fn fill(&mut self, now: Instant, group_id: GroupId, out: &mut Vec<Output>) {
        for kind in 0..crate::model::SLOT_KINDS_MAX {
            'slots: while self.groups[group_id.index()].queues[kind].len > 0 {
                for index in 0..self.groups[group_id.index()].pools.len() {
                    let pool = self.groups[group_id.index()].pools[index];
                    if let Some(instance) =
                        self.pools[pool.index()].choose(kind, self.system.policies.packing)
                    {
                        let Some(slot) = self.next_waiting(now, group_id, kind, out) else { break 'slots };
                        self.occupy(now, slot, pool, instance, out);
                        continue 'slots;
                    }
                }
                break;
            }
        }
    }

    /// Takes running work away from a job and puts it back in front of its queue, or to the dead letters.
    pub(super) fn requeue(&mut self, now: Instant, slot: u32, out: &mut Vec<Output>) {
        let job = &self.jobs[slot];
        let lease = Lease { slot, token: job.token };
        let instance = (job.instance != NONE).then_some(InstanceId(job.instance));
        out.push(Output::Revoked { lease, instance });
        self.leave_slot(now, slot, false, out);
        let job = &mut self.jobs[slot];
        job.token = job.token.wrapping_add(1);
        if job.stage_deliveries >= self.stages[job.stage.index()].deliveries_max {
            return self.end(now, slot, JobOutcome::Failed, out);
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
            return self.end(now, slot, JobOutcome::Expired, out);
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
            self.jobs[lease.slot].lease_until = now + length;
        }
    }

    pub(super) fn expire_leases(&mut self, now: Instant, out: &mut Vec<Output>) {
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
    pub(super) fn lease_over(&mut self, now: Instant, slot: u32, out: &mut Vec<Output>) {
        let (until, token) = (self.jobs[slot].lease_until, self.jobs[slot].token);
        if until > now {
            self.backoffs.push((until, slot, token));
        } else {
            self.requeue(now, slot, out);
        }
    }

    pub(super) fn expire_deadlines(&mut self, now: Instant, out: &mut Vec<Output>) {
        for class in 0..self.deadlines.len() {
            while let Some((_, slot, generation)) = self.deadlines[class].pop_due(now) {
                if self.jobs.live(JobId { slot, generation }).is_some()
                    && self.jobs[slot].state != JobState::Running
                {
                    self.withdraw(now, slot, JobOutcome::Expired, out);
                }
            }
        }
    }

    pub(super) fn cancel(&mut self, now: Instant, job: JobId, scope: CancelScope, out: &mut Vec<Output>) {
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
            out.push(Output::Revoked { lease, instance: (instance != NONE).then_some(InstanceId(instance)) });
            self.leave_slot(now, slot, false, out);
            self.end(now, slot, JobOutcome::Cancelled, out);
        } else {
            self.withdraw(now, slot, JobOutcome::Cancelled, out);
        }
    }

    /// Ends a job that waits or is held.
    fn withdraw(&mut self, now: Instant, slot: u32, outcome: JobOutcome, out: &mut Vec<Output>) {
        let job = &mut self.jobs[slot];
        job.waited += now.since(job.since).as_nanos();
        if job.state == JobState::Waiting {
            let (group, kind) = (job.group, job.kind);
            self.groups[group.index()].queues[kind.index()].remove(&mut self.jobs, slot);
        }
        self.end(now, slot, outcome, out);
    }

    #[inline(always)]
    fn end(&mut self, _now: Instant, slot: u32, outcome: JobOutcome, out: &mut Vec<Output>) {
        let id = self.jobs.id(slot);
        let job = &self.jobs[slot];
        match outcome {
            JobOutcome::Done => self.totals.done += 1,
            JobOutcome::Failed => self.totals.failed += 1,
            JobOutcome::Expired => self.totals.expired += 1,
            JobOutcome::Cancelled => self.totals.cancelled += 1,
            JobOutcome::Rejected => self.totals.rejected += 1,
        }
        // Where every stage is outside there is no group.
        if let Some(group) = self.groups.get_mut(job.group.index()) {
            if outcome == JobOutcome::Done {
                group.minute.done += 1;
            } else {
                group.minute.lost += 1;
            }
        }
        out.push(Output::Ended(Ended {
            job: id,
            tag: job.tag,
            outcome,
            class: job.class,
            region: job.region,
            cell: job.cell,
            arrived: job.arrived,
            waited: Duration::from_nanos(job.waited),
            served: Duration::from_nanos(job.served),
            deliveries: job.deliveries,
            quality: job.quality,
        }));
        self.jobs.remove(slot);
    }

    /// The level of quality at which a job that starts now would be served, for tools.
    pub fn quality_now(&self, group: GroupId) -> QualityId {
        let group = &self.groups[group.index()];
        let mut state = group.quality;
        self.system.policies.quality.level(&mut state, group.load(group.scarce_kind))
    }
}
