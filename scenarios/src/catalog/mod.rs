//! The dated price catalog: instance offerings and service tariffs, embedded from `catalog/*.toml`, checked when read.
//!
//! Every price carries its source and date. Nothing here fetches prices, and no price stands in code.

mod error;
mod file;
mod row;
mod tariff;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use policy::model::{CapacityType, Offering};
use policy::units::{Bytes, Usd, UsdPerHour};

pub use error::CatalogError;
pub use row::Row;
pub use tariff::{Price, Tariff, Tier, UnitPrice};

use crate::scenario::{QueuePrices, TransferPrices};

/// The files that are built in, by name.
const EMBEDDED: &[(&str, &str)] = &[
    ("aws.toml", include_str!("../../catalog/aws.toml")),
    ("gcp.toml", include_str!("../../catalog/gcp.toml")),
    ("azure.toml", include_str!("../../catalog/azure.toml")),
    ("services.toml", include_str!("../../catalog/services.toml")),
];

/// How many near misses an error names.
const NEAREST_MAX: usize = 3;

/// Offerings and tariffs that fit together: no duplicates, every spot price below on-demand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    rows: Vec<Row>,
    tariffs: Vec<Tariff>,
}

/// Which rows to show; an empty filter shows all.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowFilter<'a> {
    /// Exact provider.
    pub provider: Option<&'a str>,
    /// Exact region.
    pub region: Option<&'a str>,
    /// Start of the instance type: `g5` shows `g5.xlarge` and its sizes, not `g5g`.
    pub instance_type: Option<&'a str>,
    /// Accelerator, in any case.
    pub accelerator: Option<&'a str>,
    /// How it is bought.
    pub capacity_type: Option<CapacityType>,
}

