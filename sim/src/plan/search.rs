//! The search: what is tried (`sweep`) is run, ranked, raced and stressed here.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use scenarios::scenario::{Arrivals, Scenario};

use super::candidate::{Candidate, Typed};
use super::demand::Demand;
use super::stress::{Limit, Survival, limit_of};
use super::verdict::{Evaluation, Shortfall};
use crate::experiment::one;
use crate::inputs::Inputs;
use crate::outcome::Outcome;
use crate::replication::{Keep, SimError};

/// Candidates in the race.
const FINALISTS: usize = 8;

/// Replications of a finalist in the first heat.
const FIRST_HEAT: usize = 4;

/// Runners-up shown.
const RUNNERS_UP: usize = 3;

/// Plans of one scaling rule whose costs differ by less than this share are one plan for a reader.
const TWIN: f64 = 0.005;

/// Largest spike tried, as a multiple of the planned arrivals.
const STRESS_MAX: f64 = 16.0;

/// Steps of the bisection between the last factor survived and the first that was not.
const STRESS_STEPS: u32 = 4;

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Threads (≥ 1).
    pub threads: usize,
    /// Fewer replications: an answer sooner, with wider intervals.
    pub quick: bool,
}

/// Watches the search.
pub trait Watch: Sync {
    /// `done` runs of about `total` are complete; the search is now in `stage`.
    fn step(&self, stage: &str, done: usize, total: usize);

    /// Whether to stop as soon as possible.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A run failed.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// A candidate's overrides do not fit the scenario.
    #[error("the planner's own candidate `{name}` does not fit the scenario: {why}")]
    Variant { name: String, why: String },
    /// Stopped by the caller.
    #[error("stopped before the search was over")]
    Cancelled,
}

/// One candidate on the chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its name.
    pub name: String,
    /// Cost of a thousand done jobs, dollars.
    pub cost_per_1000: f64,
    /// 95th percentile of latency, seconds.
    pub p95_s: f64,
    /// Share of jobs on time.
    pub on_time_ratio: f64,
    /// Whether it meets the objective.
    pub meets: bool,
    /// Whether nothing else is both cheaper and faster.
    pub is_front: bool,
}

/// A candidate that lost.
#[derive(Clone, Debug)]
pub struct RunnerUp {
    /// What it measured.
    pub evaluation: Evaluation,
    /// Why it lost, in a sentence.
    pub why: String,
}

/// What the search found.
#[derive(Debug)]
pub struct Plan {
    /// The recommended candidate, or the nearest miss.
    pub best: Evaluation,
    /// The scenario of that candidate.
    pub scenario: Scenario,
    /// Whether it meets the objective.
    pub meets: bool,
    /// What the nearest miss lacks; empty when it meets the objective.
    pub shortfalls: Vec<Shortfall>,
    /// The next best, at most three.
    pub runners_up: Vec<RunnerUp>,
    /// Every candidate tried.
    pub points: Vec<Point>,
    /// The largest spike survived, and what gives way.
    pub survival: Survival,
    /// Highest arrival rate planned for, per second over one minute.
    pub peak_per_s: f64,
    /// Mean arrival rate, per second.
    pub mean_per_s: f64,
    /// Whether the plan starts instances before the demand that the scenario describes, and so trusts the forecast.
    pub trusts_forecast: bool,
    /// Outcomes of the best candidate's replications, in order.
    pub outcomes: Vec<Outcome>,
    /// Runs made.
    pub runs: usize,
    /// Runs that the recurrence made.
    pub by_recurrence: usize,
}

/// Makes the scenario that a list of overrides gives.
pub type Variant<'a> = dyn Fn(&[String]) -> Result<Scenario, String> + Sync + 'a;

pub(super) struct Search<'a> {
    pub(super) base: &'a Scenario,
    inputs: &'a Inputs,
    variant: &'a Variant<'a>,
    threads: usize,
    quick: bool,
    watch: &'a dyn Watch,
    pub(super) demand: Demand,
    pub(super) peak_per_s: f64,
    pub(super) found: Vec<Tried>,
    done: AtomicUsize,
    expected: usize,
    by_recurrence: AtomicUsize,
}

