//! Columns of one row group as times, numbers and texts, with the checks of each cell.

use polars::prelude::{Column, DataFrame, DataType, TimeUnit as PolarsUnit};

use super::{TimeUnit, TraceError};

/// Nanoseconds.
const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// First float that no longer fits `i64`: 2⁶³.
const NANOS_END: f64 = 9_223_372_036_854_775_808.0;

/// A column of times.
pub(super) struct Times {
    column: String,
    scale: i64,
    cells: Cells,
}

/// A column of non-negative numbers.
pub(super) struct Numbers {
    column: String,
    cells: Cells,
}

/// A column of labels; whole numbers count as their digits.
pub(super) enum Texts {
    Text(Vec<Option<String>>),
    Whole(Vec<Option<i64>>),
}

enum Cells {
    Whole(Vec<Option<i64>>),
    Real(Vec<Option<f64>>),
}

impl Times {
    pub(super) fn read(
        path: &str,
        frame: &DataFrame,
        name: &str,
        unit: TimeUnit,
    ) -> Result<Self, TraceError> {
        let column = find(path, frame, name)?;
        let wrong = |found: &str, remedy: &str| wrong_type(path, name, found, remedy);
        let is_timestamp = matches!(column.dtype(), DataType::Datetime(..) | DataType::Date);
        let scale = match (unit, column.dtype()) {
            (TimeUnit::Datetime, DataType::Datetime(PolarsUnit::Nanoseconds, _)) => 1,
            (TimeUnit::Datetime, DataType::Datetime(PolarsUnit::Microseconds, _)) => 1_000,
            (TimeUnit::Datetime, DataType::Datetime(PolarsUnit::Milliseconds, _)) => 1_000_000,
            (TimeUnit::Datetime, DataType::Date) => DAY,
            (TimeUnit::Datetime, other) => {
                let remedy = "give its unit, one of s, ms, us, ns, or turn its texts into timestamps";
                return Err(wrong(&kind_of(other), remedy));
            }
            _ if is_timestamp => return Err(wrong("timestamps", "give the unit `datetime`")),
            (TimeUnit::Seconds, _) => SECOND,
            (TimeUnit::Millis, _) => 1_000_000,
            (TimeUnit::Micros, _) => 1_000,
            (TimeUnit::Nanos, _) => 1,
        };
        let physical = column.to_physical_repr();
        Ok(Self { column: name.to_owned(), scale, cells: Cells::read(path, &physical, name)? })
    }

    /// The time of a cell, ns.
    pub(super) fn get(&self, path: &str, at: usize, row: u64) -> Result<i64, TraceError> {
        let bad = |value: String, expected| bad_value(path, row, &self.column, value, expected);
        let in_range = "a time within 292 years of its zero";
        match &self.cells {
            Cells::Whole(cells) => {
                let value = cells[at].ok_or_else(|| bad("an empty cell".to_owned(), "a time"))?;
                value.checked_mul(self.scale).ok_or_else(|| bad(value.to_string(), in_range))
            }
            Cells::Real(cells) => {
                let value = cells[at].ok_or_else(|| bad("an empty cell".to_owned(), "a time"))?;
                if !value.is_finite() {
                    return Err(bad(value.to_string(), "a finite time"));
                }
                let nanos = (value * self.scale as f64).round();
                if !(-NANOS_END..NANOS_END).contains(&nanos) {
                    return Err(bad(value.to_string(), in_range));
                }
                Ok(nanos as i64)
            }
        }
    }
}

impl Numbers {
    pub(super) fn read(path: &str, frame: &DataFrame, name: &str) -> Result<Self, TraceError> {
        let column = find(path, frame, name)?;
        Ok(Self { column: name.to_owned(), cells: Cells::read(path, column, name)? })
    }

    /// The number in a cell that must hold one.
    pub(super) fn needed(&self, path: &str, at: usize, row: u64) -> Result<f64, TraceError> {
        self.get(path, at, row)?
            .ok_or_else(|| bad_value(path, row, &self.column, "an empty cell".to_owned(), "a number"))
    }

