//! Fits a generator to a trace: least squares on the rate per bin, the kind by Akaike's criterion.

use std::f64::consts::TAU;

use serde::Serialize;

use super::describe::Moments;
use super::generator::{launch_wave, viral_wave};
use super::search::{minimise, solve};
use super::{GeneratorShape, Trace, TraceData, ViralDecay};

/// Most bins of the rate that is fitted, and requests wanted in one on average.
const BINS_TARGET: u64 = 1_000;
const REQUESTS_PER_BIN: f64 = 5.0;
/// Fewer bins than this carry nothing but a mean.
const BINS_MIN: usize = 16;
/// A daily wave is only looked for in traces of this many days.
const DAYS_MIN: f64 = 1.5;
const DAY_S: f64 = 86_400.0;
/// A kind with more parameters must win by more than this: Burnham and Anderson, Model Selection, 2002,
/// §2.6, find essentially no support for a model that is worse by 10.
const AIC_MARGIN: f64 = 10.0;
/// A fit is called poor below this R² (unless what is left is no more than Poisson noise) ...
const R2_MIN: f64 = 0.5;
const NOISE_DISPERSION_MAX: f64 = 2.0;
/// ... or when its peak is off by more than this factor.
const PEAK_FACTOR_MAX: f64 = 2.0;
/// Burstiness this near to 1 is left out: the process is Poisson.
const POISSON_BAND: f64 = 0.1;

/// A generator that stands in for a trace, and how well it does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    pub shape: GeneratorShape,
    /// CV of the gaps left when the fitted rate is divided out; `None` for a Poisson process, and for
    /// traces of counts, which have no gaps.
    pub burstiness: Option<f64>,
    /// Width of the bins of the fitted rate.
    pub bin_s: f64,
    /// Share of the variance of the rate per bin that the shape explains.
    pub r2: f64,
    /// Highest fitted rate / highest measured rate, both per bin.
    pub peak_ratio: f64,
    /// Variance of the counts per bin about the fit / their mean; 1 for a Poisson process.
    pub dispersion_left: f64,
    /// All kinds that were tried, fewest parameters first.
    pub candidates: Vec<Candidate>,
    /// Why the fit should not be trusted, in words.
    pub warnings: Vec<String>,
    /// The section of a scenario file, with its source and goodness as comments.
    pub toml: String,
}

/// One kind of generator that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Candidate {
    pub shape: GeneratorShape,
    pub parameters: u32,
    /// n ln(RSS / n) + 2 k.
    pub aic: f64,
    pub r2: f64,
}

/// The rate per bin: time of the bin's middle (s) and rate (1/s), measured bins only.
struct Rate {
    points: Vec<(f64, f64)>,
    bin_s: f64,
    span_s: f64,
    mean: f64,
    /// Sum of squares about the mean.
    total: f64,
}

impl Trace {
    /// Fits the generator that explains this trace's rate with the fewest parameters.
    #[must_use]
    pub fn fit(&self) -> Fit {
        let rate = Rate::of(self);
        let candidates = rate.candidates();
        let best = candidates.iter().map(|c| c.aic).fold(f64::INFINITY, f64::min);
        let chosen = candidates.iter().find(|c| c.aic <= best + AIC_MARGIN).unwrap_or(&candidates[0]);
        let shape = chosen.shape;
        let peak = |value: &dyn Fn(&(f64, f64)) -> f64| rate.points.iter().map(value).fold(0.0, f64::max);
        let (fitted_peak, measured_peak) = (peak(&|p| shape.rate_at(p.0)), peak(&|p| p.1));
        let burstiness = self.burstiness(&shape, rate.mean);
        let mut fit = Fit {
            shape,
            burstiness: burstiness.filter(|b| (b - 1.0).abs() > POISSON_BAND),
            bin_s: rate.bin_s,
            r2: chosen.r2,
            peak_ratio: if measured_peak > 0.0 { fitted_peak / measured_peak } else { 1.0 },
            dispersion_left: rate.squares_about(&shape) * rate.bin_s / (rate.points.len() as f64 * rate.mean),
            candidates: Vec::new(),
            warnings: Vec::new(),
            toml: String::new(),
        };
        fit.warnings = warnings(&fit, &rate, &self.data);
        fit.toml = self.fit_toml(&fit);
        fit.candidates = candidates;
        fit
    }

