//! Tests of reading Parquet traces.

use std::fs;
use std::path::PathBuf;

use polars::prelude::{
    Categories, Column as PolarsColumn, DataType, NamedFrom, ParquetWriter, Series, TimeUnit as PolarsUnit,
};
use tempfile::TempDir;

use super::*;

fn columns(time_unit: TimeUnit) -> Columns {
    Columns {
        time: "at".to_owned(),
        time_unit,
        count: None,
        exec_s: None,
        region: None,
        class: None,
        size: None,
    }
}

fn column<T, P: ?Sized>(name: &str, cells: T) -> PolarsColumn
where
    Series: NamedFrom<T, P>,
{
    Series::new(name.into(), cells).into()
}

fn write(columns: Vec<PolarsColumn>, rows_per_group: usize) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("trace.parquet");
    let mut frame = DataFrame::new(columns).expect("columns of one length");
    let file = fs::File::create(&path).expect("created");
    ParquetWriter::new(file).with_row_group_size(Some(rows_per_group)).finish(&mut frame).expect("written");
    (dir, path)
}

fn read(columns_of_file: Vec<PolarsColumn>, mapping: &Columns) -> Result<Vec<TraceRow>, TraceError> {
    let (_dir, path) = write(columns_of_file, 2);
    open(&path, mapping, RowOrder::Rising)?.collect()
}

#[test]
fn all_columns_come_back_across_row_groups() {
    let mapping = Columns {
        count: Some("n".to_owned()),
        exec_s: Some("exec".to_owned()),
        region: Some("where".to_owned()),
        class: Some("kind".to_owned()),
        size: Some("bytes".to_owned()),
        ..columns(TimeUnit::Seconds)
    };
    let file = vec![
        column("unused", [true, false, true]),
        column("at", [0.5_f64, 1.25, 3.0]),
        column("n", [1_u32, 0, 7]),
        column("exec", [0.1_f32, 2.0, 3.5]),
        column("where", [Some("us"), None, Some("eu")]),
        column("kind", [Some(1_i64), Some(-2), None]),
        column("bytes", [Some(10_i64), None, Some(30)]),
    ];
    let rows = read(file, &mapping).expect("read");
    assert_eq!(
        rows.iter().map(|row| row.at_ns).collect::<Vec<_>>(),
        [500_000_000, 1_250_000_000, 3_000_000_000]
    );
    assert_eq!(rows[2].count, Some(7.0));
    assert_eq!(rows[1].exec_s, Some(2.0));
    assert_eq!(rows[1].region, None);
    assert_eq!(rows[2].region.as_deref(), Some("eu"));
    assert_eq!(rows[1].class.as_deref(), Some("-2"));
    assert_eq!((rows[0].size, rows[1].size), (Some(10.0), None));
}

#[test]
fn times_keep_every_nanosecond_of_their_unit() {
    let second = 1_731_689_870_i64;
    for (unit, value, expected) in [
        (TimeUnit::Seconds, second, second * 1_000_000_000),
        (TimeUnit::Millis, second * 1_000 + 1, second * 1_000_000_000 + 1_000_000),
        (TimeUnit::Micros, second * 1_000_000 + 1, second * 1_000_000_000 + 1_000),
        (TimeUnit::Nanos, second * 1_000_000_000 + 1, second * 1_000_000_000 + 1),
    ] {
        assert_eq!(
            read(vec![column("at", [value])], &columns(unit)).expect("read")[0].at_ns,
            expected,
            "{unit:?}"
        );
    }
    for (polars_unit, scale) in [
        (PolarsUnit::Nanoseconds, 1_000_000_000),
        (PolarsUnit::Microseconds, 1_000_000),
        (PolarsUnit::Milliseconds, 1_000),
    ] {
        let stamps = column("at", [second * scale]);
        let stamps = stamps.cast(&DataType::Datetime(polars_unit, None)).expect("timestamps");
        let rows = read(vec![stamps], &columns(TimeUnit::Datetime)).expect("read");
        assert_eq!(rows[0].at_ns, second * 1_000_000_000, "{polars_unit:?}");
    }
    let dates = column("at", [20_000_i32]).cast(&DataType::Date).expect("dates");
    let rows = read(vec![dates], &columns(TimeUnit::Datetime)).expect("read");
    assert_eq!(rows[0].at_ns, 20_000 * 86_400_000_000_000);
}