impl Catalog {
    /// The catalog this program was built with.
    pub fn embedded() -> &'static Self {
        static CATALOG: LazyLock<Catalog> =
            LazyLock::new(|| Catalog::from_toml(EMBEDDED).expect("a test reads the embedded catalog"));
        &CATALOG
    }

    /// Reads and checks a catalog of one or more files, each given as (name, text).
    ///
    /// # Errors
    /// The first fault found, with its row: see [`CatalogError`].
    pub fn from_toml(files: &[(&str, &str)]) -> Result<Self, CatalogError> {
        let mut catalog = Self::default();
        for (name, text) in files {
            catalog.read(name, text)?;
        }
        catalog.check()?;
        Ok(catalog)
    }

    /// This catalog with the rows and tariffs of `newer` added; where both have one, `newer` wins. Old spot prices that a
    /// new on-demand price has overtaken are dropped.
    ///
    /// # Errors
    /// When the rows do not fit together, e.g. a new spot price above the old on-demand price.
    pub fn updated_with(&self, newer: &Self) -> Result<Self, CatalogError> {
        let mut rows = self.rows.clone();
        let is_overtaken = |row: &Row| {
            let listed = newer.price_list(row).filter(|_| row.capacity_type == CapacityType::Spot);
            listed.is_some_and(|listed| row.price >= listed)
        };
        rows.retain(|row| !newer.rows.iter().any(|new| new.same_place(row)) && !is_overtaken(row));
        rows.extend(newer.rows.iter().cloned());
        let mut tariffs = self.tariffs.clone();
        tariffs.retain(|tariff| !newer.tariffs.iter().any(|new| new.name == tariff.name));
        tariffs.extend(newer.tariffs.iter().cloned());
        let catalog = Self { rows, tariffs };
        catalog.check()?;
        Ok(catalog)
    }

    /// This catalog with the rows of one more file, which may lean on rows that are here (a spot price on its on-demand
    /// price).
    ///
    /// # Errors
    /// As [`Catalog::from_toml`] and [`Catalog::updated_with`].
    pub fn updated_with_toml(&self, name: &str, text: &str) -> Result<Self, CatalogError> {
        let mut newer = Self::default();
        newer.read(name, text)?;
        self.updated_with(&newer)
    }

    fn read(&mut self, name: &str, text: &str) -> Result<(), CatalogError> {
        let file: file::CatalogFile = toml::from_str(text)
            .map_err(|error| CatalogError::Syntax { file: name.to_owned(), message: error.to_string() })?;
        for offering in file.offering {
            self.rows.push(Row::read(offering, &file.sources)?);
        }
        for tariff in file.tariff {
            self.tariffs.push(Tariff::read(tariff, &file.sources)?);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), CatalogError> {
        let mut places = BTreeMap::new();
        for row in &self.rows {
            if places.insert(row.key(), row.price).is_some() {
                return Err(CatalogError::Duplicate { place: format!("offering {row}") });
            }
        }
        for row in self.rows.iter().filter(|row| row.capacity_type != CapacityType::OnDemand) {
            let Some(on_demand) = self.price_list(row) else {
                return Err(CatalogError::NoOnDemand { place: format!("offering {row}") });
            };
            if row.capacity_type == CapacityType::Spot && row.price >= on_demand {
                let (spot, on_demand) = (row.price.as_f64(), on_demand.as_f64());
                let place = format!("offering {row}");
                return Err(CatalogError::SpotNotBelowOnDemand { place, spot, on_demand });
            }
        }
        let mut names = BTreeSet::new();
        match self.tariffs.iter().find(|tariff| !names.insert(&tariff.name)) {
            Some(twice) => Err(CatalogError::Duplicate { place: format!("tariff `{}`", twice.name) }),
            None => Ok(()),
        }
    }

    /// On-demand price of the row's instance type in its zone, else in its region.
    fn price_list(&self, row: &Row) -> Option<UsdPerHour> {
        let same = |candidate: &&Row| {
            candidate.capacity_type == CapacityType::OnDemand
                && candidate.instance_type == row.instance_type
                && candidate.region == row.region
                && candidate.provider == row.provider
                && (candidate.zone.is_none() || candidate.zone == row.zone)
        };
        self.rows
            .iter()
            .filter(same)
            .max_by_key(|candidate| candidate.zone.is_some())
            .map(|found| found.price)
    }

    /// The row of an instance type in a place.
    ///
    /// A zone is looked for first. On-demand and reserved prices then fall back to the region's. So does a spot price,
    /// but only where the catalog lists no zones of that type: a zone missing among listed ones sells no spot.
    ///
    /// # Errors
    /// [`CatalogError::NoOffering`], naming the nearest rows.
    pub fn offering(
        &self,
        provider: &str,
        region: &str,
        zone: Option<&str>,
        instance_type: &str,
        capacity_type: CapacityType,
    ) -> Result<&Row, CatalogError> {
        let candidates = || {
            self.rows.iter().filter(|row| {
                row.capacity_type == capacity_type
                    && row.instance_type == instance_type
                    && row.region == region
                    && row.provider == provider
            })
        };
        let zonal = capacity_type == CapacityType::Spot && candidates().any(|row| row.zone.is_some());
        candidates()
            .find(|row| row.zone.as_deref() == zone)
            .or_else(|| candidates().find(|row| row.zone.is_none() && !zonal))
            .ok_or_else(|| {
                let wanted = row::place(provider, region, zone, instance_type, capacity_type.name());
                CatalogError::NoOffering { nearest: self.nearest(&wanted), wanted }
            })
    }

    /// The offering that a pool buys, with the on-demand price as its list price.
    pub fn purchase(&self, row: &Row) -> Offering {
        Offering {
            provider: row.provider.clone(),
            region: row.region.clone(),
            zone: row.zone.clone().unwrap_or_default(),
            instance_type: row.instance_type.clone(),
            accelerator: row.accelerator.clone(),
            capacity_type: row.capacity_type,
            price: row.price,
            price_list: self.price_list(row).unwrap_or(row.price),
            price_per_call: Usd::ZERO,
            source: row.provenance(),
        }
    }

    /// The rows most like `wanted`, word by word; later words (type, capacity) weigh as much as earlier ones.
    fn nearest(&self, wanted: &str) -> String {
        let likeness = |row: &Row| -> f64 {
            let capacity = row.capacity_type.name();
            let words = [&row.provider, &row.region, &row.instance_type, row.zone.as_deref().unwrap_or("")];
            let best = |word: &str| {
                let like = words.iter().chain([&capacity]).map(|own| strsim::jaro_winkler(own, word));
                like.fold(0.0, f64::max).powi(4)
            };
            wanted.split(' ').map(best).sum()
        };
        let mut ranked: Vec<(f64, &Row)> = self.rows.iter().map(|row| (likeness(row), row)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let texts: Vec<String> = ranked.iter().take(NEAREST_MAX).map(|(_, row)| row.to_string()).collect();
        if texts.is_empty() { "none, the catalog is empty".to_owned() } else { texts.join("; ") }
    }

    /// Rows that pass `filter`, in the catalog's order.
    pub fn show(&self, filter: RowFilter<'_>) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| filter.accepts(row))
    }

    /// All tariffs, in the catalog's order.
    pub fn tariffs(&self) -> &[Tariff] {
        &self.tariffs
    }

    /// The tariff of that name.
    ///
    /// # Errors
    /// [`CatalogError::NoTariff`], naming the tariffs there are.
    pub fn tariff(&self, name: &str) -> Result<&Tariff, CatalogError> {
        let found = self.tariffs.iter().find(|tariff| tariff.name == name);
        found.ok_or_else(|| {
            let names = self.tariffs.iter().map(|tariff| tariff.name.as_str());
            CatalogError::NoTariff { wanted: name.to_owned(), known: join(names) }
        })
    }

    /// Prices of a storage tier and where they come from, from a tariff with the items `storage`, `get` and `put`,
    /// and perhaps `retrieval` and `upload` (per GiB; absent is free). First tiers: a workload's own volume decides
    /// nothing here.
    ///
    /// # Errors
    /// No such tariff, or one without those items.
    pub fn storage_prices(&self, name: &str) -> Result<(TransferPrices, String), CatalogError> {
        let tariff = self.tariff(name)?;
        let per_gib = |item| tariff.find(item).map_or(Usd::ZERO, |price| price.first().per_thousand());
        let bytes_above = |item| tariff.find(item).map_or(Bytes::ZERO, |price| price.bytes_above);
        let prices = TransferPrices {
            per_million_get: tariff.price("get")?.first().per_million,
            per_million_put: tariff.price("put")?.first().per_million,
            per_thousand_gib_month: tariff.price("storage")?.first().per_thousand(),
            per_thousand_gib_get: per_gib("retrieval"),
            per_thousand_gib_put: per_gib("upload"),
            free_bytes: bytes_above("retrieval").max(bytes_above("upload")),
        };
        Ok((prices, tariff.provenance()))
    }

    /// Prices of a queue service and where they come from. First tier.
    ///
    /// # Errors
    /// No such tariff, or one that is not a queue's.
    pub fn queue_prices(&self, name: &str) -> Result<(QueuePrices, String), CatalogError> {
        let tariff = self.tariff(name)?;
        let Some(requests_per_delivery) = tariff.requests_per_delivery else {
            let queues = self.tariffs.iter().filter(|other| other.requests_per_delivery.is_some());
            let queues = join(queues.map(|queue| queue.name.as_str()));
            return Err(CatalogError::NotQueue { tariff: name.to_owned(), queues });
        };
        let per_million_requests = tariff.price("requests")?.first().per_million;
        let idle_poll = tariff.idle_poll;
        Ok((QueuePrices { per_million_requests, requests_per_delivery, idle_poll }, tariff.provenance()))
    }
}

impl RowFilter<'_> {
    fn accepts(&self, row: &Row) -> bool {
        let family = |start: &str| {
            let rest = row.instance_type.strip_prefix(start);
            rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
        };
        self.provider.is_none_or(|provider| row.provider == provider)
            && self.region.is_none_or(|region| row.region == region)
            && self.instance_type.is_none_or(family)
            && self.accelerator.is_none_or(|name| row.accelerator.eq_ignore_ascii_case(name))
            && self.capacity_type.is_none_or(|capacity| row.capacity_type == capacity)
    }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
