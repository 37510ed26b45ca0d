//! Arrivals streamed from a trace: scaled, stretched, cut or repeated, in constant memory.
//!
//! Chance comes from the caller's source alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Deref;

use super::random::{Exponential, below, binomial, uniform};
use super::{Counts, RandomSource, Timestamps, Trace, TraceData, TraceError};

/// One request that a trace sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Time from the start of the run, ns.
    pub at_ns: u64,
    /// The trace's row that it copies; `None` for traces of counts.
    pub row: Option<u32>,
}

/// What happens where the trace ends before the horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtEnd {
    #[default]
    Stop,
    /// Starts the trace over, one span (for timestamps: and one mean gap) later.
    Repeat,
}

/// How a trace is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArrivalPlan {
    /// Requests per request of the trace, above 0. Below 1, each is kept with this probability; above 1,
    /// each is copied, the fraction at random.
    pub rate_scale: f64,
    /// Factor on all times, above 0: 0.5 plays the trace twice as fast.
    pub time_scale: f64,
    /// No arrival at or after this time.
    pub horizon_ns: Option<u64>,
    pub at_end: AtEnd,
    /// Copies of a request (`rate_scale` above 1) are spread evenly over this time after the original;
    /// `None` takes the step of the file's clock, below which the file says nothing.
    pub jitter_ns: Option<u64>,
}

impl Default for ArrivalPlan {
    fn default() -> Self {
        Self { rate_scale: 1.0, time_scale: 1.0, horizon_ns: None, at_end: AtEnd::Stop, jitter_ns: None }
    }
}

impl ArrivalPlan {
    fn check(&self) -> Result<(), TraceError> {
        for (name, value) in [("rate scale", self.rate_scale), ("time scale", self.time_scale)] {
            if !(value.is_finite() && value > 0.0) {
                let expected = "finite and above 0";
                return Err(TraceError::BadOption { name, value: value.to_string(), expected });
            }
        }
        if self.rate_scale > COPIES_MAX {
            let value = self.rate_scale.to_string();
            return Err(TraceError::BadOption { name: "rate scale", value, expected: "at most 1e9" });
        }
        Ok(())
    }

    /// Moves a time of the trace to the run; `None` past 584 years.
    fn scaled(&self, at_ns: u64, lap_start_ns: u64) -> Option<u64> {
        let at = if self.time_scale == 1.0 {
            at_ns
        } else {
            let at = at_ns as f64 * self.time_scale;
            if at >= u64::MAX as f64 {
                return None;
            }
            at as u64
        };
        lap_start_ns.checked_add(at)
    }
}

/// Largest factor on the number of requests.
const COPIES_MAX: f64 = 1e9;

impl Trace {
    /// Streams the arrivals of this trace as `plan` says, ascending by time.
    ///
    /// Counts are drawn inside their bins (uniform order statistics; a missing bin takes the mean of its
    /// measured neighbours); timestamps are replayed exactly at scale 1.
    ///
    /// # Errors
    /// [`TraceError::BadOption`] for scales that are not positive numbers.
    pub fn arrivals<R: RandomSource>(
        &self,
        plan: &ArrivalPlan,
        random: R,
    ) -> Result<Arrivals<&Self, R>, TraceError> {
        Arrivals::new(self, plan, random)
    }
}

/// The arrivals of a trace. `T` is `&Trace` or `Arc<Trace>`.
#[derive(Debug)]
pub struct Arrivals<T, R> {
    trace: T,
    random: R,
    plan: ArrivalPlan,
    horizon_ns: u64,
    lap_start_ns: u64,
    law: Exponential,
    cursor: Cursor,
}

#[derive(Debug)]
enum Cursor {
    Counts(CountCursor),
    Stamps(StampCursor),
}

#[derive(Debug, Default)]
struct CountCursor {
    /// Arrivals still to come in the open bin.
    left: u64,
    /// Share of the open bin that lies after the last arrival.
    rest: f64,
    start_ns: u64,
    width_ns: u64,
    /// The next bin to open, and the first entries of the two lists at or after it.
    bin: u64,
    entry: usize,
    gap: usize,
}

#[derive(Debug, Default)]
struct StampCursor {
    row: usize,
    /// Copies that wait for the rows before them, nearest first.
    copies: BinaryHeap<Reverse<(u64, u32)>>,
}

impl<T: Deref<Target = Trace>, R: RandomSource> Arrivals<T, R> {
    /// Starts playing `trace`.
    ///
    /// # Errors
    /// [`TraceError::BadOption`] for scales that are not positive numbers.
    pub fn new(trace: T, plan: &ArrivalPlan, random: R) -> Result<Self, TraceError> {
        plan.check()?;
        let cursor = match &trace.data {
            TraceData::Counts(_) => Cursor::Counts(CountCursor::default()),
            TraceData::Timestamps(_) => Cursor::Stamps(StampCursor::default()),
        };
        let horizon_ns = plan.horizon_ns.unwrap_or(u64::MAX);
        Ok(Self { trace, random, plan: *plan, horizon_ns, lap_start_ns: 0, law: Exponential::new(), cursor })
    }
}

