//! The pipeline as the event loop needs it: steps with their draws, span marks, and what each job has done of them.

use policy::units::random::Stream;
use policy::units::{Bytes, Duration};
use scenarios::scenario::{Edge, Operation, Scenario, StepKind};

use crate::kernel::{BLOCK, Sampler};

/// What a step does, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkKind {
    Compute,
    Wait,
    /// `tier` in the scenario; `stat` in the transfer statistics.
    Transfer {
        tier: u16,
        operation: Operation,
        stat: u16,
    },
}

/// One step, compiled.
#[derive(Clone, Debug)]
pub(crate) struct StepRow {
    pub(crate) kind: WorkKind,
    /// Which of the job's draws; the constant below when it has none.
    pub(crate) draw: Option<u16>,
    pub(crate) constant_ns: u64,
    /// Added to a transfer: payload over the tier's rate.
    pub(crate) payload_ns: u64,
    pub(crate) size: Bytes,
    /// Factor by pool on compute steps; empty is 1.
    pub(crate) factor: Vec<f64>,
    /// Spans that start (true) or end (false) with the step's start, and with its end.
    pub(crate) at_start: Vec<(u16, bool)>,
    pub(crate) at_end: Vec<(u16, bool)>,
}

/// What the event loop reads of a step each time; the rest is in its row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepCode {
    /// How often it was begun.
    pub(crate) begun: u64,
    /// It asks a storage tier that limits the rate of requests.
    pub(crate) is_limited: bool,
    /// The transfer statistic that takes its time; a step that is no transfer has the one that is not counted.
    pub(crate) stat: u16,
    pub(crate) is_compute: bool,
    /// As in the row.
    pub(crate) draw: Option<u16>,
    pub(crate) constant_ns: u64,
    pub(crate) payload_ns: u64,
    pub(crate) has_start_marks: bool,
    pub(crate) has_end_marks: bool,
    pub(crate) has_factors: bool,
    /// The stage is finished after it.
    pub(crate) is_last: bool,
}

