//! Spot capacity over time: how many nodes of one zone were up at each tick, and how zones move together.
//!
//! Format of skypilot-org/spot-traces: `{"metadata": {"gap_seconds": g}, "data": [nodes, ..]}`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::describe::Moments;
use super::input::Input;
use super::{Source, TraceError, TraceFormat};

/// Most ticks of one zone: 31 years of 195 s.
const TICKS_MAX: usize = 5_000_000;

/// Spot capacity of one zone, as found by asking for `nodes_max` nodes all the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpotAvailability {
    pub source: Source,
    /// The file name up to `_v100_1.json`, such as `us-east-1a`.
    pub zone: String,
    /// The zone without its letter, such as `us-east-1`.
    pub region: String,
    /// Time between ticks.
    pub gap_ns: u64,
    /// Nodes up at each tick.
    pub nodes: Vec<u16>,
    /// Most nodes that were up at once.
    pub nodes_max: u16,
}

#[derive(Deserialize)]
struct File {
    metadata: Metadata,
    data: Vec<u16>,
}

#[derive(Deserialize)]
struct Metadata {
    gap_seconds: f64,
}

/// What the spot capacity of one zone is like. First and last runs are cut short by the file's ends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ZoneDescription {
    pub zone: String,
    pub region: String,
    pub sha256: Option<String>,
    pub gap_s: f64,
    pub ticks: usize,
    pub span_s: f64,
    pub nodes_max: u16,
    /// Share of ticks with at least one node, with all `nodes_max`, and with some but not all.
    pub up_share: f64,
    pub full_share: f64,
    pub partial_share: f64,
    pub nodes_mean: f64,
    /// Mean length of runs with at least one node, and with none; 0 without such a run.
    pub up_mean_h: f64,
    pub down_mean_h: f64,
    /// Ends of runs with at least one node, per day.
    pub losses_per_day: f64,
    /// Ticks with fewer nodes than the tick before.
    pub steps_down: u64,
}

/// Spot capacity of several zones, and how it moves together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpotDescription {
    pub zones: Vec<ZoneDescription>,
    /// Correlation of the tick series of each pair, first ticks aligned, in the order of `zones`; empty
    /// where ticks differ in length of time.
    pub correlation: Vec<Vec<f64>>,
    /// Smallest and largest correlation of two zones in one region, and in two; `None` without such a pair.
    pub correlation_inside: Option<(f64, f64)>,
    pub correlation_across: Option<(f64, f64)>,
    /// Share of the common ticks at which no zone has a node.
    pub all_down_share: f64,
    /// Mean number of zones with at least one node.
    pub zones_up_mean: f64,
}

