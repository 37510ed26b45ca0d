//! Times in trace files: numbers in a unit, or calendar times, to nanoseconds without rounding on the way.

use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use super::TraceError;

/// What a number in a time column counts, or that the column holds calendar times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeUnit {
    Seconds,
    Millis,
    Micros,
    Nanos,
    /// `2024-11-15 16:57:50`, `2024-11-15T16:57:50.25Z` or with an offset (RFC 3339).
    #[default]
    Datetime,
}

impl FromStr for TimeUnit {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        match text {
            "s" => Ok(Self::Seconds),
            "ms" => Ok(Self::Millis),
            "us" => Ok(Self::Micros),
            "ns" => Ok(Self::Nanos),
            "datetime" | "rfc3339" => Ok(Self::Datetime),
            _ => Err(TraceError::BadOption {
                name: "time unit",
                value: format!("`{text}`"),
                expected: "one of s, ms, us, ns, datetime, rfc3339",
            }),
        }
    }
}

/// The calendar time at which a trace starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalendarStart {
    /// The file states UTC or an offset.
    Utc(Timestamp),
    /// The file states no zone.
    Civil(DateTime),
}

impl CalendarStart {
    /// Returns the start moved by `offset_ns`; `None` past the calendar's end (year 9999).
    #[must_use]
    pub fn shifted(self, offset_ns: u64) -> Option<Self> {
        let by = SignedDuration::from_nanos(i64::try_from(offset_ns).ok()?);
        match self {
            Self::Utc(at) => at.checked_add(by).ok().map(Self::Utc),
            Self::Civil(at) => at.checked_add(by).ok().map(Self::Civil),
        }
    }
}

impl std::fmt::Display for CalendarStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Utc(at) => at.fmt(f),
            Self::Civil(at) => at.fmt(f),
        }
    }
}

impl Serialize for CalendarStart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether the times of a column lie on the calendar, and with which zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calendar {
    Utc,
    Civil,
    Unknown,
}

impl Calendar {
    /// Names the instant `at_ns` (nanoseconds since 1970 on this calendar).
    pub(super) fn name(self, at_ns: i64) -> Option<CalendarStart> {
        let at = Timestamp::from_nanosecond(i128::from(at_ns)).ok()?;
        match self {
            Self::Utc => Some(CalendarStart::Utc(at)),
            Self::Civil => Some(CalendarStart::Civil(TimeZone::UTC.to_datetime(at))),
            Self::Unknown => None,
        }
    }
}

impl TimeUnit {
    /// Parses one field to nanoseconds (since 1970 for calendar times, since the column's own zero for
    /// numbers); `None` when it is no time or beyond ±292 years.
    pub(super) fn parse(self, text: &str) -> Option<(i64, Calendar)> {
        let digits = match self {
            Self::Datetime => return parse_datetime(text),
            Self::Seconds => 9,
            Self::Millis => 6,
            Self::Micros => 3,
            Self::Nanos => 0,
        };
        parse_decimal(text, digits).map(|ns| (ns, Calendar::Unknown))
    }
}

fn parse_datetime(text: &str) -> Option<(i64, Calendar)> {
    let text = text.trim();
    let zoned = text.ends_with(['Z', 'z']) || text.get(11..).is_some_and(|tail| tail.contains(['+', '-']));
    let (at, calendar) = if zoned {
        (text.parse::<Timestamp>().ok()?, Calendar::Utc)
    } else {
        (TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok()?, Calendar::Civil)
    };
    Some((i64::try_from(at.as_nanosecond()).ok()?, calendar))
}

/// Parses a decimal number times 10^`digits` exactly, cutting what is below 1 ns; numbers with an
/// exponent go through `f64`.
pub(super) fn parse_decimal(text: &str, digits: u32) -> Option<i64> {
    let text = text.trim();
    if text.contains(['e', 'E']) {
        let value = text.parse::<f64>().ok()? * libm::pow(10.0, f64::from(digits));
        return (value.abs() < i64::MAX as f64).then_some(value as i64);
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0i64;
    let mut left = digits;
    for byte in whole.bytes() {
        value = value.checked_mul(10)?.checked_add(digit(byte)?)?;
    }
    for byte in fraction.bytes() {
        let digit = digit(byte)?;
        if left > 0 {
            value = value.checked_mul(10)?.checked_add(digit)?;
            left -= 1;
        }
    }
    value = value.checked_mul(10i64.pow(left))?;
    Some(if negative { -value } else { value })
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_parse_to_the_nanosecond() {
        let check = |unit: &str, text: &str, expected: Option<i64>| {
            let unit: TimeUnit = unit.parse().unwrap();
            assert_eq!(unit.parse(text).map(|(ns, _)| ns), expected, "{text}");
        };
        check("s", "1662859176.000000001", Some(1_662_859_176_000_000_001));
        check("s", "-.5", Some(-500_000_000));
        check("ms", "1.5", Some(1_500_000));
        check("us", "7", Some(7_000));
        check("ns", "7.9", Some(7));
        check("s", "1.5e3", Some(1_500_000_000_000));
        check("s", "99999999999", None);
        check("s", "nan", None);
        check("s", ".", None);
        check("s", "", None);
        check("s", "1_000", None);
        check("datetime", "1970-01-01 00:00:01.6805900", Some(1_680_590_000));
        check("rfc3339", "1970-01-01T01:00:00+01:00", Some(0));
        check("datetime", "1970-01-01T00:00:00.001Z", Some(1_000_000));
        check("datetime", "1970-13-01 00:00:00", None);
        check("datetime", "12", None);
        assert!("minutes".parse::<TimeUnit>().is_err());
    }

    #[test]
    fn start_keeps_whether_a_zone_was_stated() {
        let name = |text: &str| {
            let (ns, calendar) = TimeUnit::Datetime.parse(text).unwrap();
            calendar.name(ns).unwrap().to_string()
        };
        assert_eq!(name("2024-11-15 16:57:50"), "2024-11-15T16:57:50");
        assert_eq!(name("2024-11-15T16:57:50Z"), "2024-11-15T16:57:50Z");
    }
}