/// A candidate, its scenario, and what it measured.
pub(super) struct Tried {
    pub(super) evaluation: Evaluation,
    scenario: Scenario,
    outcomes: Vec<Outcome>,
}

/// Searches for the cheapest plan that meets the objective of `base`.
///
/// # Errors
/// [`PlanError`] when a run fails or the caller stops the search.
pub fn search(
    base: &Scenario,
    inputs: &Inputs,
    variant: &Variant<'_>,
    options: PlanOptions,
    watch: &dyn Watch,
) -> Result<Plan, PlanError> {
    let demand = Demand::measure(base, inputs).map_err(SimError::from)?;
    // A fleet may let jobs wait for part of the deadline, so the peak is taken over about that long.
    let window_s = (base.objective.deadline.as_secs_f64() / 2.0).clamp(60.0, 1800.0);
    let peak_per_s = demand.peak_per_s(window_s);
    let mut search = Search {
        base,
        inputs,
        variant,
        threads: options.threads.max(1),
        quick: options.quick,
        watch,
        demand,
        peak_per_s,
        found: Vec::new(),
        done: AtomicUsize::new(0),
        expected: 150,
        by_recurrence: AtomicUsize::new(0),
    };
    search.size()?;
    search.sweep()?;
    search.cross()?;
    search.race()?;
    search.refine()?;
    search.conclude()
}

