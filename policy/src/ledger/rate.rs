//! Rates: prices per so many units, in tiers by the quantity already consumed.

use crate::units::{Bytes, Usd};

/// Bytes of one billed gigabyte.
pub const GIB: f64 = 1_073_741_824.0;

/// Byte-seconds of one billed gigabyte-month of 730 hours.
pub const GIB_MONTH: f64 = GIB * 730.0 * 3600.0;

/// A price per `per` units; tier by tier where the price falls with the quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    per: f64,
    /// (first unit of the tier, price), ascending, the first from 0.
    tiers: Vec<(f64, Usd)>,
}

impl Rate {
    /// One price for any quantity. `per` is above zero.
    pub fn flat(price: Usd, per: f64) -> Self {
        assert!(per > 0.0, "a price is per something");
        Self { per, tiers: vec![(0.0, price)] }
    }

    /// Prices by tier: `tiers` holds the first unit of each tier and its price; `None` unless they ascend from 0.
    pub fn tiered(tiers: Vec<(f64, Usd)>, per: f64) -> Option<Self> {
        let ascend = tiers.windows(2).all(|pair| pair[0].0 < pair[1].0);
        (per > 0.0 && ascend && tiers.first().is_some_and(|first| first.0 == 0.0))
            .then_some(Self { per, tiers })
    }

    /// Cost of `quantity` units (≥ 0), rounded up once to a billionth of a dollar; `None` on overflow.
    pub fn cost(&self, quantity: f64) -> Option<Usd> {
        let mut nanos = 0.0;
        for (index, (from, price)) in self.tiers.iter().enumerate() {
            let to = self.tiers.get(index + 1).map_or(f64::INFINITY, |next| next.0);
            let inside = (quantity.min(to) - from).max(0.0);
            nanos += inside / self.per * price.as_nanos() as f64;
        }
        // A sum of tiers may carry a rounding error of some 1e-16; it must not tip a whole amount over.
        let rounded = (nanos * (1.0 - 1e-15)).ceil();
        (rounded < i64::MAX as f64).then(|| Usd::from_nanos(rounded as i64))
    }
}

/// Requests that one message of `size` counts as, when every `chunk` begun is one (SQS: 64 KiB).
pub fn chunks(size: Bytes, chunk: Bytes) -> u64 {
    size.get().div_ceil(chunk.get().max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_apply_to_their_own_part() {
        // Internet out, us-east-1: first 100 GB free, 0.09 to 10 TB, 0.085 beyond (service_prices.json).
        let tiers = [(0.0, 0), (100.0, 90_000_000), (10_240.0, 85_000_000)];
        let tiers = tiers.map(|(from, nanos)| (from, Usd::from_nanos(nanos))).to_vec();
        let rate = Rate::tiered(tiers, 1.0).unwrap();
        assert_eq!(rate.cost(100.0), Some(Usd::ZERO));
        assert_eq!(rate.cost(110.0), Some(Usd::from_nanos(900_000_000)));
        assert_eq!(rate.cost(10_241.0), Some(Usd::from_nanos(10_140 * 90_000_000 + 85_000_000)));
        assert_eq!(Rate::tiered(vec![(1.0, Usd::ZERO)], 1.0), None);
    }

    #[test]
    fn a_request_price_below_a_nano_dollar_still_adds_up() {
        // S3 Express GET since 2025-04-10: 0.00003 USD per 1000.
        let rate = Rate::flat(Usd::from_nanos(30_000_000), 1e6);
        assert_eq!(rate.cost(1_080_000.0), Some(Usd::from_nanos(32_400_000)));
        assert_eq!(rate.cost(1.0), Some(Usd::from_nanos(30)));
        assert_eq!(Rate::flat(Usd::from_nanos(i64::MAX), 1.0).cost(2.0), None);
    }

    #[test]
    fn messages_count_by_chunks_begun() {
        let chunk = Bytes::new(65_536);
        let counts = [0, 1, 65_536, 65_537].map(|size| chunks(Bytes::new(size), chunk));
        assert_eq!(counts, [1, 1, 1, 2]);
    }
}
