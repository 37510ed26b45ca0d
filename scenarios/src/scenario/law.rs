//! Laws of chance for times: mean and shape. All are sampled by inversion, so one uniform number gives one draw.

use policy::units::Duration;

/// A distribution of a non-negative time.
#[derive(Clone, Debug, PartialEq)]
pub enum Law {
    /// Always the same.
    Constant(Duration),
    /// Evenly between two times.
    Uniform { low: Duration, high: Duration },
    /// Exponential with this mean.
    Exponential { mean: Duration },
    /// Lognormal by its mean and coefficient of variation (standard deviation / mean, > 0).
    Lognormal { mean: Duration, cv: f64 },
    /// Weibull by its mean and shape (> 0; below 1 is heavy-tailed).
    Weibull { mean: Duration, shape: f64 },
    /// Pareto by its mean and tail index (> 1).
    Pareto { mean: Duration, tail: f64 },
    /// Quantiles at evenly spaced probabilities from 0 to 1, joined by straight lines (at least two, ascending).
    Quantiles(Vec<Duration>),
}

/// A law that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LawError {
    /// A shape parameter out of range.
    #[error("{name} = {value} is not usable; {rule}")]
    Parameter { name: &'static str, value: f64, rule: &'static str },
    /// Bounds or quantiles out of order.
    #[error("{what} must ascend, and {later} comes after {earlier}")]
    Order { what: &'static str, earlier: Duration, later: Duration },
    /// Too few quantiles.
    #[error("a quantile law needs at least 2 values, not {0}")]
    TooFew(usize),
}

impl Law {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`LawError`] naming the parameter.
    pub fn check(&self) -> Result<(), LawError> {
        let positive = |name, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(())
            } else {
                Err(LawError::Parameter { name, value, rule: "it must be a number above 0" })
            }
        };
        match self {
            Self::Constant(_) | Self::Exponential { .. } => Ok(()),
            Self::Uniform { low, high } if low > high => {
                Err(LawError::Order { what: "the bounds of a uniform law", earlier: *low, later: *high })
            }
            Self::Uniform { .. } => Ok(()),
            Self::Lognormal { cv, .. } => positive("cv", *cv),
            Self::Weibull { shape, .. } => positive("shape", *shape),
            Self::Pareto { tail, .. } if tail.is_finite() && *tail > 1.0 => Ok(()),
            Self::Pareto { tail, .. } => {
                Err(LawError::Parameter { name: "tail", value: *tail, rule: "the mean exists only above 1" })
            }
            Self::Quantiles(values) if values.len() < 2 => Err(LawError::TooFew(values.len())),
            Self::Quantiles(values) => match values.windows(2).find(|pair| pair[0] > pair[1]) {
                Some(pair) => Err(LawError::Order { what: "quantiles", earlier: pair[0], later: pair[1] }),
                None => Ok(()),
            },
        }
    }

    /// Mean of the law.
    pub fn mean(&self) -> Duration {
        match self {
            Self::Constant(value) => *value,
            Self::Uniform { low, high } => (*low + *high).scaled(0.5),
            Self::Exponential { mean }
            | Self::Lognormal { mean, .. }
            | Self::Weibull { mean, .. }
            | Self::Pareto { mean, .. } => *mean,
            Self::Quantiles(values) => {
                let pieces =
                    values.windows(2).map(|pair| (pair[0].as_secs_f64() + pair[1].as_secs_f64()) / 2.0);
                Duration::from_secs_f64(pieces.sum::<f64>() / (values.len() - 1) as f64)
            }
        }
    }
}
