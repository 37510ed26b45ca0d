//! The catalog's TOML, field by field. Unknown keys are errors; nothing is checked here beyond types.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CatalogFile {
    /// Full citations by short name.
    #[serde(default)]
    pub(super) sources: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) offering: Vec<OfferingFile>,
    #[serde(default)]
    pub(super) tariff: Vec<TariffFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfferingFile {
    pub(super) provider: String,
    pub(super) region: String,
    pub(super) zone: Option<String>,
    pub(super) instance_type: String,
    pub(super) accelerator: String,
    pub(super) accelerator_count: f64,
    pub(super) accelerator_memory_gib: f64,
    pub(super) vcpu: u32,
    pub(super) memory_gib: f64,
    pub(super) capacity_type: String,
    pub(super) commitment: Option<String>,
    pub(super) price: String,
    pub(super) source: String,
    pub(super) as_of: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TariffFile {
    pub(super) name: String,
    pub(super) provider: String,
    pub(super) region: String,
    #[serde(default)]
    pub(super) note: String,
    pub(super) requests_per_delivery: Option<f64>,
    pub(super) idle_poll: Option<String>,
    pub(super) source: String,
    pub(super) as_of: String,
    pub(super) price: Vec<PriceFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceFile {
    pub(super) item: String,
    pub(super) price: Option<String>,
    pub(super) tiers: Option<Vec<TierFile>>,
    pub(super) bytes_above: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TierFile {
    pub(super) from: f64,
    pub(super) price: String,
}
