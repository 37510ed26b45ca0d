//! Reads a Parquet trace into plain rows, one row group at a time. Never panics on a damaged file, and shows nothing
//! of the library that reads it.

mod cells;
mod error;
mod pages;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use polars::prelude::{
    ArrowDataType, ArrowSchema, DataFrame, ParallelStrategy, ParquetReader, PolarsResult, SerReader,
};
use polars_parquet::read::FileMetadata;

use cells::{Numbers, Texts, Times};
pub use error::TraceError;

const MAGIC: &[u8; 4] = b"PAR1";
/// Magic, empty footer, its length, magic: nothing shorter is Parquet.
const BYTES_MIN: u64 = 12;
/// Least likeness (Jaro–Winkler, 0..=1) at which another column is offered as the one meant.
const LIKENESS_MIN: f64 = 0.7;

/// What a time column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Numbers of seconds.
    Seconds,
    /// Numbers of milliseconds.
    Millis,
    /// Numbers of microseconds.
    Micros,
    /// Numbers of nanoseconds.
    Nanos,
    /// Timestamps or dates of the file's own type.
    Datetime,
}

/// Whether times must rise from row to row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// A time before the one above it is an error.
    Rising,
    /// Any order; the caller sorts.
    Any,
}

/// Which column holds what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Arrival time, or the start of a bin where `count` is given.
    pub time: String,
    /// What it holds.
    pub time_unit: TimeUnit,
    /// Requests in the bin that starts at the row's time.
    pub count: Option<String>,
    /// Execution time in seconds.
    pub exec_s: Option<String>,
    /// Region of the client.
    pub region: Option<String>,
    /// Class of the request.
    pub class: Option<String>,
    /// Size of the request, in whatever the file counts.
    pub size: Option<String>,
}

/// One request, or the requests of one bin.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceRow {
    /// Nanoseconds since 1970 for timestamps, else since the column's own zero.
    pub at_ns: i64,
    /// Requests in the bin that starts here, ≥ 0; `None` for a single request at this time.
    pub count: Option<f64>,
    /// Execution time, s, ≥ 0.
    pub exec_s: Option<f64>,
    /// Size, ≥ 0; `None` where the cell is empty, too.
    pub size: Option<f64>,
    /// Region; `None` where the cell is empty, too.
    pub region: Option<String>,
    /// Class; `None` where the cell is empty, too.
    pub class: Option<String>,
}

/// The rows of a trace file, in the file's order. After an error there are no more.
pub struct TraceRows {
    path: String,
    file: File,
    columns: Columns,
    order: RowOrder,
    /// Rows of each row group, last one first.
    groups: Vec<usize>,
    metadata: Arc<FileMetadata>,
    /// Rows before the next group.
    offset: usize,
    group: Option<Group>,
    last_ns: i64,
}

/// The decoded cells of one row group.
struct Group {
    first_row: usize,
    next: usize,
    rows: usize,
    times: Times,
    count: Option<Numbers>,
    exec_s: Option<Numbers>,
    size: Option<Numbers>,
    region: Option<Texts>,
    class: Option<Texts>,
}

/// Opens a Parquet trace and checks that its columns are there and of a usable type.
///
/// # Errors
/// The file is absent, no Parquet, cut off, damaged, empty, or lacks a column.
pub fn open(path: &Path, columns: &Columns, order: RowOrder) -> Result<TraceRows, TraceError> {
    let name = path.display().to_string();
    let mut file = File::open(path).map_err(|source| TraceError::Read { path: name.clone(), source })?;
    check_magic(&name, &mut file)?;
    let mut reader = reader_of(&name, &file)?;
    let schema = guarded(&name, || reader.schema())?;
    check_columns(&name, &schema, columns)?;
    let metadata = guarded(&name, || reader.get_metadata().cloned())?;
    let mut groups: Vec<usize> = metadata.row_groups.iter().map(|group| group.num_rows()).collect();
    groups.reverse();
    if groups.iter().all(|rows| *rows == 0) {
        return Err(TraceError::Empty { path: name });
    }
    let columns = columns.clone();
    Ok(TraceRows {
        path: name,
        file,
        columns,
        order,
        groups,
        metadata,
        offset: 0,
        group: None,
        last_ns: i64::MIN,
    })
}

fn check_magic(path: &str, file: &mut File) -> Result<(), TraceError> {
    let fail = |source: io::Error| TraceError::Read { path: path.to_owned(), source };
    let bytes = file.seek(SeekFrom::End(0)).map_err(fail)?;
    if bytes == 0 {
        return Err(TraceError::Empty { path: path.to_owned() });
    }
    let mut magic_at = |at| -> io::Result<bool> {
        let mut found = [0; 4];
        file.seek(at)?;
        file.read_exact(&mut found)?;
        Ok(found == *MAGIC)
    };
    if bytes < MAGIC.len() as u64 || !magic_at(SeekFrom::Start(0)).map_err(fail)? {
        return Err(TraceError::NotParquet { path: path.to_owned() });
    }
    if bytes < BYTES_MIN || !magic_at(SeekFrom::End(-4)).map_err(fail)? {
        return Err(TraceError::Truncated { path: path.to_owned() });
    }
    Ok(())
}

fn reader_of(path: &str, file: &File) -> Result<ParquetReader<File>, TraceError> {
    let handle = file.try_clone().map_err(|source| TraceError::Read { path: path.to_owned(), source })?;
    Ok(ParquetReader::new(handle).read_parallel(ParallelStrategy::None))
}

