//! The bill of a run: what was used, at the scenario's prices.

use policy::ledger::{GIB, GIB_MONTH, Item, Ledger, Rate};
use policy::model::CapacityType;
use policy::records::ChargeCategory;
use policy::units::{Duration, Instant, Usd};
use scenarios::scenario::{Operation, Scenario};

use crate::outcome::Outcome;
use crate::world::{TierUse, warm_time};

const MILLION: f64 = 1e6;
const THOUSAND: f64 = 1e3;

/// Bytes moved on behalf of jobs, beside storage.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) between_regions: u64,
    pub(crate) egress: u64,
}

/// Books everything that `outcome` used. `warm` is the count of stopped instances held, by pool.
pub(crate) fn bill(scenario: &Scenario, outcome: &Outcome, moved: Moved, warm: &[u32]) -> Ledger {
    let mut ledger = Ledger::default();
    let until = Instant::START + outcome.ended;
    for (index, stats) in outcome.pools.iter().enumerate() {
        let pool = &scenario.system.pools[index];
        ledger.book_instances(pool, stats.billed_time, stats.billed, stats.list, until);
        let held = warm_time(warm[index], outcome.ended);
        let price = scenario.pools[index].startup.warm_price;
        if held > Duration::ZERO && price.as_nanos() > 0 {
            let item =
                item(ChargeCategory::Compute, &pool.name, "stopped instances", "h", &pool.offering.source);
            let hourly = Rate::flat(Usd::from_nanos(price.as_nanos()), 1.0);
            ledger.book(item, held.as_secs_f64() / 3600.0, &hourly, until);
        }
        if pool.offering.capacity_type == CapacityType::External {
            let item = item(ChargeCategory::External, &pool.name, "calls", "calls", &pool.offering.source);
            ledger.book(item, stats.calls as f64, &Rate::flat(pool.offering.price_per_call, 1.0), until);
        }
    }
    for (index, uses) in outcome.tiers.iter().enumerate() {
        bill_tier(&mut ledger, scenario, index, uses, until);
    }
    bill_queue(&mut ledger, scenario, outcome, until);
    let network = &scenario.network;
    for (name, bytes, price) in [
        ("between regions", moved.between_regions, network.per_thousand_gib_between_regions),
        ("to clients", moved.egress, network.per_thousand_gib_egress),
    ] {
        let item = item(ChargeCategory::Transfer, "network", name, "GiB", "scenario");
        ledger.book(item, bytes as f64 / GIB, &Rate::flat(price, THOUSAND), until);
    }
    ledger
}

fn item<'a>(
    category: ChargeCategory,
    resource: &'a str,
    name: &'a str,
    unit: &'static str,
    source: &'a str,
) -> Item<'a> {
    Item { category, resource, name, unit, source }
}

fn bill_tier(ledger: &mut Ledger, scenario: &Scenario, index: usize, uses: &[TierUse; 2], until: Instant) {
    let tier = &scenario.tiers[index];
    let (name, source, prices) = (tier.name.as_str(), tier.source.as_str(), &tier.prices);
    let [get, put] = uses;
    let requests = |what, unit| item(ChargeCategory::Requests, name, what, unit, source);
    ledger.book(
        requests("get", "requests"),
        get.requests as f64,
        &Rate::flat(prices.per_million_get, MILLION),
        until,
    );
    ledger.book(
        requests("put", "requests"),
        put.requests as f64,
        &Rate::flat(prices.per_million_put, MILLION),
        until,
    );
    let per_gib = |price| Rate::flat(price, THOUSAND);
    ledger.book(
        requests("get data", "GiB"),
        get.priced_bytes as f64 / GIB,
        &per_gib(prices.per_thousand_gib_get),
        until,
    );
    ledger.book(
        requests("put data", "GiB"),
        put.priced_bytes as f64 / GIB,
        &per_gib(prices.per_thousand_gib_put),
        until,
    );
    let kept = put.bytes as f64 * tier.retention.as_secs_f64() / GIB_MONTH;
    let storage = item(ChargeCategory::Storage, name, "storage", "GiB-month", source);
    ledger.book(storage, kept, &Rate::flat(prices.per_thousand_gib_month, THOUSAND), until);
}

/// Queue requests: so many per delivery, and one per poll of an idle slot.
fn bill_queue(ledger: &mut Ledger, scenario: &Scenario, outcome: &Outcome, until: Instant) {
    let prices = &scenario.queue;
    let rate = Rate::flat(prices.per_million_requests, MILLION);
    let starts: u64 = outcome
        .stages
        .iter()
        .zip(&scenario.system.stages)
        .map(
            |(stats, stage)| {
                if stage.place == policy::model::Place::Outside { 0 } else { stats.wait.count() }
            },
        )
        .sum();
    let deliveries = item(ChargeCategory::Requests, "queue", "deliveries", "requests", "scenario");
    ledger.book(deliveries, starts as f64 * prices.requests_per_delivery, &rate, until);
    if let Some(poll) = prices.idle_poll.filter(|poll| *poll > Duration::ZERO) {
        let idle: f64 = outcome.pools.iter().map(|pool| (pool.offered - pool.busy).as_secs_f64()).sum();
        let polls = item(ChargeCategory::Requests, "queue", "empty receives", "requests", "scenario");
        ledger.book(polls, (idle / poll.as_secs_f64()).floor(), &rate, until);
    }
}

/// The transfers that a tier's statistics name, for reports.
pub(crate) fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Get => "get",
        Operation::Put => "put",
    }
}