impl SpotAvailability {
    /// Reads one zone; its name is taken from the file's.
    ///
    /// # Errors
    /// [`TraceError::Json`], [`TraceError::Empty`], [`TraceError::BadValue`] and errors of reading.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let mut input = Input::open(path)?;
        let name = input.path.clone();
        let file: File =
            serde_json::from_reader(&mut input.body).map_err(|source| match source.io_error_kind() {
                Some(kind) => TraceError::from_io(&name, kind.into()),
                None => TraceError::Json { path: name.clone(), source },
            })?;
        let (sha256, _) = input.finish()?;
        let gap_s = file.metadata.gap_seconds;
        if !(gap_s.is_finite() && (1e-3..=1e7).contains(&gap_s)) {
            return Err(TraceError::BadValue {
                path: name,
                line: 1,
                column: "gap_seconds".to_owned(),
                value: gap_s.to_string(),
                expected: "a tick between 0.001 s and 10000000 s",
                remedy: "repair the metadata".to_owned(),
            });
        }
        if file.data.len() > TICKS_MAX {
            return Err(TraceError::TooManyRows { path: name, limit: TICKS_MAX as u64 });
        }
        let nodes_max = file.data.iter().copied().max();
        let nodes_max = nodes_max.ok_or_else(|| TraceError::Empty { path: name.clone() })?;
        let zone = zone_of(path);
        Ok(Self {
            source: Source { name, format: TraceFormat::SpotAvailability, sha256: Some(sha256) },
            region: region_of(&zone),
            zone,
            gap_ns: (gap_s * 1e9).round() as u64,
            nodes: file.data,
            nodes_max,
        })
    }

    /// Reads every `.json` file of a folder, in order of zone.
    ///
    /// # Errors
    /// [`TraceError::EmptyFolder`] and errors of [`SpotAvailability::read`].
    pub fn read_folder(path: &Path) -> Result<Vec<Self>, TraceError> {
        let files = super::survey::files_in(path)?;
        let zones = files.iter().filter(|f| f.extension().is_some_and(|e| e == "json"));
        let zones = zones.map(|file| Self::read(file)).collect::<Result<Vec<_>, _>>()?;
        if zones.is_empty() {
            return Err(TraceError::EmptyFolder { path: path.display().to_string() });
        }
        Ok(zones)
    }

    /// Nodes up at `at_ns` from the start: the last tick's value holds until the next; `None` past the end.
    #[must_use]
    pub fn nodes_at(&self, at_ns: u64) -> Option<u16> {
        self.nodes.get(usize::try_from(at_ns / self.gap_ns).ok()?).copied()
    }

    /// Computes the statistics of this zone.
    #[must_use]
    pub fn describe(&self) -> ZoneDescription {
        let ticks = self.nodes.len();
        let gap_s = self.gap_ns as f64 / 1e9;
        let share = |wanted: &dyn Fn(u16) -> bool| {
            self.nodes.iter().filter(|n| wanted(**n)).count() as f64 / ticks.max(1) as f64
        };
        let steps = |wanted: &dyn Fn(u16, u16) -> bool| {
            self.nodes.windows(2).filter(|p| wanted(p[0], p[1])).count() as u64
        };
        let (losses, gains) = (steps(&|a, b| a > 0 && b == 0), steps(&|a, b| a == 0 && b > 0));
        let first_up = self.nodes.first().is_some_and(|n| *n > 0);
        let run_mean_h = |share: f64, runs: u64| {
            if runs > 0 { share * ticks as f64 / runs as f64 * gap_s / 3600.0 } else { 0.0 }
        };
        let up_share = share(&|n| n > 0);
        let full_share = share(&|n| n == self.nodes_max && n > 0);
        ZoneDescription {
            zone: self.zone.clone(),
            region: self.region.clone(),
            sha256: self.source.sha256.clone(),
            gap_s,
            ticks,
            span_s: ticks as f64 * gap_s,
            nodes_max: self.nodes_max,
            up_share,
            full_share,
            partial_share: up_share - full_share,
            nodes_mean: Moments::of(self.nodes.iter().map(|n| f64::from(*n))).mean,
            up_mean_h: run_mean_h(up_share, gains + u64::from(first_up)),
            down_mean_h: run_mean_h(1.0 - up_share, losses + u64::from(!first_up)),
            losses_per_day: losses as f64 / (ticks as f64 * gap_s / 86_400.0),
            steps_down: steps(&|a, b| b < a),
        }
    }
}

/// Describes zones and how their ticks correlate over the time that all of them cover.
#[must_use]
pub fn describe_zones(zones: &[SpotAvailability]) -> SpotDescription {
    let aligned = zones.windows(2).all(|p| p[0].gap_ns == p[1].gap_ns);
    let ticks = zones.iter().map(|z| z.nodes.len()).min().filter(|_| aligned).unwrap_or(0);
    let pair = |a: &SpotAvailability, b: &SpotAvailability| correlation(&a.nodes[..ticks], &b.nodes[..ticks]);
    let matrix: Vec<Vec<f64>> = if aligned {
        zones.iter().map(|a| zones.iter().map(|b| pair(a, b)).collect()).collect()
    } else {
        Vec::new()
    };
    let extremes = |same_region: bool| {
        let mut range: Option<(f64, f64)> = None;
        for (i, row) in matrix.iter().enumerate() {
            for (j, &value) in row.iter().enumerate().take(i) {
                if (zones[i].region == zones[j].region) == same_region {
                    range =
                        Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))));
                }
            }
        }
        range
    };
    let up: Vec<usize> = (0..ticks).map(|t| zones.iter().filter(|z| z.nodes[t] > 0).count()).collect();
    let per_tick = |sum: usize| if ticks > 0 { sum as f64 / ticks as f64 } else { 0.0 };
    SpotDescription {
        zones: zones.iter().map(SpotAvailability::describe).collect(),
        correlation_inside: extremes(true),
        correlation_across: extremes(false),
        correlation: matrix,
        all_down_share: per_tick(up.iter().filter(|u| **u == 0).count()),
        zones_up_mean: per_tick(up.iter().sum()),
    }
}

