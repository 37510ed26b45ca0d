//! What can be wrong with a trace: every error names the file, the place, the value and the remedy.

use std::io;

/// Why a trace could not be read, shaped or played.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("could not read trace `{path}`: {source}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("trace `{path}` ends in the middle of its gzip stream; fetch the file again")]
    Truncated { path: String },
    #[error("trace `{path}` is in no known format (it starts with `{found}`); {remedy}")]
    UnknownFormat { path: String, found: String, remedy: String },
    #[error("`{path}` is {found}, not {wanted}")]
    WrongKind { path: String, found: String, wanted: &'static str },
    #[error("trace `{path}` has no column `{column}`; {remedy}")]
    MissingColumn { path: String, column: String, remedy: String },
    #[error("trace `{path}`, line {line}, column `{column}`: `{value}` is not {expected}; {remedy}")]
    BadValue {
        path: String,
        line: u64,
        column: String,
        value: String,
        expected: &'static str,
        remedy: String,
    },
    #[error("trace `{path}`, line {line}: {detail}")]
    Malformed { path: String, line: u64, detail: String },
    #[error(
        "trace `{path}`, line {line}: time `{value}` is before the row above it; \
         sort the file, or ask for the rows to be sorted"
    )]
    Unsorted { path: String, line: u64, value: String },
    #[error(
        "trace `{path}` is empty: it has a header at most and no rows; check that the right file was named"
    )]
    Empty { path: String },
    #[error("trace `{path}` holds no request: all its counts are zero; check the count column")]
    NoRequests { path: String },
    #[error(
        "trace `{path}` has more than {limit} rows, too many to hold one by one; \
         give a bin width, so that rows are counted per bin while they stream, or cut the file"
    )]
    TooManyRows { path: String, limit: u64 },
    #[error("trace `{path}` would need {bins} bins of {bin_s} s (limit {limit}); give a wider bin")]
    TooManyBins { path: String, bins: u64, bin_s: f64, limit: u64 },
    #[error(
        "trace `{path}`, line {line}: column `{column}` has more than {limit} distinct values; leave it out"
    )]
    TooManyLabels { path: String, line: u64, column: String, limit: usize },
    #[error(
        "trace `{path}` has counts at a single time, so its bin width is unknown; give the width of its bins"
    )]
    BinUnknown { path: String },
    #[error(
        "trace `{path}`, line {line}: the row lies {offset_s} s after the first, which is no multiple of the \
         bin width {bin_s} s; give the width of its bins"
    )]
    BinMisfit { path: String, line: u64, offset_s: f64, bin_s: f64 },
    #[error("{name} {value} is not {expected}")]
    BadOption { name: &'static str, value: String, expected: &'static str },
    #[error("`{path}` is not the JSON that was expected: {source}")]
    Json {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "folder `{path}` holds no trace; name a trace file, or a folder with .csv, .csv.gz, .jsonl or .json files"
    )]
    EmptyFolder { path: String },
}

impl TraceError {
    /// Turns an I/O error on `path` into a trace error; an early end of a gzip stream is named as such.
    pub(super) fn from_io(path: &str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Truncated { path: path.to_owned() };
        }
        Self::Read { path: path.to_owned(), source }
    }

    /// Turns a CSV error on `path` into a trace error with its line.
    pub(super) fn from_csv(path: &str, error: csv::Error) -> Self {
        let line = error.position().map_or(0, csv::Position::line);
        let detail = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} columns where the header has {expected_len}; repair or remove the row")
            }
            csv::ErrorKind::Utf8 { .. } => "the row is not UTF-8; convert the file".to_owned(),
            _ => error.to_string(),
        };
        match error.into_kind() {
            csv::ErrorKind::Io(source) => Self::from_io(path, source),
            _ => Self::Malformed { path: path.to_owned(), line, detail },
        }
    }
}