/// Time after which a repeated trace starts over.
fn lap_ns(trace: &Trace) -> u64 {
    match &trace.data {
        TraceData::Counts(counts) => counts.bin_count() * counts.bin_ns(),
        TraceData::Timestamps(stamps) => {
            let gaps = (stamps.at_ns.len() as u64 - 1).max(1);
            trace.span_ns() + (trace.span_ns() / gaps).max(stamps.resolution_ns)
        }
    }
}

impl<T: Deref<Target = Trace>, R: RandomSource> Iterator for Arrivals<T, R> {
    type Item = Arrival;

    #[inline]
    fn next(&mut self) -> Option<Arrival> {
        match &mut self.cursor {
            Cursor::Counts(cursor) => {
                while cursor.left == 0 {
                    let TraceData::Counts(counts) = &self.trace.data else {
                        unreachable!("set with the trace")
                    };
                    if !cursor.open(counts, &self.plan, self.lap_start_ns, self.law, &mut self.random)? {
                        if self.plan.at_end == AtEnd::Stop {
                            return None;
                        }
                        self.lap_start_ns = self.plan.scaled(lap_ns(&self.trace), self.lap_start_ns)?;
                        *cursor = CountCursor::default();
                    }
                    if cursor.start_ns >= self.horizon_ns {
                        cursor.left = 0;
                        return None;
                    }
                }
                let at_ns = cursor.draw(self.law, &mut self.random);
                (at_ns < self.horizon_ns).then_some(Arrival { at_ns, row: None })
            }
            Cursor::Stamps(cursor) => {
                let TraceData::Timestamps(stamps) = &self.trace.data else {
                    unreachable!("set with the trace")
                };
                let arrival = loop {
                    if let Some(arrival) =
                        cursor.next(stamps, &self.plan, self.lap_start_ns, &mut self.random)
                    {
                        break arrival;
                    }
                    let next_lap = match self.plan.at_end {
                        AtEnd::Stop => None,
                        AtEnd::Repeat => self.plan.scaled(lap_ns(&self.trace), self.lap_start_ns),
                    };
                    match next_lap.filter(|start| *start < self.horizon_ns) {
                        Some(start) => (self.lap_start_ns, cursor.row) = (start, 0),
                        None => break cursor.pop()?,
                    }
                };
                (arrival.at_ns < self.horizon_ns).then_some(arrival)
            }
        }
    }
}

impl CountCursor {
    /// Opens the next bin that may hold arrivals; `Some(false)` past the last, `None` past the last time.
    fn open(
        &mut self,
        counts: &Counts,
        plan: &ArrivalPlan,
        lap_start_ns: u64,
        law: Exponential,
        random: &mut impl RandomSource,
    ) -> Option<bool> {
        let (bins, missing) = (counts.bins(), counts.missing());
        let filled = bins.get(self.entry).map_or(u64::MAX, |b| b.0);
        let unknown = missing.get(self.gap).copied().unwrap_or(u64::MAX);
        self.bin = filled.min(unknown);
        if self.bin == u64::MAX {
            return Some(false);
        }
        let count = if filled < unknown {
            self.entry += 1;
            bins[self.entry - 1].1
        } else {
            self.gap += 1;
            neighbours_mean(counts, self.gap - 1)
        };
        self.left = arrivals_of(count, plan.rate_scale, law, random);
        self.rest = 1.0;
        self.start_ns = plan.scaled(self.bin * counts.bin_ns(), lap_start_ns)?;
        let end_ns = plan.scaled((self.bin + 1) * counts.bin_ns(), lap_start_ns)?;
        self.width_ns = (end_ns - self.start_ns).max(1);
        Some(true)
    }

    /// Draws the earliest of the `left` arrivals that are uniform over the rest of the bin: its share of the
    /// rest is 1 - U^(1/left), with U^(1/left) = exp(-E / left) for E exponential of mean 1.
    #[inline]
    fn draw(&mut self, law: Exponential, random: &mut impl RandomSource) -> u64 {
        let x = law.draw(random) / self.left as f64;
        let kept = if x < 0.01 {
            1.0 - x * (1.0 - x * (0.5 - x * (1.0 / 6.0 - x * (1.0 / 24.0)))) // below 1e-12 off
        } else {
            libm::exp(-x)
        };
        self.rest *= kept;
        self.left -= 1;
        let inside = ((1.0 - self.rest) * self.width_ns as f64) as u64;
        self.start_ns + inside.min(self.width_ns - 1)
    }
}

