//! Gathers rows into a trace as they stream in: one by one, or counted per bin without memory per row.

use std::collections::BTreeMap;

use super::calendar::Calendar;
use super::series::BINS_MAX;
use super::{Counts, ImportOptions, Labels, Row, Source, Timestamps, Trace, TraceData, TraceError};

/// Most distinct names in one column.
const LABELS_MAX: usize = 1 << 16;

/// What the format fixes and the rows cannot tell.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// Width of a bin of counts.
    pub(super) bin_ns: Option<u64>,
    /// Step of the clock of timestamps.
    pub(super) resolution_ns: Option<u64>,
    /// Rows may come in any order and are sorted.
    pub(super) any_order: bool,
}

/// A trace in the making.
pub(super) struct Gather<'o> {
    path: String,
    options: &'o ImportOptions,
    known: Known,
    rows: u64,
    last_ns: i64,
    kept: Kept,
}

enum Kept {
    Nothing,
    Stamps(Box<Columns>),
    /// Time, count and line of each row.
    Counts(Vec<(i64, f64, u64)>),
    Binned(Binned),
}

impl<'o> Gather<'o> {
    pub(super) fn new(path: &str, options: &'o ImportOptions, known: Known) -> Self {
        let known = Known { any_order: known.any_order || options.sort, ..known };
        Self { path: path.to_owned(), options, known, rows: 0, last_ns: i64::MIN, kept: Kept::Nothing }
    }

    /// Takes the row of `line`; `shown` is its time as the file has it, for messages.
    pub(super) fn push(&mut self, row: &Row<'_>, line: u64, shown: &str) -> Result<(), TraceError> {
        if row.at_ns < self.last_ns && !self.known.any_order {
            return Err(TraceError::Unsorted { path: self.path.clone(), line, value: shown.to_owned() });
        }
        self.last_ns = row.at_ns;
        self.rows += 1;
        if matches!(self.kept, Kept::Nothing) {
            self.kept = match (row.count, self.options.bin_ns) {
                (Some(_), _) => Kept::Counts(Vec::new()),
                (None, Some(bin_ns)) => Kept::Binned(Binned::new(bin_ns, row.at_ns)),
                (None, None) => Kept::Stamps(Box::default()),
            };
        }
        match &mut self.kept {
            Kept::Binned(binned) => return binned.push(row.at_ns, &self.path),
            _ if self.rows > self.options.rows_max => {
                return Err(TraceError::TooManyRows {
                    path: self.path.clone(),
                    limit: self.options.rows_max,
                });
            }
            Kept::Counts(rows) => {
                let count = row.count.filter(|c| c.is_finite() && *c >= 0.0);
                let count = count.ok_or_else(|| bad_count(&self.path, line, row.count))?;
                rows.push((row.at_ns, count, line));
            }
            Kept::Stamps(columns) => columns.push(row, line, &self.path)?,
            Kept::Nothing => unreachable!("set above"),
        }
        Ok(())
    }

    /// Closes the trace. `calendar` tells whether the times are calendar times.
    pub(super) fn finish(self, source: Source, calendar: Calendar) -> Result<Trace, TraceError> {
        let (start_ns, data) = match self.kept {
            Kept::Nothing => return Err(TraceError::Empty { path: self.path }),
            Kept::Stamps(columns) => {
                let (start, stamps) = columns.finish(self.known.any_order, self.known.resolution_ns);
                (start, TraceData::Timestamps(stamps))
            }
            Kept::Binned(binned) => {
                let (start, counts) = binned.finish(&self.path)?;
                (start, TraceData::Counts(counts))
            }
            Kept::Counts(rows) => {
                let bin_ns = self.options.count_bin_ns.or(self.known.bin_ns);
                let (start, counts) = counts_of(rows, bin_ns, &self.path)?;
                (start, TraceData::Counts(widened(counts, self.options.bin_ns)?))
            }
        };
        Ok(Trace { source, start: calendar.name(start_ns), data })
    }
}

fn bad_count(path: &str, line: u64, count: Option<f64>) -> TraceError {
    TraceError::BadValue {
        path: path.to_owned(),
        line,
        column: "count".to_owned(),
        value: count.map_or_else(|| "(absent)".to_owned(), |c| c.to_string()),
        expected: "a count of requests (finite, 0 or more)",
        remedy: "repair the row, or leave it out to mark its bin as missing".to_owned(),
    }
}

/// Joins counts to bins of `bin_ns`, which must be a multiple of their own.
fn widened(counts: Counts, bin_ns: Option<u64>) -> Result<Counts, TraceError> {
    match bin_ns {
        None => Ok(counts),
        Some(bin_ns) if bin_ns > 0 && bin_ns.is_multiple_of(counts.bin_ns()) => {
            Ok(counts.widened(bin_ns / counts.bin_ns()))
        }
        Some(bin_ns) => Err(TraceError::BadOption {
            name: "bin width",
            value: format!("{} s", bin_ns as f64 / 1e9),
            expected: "a multiple of the width of the trace's own bins",
        }),
    }
}