    /// CV of the gaps on the clock of the fitted rate (time rescaling: on it a Poisson process has rate 1 and
    /// CV 1, whatever its rate did; Brown et al., Neural Computation 14, 2002).
    fn burstiness(&self, shape: &GeneratorShape, mean: f64) -> Option<f64> {
        let TraceData::Timestamps(stamps) = &self.data else { return None };
        let rate = |t_s: f64| shape.rate_at(t_s).max(mean * 0.01); // a silent base must not stop the clock
        let gap = |pair: &[u64]| {
            let (from, to) = (pair[0] as f64 / 1e9, pair[1] as f64 / 1e9);
            (to - from) * (rate(from) + 4.0 * rate((from + to) / 2.0) + rate(to)) / 6.0 // Simpson
        };
        (stamps.at_ns.len() >= 30).then(|| Moments::of(stamps.at_ns.windows(2).map(gap)).cv())
    }

    fn fit_toml(&self, fit: &Fit) -> String {
        let mut text = format!("# fitted to {}\n", self.source.name.replace(['\n', '\r'], " "));
        if let Some(sha256) = &self.source.sha256 {
            text += &format!("# sha256 {sha256}\n");
        }
        text += &format!("# on {} s bins: R2 {:.3}, peak ratio {:.2}\n", fit.bin_s, fit.r2, fit.peak_ratio);
        text.extend(fit.warnings.iter().map(|warning| format!("# warning: {warning}\n")));
        text + &fit.shape.to_toml(fit.burstiness)
    }
}

fn warnings(fit: &Fit, rate: &Rate, data: &TraceData) -> Vec<String> {
    let mut warnings = Vec::new();
    if rate.points.len() < BINS_MIN {
        warnings.push(format!(
            "only {} bins of {} s: nothing but the mean was fitted",
            rate.points.len(),
            rate.bin_s
        ));
    }
    if fit.r2 < R2_MIN && fit.dispersion_left > NOISE_DISPERSION_MAX {
        warnings.push(format!(
            "poor fit: {:.0} % of the variance of the rate explained, counts {:.1} times as dispersed as Poisson; \
             replay the trace itself",
            100.0 * fit.r2,
            fit.dispersion_left
        ));
    }
    if !(1.0 / PEAK_FACTOR_MAX..=PEAK_FACTOR_MAX).contains(&fit.peak_ratio) {
        warnings.push(format!("the fitted peak is {:.2} of the measured peak", fit.peak_ratio));
    }
    if rate.span_s < DAYS_MIN * DAY_S {
        warnings.push("too short to tell a daily wave".to_owned());
    }
    if matches!(data, TraceData::Counts(_)) {
        warnings
            .push("counts have no gaps: burstiness inside a bin is unknown and taken as Poisson".to_owned());
    }
    warnings
}

impl Rate {
    fn of(trace: &Trace) -> Self {
        let (span_ns, resolution_ns) = (trace.span_ns(), trace.resolution_ns());
        let filled_ns = (REQUESTS_PER_BIN / trace.rate_mean_per_s().max(1e-9) * 1e9) as u64;
        let wanted_ns = span_ns.div_ceil(BINS_TARGET).max(filled_ns).max(resolution_ns);
        // Whole steps of the file's clock: a bin of 1.4 steps would count one step here and two there.
        let counts = trace.binned(wanted_ns.div_ceil(resolution_ns) * resolution_ns);
        let bin_s = counts.bin_ns() as f64 / 1e9;
        let points: Vec<_> = counts
            .dense()
            .enumerate()
            .filter_map(|(i, count)| count.map(|count| ((i as f64 + 0.5) * bin_s, count / bin_s)))
            .collect();
        let moments = Moments::of(points.iter().map(|p| p.1));
        let total = moments.variance() * moments.n;
        Self { points, bin_s, span_s: span_ns as f64 / 1e9, mean: moments.mean, total }
    }

