//! Prices as Amazon publishes them: read from its APIs, written as rows of the dated catalog, and told to a running plane.
//! Nothing here decides anything; a price that cannot be read is left out, never guessed.

pub mod price_list;
pub mod rows;
pub mod spot;

#[cfg(feature = "aws")]
pub mod live;
#[cfg(feature = "aws")]
pub mod update;

use policy::units::UsdPerHour;

/// A price of an API, e.g. `1.0060000000`; `None` for what is no positive price.
pub(crate) fn usd_per_hour(text: &str) -> Option<UsdPerHour> {
    UsdPerHour::parse(&format!("{} USD/h", text.trim())).ok().filter(|price| price.as_nanos() > 0)
}
