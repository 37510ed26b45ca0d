//! The search: size, sweep, cross, race, refine, stress.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use scenarios::scenario::{Arrivals, Scenario};

use super::candidate::{self, Candidate, Fleet, Typed};
use super::demand::Demand;
use super::stress::{Limit, Survival, limit_of};
use super::verdict::{Evaluation, Shortfall};
use crate::experiment::one;
use crate::inputs::Inputs;
use crate::outcome::Outcome;
use crate::replication::{Keep, SimError};

/// Shares of the peak fleet tried as a fixed fleet.
const FIXED_SHARES: [f64; 6] = [0.4, 0.55, 0.7, 0.85, 1.0, 1.25];

/// Shares of the peak fleet always held by a fleet that reacts.
const FLOORS: [f64; 3] = [0.1, 0.35, 0.65];

/// Multiples of what the forecast needs, tried as a schedule.
const SCHEDULE_MULTIPLES: [f64; 3] = [0.85, 1.0, 1.2];

/// Scaling rules whose best candidate is crossed with purchase, admission and storage.
const CROSSED: usize = 5;

/// Candidates in the race.
const FINALISTS: usize = 8;

/// Replications of a finalist in the first heat.
const FIRST_HEAT: usize = 4;

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
    /// Outcomes of the best candidate's replications, in order.
    pub outcomes: Vec<Outcome>,
    /// Runs made.
    pub runs: usize,
    /// Runs that the recurrence made.
    pub by_recurrence: usize,
}

/// Makes the scenario that a list of overrides gives.
pub type Variant<'a> = dyn Fn(&[String]) -> Result<Scenario, String> + Sync + 'a;

struct Search<'a> {
    base: &'a Scenario,
    inputs: &'a Inputs,
    variant: &'a Variant<'a>,
    threads: usize,
    quick: bool,
    watch: &'a dyn Watch,
    demand: Demand,
    peak_per_s: f64,
    found: Vec<Tried>,
    done: AtomicUsize,
    expected: usize,
    by_recurrence: AtomicUsize,
}

/// A candidate, its scenario, and what it measured.
struct Tried {
    evaluation: Evaluation,
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
    /// The scenario as written, and fixed fleets around the one that square-root staffing gives.
    fn size(&mut self) -> Result<(), PlanError> {
        let as_written = Candidate {
            name: "as written".to_owned(),
            sets: Vec::new(),
            floor: None,
            scaling: "as written".to_owned(),
            typed: Typed::default(),
        };
        let mut batch = vec![as_written];
        batch.extend(FIXED_SHARES.map(|share| self.fixed(share)));
        let first = self.found.len() + 1;
        self.try_all("sizing", batch)?;
        // Between the last share that misses and the first that meets, the least that meets.
        let meets: Vec<bool> =
            self.found[first..].iter().map(|tried| tried.evaluation.meets(self.base)).collect();
        if let Some(pass) = meets.iter().position(|meets| *meets)
            && pass > 0
        {
            let (low, high) = (FIXED_SHARES[pass - 1], FIXED_SHARES[pass]);
            let between = [0.25, 0.5, 0.75].map(|part| self.fixed(low + (high - low) * part));
            self.try_all("sizing", between.to_vec())?;
        }
        Ok(())
    }

    fn fixed(&self, share: f64) -> Candidate {
        let counts = candidate::counts(self.base, &self.demand, self.peak_per_s, share, Fleet::OnDemand);
        let total: u32 = counts.iter().map(|(_, count)| count).sum();
        let mut sets = candidate::count_sets(self.base, &counts, false);
        sets.push("policy.scaling={kind=\"static\"}".to_owned());
        sets.push("policy.purchase={kind=\"on-demand-only\"}".to_owned());
        Candidate {
            name: format!("fixed {total}"),
            sets,
            floor: None,
            scaling: "fixed".to_owned(),
            typed: Typed::default(),
        }
    }