/// Lays rows of counts on a grid. Without a width, the most common step between rows is taken.
fn counts_of(
    mut rows: Vec<(i64, f64, u64)>,
    bin_ns: Option<u64>,
    path: &str,
) -> Result<(i64, Counts), TraceError> {
    rows.sort_by_key(|r| r.0);
    let start = rows[0].0;
    let bin_ns = match bin_ns {
        Some(bin_ns) => bin_ns,
        None => common_step(&rows).ok_or_else(|| TraceError::BinUnknown { path: path.to_owned() })?,
    };
    let mut bins: Vec<(u64, f64)> = Vec::with_capacity(rows.len());
    let mut missing = Vec::new();
    for (at, count, line) in rows {
        let offset = at.abs_diff(start);
        if !offset.is_multiple_of(bin_ns) {
            let (offset_s, bin_s) = (offset as f64 / 1e9, bin_ns as f64 / 1e9);
            return Err(TraceError::BinMisfit { path: path.to_owned(), line, offset_s, bin_s });
        }
        let index = offset / bin_ns;
        check_bins(index + 1, bin_ns, path)?;
        match bins.last_mut() {
            Some(last) if last.0 == index => last.1 += count,
            last => {
                missing.extend(last.map_or(0, |l| l.0 + 1)..index);
                bins.push((index, count));
            }
        }
    }
    let bin_count = bins.last().map_or(0, |b| b.0 + 1);
    bins.retain(|b| b.1 > 0.0);
    if bins.is_empty() {
        return Err(TraceError::NoRequests { path: path.to_owned() });
    }
    Ok((start, Counts::new(bin_ns, bin_count, bins, missing)))
}

fn common_step(rows: &[(i64, f64, u64)]) -> Option<u64> {
    let mut steps: BTreeMap<u64, u64> = BTreeMap::new();
    for pair in rows.windows(2).filter(|p| p[0].0 < p[1].0) {
        *steps.entry(pair[1].0.abs_diff(pair[0].0)).or_default() += 1;
    }
    steps.into_iter().max_by_key(|(step, seen)| (*seen, std::cmp::Reverse(*step))).map(|(step, _)| step)
}

fn check_bins(bins: u64, bin_ns: u64, path: &str) -> Result<(), TraceError> {
    if bins <= BINS_MAX {
        return Ok(());
    }
    Err(TraceError::TooManyBins { path: path.to_owned(), bins, bin_s: bin_ns as f64 / 1e9, limit: BINS_MAX })
}

/// Requests counted per bin while they stream; bins start at the first row read.
struct Binned {
    bin_ns: u64,
    anchor_ns: i64,
    full: BTreeMap<i64, u64>,
    /// The bin being counted, kept out of the map because most rows fall in it.
    current: (i64, u64),
}

impl Binned {
    fn new(bin_ns: u64, anchor_ns: i64) -> Self {
        Self { bin_ns, anchor_ns, full: BTreeMap::new(), current: (0, 0) }
    }

    fn push(&mut self, at_ns: i64, path: &str) -> Result<(), TraceError> {
        let offset = i128::from(at_ns) - i128::from(self.anchor_ns);
        let bin = offset.div_euclid(i128::from(self.bin_ns));
        check_bins(u64::try_from(bin.unsigned_abs()).unwrap_or(u64::MAX), self.bin_ns, path)?;
        let bin = bin as i64;
        if bin != self.current.0 {
            self.flush();
            self.current = (bin, 0);
        }
        self.current.1 += 1;
        Ok(())
    }

    fn flush(&mut self) {
        if self.current.1 > 0 {
            *self.full.entry(self.current.0).or_default() += self.current.1;
        }
    }

    fn finish(mut self, path: &str) -> Result<(i64, Counts), TraceError> {
        self.flush();
        let first = self.full.first_key_value().map_or(0, |b| *b.0);
        let last = self.full.last_key_value().map_or(0, |b| *b.0);
        check_bins(last.abs_diff(first) + 1, self.bin_ns, path)?;
        let bins = self.full.iter().map(|(bin, count)| (bin.abs_diff(first), *count as f64)).collect();
        let start = self.anchor_ns.saturating_add(first.saturating_mul(self.bin_ns as i64));
        Ok((start, Counts::new(self.bin_ns, last.abs_diff(first) + 1, bins, Vec::new())))
    }
}

/// Columns of a trace of timestamps while they grow.
#[derive(Default)]
struct Columns {
    at_ns: Vec<i64>,
    exec_s: Vec<f32>,
    size: Vec<f32>,
    region: Dictionary,
    class: Dictionary,
    model: Dictionary,
}

#[derive(Default)]
struct Dictionary {
    labels: Labels,
    index: BTreeMap<String, u16>,
}