    fn squares_about(&self, shape: &GeneratorShape) -> f64 {
        self.points.iter().map(|(t, y)| (y - shape.rate_at(*t)).powi(2)).sum()
    }

    /// Fits every kind that the trace is long enough for; the constant always.
    fn candidates(&self) -> Vec<Candidate> {
        let mut shapes = vec![(1, GeneratorShape::Constant { rate_per_s: self.mean })];
        if self.points.len() >= BINS_MIN && self.total > 0.0 {
            if self.span_s >= DAYS_MIN * DAY_S && self.bin_s <= DAY_S / 8.0 {
                shapes.extend(self.diurnal().map(|shape| (3, shape)));
            }
            shapes.push((5, self.viral(ViralDecay::Exponential)));
            shapes.push((5, self.viral(ViralDecay::Power)));
            shapes.push((6, self.launch()));
        }
        let candidate = |(parameters, shape): (u32, GeneratorShape)| {
            let squares = self.squares_about(&shape);
            let n = self.points.len() as f64;
            // A perfect fit has no finite criterion; the floor is below any rounding error.
            let spread = (squares / n).max(self.mean * self.mean * 1e-24).max(f64::MIN_POSITIVE);
            let aic = n * libm::log(spread) + 2.0 * f64::from(parameters);
            let r2 = if self.total > 0.0 { 1.0 - squares / self.total } else { 0.0 };
            Candidate { shape, parameters, aic, r2 }
        };
        let mut candidates: Vec<Candidate> = shapes.into_iter().map(candidate).collect();
        candidates.sort_by(|a, b| (a.parameters, a.aic).partial_cmp(&(b.parameters, b.aic)).expect("no NaN"));
        candidates
    }

    /// Harmonic regression `y = m + c cos ωt + s sin ωt`, exact least squares.
    fn diurnal(&self) -> Option<GeneratorShape> {
        let (mut a, mut b) = ([[0.0; 3]; 3], [0.0; 3]);
        for &(t, y) in &self.points {
            let basis = [1.0, libm::cos(TAU * t / DAY_S), libm::sin(TAU * t / DAY_S)];
            for i in 0..3 {
                (0..3).for_each(|j| a[i][j] += basis[i] * basis[j]);
                b[i] += basis[i] * y;
            }
        }
        let [mean, c, s] = solve(a, b)?;
        let peak_at_s = libm::atan2(s, c) / TAU * DAY_S;
        (mean > 0.0).then(|| GeneratorShape::Diurnal {
            rate_per_s: mean,
            amplitude: (libm::sqrt(c * c + s * s) / mean).min(1.0),
            period_s: DAY_S,
            peak_at_s: if peak_at_s < 0.0 { peak_at_s + DAY_S } else { peak_at_s },
        })
    }

    /// Best base and height (both 0 or more) of a given wave, and their sum of squares.
    fn level(&self, wave: impl Fn(f64) -> f64) -> (f64, f64, f64) {
        let n = self.points.len() as f64;
        let (mut w, mut ww, mut wy) = (0.0, 0.0, 0.0);
        let shares: Vec<f64> = self.points.iter().map(|p| wave(p.0)).collect();
        for (share, (_, y)) in shares.iter().zip(&self.points) {
            (w, ww, wy) = (w + share, ww + share * share, wy + share * y);
        }
        let determinant = n * ww - w * w;
        let sum = self.mean * n;
        let (mut base, mut height) = (self.mean, 0.0);
        if determinant > 1e-9 * n * ww {
            height = ((n * wy - w * sum) / determinant).max(0.0);
            base = (sum - height * w) / n;
            if base < 0.0 {
                (base, height) = (0.0, wy / ww);
            }
        }
        let square = |(share, (_, y)): (&f64, &(f64, f64))| (y - base - height * share).powi(2);
        (base, height, shares.iter().zip(&self.points).map(square).sum())
    }

