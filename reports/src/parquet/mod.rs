//! Record tables as Parquet files: one file per table, written in row groups, complete or absent.

mod records;
mod table;
mod writer;

use std::path::{Path, PathBuf};

use policy::records::{ChargeRow, DecisionRow, InstanceRow, JobRow, MinuteRow};

pub use records::{CHARGES, DECISIONS, INSTANCES, JOBS, MINUTES};
pub use table::{Cell, Column, Table};
pub use writer::{ROWS_PER_GROUP, TableWriter, WriteError};

/// Which world the records come from. Every table says so in its column `origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The simulator.
    Simulated,
    /// The control plane.
    Live,
}

impl Origin {
    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Simulated => "simulated",
            Self::Live => "live",
        }
    }
}

/// What is written into every file beside its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Which world the rows come from.
    pub origin: Origin,
    /// Keys and values for the file's metadata: scenario hash, seed, version. Keys get the prefix `headroom.`.
    pub facts: Vec<(String, String)>,
}

/// The records of one run, held by the caller.
#[derive(Clone, Copy, Debug)]
pub struct RunRecords<'a> {
    /// World, scenario hash, seed, version.
    pub provenance: &'a Provenance,
    /// One row per job, or per sampled job.
    pub jobs: &'a [JobRow],
    /// One row per group and minute.
    pub minutes: &'a [MinuteRow],
    /// One row per instance.
    pub instances: &'a [InstanceRow],
    /// One row per decision that changed something.
    pub decisions: &'a [DecisionRow],
    /// One row per line of the bill.
    pub charges: &'a [ChargeRow],
}

/// Writes the five tables of a run into `dir`, which is made if absent, and returns their paths:
/// `jobs.parquet`, `minutes.parquet`, `instances.parquet`, `decisions.parquet`, `charges.parquet`.
///
/// # Errors
/// The first table that could not be written. Tables before it are complete; it and those after it are as they were.
pub fn write_run(dir: &Path, run: &RunRecords<'_>) -> Result<Vec<PathBuf>, WriteError> {
    std::fs::create_dir_all(dir).map_err(|source| WriteError::Create { path: dir.to_owned(), source })?;
    Ok(vec![
        write_table(dir, &JOBS, run.provenance, run.jobs)?,
        write_table(dir, &MINUTES, run.provenance, run.minutes)?,
        write_table(dir, &INSTANCES, run.provenance, run.instances)?,
        write_table(dir, &DECISIONS, run.provenance, run.decisions)?,
        write_table(dir, &CHARGES, run.provenance, run.charges)?,
    ])
}

/// Writes `rows` as `dir/NAME.parquet`, where `NAME` is the table's.
///
/// # Errors
/// See [`WriteError`]; the file is then as it was before.
pub fn write_table<'a, Row: Clone + 'a>(
    dir: &Path,
    table: &'static Table<Row>,
    provenance: &Provenance,
    rows: impl IntoIterator<Item = &'a Row>,
) -> Result<PathBuf, WriteError> {
    let path = dir.join(format!("{}.parquet", table.name));
    let mut writer = TableWriter::create(&path, table, provenance)?;
    for row in rows {
        writer.push(row.clone())?;
    }
    writer.finish()?;
    Ok(path)
}

#[cfg(test)]
mod tests;
