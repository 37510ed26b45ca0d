//! What the fleet costs, live: by the ledger's rules, at the prices of the catalog or as they change.

use policy::ledger::instance_charge;
use policy::model::PoolId;
use policy::records::{InstanceLife, InstanceRow};
use policy::units::{Instant, Usd, UsdPerHour};
use serde::{Deserialize, Serialize};

use super::machines::Machines;
use super::rules::Rules;

/// Prices now, and the bill so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Money {
    prices: Vec<UsdPerHour>,
    /// Of machines that ended, billionths of a dollar.
    ended_nanousd: i64,
}

impl Money {
    pub(crate) fn new(rules: &Rules) -> Self {
        let prices = rules.system.pools.iter().map(|pool| pool.offering.price).collect();
        Self { prices, ended_nanousd: 0 }
    }

    /// Takes the prices that new rules give anew; a market price stays where the rules' own did.
    pub(crate) fn reload(&mut self, before: &Rules, rules: &Rules) {
        let pools = before.system.pools.iter().zip(&rules.system.pools);
        for (price, (before, pool)) in self.prices.iter_mut().zip(pools) {
            if pool.offering.price != before.offering.price {
                *price = pool.offering.price;
            }
        }
    }

    /// Pools that have a price.
    pub(crate) fn pools(&self) -> usize {
        self.prices.len()
    }

    pub(crate) fn set_price(&mut self, pool: PoolId, price: UsdPerHour) {
        self.prices[pool.index()] = price;
    }

    pub(crate) fn price(&self, pool: PoolId) -> UsdPerHour {
        self.prices[pool.index()]
    }

    /// Bills an instance whose life is over.
    pub(crate) fn bill(&mut self, life: &InstanceLife, rules: &Rules) -> InstanceRow {
        let pool = &rules.system.pools[life.pool.index()];
        let price = self.price(life.pool);
        let charge = instance_charge(pool, rules.billing[life.pool.index()], price, life);
        let billed = charge.billed.as_nanos();
        self.ended_nanousd = self.ended_nanousd.saturating_add(billed);
        InstanceRow {
            pool: pool.name.clone(),
            instance: life.instance.0,
            capacity_type: pool.offering.capacity_type.name(),
            requested_s: life.requested.as_secs_f64(),
            ready_s: life.ready.map(Instant::as_secs_f64),
            ended_s: life.ended.as_secs_f64(),
            busy_slot_s: life.busy.as_secs_f64(),
            billed_nanousd: billed,
            end: life.end,
        }
    }

    /// Spent so far: bills, and the running machines up to `now`.
    pub(crate) fn spent(&self, now: Instant, machines: &Machines) -> Usd {
        let running = machines.iter().filter_map(|(_, machine)| {
            machine.costs.map(|(since, price)| price.cost_of(now.since(since)).as_nanos())
        });
        Usd::from_nanos(self.ended_nanousd.saturating_add(running.sum()))
    }

    /// Spent per hour now.
    pub(crate) fn burn(&self, machines: &Machines) -> Usd {
        let prices =
            machines.iter().filter_map(|(_, machine)| machine.costs.map(|(_, price)| price.as_nanos()));
        Usd::from_nanos(prices.sum())
    }
}