    /// The number in a cell, `None` where it is empty.
    pub(super) fn get(&self, path: &str, at: usize, row: u64) -> Result<Option<f64>, TraceError> {
        let value = match &self.cells {
            Cells::Whole(cells) => cells[at].map(|value| value as f64),
            Cells::Real(cells) => cells[at],
        };
        match value {
            Some(value) if !(value.is_finite() && value >= 0.0) => {
                Err(bad_value(path, row, &self.column, value.to_string(), "a finite number of at least 0"))
            }
            other => Ok(other),
        }
    }
}

impl Texts {
    pub(super) fn read(path: &str, frame: &DataFrame, name: &str) -> Result<Self, TraceError> {
        let column = find(path, frame, name)?;
        // Labels that the file keeps by number (pandas categories) are texts again here.
        let labels = match column.dtype() {
            DataType::Categorical(..) | DataType::Enum(..) => column.cast(&DataType::String),
            _ => Ok(column.clone()),
        };
        let column = &labels
            .map_err(|error| TraceError::Corrupt { path: path.to_owned(), detail: error.to_string() })?;
        if let Ok(texts) = column.str() {
            return Ok(Self::Text(texts.into_iter().map(|text| text.map(str::to_owned)).collect()));
        }
        match Cells::read(path, column, name) {
            Ok(Cells::Whole(cells)) => Ok(Self::Whole(cells)),
            _ => {
                let found = kind_of(column.dtype());
                Err(wrong_type(
                    path,
                    name,
                    &found,
                    "a region or class is a text or a whole number; choose another",
                ))
            }
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<String> {
        match self {
            Self::Text(cells) => cells[at].clone(),
            Self::Whole(cells) => cells[at].map(|value| value.to_string()),
        }
    }
}

impl Cells {
    fn read(path: &str, column: &Column, name: &str) -> Result<Self, TraceError> {
        let wrong = || {
            wrong_type(path, name, &kind_of(column.dtype()), "a column of numbers is needed; choose another")
        };
        let as_type = |kind| column.strict_cast(kind).map_err(|_| wrong());
        match column.dtype() {
            kind if kind.is_integer() => {
                let whole = column.strict_cast(&DataType::Int64).map_err(|_| {
                    wrong_type(path, name, "numbers above 9.2e18", "no such time or count is possible")
                })?;
                Ok(Self::Whole(whole.i64().map_err(|_| wrong())?.into_iter().collect()))
            }
            kind if kind.is_float() => {
                let real = as_type(&DataType::Float64)?;
                Ok(Self::Real(real.f64().map_err(|_| wrong())?.into_iter().collect()))
            }
            _ => Err(wrong()),
        }
    }
}

fn find<'a>(path: &str, frame: &'a DataFrame, name: &str) -> Result<&'a Column, TraceError> {
    frame
        .column(name)
        .map_err(|error| TraceError::Corrupt { path: path.to_owned(), detail: error.to_string() })
}

/// A column's type in words.
fn kind_of(kind: &DataType) -> String {
    match kind {
        DataType::String => "texts".to_owned(),
        DataType::Boolean => "true and false".to_owned(),
        DataType::Datetime(..) => "timestamps".to_owned(),
        DataType::Date => "dates".to_owned(),
        kind if kind.is_numeric() => "numbers".to_owned(),
        other => format!("values of type {other}"),
    }
}

fn wrong_type(path: &str, column: &str, found: &str, remedy: &str) -> TraceError {
    let (found, remedy) = (found.to_owned(), remedy.to_owned());
    TraceError::WrongType { path: path.to_owned(), column: column.to_owned(), found, remedy }
}

fn bad_value(path: &str, row: u64, column: &str, value: String, expected: &'static str) -> TraceError {
    TraceError::BadValue { path: path.to_owned(), row, column: column.to_owned(), value, expected }
}
