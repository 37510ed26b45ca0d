//! The simulator's market on the wall clock: whether and when the machines of a rehearsal boot, are ready, are taken away.

use std::time::Duration;

use control::fleet::{Fate, Fates, Loss, Rehearsal};
use policy::model::{InstanceId, PoolId};
use scenarios::scenario::Scenario;
use sim::world::{FleetWorld, LaunchPlan};
use tokio::time::Instant;

/// The simulator's market, on the wall clock.
pub(super) struct Market {
    world: FleetWorld,
    began: Instant,
    /// Machines that each pool has from the start and that were not launched yet.
    initial: Vec<u32>,
}

impl Market {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let pools = &scenario.system.pools;
        let inputs = sim::inputs::Inputs { traces: Vec::new(), availability: vec![None; pools.len()] };
        Self {
            world: FleetWorld::new(scenario, &inputs, 0),
            began: Instant::now(),
            initial: pools.iter().map(|pool| pool.count_initial).collect(),
        }
    }
}

impl Fates for Market {
    fn launch(&mut self, machine: u32, pool: PoolId) -> Fate {
        let elapsed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let now = policy::units::Instant::from_nanos(elapsed);
        let left = &mut self.initial[pool.index()];
        let is_initial = *left > 0;
        *left = left.saturating_sub(1);
        match self.world.launch(now, InstanceId(machine), pool, is_initial) {
            LaunchPlan::Refused { after } => Fate::Refused { after: Duration::from_nanos(after) },
            LaunchPlan::Starts { booted, ready, lost } => Fate::Starts {
                booted: Duration::from_nanos(booted),
                ready: Duration::from_nanos(ready),
                lost: lost.map(|loss| Loss {
                    // Ages away is never.
                    after: Duration::from_nanos(loss.after).min(Duration::from_secs(30 * 86_400)),
                    notice: Duration::from_nanos(loss.notice),
                }),
            },
        }
    }

    fn gone(&mut self, machine: u32, pool: PoolId) {
        self.world.gone(InstanceId(machine), pool);
    }

    fn groups(&self) -> usize {
        self.world.shock_groups()
    }

    fn next_shock(&mut self, group: usize) -> Option<Duration> {
        self.world.next_shock(group).map(Duration::from_nanos)
    }

    fn shock(&mut self, group: usize) -> Vec<(u32, Duration)> {
        let elapsed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let taken = self.world.shock(policy::units::Instant::from_nanos(elapsed), group);
        taken.into_iter().map(|(id, _, notice)| (id.0, Duration::from_nanos(notice))).collect()
    }
}

/// Shakes the market as the scenario says.
pub(super) async fn shocks(rehearsal: Rehearsal) {
    let groups = rehearsal.with_fates(|fates| fates.groups());
    let mut all = tokio::task::JoinSet::new();
    for group in 0..groups {
        let rehearsal = rehearsal.clone();
        all.spawn(async move {
            while let Some(after) = rehearsal.with_fates(|fates| fates.next_shock(group)) {
                tokio::time::sleep(after.min(Duration::from_secs(30 * 86_400))).await;
                for (machine, notice) in rehearsal.with_fates(|fates| fates.shock(group)) {
                    rehearsal.take(machine, notice);
                }
            }
        });
    }
    while all.join_next().await.is_some() {}
}