/// How many arrivals a bin of `count` requests sends: thinned below scale 1, copied above it, a fraction
/// becoming one more arrival with that probability.
fn arrivals_of(count: f64, scale: f64, law: Exponential, random: &mut impl RandomSource) -> u64 {
    let scaled = count * scale.max(1.0);
    let whole = scaled as u64 + u64::from(uniform(random) < scaled.fract());
    if scale < 1.0 { binomial(whole, scale, law, random) } else { whole }
}

/// Mean count of the nearest measured bins on either side of the missing bin `missing()[gap]`.
fn neighbours_mean(counts: &Counts, gap: usize) -> f64 {
    let (bins, missing) = (counts.bins(), counts.missing());
    let count_of = |bin: u64| bins.binary_search_by_key(&bin, |b| b.0).map_or(0.0, |i| bins[i].1);
    let (mut first, mut last) = (gap, gap);
    while first > 0 && missing[first - 1] + 1 == missing[first] {
        first -= 1;
    }
    while last + 1 < missing.len() && missing[last] + 1 == missing[last + 1] {
        last += 1;
    }
    let before = missing[first].checked_sub(1).map(count_of);
    let after = Some(missing[last] + 1).filter(|bin| *bin < counts.bin_count()).map(count_of);
    match (before, after) {
        (Some(before), Some(after)) => (before + after) / 2.0,
        (one, other) => one.or(other).unwrap_or(0.0),
    }
}

impl StampCursor {
    /// Returns the next arrival of this lap that no later row can precede; `None` at the end of the rows.
    fn next(
        &mut self,
        stamps: &Timestamps,
        plan: &ArrivalPlan,
        lap_start_ns: u64,
        random: &mut impl RandomSource,
    ) -> Option<Arrival> {
        while let Some(&at) = stamps.at_ns.get(self.row) {
            let at_ns = plan.scaled(at, lap_start_ns)?;
            if self.copies.peek().is_some_and(|Reverse((copy_ns, _))| *copy_ns <= at_ns) {
                return self.pop();
            }
            let row = self.row as u32; // rows are limited to u32 at import
            self.row += 1;
            if plan.rate_scale == 1.0 {
                return Some(Arrival { at_ns, row: Some(row) });
            }
            let sent = plan.rate_scale as u64 + u64::from(uniform(random) < plan.rate_scale.fract());
            if plan.rate_scale < 1.0 {
                if sent > 0 {
                    return Some(Arrival { at_ns, row: Some(row) });
                }
                continue;
            }
            let jitter_ns = plan.scaled(plan.jitter_ns.unwrap_or(stamps.resolution_ns), 0)?;
            for _ in 0..sent {
                let copy_ns = at_ns.checked_add(below(random, jitter_ns))?;
                self.copies.push(Reverse((copy_ns, row)));
            }
        }
        None
    }