impl StepCode {
    fn new(row: &StepRow, is_last: bool, is_limited: bool, transfers: usize) -> Self {
        let stat = match row.kind {
            WorkKind::Transfer { stat, .. } => stat,
            WorkKind::Compute | WorkKind::Wait => transfers as u16,
        };
        Self {
            begun: 0,
            is_limited,
            stat,
            is_compute: row.kind == WorkKind::Compute,
            draw: row.draw,
            constant_ns: row.constant_ns,
            payload_ns: row.payload_ns,
            has_start_marks: !row.at_start.is_empty(),
            has_end_marks: !row.at_end.is_empty(),
            has_factors: !row.factor.is_empty(),
            is_last,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct StageRow {
    pub(crate) steps: Vec<StepRow>,
    /// Place of its first step among the codes.
    pub(crate) first_code: u16,
    pub(crate) slowdown: Vec<f64>,
    pub(crate) failure: f64,
    pub(crate) checkpoint: Option<Duration>,
    /// Every time factor but those of its steps is 1: no quality ladder, no neighbours or probes to slow it.
    pub(crate) is_plain: bool,
    /// How long its steps take is known when they begin, and nothing looks at it before they end: one event at the end
    /// does, and the steps are passed then, each at its time.
    pub(crate) is_chain: bool,
    /// The one thing that happens is the draw of a single step that nothing else looks at.
    pub(crate) single: Option<u16>,
}

/// In place of a step: one event ends the stage, whose steps are passed then.
pub(crate) const CHAIN: u16 = u16::MAX - 1;

/// In place of a step: one event ends the stage, and there are no steps to pass.
pub(crate) const WHOLE: u16 = u16::MAX;

/// What a job has done so far. One cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(crate) struct Progress {
    pub(crate) tag: u64,
    /// Token of the lease under which work goes on; events of older leases are void.
    pub(crate) token: u32,
    pub(crate) stage: u16,
    /// The present step of its stage, or [`CHAIN`], or [`WHOLE`].
    pub(crate) step: u16,
    /// The same among all stages' codes.
    pub(crate) code: u16,
    pub(crate) pool: u16,
    /// Asked before: how often, for clients that ask again.
    pub(crate) asked: u16,
    /// Time factor of compute steps beside their own: quality and interference.
    pub(crate) factor: f32,
    pub(crate) started: u64,
    pub(crate) step_started: u64,
    /// Nanoseconds of reference work that a checkpoint has saved of step `saved_step`.
    pub(crate) saved_ns: u64,
    pub(crate) saved_step: u16,
    pub(crate) delivery: u16,
    pub(crate) measured: bool,
    /// Total time in compute steps.
    pub(crate) compute_ns: u64,
}

/// An open or finished span of one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpanMark {
    pub(crate) from: u64,
    pub(crate) compute_before: u64,
}

impl SpanMark {
    pub(crate) const NONE: Self = Self { from: u64::MAX, compute_before: 0 };
}

/// The pipeline, and per job slot its draws, progress and span marks.
pub(crate) struct Pipeline {
    pub(crate) stages: Vec<StageRow>,
    /// All stages' steps, end to end.
    pub(crate) codes: Vec<StepCode>,
    samplers: Vec<Sampler>,
    draws: Vec<u64>,
    pub(crate) progress: Vec<Progress>,
    spans: usize,
    marks: Vec<SpanMark>,
    /// (tier, operation) of each transfer statistic.
    pub(crate) transfers: Vec<(usize, Operation)>,
}

impl Pipeline {
    pub(crate) fn new(scenario: &Scenario, replication: u64) -> Self {
        let mut samplers = Vec::new();
        let mut transfers: Vec<(usize, Operation)> = Vec::new();
        let mut stages: Vec<StageRow> = Vec::new();
        let mut steps_before = 0;
        for (stage, work) in scenario.stages.iter().enumerate() {
            let name = &scenario.system.stages[stage].name;
            let mut steps = Vec::new();
            for (index, step) in work.steps.iter().enumerate() {
                let stream =
                    Stream::new(scenario.run.seed, replication, &format!("step/{name}/{}", step.name));
                let (law, factor) = match &step.kind {
                    StepKind::Compute { time, factor } => (time, factor.clone()),
                    StepKind::Wait { time } => (time, Vec::new()),
                    StepKind::Transfer { tier, operation, .. } => {
                        let tier = &scenario.tiers[*tier];
                        let row = if *operation == Operation::Get { &tier.get } else { &tier.put };
                        (&row.latency, Vec::new())
                    }
                };
                let sampler = Sampler::new(law, stream);
                let draw = (!sampler.is_constant()).then_some(samplers.len() as u16);
                let constant_ns = law.mean().as_nanos();
                if draw.is_some() {
                    samplers.push(sampler);
                }
                let (kind, payload_ns, size) = match &step.kind {
                    StepKind::Compute { .. } => (WorkKind::Compute, 0, Bytes::ZERO),
                    StepKind::Wait { .. } => (WorkKind::Wait, 0, Bytes::ZERO),
                    StepKind::Transfer { tier, operation, size } => {
                        let stat = transfers.iter().position(|known| known == &(*tier, *operation));
                        let stat = stat.unwrap_or_else(|| {
                            transfers.push((*tier, *operation));
                            transfers.len() - 1
                        });
                        let row = &scenario.tiers[*tier];
                        let row = if *operation == Operation::Get { &row.get } else { &row.put };
                        let seconds =
                            row.bytes_per_s.map_or(0.0, |rate| size.get() as f64 / rate.max(1) as f64);
                        let kind = WorkKind::Transfer {
                            tier: *tier as u16,
                            operation: *operation,
                            stat: stat as u16,
                        };
                        (kind, Duration::from_secs_f64(seconds).as_nanos(), *size)
                    }
                };
                let marks = |edge: Edge| {
                    let here = |point: &scenarios::scenario::SpanPoint| {
                        (point.stage, point.step, point.edge) == (stage, index, edge)
                    };
                    let mut found = Vec::new();
                    for (span, row) in scenario.spans.iter().enumerate() {
                        if here(&row.to) {
                            found.push((span as u16, false));
                        }
                        if here(&row.from) {
                            found.push((span as u16, true));
                        }
                    }
                    found
                };
                let (at_start, at_end) = (marks(Edge::Start), marks(Edge::End));
                steps.push(StepRow { kind, draw, constant_ns, payload_ns, size, factor, at_start, at_end });
            }
            let is_plain = work.slowdown.is_empty()
                && !scenario.system.stages[stage].has_quality
                && scenario.network.probe_cost == Duration::ZERO;
            let single = match steps.as_slice() {
                [StepRow { kind: WorkKind::Compute, draw: Some(draw), factor, .. }]
                    if is_plain
                        && factor.is_empty()
                        && work.checkpoint.is_none()
                        && scenario.spans.is_empty() =>
                {
                    Some(*draw)
                }
                _ => None,
            };
            let is_chain = steps
                .iter()
                .all(|row| row.at_start.is_empty() && row.at_end.is_empty() && !is_limited(scenario, row));
            let first_code = steps_before as u16;
            steps_before += steps.len();
            stages.push(StageRow {
                steps,
                first_code,
                slowdown: work.slowdown.clone(),
                failure: work.failure,
                checkpoint: work.checkpoint,
                is_plain,
                is_chain,
                single,
            });
        }
        let codes = stages.iter().flat_map(|stage| {
            let steps = stage.steps.iter().enumerate();
            steps.map(|(at, row)| {
                let is_limited = is_limited(scenario, row);
                StepCode::new(row, at + 1 == stage.steps.len(), is_limited, transfers.len())
            })
        });
        Self {
            codes: codes.collect(),
            stages,
            samplers,
            draws: Vec::new(),
            progress: Vec::new(),
            spans: scenario.spans.len(),
            marks: Vec::new(),
            transfers,
        }
    }

