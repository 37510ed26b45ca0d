//! Statistics of a trace: level, peaks, regularity, dispersion, bursts. No fitting, no reading.

use serde::Serialize;

use super::sparkline::{SparkStyle, sparkline};
use super::{CalendarStart, ClientRates, Counts, Trace, TraceData, TraceFormat};

/// Windows in which peaks are looked for, s; those finer than the file's resolution are left out.
const WINDOWS_S: [u64; 6] = [1, 10, 60, 600, 3_600, 86_400];
const SECOND_NS: u64 = 1_000_000_000;
/// A burst is a run of windows above this multiple of the mean.
const BURST_FACTOR: f64 = 2.0;
/// A step up is only looked for from windows with this share of the mean and this many requests: below
/// them the ratio of neighbours is counting noise.
const STEP_SHARE_MIN: f64 = 0.1;
const STEP_COUNT_MIN: f64 = 10.0;
/// Width of the sparkline in a description.
const SPARK_WIDTH: usize = 72;

/// What a trace is like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    pub name: String,
    pub format: TraceFormat,
    pub sha256: Option<String>,
    pub start: Option<CalendarStart>,
    pub kind: TraceKind,
    pub resolution_s: f64,
    /// Requests.
    pub count: f64,
    pub span_s: f64,
    /// Over the measured time.
    pub mean_per_s: f64,
    /// Rate in the busiest window of `peak_window_s`, the finest that the file's resolution allows; windows
    /// start at the first request or bin.
    pub peak_per_s: f64,
    pub peak_window_s: f64,
    pub peak_to_mean: f64,
    pub peaks: Vec<Peak>,
    /// Coefficient of variation of what `cv_of` says.
    pub cv: f64,
    pub cv_of: CvOf,
    /// Bins of a trace of counts that were not measured.
    pub missing_bins: u64,
    /// Longest time without a request; for counts, the longest run of empty bins.
    pub silence_max_s: f64,
    /// Window of the four statistics below: the finest in `peaks` with one request on average.
    pub series_window_s: f64,
    /// Variance / mean of the counts per window; 1 for a Poisson process.
    pub dispersion_index: f64,
    /// Correlation of neighbouring windows.
    pub lag1_autocorrelation: f64,
    pub bursts: Bursts,
    pub sparkline: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceKind {
    Timestamps,
    Counts,
    /// Rates per client and window, to be drawn from.
    ClientRates,
}

/// What the coefficient of variation is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CvOf {
    /// Gaps between requests.
    Gaps,
    /// Counts per bin: counts have no gaps.
    BinCounts,
    /// Published CVs of gaps per client and window, weighted by rate.
    ClientGaps,
}

/// The busiest window of one width.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Peak {
    pub window_s: f64,
    /// Requests in it.
    pub count: f64,
    pub per_s: f64,
    pub to_mean: f64,
    /// Its start, from the start of the trace.
    pub at_s: f64,
}

/// Runs of windows above twice the mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bursts {
    pub count: u64,
    pub length_mean_s: f64,
    pub length_max_s: f64,
    /// Mean over bursts of (mean rate in the burst / mean rate of the trace).
    pub amplification_mean: f64,
    /// Largest ratio of a window to the one before, from windows with at least a tenth of the mean and ten
    /// requests; `None` without such a pair.
    pub step_up_max: Option<f64>,
}

/// Mean and standard deviation (of the population) gathered in one pass (Welford 1962).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moments {
    pub(super) n: f64,
    pub(super) mean: f64,
    squares: f64,
}

impl Moments {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut moments = Self::default();
        for value in values {
            moments.n += 1.0;
            let off = value - moments.mean;
            moments.mean += off / moments.n;
            moments.squares += off * (value - moments.mean);
        }
        moments
    }

    pub(super) fn variance(self) -> f64 {
        if self.n > 0.0 { self.squares / self.n } else { 0.0 }
    }

    /// Standard deviation / mean; 0 where the mean is 0.
    pub(super) fn cv(self) -> f64 {
        if self.mean > 0.0 { self.variance().sqrt() / self.mean } else { 0.0 }
    }
}

