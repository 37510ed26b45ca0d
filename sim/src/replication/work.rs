//! Work on slots: steps begin and end, spans pass their marks, stages finish or are revoked.

use policy::dispatch::{Input, StageResult, Started};
use policy::model::{Lease, PoolId};
use policy::units::Duration;
use policy::units::random::mix;

use super::Event;
use super::world::World;
use crate::kernel::EventClass;
use crate::world::{CHAIN, WHOLE, WorkKind};

/// A stage of a job that is finished, well or not.
#[derive(Clone, Copy)]
pub(super) struct Finished {
    pub(super) lease: Lease,
    pub(super) result: StageResult,
}

impl From<Finished> for Input {
    #[inline(always)]
    fn from(Finished { lease, result }: Finished) -> Self {
        Self::StageFinished { lease, result }
    }
}

impl World<'_> {
    #[inline(always)]
    pub(super) fn started(&mut self, started: &Started) {
        let slot = started.lease.slot;
        let stage = started.stage.index();
        let progress = &mut self.pipeline.progress[slot as usize];
        if progress.measured {
            self.tapes.note_wait(&mut self.outcome, stage, started.waited.as_nanos());
        }
        if started.delivery == 1 {
            progress.saved_step = u16::MAX;
        } else {
            self.outcome.stages[stage].retries += 1;
        }
        let row = &self.pipeline.stages[stage];
        progress.token = started.lease.token;
        progress.stage = stage as u16;
        progress.step = if row.single.is_some() { WHOLE } else { 0 };
        progress.delivery = started.delivery;
        progress.pool = started.pool.map_or(u16::MAX, |pool| pool.0);
        progress.started = self.now;
        if let (Some(pool), None) = (started.pool, started.instance) {
            let started = *started;
            return self.call_external(slot, pool, &started);
        }
        if let Some(draw) = row.single {
            let time = self.pipeline.draw(slot, draw);
            if time > 0 {
                let event = Event::StepDone { slot, token: started.lease.token };
                return self.calendar.push(self.now.saturating_add(time), EventClass::Completion, event);
            }
            self.pipeline.progress[slot as usize].step = 0;
        }
        let row = &self.pipeline.stages[stage];
        if row.steps.is_empty() {
            let finished = self.finish_stage(slot);
            return self.answers.push(finished.into());
        }
        let (first_code, is_chain) = (row.first_code, row.is_chain);
        let factor = if row.is_plain {
            1.0
        } else {
            let started = *started;
            self.time_factor(&started)
        };
        let progress = &mut self.pipeline.progress[slot as usize];
        progress.factor = factor as f32;
        progress.code = first_code;
        if is_chain {
            return self.begin_chain(slot);
        }
        if let Some(finished) = self.begin_step(slot) {
            self.answers.push(finished.into());
        }
    }

    /// A step is over, unless its work was revoked: on to the next, or the stage is finished.
    #[inline(always)]
    pub(super) fn step_done(&mut self, slot: u32, token: u32) -> Option<Finished> {
        let progress = &self.pipeline.progress[slot as usize];
        if progress.token != token {
            return None;
        }
        if progress.step >= CHAIN {
            if progress.step == CHAIN {
                self.pass_chain(slot);
            }
            return Some(self.finish_stage(slot));
        }
        if self.end_step(slot) {
            return Some(self.finish_stage(slot));
        }
        self.begin_step(slot)
    }

    /// How much longer than the reference compute steps take: quality, neighbours, probes. What the pool's speed does is in
    /// each step's own factors.
    #[inline]
    pub(super) fn time_factor(&self, started: &Started) -> f64 {
        let mut factor = 1.0;
        if started.pool.is_some() {
            let slowdown = &self.pipeline.stages[started.stage.index()].slowdown;
            if let Some(last) = slowdown.last() {
                factor *= slowdown.get(started.busy as usize - 1).unwrap_or(last);
            }
        }
        if self.scenario.system.stages[started.stage.index()].has_quality {
            factor *= self.scenario.system.qualities[started.quality.index()].service_factor;
        }
        let cost = self.scenario.network.probe_cost;
        if cost > Duration::ZERO && started.pool.is_some() {
            factor *= 1.0 + self.probe_load(started.cell, cost);
        }
        factor
    }

    pub(super) fn call_external(&mut self, slot: u32, pool: PoolId, started: &Started) {
        self.outcome.pools[pool.index()].calls += 1;
        let key = mix(started.tag).wrapping_add(started.stage.index() as u64);
        let sampler = self.external[pool.index()].as_ref();
        let time = sampler.map_or(0, |sampler| sampler.single(key));
        self.pipeline.progress[slot as usize].step = WHOLE;
        let event = Event::StepDone { slot, token: started.lease.token };
        self.calendar.push(self.now.saturating_add(time), EventClass::Completion, event);
    }

    /// Begins all steps of the stage, which nothing looks at until the last has ended.
    #[inline(always)]
    fn begin_chain(&mut self, slot: u32) {
        let mut time = 0_u64;
        loop {
            let (step_time, is_last) = self.chain_step(slot);
            time = time.saturating_add(step_time);
            let progress = &mut self.pipeline.progress[slot as usize];
            if is_last {
                progress.step = CHAIN;
                break;
            }
            progress.step += 1;
            progress.code += 1;
        }
        let token = self.pipeline.progress[slot as usize].token;
        if time == 0 {
            self.pass_chain(slot);
            let finished = self.finish_stage(slot);
            return self.answers.push(finished.into());
        }
        let event = Event::StepDone { slot, token };
        self.calendar.push(self.now.saturating_add(time), EventClass::Completion, event);
    }

    /// Time of the present step of a chain, and whether it is the last.
    #[inline(always)]
    fn chain_step(&self, slot: u32) -> (u64, bool) {
        let pipeline = &self.pipeline;
        let progress = &pipeline.progress[slot as usize];
        let code = &pipeline.codes[progress.code as usize];
        let is_slowed = progress.factor != 1.0 || code.has_factors || progress.saved_step == progress.step;
        let base = match code.draw {
            Some(draw) => pipeline.draw(slot, draw),
            None => code.constant_ns,
        };
        let base = if is_slowed { self.slowed(slot, base) } else { base };
        (base + code.payload_ns, code.is_last)
    }

    /// Passes the steps of a chain that were begun by now, each at its time; one that has not ended becomes the present.
    #[inline]
    fn pass_chain(&mut self, slot: u32) {
        let progress = &mut self.pipeline.progress[slot as usize];
        let measured = progress.measured;
        let stage = &self.pipeline.stages[progress.stage as usize];
        (progress.step, progress.code, progress.step_started) = (0, stage.first_code, progress.started);
        loop {
            let (took, is_last) = self.chain_step(slot);
            let progress = &mut self.pipeline.progress[slot as usize];
            let code = &mut self.pipeline.codes[progress.code as usize];
            code.begun += 1;
            let end = progress.step_started.saturating_add(took);
            if end > self.now {
                return;
            }
            progress.compute_ns += took * u64::from(code.is_compute);
            let stat = if measured { code.stat as usize } else { self.tapes.void_transfer() };
            progress.step += 1;
            progress.code += 1;
            progress.step_started = end;
            self.tapes.note_transfer(&mut self.outcome, stat, took);
            if is_last {
                return;
            }
        }
    }

    /// Begins the present step, and those after it that take no time; says when that finished the stage.
    #[inline(always)]
    pub(super) fn begin_step(&mut self, slot: u32) -> Option<Finished> {
        loop {
            let pipeline = &mut self.pipeline;
            let progress = &mut pipeline.progress[slot as usize];
            let code = &mut pipeline.codes[progress.code as usize];
            code.begun += 1;
            progress.step_started = self.now;
            // What kind of step it is nobody can predict, so nobody asks: most of this is nothing for most kinds.
            let is_slowed =
                progress.factor != 1.0 || code.has_factors || progress.saved_step == progress.step;
            let (token, has_start_marks) = (progress.token, code.has_start_marks);
            let (is_limited, payload) = (code.is_limited, code.payload_ns);
            let base = match code.draw {
                Some(draw) => pipeline.draw(slot, draw),
                None => code.constant_ns,
            };
            let base = if is_slowed { self.slowed(slot, base) } else { base };
            let held_back = if is_limited { self.throttled(slot) } else { 0 };
            let time = base + payload + held_back;
            if has_start_marks {
                self.pass_marks(slot, true);
            }
            if time > 0 {
                let event = Event::StepDone { slot, token };
                self.calendar.push(self.now.saturating_add(time), EventClass::Completion, event);
                return None;
            }
            if self.end_step(slot) {
                return Some(self.finish_stage(slot));
            }
        }
    }

    /// Time of the present step, `time` at best: where it computes, less what a checkpoint saved, by its pool's factors.
    #[inline(never)]
    fn slowed(&self, slot: u32, mut time: u64) -> u64 {
        let progress = &self.pipeline.progress[slot as usize];
        let code = &self.pipeline.codes[progress.code as usize];
        if !code.is_compute {
            return time;
        }
        if progress.saved_step == progress.step {
            time = time.saturating_sub(progress.saved_ns);
        }
        let mut factor = f64::from(progress.factor);
        if code.has_factors {
            let row = &self.pipeline.stages[progress.stage as usize].steps[progress.step as usize];
            factor *= row.factor.get(progress.pool as usize).unwrap_or(&1.0);
        }
        if factor == 1.0 { time } else { Duration::from_nanos(time).scaled(factor).as_nanos() }
    }

    /// How long a request-rate limit holds the present step back, nanoseconds.
    #[inline(never)]
    fn throttled(&mut self, slot: u32) -> u64 {
        let progress = &self.pipeline.progress[slot as usize];
        let row = &self.pipeline.stages[progress.stage as usize].steps[progress.step as usize];
        match row.kind {
            WorkKind::Transfer { tier, operation, .. } => {
                self.storage.throttle(self.now, tier as usize, operation)
            }
            WorkKind::Compute | WorkKind::Wait => 0,
        }
    }

    /// Notes the end of the present step and moves to the next; true when it was the stage's last.
    #[inline(always)]
    pub(super) fn end_step(&mut self, slot: u32) -> bool {
        let progress = &mut self.pipeline.progress[slot as usize];
        let code = &self.pipeline.codes[progress.code as usize];
        let took = self.now - progress.step_started;
        // Without asking for the kind, as above.
        progress.compute_ns += took * u64::from(code.is_compute);
        let stat = if progress.measured { code.stat as usize } else { self.tapes.void_transfer() };
        let (is_last, has_end_marks) = (code.is_last, code.has_end_marks);
        self.tapes.note_transfer(&mut self.outcome, stat, took);
        if has_end_marks {
            self.pass_marks(slot, false);
        }
        let progress = &mut self.pipeline.progress[slot as usize];
        progress.step += 1;
        progress.code += 1;
        is_last
    }

    pub(super) fn pass_marks(&mut self, slot: u32, at_start: bool) {
        let progress = self.pipeline.progress[slot as usize];
        let step = &self.pipeline.stages[progress.stage as usize].steps[progress.step as usize];
        let count = if at_start { step.at_start.len() } else { step.at_end.len() };
        for index in 0..count {
            let step = &self.pipeline.stages[progress.stage as usize].steps[progress.step as usize];
            let (span, begins) = if at_start { step.at_start[index] } else { step.at_end[index] };
            let now = self.now;
            let mark = self.pipeline.mark(slot, span);
            if begins {
                // A repeated attempt does not start the span again: the client waited through the first.
                if mark.from == u64::MAX {
                    (mark.from, mark.compute_before) = (now, progress.compute_ns);
                }
            } else if mark.from != u64::MAX {
                let (from, before) = (mark.from, mark.compute_before);
                let compute = if self.scenario.spans[span as usize].excludes_compute {
                    progress.compute_ns - before
                } else {
                    0
                };
                if progress.measured {
                    self.outcome.spans[span as usize].record((now - from).saturating_sub(compute));
                }
            }
        }
    }

    #[inline(always)]
    fn finish_stage(&mut self, slot: u32) -> Finished {
        let progress = &self.pipeline.progress[slot as usize];
        let failure = self.pipeline.stages[progress.stage as usize].failure;
        let mut result = StageResult::Done;
        if failure > 0.0 {
            let attempt = u64::from(progress.stage) << 32 | u64::from(progress.delivery);
            if self.failure_chance.child(progress.tag).unit(attempt) < failure {
                result = StageResult::Failed;
            }
        }
        if progress.measured && result == StageResult::Done {
            let took = self.now - progress.started;
            self.tapes.note_service(&mut self.outcome, progress.stage as usize, took);
        }
        let lease = Lease { slot, token: progress.token };
        Finished { lease, result }
    }

    /// Work stops; what a checkpoint saved is kept for the next attempt.
    pub(super) fn revoked(&mut self, lease: Lease) {
        let progress = &mut self.pipeline.progress[lease.slot as usize];
        if progress.token != lease.token {
            return;
        }
        if progress.step == CHAIN {
            self.pass_chain(lease.slot);
        }
        let progress = &mut self.pipeline.progress[lease.slot as usize];
        let stage = &self.pipeline.stages[progress.stage as usize];
        if let (Some(every), Some(step)) = (stage.checkpoint, stage.steps.get(progress.step as usize))
            && step.kind == WorkKind::Compute
            && every > Duration::ZERO
        {
            let pool_factor = step.factor.get(progress.pool as usize).copied().unwrap_or(1.0);
            let worked =
                (self.now - progress.step_started) as f64 / (f64::from(progress.factor) * pool_factor);
            let saved = worked as u64 / every.as_nanos() * every.as_nanos();
            let before = if progress.saved_step == progress.step { progress.saved_ns } else { 0 };
            progress.saved_step = progress.step;
            progress.saved_ns = before + saved;
        }
        progress.token = lease.token.wrapping_sub(1);
    }
}