/// Runs the decoder, whose errors and panics on damaged bytes both become [`TraceError::Corrupt`].
fn guarded<T>(path: &str, decode: impl FnOnce() -> PolarsResult<T>) -> Result<T, TraceError> {
    let corrupt = |detail| TraceError::Corrupt { path: path.to_owned(), detail };
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(corrupt(error.to_string())),
        Err(_) => Err(corrupt("its pages contradict its footer".to_owned())),
    }
}

fn check_columns(path: &str, schema: &ArrowSchema, columns: &Columns) -> Result<(), TraceError> {
    for column in columns.names() {
        match schema.get(column) {
            Some(field)
                if field.dtype().is_nested() && !matches!(field.dtype(), ArrowDataType::Dictionary(..)) =>
            {
                let (column, found) = (column.to_owned(), "lists or records".to_owned());
                let remedy = "a column of single values is needed; choose another".to_owned();
                return Err(TraceError::WrongType { path: path.to_owned(), column, found, remedy });
            }
            Some(_) => continue,
            None => {}
        }
        let like = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &column.to_lowercase());
        let nearest = schema.iter_names().map(|name| (like(name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
        let remedy = match nearest {
            Some((likeness, nearest)) if likeness >= LIKENESS_MIN => format!("did you mean `{nearest}`?"),
            _ => {
                let names: Vec<String> = schema.iter_names().map(|name| format!("`{name}`")).collect();
                format!("its columns are {}", names.join(", "))
            }
        };
        return Err(TraceError::MissingColumn { path: path.to_owned(), column: column.to_owned(), remedy });
    }
    Ok(())
}

impl Columns {
    fn names(&self) -> impl Iterator<Item = &str> {
        let optional = [&self.count, &self.exec_s, &self.region, &self.class, &self.size];
        std::iter::once(self.time.as_str()).chain(optional.into_iter().filter_map(|name| name.as_deref()))
    }
}

impl TraceRows {
    fn read_group(&mut self, rows: usize) -> Result<Group, TraceError> {
        let mut names: Vec<String> = self.columns.names().map(str::to_owned).collect();
        names.sort();
        names.dedup();
        let metadata = &self.metadata.row_groups[self.metadata.row_groups.len() - 1 - self.groups.len()];
        let checked = guarded(&self.path, || Ok(pages::check(&self.file, metadata, &names)))?;
        checked.map_err(|detail| TraceError::Corrupt { path: self.path.clone(), detail })?;
        let mut reader = reader_of(&self.path, &self.file)?
            .with_slice(Some((self.offset, rows)))
            .with_columns(Some(names));
        reader.set_metadata(self.metadata.clone());
        let frame = guarded(&self.path, || reader.finish())?;
        if frame.height() != rows {
            let detail = format!("a row group of {rows} rows holds {}", frame.height());
            return Err(TraceError::Corrupt { path: self.path.clone(), detail });
        }
        let group = self.decode(&frame, rows)?;
        self.offset += rows;
        Ok(group)
    }

    fn decode(&self, frame: &DataFrame, rows: usize) -> Result<Group, TraceError> {
        let (path, columns) = (self.path.as_str(), &self.columns);
        let numbers =
            |name: &Option<String>| name.as_deref().map(|name| Numbers::read(path, frame, name)).transpose();
        let texts =
            |name: &Option<String>| name.as_deref().map(|name| Texts::read(path, frame, name)).transpose();
        Ok(Group {
            first_row: self.offset,
            next: 0,
            rows,
            times: Times::read(path, frame, &columns.time, columns.time_unit)?,
            count: numbers(&columns.count)?,
            exec_s: numbers(&columns.exec_s)?,
            size: numbers(&columns.size)?,
            region: texts(&columns.region)?,
            class: texts(&columns.class)?,
        })
    }

    fn advance(&mut self) -> Result<Option<TraceRow>, TraceError> {
        while self.group.as_ref().is_none_or(|group| group.next == group.rows) {
            let Some(rows) = self.groups.pop() else { return Ok(None) };
            self.group = Some(self.read_group(rows)?);
        }
        let group = self.group.as_mut().expect("a group with rows left was just found");
        let row = group.row(&self.path)?;
        if self.order == RowOrder::Rising && row.at_ns < self.last_ns {
            return Err(TraceError::Unsorted {
                path: self.path.clone(),
                row: (group.first_row + group.next) as u64,
                value: format!("{} s", row.at_ns as f64 / 1e9),
            });
        }
        self.last_ns = row.at_ns;
        Ok(Some(row))
    }
}

impl Group {
    fn row(&mut self, path: &str) -> Result<TraceRow, TraceError> {
        let (at, number) = (self.next, (self.first_row + self.next + 1) as u64);
        self.next += 1;
        let text = |texts: &Option<Texts>| texts.as_ref().and_then(|texts| texts.get(at));
        let needed = |numbers: &Option<Numbers>| {
            numbers.as_ref().map(|numbers| numbers.needed(path, at, number)).transpose()
        };
        Ok(TraceRow {
            at_ns: self.times.get(path, at, number)?,
            count: needed(&self.count)?,
            exec_s: needed(&self.exec_s)?,
            size: self.size.as_ref().map_or(Ok(None), |sizes| sizes.get(path, at, number))?,
            region: text(&self.region),
            class: text(&self.class),
        })
    }
}

impl Iterator for TraceRows {
    type Item = Result<TraceRow, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.advance().transpose();
        if matches!(row, Some(Err(_))) {
            self.groups.clear();
            self.group = None;
        }
        row
    }
}

#[cfg(test)]
mod tests;