/// Pearson correlation; 0 where a series is constant.
fn correlation(a: &[u16], b: &[u16]) -> f64 {
    let moments = |series: &[u16]| Moments::of(series.iter().map(|n| f64::from(*n)));
    let (ma, mb) = (moments(a), moments(b));
    let off = |x: u16, m: Moments| f64::from(x) - m.mean;
    let covariance = Moments::of(a.iter().zip(b).map(|(x, y)| off(*x, ma) * off(*y, mb))).mean;
    let spread = (ma.variance() * mb.variance()).sqrt();
    if spread > 0.0 { covariance / spread } else { 0.0 }
}

fn zone_of(path: &Path) -> String {
    let stem = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = stem.trim_end_matches(".gz").trim_end_matches(".json");
    stem.split('_').next().unwrap_or(stem).to_owned()
}

/// `us-east-1a` → `us-east-1`; a name without a letter after its digits is its own region.
fn region_of(zone: &str) -> String {
    match zone.strip_suffix(|c: char| c.is_ascii_lowercase()) {
        Some(region) if region.ends_with(|c: char| c.is_ascii_digit()) => region.to_owned(),
        _ => zone.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, nodes: &[u16]) -> SpotAvailability {
        SpotAvailability {
            source: Source { name: name.into(), format: TraceFormat::SpotAvailability, sha256: None },
            zone: name.into(),
            region: region_of(name),
            gap_ns: 3_600_000_000_000,
            nodes: nodes.to_vec(),
            nodes_max: nodes.iter().copied().max().unwrap_or(0),
        }
    }

    #[test]
    fn names_tell_zone_and_region() {
        let check = |path: &str, zone: &str, region: &str| {
            assert_eq!(zone_of(Path::new(path)), zone);
            assert_eq!(region_of(zone), region);
        };
        check("a/us-east-1a_v100_1.json", "us-east-1a", "us-east-1");
        check("europe-west4.json", "europe-west4", "europe-west4");
        check("zone.json.gz", "zone", "zone");
    }

    #[test]
    fn zone_is_described_by_hand() {
        let zone = zone("us-east-1a", &[0, 2, 4, 0, 0, 4, 4, 1]);
        let d = zone.describe();
        assert_eq!((d.up_share, d.full_share, d.partial_share, d.nodes_mean), (0.625, 0.375, 0.25, 1.875));
        assert_eq!((d.up_mean_h, d.down_mean_h, d.losses_per_day, d.steps_down), (2.5, 1.5, 3.0, 2));
        assert_eq!((zone.nodes_at(3_600_000_000_000 * 2 - 1), zone.nodes_at(u64::MAX)), (Some(2), None));
    }

    #[test]
    fn correlations_split_by_region() {
        let zones = [
            zone("us-east-1a", &[0, 1, 0, 1]),
            zone("us-east-1b", &[0, 1, 0, 1]),
            zone("us-west-2a", &[0, 0, 1, 1, 1]),
            zone("us-west-2b", &[0, 0, 0, 0]),
        ];
        let d = describe_zones(&zones);
        assert_eq!(d.correlation_inside, Some((0.0, 1.0)));
        assert_eq!(d.correlation_across, Some((0.0, 0.0)));
        assert_eq!((d.correlation[2][2], d.all_down_share, d.zones_up_mean), (1.0, 0.25, 1.5));
    }
}