#[test]
fn a_faulty_cell_or_column_is_named_with_its_remedy() {
    let seconds = columns(TimeUnit::Seconds);
    let counted = Columns { count: Some("n".to_owned()), ..seconds.clone() };
    let placed = Columns { region: Some("n".to_owned()), ..seconds.clone() };
    let stamps =
        column("at", [5_i64]).cast(&DataType::Datetime(PolarsUnit::Nanoseconds, None)).expect("stamps");
    for (file, mapping, message) in [
        (
            vec![column("At_s", [1.0_f64])],
            &columns(TimeUnit::Seconds),
            "no column `at`; did you mean `At_s`?",
        ),
        (vec![column("zzz", [1.0_f64])], &seconds, "no column `at`; its columns are `zzz`"),
        (vec![column("at", [1.0, f64::NAN])], &seconds, "row 2, column `at`: NaN is not a finite time"),
        (vec![column("at", [f64::INFINITY])], &seconds, "row 1, column `at`: inf is not a finite time"),
        (vec![column("at", [1e300])], &seconds, "is not a time within 292 years"),
        (vec![column("at", [i64::MAX])], &seconds, "is not a time within 292 years"),
        (vec![column("at", [u64::MAX])], &seconds, "holds numbers above 9.2e18"),
        (
            vec![column("at", [Some(1_i64), None])],
            &seconds,
            "row 2, column `at`: an empty cell is not a time",
        ),
        (vec![column("at", [1_i64, 2, 4, 3])], &seconds, "row 4: time 3 s is before the row above it; sort"),
        (
            vec![column("at", ["2024-01-01"])],
            &seconds,
            "column `at` holds texts; a column of numbers is needed",
        ),
        (
            vec![column("at", [1_i64])],
            &columns(TimeUnit::Datetime),
            "holds numbers; give its unit, one of s, ms",
        ),
        (vec![column("at", ["x"])], &columns(TimeUnit::Datetime), "turn its texts into timestamps"),
        (vec![stamps], &seconds, "holds timestamps; give the unit `datetime`"),
        (
            vec![column("at", [1_i64]), column("n", [-1.0])],
            &counted,
            "row 1, column `n`: -1 is not a finite number",
        ),
        (vec![column("at", [1_i64]), column("n", [None::<i64>])], &counted, "an empty cell is not a number"),
        (vec![column("at", [1_i64]), column("n", [true])], &counted, "column `n` holds true and false"),
        (
            vec![column("at", [1_i64]), column("n", [0.5])],
            &placed,
            "a region or class is a text or a whole number",
        ),
        (vec![column("at", Vec::<i64>::new())], &seconds, "is empty"),
    ] {
        let error = read(file, mapping).expect_err(message).to_string();
        assert!(error.contains(message), "`{error}` should say `{message}`");
        assert!(error.contains("trace.parquet"), "{error}");
    }
}

#[test]
fn categories_are_labels() {
    let labels = column("where", ["us", "eu", "us"]);
    let kind = DataType::from_categories(Categories::global());
    let file = vec![column("at", [1_i64, 2, 3]), labels.cast(&kind).expect("categories")];
    let mapping = Columns { region: Some("where".to_owned()), ..columns(TimeUnit::Nanos) };
    let rows = read(file, &mapping).expect("read");
    assert_eq!(rows[2].region.as_deref(), Some("us"));
}

#[test]
fn unsorted_rows_are_read_when_asked_for() {
    let (_dir, path) = write(vec![column("at", [3_i64, 1, 2])], 2);
    let rows = open(&path, &columns(TimeUnit::Nanos), RowOrder::Any).expect("opened");
    let times: Vec<i64> = rows.map(|row| row.expect("a row").at_ns).collect();
    assert_eq!(times, [3, 1, 2]);
}

#[test]
fn nothing_follows_an_error() {
    let (_dir, path) = write(vec![column("at", [1.0, f64::NAN, 3.0, 4.0])], 2);
    let mut rows = open(&path, &columns(TimeUnit::Seconds), RowOrder::Rising).expect("opened");
    assert!(rows.next().expect("first").is_ok());
    assert!(rows.next().expect("second").is_err());
    assert!(rows.next().is_none());
}

#[test]
fn a_cut_or_foreign_file_is_an_error_wherever_it_is_cut() {
    let (dir, path) = write(vec![column("at", (0..500_i64).collect::<Vec<_>>())], 100);
    let whole = fs::read(&path).expect("read");
    let part = dir.path().join("part.parquet");
    for length in 0..whole.len() {
        fs::write(&part, &whole[..length]).expect("written");
        let error = open(&part, &columns(TimeUnit::Nanos), RowOrder::Rising).err().expect("cut off");
        let expected = match length {
            0 => matches!(error, TraceError::Empty { .. }),
            1..4 => matches!(error, TraceError::NotParquet { .. }),
            _ => matches!(error, TraceError::Truncated { .. }),
        };
        assert!(expected, "cut at {length}: {error}");
    }
    fs::write(&part, "at,n\n1,2\n").expect("written");
    let error = open(&part, &columns(TimeUnit::Nanos), RowOrder::Rising).err().expect("a CSV");
    assert!(error.to_string().contains("is not a Parquet file"), "{error}");
    let error =
        open(&dir.path().join("none"), &columns(TimeUnit::Nanos), RowOrder::Rising).err().expect("absent");
    assert!(matches!(error, TraceError::Read { .. }), "{error}");
}

#[test]
fn a_damaged_byte_never_panics() {
    let (dir, path) = write(
        vec![
            column("at", (0..300_i64).collect::<Vec<_>>()),
            column("where", (0..300).map(|row| format!("region {}", row % 7)).collect::<Vec<_>>()),
        ],
        100,
    );
    let mapping = Columns { region: Some("where".to_owned()), ..columns(TimeUnit::Nanos) };
    let whole = fs::read(&path).expect("read");
    let part = dir.path().join("part.parquet");
    let mut refused = 0;
    let places = (0..whole.len()).step_by(9).flat_map(|at| [0x01, 0x40, 0xff].map(|bits| (at, bits)));
    for (at, bits) in places {
        let mut damaged = whole.clone();
        damaged[at] ^= bits;
        fs::write(&part, &damaged).expect("written");
        let rows = open(&part, &mapping, RowOrder::Any).and_then(|rows| rows.collect::<Result<Vec<_>, _>>());
        refused += usize::from(rows.is_err());
    }
    assert!(refused > whole.len() / 30, "{refused} of {}", whole.len() / 3);
}
