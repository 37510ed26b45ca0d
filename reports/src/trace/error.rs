//! What can be wrong with a Parquet trace: every error names the file, the place, the value and the remedy.

use std::io;

/// Why a Parquet trace could not be read. Rows are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Missing, a folder, or not readable by this user.
    #[error("could not read trace `{path}`")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    /// Not a Parquet file at all.
    #[error("trace `{path}` is not a Parquet file: it does not start with `PAR1`; check the name")]
    NotParquet { path: String },
    /// A Parquet file that ends early: its last bytes are not the footer's.
    #[error("trace `{path}` is cut off: it does not end with `PAR1`; fetch the file again")]
    Truncated { path: String },
    /// Its inside contradicts itself.
    #[error("trace `{path}` is damaged ({detail}); fetch the file again")]
    Corrupt { path: String, detail: String },
    /// A named column is absent.
    #[error("trace `{path}` has no column `{column}`; {remedy}")]
    MissingColumn { path: String, column: String, remedy: String },
    /// A column of another kind than its use needs.
    #[error("trace `{path}`, column `{column}` holds {found}; {remedy}")]
    WrongType { path: String, column: String, found: String, remedy: String },
    /// A cell that is empty, not finite, negative where it must not be, or too large.
    #[error(
        "trace `{path}`, row {row}, column `{column}`: {value} is not {expected}; repair or remove the row"
    )]
    BadValue { path: String, row: u64, column: String, value: String, expected: &'static str },
    /// A time before the one above it.
    #[error(
        "trace `{path}`, row {row}: time {value} is before the row above it; \
         sort the file, or ask for the rows to be sorted"
    )]
    Unsorted { path: String, row: u64, value: String },
    /// No rows at all.
    #[error("trace `{path}` is empty: it has columns and no rows; check that the right file was named")]
    Empty { path: String },
}