    fn pop(&mut self) -> Option<Arrival> {
        self.copies.pop().map(|Reverse((at_ns, row))| Arrival { at_ns, row: Some(row) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::tests::SplitMix;
    use super::super::{Source, TraceFormat};
    use super::*;

    fn trace(data: TraceData) -> Trace {
        let source = Source { name: "t".into(), format: TraceFormat::Rows, sha256: None };
        Trace { source, start: None, data }
    }

    fn counts(bins: Vec<(u64, f64)>, missing: Vec<u64>) -> Trace {
        trace(TraceData::Counts(Counts::new(1_000_000, 10, bins, missing)))
    }

    fn stamps(at_ns: Vec<u64>) -> Trace {
        trace(TraceData::Timestamps(Timestamps { at_ns, resolution_ns: 10, ..Timestamps::default() }))
    }

    fn play(trace: &Trace, plan: ArrivalPlan) -> Vec<Arrival> {
        let arrivals: Vec<_> = trace.arrivals(&plan, SplitMix(11)).unwrap().collect();
        assert!(arrivals.is_sorted_by_key(|a| a.at_ns));
        arrivals
    }

    #[test]
    fn whole_counts_are_kept_in_their_bins() {
        let trace = counts(vec![(0, 3.0), (4, 1000.0), (9, 2.0)], vec![]);
        let played = play(&trace, ArrivalPlan::default());
        let per_bin = |bin| played.iter().filter(|a| a.at_ns / 1_000_000 == bin).count();
        assert_eq!([per_bin(0), per_bin(4), per_bin(9), played.len()], [3, 1000, 2, 1005]);
    }

    #[test]
    fn arrivals_are_uniform_inside_a_bin() {
        for count in [5.0, 60.0, 100_000.0] {
            let trace = counts((0..10).map(|b| (b, count)).collect(), vec![]);
            let (mut sum, mut squares, mut n) = (0.0, 0.0, 0.0);
            let plan = ArrivalPlan {
                at_end: AtEnd::Repeat,
                horizon_ns: Some((1e13 / count / 10.0) as u64 * 10),
                ..ArrivalPlan::default()
            };
            for a in trace.arrivals(&plan, SplitMix(4)).unwrap() {
                let x = (a.at_ns % 1_000_000) as f64 * 1e-6;
                (sum, squares, n) = (sum + x, squares + x * x, n + 1.0);
            }
            assert!(n > 1e5, "{n}");
            let error = 5.0 / f64::sqrt(12.0 * n);
            assert!((sum / n - 0.5).abs() < error + 1e-6, "mean {} at {count}", sum / n);
            assert!((squares / n - 1.0 / 3.0).abs() < error + 1e-6, "square {} at {count}", squares / n);
        }
    }

    #[test]
    fn missing_bins_take_the_mean_of_their_neighbours() {
        let trace = counts(vec![(0, 10.0), (3, 20.0), (8, 6.0)], vec![1, 2, 9]);
        let played = play(&trace, ArrivalPlan::default());
        let per_bin = |bin| played.iter().filter(|a| a.at_ns / 1_000_000 == bin).count();
        assert_eq!([per_bin(1), per_bin(2), per_bin(4), per_bin(9)], [15, 15, 0, 6]);
    }

    #[test]
    fn rate_scale_scales_the_number() {
        let data = [
            counts(vec![(0, 50_000.0), (7, 50_000.5)], vec![]),
            stamps((0..100_000).map(|i| i * 7).collect()),
        ];
        for trace in &data {
            for scale in [0.001, 0.3, 0.9, 1.0, 1.25, 3.0] {
                let n = play(trace, ArrivalPlan { rate_scale: scale, ..ArrivalPlan::default() }).len() as f64;
                let spread = (100_000.0 * scale.min(0.25)).sqrt();
                assert!((n - 100_000.0 * scale).abs() < 5.0 * spread + 1.0, "{n} at scale {scale}");
            }
        }
    }

    #[test]
    fn timestamps_replay_exactly_and_copies_stay_in_the_clock_step() {
        let trace = stamps(vec![0, 20, 20, 50]);
        let exact: Vec<_> = play(&trace, ArrivalPlan::default()).iter().map(|a| (a.at_ns, a.row)).collect();
        assert_eq!(exact, [(0, Some(0)), (20, Some(1)), (20, Some(2)), (50, Some(3))]);
        let copied = play(&trace, ArrivalPlan { rate_scale: 3.0, ..ArrivalPlan::default() });
        assert_eq!(copied.len(), 12);
        for a in &copied {
            let original = [0, 20, 20, 50][a.row.unwrap() as usize];
            assert!((original..original + 10).contains(&a.at_ns), "{a:?}");
        }
        let wide = ArrivalPlan { rate_scale: 3.0, jitter_ns: Some(1000), ..ArrivalPlan::default() };
        assert_eq!(play(&trace, wide).len(), 12);
    }

    #[test]
    fn time_scale_horizon_and_repeat_hold() {
        let trace = stamps(vec![0, 20, 40]);
        let times = |plan| play(&trace, plan).iter().map(|a| a.at_ns).collect::<Vec<_>>();
        assert_eq!(times(ArrivalPlan { time_scale: 0.5, ..ArrivalPlan::default() }), [0, 10, 20]);
        assert_eq!(times(ArrivalPlan { horizon_ns: Some(40), ..ArrivalPlan::default() }), [0, 20]);
        let lap = ArrivalPlan { horizon_ns: Some(130), at_end: AtEnd::Repeat, ..ArrivalPlan::default() };
        assert_eq!(times(lap), [0, 20, 40, 60, 80, 100, 120]);
        let trace = counts(vec![(0, 5.0)], vec![]);
        let lap = ArrivalPlan { horizon_ns: Some(20_000_000), time_scale: 0.5, ..lap };
        let bins: Vec<_> = play(&trace, lap).iter().map(|a| a.at_ns / 500_000).collect();
        assert_eq!(bins, [0, 10, 20, 30].map(|b| [b; 5]).concat());
    }

    #[test]
    fn bad_scales_are_refused() {
        for (rate_scale, time_scale) in
            [(0.0, 1.0), (f64::NAN, 1.0), (1.0, -1.0), (1.0, f64::INFINITY), (1e10, 1.0)]
        {
            let plan = ArrivalPlan { rate_scale, time_scale, ..ArrivalPlan::default() };
            assert!(stamps(vec![0]).arrivals(&plan, SplitMix(1)).is_err(), "{rate_scale} {time_scale}");
        }
    }

    #[test]
    fn one_request_repeats_without_end_at_the_same_time() {
        let lap = ArrivalPlan { horizon_ns: Some(35), at_end: AtEnd::Repeat, ..ArrivalPlan::default() };
        assert_eq!(play(&stamps(vec![0]), lap).len(), 4);
    }
}