impl Search<'_> {
    /// More replications for the best, in two heats.
    fn race(&mut self) -> Result<(), PlanError> {
        let finalists: Vec<usize> = self.ranking().into_iter().take(FINALISTS).collect();
        self.replicate("race", &finalists, FIRST_HEAT)?;
        let last: Vec<usize> =
            self.ranking().into_iter().filter(|index| finalists.contains(index)).take(4).collect();
        self.replicate("race", &last, self.replications_max())
    }

    pub(super) fn replications_max(&self) -> usize {
        if self.quick { FIRST_HEAT } else { (self.base.plan.replications_max as usize).max(FIRST_HEAT) }
    }

    /// Candidates by worth: those that meet the objective by cost, then the others by what they lack.
    ///
    /// After a race, a candidate of few replications does not pass one of many.
    pub(super) fn ranking(&self) -> Vec<usize> {
        let most = self.found.iter().map(|tried| tried.evaluation.replications()).max().unwrap_or(0);
        let key = |index: &usize| {
            let evaluation = &self.found[*index].evaluation;
            let raced = evaluation.replications() == most;
            let missing = evaluation.distance(self.base);
            (missing > 0.0, !raced, missing, evaluation.cost())
        };
        let mut order: Vec<usize> = (0..self.found.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (key(a), key(b));
            (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)).then(a.3.total_cmp(&b.3))
        });
        order
    }

    /// Tries candidates that are not known yet, one replication each.
    pub(super) fn try_all(&mut self, stage: &str, batch: Vec<Candidate>) -> Result<(), PlanError> {
        let first = self.found.len();
        for candidate in batch {
            let same = |tried: &Tried| {
                let known = &tried.evaluation.candidate;
                (&known.sets, &known.typed) == (&candidate.sets, &candidate.typed)
            };
            if self.found.iter().any(same) {
                continue;
            }
            let mut scenario = (self.variant)(&candidate.sets)
                .map_err(|why| PlanError::Variant { name: candidate.name.clone(), why })?;
            candidate.typed.apply(&mut scenario);
            let evaluation = Evaluation::new(candidate);
            self.found.push(Tried { evaluation, scenario, outcomes: Vec::new() });
        }
        let added: Vec<usize> = (first..self.found.len()).collect();
        self.replicate(stage, &added, 1)
    }

    /// Brings candidates to `wanted` replications, all threads at work.
    pub(super) fn replicate(&mut self, stage: &str, which: &[usize], wanted: usize) -> Result<(), PlanError> {
        let mut tasks = Vec::new();
        for index in which {
            for number in self.found[*index].evaluation.replications()..wanted {
                tasks.push((*index, number as u64));
            }
        }
        let scenarios: Vec<&Scenario> = tasks.iter().map(|(index, _)| &self.found[*index].scenario).collect();
        let jobs: Vec<(&Scenario, u64)> =
            scenarios.into_iter().zip(tasks.iter().map(|task| task.1)).collect();
        let outcomes = self.run_all(stage, &jobs)?;
        for ((index, _), outcome) in tasks.into_iter().zip(outcomes) {
            self.found[index].evaluation.add(&outcome);
            self.found[index].outcomes.push(outcome);
        }
        Ok(())
    }

    /// Runs each (scenario, replication), in parallel, results in order.
    fn run_all(&self, stage: &str, jobs: &[(&Scenario, u64)]) -> Result<Vec<Outcome>, PlanError> {
        let results: Vec<Mutex<Option<Result<Outcome, SimError>>>> =
            jobs.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= jobs.len() || self.watch.is_cancelled() {
                    return;
                }
                let (scenario, number) = jobs[index];
                let result = one(scenario, self.inputs, number, Keep::Statistics);
                if result.as_ref().is_ok_and(|outcome| outcome.by_recurrence) {
                    self.by_recurrence.fetch_add(1, Ordering::Relaxed);
                }
                *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
                self.watch.step(stage, done, self.expected.max(done));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(jobs.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut outcomes = Vec::new();
        for slot in results {
            match slot.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Some(result) => outcomes.push(result?),
                None => return Err(PlanError::Cancelled),
            }
        }
        Ok(outcomes)
    }

    fn conclude(mut self) -> Result<Plan, PlanError> {
        let ranking = self.ranking();
        let best = ranking[0];
        let survival = self.stress(&self.found[best].scenario)?;
        let points = self.points();
        let winner = self.found[best].evaluation.clone();
        let runners_up = self.runners_up(&ranking, &winner);
        let chosen = self.found.swap_remove(best);
        let shortfalls = chosen.evaluation.shortfalls(self.base);
        Ok(Plan {
            meets: shortfalls.is_empty(),
            trusts_forecast: chosen.evaluation.candidate.scaling == super::sweep::SCHEDULE,
            best: chosen.evaluation,
            scenario: chosen.scenario,
            shortfalls,
            runners_up,
            points,
            survival,
            peak_per_s: self.peak_per_s,
            mean_per_s: self.demand.mean_per_s(),
            outcomes: chosen.outcomes,
            runs: self.done.load(Ordering::Relaxed),
            by_recurrence: self.by_recurrence.load(Ordering::Relaxed),
        })
    }

    /// The next best plans that differ from those before them, the last one scaled by another rule where there is one.
    fn runners_up(&self, ranking: &[usize], winner: &Evaluation) -> Vec<RunnerUp> {
        let twin = |a: &Evaluation, b: &Evaluation| {
            a.candidate.scaling == b.candidate.scaling && (a.cost() / b.cost().max(1e-9) - 1.0).abs() < TWIN
        };
        let mut chosen: Vec<&Evaluation> = vec![winner];
        for index in &ranking[1..] {
            let here = &self.found[*index].evaluation;
            let last = chosen.len() == RUNNERS_UP;
            let known_rule = chosen.iter().any(|known| known.candidate.scaling == here.candidate.scaling);
            if chosen.len() <= RUNNERS_UP
                && !chosen.iter().any(|known| twin(known, here))
                && !(last && known_rule)
            {
                chosen.push(here);
            }
        }
        let lost = |evaluation: &&Evaluation| RunnerUp {
            evaluation: (*evaluation).clone(),
            why: why_lost(evaluation, winner, self.base),
        };
        chosen[1..].iter().map(lost).collect()
    }

    fn points(&self) -> Vec<Point> {
        let of = |tried: &Tried| {
            let evaluation = &tried.evaluation;
            (evaluation.cost_per_1000(), evaluation.p95())
        };
        let better = |a: (f64, f64), b: (f64, f64)| a.0 <= b.0 && a.1 <= b.1 && a != b;
        let point = |tried: &Tried| {
            let here = of(tried);
            Point {
                name: tried.evaluation.candidate.name.clone(),
                cost_per_1000: here.0,
                p95_s: here.1,
                on_time_ratio: tried.evaluation.on_time_ratio(),
                meets: tried.evaluation.meets(self.base),
                is_front: !self.found.iter().any(|other| better(of(other), here)),
            }
        };
        self.found.iter().map(point).collect()
    }

    /// The largest multiple of the planned arrivals at which the shares of the objective still hold.
    fn stress(&self, scenario: &Scenario) -> Result<Survival, PlanError> {
        let try_factor = |factor: f64| -> Result<(bool, Outcome, Scenario), PlanError> {
            let stressed = scaled(scenario, factor);
            let mut outcomes = self.run_all("stress", &[(&stressed, 0), (&stressed, 1)])?;
            let mut evaluation = Evaluation::new(Candidate {
                name: String::new(),
                sets: Vec::new(),
                floor: None,
                scaling: String::new(),
                typed: Typed::default(),
            });
            outcomes.iter().for_each(|outcome| evaluation.add(outcome));
            let objective = &self.base.objective;
            let holds = evaluation.on_time_ratio() >= objective.on_time_min.get()
                && evaluation.success_ratio() >= objective.success_min.get();
            Ok((holds, outcomes.swap_remove(0), stressed))
        };
        let (mut low, mut high) = (0.0, 1.0);
        let mut failure = None;
        loop {
            let (holds, outcome, stressed) = try_factor(high)?;
            if !holds {
                failure = Some((outcome, stressed));
                break;
            }
            low = high;
            if high >= STRESS_MAX {
                break;
            }
            high *= 2.0;
        }
        if failure.is_some() {
            for _ in 0..STRESS_STEPS {
                let middle = f64::midpoint(low, high);
                let (holds, outcome, stressed) = try_factor(middle)?;
                if holds {
                    low = middle;
                } else {
                    high = middle;
                    failure = Some((outcome, stressed));
                }
            }
        }
        let limit =
            failure.as_ref().map_or(Limit::None, |(outcome, stressed)| limit_of(stressed, outcome, false));
        let peak_per_s = self.demand.peak_per_s(60.0) * low;
        Ok(Survival { factor: low, peak_per_s, is_at_least: failure.is_none(), limit })
    }
}