impl Trace {
    /// Computes the statistics of this trace.
    #[must_use]
    pub fn describe(&self) -> Description {
        let (mean_per_s, resolution_ns) = (self.rate_mean_per_s(), self.resolution_ns());
        let peaks = self.peaks(mean_per_s);
        // Every trace has a window: counts their own bin, timestamps at least the day.
        let natural = peaks[0];
        let enough = |p: &&Peak| mean_per_s * p.window_s >= 1.0;
        let series_window_s =
            peaks.iter().find(enough).or(peaks.last()).map_or(natural.window_s, |p| p.window_s);
        let series = self.binned((series_window_s * 1e9).round() as u64);
        let moments = Moments::of(series.dense().flatten());
        let (kind, cv, cv_of, missing_bins, silence_max_s) = match &self.data {
            TraceData::Timestamps(stamps) => {
                let gaps = || stamps.at_ns.windows(2).map(|p| (p[1] - p[0]) as f64 / 1e9);
                (TraceKind::Timestamps, Moments::of(gaps()).cv(), CvOf::Gaps, 0, gaps().fold(0.0, f64::max))
            }
            TraceData::Counts(counts) => {
                let cv = Moments::of(counts.dense().flatten()).cv();
                let silence_s = empty_run(counts) as f64 * counts.bin_ns() as f64 / 1e9;
                (TraceKind::Counts, cv, CvOf::BinCounts, counts.missing().len() as u64, silence_s)
            }
        };
        Description {
            name: self.source.name.clone(),
            format: self.source.format,
            sha256: self.source.sha256.clone(),
            start: self.start,
            kind,
            resolution_s: resolution_ns as f64 / 1e9,
            count: self.count(),
            span_s: self.span_ns() as f64 / 1e9,
            mean_per_s,
            peak_per_s: natural.per_s,
            peak_window_s: natural.window_s,
            peak_to_mean: natural.to_mean,
            peaks,
            cv,
            cv_of,
            missing_bins,
            silence_max_s,
            series_window_s,
            dispersion_index: if moments.mean > 0.0 { moments.variance() / moments.mean } else { 0.0 },
            lag1_autocorrelation: lag1_autocorrelation(&series, moments),
            bursts: bursts(&series, moments.mean),
            sparkline: sparkline(&self.profile(SPARK_WIDTH), SparkStyle::Blocks),
        }
    }

    /// The busiest window of each width that the resolution allows, finest first; never empty.
    fn peaks(&self, mean_per_s: f64) -> Vec<Peak> {
        let resolution_ns = self.resolution_ns();
        let mut windows: Vec<u64> = WINDOWS_S.iter().map(|s| s * SECOND_NS).collect();
        match self.data {
            // Below the clock step there is nothing to count, above the span nothing to compare.
            TraceData::Timestamps(_) => windows.retain(|w| *w >= resolution_ns),
            TraceData::Counts(_) => {
                windows.retain(|w| *w > resolution_ns && w.is_multiple_of(resolution_ns));
                windows.insert(0, resolution_ns);
            }
        }
        let finest = windows[0];
        windows.retain(|w| *w == finest || *w <= self.span_ns());
        let peak = |window_ns: u64| {
            let (at, count) = self.busiest(window_ns);
            let window_s = window_ns as f64 / 1e9;
            let per_s = count / window_s;
            let to_mean = if mean_per_s > 0.0 { per_s / mean_per_s } else { 0.0 };
            Peak { window_s, count, per_s, to_mean, at_s: at as f64 * window_s }
        };
        windows.into_iter().map(peak).collect()
    }

    /// Index and count of the busiest window; windows lie side by side from the start.
    fn busiest(&self, window_ns: u64) -> (u64, f64) {
        let mut busiest = (0, 0.0);
        let mut current = (0, 0.0);
        let mut add = |window: u64, count: f64| {
            if window != current.0 {
                current = (window, 0.0);
            }
            current.1 += count;
            if current.1 > busiest.1 {
                busiest = current;
            }
        };
        match &self.data {
            TraceData::Timestamps(stamps) => stamps.at_ns.iter().for_each(|at| add(at / window_ns, 1.0)),
            TraceData::Counts(counts) => {
                let per_window = window_ns / counts.bin_ns();
                counts.bins().iter().for_each(|b| add(b.0 / per_window, b.1));
            }
        }
        busiest
    }

