//! Describes whatever a path holds: one trace, a folder of traces, spot capacity or spot prices.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::availability::describe_zones;
use super::input::Input;
use super::{
    ClientRates, Description, ImportOptions, PriceHistoryDescription, SpotAdvisor, SpotAvailability,
    SpotDescription, SpotPriceHistory, Trace, TraceError, TraceFormat,
};

/// Most files of one folder.
const FILES_MAX: usize = 10_000;
/// Endings of files that may hold a trace; each also with `.gz`.
const ENDINGS: [&str; 4] = ["csv", "jsonl", "ndjson", "json"];

/// What a path holds, described.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Survey {
    Trace(Box<Description>),
    /// One per file, in order of file name.
    Traces(Vec<Survey>),
    Spot(SpotDescription),
    Prices(PriceHistoryDescription),
    Advisor(AdvisorDescription),
}

/// What a Spot Advisor snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdvisorDescription {
    pub name: String,
    pub sha256: Option<String>,
    pub regions: Vec<String>,
}

impl Survey {
    /// Describes the file or folder `path`. A folder of spot capacity files is described as one; files of a
    /// folder that are no trace at all are an error, so that none is passed over in silence.
    ///
    /// # Errors
    /// Any [`TraceError`] of reading.
    pub fn of(path: &Path, options: &ImportOptions) -> Result<Self, TraceError> {
        if !path.is_dir() {
            return Self::of_file(path, options);
        }
        let files = files_in(path)?;
        let mut spot = true;
        for file in &files {
            let input = Input::open(file)?;
            spot &= TraceFormat::detect(&input.head) == Some(TraceFormat::SpotAvailability);
        }
        if spot {
            return Ok(Self::Spot(describe_zones(&SpotAvailability::read_folder(path)?)));
        }
        files.iter().map(|file| Self::of_file(file, options)).collect::<Result<_, _>>().map(Self::Traces)
    }

    fn of_file(path: &Path, options: &ImportOptions) -> Result<Self, TraceError> {
        let trace = |d| Self::Trace(Box::new(d));
        let format = match options.mapping {
            Some(_) => None,
            None => TraceFormat::detect(&Input::open(path)?.head),
        };
        match format {
            Some(TraceFormat::SpotAvailability) => {
                Ok(Self::Spot(describe_zones(&[SpotAvailability::read(path)?])))
            }
            Some(TraceFormat::SpotPrices) => Ok(Self::Prices(SpotPriceHistory::read(path)?.describe())),
            Some(TraceFormat::SpotAdvisor) => {
                let advisor = SpotAdvisor::read(path)?;
                let regions = advisor.regions().map(str::to_owned).collect();
                let source = advisor.source;
                Ok(Self::Advisor(AdvisorDescription { name: source.name, sha256: source.sha256, regions }))
            }
            Some(TraceFormat::ServegenClients) => ClientRates::read(path)?.describe().map(trace),
            _ => Trace::import(path, options).map(|t| trace(t.describe())),
        }
    }
}

/// Files of a folder whose ending may be a trace's, in order of name.
pub(super) fn files_in(folder: &Path) -> Result<Vec<PathBuf>, TraceError> {
    let name = folder.display().to_string();
    let fail = |source| TraceError::Read { path: name.clone(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let plain = path.file_name().unwrap_or_default().to_string_lossy().trim_end_matches(".gz").to_owned();
        let ending = Path::new(&plain).extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_file() && ENDINGS.contains(&ending.as_str()) {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(TraceError::TooManyRows { path: name, limit: FILES_MAX as u64 });
        }
    }
    if files.is_empty() {
        return Err(TraceError::EmptyFolder { path: name });
    }
    files.sort();
    Ok(files)
}
