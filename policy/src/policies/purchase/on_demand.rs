//! On-demand only.
use super::*;
pub(super) struct Temporary;
impl PurchasePolicy for Temporary {
    fn on_event(&mut self, _now: Instant, _event: PoolEvent) {}
    fn allocate(&mut self, _now: Instant, target: u32, pools: &[PoolView]) -> Vec<PoolTarget> {
        let mut left = target;
        let take = |pool: &PoolView| {
            let instances = left.clamp(pool.count_min, pool.count_max);
            left = left.saturating_sub(instances);
            PoolTarget { pool: pool.pool, instances, reason: Reason::new("in-order", "temporary rule") }
        };
        pools.iter().map(take).collect()
    }
}
