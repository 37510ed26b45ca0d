//! ServeGen client tables: per client and window a rate and a law of gaps, from which requests are drawn.
//!
//! Source: Xiang et al., "ServeGen: Workload Characterization and Generation of Large Language Model
//! Serving in Production", and the tables of alibaba/ServeGen @ f891d118. No source of chance lives here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

use super::calendar::{Calendar, parse_decimal};
use super::gather::{Gather, Known};
use super::input::Input;
use super::mapping::find_column;
use super::random::{Exponential, gamma, uniform};
use super::{ImportOptions, RandomSource, Row, Source, Trace, TraceError, TraceFormat};

/// Width of a window, s (the publisher's chunk length).
const WINDOW_S: u64 = 600;
const WINDOW_NS: u64 = WINDOW_S * 1_000_000_000;
/// Most windows of one client: 19 years of 600 s.
const WINDOWS_MAX: u64 = 1_000_000;

/// Law of the gaps between the requests of one client in one window, scaled to mean 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GapLaw {
    Gamma { shape: f64 },
    Weibull { shape: f64 },
}

/// One window of one client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClientWindow {
    /// Mean requests per second.
    pub rate_per_s: f64,
    /// Coefficient of variation of the gaps as published.
    pub cv: f64,
    /// `None` where the rate is 0.
    pub law: Option<GapLaw>,
}

/// A table of clients, each with one window per 600 s from the start.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientRates {
    pub source: Source,
    /// Windows per client, in order of client id; all clients have as many.
    pub clients: Vec<Vec<ClientWindow>>,
}

const IDLE: ClientWindow = ClientWindow { rate_per_s: 0.0, cv: 0.0, law: None };

