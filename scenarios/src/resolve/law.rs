//! Laws of time.

use policy::units::{Duration, math};

use super::Resolver;
use crate::diagnostics::{ErrorKind, Key};
use crate::file::law::{LawFile, LognormalFile};
use crate::file::quantity::Time;
use crate::scenario::Law;

/// Longest time that a scenario may speak of: ten years. Sums of such times stay far below the 584 years that fit.
pub(super) const TIME_MAX: Duration = Duration::from_secs(3660 * 86_400);

/// 99th percentile of the standard normal law.
const NORMAL_P99: f64 = 2.326_347_874_040_840_8;

impl Resolver<'_> {
    /// The law, checked.
    pub(super) fn law(&mut self, key: &Key, file: &LawFile) -> Law {
        let law = match file {
            LawFile::Constant(Time(value)) => Law::Constant(*value),
            LawFile::Lognormal { lognormal } => self.lognormal(&key.at("lognormal"), lognormal),
            LawFile::Exponential { exponential } => Law::Exponential { mean: exponential.mean.0 },
            LawFile::Uniform { uniform } => Law::Uniform { low: uniform.low.0, high: uniform.high.0 },
            LawFile::Weibull { weibull } => Law::Weibull { mean: weibull.mean.0, shape: weibull.shape },
            LawFile::Pareto { pareto } => Law::Pareto { mean: pareto.mean.0, tail: pareto.tail },
            LawFile::Quantiles { quantiles } => {
                Law::Quantiles(quantiles.iter().map(|Time(value)| *value).collect())
            }
        };
        if self.problems.check(ErrorKind::Value, key, law.check()).is_some() && law.mean() > TIME_MAX {
            let message =
                format!("a mean of {} is longer than {TIME_MAX}, the longest time there is", law.mean());
            self.problems.add(ErrorKind::Overflow, key, message);
        }
        law
    }

    /// The law at `key` if it is stated, else the constant `otherwise`.
    pub(super) fn law_or(&mut self, key: &Key, file: Option<&LawFile>, otherwise: Duration) -> Law {
        file.map_or(Law::Constant(otherwise), |file| self.law(key, file))
    }

    /// A lognormal law by mean and CV, or by two quantiles: p50 = exp(mu), p99 = exp(mu + z99 sigma), mean = p50
    /// exp(sigma^2/2), CV^2 = exp(sigma^2) - 1.
    fn lognormal(&mut self, key: &Key, file: &LognormalFile) -> Law {
        match *file {
            LognormalFile { mean: Some(Time(mean)), cv: Some(cv), p50: None, p99: None } => {
                Law::Lognormal { mean, cv }
            }
            LognormalFile { mean: None, cv: None, p50: Some(Time(p50)), p99: Some(Time(p99)) } => {
                if p50 == Duration::ZERO || p99 <= p50 {
                    let message = format!("0 < p50 < p99 must hold, not p50 = {p50}, p99 = {p99}");
                    self.problems.add(ErrorKind::Value, key, message);
                    return Law::Constant(p50);
                }
                let sigma = math::ln(p99.as_secs_f64() / p50.as_secs_f64()) / NORMAL_P99;
                let spread = math::exp(sigma * sigma);
                let mean = Duration::from_secs_f64(p50.as_secs_f64() * math::sqrt(spread));
                Law::Lognormal { mean, cv: math::sqrt(spread - 1.0) }
            }
            _ => {
                let message = "a lognormal law is given either by `mean` and `cv`, or by `p50` and `p99`";
                self.problems.add(ErrorKind::Conflict, key, message);
                Law::Constant(Duration::ZERO)
            }
        }
    }
}
