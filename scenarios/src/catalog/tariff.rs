//! Tariffs of services: prices per request, per gigabyte, per unit of anything, with their tiers.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use policy::units::{Bytes, Duration, Usd};

use super::CatalogError;
use super::file::{PriceFile, TariffFile};
use super::row::{citation, date, not_empty, positive};

/// What one service costs in one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Tariff {
    /// Unique name, e.g. `s3-standard`.
    pub name: String,
    /// e.g. `aws`.
    pub provider: String,
    /// e.g. `us-east-1`.
    pub region: String,
    /// What the numbers alone do not say.
    pub note: String,
    /// For queues: requests that one delivery costs (send, receive, delete).
    pub requests_per_delivery: Option<f64>,
    /// For queues: the long poll of an idle consumer.
    pub idle_poll: Option<Duration>,
    /// One price per item.
    pub prices: Vec<Price>,
    /// Repository, commit and date of the fact.
    pub source: String,
    /// The day on which the prices were valid; the oldest one where the source gives a span.
    pub as_of: Date,
}

/// The price of one item of a tariff.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// e.g. `get`.
    pub item: String,
    /// At least one; the first starts at 0, and starts rise.
    pub tiers: Vec<Tier>,
    /// Only the part of each request above this size is charged.
    pub bytes_above: Bytes,
}

/// A unit price that holds from a monthly quantity on.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Monthly quantity, in the price's unit.
    pub from: f64,
    /// The price from there on.
    pub price: UnitPrice,
}

/// A price per unit, kept per million units, where a billionth of a dollar is exact for every published price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPrice {
    /// Price of a million units.
    pub per_million: Usd,
    /// e.g. `requests`, `GiB`, `GiB-month`.
    pub unit: String,
    /// As it stands in the file.
    pub text: String,
}

impl UnitPrice {
    /// Reads `"0.40 USD/million requests"`, `"0.0025 USD/thousand requests"` or `"0.023 USD/GiB-month"`.
    fn parse(place: &str, text: &str) -> Result<Self, CatalogError> {
        let bad = |why| CatalogError::UnitPrice { place: place.to_owned(), text: text.to_owned(), why };
        let (number, unit) = text.split_once(" USD/").ok_or_else(|| bad("it has no ` USD/`"))?;
        let (per, unit) = match unit.split_once(' ') {
            Some(("thousand", unit)) => (1e3, unit),
            Some(("million", unit)) => (1e6, unit),
            Some(_) => return Err(bad("only `thousand` and `million` may stand before the unit")),
            None => (1.0, unit),
        };
        if unit.trim().is_empty() || unit.contains(' ') {
            return Err(bad("the unit is one word"));
        }
        let value: f64 = number.parse().map_err(|_| bad("the number cannot be read"))?;
        let nanos = (value * (1e6 / per) * 1e9).round();
        if !nanos.is_finite() || value < 0.0 {
            return Err(bad("the number must be finite and not negative"));
        }
        if nanos >= i64::MAX as f64 {
            return Err(bad("it is above 9,200 USD a unit"));
        }
        let per_million = Usd::from_nanos(nanos as i64);
        Ok(Self { per_million, unit: unit.to_owned(), text: text.to_owned() })
    }

    /// Price of a thousand units, rounded up to a billionth of a dollar.
    pub fn per_thousand(&self) -> Usd {
        let nanos = self.per_million.as_nanos();
        Usd::from_nanos(nanos / 1000 + i64::from(nanos % 1000 > 0))
    }
}

impl Tariff {
    pub(super) fn read(file: TariffFile, sources: &BTreeMap<String, String>) -> Result<Self, CatalogError> {
        let place = format!("tariff `{}`", file.name);
        not_empty(&place, "name", &file.name)?;
        not_empty(&place, "provider", &file.provider)?;
        not_empty(&place, "region", &file.region)?;
        if let Some(requests) = file.requests_per_delivery {
            positive(&place, "requests_per_delivery", requests)?;
        }
        let idle_poll = file.idle_poll.as_deref().map(Duration::parse).transpose();
        let idle_poll = idle_poll.map_err(|source| CatalogError::Price { place: place.clone(), source })?;
        if let Some(poll) = idle_poll {
            positive(&place, "idle_poll", poll.as_nanos() as f64)?;
        }
        let mut items = BTreeSet::new();
        let mut prices = Vec::with_capacity(file.price.len());
        for price in file.price {
            let place = format!("{place} price `{}`", price.item);
            if !items.insert(price.item.clone()) {
                return Err(CatalogError::Duplicate { place });
            }
            prices.push(Price::read(&place, price)?);
        }
        Ok(Self {
            source: citation(&place, file.source, sources)?,
            as_of: date(&place, &file.as_of)?,
            name: file.name,
            provider: file.provider,
            region: file.region,
            note: file.note,
            requests_per_delivery: file.requests_per_delivery,
            idle_poll,
            prices,
        })
    }