impl ClientRates {
    /// Reads a client table, gzipped or not.
    ///
    /// # Errors
    /// Any [`TraceError`] of reading.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let input = Input::open(path)?;
        match TraceFormat::detect(&input.head) {
            Some(TraceFormat::ServegenClients) => Self::from_input(input),
            found => Err(TraceError::WrongKind {
                path: input.path,
                found: found.map_or_else(|| "in no known format".to_owned(), |f| f.to_string()),
                wanted: "a table of client rates (client_id, window_start_s, rate_rps, cv, pattern, param1)",
            }),
        }
    }

    pub(super) fn from_input(mut input: Input) -> Result<Self, TraceError> {
        let path = input.path.clone();
        let mut table: BTreeMap<String, Vec<ClientWindow>> = BTreeMap::new();
        let mut reader = csv::Reader::from_reader(&mut input.body);
        let header = reader.headers().map_err(|e| TraceError::from_csv(&path, e))?.clone();
        let header: Vec<&str> = header.iter().collect();
        let column = |name: &str| find_column(&path, &header, name);
        let (id, start, rate) = (column("client_id")?, column("window_start_s")?, column("rate_rps")?);
        let (cv, pattern, shape) = (column("cv")?, column("pattern")?, column("param1")?);
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|e| TraceError::from_csv(&path, e))? {
            let line = record.position().map_or(0, csv::Position::line);
            let bad = |column: usize, expected| TraceError::BadValue {
                path: path.clone(),
                line,
                column: header[column].to_owned(),
                value: record[column].to_owned(),
                expected,
                remedy: "repair the row".to_owned(),
            };
            let number = |column: usize| {
                let number = record[column].trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
                number.ok_or_else(|| bad(column, "a number, 0 or more"))
            };
            let start_ns = parse_decimal(&record[start], 9).and_then(|ns| u64::try_from(ns).ok());
            let window = start_ns.filter(|ns| ns.is_multiple_of(WINDOW_NS) && ns / WINDOW_NS < WINDOWS_MAX);
            let window = window.ok_or_else(|| bad(start, "a multiple of the 600 s window below 19 years"))?;
            let window = (window / WINDOW_NS) as usize;
            let rate_per_s = number(rate)?;
            let law = match (rate_per_s > 0.0, &record[pattern]) {
                (false, _) => None,
                (true, "Gamma" | "Weibull") if number(shape)? <= 0.0 => {
                    return Err(bad(shape, "a positive shape"));
                }
                (true, "Gamma") => Some(GapLaw::Gamma { shape: number(shape)? }),
                (true, "Weibull") => Some(GapLaw::Weibull { shape: number(shape)? }),
                (true, _) => return Err(bad(pattern, "Gamma or Weibull, where the rate is above 0")),
            };
            let windows = table.entry(record[id].to_owned()).or_default();
            windows.resize(windows.len().max(window + 1), IDLE);
            windows[window] = ClientWindow { rate_per_s, cv: number(cv)?, law };
        }
        drop(reader);
        let (sha256, _) = input.finish()?;
        let source =
            Source { name: path.clone(), format: TraceFormat::ServegenClients, sha256: Some(sha256) };
        let mut clients: Vec<(String, Vec<ClientWindow>)> = table.into_iter().collect();
        clients.sort_by(|a, b| (a.0.len(), &a.0).cmp(&(b.0.len(), &b.0))); // client 2 before client 10
        let mut clients: Vec<_> = clients.into_iter().map(|c| c.1).collect();
        let window_count = clients.iter().map(Vec::len).max().ok_or(TraceError::Empty { path })?;
        clients.iter_mut().for_each(|windows| windows.resize(window_count, IDLE));
        Ok(Self { source, clients })
    }

    /// Windows of 600 s that the table spans.
    #[must_use]
    pub fn window_count(&self) -> usize {
        self.clients.first().map_or(0, Vec::len)
    }

    /// Expected requests of all clients together per window. Loses what the clients say about gaps: drawn
    /// from these counts, arrivals inside a window are as regular as a Poisson process.
    ///
    /// # Errors
    /// [`TraceError::NoRequests`] when all rates are 0, and errors of the options.
    pub fn counts(&self, options: &ImportOptions) -> Result<Trace, TraceError> {
        let mut gather =
            Gather::new(&self.source.name, options, Known { bin_ns: Some(WINDOW_NS), ..Known::default() });
        for window in 0..self.window_count() {
            let rate: f64 = self.clients.iter().map(|c| c[window].rate_per_s).sum();
            let at_ns = (window as u64 * WINDOW_NS) as i64; // below WINDOWS_MAX windows
            let row = Row { at_ns, count: Some(rate * WINDOW_S as f64), ..Row::default() };
            gather.push(&row, window as u64 + 1, &at_ns.to_string())?;
        }
        gather.finish(self.source.clone(), Calendar::Unknown)
    }

    /// Mean of the published CVs of gaps, each window weighted by its rate.
    #[must_use]
    pub fn gap_cv_weighted(&self) -> f64 {
        let windows = || self.clients.iter().flatten();
        let rate: f64 = windows().map(|w| w.rate_per_s).sum();
        windows().map(|w| w.rate_per_s * w.cv).sum::<f64>() / rate
    }

    /// Draws the requests of all clients in order of time, in memory of one entry per client.
    ///
    /// Each client is a renewal process whose gaps have the window's law, scaled so that its mean rate is
    /// the window's rate: a gap of mean 1 is spent at that rate, also across windows. The first gap is a
    /// residual gap, so that clients do not start in step.
    pub fn draw<R: RandomSource>(&self, random: R) -> ClientArrivals<'_, R> {
        ClientArrivals::new(self, random)
    }

    /// Draws a trace of timestamps at 1 µs resolution, the client as class.
    ///
    /// # Errors
    /// [`TraceError::Empty`] when no request was drawn, and errors of the options.
    pub fn draw_trace<R: RandomSource>(
        &self,
        random: R,
        options: &ImportOptions,
    ) -> Result<Trace, TraceError> {
        let mut gather =
            Gather::new(&self.source.name, options, Known { resolution_ns: Some(1_000), ..Known::default() });
        for (number, (at_ns, client)) in self.draw(random).enumerate() {
            let at_ns = (at_ns / 1_000 * 1_000) as i64; // within WINDOWS_MAX windows
            let row = Row { at_ns, class: Some(client.to_string().into()), ..Row::default() };
            gather.push(&row, number as u64 + 1, "")?;
        }
        gather.finish(self.source.clone(), Calendar::Unknown)
    }
}

impl GapLaw {
    /// Draws a gap of mean 1.
    fn gap(self, random: &mut impl RandomSource) -> f64 {
        match self {
            Self::Gamma { shape } => gamma(shape, random) / shape,
            Self::Weibull { shape } => {
                let x = libm::pow(Exponential::new().draw(random), 1.0 / shape);
                x / libm::tgamma(1.0 + 1.0 / shape)
            }
        }
    }

    /// Draws the rest of a gap seen at a random time: a uniform share of a gap drawn with probability
    /// proportional to its length (Cox, Renewal Theory, 1962, §5.4).
    fn residual(self, random: &mut impl RandomSource) -> f64 {
        let long = match self {
            Self::Gamma { shape } => gamma(shape + 1.0, random) / shape,
            Self::Weibull { shape } => {
                let x = libm::pow(gamma(1.0 + 1.0 / shape, random), 1.0 / shape);
                x / libm::tgamma(1.0 + 1.0 / shape)
            }
        };
        long * uniform(random)
    }
}

