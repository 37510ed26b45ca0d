//! The tapes on which the event loop notes times, and how they are counted into the outcome.

use crate::outcome::Outcome;
use crate::stats::Tape;

/// One tape per statistic that is noted for every job.
pub(super) struct Tapes {
    waits: Vec<Tape>,
    services: Vec<Tape>,
    /// By transfer statistic; the last one takes what is not counted.
    transfers: Vec<Tape>,
    latency: Tape,
}

impl Tapes {
    pub(super) fn new(outcome: &Outcome) -> Self {
        Self {
            waits: vec![Tape::EMPTY; outcome.stages.len()],
            services: vec![Tape::EMPTY; outcome.stages.len()],
            transfers: vec![Tape::EMPTY; outcome.transfers.len() + 1],
            latency: Tape::EMPTY,
        }
    }

    /// Notes a wait before `stage`, nanoseconds.
    #[inline(always)]
    pub(super) fn note_wait(&mut self, outcome: &mut Outcome, stage: usize, nanos: u64) {
        if self.waits[stage].note(nanos) {
            self.count_waits(outcome, stage);
        }
    }

    /// Notes a completed attempt at `stage`, nanoseconds.
    #[inline(always)]
    pub(super) fn note_service(&mut self, outcome: &mut Outcome, stage: usize, nanos: u64) {
        if self.services[stage].note(nanos) {
            self.count_services(outcome, stage);
        }
    }

    /// The statistic of what is not counted.
    #[inline(always)]
    pub(super) fn void_transfer(&self) -> usize {
        self.transfers.len() - 1
    }

    /// Notes a transfer, nanoseconds.
    #[inline(always)]
    pub(super) fn note_transfer(&mut self, outcome: &mut Outcome, stat: usize, nanos: u64) {
        if self.transfers[stat].note(nanos) {
            self.count_transfers(outcome, stat);
        }
    }

    /// Notes the time of a done job in the system, nanoseconds.
    #[inline(always)]
    pub(super) fn note_latency(&mut self, outcome: &mut Outcome, nanos: u64) {
        if self.latency.note(nanos) {
            self.count_latency(outcome);
        }
    }

    /// Counts what is left on all tapes.
    pub(super) fn finish(&mut self, outcome: &mut Outcome) {
        for stage in 0..self.waits.len() {
            self.count_waits(outcome, stage);
            self.count_services(outcome, stage);
        }
        for stat in 0..self.transfers.len() {
            self.count_transfers(outcome, stat);
        }
        self.count_latency(outcome);
    }

    #[inline(never)]
    fn count_waits(&mut self, outcome: &mut Outcome, stage: usize) {
        let waits = self.waits[stage].take();
        let stats = &mut outcome.stages[stage];
        stats.wait.record_all(waits);
        stats.wait_batches.record_all(waits);
    }

    #[inline(never)]
    fn count_services(&mut self, outcome: &mut Outcome, stage: usize) {
        outcome.stages[stage].service.record_all(self.services[stage].take());
    }

    #[inline(never)]
    fn count_transfers(&mut self, outcome: &mut Outcome, stat: usize) {
        let times = self.transfers[stat].take();
        if let Some((_, _, histogram)) = outcome.transfers.get_mut(stat) {
            histogram.record_all(times);
        }
    }

    #[inline(never)]
    fn count_latency(&mut self, outcome: &mut Outcome) {
        let latencies = self.latency.take();
        outcome.latency.record_all(latencies);
        outcome.latency_batches.record_all(latencies);
    }
}
