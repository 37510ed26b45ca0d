//! Demand: how much work arrives when, and the fleet that square-root staffing says it needs.

use policy::model::{Place, SLOT_KINDS_MAX};
use scenarios::scenario::Scenario;
use scenarios::trace::TraceError;

use crate::inputs::Inputs;
use crate::theory::square_root_servers;
use crate::world::arrivals::ArrivalFeed;

/// Length of one bin of the profile, nanoseconds.
const BIN_NS: u64 = 60_000_000_000;

/// Quality of service in square-root staffing; 1 keeps the chance of waiting near 22 % (Halfin and Whitt 1981).
const BETA: f64 = 1.0;

/// Bins of the profile at most: a run longer than this many minutes is profiled in longer bins.
const BINS_MAX: u64 = 100_000;

/// Arrivals over time, and the work that one job brings to each pool class.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Arrivals by bin.
    pub counts: Vec<u64>,
    /// Length of a bin, seconds.
    pub bin_s: f64,
    /// Length of the run, seconds.
    horizon_s: f64,
    /// By pool class: expected slot-seconds of one job on the kind that runs out first, per slot of one instance.
    instance_seconds: Vec<f64>,
    /// By pool class: slots of that kind on one instance.
    slots: Vec<f64>,
}

impl Demand {
    /// Streams the arrivals of replication 0 once.
    ///
    /// # Errors
    /// [`TraceError`] when a trace cannot be played.
    pub fn measure(scenario: &Scenario, inputs: &Inputs) -> Result<Self, TraceError> {
        let horizon = scenario.run.horizon.as_nanos();
        let bin_ns = BIN_NS.max(horizon / BINS_MAX);
        let mut counts = vec![0; (horizon / bin_ns + 1) as usize];
        let mut feed = ArrivalFeed::new(scenario, inputs, 0)?;
        while let Some(arrival) = feed.take() {
            counts[(arrival.at / bin_ns) as usize] += 1;
        }
        let (instance_seconds, slots) = work_per_job(scenario);
        let horizon_s = scenario.run.horizon.as_secs_f64();
        Ok(Self { counts, bin_s: bin_ns as f64 / 1e9, horizon_s, instance_seconds, slots })
    }

    /// Arrivals in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Highest rate over any window of `window_s`, per second.
    pub fn peak_per_s(&self, window_s: f64) -> f64 {
        let bins = ((window_s / self.bin_s).round() as usize).clamp(1, self.counts.len());
        let mut sum: u64 = self.counts[..bins].iter().sum();
        let mut best = sum;
        for end in bins..self.counts.len() {
            sum = sum + self.counts[end] - self.counts[end - bins];
            best = best.max(sum);
        }
        best as f64 / (bins as f64 * self.bin_s)
    }

    /// Mean rate, per second.
    pub fn mean_per_s(&self) -> f64 {
        self.total() as f64 / self.horizon_s
    }

    /// Instances of a pool class that `rate_per_s` needs: a + β√a servers.
    pub fn instances(&self, pool_class: usize, rate_per_s: f64) -> u32 {
        let slots = self.slots[pool_class];
        let offered = rate_per_s * self.instance_seconds[pool_class] * slots;
        let servers = square_root_servers(offered, BETA).unwrap_or(u64::from(u32::MAX));
        (servers as f64 / slots).ceil().min(f64::from(u32::MAX)) as u32
    }

    /// Rate by step of `step_s`, each the highest within the step and half a step around it; per second.
    pub fn steps(&self, step_s: f64) -> Vec<(f64, f64)> {
        let bins = ((step_s / self.bin_s).round() as usize).max(1);
        let rate = |from: usize| {
            let (low, high) =
                (from.saturating_sub(bins / 2), (from + bins + bins / 2).min(self.counts.len()));
            let most = self.counts[low..high].iter().max().copied().unwrap_or(0);
            most as f64 / self.bin_s
        };
        (0..self.counts.len()).step_by(bins).map(|from| (from as f64 * self.bin_s, rate(from))).collect()
    }
}

/// By pool class: instance-seconds of one job, and the slots of the kind that runs out first.
fn work_per_job(scenario: &Scenario) -> (Vec<f64>, Vec<f64>) {
    let system = &scenario.system;
    let mut seconds = Vec::new();
    let mut slots = Vec::new();
    for class in 0..system.pool_classes.len() {
        let mut work = [0.0; SLOT_KINDS_MAX];
        for stage in &system.stages {
            if let Place::Slot { pool_class, kind } = stage.place
                && pool_class as usize == class
            {
                work[kind.index()] += stage.service_expected.as_secs_f64();
            }
        }
        let members = system.pools.iter().filter(|pool| pool.pool_class as usize == class);
        let most = |kind: usize| members.clone().map(|pool| f64::from(pool.slots[kind])).fold(0.0, f64::max);
        let load = |kind: usize| if most(kind) > 0.0 { work[kind] / most(kind) } else { 0.0 };
        let scarce = (0..SLOT_KINDS_MAX).max_by(|a, b| load(*a).total_cmp(&load(*b))).unwrap_or(0);
        seconds.push(load(scarce));
        slots.push(most(scarce).max(1.0));
    }
    (seconds, slots)
}