    /// Requests per window of `window_ns`; a last window that the trace cuts short is left out, unless it
    /// is the only one. Counts are joined to whole bins, the nearest below `window_ns`.
    #[must_use]
    pub fn binned(&self, window_ns: u64) -> Counts {
        let window_ns = window_ns.max(1);
        match &self.data {
            TraceData::Counts(counts) => counts.widened((window_ns / counts.bin_ns()).max(1)),
            TraceData::Timestamps(stamps) => {
                let bin_count = (self.span_ns() / window_ns).max(1);
                let mut bins: Vec<(u64, f64)> = Vec::new();
                for window in stamps.at_ns.iter().map(|at| at / window_ns) {
                    match bins.last_mut() {
                        Some(last) if last.0 == window => last.1 += 1.0,
                        _ if window < bin_count => bins.push((window, 1.0)),
                        _ => break,
                    }
                }
                Counts::new(window_ns, bin_count, bins, Vec::new())
            }
        }
    }

    /// Mean rate in each of at most `width` equal parts of the trace, 1/s; `None` where nothing was measured.
    #[must_use]
    pub fn profile(&self, width: usize) -> Vec<Option<f64>> {
        assert!(width > 0, "a profile has at least one part");
        let counts = match &self.data {
            TraceData::Counts(counts) => counts,
            TraceData::Timestamps(_) => &self.binned(self.span_ns().div_ceil(width as u64).max(1)),
        };
        let width = (width as u64).min(counts.bin_count());
        let bin_s = counts.bin_ns() as f64 / 1e9;
        let mut parts = vec![(0.0, 0u64); width as usize];
        for (index, count) in counts.dense().enumerate() {
            let part = &mut parts[(index as u64 * width / counts.bin_count()) as usize];
            if let Some(count) = count {
                *part = (part.0 + count, part.1 + 1);
            }
        }
        parts.into_iter().map(|(sum, bins)| (bins > 0).then(|| sum / (bins as f64 * bin_s))).collect()
    }
}

impl ClientRates {
    /// Statistics of the clients' rates summed per window; the CV is the published one of gaps.
    ///
    /// # Errors
    /// [`super::TraceError::NoRequests`] when all rates are 0.
    pub fn describe(&self) -> Result<Description, super::TraceError> {
        let summed = self.counts(&super::ImportOptions::default())?.describe();
        let (kind, cv_of) = (TraceKind::ClientRates, CvOf::ClientGaps);
        Ok(Description { kind, cv: self.gap_cv_weighted(), cv_of, ..summed })
    }
}

