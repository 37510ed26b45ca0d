//! Spot prices for a running plane: every few minutes the pools' prices, as they hold now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use policy::model::{CapacityType, Pool, PoolId};
use policy::units::UsdPerHour;
use tokio::sync::watch;

use super::spot::pool_price;
use super::update::spot;
use crate::aws::Reach;
use crate::command::Command;
use crate::shell::Handle;

/// A pool whose price follows the market.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SpotPool {
    pool: PoolId,
    region: String,
    instance_type: String,
    zone: Option<String>,
}

/// Tells the plane the prices of its spot pools on Amazon.
pub struct PriceWatch {
    handle: Handle,
    pools: Vec<SpotPool>,
    clients: BTreeMap<String, aws_sdk_ec2::Client>,
    every: Duration,
    told: BTreeMap<PoolId, UsdPerHour>,
}

impl PriceWatch {
    /// A watch over those of `pools` that are spot capacity of Amazon's.
    pub async fn new(handle: Handle, pools: &[Pool], every: Duration, reach: &Reach) -> Self {
        let pools: Vec<SpotPool> =
            (0..).zip(pools).filter_map(|(index, pool)| spot_pool(index, pool)).collect();
        let regions: BTreeSet<&str> = pools.iter().map(|pool| pool.region.as_str()).collect();
        let mut clients = BTreeMap::new();
        for region in regions {
            let client = aws_sdk_ec2::Client::new(&reach.region(region).config().await);
            clients.insert(region.to_owned(), client);
        }
        Self { handle, pools, clients, every, told: BTreeMap::new() }
    }

    /// Works until `stop` becomes true or the plane stops. Without an answer the prices stay as they are.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !self.pools.is_empty() {
            for (pool, price) in self.look().await {
                if self.told.insert(pool, price) == Some(price) {
                    continue;
                }
                tracing::info!(pool = pool.0, usd_per_hour = price.as_f64(), "the spot price changed");
                if self.handle.tell(Command::PriceChanged { pool, price }).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn look(&self) -> Vec<(PoolId, UsdPerHour)> {
        let mut prices = Vec::new();
        for (region, client) in &self.clients {
            let here = || self.pools.iter().filter(|pool| pool.region == *region);
            let types: BTreeSet<String> = here().map(|pool| pool.instance_type.clone()).collect();
            match spot(client, &types).await {
                Ok(quotes) => prices.extend(here().filter_map(|pool| {
                    let price = pool_price(&quotes, &pool.instance_type, pool.zone.as_deref())?;
                    Some((pool.pool, price))
                })),
                Err(what) => tracing::warn!("spot prices of {region}: {what}; the last ones stay"),
            }
        }
        prices
    }
}

fn spot_pool(index: u16, pool: &Pool) -> Option<SpotPool> {
    let offering = &pool.offering;
    let is_ours = offering.provider == "aws" && offering.capacity_type == CapacityType::Spot;
    is_ours.then(|| SpotPool {
        pool: PoolId(index),
        region: offering.region.clone(),
        instance_type: offering.instance_type.clone(),
        zone: Some(offering.zone.clone()).filter(|zone| !zone.is_empty()),
    })
}