    /// Middles of the highest stretch of 1, 5 and 25 bins: where a wave may peak.
    fn peaks(&self) -> Vec<f64> {
        let sum = |stretch: &[(f64, f64)]| stretch.iter().map(|p| p.1).sum::<f64>();
        let stretches = [1, 5, 25].into_iter().filter(|n| *n <= self.points.len());
        let highest = |n| self.points.windows(n).max_by(|a, b| sum(a).total_cmp(&sum(b))).map(|s| s[n / 2].0);
        stretches.filter_map(highest).collect()
    }

    /// Times to start a search from, shortest first.
    fn lengths(&self) -> [f64; 4] {
        [0.004, 0.02, 0.08, 0.3].map(|share| (share * self.span_s).max(self.bin_s))
    }

    fn viral(&self, decay: ViralDecay) -> GeneratorShape {
        // The point is (start, ln rise, ln half-life); start is kept in the run, lengths resolvable.
        let unpack = |p: &[f64; 3]| {
            let length = |ln: f64| libm::exp(ln).clamp(self.bin_s, 4.0 * self.span_s);
            (p[0].clamp(0.0, self.span_s), length(p[1]), length(p[2]))
        };
        let level = |p: &[f64; 3]| {
            let (start, rise, half_life) = unpack(p);
            self.level(|t| viral_wave(t - start, rise, half_life, decay))
        };
        let mut starts = Vec::new();
        for peak in self.peaks() {
            for rise in self.lengths() {
                let logs = self.lengths().map(libm::log);
                starts.extend(logs.map(|half_life| [(peak - rise).max(0.0), libm::log(rise), half_life]));
            }
        }
        let best = self.descend(starts, [4.0 * self.bin_s, 0.7, 0.7], |p| level(p).2);
        let ((start_s, rise_s, half_life_s), (base, height, _)) = (unpack(&best), level(&best));
        GeneratorShape::Viral {
            base_per_s: base,
            peak_per_s: base + height,
            start_s,
            rise_s,
            half_life_s,
            decay,
        }
    }

    fn launch(&self) -> GeneratorShape {
        let unpack = |p: &[f64; 4]| {
            let length = |ln: f64| libm::exp(ln).clamp(self.bin_s, 4.0 * self.span_s);
            (p[0].clamp(0.0, self.span_s), length(p[1]), length(p[2]), length(p[3]))
        };
        let level = |p: &[f64; 4]| {
            let (start, ramp, hold, half_life) = unpack(p);
            self.level(|t| launch_wave(t - start, ramp, hold, half_life))
        };
        let mut starts = Vec::new();
        for peak in self.peaks() {
            for ramp in self.lengths() {
                for hold in self.lengths() {
                    let start = (peak - ramp - hold / 2.0).max(0.0);
                    let logs = self.lengths().map(libm::log);
                    starts.extend(logs.map(|half_life| [start, libm::log(ramp), libm::log(hold), half_life]));
                }
            }
        }
        let best = self.descend(starts, [4.0 * self.bin_s, 0.7, 0.7, 0.7], |p| level(p).2);
        let ((start_s, ramp_s, hold_s, half_life_s), (base, height, _)) = (unpack(&best), level(&best));
        GeneratorShape::Launch {
            base_per_s: base,
            peak_per_s: base + height,
            start_s,
            ramp_s,
            hold_s,
            half_life_s,
        }
    }

    /// Walks downhill from the three best of `starts`.
    fn descend<const N: usize>(
        &self,
        starts: Vec<[f64; N]>,
        step: [f64; N],
        cost: impl Fn(&[f64; N]) -> f64,
    ) -> [f64; N] {
        let mut ranked: Vec<_> = starts.into_iter().map(|start| (cost(&start), start)).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        let walks = ranked.iter().take(3).map(|(_, start)| minimise(*start, step, &cost));
        walks.min_by(|a, b| a.1.total_cmp(&b.1)).expect("a trace has a peak to start from").0
    }
}