/// Longest run of measured, empty bins.
fn empty_run(counts: &Counts) -> u64 {
    let (mut longest, mut run) = (0, 0);
    for count in counts.dense() {
        run = if count == Some(0.0) { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// Correlation of each window with the next; pairs with a missing window are left out.
fn lag1_autocorrelation(series: &Counts, moments: Moments) -> f64 {
    let (mut products, mut pairs, mut last) = (0.0, 0.0, None);
    for count in series.dense() {
        if let (Some(last), Some(count)) = (last, count) {
            products += (last - moments.mean) * (count - moments.mean);
            pairs += 1.0;
        }
        last = count;
    }
    if pairs > 0.0 && moments.variance() > 0.0 { products / pairs / moments.variance() } else { 0.0 }
}

fn bursts(series: &Counts, mean: f64) -> Bursts {
    let bin_s = series.bin_ns() as f64 / 1e9;
    let step_from = (mean * STEP_SHARE_MIN).max(STEP_COUNT_MIN);
    let mut runs: Vec<(u64, f64)> = Vec::new();
    let (mut open, mut last, mut step_up_max) = (false, None, None::<f64>);
    for count in series.dense() {
        if let (Some(last), Some(count)) = (last.filter(|l| *l >= step_from), count) {
            step_up_max = Some(step_up_max.map_or(count / last, |s| s.max(count / last)));
        }
        last = count;
        match count.filter(|c| *c > BURST_FACTOR * mean) {
            None => open = false,
            Some(count) => {
                if !open {
                    runs.push((0, 0.0));
                }
                open = true;
                let run = runs.last_mut().expect("pushed when the run opened");
                *run = (run.0 + 1, run.1 + count);
            }
        }
    }
    let n = runs.len() as f64;
    let mean_of = |sum: f64| if n > 0.0 { sum / n } else { 0.0 };
    Bursts {
        count: runs.len() as u64,
        length_mean_s: mean_of(runs.iter().map(|r| r.0 as f64 * bin_s).sum()),
        length_max_s: runs.iter().map(|r| r.0).max().unwrap_or(0) as f64 * bin_s,
        amplification_mean: mean_of(runs.iter().map(|r| r.1 / r.0 as f64 / mean).sum()),
        step_up_max,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Row, Timestamps};
    use super::*;

    fn counts(values: &[Option<f64>]) -> Trace {
        let rows = values.iter().zip(0..).filter_map(|(count, i)| {
            count.map(|count| Row { at_ns: i * 1_000_000_000, count: Some(count), ..Row::default() })
        });
        let options = super::super::ImportOptions { count_bin_ns: Some(SECOND_NS), ..Default::default() };
        Trace::from_rows("t", rows, false, &options).unwrap()
    }

    #[test]
    fn counts_are_described_by_hand() {
        let d =
            counts(&[Some(10.0), Some(10.0), None, Some(50.0), Some(50.0), Some(0.0), Some(0.0), Some(20.0)])
                .describe();
        assert_eq!((d.count, d.span_s, d.mean_per_s), (140.0, 8.0, 20.0));
        assert_eq!((d.peak_per_s, d.peak_to_mean, d.peak_window_s), (50.0, 2.5, 1.0));
        // Squares off the mean: 100 100 900 900 400 400 0 over 7.
        assert!((d.cv - (2800.0f64 / 7.0).sqrt() / 20.0).abs() < 1e-12);
        assert!((d.dispersion_index - 20.0).abs() < 1e-12);
        assert_eq!((d.missing_bins, d.silence_max_s, d.cv_of), (1, 2.0, CvOf::BinCounts));
        assert_eq!((d.bursts.count, d.bursts.length_max_s, d.bursts.amplification_mean), (1, 2.0, 2.5));
        assert_eq!(d.bursts.step_up_max, Some(1.0)); // 10 -> 50 has a missing bin between
        // Pairs: 100, 900, -600, 400, 0 over 5 pairs, over the variance 400.
        assert!((d.lag1_autocorrelation - 800.0 / 5.0 / 400.0).abs() < 1e-12);
    }

    #[test]
    fn timestamps_are_described_by_hand() {
        let at_ns = [0u64, 1, 1, 4, 10].map(|s| s * SECOND_NS).to_vec();
        let data =
            TraceData::Timestamps(Timestamps { at_ns, resolution_ns: SECOND_NS, ..Timestamps::default() });
        let d = Trace { data, ..counts(&[Some(1.0)]) }.describe();
        assert_eq!((d.count, d.span_s, d.mean_per_s), (5.0, 10.0, 0.5));
        assert_eq!((d.peak_per_s, d.peak_to_mean, d.silence_max_s), (2.0, 4.0, 6.0));
        // Gaps 1 0 3 6: mean 2.5, variance 5.25.
        assert!((d.cv - 5.25f64.sqrt() / 2.5).abs() < 1e-12);
        assert_eq!((d.kind, d.cv_of), (TraceKind::Timestamps, CvOf::Gaps));
    }

    #[test]
    fn json_has_the_fields_that_programs_read() {
        let json = serde_json::to_value(counts(&[Some(1.0), Some(3.0)]).describe()).unwrap();
        for key in ["count", "span_s", "mean_per_s", "peak_per_s", "peak_to_mean", "cv"] {
            assert!(json[key].is_number(), "{key} in {json}");
        }
    }

    #[test]
    fn one_request_has_finite_statistics() {
        let rows = [Row { at_ns: 5, ..Row::default() }];
        let d = Trace::from_rows("t", rows, false, &Default::default()).unwrap().describe();
        assert!(
            [d.mean_per_s, d.cv, d.peak_to_mean, d.dispersion_index].iter().all(|x| x.is_finite()),
            "{d:?}"
        );
    }
}