impl Columns {
    fn push(&mut self, row: &Row<'_>, line: u64, path: &str) -> Result<(), TraceError> {
        let before = self.at_ns.len();
        self.at_ns.push(row.at_ns);
        push_number(&mut self.exec_s, row.exec_s, before);
        push_number(&mut self.size, row.size, before);
        for (dictionary, value, column) in [
            (&mut self.region, &row.region, "region"),
            (&mut self.class, &row.class, "class"),
            (&mut self.model, &row.model, "model"),
        ] {
            dictionary.push(value.as_deref(), before).ok_or_else(|| TraceError::TooManyLabels {
                path: path.to_owned(),
                line,
                column: column.to_owned(),
                limit: LABELS_MAX,
            })?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, sort: bool, resolution_ns: Option<u64>) -> (i64, Timestamps) {
        if sort && !self.at_ns.is_sorted() {
            let mut order: Vec<u32> = (0..self.at_ns.len() as u32).collect();
            order.sort_by_key(|row| self.at_ns[*row as usize]); // stable: rows of one time keep their order
            self.at_ns = permuted(&self.at_ns, &order);
            self.exec_s = permuted(&self.exec_s, &order);
            self.size = permuted(&self.size, &order);
            for column in [&mut self.region, &mut self.class, &mut self.model] {
                column.labels.ids = permuted(&column.labels.ids, &order);
            }
        }
        let start = self.at_ns[0];
        let at_ns: Vec<u64> = self.at_ns.iter().map(|at| at.abs_diff(start)).collect();
        let numbers = |column: Vec<f32>| (!column.is_empty()).then_some(column);
        let labels = |column: Dictionary| (!column.labels.ids.is_empty()).then_some(column.labels);
        let stamps = Timestamps {
            resolution_ns: resolution_ns.unwrap_or_else(|| clock_step(&at_ns)),
            at_ns,
            exec_s: numbers(self.exec_s),
            size: numbers(self.size),
            region: labels(self.region),
            class: labels(self.class),
            model: labels(self.model),
        };
        (start, stamps)
    }
}

/// Reorders a column; one that was never filled stays empty.
fn permuted<T: Copy>(column: &[T], order: &[u32]) -> Vec<T> {
    if column.is_empty() { Vec::new() } else { order.iter().map(|row| column[*row as usize]).collect() }
}

/// Appends to an optional column: it stays empty until the first value, then holds one entry per row.
fn push_number(column: &mut Vec<f32>, value: Option<f64>, rows_before: usize) {
    if value.is_none() && column.is_empty() {
        return;
    }
    column.resize(rows_before, f32::NAN);
    column.push(value.map_or(f32::NAN, |v| v as f32));
}

impl Dictionary {
    /// Returns `None` when there are too many names. Rows without a name get the empty one.
    fn push(&mut self, value: Option<&str>, rows_before: usize) -> Option<()> {
        if value.is_none() && self.labels.ids.is_empty() {
            return Some(());
        }
        if self.labels.ids.len() < rows_before {
            let unnamed = self.id("")?;
            self.labels.ids.resize(rows_before, unnamed);
        }
        let id = self.id(value.unwrap_or(""))?;
        self.labels.ids.push(id);
        Some(())
    }

    fn id(&mut self, name: &str) -> Option<u16> {
        if let Some(id) = self.index.get(name) {
            return Some(*id);
        }
        let id = u16::try_from(self.labels.names.len()).ok()?;
        self.labels.names.push(name.to_owned());
        self.index.insert(name.to_owned(), id);
        Some(id)
    }
}

/// Rows from which a step of whole minutes is believed: fewer may fall on minutes by chance.
const ROWS_FOR_MINUTES: usize = 100;

/// The coarsest clock step that all times are multiples of.
fn clock_step(at_ns: &[u64]) -> u64 {
    let mut common = 0u64;
    for &at in at_ns {
        let mut rest = at;
        while rest != 0 {
            (common, rest) = (rest, common % rest);
        }
    }
    const MINUTE_NS: u64 = 60_000_000_000;
    if at_ns.len() >= ROWS_FOR_MINUTES && common.is_multiple_of(MINUTE_NS) {
        return MINUTE_NS;
    }
    (0..=9).rev().map(|power| 10u64.pow(power)).find(|step| common.is_multiple_of(*step)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_step_is_the_coarsest_that_fits() {
        let check = |at: &[u64], expected| assert_eq!(clock_step(at), expected, "{at:?}");
        check(&[0, 3_000_000_000, 5_000_000_000], 1_000_000_000);
        check(&[0, 4_314_579_000], 1_000);
        check(&[0, 4_314_579_100], 100);
        check(&[0, 7], 1);
        let minutes: Vec<u64> = (0..100).map(|m| m * 60_000_000_000).collect();
        check(&minutes, 60_000_000_000);
        check(&minutes[..50], 1_000_000_000);
    }
}
