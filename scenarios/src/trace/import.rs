//! Reads a trace file in any of the known formats, streaming, into a [`Trace`].
//!
//! Spot files are no arrival traces; they have their own readers (`availability`, `prices`, `advisor`).

use std::borrow::Cow;
use std::io::{BufRead, Read};
use std::path::Path;

use super::calendar::Calendar;
use super::gather::{Gather, Known};
use super::input::Input;
use super::mapping::{find_column, missing_column};
use super::{ClientRates, Mapping, Row, Source, TimeUnit, Trace, TraceError, TraceFormat};

/// Most rows that are held one by one (0.4 GB of times): more must be counted per bin.
pub const ROWS_MAX: u64 = 50_000_000;

/// Longest line of a JSON-lines trace.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// How to read a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// Reads the file as plain CSV or JSON lines with these columns, whatever it looks like.
    pub mapping: Option<Mapping>,
    /// Counts requests per bin of this width while they stream, in memory that does not grow with rows;
    /// joins the bins of a trace of counts.
    pub bin_ns: Option<u64>,
    /// Width of the bins of a plain trace of counts; without it the most common step between rows.
    pub count_bin_ns: Option<u64>,
    /// Accepts rows of a plain trace in any order.
    pub sort: bool,
    /// Most rows to hold, at most `u32::MAX`.
    pub rows_max: u64,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { mapping: None, bin_ns: None, count_bin_ns: None, sort: false, rows_max: ROWS_MAX }
    }
}

impl ImportOptions {
    fn check(&self) -> Result<(), TraceError> {
        if self.bin_ns == Some(0) || self.count_bin_ns == Some(0) {
            let (name, value) = ("bin width", "0".to_owned());
            return Err(TraceError::BadOption { name, value, expected: "longer than 0" });
        }
        if self.rows_max == 0 || self.rows_max > u64::from(u32::MAX) {
            let value = self.rows_max.to_string();
            return Err(TraceError::BadOption { name: "row limit", value, expected: "in 1..=4294967295" });
        }
        Ok(())
    }
}

/// A time and a value per row, or a time alone: what a known CSV format says about its columns.
struct Layout<'m> {
    time: &'m str,
    unit: TimeUnit,
    count: Option<&'m str>,
    exec_s: Option<&'m str>,
    /// Columns whose sum is the size.
    size: &'m [&'m str],
    region: Option<&'m str>,
    class: Option<&'m str>,
    model: Option<&'m str>,
    known: Known,
}

impl Layout<'_> {
    const DATETIME: Layout<'static> = Layout {
        time: "timestamp",
        unit: TimeUnit::Datetime,
        count: None,
        exec_s: None,
        size: &[],
        region: None,
        class: None,
        model: None,
        known: Known { bin_ns: None, resolution_ns: None, any_order: false },
    };
}

const SECOND_NS: u64 = 1_000_000_000;

impl Trace {
    /// Reads the trace in `path`, gzipped or not; its format is told from its content.
    ///
    /// A table of ServeGen clients becomes expected counts per window (see [`ClientRates::counts`]); to draw
    /// its requests with the burstiness of each client, use [`ClientRates`] itself.
    ///
    /// # Errors
    /// Any [`TraceError`] of reading, naming file, line, column and value.
    pub fn import(path: &Path, options: &ImportOptions) -> Result<Self, TraceError> {
        options.check()?;
        let input = Input::open(path)?;
        let format = format_of(&input, options)?;
        let layout = match format {
            TraceFormat::AlibabaGenai => Layout {
                time: "gmt_create",
                exec_s: Some("exec_time_seconds"),
                size: &["num_images_per_prompt"],
                class: Some("predict_type"),
                model: Some("checkpoint_model_version_id"),
                known: Known { resolution_ns: Some(SECOND_NS), any_order: true, ..Known::default() },
                ..Layout::DATETIME
            },
            TraceFormat::AzureLlm => Layout {
                time: "TIMESTAMP",
                size: &["ContextTokens", "GeneratedTokens"],
                known: Known { resolution_ns: Some(100), any_order: true, ..Known::default() },
                ..Layout::DATETIME
            },
            TraceFormat::WorldCup => Layout {
                time: "period",
                count: Some("count"),
                known: Known { bin_ns: Some(60 * SECOND_NS), any_order: true, ..Known::default() },
                ..Layout::DATETIME
            },
            TraceFormat::NabCounts => Layout {
                count: Some("value"),
                known: Known { bin_ns: Some(300 * SECOND_NS), any_order: true, ..Known::default() },
                ..Layout::DATETIME
            },
            TraceFormat::ServegenClients => return ClientRates::from_input(input)?.counts(options),
            TraceFormat::Csv | TraceFormat::Jsonl => return import_mapped(input, format, options),
            TraceFormat::SpotAvailability
            | TraceFormat::SpotPrices
            | TraceFormat::SpotAdvisor
            | TraceFormat::Rows => {
                let wanted = "a trace of requests; name it where spot capacity or prices are asked for";
                return Err(TraceError::WrongKind { path: input.path, found: format.to_string(), wanted });
            }
        };
        import_csv(input, format, &layout, options)
    }

