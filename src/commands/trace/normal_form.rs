//! The form in which imported traces are kept: CSV or JSON lines with fixed column names, which scenarios can name
//! without a mapping.
//!
//! `time` holds calendar times. A trace without them has `time_s`, seconds from its start, in CSV, and `time_ns` in
//! JSON lines, whose readers take decimals for binary numbers. `count` is there for a trace
//! of counts, one row per measured bin, empty bins included; a bin without a row was not measured. `exec_s`, `size`,
//! `region` and `class` are there where the trace has them.

use std::io::{self, Write};

use clap::ValueEnum;
use scenarios::trace::{Labels, Timestamps, Trace, TraceData};
use serde_json::{Map, Value};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NormalFormat {
    Csv,
    Jsonl,
}

/// Writes `trace`; times and counts come back exactly as they are.
pub(super) fn write(trace: &Trace, format: NormalFormat, out: &mut dyn Write) -> io::Result<()> {
    let mut rows = Rows::new(trace, format, out)?;
    match &trace.data {
        TraceData::Timestamps(stamps) => {
            for (row, at_ns) in stamps.at_ns.iter().enumerate() {
                rows.write(time_text(trace, format, *at_ns), &extras(stamps, row))?;
            }
        }
        TraceData::Counts(counts) => {
            for (index, count) in (0..).zip(counts.dense()) {
                if let Some(count) = count {
                    rows.write(
                        time_text(trace, format, index * counts.bin_ns()),
                        &[Cell::Number(count.to_string())],
                    )?;
                }
            }
        }
    }
    rows.finish()
}

/// One value beside the time.
enum Cell<'t> {
    Number(String),
    Text(&'t str),
    Nothing,
}

enum Rows<'o> {
    Csv(Box<csv::Writer<&'o mut dyn Write>>),
    Jsonl { out: &'o mut dyn Write, names: Vec<&'static str>, calendar: bool },
}

impl<'o> Rows<'o> {
    fn new(trace: &Trace, format: NormalFormat, out: &'o mut dyn Write) -> io::Result<Self> {
        let names = names(trace, format);
        match format {
            NormalFormat::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(&names)?;
                Ok(Self::Csv(Box::new(writer)))
            }
            NormalFormat::Jsonl => Ok(Self::Jsonl { out, names, calendar: trace.start.is_some() }),
        }
    }

    fn write(&mut self, time: String, cells: &[Cell<'_>]) -> io::Result<()> {
        match self {
            Self::Csv(writer) => {
                writer.write_field(time)?;
                for cell in cells {
                    match cell {
                        Cell::Number(number) => writer.write_field(number)?,
                        Cell::Text(text) => writer.write_field(text)?,
                        Cell::Nothing => writer.write_field("")?,
                    }
                }
                writer.write_record(None::<&[u8]>)?;
                Ok(())
            }
            Self::Jsonl { out, names, calendar } => {
                let mut object = Map::new();
                for (name, cell) in names.iter().skip(1).zip(cells) {
                    let value = match cell {
                        Cell::Number(number) => serde_json::from_str(number)?,
                        Cell::Text(text) => Value::from(*text),
                        Cell::Nothing => continue,
                    };
                    object.insert((*name).to_owned(), value);
                }
                let time = if *calendar { Value::from(time).to_string() } else { time };
                let rest = Value::Object(object).to_string();
                let rest = if rest == "{}" { "}" } else { &format!(",{}", &rest[1..]) };
                writeln!(out, "{{\"{}\":{time}{rest}", names[0])
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Csv(mut writer) => writer.flush(),
            Self::Jsonl { out, .. } => out.flush(),
        }
    }
}

fn names(trace: &Trace, format: NormalFormat) -> Vec<&'static str> {
    let mut names = vec![match (trace.start, format) {
        (Some(_), _) => "time",
        (None, NormalFormat::Csv) => "time_s",
        (None, NormalFormat::Jsonl) => "time_ns",
    }];
    match &trace.data {
        TraceData::Counts(_) => names.push("count"),
        TraceData::Timestamps(Timestamps { exec_s, size, region, class, .. }) => {
            let there = [
                ("exec_s", exec_s.is_some()),
                ("size", size.is_some()),
                ("region", region.is_some()),
                ("class", class.is_some()),
            ];
            names.extend(there.into_iter().filter(|(_, there)| *there).map(|(name, _)| name));
        }
    }
    names
}

