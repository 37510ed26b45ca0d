//! The ledger: the same code turns instance-seconds, requests, gigabytes and calls into charges, whether they were
//! simulated or real. Each charge rounds once, up to a billionth of a dollar; a sum never rounds.

mod rate;

pub use rate::{GIB, GIB_MONTH, Rate, chunks};

use crate::model::{Billing, CapacityType, Pool};
use crate::records::{ChargeCategory, ChargeRow, InstanceEnd, InstanceLife};
use crate::units::{Duration, Instant, Usd, UsdPerHour};

/// One instance's share of the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceCharge {
    /// Time held, as billed.
    pub billed_time: Duration,
    /// At the price paid.
    pub billed: Usd,
    /// At list price.
    pub list: Usd,
}

/// Everything charged in one run.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    rows: Vec<ChargeRow>,
}

/// Bills one instance's life at `price`: from the moment it ran to its end, by its pool's rule.
///
/// A launch that never ran costs nothing.
pub fn instance_charge(
    pool: &Pool,
    billing: Billing,
    price: UsdPerHour,
    life: &InstanceLife,
) -> InstanceCharge {
    let Some(booted) = life.booted else {
        return InstanceCharge { billed_time: Duration::ZERO, billed: Usd::ZERO, list: Usd::ZERO };
    };
    let interrupted =
        life.end == InstanceEnd::Interrupted && pool.offering.capacity_type == CapacityType::Spot;
    let billed_time = billing.billed(life.ended.since(booted), interrupted);
    InstanceCharge {
        billed_time,
        billed: price.cost_of(billed_time),
        list: pool.offering.price_list.cost_of(billed_time),
    }
}

impl Ledger {
    /// Books instance time of one pool that was charged instance by instance.
    pub fn book_instances(&mut self, pool: &Pool, time: Duration, billed: Usd, list: Usd, until: Instant) {
        if time == Duration::ZERO {
            return;
        }
        self.rows.push(ChargeRow {
            from_s: 0.0,
            to_s: until.as_secs_f64(),
            category: ChargeCategory::Compute,
            resource: pool.name.clone(),
            item: format!("{} {}", pool.offering.instance_type, pool.offering.capacity_type.name()),
            quantity: time.as_secs_f64() / 3600.0,
            unit: "h",
            billed_nanousd: billed.as_nanos(),
            list_nanousd: list.as_nanos(),
            source: pool.offering.source.clone(),
        });
    }

    /// Books `quantity` of something at `rate`; nothing is booked when the charge is zero.
    ///
    /// # Panics
    /// When the charge passes 9.2 billion dollars.
    pub fn book(&mut self, item: Item<'_>, quantity: f64, rate: &Rate, until: Instant) {
        let billed = rate.cost(quantity).expect("no single line of a bill passes 9.2 billion dollars");
        if billed == Usd::ZERO {
            return;
        }
        self.rows.push(ChargeRow {
            from_s: 0.0,
            to_s: until.as_secs_f64(),
            category: item.category,
            resource: item.resource.to_owned(),
            item: item.name.to_owned(),
            quantity,
            unit: item.unit,
            billed_nanousd: billed.as_nanos(),
            list_nanousd: billed.as_nanos(),
            source: item.source.to_owned(),
        });
    }

    /// Every charge.
    pub fn rows(&self) -> &[ChargeRow] {
        &self.rows
    }

    /// Sum of one category.
    pub fn category(&self, category: ChargeCategory) -> Usd {
        let of = self.rows.iter().filter(|row| row.category == category);
        of.map(|row| Usd::from_nanos(row.billed_nanousd)).sum()
    }

    /// Sum of all charges.
    pub fn total(&self) -> Usd {
        self.rows.iter().map(|row| Usd::from_nanos(row.billed_nanousd)).sum()
    }
}

/// What a line of the bill is for.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Category.
    pub category: ChargeCategory,
    /// Tier or service.
    pub resource: &'a str,
    /// What of it.
    pub name: &'a str,
    /// Unit of the quantity.
    pub unit: &'static str,
    /// Price row: source and date.
    pub source: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_the_sum_of_its_categories() {
        let mut ledger = Ledger::default();
        let rate = Rate::flat(Usd::from_nanos(400_000_000), 1e6);
        for (category, count) in ChargeCategory::ALL.into_iter().zip([1.0, 3e5, 7.7e6, 0.0, 12.0]) {
            let item = Item { category, resource: "q", name: "send", unit: "requests", source: "test" };
            ledger.book(item, count, &rate, Instant::START);
        }
        let sum: Usd = ChargeCategory::ALL.into_iter().map(|category| ledger.category(category)).sum();
        assert_eq!(ledger.total(), sum);
        assert_eq!(ledger.rows().len(), 4, "a charge of nothing is no line");
    }
}
