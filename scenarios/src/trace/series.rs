//! The trace itself: request times, or counts per bin, both in nanoseconds from the trace's start.
//!
//! Values here are valid: sorted, finite, not empty. Reading lives in `import`, statistics in `describe`.

use super::{CalendarStart, TraceError, TraceFormat};

/// Most bins that a trace may span, empty ones included: 95 years of minutes, 1.6 years of seconds.
pub const BINS_MAX: u64 = 50_000_000;

/// A measured arrival process.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub source: Source,
    /// Calendar time of offset 0, where the file states one.
    pub start: Option<CalendarStart>,
    pub data: TraceData,
}

/// Where a trace came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Path or name, as given.
    pub name: String,
    pub format: TraceFormat,
    /// SHA-256 of the file's bytes in hexadecimal; `None` for rows handed in.
    pub sha256: Option<String>,
}

/// The two kinds of trace.
#[derive(Debug, Clone, PartialEq)]
pub enum TraceData {
    Timestamps(Timestamps),
    Counts(Counts),
}

/// One time per request, with what else the file tells about each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timestamps {
    /// Ascending; the first is 0.
    pub at_ns: Vec<u64>,
    /// The step of the file's clock: times below it carry no information.
    pub resolution_ns: u64,
    /// Execution time in seconds; NaN where the row has none.
    pub exec_s: Option<Vec<f32>>,
    /// Size in whatever the file counts (tokens, images); NaN where the row has none.
    pub size: Option<Vec<f32>>,
    pub region: Option<Labels>,
    pub class: Option<Labels>,
    /// The model that the request asked for.
    pub model: Option<Labels>,
}

/// A column of names, one small number per row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// In order of first appearance.
    pub names: Vec<String>,
    /// Index into `names`, one per row.
    pub ids: Vec<u16>,
}

impl Labels {
    /// Returns the name in `row`, or `None` past the end.
    #[must_use]
    pub fn name(&self, row: usize) -> Option<&str> {
        self.names.get(usize::from(*self.ids.get(row)?)).map(String::as_str)
    }
}

/// Requests per bin of equal width.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    bin_ns: u64,
    bin_count: u64,
    bins: Vec<(u64, f64)>,
    missing: Vec<u64>,
}

impl Counts {
    /// Makes a series of `bin_count` bins: those in `bins` hold their count, those in `missing` were not
    /// measured, all others hold 0. Both lists are ascending by index.
    ///
    /// # Panics
    /// When a list is not ascending, reaches past `bin_count`, or a count is not positive and finite.
    #[must_use]
    pub fn new(bin_ns: u64, bin_count: u64, bins: Vec<(u64, f64)>, missing: Vec<u64>) -> Self {
        assert!(bin_ns > 0, "a bin must have a width");
        assert!(
            bins.is_sorted_by(|a, b| a.0 < b.0) && missing.is_sorted_by(|a, b| a < b),
            "bins must ascend"
        );
        assert!(bins.last().is_none_or(|b| b.0 < bin_count) && missing.last().is_none_or(|m| *m < bin_count));
        assert!(bins.iter().all(|b| b.1 > 0.0 && b.1.is_finite()), "a count is positive and finite");
        Self { bin_ns, bin_count, bins, missing }
    }

    /// Width of a bin.
    #[must_use]
    pub fn bin_ns(&self) -> u64 {
        self.bin_ns
    }

    /// Number of bins from the first to the last, missing and empty ones included.
    #[must_use]
    pub fn bin_count(&self) -> u64 {
        self.bin_count
    }

    /// Index and count of each bin that is not empty, ascending.
    #[must_use]
    pub fn bins(&self) -> &[(u64, f64)] {
        &self.bins
    }

    /// Indices of the bins that were not measured, ascending.
    #[must_use]
    pub fn missing(&self) -> &[u64] {
        &self.missing
    }

    /// Requests in all measured bins.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.bins.iter().map(|b| b.1).sum()
    }

    /// Time covered by measured bins, s.
    #[must_use]
    pub fn measured_s(&self) -> f64 {
        (self.bin_count - self.missing.len() as u64) as f64 * self.bin_ns as f64 / 1e9
    }

    /// Every bin in order: its count, or `None` where it was not measured.
    pub fn dense(&self) -> impl Iterator<Item = Option<f64>> + '_ {
        let (mut bins, mut missing) = (self.bins.iter().peekable(), self.missing.iter().peekable());
        (0..self.bin_count).map(move |index| {
            if missing.next_if(|m| **m == index).is_some() {
                return None;
            }
            Some(bins.next_if(|b| b.0 == index).map_or(0.0, |b| b.1))
        })
    }

    /// Joins each `factor` bins into one. A wide bin with a missing part is missing; a last wide bin that
    /// would be cut short is left out, unless it is the only one.
    #[must_use]
    pub fn widened(&self, factor: u64) -> Self {
        assert!(factor > 0, "bins are joined by a positive factor");
        let bin_count = (self.bin_count / factor).max(1);
        let mut missing: Vec<u64> =
            self.missing.iter().map(|m| m / factor).filter(|m| *m < bin_count).collect();
        missing.dedup();
        let mut bins: Vec<(u64, f64)> = Vec::new();
        for &(index, count) in &self.bins {
            let wide = index / factor;
            if wide >= bin_count || missing.binary_search(&wide).is_ok() {
                continue;
            }
            match bins.last_mut() {
                Some(last) if last.0 == wide => last.1 += count,
                _ => bins.push((wide, count)),
            }
        }
        Self { bin_ns: self.bin_ns * factor, bin_count, bins, missing }
    }
}