/// The drawn requests of a client table: time and client, ascending by time.
#[derive(Debug)]
pub struct ClientArrivals<'c, R> {
    rates: &'c ClientRates,
    random: R,
    next: BinaryHeap<Reverse<(u64, u32)>>,
    clocks: Vec<Clock>,
}

/// Where one client stands.
#[derive(Debug, Clone, Copy)]
struct Clock {
    window: usize,
    /// Time spent in `window`, s.
    spent_s: f64,
}

impl<'c, R: RandomSource> ClientArrivals<'c, R> {
    fn new(rates: &'c ClientRates, mut random: R) -> Self {
        let mut next = BinaryHeap::with_capacity(rates.clients.len());
        let mut clocks = vec![Clock { window: 0, spent_s: 0.0 }; rates.clients.len()];
        for (client, (windows, clock)) in rates.clients.iter().zip(&mut clocks).enumerate() {
            if let Some(law) = windows.iter().find_map(|w| w.law) {
                let gap = law.residual(&mut random);
                next.extend(clock.advance(windows, gap).map(|at| Reverse((at, client as u32))));
            }
        }
        Self { rates, random, next, clocks }
    }
}

impl Clock {
    /// Spends `gap` expected requests and returns the time reached, or `None` past the last window.
    fn advance(&mut self, windows: &[ClientWindow], mut gap: f64) -> Option<u64> {
        while let Some(window) = windows.get(self.window) {
            let rest = (WINDOW_S as f64 - self.spent_s) * window.rate_per_s;
            if gap < rest {
                self.spent_s += gap / window.rate_per_s;
                let inside = ((self.spent_s * 1e9) as u64).min(WINDOW_NS - 1);
                return Some(self.window as u64 * WINDOW_NS + inside);
            }
            gap -= rest;
            *self = Self { window: self.window + 1, spent_s: 0.0 };
        }
        None
    }
}

impl<R: RandomSource> Iterator for ClientArrivals<'_, R> {
    type Item = (u64, u32);

    fn next(&mut self) -> Option<(u64, u32)> {
        let Reverse((at_ns, client)) = self.next.pop()?;
        let (windows, clock) = (&self.rates.clients[client as usize], &mut self.clocks[client as usize]);
        let law = windows[clock.window].law.expect("a request falls in a window with a rate");
        let gap = law.gap(&mut self.random);
        self.next.extend(clock.advance(windows, gap).map(|at| Reverse((at, client))));
        Some((at_ns, client))
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::tests::SplitMix;
    use super::*;

    fn rates(windows: Vec<ClientWindow>) -> ClientRates {
        let source = Source { name: "t".into(), format: TraceFormat::ServegenClients, sha256: None };
        ClientRates { source, clients: vec![windows; 20] }
    }

    #[test]
    fn drawn_requests_follow_the_rates_and_the_law() {
        for (law, cv) in [
            (GapLaw::Gamma { shape: 0.25 }, 2.0),
            (GapLaw::Weibull { shape: 1.0 }, 1.0),
            (GapLaw::Gamma { shape: 4.0 }, 0.5),
        ] {
            let busy = ClientWindow { rate_per_s: 2.0, cv, law: Some(law) };
            let table = rates(vec![busy, IDLE, busy]);
            let drawn: Vec<_> = table.draw(SplitMix(5)).collect();
            assert!(drawn.is_sorted_by_key(|d| d.0));
            assert!(drawn.iter().all(|d| d.0 / WINDOW_NS != 1), "an idle window has no request");
            // 20 clients x 2400 expected; the count of a renewal process has variance about n cv².
            let (n, expected) = (drawn.len() as f64, 48_000.0);
            assert!((n - expected).abs() < 5.0 * cv * f64::sqrt(expected), "{n} of {expected} at cv {cv}");
            let of_one: Vec<f64> =
                drawn.iter().filter(|d| d.1 == 3 && d.0 < WINDOW_NS).map(|d| d.0 as f64).collect();
            let gaps: Vec<f64> = of_one.windows(2).map(|p| p[1] - p[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let var = gaps.iter().map(|g| (g - mean) * (g - mean)).sum::<f64>() / gaps.len() as f64;
            assert!((var.sqrt() / mean / cv - 1.0).abs() < 0.2, "cv {} of {cv}", var.sqrt() / mean);
        }
    }

    #[test]
    fn seed_fixes_the_draw() {
        let busy = ClientWindow { rate_per_s: 0.5, cv: 1.0, law: Some(GapLaw::Gamma { shape: 1.0 }) };
        let table = rates(vec![busy]);
        let draw = |seed| table.draw(SplitMix(seed)).collect::<Vec<_>>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
