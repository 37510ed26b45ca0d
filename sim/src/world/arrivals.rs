//! Arrivals: every source streamed, merged by time, never stored.

use std::sync::Arc;

use policy::model::{ClassId, RegionId};
use policy::units::Duration;
use policy::units::math::{exp, ln, pow, sin, sqrt};
use policy::units::random::Stream;
use scenarios::scenario::{Arrivals, Decay, Generator, Law, Scenario, Shape, Source, TraceSource};
use scenarios::trace::{self, ArrivalPlan, AtEnd, RandomSource, Trace, TraceError};

use crate::inputs::Inputs;
use crate::kernel::{BLOCK, Sampler};

/// Steps into which a changing rate is cut; it is taken as constant within one.
const RATE_STEPS: u64 = 200_000;
const RATE_STEP_MIN_NS: u64 = 10_000_000;

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When, nanoseconds.
    pub at: u64,
    /// Class.
    pub class: ClassId,
    /// Region of the client.
    pub region: RegionId,
}

/// A stream of words for the trace player.
#[derive(Clone, Debug)]
struct Words {
    stream: Stream,
    drawn: u64,
}

impl RandomSource for Words {
    #[inline]
    fn next_u64(&mut self) -> u64 {
        self.drawn += 1;
        self.stream.bits(self.drawn)
    }
}

enum Times {
    Curve(Box<Curve>),
    Trace(Box<trace::Arrivals<Arc<Trace>, Words>>),
}

struct Feed {
    source: Times,
    /// Times of the next arrivals, ascending; `u64::MAX` past the last one.
    times: [u64; BLOCK],
    /// Place of the next arrival in `times`.
    at: usize,
    class: ClassId,
    /// Cumulative shares by region; empty when all clients are in `region`.
    shares: Vec<f64>,
    region: RegionId,
    regions: Stream,
    drawn: u64,
}

/// All sources, merged.
pub struct ArrivalFeed {
    feeds: Vec<Feed>,
    first: usize,
    /// Time of the next arrival; `u64::MAX` when there is none.
    pub next_at: u64,
}

impl ArrivalFeed {
    /// The arrivals of one replication.
    ///
    /// # Errors
    /// [`TraceError`] when a trace cannot be played as the scenario asks.
    pub fn new(scenario: &Scenario, inputs: &Inputs, replication: u64) -> Result<Self, TraceError> {
        let horizon = scenario.run.horizon.as_nanos();
        let mut feeds = Vec::new();
        for (index, source) in scenario.workload.iter().enumerate() {
            let name = |purpose: &str| format!("arrivals/{}/{purpose}", source.name);
            let stream = |purpose: &str| Stream::new(scenario.run.seed, replication, &name(purpose));
            let times = match &source.arrivals {
                Arrivals::Generator(generator) => {
                    let curve =
                        Curve::new(generator, source.rate_factor, horizon, stream("gaps"), stream("bursts"));
                    Times::Curve(Box::new(curve))
                }
                Arrivals::Trace(settings) => {
                    let trace = inputs.traces[index].clone().expect("inputs were loaded for this scenario");
                    Times::Trace(Box::new(play(source, settings, &trace, horizon, stream("trace"))?))
                }
            };
            let mut total = 0.0;
            let shares: Vec<f64> = source
                .region_share
                .iter()
                .map(|share| {
                    total += share;
                    total
                })
                .collect();
            let only = source.region_share.iter().position(|share| *share >= 1.0 - 1e-12);
            feeds.push(Feed {
                source: times,
                times: [u64::MAX; BLOCK],
                at: 0,
                class: source.class,
                region: RegionId(only.unwrap_or(0) as u16),
                shares: if only.is_some() { Vec::new() } else { shares },
                regions: stream("regions"),
                drawn: 0,
            });
        }
        for feed in &mut feeds {
            feed.refill();
        }
        let mut merged = Self { feeds, first: 0, next_at: u64::MAX };
        merged.find_first();
        Ok(merged)
    }

    /// Takes the next arrival.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Arrival> {
        if self.next_at == u64::MAX {
            return None;
        }
        let at = self.next_at;
        let feed = &mut self.feeds[self.first];
        let (class, region) = (feed.class, feed.region());
        feed.advance();
        self.next_at = feed.next();
        if self.feeds.len() > 1 {
            self.find_first();
        }
        Some(Arrival { at, class, region })
    }

    /// Takes the next arrivals' times, as many as `times` holds or are left; returns how many.
    pub fn take_times(&mut self, times: &mut [u64]) -> usize {
        if let [feed] = self.feeds.as_mut_slice() {
            let taken = feed.take_times(times);
            self.next_at = feed.next();
            return taken;
        }
        for (taken, time) in times.iter_mut().enumerate() {
            match self.take() {
                Some(arrival) => *time = arrival.at,
                None => return taken,
            }
        }
        times.len()
    }

    fn find_first(&mut self) {
        let first = self.feeds.iter().enumerate().min_by_key(|(_, feed)| feed.next());
        (self.first, self.next_at) = first.map_or((0, u64::MAX), |(index, feed)| (index, feed.next()));
    }
}

