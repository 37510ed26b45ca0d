//! A provider of machines: slow, short of capacity, and now and then mute after it did what it was asked.

use std::collections::BTreeMap;

use control::command::LaunchToken;
use policy::model::PoolId;

/// What the provider knows of a machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    pub(crate) pool: PoolId,
    pub(crate) runs: bool,
}

/// The provider's own book. It never makes two machines for one token.
#[derive(Debug, Default)]
pub(crate) struct Cloud {
    pub(crate) machines: BTreeMap<LaunchToken, Machine>,
    pub(crate) launches: u64,
}

impl Cloud {
    /// Makes a machine, or finds the one that was made by that token; `None` when that one is gone.
    pub(crate) fn launch(&mut self, token: LaunchToken, pool: PoolId) -> (bool, Option<String>) {
        if let Some(machine) = self.machines.get(&token) {
            return (false, machine.runs.then(|| format!("m-{token}")));
        }
        self.launches += 1;
        self.machines.insert(token, Machine { pool, runs: true });
        (true, Some(format!("m-{token}")))
    }

    /// Ends a machine, if it is there.
    pub(crate) fn terminate(&mut self, token: LaunchToken) {
        if let Some(machine) = self.machines.get_mut(&token) {
            machine.runs = false;
        }
    }

    /// Tokens of machines that run.
    pub(crate) fn running(&self) -> Vec<LaunchToken> {
        self.machines.iter().filter(|(_, machine)| machine.runs).map(|(token, _)| *token).collect()
    }
}
