//! Spot prices of zones, and what a pool pays by them.

use std::collections::BTreeMap;

use policy::units::UsdPerHour;

/// The price of a type in a zone since some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpotQuote {
    /// e.g. `g5.xlarge`.
    pub instance_type: String,
    /// The zone's id, e.g. `use1-az4`, which is the same for all accounts; its name where Amazon gives no id.
    pub zone: String,
    /// Per instance.
    pub price: UsdPerHour,
    /// Unix seconds from which it holds.
    pub since: i64,
}

/// The latest price of each type and zone, in their order.
pub fn latest(quotes: Vec<SpotQuote>) -> Vec<SpotQuote> {
    let mut by_place: BTreeMap<(String, String), SpotQuote> = BTreeMap::new();
    for quote in quotes {
        let place = (quote.instance_type.clone(), quote.zone.clone());
        match by_place.get(&place) {
            Some(known) if known.since >= quote.since => {}
            _ => {
                by_place.insert(place, quote);
            }
        }
    }
    by_place.into_values().collect()
}

/// What an instance costs by `latest` prices: that of its zone, or the mean over all zones where any will do.
pub fn pool_price(latest: &[SpotQuote], instance_type: &str, zone: Option<&str>) -> Option<UsdPerHour> {
    let fits = |quote: &&SpotQuote| {
        quote.instance_type == instance_type && zone.is_none_or(|zone| quote.zone == zone)
    };
    let prices: Vec<i64> = latest.iter().filter(fits).map(|quote| quote.price.as_nanos()).collect();
    let count = i64::try_from(prices.len()).ok().filter(|count| *count > 0)?;
    Some(UsdPerHour::from_nanos(prices.iter().sum::<i64>() / count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(zone: &str, usd: i64, since: i64) -> SpotQuote {
        let price = UsdPerHour::from_nanos(usd * 1_000_000_000);
        SpotQuote { instance_type: "g5.xlarge".to_owned(), zone: zone.to_owned(), price, since }
    }

    #[test]
    fn the_latest_price_of_a_zone_counts_and_a_pool_without_zone_pays_the_mean() {
        let quotes =
            latest(vec![quote("az1", 9, 5), quote("az1", 1, 20), quote("az2", 3, 7), quote("az1", 8, 10)]);
        assert_eq!(quotes, [quote("az1", 1, 20), quote("az2", 3, 7)]);
        let price = |kind: &str, zone| pool_price(&quotes, kind, zone).map(UsdPerHour::as_f64);
        assert_eq!(price("g5.xlarge", Some("az2")), Some(3.0));
        assert_eq!(price("g5.xlarge", None), Some(2.0));
        assert_eq!(price("g5.xlarge", Some("az3")), None);
        assert_eq!(price("g6.xlarge", None), None);
    }
}
