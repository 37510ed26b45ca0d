//! Units: time, money, sizes, ratios, their text forms, seeded chance, and the mathematics behind them.
//!
//! Imports nothing of ours. A value that leaves a constructor here is valid.

pub mod math;
mod money;
pub mod random;
mod ratio;
mod size;
mod text;
mod time;

pub use money::{Usd, UsdPerHour};
pub use ratio::{Ratio, RatioError};
pub use size::Bytes;
pub use text::QuantityError;
pub use time::{Duration, Instant};
