//! Regions, the network between them, and the queue.

use policy::model::{QueueOrder, Region};
use policy::units::{Bytes, Duration, Usd};

use super::Resolver;
use crate::catalog::Catalog;
use crate::defaults;
use crate::diagnostics::{ErrorKind, Key};
use crate::file::network::OrderFile;
use crate::file::quantity::{Money, Size, Time};
use crate::scenario::{Network, QueuePrices};

impl Resolver<'_> {
    pub(super) fn regions(&mut self) -> Vec<Region> {
        let count = self.names.regions.len();
        let mut known: Vec<Vec<Option<Duration>>> = vec![vec![None; count]; count];
        let key = Key::of("network.round_trip");
        for (pair, Time(time)) in self.file.network.round_trip.iter() {
            let key = key.at(pair);
            let Some((from, to)) = pair.split_once('/') else {
                let message = "a pair of regions is written \"FROM/TO\", e.g. \"us-east-1/eu-west-1\"";
                self.problems.add(ErrorKind::Value, &key, message);
                continue;
            };
            let from = self.problems.find(&key, "region", from.trim(), &self.names.regions);
            let to = self.problems.find(&key, "region", to.trim(), &self.names.regions);
            if let (Some(from), Some(to)) = (from, to) {
                if known[from][to].is_some() {
                    let message = format!("the round trip of `{pair}` is stated twice");
                    self.problems.add(ErrorKind::Duplicate, &key, message);
                }
                known[from][to] = Some(*time);
            }
        }
        let otherwise = self.file.network.round_trip_default.map(|Time(time)| time);
        let mut regions = Vec::new();
        for (from, name) in self.names.regions.iter().enumerate() {
            let mut round_trip = Vec::new();
            for (to, other) in self.names.regions.iter().enumerate() {
                let own = (from == to).then_some(Duration::ZERO);
                let time = known[from][to].or(known[to][from]).or(own).or(otherwise);
                if time.is_none() && from < to {
                    let message = format!("the round trip between `{name}` and `{other}` is not known");
                    let help = format!("add \"{name}/{other}\" = \"80ms\", or `round_trip_default`");
                    self.problems.add_with_help(ErrorKind::Missing, &key, message, help);
                }
                round_trip.push(time.unwrap_or(Duration::ZERO));
            }
            regions.push(Region { name: name.clone(), round_trip });
        }
        regions
    }

    pub(super) fn network(&mut self) -> Network {
        let file = &self.file.network;
        let key = Key::of("network");
        let bytes = |size: Option<Size>| size.map_or(Bytes::ZERO, |Size(bytes)| bytes);
        let trips = file.round_trips_per_job.unwrap_or(defaults::ROUND_TRIPS_PER_JOB);
        let between = self.thousandfold(&key.at("per_gb_between_regions"), file.per_gb_between_regions);
        Network {
            round_trips_per_job: self.not_negative(&key.at("round_trips_per_job"), trips),
            bytes_per_job: bytes(file.bytes_per_job),
            per_thousand_gib_between_regions: between,
            egress_bytes_per_job: bytes(file.egress_bytes_per_job),
            per_thousand_gib_egress: self.thousandfold(&key.at("per_gb_egress"), file.per_gb_egress),
            probe_cost: file.probe_cost.map_or(Duration::ZERO, |Time(cost)| cost),
        }
    }

    pub(super) fn queue_order(&self) -> QueueOrder {
        match self.file.queue.order {
            None => defaults::QUEUE_ORDER,
            Some(OrderFile::Fifo) => QueueOrder::Fifo,
            Some(OrderFile::Lifo) => QueueOrder::Lifo,
            Some(OrderFile::Deadline) => QueueOrder::Deadline,
        }
    }

    pub(super) fn queue_per_slot_max(&mut self) -> Option<f64> {
        let limit = self.file.queue.per_slot_max?;
        Some(self.not_negative(&Key::of("queue.per_slot_max"), limit))
    }

    pub(super) fn queue_prices(&mut self) -> QueuePrices {
        let file = &self.file.queue;
        let key = Key::of("queue");
        let mut prices = match (&file.price, file.per_million_requests) {
            (Some(_), Some(_)) => {
                let message = "state either `price` or `per_million_requests`, not both";
                self.problems.add(ErrorKind::Conflict, &key.at("price"), message);
                QueuePrices::default()
            }
            (Some(tariff), None) => {
                let found = Catalog::embedded().queue_prices(tariff);
                let found = self.problems.check(ErrorKind::Price, &key.at("price"), found);
                found.map(|(prices, _)| prices).unwrap_or_default()
            }
            (None, Some(Money(per_million_requests))) => {
                let idle_poll = (per_million_requests > Usd::ZERO).then_some(defaults::IDLE_POLL);
                let requests_per_delivery = defaults::REQUESTS_PER_DELIVERY;
                QueuePrices { per_million_requests, requests_per_delivery, idle_poll }
            }
            (None, None) => {
                let requests_per_delivery = defaults::REQUESTS_PER_DELIVERY;
                QueuePrices { requests_per_delivery, ..QueuePrices::default() }
            }
        };
        if let Some(requests) = file.requests_per_delivery {
            prices.requests_per_delivery = self.not_negative(&key.at("requests_per_delivery"), requests);
        }
        if let Some(poll) = self.lasting_if_stated(&key.at("idle_poll"), file.idle_poll) {
            prices.idle_poll = Some(poll);
        }
        prices
    }
}