    /// Makes room for a new job in `slot` and draws all its times. Tags of first-time jobs ascend, so blocks serve them.
    #[inline(always)]
    pub(crate) fn enter(&mut self, slot: u32, tag: u64, asked: u16, measured: bool) {
        let slot = slot as usize;
        let count = self.samplers.len();
        if slot >= self.progress.len() {
            self.make_room(slot);
        }
        self.progress[slot] = Progress { tag, asked, measured, saved_step: u16::MAX, ..Progress::default() };
        let draws = &mut self.draws[slot * count..][..count];
        if asked == 0 {
            for (draw, sampler) in draws.iter_mut().zip(&mut self.samplers) {
                *draw = sampler.at(tag);
            }
        } else {
            draw_again(draws, &self.samplers, tag);
        }
        if self.spans > 0 {
            self.marks[slot * self.spans..][..self.spans].fill(SpanMark::NONE);
        }
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, slot: usize) {
        self.progress.resize(slot + 1, Progress::default());
        self.draws.resize((slot + 1) * self.samplers.len(), 0);
        self.marks.resize((slot + 1) * self.spans, SpanMark::NONE);
    }

    /// Gives every step an event of its own.
    pub(crate) fn unchain(&mut self) {
        self.stages.iter_mut().for_each(|stage| stage.is_chain = false);
    }

    /// How often each transfer was begun.
    pub(crate) fn transfers_begun(&self) -> impl Iterator<Item = (usize, Operation, Bytes, u64)> {
        let rows = self.stages.iter().flat_map(|stage| &stage.steps);
        rows.zip(&self.codes).filter_map(|(row, code)| match row.kind {
            WorkKind::Transfer { tier, operation, .. } => {
                Some((tier as usize, operation, row.size, code.begun))
            }
            WorkKind::Compute | WorkKind::Wait => None,
        })
    }

    /// Draws number `draw` of the jobs `base..base + BLOCK`.
    #[inline]
    pub(crate) fn block(&mut self, draw: u16, base: u64) -> &[u64; BLOCK] {
        self.samplers[draw as usize].block(base)
    }

    #[inline(always)]
    pub(crate) fn draw(&self, slot: u32, draw: u16) -> u64 {
        self.draws[slot as usize * self.samplers.len() + draw as usize]
    }

    #[inline(always)]
    pub(crate) fn mark(&mut self, slot: u32, span: u16) -> &mut SpanMark {
        &mut self.marks[slot as usize * self.spans + span as usize]
    }
}

/// Whether a step asks a storage tier that limits the rate of requests.
fn is_limited(scenario: &Scenario, row: &StepRow) -> bool {
    match row.kind {
        WorkKind::Transfer { tier, operation, .. } => {
            let tier = &scenario.tiers[tier as usize];
            let row = if operation == Operation::Get { &tier.get } else { &tier.put };
            row.rate_max.is_some()
        }
        WorkKind::Compute | WorkKind::Wait => false,
    }
}

/// The draws of a job that is asked for again.
#[cold]
#[inline(never)]
fn draw_again(draws: &mut [u64], samplers: &[Sampler], tag: u64) {
    for (draw, sampler) in draws.iter_mut().zip(samplers) {
        *draw = sampler.single(tag);
    }
}
