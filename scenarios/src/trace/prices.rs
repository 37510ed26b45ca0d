//! History of spot prices: a step function of time per zone and instance type.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::calendar::{CalendarStart, TimeUnit, parse_decimal};
use super::input::Input;
use super::mapping::find_column;
use super::{Source, TraceError, TraceFormat};

/// Most price changes of one file.
const CHANGES_MAX: u64 = 20_000_000;

/// Spot prices of many zones and types.
#[derive(Debug, Clone, PartialEq)]
pub struct SpotPriceHistory {
    pub source: Source,
    /// Time of the first change: offset 0 of all series.
    pub start: Timestamp,
    /// From the first change of any series to the last.
    pub span_ns: u64,
    series: BTreeMap<(String, String), Vec<PriceChange>>,
}

/// A price that holds from `at_ns` to the next change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceChange {
    /// From the history's start.
    pub at_ns: u64,
    /// Billionths of a dollar per hour.
    pub price_nanousd_per_hour: i64,
}

/// What one series of prices is like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PriceDescription {
    pub zone: String,
    pub instance_type: String,
    pub changes: usize,
    pub price_min_usd_per_hour: f64,
    pub price_max_usd_per_hour: f64,
    /// Over changes, and over the time that each price held, to the end of the history.
    pub price_change_mean_usd_per_hour: f64,
    pub price_time_mean_usd_per_hour: f64,
    pub max_to_min: f64,
}

/// What a history of prices is like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PriceHistoryDescription {
    pub name: String,
    pub sha256: Option<String>,
    pub start: CalendarStart,
    pub span_s: f64,
    pub changes: usize,
    pub zones: usize,
    pub series: Vec<PriceDescription>,
}

