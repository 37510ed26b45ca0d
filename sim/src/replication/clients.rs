//! Clients: they arrive, lose patience, get their result or ask again; what became of their jobs is counted here.

use policy::dispatch::{Ended, Input};
use policy::model::{ClassId, JobId, RegionId};
use policy::records::{JobOutcome, JobRow};
use policy::units::Instant;
use policy::units::random::{Stream, mix};

use super::world::World;
use super::{Event, Keep, REASKED};
use crate::kernel::EventClass;
use crate::outcome::Marks;
use crate::world::Reasking;

impl World<'_> {
    #[inline]
    pub(super) fn count_arrival(&mut self) {
        self.outcome.note_arrival(&self.scenario.windows, self.now, self.warmup);
    }

    #[inline(always)]
    pub(super) fn accepted(&mut self, job: JobId, tag: u64) {
        let asked = if tag & REASKED == 0 { 0 } else { (tag >> 56 & 0x7F) as u16 };
        self.pipeline.enter(job.slot, tag, asked, self.now >= self.warmup);
        if let Some(patience) = &mut self.patience {
            let limit = if asked == 0 { patience.at(tag) } else { patience.single(tag) };
            let event = Event::Patience { slot: job.slot, generation: job.generation };
            self.calendar.push(self.now.saturating_add(limit), EventClass::Patience, event);
        }
    }

    pub(super) fn rejected(&mut self, tag: u64, class: ClassId, region: RegionId) {
        let asked = if tag & REASKED == 0 { 0 } else { (tag >> 56 & 0x7F) as u16 };
        self.count_end(self.now, JobOutcome::Rejected, None);
        if self.keep == Keep::Records {
            let at = Instant::from_nanos(self.now).as_secs_f64();
            self.sample_row(JobRow {
                job: tag,
                class: self.scenario.system.classes[class.index()].name.clone(),
                region: crate::outcome::group_region(&self.scenario.system, region),
                arrived_s: at,
                ended_s: at,
                outcome: JobOutcome::Rejected,
                wait_s: 0.0,
                service_s: 0.0,
                deliveries: 0,
                quality: String::new(),
                weight: 1.0,
            });
        }
        self.think_again(tag, class, region, asked);
    }

    #[inline(always)]
    pub(super) fn ended(&mut self, ended: &Ended) {
        let arrived = ended.arrived.as_nanos();
        let mut latency = self.now - arrived;
        let done = ended.outcome == JobOutcome::Done;
        let regions = self.scenario.system.regions.len();
        if self.is_regional {
            latency += self.network_ns[ended.region.index() * regions + ended.cell.index()];
            if ended.region != ended.cell {
                self.outcome.served_away += u64::from(done);
                self.moved.between_regions += self.scenario.network.bytes_per_job.get();
            }
        }
        self.count_end(arrived, ended.outcome, done.then_some(latency));
        if done {
            self.moved.egress += self.scenario.network.egress_bytes_per_job.get();
        }
        if self.keep == Keep::Records {
            let ended = *ended;
            self.keep_row(&ended);
        }
        if !done {
            let asked = self.pipeline.progress[ended.job.slot as usize].asked;
            self.think_again(ended.tag, ended.class, ended.region, asked);
        }
    }

    /// Counts the end of a job that arrived at `arrived`; `latency` is that of a done one, nanoseconds.
    #[inline(always)]
    fn count_end(&mut self, arrived: u64, outcome: JobOutcome, latency: Option<u64>) {
        if arrived >= self.warmup {
            let on_time = latency.is_some_and(|latency| latency <= self.deadline);
            self.outcome.jobs.count(outcome, on_time);
            if let Some(latency) = latency {
                self.tapes.note_latency(&mut self.outcome, latency);
            }
        }
        if !self.scenario.windows.is_empty() {
            let windows = &self.scenario.windows;
            let marks = Marks { windows, deadline: self.deadline };
            self.outcome.note_end_in_windows(marks, arrived, outcome, latency);
        }
    }

    #[cold]
    #[inline(never)]
    fn keep_row(&mut self, ended: &Ended) {
        let system = &self.scenario.system;
        let row = JobRow {
            job: ended.tag,
            class: system.classes[ended.class.index()].name.clone(),
            region: crate::outcome::group_region(system, ended.region),
            arrived_s: ended.arrived.as_secs_f64(),
            ended_s: Instant::from_nanos(self.now).as_secs_f64(),
            outcome: ended.outcome,
            wait_s: ended.waited.as_secs_f64(),
            service_s: ended.served.as_secs_f64(),
            deliveries: u32::from(ended.deliveries),
            quality: system.qualities[ended.quality.index()].name.clone(),
            weight: 1.0,
        };
        self.sample_row(row);
    }

    pub(super) fn sample_row(&mut self, row: JobRow) {
        let stream = Stream::new(self.scenario.run.seed, self.replication, "records/sample");
        self.sample_words += 1;
        self.sample.offer(row, stream.bits(self.sample_words));
    }

    /// A client without a result asks again, perhaps.
    pub(super) fn think_again(&mut self, tag: u64, class: ClassId, region: RegionId, asked: u16) {
        let Some(reask) = &self.scenario.clients.reask else { return };
        if u32::from(asked) >= reask.times_max.min(127)
            || self.reask_chance.unit(tag) >= reask.probability.get()
        {
            return;
        }
        let delay = self.reask_delay.as_ref().map_or(0, |law| law.single(tag));
        let at = self.now.saturating_add(delay);
        if at >= self.scenario.run.horizon.as_nanos() {
            return;
        }
        let client = self.reasks.insert(Reasking { tag, class, region, asked: asked + 1 });
        self.calendar.push(at, EventClass::Market, Event::Reask { client });
    }

    /// The input of a client that asks again.
    pub(super) fn ask_again(&mut self, client: u32) -> Input {
        let Reasking { tag, class, region, asked } = self.reasks.remove(client);
        self.outcome.asked_again += 1;
        self.count_arrival();
        let number = mix(tag ^ u64::from(asked)) & ((1 << 56) - 1);
        let tag = REASKED | u64::from(asked & 0x7F) << 56 | number;
        Input::JobArrived { tag, class, region }
    }
}