    /// Makes a trace of rows that another reader hands in (Parquet, a database). All rows hold a count, or
    /// none does. `calendar_utc` says that times are nanoseconds since 1970 UTC.
    ///
    /// # Errors
    /// As [`Trace::import`]; "line" is the row's number from 1.
    pub fn from_rows<'r>(
        name: &str,
        rows: impl IntoIterator<Item = Row<'r>>,
        calendar_utc: bool,
        options: &ImportOptions,
    ) -> Result<Self, TraceError> {
        options.check()?;
        let mut gather = Gather::new(name, options, Known::default());
        for (row, number) in rows.into_iter().zip(1..) {
            gather.push(&row, number, &row.at_ns.to_string())?;
        }
        let source = Source { name: name.to_owned(), format: TraceFormat::Rows, sha256: None };
        gather.finish(source, if calendar_utc { Calendar::Utc } else { Calendar::Unknown })
    }
}

/// Tells the format of an opened file; a mapping settles it.
fn format_of(input: &Input, options: &ImportOptions) -> Result<TraceFormat, TraceError> {
    let head = &input.head;
    let text = String::from_utf8_lossy(head);
    let found: String = text.lines().next().unwrap_or("").chars().take(60).collect();
    let unknown = |remedy: &str| {
        Err(TraceError::UnknownFormat {
            path: input.path.clone(),
            found: found.clone(),
            remedy: remedy.to_owned(),
        })
    };
    if head.iter().all(u8::is_ascii_whitespace) {
        return Err(TraceError::Empty { path: input.path.clone() });
    }
    if head.starts_with(b"PAR1") {
        return unknown("Parquet files are read as rows by `headroom trace import`");
    }
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) || head.contains(&0) {
        return unknown("it is binary or UTF-16; convert it to UTF-8 CSV or JSON lines");
    }
    let detected = TraceFormat::detect(head);
    if options.mapping.is_some() {
        let braced = text.trim_start_matches('\u{feff}').trim_start().starts_with('{');
        return Ok(if braced { TraceFormat::Jsonl } else { TraceFormat::Csv });
    }
    match detected {
        None | Some(TraceFormat::Jsonl) => {
            unknown("name its time column, and its count column if it has counts")
        }
        Some(format) => Ok(format),
    }
}

fn import_mapped(input: Input, format: TraceFormat, options: &ImportOptions) -> Result<Trace, TraceError> {
    let mapping = options.mapping.as_ref().expect("plain formats are chosen by a mapping only");
    let size: Vec<&str> = mapping.size.as_deref().into_iter().collect();
    let layout = Layout {
        time: &mapping.time,
        unit: mapping.time_unit,
        count: mapping.count.as_deref(),
        exec_s: mapping.exec_s.as_deref(),
        size: &size,
        region: mapping.region.as_deref(),
        class: mapping.class.as_deref(),
        ..Layout::DATETIME
    };
    match format {
        TraceFormat::Jsonl => import_jsonl(input, &layout, options),
        _ => import_csv(input, format, &layout, options),
    }
}

/// Parses fields of one row, naming the place when one is wrong.
struct Place<'p> {
    path: &'p str,
    line: u64,
}

impl Place<'_> {
    fn bad(&self, column: &str, value: &str, expected: &'static str, remedy: &str) -> TraceError {
        TraceError::BadValue {
            path: self.path.to_owned(),
            line: self.line,
            column: column.to_owned(),
            value: value.to_owned(),
            expected,
            remedy: remedy.to_owned(),
        }
    }

    fn time(&self, layout: &Layout<'_>, value: &str) -> Result<(i64, Calendar), TraceError> {
        let (expected, remedy) = match layout.unit {
            TimeUnit::Datetime => (
                "a calendar time such as 2024-11-15T16:57:50Z",
                "repair the row, or name the unit of the numbers",
            ),
            _ => (
                "a number of the named time unit",
                "repair the row, or name the unit (s, ms, us, ns, datetime)",
            ),
        };
        layout.unit.parse(value).ok_or_else(|| self.bad(layout.time, value, expected, remedy))
    }

    fn count(&self, column: &str, value: &str) -> Result<f64, TraceError> {
        let count = value.trim().parse::<f64>().ok().filter(|c| c.is_finite() && *c >= 0.0);
        let remedy = "repair the row, or leave it out to mark its bin as missing";
        count.ok_or_else(|| self.bad(column, value, "a count of requests (finite, 0 or more)", remedy))
    }

    /// A number that may be absent (an empty field).
    fn number(&self, column: &str, value: &str) -> Result<Option<f64>, TraceError> {
        if value.trim().is_empty() {
            return Ok(None);
        }
        let number = value.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
        let remedy = "repair the row, or leave the column out";
        number.map(Some).ok_or_else(|| self.bad(column, value, "a number, 0 or more, or nothing", remedy))
    }
}