impl Feed {
    #[inline(always)]
    fn next(&self) -> u64 {
        self.times[self.at % BLOCK]
    }

    #[inline(always)]
    fn advance(&mut self) {
        self.at += 1;
        if self.at == BLOCK {
            self.refill();
        }
    }

    #[inline(never)]
    fn refill(&mut self) {
        self.at = 0;
        match &mut self.source {
            Times::Curve(curve) => curve.fill(&mut self.times),
            Times::Trace(player) => {
                for time in &mut self.times {
                    *time = player.next().map_or(u64::MAX, |arrival| arrival.at_ns);
                }
            }
        }
    }

    fn take_times(&mut self, times: &mut [u64]) -> usize {
        let mut taken = 0;
        while taken < times.len() && self.next() != u64::MAX {
            let count = (BLOCK - self.at).min(times.len() - taken);
            let left = &self.times[self.at..self.at + count];
            let count = left.iter().position(|time| *time == u64::MAX).unwrap_or(count);
            times[taken..taken + count].copy_from_slice(&left[..count]);
            taken += count;
            self.at += count;
            if self.at == BLOCK {
                self.refill();
            }
        }
        taken
    }

    #[inline(always)]
    fn region(&mut self) -> RegionId {
        if self.shares.is_empty() { self.region } else { self.region_drawn() }
    }

    fn region_drawn(&mut self) -> RegionId {
        let chance = self.regions.unit(self.drawn);
        self.drawn += 1;
        let index = self.shares.iter().position(|upto| chance < *upto).unwrap_or(self.shares.len() - 1);
        RegionId(index as u16)
    }
}

fn play(
    source: &Source,
    settings: &TraceSource,
    trace: &Arc<Trace>,
    horizon: u64,
    stream: Stream,
) -> Result<trace::Arrivals<Arc<Trace>, Words>, TraceError> {
    let start = settings.start.as_nanos();
    let stretch = settings.time_factor;
    let needed = (horizon as f64 / stretch) as u64;
    let end = start.saturating_add(needed);
    let span = trace.span_ns();
    // A repeated trace keeps its whole length; otherwise only the part that the run needs is kept.
    let part = if start == 0 && (settings.repeat || end >= span) {
        trace.clone()
    } else {
        Arc::new(trace.window(start, if settings.repeat { u64::MAX } else { end })?)
    };
    let rate_scale = match settings.jobs_total {
        None => source.rate_factor,
        Some(total) => {
            let laps = if settings.repeat { needed as f64 / part.span_ns().max(1) as f64 } else { 1.0 };
            total as f64 / (part.count() * laps).max(1e-9)
        }
    };
    let plan = ArrivalPlan {
        rate_scale,
        time_scale: stretch,
        horizon_ns: Some(horizon),
        at_end: if settings.repeat { AtEnd::Repeat } else { AtEnd::Stop },
        jitter_ns: None,
    };
    trace::Arrivals::new(part, &plan, Words { stream, drawn: 0 })
}

/// Arrivals at a rate that changes in steps: a Poisson process by time-rescaling (Çinlar 1975), so that each gap uses
/// exactly one draw and two policies see the same arrivals.
struct Curve {
    shape: Shape,
    factor: f64,
    gaps: Sampler,
    drawn: u64,
    /// Now, in nanoseconds, with its fraction.
    at: f64,
    step_ns: f64,
    step_end: f64,
    horizon: f64,
    /// Arrivals per nanosecond in this step, and its inverse.
    rate: f64,
    gap_ns: f64,
    /// The rate is certainly constant and never burst.
    steady: bool,
    noise: Option<Noise>,
}

/// Gamma-distributed factors on the rate, each for one window.
struct Noise {
    shape: f64,
    window_ns: f64,
    stream: Stream,
}

