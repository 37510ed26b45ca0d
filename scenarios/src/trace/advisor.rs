//! The AWS Spot Advisor snapshot: saving and interruption bucket per region, system and instance type.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::input::Input;
use super::{Source, TraceError, TraceFormat};

/// A Spot Advisor snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SpotAdvisor {
    pub source: Source,
    regions: BTreeMap<String, BTreeMap<String, BTreeMap<String, SpotAdvice>>>,
    ranges: Vec<Range>,
}

/// What the advisor says about one instance type in one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct SpotAdvice {
    /// Saving against the on-demand price, %; below 0 where spot costs more.
    #[serde(rename = "s")]
    pub saving_percent: i16,
    /// Interruption bucket: 0..=4 for below 5, 5–10, 10–15, 15–20 and above 20 % in a month.
    #[serde(rename = "r")]
    pub interruption_bucket: u8,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Range {
    index: u8,
    label: String,
}

#[derive(Deserialize)]
struct File {
    spot_advisor: BTreeMap<String, BTreeMap<String, BTreeMap<String, SpotAdvice>>>,
    #[serde(default)]
    ranges: Vec<Range>,
}

impl SpotAdvisor {
    /// Reads a snapshot, gzipped or not.
    ///
    /// # Errors
    /// [`TraceError::Json`], [`TraceError::Empty`] and errors of reading.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let mut input = Input::open(path)?;
        let name = input.path.clone();
        let file: File =
            serde_json::from_reader(&mut input.body).map_err(|source| match source.io_error_kind() {
                Some(kind) => TraceError::from_io(&name, kind.into()),
                None => TraceError::Json { path: name.clone(), source },
            })?;
        let (sha256, _) = input.finish()?;
        if file.spot_advisor.is_empty() {
            return Err(TraceError::Empty { path: name });
        }
        let source = Source { name, format: TraceFormat::SpotAdvisor, sha256: Some(sha256) };
        Ok(Self { source, regions: file.spot_advisor, ranges: file.ranges })
    }

    /// Advice for `instance_type` under Linux.
    #[must_use]
    pub fn linux(&self, region: &str, instance_type: &str) -> Option<SpotAdvice> {
        self.advice(region, "Linux", instance_type)
    }

    /// Advice for `instance_type` under `system` (`Linux` or `Windows`).
    #[must_use]
    pub fn advice(&self, region: &str, system: &str, instance_type: &str) -> Option<SpotAdvice> {
        self.regions.get(region)?.get(system)?.get(instance_type).copied()
    }

    /// Name of an interruption bucket in the file's words, such as `5-10%`.
    #[must_use]
    pub fn bucket_label(&self, bucket: u8) -> Option<&str> {
        self.ranges.iter().find(|r| r.index == bucket).map(|r| r.label.as_str())
    }

    /// Regions of the snapshot, in order of name.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.regions.keys().map(String::as_str)
    }
}

impl SpotAdvice {
    /// Bounds of the share of instances interrupted in a month, as the bucket states them.
    #[must_use]
    pub fn interrupted_per_month(self) -> (f64, f64) {
        let low = f64::from(self.interruption_bucket.min(4)) * 0.05;
        (low, if self.interruption_bucket < 4 { low + 0.05 } else { 1.0 })
    }
}
