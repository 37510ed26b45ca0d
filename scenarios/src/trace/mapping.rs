//! Which column of a plain CSV or JSON-lines trace holds what, and how a missing column is reported.

use super::{TimeUnit, TraceError};

/// Columns of a plain trace by name; for JSON lines these are the keys of each object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping {
    /// Arrival time (or the start of a bin, where `count` is given).
    pub time: String,
    pub time_unit: TimeUnit,
    /// Requests in the bin that starts at the row's time; rows of one bin are summed.
    pub count: Option<String>,
    /// Execution time in seconds.
    pub exec_s: Option<String>,
    pub region: Option<String>,
    /// Class of the request.
    pub class: Option<String>,
    /// Size of the request, in whatever the file counts.
    pub size: Option<String>,
}

/// Finds `column` in a header, or says which column was probably meant.
///
/// # Errors
/// [`TraceError::MissingColumn`].
pub(super) fn find_column(path: &str, header: &[&str], column: &str) -> Result<usize, TraceError> {
    header.iter().position(|c| *c == column).ok_or_else(|| missing_column(path, header, column))
}

/// Least likeness (Jaro–Winkler, 0..=1) at which another column is offered as the one meant.
const LIKENESS_MIN: f64 = 0.7;

pub(super) fn missing_column(path: &str, header: &[&str], column: &str) -> TraceError {
    let like = |c: &str| strsim::jaro_winkler(&c.to_lowercase(), &column.to_lowercase());
    let nearest = header.iter().map(|c| (like(c), c)).max_by(|a, b| a.0.total_cmp(&b.0));
    let remedy = match nearest {
        Some((likeness, nearest)) if likeness >= LIKENESS_MIN => format!("did you mean `{nearest}`?"),
        _ => format!(
            "its columns are {}",
            header.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ")
        ),
    };
    TraceError::MissingColumn { path: path.to_owned(), column: column.to_owned(), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_column_offers_the_nearest() {
        let message =
            |column| find_column("a.csv", &["timestamp", "tokens"], column).unwrap_err().to_string();
        assert_eq!(message("timestmp"), "trace `a.csv` has no column `timestmp`; did you mean `timestamp`?");
        assert!(message("q").ends_with("its columns are `timestamp`, `tokens`"));
        assert_eq!(find_column("a.csv", &["a", "b"], "b").unwrap(), 1);
    }
}