impl Curve {
    fn new(generator: &Generator, factor: f64, horizon: u64, gaps: Stream, bursts: Stream) -> Self {
        let steady = matches!(generator.shape, Shape::Constant { .. }) && generator.burstiness <= 1.0;
        let noise = (generator.burstiness > 1.0).then(|| {
            let square = generator.burstiness * generator.burstiness;
            // Seen from an arrival, gaps under a Gamma(k) rate are Lomax(k + 1): CV² = (k + 1)/(k − 1).
            Noise {
                shape: (square + 1.0) / (square - 1.0),
                window_ns: generator.burst_window.as_nanos().max(1) as f64,
                stream: bursts,
            }
        });
        let mut step = (horizon / RATE_STEPS).max(RATE_STEP_MIN_NS) as f64;
        if let Some(noise) = &noise {
            step = step.min(noise.window_ns);
        }
        // Gaps of a unit-rate process, in billionths of its unit.
        let unit = Law::Exponential { mean: Duration::from_secs(1) };
        let mut curve = Self {
            shape: generator.shape.clone(),
            factor,
            gaps: Sampler::new(&unit, gaps),
            drawn: 0,
            at: 0.0,
            step_ns: if steady { f64::INFINITY } else { step },
            step_end: 0.0,
            horizon: horizon as f64,
            rate: 0.0,
            gap_ns: f64::INFINITY,
            steady,
            noise,
        };
        curve.open_step();
        curve
    }

    fn open_step(&mut self) {
        let middle = if self.steady { 0.0 } else { self.step_end + self.step_ns / 2.0 };
        let mut rate = rate_at(&self.shape, middle * 1e-9) * self.factor * 1e-9;
        if let Some(noise) = &self.noise {
            let window = (middle / noise.window_ns) as u64;
            rate *= gamma_mean_one(noise.shape, noise.stream.child(window));
        }
        self.rate = rate;
        self.gap_ns = 1.0 / rate;
        self.step_end += self.step_ns;
    }

    /// The next arrivals, as many as `times` holds; `u64::MAX` past the horizon.
    fn fill(&mut self, times: &mut [u64; BLOCK]) {
        let gaps = *self.gaps.block(self.drawn);
        self.drawn += BLOCK as u64;
        for (time, gap) in times.iter_mut().zip(gaps) {
            // Gaps are below 2^51, so the cheaper conversion of signed numbers gives the same.
            let mass = gap as i64 as f64 * 1e-9;
            let is_near = mass < (self.step_end - self.at) * self.rate;
            *time = if is_near { self.within_step(mass) } else { self.later(mass) };
        }
    }

    /// The arrival after `mass` more of the rate's integral, which is in this step.
    #[inline(always)]
    fn within_step(&mut self, mass: f64) -> u64 {
        self.at += mass * self.gap_ns;
        // Times before the horizon are below 2^63; signed numbers convert in one instruction.
        if self.at < self.horizon { self.at as i64 as u64 } else { u64::MAX }
    }

    /// The arrival after `mass` more of the rate's integral, which is beyond this step.
    fn later(&mut self, mut mass: f64) -> u64 {
        loop {
            let room = (self.step_end - self.at) * self.rate;
            if mass < room {
                return self.within_step(mass);
            }
            if self.step_end >= self.horizon {
                self.at = self.horizon;
                return u64::MAX;
            }
            mass -= room;
            self.at = self.step_end;
            self.open_step();
        }
    }
}

/// Arrivals per second at `t` seconds.
pub fn rate_at(shape: &Shape, t: f64) -> f64 {
    let s = |time: &Duration| time.as_secs_f64();
    match shape {
        Shape::Constant { rate_per_s } => *rate_per_s,
        Shape::Diurnal { rate_per_s, amplitude, period, peak_at } => {
            let turn = (t - s(peak_at)) / s(period).max(1e-9) + 0.25;
            rate_per_s * (1.0 + amplitude.get() * sin(2.0 * std::f64::consts::PI * turn))
        }
        Shape::Viral { base_per_s, peak_per_s, start, rise, half_life, decay } => {
            let rise_s = s(rise).max(1e-9);
            let middle = s(start) + rise_s / 2.0;
            // A logistic goes from 10 % to 90 % in 2·ln 9 of its time constants.
            let steepness = 2.0 * ln(9.0) / rise_s;
            let risen = 1.0 / (1.0 + exp((-steepness * (t - middle)).clamp(-700.0, 700.0)));
            let fading = (t - (s(start) + rise_s)).max(0.0) / s(half_life).max(1e-9);
            let left = match decay {
                Decay::Exponential => pow(0.5, fading),
                Decay::Power => 1.0 / (1.0 + fading),
            };
            // 90 % of the logistic is the peak; `fit` writes the same shape.
            base_per_s + (peak_per_s - base_per_s) * (risen / 0.9).min(1.0) * left
        }
        Shape::Launch { base_per_s, peak_per_s, start, ramp, hold, half_life } => {
            let since = t - s(start);
            let ramp_s = s(ramp).max(1e-9);
            let share = if since < 0.0 {
                0.0
            } else if since < ramp_s {
                since / ramp_s
            } else {
                let fading = (since - ramp_s - s(hold)).max(0.0) / s(half_life).max(1e-9);
                pow(0.5, fading)
            };
            base_per_s + (peak_per_s - base_per_s) * share
        }
    }
}

