//! What a plane is told before its first command: the system, how it is billed, and how patient it is with workers.

use std::collections::BTreeSet;

use policy::model::{Billing, CapacityType, PoolId, System};
use policy::units::Duration;
use scenarios::scenario::Scenario;
use serde::{Deserialize, Serialize};

use super::served::ScenarioText;

/// How patient a plane is, and how much it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Patience {
    /// Jobs in the system at most; beyond, submissions are turned away.
    pub jobs_max: u32,
    /// Time between two beats of a worker.
    pub beat: Duration,
    /// A connected worker that says nothing for so long does not answer: its jobs go elsewhere.
    pub silence: Duration,
    /// A disconnected worker has so long to come back before its jobs go elsewhere.
    pub reconnect: Duration,
    /// The same after a plane took over, when all workers are disconnected at once.
    pub rejoin: Duration,
    /// A worker that has not answered for so long is given up, and its machine terminated.
    pub lost: Duration,
    /// A launched machine whose worker has not joined after so long is given up.
    pub join: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency: Duration,
    /// Idempotency keys remembered at most; the oldest go first.
    pub idempotency_max: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            jobs_max: 2_000_000,
            beat: Duration::from_secs(2),
            silence: Duration::from_secs(10),
            reconnect: Duration::from_millis(500),
            rejoin: Duration::from_secs(15),
            lost: Duration::from_secs(120),
            join: Duration::from_secs(1800),
            idempotency: Duration::from_secs(24 * 3600),
            idempotency_max: 2_000_000,
        }
    }
}

/// Everything that a plane's decisions depend on, beside its commands.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Name of the scenario.
    pub name: String,
    /// Digest of the scenario's text.
    pub digest: String,
    /// What the dispatcher knows.
    pub system: System,
    /// How held time is billed, by pool.
    pub billing: Vec<Billing>,
    /// Seed of the dispatcher's chance.
    pub seed: u64,
    /// Which shard's job numbers this plane gives.
    pub shard: u16,
    /// Key of launch tokens; from the store, made once.
    pub secret: [u8; 32],
    /// Limits and times.
    pub patience: Patience,
    /// Pools whose workers join by themselves, without a launch.
    pub joined: BTreeSet<PoolId>,
    /// What all this was read from, so that the journal can say it; without it the journal does not know its rules.
    pub text: Option<ScenarioText>,
}

/// A scenario that the simulator can play and a live plane cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// External pools are simulated only.
    #[error(
        "pool `{pool}` is external: a live plane cannot call it yet. Give it `count_max = 0`, or remove it with --set"
    )]
    External { pool: String },
}

impl Rules {
    /// The rules of a scenario.
    ///
    /// # Errors
    /// [`RulesError`] when the scenario needs what only the simulator has.
    pub fn new(
        scenario: &Scenario,
        shard: u16,
        secret: [u8; 32],
        patience: Patience,
    ) -> Result<Self, RulesError> {
        let external = |pool: &&policy::model::Pool| {
            pool.offering.capacity_type == CapacityType::External && pool.count_max > 0
        };
        if let Some(pool) = scenario.system.pools.iter().find(external) {
            return Err(RulesError::External { pool: pool.name.clone() });
        }
        Ok(Self {
            name: scenario.name.clone(),
            digest: scenario.digest.clone(),
            system: scenario.system.clone(),
            billing: scenario.pools.iter().map(|pool| pool.billing).collect(),
            seed: scenario.run.seed,
            shard,
            secret,
            patience,
            joined: BTreeSet::new(),
            text: None,
        })
    }

    /// The pool called `name`.
    pub fn pool(&self, name: &str) -> Option<PoolId> {
        self.system.pools.iter().position(|pool| pool.name == name).map(|index| PoolId(index as u16))
    }
}
