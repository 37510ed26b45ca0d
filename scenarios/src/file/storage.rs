//! `[storage]`: tiers, how fast they are, what they cost.

use schemars::JsonSchema;
use serde::Deserialize;

use super::law::LawFile;
use super::named::Named;
use super::quantity::{Money, Rate, Size, Throughput, Time};

/// Storage tiers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StorageFile {
    /// Tiers by name.
    pub(crate) tier: Named<TierFile>,
}

/// A storage class in one place. Its prices are stated either by `price` or by `prices`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierFile {
    /// Downloads.
    pub(crate) get: OperationFile,
    /// Uploads.
    pub(crate) put: OperationFile,
    /// A tariff of the price catalog, e.g. `aws-s3-standard`.
    pub(crate) price: Option<String>,
    /// Prices stated here.
    pub(crate) prices: Option<TierPricesFile>,
    /// How long an uploaded object is kept and paid for. Default: 30 d.
    pub(crate) retention: Option<Time>,
}

/// Latency and limits of one kind of operation.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationFile {
    /// Time of an operation without its payload.
    pub(crate) latency: LawFile,
    /// Payload rate of one stream. Default: included in `latency`.
    pub(crate) throughput: Option<Throughput>,
    /// Operations per second before the tier throttles. Default: no limit.
    pub(crate) rate_max: Option<Rate>,
    /// First wait of a throttled operation; it doubles with each refusal. Default: 100 ms.
    pub(crate) throttle_backoff: Option<Time>,
}

/// Prices of a tier; what is not named is free. Gigabytes are binary, as providers bill.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TierPricesFile {
    /// Price of a thousand GETs.
    pub(crate) per_thousand_get: Option<Money>,
    /// Price of a thousand PUTs.
    pub(crate) per_thousand_put: Option<Money>,
    /// Price of a gigabyte stored for a month (730 h).
    pub(crate) per_gb_month: Option<Money>,
    /// Price of a gigabyte downloaded.
    pub(crate) per_gb_get: Option<Money>,
    /// Price of a gigabyte uploaded.
    pub(crate) per_gb_put: Option<Money>,
    /// Bytes of each request that carry no per-gigabyte price.
    pub(crate) free_bytes: Option<Size>,
    /// Where the prices come from, with their date.
    pub(crate) source: Option<String>,
}