/// Tries of the rejection method below; each succeeds with more than 95 %.
const GAMMA_TRIES: u64 = 64;

/// A gamma variate of this shape (> 1) and mean 1 (Marsaglia and Tsang, ACM TOMS 26(3), 2000).
fn gamma_mean_one(shape: f64, stream: Stream) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / sqrt(9.0 * d);
    for attempt in 0..GAMMA_TRIES {
        let unit = |k: u64| stream.unit(attempt * 3 + k);
        let x = sqrt(-2.0 * ln(unit(0))) * sin(2.0 * std::f64::consts::PI * unit(1));
        let v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
        if v > 0.0 && ln(unit(2)) < 0.5 * x * x + d - d * v + d * ln(v) {
            return d * v / shape;
        }
    }
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::units::Ratio;

    fn arrivals(generator: &Generator, horizon_s: u64) -> Vec<f64> {
        let streams = |name| Stream::new(11, 0, name);
        let mut curve =
            Curve::new(generator, 1.0, horizon_s * 1_000_000_000, streams("gaps"), streams("bursts"));
        let mut times = Vec::new();
        loop {
            let mut block = [0; BLOCK];
            curve.fill(&mut block);
            times.extend(block.iter().filter(|at| **at != u64::MAX).map(|at| *at as f64 * 1e-9));
            if block[BLOCK - 1] == u64::MAX {
                return times;
            }
        }
    }

    fn cv(times: &[f64]) -> f64 {
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt() / mean
    }

    fn plain(shape: Shape) -> Generator {
        Generator { shape, burstiness: 1.0, burst_window: Duration::from_secs(60) }
    }

    #[test]
    fn constant_rate_is_poisson() {
        let times = arrivals(&plain(Shape::Constant { rate_per_s: 50.0 }), 4000);
        let expected: f64 = 200_000.0;
        assert!((times.len() as f64 - expected).abs() < 4.0 * expected.sqrt(), "{}", times.len());
        assert!((cv(&times) - 1.0).abs() < 0.02, "{}", cv(&times));
    }

    #[test]
    fn counts_follow_the_rate() {
        let shape = Shape::Diurnal {
            rate_per_s: 20.0,
            amplitude: Ratio::new(0.8).unwrap(),
            period: Duration::from_secs(4000),
            peak_at: Duration::from_secs(1000),
        };
        let times = arrivals(&plain(shape.clone()), 4000);
        for bin in 0..8 {
            let (from, to) = (f64::from(bin) * 500.0, f64::from(bin + 1) * 500.0);
            let expected: f64 = (0..500).map(|s| rate_at(&shape, from + f64::from(s) + 0.5)).sum();
            let counted = times.iter().filter(|t| (from..to).contains(*t)).count() as f64;
            assert!(
                (counted - expected).abs() < 4.5 * expected.sqrt() + 1.0,
                "bin {bin}: {counted} {expected}"
            );
        }
    }

    #[test]
    fn burstiness_is_the_cv_of_gaps() {
        let shape = Shape::Constant { rate_per_s: 20.0 };
        let generator = Generator { shape, burstiness: 1.5, burst_window: Duration::from_secs(20) };
        let times = arrivals(&generator, 200_000);
        assert!((cv(&times) - 1.5).abs() < 0.12, "{}", cv(&times));
        let rate = times.len() as f64 / 200_000.0;
        assert!((rate - 20.0).abs() < 0.6, "{rate}");
    }

    #[test]
    fn a_viral_wave_passes_its_marks() {
        let h = |hours: u64| Duration::from_secs(hours * 3600);
        let shape = Shape::Viral {
            base_per_s: 0.0,
            peak_per_s: 100.0,
            start: h(2),
            rise: h(1),
            half_life: h(4),
            decay: Decay::Exponential,
        };
        let near = |hours: f64, expected: f64| {
            let rate = rate_at(&shape, hours * 3600.0);
            assert!((rate - expected).abs() < 1e-6 * expected, "{hours} h: {rate}");
        };
        near(2.0, 100.0 / 9.0);
        near(2.5, 500.0 / 9.0);
        near(3.0, 100.0);
    }
}
