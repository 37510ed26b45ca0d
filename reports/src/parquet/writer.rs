//! Writes one table row by row: a full row group goes to a temporary file beside the target, which takes the target's
//! name once it is complete and on disk. Memory holds one row group.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use polars::io::parquet::write::BatchedWriter;
use polars::prelude::{
    Column as PolarsColumn, DataFrame, DataType, KeyValueMetadata, ParquetCompression, ParquetWriter,
    PlSmallStr, PolarsError, Schema,
};
use tempfile::NamedTempFile;

use super::{Provenance, Table};

/// Rows of a row group: 4 MiB of a job table's columns, so that a reader can skip and a writer need not hold more.
pub const ROWS_PER_GROUP: usize = 65_536;

/// Column that says which world a row comes from.
const ORIGIN: &str = "origin";

/// Why a table was not written. The file of that name is then as it was before.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The folder or the temporary file in it could not be made.
    #[error("could not create `{path}`; check that the folder exists and may be written to")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Rows could not be encoded or written, e.g. because the disk is full.
    #[error("could not write table `{path}`; check the free space there")]
    Write {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The complete file could not take its name.
    #[error(
        "table `{path}` is complete but could not be put in its place; check that no folder has that name"
    )]
    Rename {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Takes the rows of one table; nothing is visible at `path` before [`TableWriter::finish`], and dropping it without
/// leaves no file behind.
pub struct TableWriter<Row: 'static> {
    path: PathBuf,
    table: &'static Table<Row>,
    origin: &'static str,
    file: NamedTempFile,
    parquet: BatchedWriter<File>,
    rows: Vec<Row>,
    written: u64,
}

impl<Row> TableWriter<Row> {
    /// Opens a temporary file beside `path`.
    ///
    /// # Errors
    /// The folder is absent or may not be written to.
    pub fn create(
        path: &Path,
        table: &'static Table<Row>,
        provenance: &Provenance,
    ) -> Result<Self, WriteError> {
        let create = |source| WriteError::Create { path: path.to_owned(), source };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(".parquet.part");
        readable_by_others(&mut builder);
        let file = builder.tempfile_in(folder).map_err(create)?;
        let handle = file.as_file().try_clone().map_err(create)?;
        let facts = provenance.facts.iter().map(|(key, value)| (format!("headroom.{key}"), value.clone()));
        let parquet = ParquetWriter::new(handle)
            .with_compression(ParquetCompression::Zstd(None))
            .with_row_group_size(Some(ROWS_PER_GROUP))
            .with_key_value_metadata(Some(KeyValueMetadata::from_static(facts.collect())))
            .set_parallel(false)
            .batched(&schema(table))
            .map_err(|source| write_error(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            table,
            origin: provenance.origin.name(),
            file,
            parquet,
            rows: Vec::new(),
            written: 0,
        })
    }

    /// Adds a row; every [`ROWS_PER_GROUP`]th one writes a row group.
    ///
    /// # Errors
    /// The row group could not be written.
    pub fn push(&mut self, row: Row) -> Result<(), WriteError> {
        self.rows.push(row);
        if self.rows.len() == ROWS_PER_GROUP { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<(), WriteError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let origin = PolarsColumn::new_scalar(
            PlSmallStr::from_static(ORIGIN),
            polars::prelude::Scalar::from(PlSmallStr::from_static(self.origin)),
            self.rows.len(),
        );
        let cells = self.table.columns.iter().map(|column| column.cell.series(column.name, &self.rows));
        DataFrame::new(cells.chain([origin]).collect())
            .and_then(|frame| self.parquet.write_batch(&frame))
            .map_err(|source| write_error(&self.path, source))?;
        self.written += self.rows.len() as u64;
        self.rows.clear();
        Ok(())
    }

    /// Writes what is left, waits until the disk has it, and gives the file its name; returns the number of rows.
    ///
    /// # Errors
    /// The disk is full, or the name is taken by a folder.
    pub fn finish(mut self) -> Result<u64, WriteError> {
        self.write_group()?;
        self.parquet.finish().map_err(|source| write_error(&self.path, source))?;
        let synced = self.file.as_file().sync_all();
        synced.map_err(|source| WriteError::Write { path: self.path.clone(), source: source.into() })?;
        match self.file.persist(&self.path) {
            Ok(_) => Ok(self.written),
            Err(error) => Err(WriteError::Rename { path: self.path, source: error.error }),
        }
    }
}

fn schema<Row>(table: &Table<Row>) -> Schema {
    let columns = table.columns.iter().map(|column| (column.name, column.cell.data_type()));
    columns
        .chain([(ORIGIN, DataType::String)])
        .map(|(name, kind)| (PlSmallStr::from_static(name), kind))
        .collect()
}

fn write_error(path: &Path, source: PolarsError) -> WriteError {
    WriteError::Write { path: path.to_owned(), source: source.into() }
}

/// A temporary file is private by default; a record is as readable as the user's umask says.
#[cfg(unix)]
fn readable_by_others(builder: &mut tempfile::Builder<'_, '_>) {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(std::fs::Permissions::from_mode(0o666));
}

#[cfg(not(unix))]
fn readable_by_others(_builder: &mut tempfile::Builder<'_, '_>) {}