impl Trace {
    /// Time from the first to the last request, or from the first bin's start to the last bin's end.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        match &self.data {
            TraceData::Timestamps(stamps) => stamps.at_ns.last().copied().unwrap_or(0),
            TraceData::Counts(counts) => counts.bin_count * counts.bin_ns,
        }
    }

    /// Requests in the trace; counts may be fractional where they are expectations.
    #[must_use]
    pub fn count(&self) -> f64 {
        match &self.data {
            TraceData::Timestamps(stamps) => stamps.at_ns.len() as f64,
            TraceData::Counts(counts) => counts.total(),
        }
    }

    /// Mean rate over the measured time, 1/s; 0 for a single request.
    #[must_use]
    pub fn rate_mean_per_s(&self) -> f64 {
        let measured_s = match &self.data {
            TraceData::Timestamps(_) => self.span_ns() as f64 / 1e9,
            TraceData::Counts(counts) => counts.measured_s(),
        };
        if measured_s > 0.0 { self.count() / measured_s } else { 0.0 }
    }

    /// The finest step that arrival statistics may use: the clock step of times, the width of a bin.
    #[must_use]
    pub fn resolution_ns(&self) -> u64 {
        match &self.data {
            TraceData::Timestamps(stamps) => stamps.resolution_ns,
            TraceData::Counts(counts) => counts.bin_ns,
        }
    }

    /// Cuts out `from_ns..to_ns`, which becomes offset 0 onwards; the bounds are widened to whole bins, and
    /// a trace of times starts at its first request in the range.
    ///
    /// # Errors
    /// [`TraceError::Empty`] when nothing lies in the range.
    pub fn window(&self, from_ns: u64, to_ns: u64) -> Result<Self, TraceError> {
        let empty = || TraceError::Empty { path: format!("{} (window)", self.source.name) };
        let (data, moved_ns) = match &self.data {
            TraceData::Timestamps(stamps) => {
                let from = stamps.at_ns.partition_point(|at| *at < from_ns);
                let to = stamps.at_ns.partition_point(|at| *at < to_ns);
                if from >= to {
                    return Err(empty());
                }
                (TraceData::Timestamps(stamps.rows(from, to)), stamps.at_ns[from])
            }
            TraceData::Counts(counts) => {
                let from = from_ns / counts.bin_ns;
                let to = to_ns.div_ceil(counts.bin_ns).min(counts.bin_count);
                let kept = counts.bins.iter().filter(|b| (from..to).contains(&b.0));
                let bins: Vec<_> = kept.map(|b| (b.0 - from, b.1)).collect();
                if bins.is_empty() {
                    return Err(empty());
                }
                let kept = counts.missing.iter().filter(|m| (from..to).contains(m));
                let missing = kept.map(|m| m - from).collect();
                (
                    TraceData::Counts(Counts::new(counts.bin_ns, to - from, bins, missing)),
                    from * counts.bin_ns,
                )
            }
        };
        let start = self.start.and_then(|s| s.shifted(moved_ns));
        Ok(Self { source: self.source.clone(), start, data })
    }
}

impl Timestamps {
    fn rows(&self, from: usize, to: usize) -> Self {
        let labels = |column: &Option<Labels>| {
            column.as_ref().map(|l| Labels { names: l.names.clone(), ids: l.ids[from..to].to_vec() })
        };
        let numbers = |column: &Option<Vec<f32>>| column.as_ref().map(|c| c[from..to].to_vec());
        Self {
            at_ns: self.at_ns[from..to].iter().map(|at| at - self.at_ns[from]).collect(),
            resolution_ns: self.resolution_ns,
            exec_s: numbers(&self.exec_s),
            size: numbers(&self.size),
            region: labels(&self.region),
            class: labels(&self.class),
            model: labels(&self.model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        Counts::new(10, 7, vec![(0, 1.0), (2, 3.0), (5, 2.0), (6, 4.0)], vec![3])
    }

    fn trace(data: TraceData) -> Trace {
        let source = Source { name: "t".into(), format: TraceFormat::Rows, sha256: None };
        Trace { source, start: None, data }
    }

    #[test]
    fn missing_bins_are_not_zero() {
        let dense: Vec<_> = counts().dense().collect();
        let expected = [Some(1.0), Some(0.0), Some(3.0), None, Some(0.0), Some(2.0), Some(4.0)];
        assert_eq!(dense, expected);
        assert!((counts().measured_s() - 60e-9).abs() < 1e-18);
    }

    #[test]
    fn widened_bins_keep_gaps_and_drop_the_cut_end() {
        let wide = counts().widened(2);
        assert_eq!(wide.dense().collect::<Vec<_>>(), [Some(1.0), None, Some(2.0)]);
        assert_eq!(wide.bin_ns(), 20);
    }

    #[test]
    fn window_starts_at_zero_again() {
        let cut = trace(TraceData::Counts(counts())).window(15, 55).unwrap();
        let TraceData::Counts(cut) = cut.data else { panic!("counts stay counts") };
        assert_eq!(cut.dense().collect::<Vec<_>>(), [Some(0.0), Some(3.0), None, Some(0.0), Some(2.0)]);
        let class = Labels { names: vec!["a".into(), "b".into()], ids: vec![0, 1, 0, 1] };
        let stamps = Timestamps {
            at_ns: vec![0, 5, 9, 20],
            resolution_ns: 1,
            class: Some(class),
            ..Timestamps::default()
        };
        let whole = trace(TraceData::Timestamps(stamps));
        let TraceData::Timestamps(cut) = whole.window(5, 20).unwrap().data else {
            panic!("times stay times")
        };
        assert_eq!(cut.at_ns, [0, 4]);
        assert_eq!(cut.class.unwrap().name(0), Some("b"));
        assert!(matches!(whole.window(10, 20), Err(TraceError::Empty { .. })));
    }
}
