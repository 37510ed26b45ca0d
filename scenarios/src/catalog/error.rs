//! What can be wrong with a price catalog, or with a question to it.

use policy::units::QuantityError;

/// A catalog that cannot be used, or a price that it does not hold. Places are written `provider region type capacity`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CatalogError {
    /// The file is not TOML, lacks a field, or has one too many.
    #[error("catalog `{file}` cannot be read: {message}")]
    Syntax { file: String, message: String },
    /// A text field is empty.
    #[error("{place}: `{field}` is empty; write it down")]
    Empty { place: String, field: &'static str },
    /// A price without its unit, negative, or not a number.
    #[error("{place}: bad price")]
    Price {
        place: String,
        #[source]
        source: QuantityError,
    },
    /// A unit price that is not `"0.40 USD/million requests"`.
    #[error("{place}: `{text}` is not a unit price: {why}; write it like \"0.40 USD/million requests\"")]
    UnitPrice { place: String, text: String, why: &'static str },
    /// A date that is not `2026-07-20`, or does not exist.
    #[error("{place}: as_of `{text}` is not a date; write it like \"2026-07-20\"")]
    AsOf { place: String, text: String },
    /// A row names a source that the file's `[sources]` does not explain.
    #[error("{place}: source `{name}` is not in [sources]; add it there with repository, commit and date")]
    UnknownSource { place: String, name: String },
    /// Not a way of buying instances.
    #[error("{place}: capacity_type `{text}` is not one of spot, on-demand, reserved")]
    CapacityType { place: String, text: String },
    /// A reserved price without its commitment, or a commitment on another price.
    #[error("{place}: `commitment` belongs to reserved prices, and to every one of them")]
    Commitment { place: String },
    /// A count or size that must be above zero (public catalogs list 0 accelerators for fractional ones).
    #[error("{place}: {field} {value} must be a finite number above zero")]
    NotPositive { place: String, field: &'static str, value: f64 },
    /// Two rows for one place and capacity type, or two tariffs of one name, or two prices of one item.
    #[error("{place} is listed twice; keep one")]
    Duplicate { place: String },
    /// A spot price that is no discount: the provider showed none, or it is a mistake.
    #[error("{place}: spot {spot} USD/h is not below on-demand {on_demand} USD/h; leave the row out")]
    SpotNotBelowOnDemand { place: String, spot: f64, on_demand: f64 },
    /// A spot or reserved price without the on-demand price that savings are measured against.
    #[error("{place} has no on-demand row of its region beside it; add one")]
    NoOnDemand { place: String },
    /// Tiers out of order, or not starting at 0.
    #[error("{place}: tiers must start at 0 and rise; `from` = {from} does not")]
    Tiers { place: String, from: f64 },
    /// A price with neither or both of `price` and `tiers`.
    #[error("{place}: give either `price` or `tiers`")]
    PriceOrTiers { place: String },
    /// The catalog has no such offering.
    #[error("the price catalog has no {wanted}; nearest: {nearest}")]
    NoOffering { wanted: String, nearest: String },
    /// The catalog has no such tariff.
    #[error("the price catalog has no tariff `{wanted}`; it has {known}")]
    NoTariff { wanted: String, known: String },
    /// The tariff does not price this.
    #[error("tariff `{tariff}` has no price of `{item}`; it has {known}")]
    NoItem { tariff: String, item: String, known: String },
    /// The tariff is not one of a queue service.
    #[error(
        "tariff `{tariff}` is not a queue's: it says nothing about requests_per_delivery; use one of {queues}"
    )]
    NotQueue { tariff: String, queues: String },
}