    /// Fleets that react, and schedules made from the forecast, bought on demand.
    fn sweep(&mut self) -> Result<(), PlanError> {
        let mut batch = Vec::new();
        for (name, set) in self.scalings() {
            for floor in FLOORS {
                batch.push(self.reacting(&name, &set, floor, Fleet::OnDemand, &Typed::default()));
            }
        }
        for (index, scaling) in self.base.plan.scaling.iter().enumerate() {
            let typed = Typed { scaling: Some(scaling.clone()), ..Typed::default() };
            let name = format!("[plan] scaling {}", index + 1);
            for floor in FLOORS {
                batch.push(self.reacting(&name, "", floor, Fleet::OnDemand, &typed));
            }
        }
        let one_queue =
            self.base.system.pool_classes.len() == 1 && !self.base.system.policies.routing.is_regional();
        if one_queue && self.base.plan.scaling.is_empty() {
            for multiple in SCHEDULE_MULTIPLES {
                let set = candidate::schedule(&self.demand, 0, multiple);
                let name = format!("schedule ×{multiple}");
                batch.push(self.reacting(&name, &set, 0.0, Fleet::OnDemand, &Typed::default()));
            }
        }
        self.try_all("scaling", batch)
    }

    fn scalings(&self) -> Vec<(String, String)> {
        if self.base.plan.scaling.is_empty() { candidate::reactive(self.base) } else { Vec::new() }
    }

    fn reacting(&self, name: &str, set: &str, floor: f64, fleet: Fleet, typed: &Typed) -> Candidate {
        let counts = candidate::counts(self.base, &self.demand, self.peak_per_s, floor, fleet);
        let held: u32 = counts.iter().map(|(_, count)| count).sum();
        let mut sets = candidate::count_sets(self.base, &counts, true);
        if !set.is_empty() {
            sets.push(set.to_owned());
        }
        sets.push("policy.purchase={kind=\"on-demand-only\"}".to_owned());
        let name = if floor > 0.0 { format!("{name}, at least {held}") } else { name.to_owned() };
        let scaling = name.split(',').next().unwrap_or_default().to_owned();
        Candidate { name, sets, floor: Some(floor), scaling, typed: typed.clone() }
    }

    /// The best of each scaling rule, bought in other ways, with other admission and other storage.
    fn cross(&mut self) -> Result<(), PlanError> {
        let mut leaders: Vec<Candidate> = Vec::new();
        for index in self.ranking() {
            let leader = &self.found[index].evaluation.candidate;
            if leaders.len() < CROSSED && !leaders.iter().any(|known| known.scaling == leader.scaling) {
                leaders.push(leader.clone());
            }
        }
        let peak: u32 = (0..self.base.system.pool_classes.len())
            .map(|class| self.demand.instances(class, self.peak_per_s))
            .max()
            .unwrap_or(1);
        let mut batch = Vec::new();
        for leader in &leaders {
            batch.extend(self.crossings(leader, peak));
        }
        self.try_all("purchase and admission", batch)
    }

    fn crossings(&self, leader: &Candidate, peak: u32) -> Vec<Candidate> {
        let mut found = Vec::new();
        let plan = &self.base.plan;
        let mut purchases: Vec<(String, Option<String>, Fleet, Typed)> = Vec::new();
        if plan.purchase.is_empty() {
            let ways = candidate::purchases(self.base, peak);
            purchases
                .extend(ways.into_iter().map(|(name, set, fleet)| (name, set, fleet, leader.typed.clone())));
        } else {
            for (index, purchase) in plan.purchase.iter().enumerate() {
                let typed = Typed { purchase: Some(*purchase), ..leader.typed.clone() };
                purchases.push((format!("[plan] purchase {}", index + 1), None, Fleet::Spot, typed));
            }
        }
        let mut admissions = candidate::admissions(self.base);
        if !plan.admission.is_empty() {
            admissions = vec![(String::new(), Vec::new())];
        }
        let swaps = std::iter::once(None).chain(plan.tier_swaps.iter().copied().map(Some));
        for swap in swaps {
            for (buying, set, fleet, typed) in &purchases {
                for (admitting, sets) in &admissions {
                    let typed = Typed { tier_swap: swap, ..typed.clone() };
                    let mut candidate = self.rebought(leader, set.as_deref(), *fleet, typed);
                    candidate.sets.extend(sets.iter().cloned());
                    for part in [buying, admitting].into_iter().filter(|part| !part.is_empty()) {
                        candidate.name = format!("{}, {part}", candidate.name);
                    }
                    if let Some((_, to)) = swap {
                        candidate.name = format!("{}, storage {}", candidate.name, self.base.tiers[to].name);
                    }
                    found.push(candidate);
                }
            }
        }
        for (index, admission) in plan.admission.iter().enumerate() {
            let typed = Typed { admission: Some(*admission), ..leader.typed.clone() };
            let mut candidate = leader.clone();
            candidate.typed = typed;
            candidate.name = format!("{}, [plan] admission {}", candidate.name, index + 1);
            found.push(candidate);
        }
        found
    }