fn extras(stamps: &Timestamps, row: usize) -> Vec<Cell<'_>> {
    let number = |column: &Option<Vec<f32>>| {
        column.as_ref().map(|column| match column.get(row) {
            Some(value) if value.is_finite() => Cell::Number(value.to_string()),
            _ => Cell::Nothing,
        })
    };
    fn text(column: Option<&Labels>, row: usize) -> Option<Cell<'_>> {
        column
            .map(|labels| labels.name(row).filter(|name| !name.is_empty()).map_or(Cell::Nothing, Cell::Text))
    }
    [
        number(&stamps.exec_s),
        number(&stamps.size),
        text(stamps.region.as_ref(), row),
        text(stamps.class.as_ref(), row),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn time_text(trace: &Trace, format: NormalFormat, at_ns: u64) -> String {
    match trace.start {
        Some(start) => {
            let at = start.shifted(at_ns);
            at.expect("64-bit nanoseconds from a 64-bit start stay before the year 9999").to_string()
        }
        None if format == NormalFormat::Jsonl => at_ns.to_string(),
        None => {
            let text = format!("{}.{:09}", at_ns / 1_000_000_000, at_ns % 1_000_000_000);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::inputs::load_trace;
    use scenarios::trace::{ImportOptions, Row};

    fn text(trace: &Trace, format: NormalFormat) -> String {
        let mut out = Vec::new();
        write(trace, format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Asks for the text, and that it reads back to the same trace.
    fn check(trace: &Trace, format: NormalFormat, expected: &str) {
        let written = text(trace, format);
        assert_eq!(written, expected);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        std::fs::write(&path, written).unwrap();
        let again = load_trace(&path).unwrap();
        // By their text, in which an absent number equals another.
        assert_eq!(format!("{:?}", again.data), format!("{:?}", trace.data));
        assert_eq!(again.start, trace.start);
    }

    fn requests(calendar: bool) -> Trace {
        let row = |at_ns, exec_s, class: &'static str| Row {
            at_ns,
            exec_s,
            class: Some(class.into()),
            ..Row::default()
        };
        let rows =
            [row(0, Some(1.5), "a,b"), row(250_000_001, None, "c"), row(2_000_000_000, Some(3.0), "c")];
        Trace::from_rows("t", rows, calendar, &ImportOptions::default()).unwrap()
    }

    #[test]
    fn requests_come_back_to_the_nanosecond() {
        check(
            &requests(false),
            NormalFormat::Csv,
            "time_s,exec_s,class\n0,1.5,\"a,b\"\n0.250000001,,c\n2,3,c\n",
        );
        check(
            &requests(true),
            NormalFormat::Csv,
            "time,exec_s,class\n1970-01-01T00:00:00Z,1.5,\"a,b\"\n1970-01-01T00:00:00.250000001Z,,c\n1970-01-01T00:00:02Z,3,c\n",
        );
        check(
            &requests(false),
            NormalFormat::Jsonl,
            "{\"time_ns\":0,\"exec_s\":1.5,\"class\":\"a,b\"}\n{\"time_ns\":250000001,\"class\":\"c\"}\n{\"time_ns\":2000000000,\"exec_s\":3,\"class\":\"c\"}\n",
        );
    }

    #[test]
    fn counts_come_back_with_empty_and_missing_bins() {
        let row = |at_ns, count| Row { at_ns, count: Some(count), ..Row::default() };
        let rows = [row(0, 2.0), row(10, 0.0), row(30, 1.5)];
        let options = ImportOptions { count_bin_ns: Some(10), ..ImportOptions::default() };
        let trace = Trace::from_rows("t", rows, false, &options).unwrap();
        check(&trace, NormalFormat::Csv, "time_s,count\n0,2\n0.00000001,0\n0.00000003,1.5\n");
        check(
            &trace,
            NormalFormat::Jsonl,
            "{\"time_ns\":0,\"count\":2}\n{\"time_ns\":10,\"count\":0}\n{\"time_ns\":30,\"count\":1.5}\n",
        );
    }
}
