//! Measured traffic, spot capacity and spot prices: reads public formats into typed values, describes them,
//! fits generators to them and plays them as arrivals.
//!
//! Times are `u64` nanoseconds from the trace's first timestamp. No source of chance lives here: draws take a
//! [`RandomSource`] that the caller seeds. Parquet is not read here; its rows come in by [`Trace::from_rows`].

mod advisor;
mod arrivals;
mod availability;
mod calendar;
mod clients;
mod describe;
mod error;
mod fit;
#[cfg(test)]
mod fit_tests;
mod format;
mod gather;
mod generator;
mod import;
#[cfg(test)]
mod import_tests;
mod input;
mod mapping;
mod prices;
#[cfg(test)]
mod public_traces;
mod random;
mod row;
mod search;
mod series;
mod sparkline;
mod survey;

pub use advisor::{SpotAdvice, SpotAdvisor};
pub use arrivals::{Arrival, ArrivalPlan, Arrivals, AtEnd};
pub use availability::{SpotAvailability, SpotDescription, ZoneDescription, describe_zones};
pub use calendar::{CalendarStart, TimeUnit};
pub use clients::{ClientArrivals, ClientRates, ClientWindow, GapLaw};
pub use describe::{Bursts, CvOf, Description, Peak, TraceKind};
pub use error::TraceError;
pub use fit::{Candidate, Fit};
pub use format::TraceFormat;
pub use generator::{GeneratorShape, ViralDecay};
pub use import::{ImportOptions, ROWS_MAX};
pub use mapping::Mapping;
pub use prices::{PriceChange, PriceDescription, PriceHistoryDescription, SpotPriceHistory};
pub use random::{FromFn, RandomSource};
pub use row::Row;
pub use series::{BINS_MAX, Counts, Labels, Source, Timestamps, Trace, TraceData};
pub use sparkline::{SparkStyle, sparkline};
pub use survey::{AdvisorDescription, Survey};