impl SpotPriceHistory {
    /// Reads a CSV of price changes, gzipped or not, in any order of rows.
    ///
    /// # Errors
    /// Any [`TraceError`] of reading.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let mut input = Input::open(path)?;
        let name = input.path.clone();
        let mut changes: BTreeMap<(String, String), Vec<(i64, i64)>> = BTreeMap::new();
        let mut reader = csv::Reader::from_reader(&mut input.body);
        let header = reader.headers().map_err(|e| TraceError::from_csv(&name, e))?.clone();
        let header: Vec<&str> = header.iter().collect();
        let column = |column: &str| find_column(&name, &header, column);
        let (time, zone) = (column("timestamp_utc")?, column("availability_zone")?);
        let (instance, price) = (column("instance_type")?, column("spot_price_usd_per_hour")?);
        let mut record = csv::StringRecord::new();
        let mut rows = 0;
        while reader.read_record(&mut record).map_err(|e| TraceError::from_csv(&name, e))? {
            rows += 1;
            if rows > CHANGES_MAX {
                return Err(TraceError::TooManyRows { path: name, limit: CHANGES_MAX });
            }
            let bad = |column: usize, expected| TraceError::BadValue {
                path: name.clone(),
                line: record.position().map_or(0, csv::Position::line),
                column: header[column].to_owned(),
                value: record[column].to_owned(),
                expected,
                remedy: "repair or remove the row".to_owned(),
            };
            let (at, _) = TimeUnit::Datetime
                .parse(&record[time])
                .ok_or_else(|| bad(time, "a UTC time such as 2019-12-20T06:39:10Z"))?;
            let usd = parse_decimal(&record[price], 9).filter(|p| *p > 0);
            let usd = usd.ok_or_else(|| bad(price, "a price in dollars per hour, above 0"))?;
            changes
                .entry((record[zone].to_owned(), record[instance].to_owned()))
                .or_default()
                .push((at, usd));
        }
        drop(reader);
        let (sha256, _) = input.finish()?;
        let times = || changes.values().flatten().map(|c| c.0);
        let (Some(first), Some(last)) = (times().min(), times().max()) else {
            return Err(TraceError::Empty { path: name });
        };
        let series = changes.into_iter().map(|(key, mut changes)| {
            changes.sort_by_key(|c| c.0);
            let change =
                |c: (i64, i64)| PriceChange { at_ns: c.0.abs_diff(first), price_nanousd_per_hour: c.1 };
            (key, changes.into_iter().map(change).collect())
        });
        Ok(Self {
            source: Source { name, format: TraceFormat::SpotPrices, sha256: Some(sha256) },
            start: Timestamp::from_nanosecond(i128::from(first))
                .expect("64-bit nanoseconds lie in the calendar"),
            span_ns: last.abs_diff(first),
            series: series.collect(),
        })
    }

    /// All series in order of zone and type.
    pub fn series(&self) -> impl Iterator<Item = (&str, &str, &[PriceChange])> {
        self.series
            .iter()
            .map(|((zone, instance), changes)| (zone.as_str(), instance.as_str(), changes.as_slice()))
    }

    /// Changes of one zone and type, ascending by time; `None` for a pair that is not in the file.
    #[must_use]
    pub fn changes(&self, zone: &str, instance_type: &str) -> Option<&[PriceChange]> {
        self.series.get(&(zone.to_owned(), instance_type.to_owned())).map(Vec::as_slice)
    }

    /// Price at `at_ns` from the history's start, in billionths of a dollar per hour: that of the last change
    /// at or before it. Before the first change that first price holds, after the last the last one.
    #[must_use]
    pub fn price_at(&self, zone: &str, instance_type: &str, at_ns: u64) -> Option<i64> {
        let changes = self.changes(zone, instance_type)?;
        let after = changes.partition_point(|c| c.at_ns <= at_ns);
        changes.get(after.saturating_sub(1)).map(|c| c.price_nanousd_per_hour)
    }

    /// Computes the statistics of all series.
    #[must_use]
    pub fn describe(&self) -> PriceHistoryDescription {
        let zones: std::collections::BTreeSet<_> = self.series.keys().map(|k| &k.0).collect();
        PriceHistoryDescription {
            name: self.source.name.clone(),
            sha256: self.source.sha256.clone(),
            start: CalendarStart::Utc(self.start),
            span_s: self.span_ns as f64 / 1e9,
            changes: self.series.values().map(Vec::len).sum(),
            zones: zones.len(),
            series: self
                .series()
                .map(|(zone, instance, changes)| self.describe_series(zone, instance, changes))
                .collect(),
        }
    }

    fn describe_series(&self, zone: &str, instance_type: &str, changes: &[PriceChange]) -> PriceDescription {
        let price = |c: &PriceChange| c.price_nanousd_per_hour as f64 / 1e9;
        let prices = || changes.iter().map(price);
        let ends = changes.iter().skip(1).map(|c| c.at_ns).chain([self.span_ns]);
        let held = changes.iter().zip(ends).map(|(c, end)| (price(c), (end - c.at_ns) as f64));
        let (weighted, time) = held.fold((0.0, 0.0), |sum, (p, t)| (sum.0 + p * t, sum.1 + t));
        let (min, max) = prices().fold((f64::INFINITY, 0.0f64), |m, p| (m.0.min(p), m.1.max(p)));
        let change_mean = prices().sum::<f64>() / changes.len() as f64;
        PriceDescription {
            zone: zone.to_owned(),
            instance_type: instance_type.to_owned(),
            changes: changes.len(),
            price_min_usd_per_hour: min,
            price_max_usd_per_hour: max,
            price_change_mean_usd_per_hour: change_mean,
            price_time_mean_usd_per_hour: if time > 0.0 { weighted / time } else { change_mean },
            max_to_min: max / min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SpotPriceHistory, TraceError> {
        let unique = format!("headroom-prices-{}-{}.csv", std::process::id(), text.len());
        let path = std::env::temp_dir().join(unique);
        std::fs::write(&path, text).unwrap();
        let history = SpotPriceHistory::read(&path);
        std::fs::remove_file(&path).unwrap();
        history
    }

    const HEADER: &str = "timestamp_utc,availability_zone,instance_type,product,spot_price_usd_per_hour\n";

    #[test]
    fn price_is_a_step_function() {
        let rows = "2020-01-01T00:00:20.000Z,us-east-1a,p3,Linux,1.5\n\
                    2020-01-01T00:00:00.000Z,us-east-1b,p3,Linux,9\n2020-01-01T00:00:10.000Z,us-east-1a,p3,Linux,0.9331\n";
        let history = read(&format!("{HEADER}{rows}")).unwrap();
        let at = |s: u64| history.price_at("us-east-1a", "p3", s * 1_000_000_000);
        let low = Some(933_100_000);
        assert_eq!(
            [at(0), at(10), at(19), at(20), at(99)],
            [low, low, low, Some(1_500_000_000), Some(1_500_000_000)]
        );
        assert_eq!(history.price_at("us-east-1a", "p2", 0), None);
        assert_eq!(history.start.to_string(), "2020-01-01T00:00:00Z");
        let d = history.describe();
        assert_eq!((d.changes, d.zones, d.series[0].price_time_mean_usd_per_hour), (3, 2, 0.9331));
    }

    #[test]
    fn bad_prices_are_named() {
        let message =
            read(&format!("{HEADER}2020-01-01T00:00:00Z,a,p3,Linux,free\n")).unwrap_err().to_string();
        assert!(message.contains("line 2, column `spot_price_usd_per_hour`: `free`"), "{message}");
        assert!(matches!(read(HEADER), Err(TraceError::Empty { .. })));
    }
}