/// The scenario with `factor` times its arrivals.
fn scaled(scenario: &Scenario, factor: f64) -> Scenario {
    let mut scaled = scenario.clone();
    for source in &mut scaled.workload {
        source.rate_factor *= factor;
        if let Arrivals::Trace(trace) = &mut source.arrivals {
            trace.jobs_total = trace.jobs_total.map(|total| (total as f64 * factor) as u64);
        }
    }
    scaled
}

fn why_lost(loser: &Evaluation, winner: &Evaluation, base: &Scenario) -> String {
    let missing = loser.shortfalls(base);
    if let Some(first) = missing.first() {
        return match first {
            Shortfall::OnTime { low, wanted } => {
                format!("only {:.2} % on time, {:.2} % wanted", low * 100.0, wanted * 100.0)
            }
            Shortfall::Success { low, wanted } => {
                format!("only {:.2} % done, {:.2} % wanted", low * 100.0, wanted * 100.0)
            }
            Shortfall::Budget { high, budget } => {
                format!("costs up to ${high:.2}, the budget is ${budget:.2}")
            }
        };
    }
    let dearer = loser.cost() - winner.cost();
    let share = dearer / winner.cost().max(1e-9) * 100.0;
    match loser.cost_over(winner, base.run.confidence) {
        Some(interval) if interval.excludes_zero() => {
            format!("{share:.1} % dearer (${:.2} to ${:.2} a run, paired)", interval.low, interval.high)
        }
        Some(interval) => format!(
            "{share:+.1} % in cost, not told apart with confidence (${:.2} to ${:.2})",
            interval.low, interval.high
        ),
        None => format!("{share:+.1} % in cost (one replication)"),
    }
}
