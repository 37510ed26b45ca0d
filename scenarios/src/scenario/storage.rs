//! Storage tiers: how long an operation takes, how many fit, what they cost.

use policy::units::{Bytes, Duration, Usd};

use super::law::Law;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Download.
    Get,
    /// Upload.
    Put,
}

/// Latency and limits of one kind of operation.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationLatency {
    /// Time of an operation without its payload (first byte, commit).
    pub latency: Law,
    /// Payload rate of one stream, bytes per second; `None` is included in `latency`.
    pub bytes_per_s: Option<u64>,
    /// Operations per second before the tier throttles (503); `None` is no limit.
    pub rate_max: Option<f64>,
    /// First wait of a throttled operation; it doubles with each refusal (full jitter).
    pub throttle_backoff: Duration,
}

/// A storage class in one place.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageTier {
    /// Unique name.
    pub name: String,
    /// Downloads.
    pub get: OperationLatency,
    /// Uploads.
    pub put: OperationLatency,
    /// What they cost.
    pub prices: TransferPrices,
    /// How long an uploaded object is kept and paid for.
    pub retention: Duration,
    /// Where the prices come from and their date.
    pub source: String,
}

/// Prices of a tier. Gigabytes are binary (2³⁰), as providers bill.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TransferPrices {
    /// Price of a million GETs.
    pub per_million_get: Usd,
    /// Price of a million PUTs.
    pub per_million_put: Usd,
    /// Price of a thousand GB-months of storage (730 h).
    pub per_thousand_gib_month: Usd,
    /// Price of a thousand GB downloaded, on the bytes above `free_bytes` of each request.
    pub per_thousand_gib_get: Usd,
    /// Price of a thousand GB uploaded, on the bytes above `free_bytes` of each request.
    pub per_thousand_gib_put: Usd,
    /// Bytes of each request that carry no per-GB price (S3 Express before 2025-04-10: 512 KB).
    pub free_bytes: Bytes,
}
