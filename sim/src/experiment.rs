//! An experiment: replications side by side, merged in their order, so that the same seed gives the same bytes on any
//! number of threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use scenarios::scenario::Scenario;

use crate::inputs::Inputs;
use crate::outcome::Outcome;
use crate::recurrence;
use crate::replication::{Keep, Replication, SimError};
use crate::stats::{Confidence, Interval};

/// Replications added at a time when a run continues until its interval is narrow; independent of the threads.
const ROUND: u32 = 4;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Threads at most (≥ 1).
    pub threads: usize,
    /// What replication 0 keeps; the others keep statistics only.
    pub keep: Keep,
}

/// Watches progress; called from any thread.
pub trait Progress: Sync {
    /// `done` of `total` replications are complete.
    fn replications(&self, done: u64, total: u64);

    /// Whether to stop as soon as possible.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Watches nothing.
pub struct Unwatched;

impl Progress for Unwatched {
    fn replications(&self, _done: u64, _total: u64) {}
}

/// The replications of one scenario, in order.
#[derive(Debug)]
pub struct Experiment {
    /// One outcome for each replication.
    pub outcomes: Vec<Outcome>,
}

/// Runs all replications of `scenario`, and more until its precision is reached where it asks for one.
///
/// # Errors
/// The first [`SimError`] by replication number.
pub fn run(
    scenario: &Scenario,
    inputs: &Inputs,
    options: RunOptions,
    progress: &dyn Progress,
) -> Result<Experiment, SimError> {
    let planned = scenario.run.replications.max(1);
    let mut outcomes = run_range(scenario, inputs, 0..u64::from(planned), options, progress)?;
    if let Some(precision) = scenario.run.precision {
        while (outcomes.len() as u32) < precision.replications_max
            && !is_precise(&outcomes, scenario, precision.relative)
        {
            let from = outcomes.len() as u64;
            let to = (from + u64::from(ROUND)).min(u64::from(precision.replications_max));
            outcomes.extend(run_range(scenario, inputs, from..to, options, progress)?);
        }
    }
    Ok(Experiment { outcomes })
}

/// Whether the interval of the mean latency is narrow enough.
fn is_precise(outcomes: &[Outcome], scenario: &Scenario, relative: f64) -> bool {
    let means: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.latency.mean_ns()).collect();
    let Ok(confidence) = Confidence::new(scenario.run.confidence) else { return true };
    Interval::of_mean(&means, confidence).is_ok_and(|interval| interval.is_narrow_enough(relative))
}

/// Runs the replications numbered `range`, in parallel, and returns them in order.
///
/// # Errors
/// The first [`SimError`] by replication number.
pub fn run_range(
    scenario: &Scenario,
    inputs: &Inputs,
    range: std::ops::Range<u64>,
    options: RunOptions,
    progress: &dyn Progress,
) -> Result<Vec<Outcome>, SimError> {
    let count = range.end - range.start;
    let results: Vec<Mutex<Option<Result<Outcome, SimError>>>> =
        (0..count).map(|_| Mutex::new(None)).collect();
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count || failed.load(Ordering::Relaxed) || progress.is_cancelled() {
                return;
            }
            let number = range.start + index;
            let keep = if number == 0 { options.keep } else { Keep::Statistics };
            let result = one(scenario, inputs, number, keep);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            *results[index as usize].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            progress.replications(done.fetch_add(1, Ordering::Relaxed) + 1, count);
        }
    };
    let threads = options.threads.clamp(1, count.max(1) as usize);
    if threads == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    let mut outcomes = Vec::with_capacity(count as usize);
    for slot in results {
        match slot.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(Ok(outcome)) => outcomes.push(outcome),
            Some(Err(error)) => return Err(error),
            None => break, // cancelled, or another replication failed and its error comes later in the order
        }
    }
    Ok(outcomes)
}

/// Runs one replication, by the recurrence where it gives the engine's answers.
///
/// # Errors
/// [`SimError`] when the scenario cannot run.
pub fn one(scenario: &Scenario, inputs: &Inputs, number: u64, keep: Keep) -> Result<Outcome, SimError> {
    if keep == Keep::Statistics && recurrence::permits(scenario) {
        return recurrence::run(scenario, inputs, number);
    }
    Replication::new(scenario, inputs, number, keep)?.run()
}
