//! How a row of plain data becomes columns: a name and a way to read one cell, per column.

use polars::prelude::{Column as Series, DataType, NamedFrom, PlSmallStr, Series as PolarsSeries};

/// A kind of record: the file's name and its columns in order.
#[derive(Debug)]
pub struct Table<Row: 'static> {
    /// Stem of the file.
    pub name: &'static str,
    /// At least one.
    pub columns: &'static [Column<Row>],
}

/// One column: its name, which carries the unit, and its cell.
#[derive(Debug)]
pub struct Column<Row> {
    /// e.g. `wait_s`.
    pub name: &'static str,
    /// Reads the cell of a row.
    pub cell: Cell<Row>,
}

/// Reads one cell of a row, as the type of its column.
#[derive(Debug)]
pub enum Cell<Row> {
    /// Never null.
    F64(fn(&Row) -> f64),
    /// Null where the row has none.
    OptionF64(fn(&Row) -> Option<f64>),
    /// Never null.
    I64(fn(&Row) -> i64),
    /// Never null.
    U64(fn(&Row) -> u64),
    /// Never null.
    U32(fn(&Row) -> u32),
    /// Never null.
    Text(fn(&Row) -> &str),
}

impl<Row> Cell<Row> {
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::F64(_) | Self::OptionF64(_) => DataType::Float64,
            Self::I64(_) => DataType::Int64,
            Self::U64(_) => DataType::UInt64,
            Self::U32(_) => DataType::UInt32,
            Self::Text(_) => DataType::String,
        }
    }

    pub(super) fn series(&self, name: &str, rows: &[Row]) -> Series {
        let name = PlSmallStr::from_str(name);
        let series = match self {
            Self::F64(cell) => PolarsSeries::new(name, rows.iter().map(cell).collect::<Vec<_>>()),
            Self::OptionF64(cell) => PolarsSeries::new(name, rows.iter().map(cell).collect::<Vec<_>>()),
            Self::I64(cell) => PolarsSeries::new(name, rows.iter().map(cell).collect::<Vec<_>>()),
            Self::U64(cell) => PolarsSeries::new(name, rows.iter().map(cell).collect::<Vec<_>>()),
            Self::U32(cell) => PolarsSeries::new(name, rows.iter().map(cell).collect::<Vec<_>>()),
            Self::Text(cell) => PolarsSeries::new(name, rows.iter().map(cell).collect::<Vec<_>>()),
        };
        series.into()
    }
}
