//! Parquet traces: hands the rows that `reports` reads to `scenarios`, which never knows Parquet.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use reports::trace::{Columns, RowOrder, TraceError as ReportsError, TraceRow, TraceRows};
use scenarios::trace::{ImportOptions, Mapping, Row, TimeUnit, Trace, TraceError};
use sha2::{Digest, Sha256};

use super::inputs::TIME_COLUMNS;
use crate::failure::Failure;

/// Columns that a Parquet trace may have; those that it lacks are left out one by one.
const OPTIONAL_COLUMNS: usize = 5;

/// Whether a path names Parquet, by its ending or its first bytes.
pub(crate) fn is_parquet(path: &Path) -> bool {
    let named = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet"));
    let mut magic = [0; 4];
    // Only a plain file is looked into: reading from a pipe would take its start away.
    let mut starts =
        || path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok();
    named || (starts() && &magic == b"PAR1")
}

/// Reads a Parquet trace by the mapping, or by the usual names of columns where there is none.
///
/// # Errors
/// Any mistake of the file.
pub(crate) fn read(path: &Path, options: &ImportOptions) -> Result<Trace, Failure> {
    let (mut rows, calendar) = match &options.mapping {
        Some(mapping) => (open(path, &columns(mapping), options)?, mapping.time_unit == TimeUnit::Datetime),
        None => open_by_usual_names(path, options)?,
    };
    let mut failed = None;
    let good = rows.by_ref().map_while(|row| row.map_err(|error| failed = Some(error)).ok()).map(row_of);
    let trace = Trace::from_rows(&path.display().to_string(), good, calendar, options);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut trace = trace?;
    trace.source.sha256 = Some(sha256(path)?);
    Ok(trace)
}

fn open(path: &Path, columns: &Columns, options: &ImportOptions) -> Result<TraceRows, ReportsError> {
    let order = if options.sort { RowOrder::Any } else { RowOrder::Rising };
    reports::trace::open(path, columns, order)
}

/// Opens a file with the first usual time column that it has, and those optional columns that it has.
fn open_by_usual_names(path: &Path, options: &ImportOptions) -> Result<(TraceRows, bool), Failure> {
    let mut first_error = None;
    for (time, unit) in TIME_COLUMNS {
        let unit = unit.unwrap_or_default();
        let named = |name: &str| Some(name.to_owned());
        let mut columns = columns(&Mapping {
            time: time.to_owned(),
            time_unit: unit,
            count: named("count"),
            exec_s: named("exec_s"),
            region: named("region"),
            class: named("class"),
            size: named("size"),
        });
        for _ in 0..=OPTIONAL_COLUMNS {
            match open(path, &columns, options) {
                Ok(rows) => return Ok((rows, unit == TimeUnit::Datetime)),
                Err(ReportsError::MissingColumn { column, .. }) if column != time => {
                    leave_out(&mut columns, &column)
                }
                Err(error @ ReportsError::MissingColumn { .. }) => {
                    first_error.get_or_insert(error);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let error = first_error.expect("a file is opened, or lacks every time column");
    Err(Failure::from(error)
        .with_help("name its time column: headroom trace import FILE --time COLUMN --out trace.csv"))
}

fn leave_out(columns: &mut Columns, absent: &str) {
    let Columns { count, exec_s, region, class, size, .. } = columns;
    [count, exec_s, region, class, size]
        .into_iter()
        .filter(|column| column.as_deref() == Some(absent))
        .for_each(|column| *column = None);
}

fn columns(mapping: &Mapping) -> Columns {
    let time_unit = match mapping.time_unit {
        TimeUnit::Seconds => reports::trace::TimeUnit::Seconds,
        TimeUnit::Millis => reports::trace::TimeUnit::Millis,
        TimeUnit::Micros => reports::trace::TimeUnit::Micros,
        TimeUnit::Nanos => reports::trace::TimeUnit::Nanos,
        TimeUnit::Datetime => reports::trace::TimeUnit::Datetime,
    };
    let Mapping { time, count, exec_s, region, class, size, .. } = mapping.clone();
    Columns { time, time_unit, count, exec_s, region, class, size }
}

fn row_of(row: TraceRow) -> Row<'static> {
    let TraceRow { at_ns, count, exec_s, size, region, class } = row;
    Row {
        at_ns,
        count,
        exec_s,
        size,
        region: region.map(Cow::Owned),
        class: class.map(Cow::Owned),
        model: None,
    }
}

/// SHA-256 of a file in hexadecimal.
fn sha256(path: &Path) -> Result<String, TraceError> {
    let mut hash = Sha256::new();
    let read = |source| TraceError::Read { path: path.display().to_string(), source };
    let mut file = File::open(path).map_err(read)?;
    io::copy(&mut file, &mut hash).map_err(read)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
