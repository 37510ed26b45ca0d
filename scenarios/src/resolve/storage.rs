//! Storage tiers and their prices.

use policy::units::{Bytes, Usd};

use super::Resolver;
use crate::catalog::Catalog;
use crate::defaults;
use crate::diagnostics::{ErrorKind, Key};
use crate::file::quantity::{Money, Rate, Size, Throughput, Time};
use crate::file::storage::{OperationFile, TierFile, TierPricesFile};
use crate::scenario::{OperationLatency, StorageTier, TransferPrices};

impl Resolver<'_> {
    pub(super) fn tiers(&mut self) -> Vec<StorageTier> {
        let mut tiers = Vec::new();
        for (name, tier) in self.file.storage.tier.iter() {
            let key = Key::of("storage.tier").at(name);
            let (prices, source) = self.tier_prices(&key, name, tier);
            tiers.push(StorageTier {
                name: name.to_owned(),
                get: self.operation(&key.at("get"), &tier.get),
                put: self.operation(&key.at("put"), &tier.put),
                prices,
                retention: tier.retention.map_or(defaults::RETENTION, |Time(retention)| retention),
                source,
            });
        }
        tiers
    }

    fn operation(&mut self, key: &Key, file: &OperationFile) -> OperationLatency {
        let backoff = file.throttle_backoff.map_or(defaults::THROTTLE_BACKOFF, |Time(backoff)| backoff);
        OperationLatency {
            latency: self.law(&key.at("latency"), &file.latency),
            bytes_per_s: file.throughput.map(|Throughput(bytes)| bytes),
            rate_max: file.rate_max.map(|Rate(rate)| self.positive(&key.at("rate_max"), rate)),
            throttle_backoff: self.lasting(&key.at("throttle_backoff"), backoff),
        }
    }

    fn tier_prices(&mut self, key: &Key, name: &str, tier: &TierFile) -> (TransferPrices, String) {
        match (&tier.price, &tier.prices) {
            (Some(tariff), None) => {
                let found = Catalog::embedded().storage_prices(tariff);
                self.problems.check(ErrorKind::Price, &key.at("price"), found).unwrap_or_default()
            }
            (None, Some(prices)) => {
                let source = prices.source.clone().unwrap_or_else(|| "stated in the scenario".to_owned());
                (self.stated_prices(&key.at("prices"), prices), source)
            }
            (None, None) => {
                let message = format!("storage tier `{name}` has no price");
                let help = "state `price = \"TARIFF\"` of the price catalog, or `prices = { ... }`; an empty table is free";
                self.problems.add_with_help(ErrorKind::Price, key, message, help);
                Default::default()
            }
            (Some(_), Some(_)) => {
                let message = "state either `price` or `prices`, not both";
                self.problems.add(ErrorKind::Conflict, &key.at("price"), message);
                Default::default()
            }
        }
    }

    fn stated_prices(&mut self, key: &Key, file: &TierPricesFile) -> TransferPrices {
        TransferPrices {
            per_million_get: self.thousandfold(&key.at("per_thousand_get"), file.per_thousand_get),
            per_million_put: self.thousandfold(&key.at("per_thousand_put"), file.per_thousand_put),
            per_thousand_gib_month: self.thousandfold(&key.at("per_gb_month"), file.per_gb_month),
            per_thousand_gib_get: self.thousandfold(&key.at("per_gb_get"), file.per_gb_get),
            per_thousand_gib_put: self.thousandfold(&key.at("per_gb_put"), file.per_gb_put),
            free_bytes: file.free_bytes.map_or(Bytes::ZERO, |Size(bytes)| bytes),
        }
    }

    /// A thousand times a price, nothing where none is stated.
    pub(super) fn thousandfold(&mut self, key: &Key, price: Option<Money>) -> Usd {
        let Some(Money(price)) = price else { return Usd::ZERO };
        match price.as_nanos().checked_mul(1000) {
            Some(nanos) => Usd::from_nanos(nanos),
            None => {
                let message = format!("{price} is too large: a thousand of them pass 9.2 billion dollars");
                self.problems.add(ErrorKind::Overflow, key, message);
                Usd::ZERO
            }
        }
    }
}
