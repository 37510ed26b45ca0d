//! What can be bought, and by which rule it is billed.

use crate::units::{Duration, Usd, UsdPerHour};

/// How capacity is bought, which decides its price and who may take it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum CapacityType {
    /// Spare capacity that the provider may reclaim.
    Spot,
    /// Listed price, kept until given back.
    OnDemand,
    /// Committed: paid whether used or not.
    Reserved,
    /// Somebody else's service, paid per call; it has no instances.
    External,
}

impl CapacityType {
    /// The name used in files and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
            Self::Reserved => "reserved",
            Self::External => "external",
        }
    }
}

/// An instance type in a place under a capacity type, with its price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offering {
    /// Cloud or site, e.g. `aws`.
    pub provider: String,
    /// The provider's region, e.g. `us-east-1`.
    pub region: String,
    /// Availability zone; empty when the price is the region's.
    pub zone: String,
    /// e.g. `g5.xlarge`.
    pub instance_type: String,
    /// e.g. `A10G`; empty for none.
    pub accelerator: String,
    /// How it is bought.
    pub capacity_type: CapacityType,
    /// Price of holding one instance.
    pub price: UsdPerHour,
    /// Undiscounted price of the same instance, for savings; equals `price` for on-demand.
    pub price_list: UsdPerHour,
    /// Price of one call; zero unless external.
    pub price_per_call: Usd,
    /// Where the price comes from and its date.
    pub source: String,
}

/// How held time turns into billed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Billing {
    /// Billed time is a multiple of this (AWS Linux: 1 s since 2017-10-02).
    pub granularity: Duration,
    /// Shortest billed time (AWS Linux: 60 s).
    pub minimum: Duration,
    /// Whether a spot instance that the provider interrupts in its first hour is free.
    pub interrupted_first_hour_free: bool,
}

impl Billing {
    /// Billed time for an instance held for `held`.
    pub fn billed(self, held: Duration, interrupted: bool) -> Duration {
        if interrupted && self.interrupted_first_hour_free && held < Duration::from_secs(3600) {
            return Duration::ZERO;
        }
        let granularity = self.granularity.as_nanos().max(1);
        let nanos = held.max(self.minimum).as_nanos().div_ceil(granularity).saturating_mul(granularity);
        Duration::from_nanos(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billed_time_has_a_minimum_and_whole_seconds() {
        let aws = Billing {
            granularity: Duration::from_secs(1),
            minimum: Duration::from_secs(60),
            interrupted_first_hour_free: true,
        };
        assert_eq!(aws.billed(Duration::from_secs(5), false), Duration::from_secs(60));
        assert_eq!(aws.billed(Duration::from_millis(61_001), false), Duration::from_secs(62));
        assert_eq!(aws.billed(Duration::from_secs(3599), true), Duration::ZERO);
        assert_eq!(aws.billed(Duration::from_secs(3600), true), Duration::from_secs(3600));
    }
}