    /// A candidate with its standing fleet bought in another way.
    fn rebought(&self, leader: &Candidate, set: Option<&str>, fleet: Fleet, typed: Typed) -> Candidate {
        let mut candidate = leader.clone();
        candidate.typed = typed;
        if let Some(floor) = leader.floor {
            let counts = candidate::counts(self.base, &self.demand, self.peak_per_s, floor, fleet);
            candidate.sets.retain(|known| !known.starts_with("fleet.pool."));
            let mut sets = candidate::count_sets(self.base, &counts, true);
            sets.append(&mut candidate.sets);
            candidate.sets = sets;
        }
        if let Some(set) = set {
            candidate.sets.retain(|known| !known.starts_with("policy.purchase="));
            candidate.sets.push(set.to_owned());
        }
        candidate
    }

    /// More replications for the best, in two heats.
    fn race(&mut self) -> Result<(), PlanError> {
        let finalists: Vec<usize> = self.ranking().into_iter().take(FINALISTS).collect();
        self.replicate("race", &finalists, FIRST_HEAT)?;
        let last: Vec<usize> =
            self.ranking().into_iter().filter(|index| finalists.contains(index)).take(4).collect();
        self.replicate("race", &last, self.replications_max())
    }

    fn replications_max(&self) -> usize {
        if self.quick { FIRST_HEAT } else { (self.base.plan.replications_max as usize).max(FIRST_HEAT) }
    }

    /// Smaller standing fleets for the winner, while the objective still holds.
    fn refine(&mut self) -> Result<(), PlanError> {
        let Some(best) = self.ranking().first().copied() else { return Ok(()) };
        let winner = self.found[best].evaluation.candidate.clone();
        let Some(floor) = winner.floor.filter(|floor| *floor > 0.0) else { return Ok(()) };
        let on_spot = !winner.sets.iter().any(|set| set.contains("on-demand-only"));
        let fleet = if on_spot { Fleet::Spot } else { Fleet::OnDemand };
        let batch: Vec<Candidate> = [0.6, 0.8, 1.2]
            .map(|factor| {
                let counts =
                    candidate::counts(self.base, &self.demand, self.peak_per_s, floor * factor, fleet);
                let held: u32 = counts.iter().map(|(_, count)| count).sum();
                let mut candidate = winner.clone();
                candidate.floor = Some(floor * factor);
                candidate.sets.retain(|known| !known.starts_with("fleet.pool."));
                let mut sets = candidate::count_sets(self.base, &counts, true);
                sets.append(&mut candidate.sets);
                candidate.sets = sets;
                let parts = winner.name.split(", ").map(|part| {
                    if part.starts_with("at least ") { format!("at least {held}") } else { part.to_owned() }
                });
                candidate.name = parts.collect::<Vec<_>>().join(", ");
                candidate
            })
            .to_vec();
        let first = self.found.len();
        self.try_all("refining", batch)?;
        let added: Vec<usize> = (first..self.found.len()).collect();
        self.replicate("refining", &added, self.replications_max())
    }

    /// Candidates by worth: those that meet the objective by cost, then the others by what they lack.
    ///
    /// After a race, a candidate of few replications does not pass one of many.
    fn ranking(&self) -> Vec<usize> {
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
    fn try_all(&mut self, stage: &str, batch: Vec<Candidate>) -> Result<(), PlanError> {
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
    fn replicate(&mut self, stage: &str, which: &[usize], wanted: usize) -> Result<(), PlanError> {
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
        let runners_up = ranking
            .iter()
            .skip(1)
            .take(3)
            .map(|index| {
                let evaluation = self.found[*index].evaluation.clone();
                let why = why_lost(&evaluation, &winner, self.base);
                RunnerUp { evaluation, why }
            })
            .collect();
        let chosen = self.found.swap_remove(best);
        let shortfalls = chosen.evaluation.shortfalls(self.base);
        Ok(Plan {
            meets: shortfalls.is_empty(),
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
            format!("{share:+.1} % dearer (${:.2} to ${:.2} a run, paired)", interval.low, interval.high)
        }
        Some(interval) => format!(
            "{share:+.1} % in cost, not told apart with confidence (${:.2} to ${:.2})",
            interval.low, interval.high
        ),
        None => format!("{share:+.1} % in cost (one replication)"),
    }
}