fn import_csv(
    mut input: Input,
    format: TraceFormat,
    layout: &Layout<'_>,
    options: &ImportOptions,
) -> Result<Trace, TraceError> {
    let path = input.path.clone();
    let mut gather = Gather::new(&path, options, layout.known);
    let mut calendar = Calendar::Unknown;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(&mut input.body);
    let header = reader.headers().map_err(|e| TraceError::from_csv(&path, e))?.clone();
    let header: Vec<&str> = header.iter().collect();
    let column = |name: &str| find_column(&path, &header, name);
    let optional = |name: Option<&str>| name.map(column).transpose();
    let time = column(layout.time)?;
    let (count, exec_s) = (optional(layout.count)?, optional(layout.exec_s)?);
    let (region, class, model) = (optional(layout.region)?, optional(layout.class)?, optional(layout.model)?);
    let size = layout.size.iter().map(|name| column(name)).collect::<Result<Vec<_>, _>>()?;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| TraceError::from_csv(&path, e))? {
        let place = Place { path: &path, line: record.position().map_or(0, csv::Position::line) };
        let field = |index: usize| record.get(index).unwrap_or("");
        let label = |index: Option<usize>| index.map(|i| Cow::Borrowed(field(i)));
        let (at_ns, seen) = place.time(layout, field(time))?;
        calendar = seen;
        let mut row = Row { at_ns, ..Row::default() };
        row.count = count.map(|i| place.count(header[i], field(i))).transpose()?;
        if let Some(i) = exec_s {
            row.exec_s = place.number(header[i], field(i))?;
        }
        for &i in &size {
            row.size = place.number(header[i], field(i))?.map(|n| n + row.size.unwrap_or(0.0)).or(row.size);
        }
        (row.region, row.class, row.model) = (label(region), label(class), label(model));
        gather.push(&row, place.line, field(time))?;
    }
    drop(reader);
    let (sha256, _) = input.finish()?;
    gather.finish(Source { name: path, format, sha256: Some(sha256) }, calendar)
}

fn import_jsonl(mut input: Input, layout: &Layout<'_>, options: &ImportOptions) -> Result<Trace, TraceError> {
    let path = input.path.clone();
    let mut gather = Gather::new(&path, options, layout.known);
    let mut calendar = Calendar::Unknown;
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read = input.body.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
        let malformed = |detail: String| TraceError::Malformed { path: path.clone(), line: number, detail };
        match read {
            Ok(0) => break,
            Ok(read) if read as u64 == LINE_BYTES_MAX => {
                return Err(malformed(format!(
                    "the line is longer than {LINE_BYTES_MAX} bytes; is it JSON lines?"
                )));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(malformed("the line is not UTF-8; convert the file".to_owned()));
            }
            Err(e) => return Err(TraceError::from_io(&path, e)),
        }
        let text = line.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            continue;
        }
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
            .map_err(|e| malformed(format!("not a JSON object ({e}); repair the line")))?;
        let place = Place { path: &path, line: number };
        let (row, shown, seen) = row_of_object(&object, layout, &place)?;
        calendar = seen;
        gather.push(&row, number, &shown)?;
    }
    let (sha256, _) = input.finish()?;
    gather.finish(Source { name: path, format: TraceFormat::Jsonl, sha256: Some(sha256) }, calendar)
}

fn row_of_object(
    object: &serde_json::Map<String, serde_json::Value>,
    layout: &Layout<'_>,
    place: &Place<'_>,
) -> Result<(Row<'static>, String, Calendar), TraceError> {
    let text = |key: &str| match object.get(key) {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    let missing = |key: &str| {
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        match missing_column(place.path, &keys, key) {
            TraceError::MissingColumn { path, remedy, .. } if !object.contains_key(key) => {
                TraceError::Malformed {
                    path,
                    line: place.line,
                    detail: format!("the object has no key `{key}`; {remedy}"),
                }
            }
            _ => place.bad(key, "null", "a value", "repair the line"),
        }
    };
    let required = |key: &str| text(key).ok_or_else(|| missing(key));
    let shown = required(layout.time)?;
    let (at_ns, calendar) = place.time(layout, &shown)?;
    let mut row = Row { at_ns, ..Row::default() };
    row.count = layout.count.map(|key| place.count(key, &required(key)?)).transpose()?;
    let number = |key: &str| place.number(key, &text(key).unwrap_or_default());
    if let Some(key) = layout.exec_s {
        row.exec_s = number(key)?;
    }
    for key in layout.size {
        row.size = number(key)?;
    }
    row.region = layout.region.and_then(text).map(Cow::Owned);
    row.class = layout.class.and_then(text).map(Cow::Owned);
    Ok((row, shown, calendar))
}
