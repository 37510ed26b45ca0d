//! What a plane is started with, as text: from this its rules are made, today and whenever its journal is read.

use std::path::Path;

use policy::model::PoolId;
use scenarios::scenario::compressed;
use serde::{Deserialize, Serialize};

use super::rules::{Patience, Rules, RulesError};

/// A scenario that a plane serves, as text.
#[derive(Clone, Debug, PartialEq)]
pub struct ScenarioText {
    /// Whole TOML: nothing is extended.
    pub toml: String,
    /// So many times as fast as the text it runs: 1 but in rehearsals.
    pub compress: f64,
}

/// What a plane is started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Name of the scenario.
    pub name: String,
    /// The whole scenario, TOML.
    pub scenario: String,
    /// So many times as fast as its text it runs: 1 but in rehearsals.
    pub compress: f64,
    /// Which shard's jobs are taken.
    pub shard: u16,
    /// Pools whose workers join by themselves.
    pub joined: Vec<String>,
    /// Limits and times.
    pub patience: Patience,
}

/// Text of which no rules can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServedError {
    /// It does not load.
    #[error("the scenario cannot be loaded: {0}")]
    Scenario(String),
    /// It cannot be run.
    #[error(transparent)]
    Rules(#[from] RulesError),
}

impl Served {
    /// What `rules` were made of; `None` where their text was not given.
    pub fn of(rules: &Rules) -> Option<Self> {
        let text = rules.text.as_ref()?;
        let name = |pool: &PoolId| rules.system.pools[pool.index()].name.clone();
        Some(Self {
            name: rules.name.clone(),
            scenario: text.toml.clone(),
            compress: text.compress,
            shard: rules.shard,
            joined: rules.joined.iter().map(name).collect(),
            patience: rules.patience.clone(),
        })
    }

    /// The rules; the secret is the store's.
    ///
    /// # Errors
    /// [`ServedError`].
    pub fn rules(&self, secret: [u8; 32]) -> Result<Rules, ServedError> {
        let text = ScenarioText { toml: self.scenario.clone(), compress: self.compress };
        let mut rules = load(&self.name, text, self.shard, secret, self.patience.clone())?;
        rules.joined = self.joined.iter().filter_map(|name| rules.pool(name)).collect();
        Ok(rules)
    }
}

impl Rules {
    /// These rules with another scenario, for a system of the same shape: what is not the scenario's stays, and so does the
    /// seed, since chance goes on where it was. The text must be whole: what it extends is not at hand when a journal is
    /// replayed.
    ///
    /// # Errors
    /// [`ServedError`].
    pub(crate) fn reloaded(&self, toml: &str) -> Result<Self, ServedError> {
        let compress = self.text.as_ref().map_or(1.0, |text| text.compress);
        let text = ScenarioText { toml: toml.to_owned(), compress };
        let mut rules = load("the scenario", text, self.shard, self.secret, self.patience.clone())?;
        rules.joined.clone_from(&self.joined);
        rules.seed = self.seed;
        Ok(rules)
    }

    /// Whether a plane decides the same under both, whatever their texts look like.
    pub fn decides_like(&self, other: &Self) -> bool {
        self.system == other.system
            && self.billing == other.billing
            && self.shard == other.shard
            && self.patience == other.patience
            && self.joined == other.joined
    }
}

fn load(
    name: &str,
    text: ScenarioText,
    shard: u16,
    secret: [u8; 32],
    patience: Patience,
) -> Result<Rules, ServedError> {
    let loaded = scenarios::load_str(name, &text.toml, Path::new("/nonexistent"), &[]).map_err(|errors| {
        ServedError::Scenario(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    let scenario = compressed(loaded.scenario, text.compress);
    let rules = Rules::new(&scenario, shard, secret, patience)?;
    Ok(Rules { text: Some(text), ..rules })
}