    /// The price of `item`.
    ///
    /// # Errors
    /// [`CatalogError::NoItem`], naming the items there are.
    pub fn price(&self, item: &str) -> Result<&Price, CatalogError> {
        self.find(item).ok_or_else(|| CatalogError::NoItem {
            tariff: self.name.clone(),
            item: item.to_owned(),
            known: self.prices.iter().map(|price| price.item.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    pub(super) fn find(&self, item: &str) -> Option<&Price> {
        self.prices.iter().find(|price| price.item == item)
    }

    /// The source and its date in one text, as reports print it.
    pub fn provenance(&self) -> String {
        format!("{}, as of {}", self.source, self.as_of)
    }
}

impl Price {
    fn read(place: &str, file: PriceFile) -> Result<Self, CatalogError> {
        not_empty(place, "item", &file.item)?;
        let tiers = match (file.price, file.tiers) {
            (Some(price), None) => vec![Tier { from: 0.0, price: UnitPrice::parse(place, &price)? }],
            (None, Some(tiers)) if !tiers.is_empty() => tiers
                .into_iter()
                .map(|tier| Ok(Tier { from: tier.from, price: UnitPrice::parse(place, &tier.price)? }))
                .collect::<Result<_, CatalogError>>()?,
            _ => return Err(CatalogError::PriceOrTiers { place: place.to_owned() }),
        };
        let mut next = 0.0..=0.0;
        for tier in &tiers {
            if !next.contains(&tier.from) || tier.price.unit != tiers[0].price.unit {
                return Err(CatalogError::Tiers { place: place.to_owned(), from: tier.from });
            }
            next = tier.from.next_up()..=f64::MAX;
        }
        let bytes_above = file.bytes_above.as_deref().map(Bytes::parse).transpose();
        let bytes_above =
            bytes_above.map_err(|source| CatalogError::Price { place: place.to_owned(), source })?;
        Ok(Self { item: file.item, tiers, bytes_above: bytes_above.unwrap_or(Bytes::ZERO) })
    }

    /// The price of the first unit of a month.
    pub fn first(&self) -> &UnitPrice {
        &self.tiers[0].price
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_prices_are_exact_per_million() {
        for (text, nanos, unit) in [
            ("0.40 USD/million requests", 400_000_000, "requests"),
            ("0.0025 USD/thousand requests", 2_500_000_000, "requests"),
            ("0.0000166667 USD/GiB-second", 16_666_700_000, "GiB-second"),
            ("0.0000000309 USD/GiB-second", 30_900_000, "GiB-second"),
            ("0 USD/GiB", 0, "GiB"),
        ] {
            let price = UnitPrice::parse("here", text).expect(text);
            assert_eq!((price.per_million.as_nanos(), price.unit.as_str()), (nanos, unit), "{text}");
        }
    }

    #[test]
    fn a_unit_price_without_unit_or_sense_is_refused() {
        for bad in
            ["0.40", "0.40 USD", "0.40 USD/", "-1 USD/GiB", "inf USD/GiB", "1 USD/dozen eggs", "1 EUR/GiB"]
        {
            assert!(UnitPrice::parse("here", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_price_per_thousand_rounds_up() {
        let price = UnitPrice::parse("here", "0.0000000309 USD/GiB-second").expect("a price");
        assert_eq!(price.per_thousand().as_nanos(), 30_900);
        let price = UnitPrice::parse("here", "0.000000001 USD/million calls").expect("a price");
        assert_eq!(price.per_thousand().as_nanos(), 1);
    }
}
