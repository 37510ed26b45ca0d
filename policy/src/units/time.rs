//! Time in whole nanoseconds from the start of a run. Calendar time exists only at the edges.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use super::text::{QuantityError, parse_scaled};

/// A point in time, in nanoseconds since the start of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct Instant(u64);

/// A length of time in nanoseconds, at most about 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct Duration(u64);

/// Nanoseconds of each accepted unit of time.
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

impl Instant {
    /// The start of the run.
    pub const START: Self = Self(0);
    /// A time that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the start.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the start.
    #[inline]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Time since `earlier`; zero when `earlier` lies ahead.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// Longer than any run.
    pub const MAX: Self = Self(u64::MAX);

    /// A duration of `nanos` nanoseconds.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A duration of `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// A duration of `secs` seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// The duration nearest to `secs` seconds; negative and NaN become zero, too large becomes [`Duration::MAX`].
    #[inline]
    pub fn from_secs_f64(secs: f64) -> Self {
        Self((secs * 1e9 + 0.5) as u64)
    }

    /// Nanoseconds.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds.
    #[inline]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// This duration times `factor` (≥ 0), rounded to a nanosecond, saturating.
    #[inline]
    pub fn scaled(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor + 0.5) as u64)
    }

    /// Reads `"90s"`, `"1.5h"`, `"250ms"`, `"1h30min"`; units ns, us, ms, s, min, h, d.
    ///
    /// # Errors
    /// A missing or unknown unit, a negative or non-finite number, or more than 584 years.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse_scaled(text, "duration", "90s", UNITS).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    #[inline]
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later.0))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, later: Duration) {
        *self = *self + later;
    }
}

impl Add for Duration {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Duration {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Duration {
    type Output = Self;
    #[inline]
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Duration {
    /// Three significant digits in the unit a person would choose: `321ms`, `1.66s`, `2.5min`, `26h`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, nanos) = match self.0 {
            0 => return out.write_str("0s"),
            n if n < 1_000 => ("ns", 1),
            n if n < 1_000_000 => ("us", 1_000),
            n if n < 1_000_000_000 => ("ms", 1_000_000),
            n if n < 120_000_000_000 => ("s", 1_000_000_000),
            n if n < 7_200_000_000_000 => ("min", 60_000_000_000),
            n if n < 172_800_000_000_000 => ("h", 3_600_000_000_000_u64),
            _ => ("d", 86_400_000_000_000),
        };
        let value = self.0 as f64 / nanos as f64;
        let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        let mut digits = format!("{value:.decimals$}");
        if digits.contains('.') {
            digits.truncate(digits.trim_end_matches('0').trim_end_matches('.').len());
        }
        write!(out, "{digits}{unit}")
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Duration(self.0).fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, nanos: Option<u64>) {
        assert_eq!(Duration::parse(text).ok().map(Duration::as_nanos), nanos, "{text}");
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        check("90s", Some(90_000_000_000));
        check("1.5h", Some(5_400_000_000_000));
        check("1h30min", Some(5_400_000_000_000));
        check("0.25us", Some(250));
        check("90", None);
        check("-1s", None);
        check("NaNs", None);
        check("1e300d", None);
        check("999999d", None);
        check("5 parsecs", None);
        check("", None);
    }

    #[test]
    fn display_reads_back_within_half_a_percent() {
        for nanos in [1, 999, 321_000_000, 1_662_000_000, 119_000_000_000, 3_600_000_000_000, u64::MAX / 4] {
            let shown = Duration::from_nanos(nanos).to_string();
            let read = Duration::parse(&shown).expect("display writes what parse reads").as_nanos();
            assert!((read as f64 / nanos as f64 - 1.0).abs() < 5.1e-3, "{nanos} -> {shown}");
        }
    }

    #[test]
    fn time_never_wraps() {
        assert_eq!(Instant::NEVER + Duration::from_secs(1), Instant::NEVER);
        assert_eq!(Instant::START.since(Instant::from_nanos(5)), Duration::ZERO);
    }
}
