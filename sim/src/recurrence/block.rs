//! A block of arrivals entering: their draws are taken and summed step by step, many jobs at a time, and all that does
//! not depend on waiting is recorded at once.

use policy::units::Duration;
use scenarios::scenario::{Edge, Operation, Scenario, SpanPoint};

use super::record::Records;
use crate::kernel::BLOCK;
use crate::outcome::Outcome;
use crate::world::{Pipeline, WorkKind};

/// Jobs of a block.
pub(super) const LANES: usize = 4 * BLOCK;

/// One time per job of a block, nanoseconds.
pub(super) type Lanes = [u64; LANES];

/// A span, by where it begins and ends.
#[derive(Clone, Copy)]
struct Span {
    from: SpanPoint,
    to: SpanPoint,
    excludes_compute: bool,
    /// Its place in the records when it depends on waiting.
    word: Option<usize>,
}

/// The work of every stage, for whole blocks.
pub(super) struct BlockWork {
    /// The pool that serves each stage.
    stages: Vec<usize>,
    spans: Vec<Span>,
    /// Span lengths without waiting, wrapping; by span.
    lengths: Vec<Lanes>,
    /// Whether times in compute steps are wanted.
    excludes_compute: bool,
}

impl BlockWork {
    /// `stages` holds each stage's pool.
    pub(super) fn new(scenario: &Scenario, stages: Vec<usize>) -> Self {
        let mut words = 0;
        let spans: Vec<Span> = scenario
            .spans
            .iter()
            .map(|row| {
                let word = (row.from.stage < row.to.stage).then_some(words);
                words += usize::from(word.is_some());
                Span { from: row.from, to: row.to, excludes_compute: row.excludes_compute, word }
            })
            .collect();
        let excludes_compute = spans.iter().any(|span| span.excludes_compute);
        Self { stages, lengths: vec![[0; LANES]; spans.len()], spans, excludes_compute }
    }

    /// Spans that end in another stage than they begin: number, stage of their begin and of their end.
    pub(super) fn crossing(&self) -> Vec<(usize, usize, usize)> {
        let spans = self.spans.iter().enumerate();
        spans.filter(|(_, span)| span.word.is_some()).map(|(at, s)| (at, s.from.stage, s.to.stage)).collect()
    }

    /// Works the jobs `tag..tag + count` out and writes them to their `slots`; the first `unmeasured` leave no
    /// statistics. Returns each stage's total time.
    pub(super) fn enter(
        &mut self,
        pipeline: &mut Pipeline,
        records: &mut Records,
        outcome: &mut Outcome,
        (tag, slots, unmeasured): (u64, &[u32], usize),
        busy: &mut [u64],
    ) {
        let count = slots.len();
        let mut compute: Lanes = [0; LANES];
        self.lengths.iter_mut().for_each(|lengths| *lengths = [0; LANES]);
        for (stage, busy) in busy.iter_mut().enumerate().take(self.stages.len()) {
            let mut took: Lanes = [0; LANES];
            for step in 0..pipeline.stages[stage].steps.len() {
                self.pass(SpanPoint { stage, step, edge: Edge::Start }, &took, &compute);
                let time = self.time(pipeline, stage, step, tag);
                let row = &pipeline.stages[stage].steps[step];
                match row.kind {
                    WorkKind::Transfer { stat, .. } => {
                        outcome.transfers[stat as usize].2.record_all(&time[unmeasured..count]);
                    }
                    WorkKind::Compute if self.excludes_compute => {
                        compute.iter_mut().zip(&time).for_each(|(sum, time)| *sum += time);
                    }
                    WorkKind::Compute | WorkKind::Wait => {}
                }
                took.iter_mut().zip(&time).for_each(|(sum, time)| *sum += time);
                self.pass(SpanPoint { stage, step, edge: Edge::End }, &took, &compute);
            }
            outcome.stages[stage].service.record_all(&took[unmeasured..count]);
            *busy += took[..count].iter().sum::<u64>();
            records.write_times(stage, slots, &took);
        }
        for (span, (row, lengths)) in self.spans.iter().zip(&self.lengths).enumerate() {
            let is_in_order = (row.from.step, row.from.edge as u8) < (row.to.step, row.to.edge as u8);
            match row.word {
                Some(word) => records.write_length(word, slots, lengths),
                None if row.from.stage == row.to.stage && is_in_order => {
                    outcome.spans[span].record_all(&lengths[unmeasured..count]);
                }
                None => {}
            }
        }
    }

    /// Times of one step.
    #[inline]
    fn time(&self, pipeline: &mut Pipeline, stage: usize, step: usize, tag: u64) -> Lanes {
        let row = &pipeline.stages[stage].steps[step];
        let (kind, payload) = (row.kind, row.payload_ns);
        let factor = row.factor.get(self.stages[stage]).copied().unwrap_or(1.0);
        let mut time: Lanes = [row.constant_ns; LANES];
        if let Some(draw) = row.draw {
            for (block, lanes) in time.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                *lanes = *pipeline.block(draw, tag + (block * BLOCK) as u64);
            }
        }
        match kind {
            WorkKind::Compute if factor != 1.0 => {
                time.iter_mut().for_each(|t| *t = Duration::from_nanos(*t).scaled(factor).as_nanos());
            }
            WorkKind::Transfer { .. } if payload > 0 => time.iter_mut().for_each(|t| *t += payload),
            WorkKind::Compute | WorkKind::Wait | WorkKind::Transfer { .. } => {}
        }
        time
    }

    /// Spans that begin or end at `point` take their offset from the stage's start.
    #[inline]
    fn pass(&mut self, point: SpanPoint, offset: &Lanes, compute: &Lanes) {
        for (span, lengths) in self.spans.iter().zip(&mut self.lengths) {
            for (end, sign) in [(span.to, 1), (span.from, u64::MAX)] {
                if end != point {
                    continue;
                }
                for lane in 0..LANES {
                    let without = if span.excludes_compute { compute[lane] } else { 0 };
                    let at = offset[lane].wrapping_sub(without);
                    lengths[lane] = lengths[lane].wrapping_add(at.wrapping_mul(sign));
                }
            }
        }
    }
}

/// Notes what `count` jobs move through the tiers.
pub(super) fn count_transfers(scenario: &Scenario, pipeline: &Pipeline, outcome: &mut Outcome, count: u64) {
    for row in pipeline.stages.iter().flat_map(|stage| &stage.steps) {
        if let WorkKind::Transfer { tier, operation, .. } = row.kind {
            let size = row.size.get();
            let free = scenario.tiers[tier as usize].prices.free_bytes.get();
            let used = &mut outcome.tiers[tier as usize][usize::from(operation == Operation::Put)];
            used.requests += count;
            used.bytes += size * count;
            used.priced_bytes += size.saturating_sub(free) * count;
        }
    }
}
