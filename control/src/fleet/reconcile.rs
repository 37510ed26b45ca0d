//! Compares the machines that providers have with those that the plane knows. Machines that no launch needs are ended;
//! machines that the plane counts on and nobody has are reported gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Provider;
use crate::command::{Command, LaunchToken};
use crate::shell::{Busy, Handle};

/// Compares, again and again.
pub(super) struct Reconciler {
    handle: Handle,
    /// Each provider once, with its pools.
    providers: Vec<(Arc<dyn Provider>, BTreeSet<u16>)>,
    /// Machines that their provider does not list, and since when.
    missing: BTreeMap<LaunchToken, tokio::time::Instant>,
}

impl Reconciler {
    pub(super) fn new(handle: Handle, providers: &[Arc<dyn Provider>]) -> Self {
        let mut once: Vec<(Arc<dyn Provider>, BTreeSet<u16>)> = Vec::new();
        for (pool, provider) in (0..).zip(providers) {
            match once.iter_mut().find(|(known, _)| Arc::ptr_eq(known, provider)) {
                Some((_, pools)) => {
                    pools.insert(pool);
                }
                None => once.push((provider.clone(), BTreeSet::from([pool]))),
            }
        }
        Self { handle, providers: once, missing: BTreeMap::new() }
    }

    /// Compares at once and then every so often; ends with the plane.
    pub(super) async fn run(mut self, every: Duration) -> Busy {
        loop {
            if let Err(busy) = self.compare().await {
                return busy;
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Compares once.
    ///
    /// The plane is asked before and after each list: what it knew before and the list lacks may be gone; what is in the
    /// list and it does not know afterwards is needed by nobody, since it knows of every launch before the provider does.
    async fn compare(&mut self) -> Result<(), Busy> {
        let mut missing = BTreeMap::new();
        for (provider, pools) in &self.providers {
            let before = match self.handle.look(|plane| plane.launches()).await {
                Ok(before) => before,
                Err(Busy::Full) => return Ok(()),
                Err(Busy::Stopped) => return Err(Busy::Stopped),
            };
            let own = match provider.list().await {
                Ok(own) => own,
                Err(error) => {
                    tracing::warn!("{error}; its machines are not compared now");
                    continue;
                }
            };
            let after = match self.handle.look(|plane| plane.launches()).await {
                Ok(after) => after,
                Err(Busy::Full) => return Ok(()),
                Err(Busy::Stopped) => return Err(Busy::Stopped),
            };
            let known: BTreeSet<LaunchToken> = after.iter().map(|launch| launch.token).collect();
            for machine in own.iter().filter(|machine| !known.contains(&machine.token)) {
                tracing::warn!(handle = machine.handle, "ending a machine that no launch needs");
                if let Err(error) = provider.terminate(machine.token, Some(machine.handle.clone())).await {
                    tracing::error!("{error}; tried again at the next comparison");
                }
            }
            let listed: BTreeSet<LaunchToken> = own.iter().map(|machine| machine.token).collect();
            let counted_on = before.iter().filter(|launch| {
                pools.contains(&launch.pool.0) && launch.handle.is_some() && known.contains(&launch.token)
            });
            for launch in counted_on.filter(|launch| !listed.contains(&launch.token)) {
                let now = tokio::time::Instant::now();
                let since = self.missing.get(&launch.token).copied().unwrap_or(now);
                if now.duration_since(since) < provider.list_lag() {
                    missing.insert(launch.token, since);
                } else {
                    tracing::warn!(handle = launch.handle, "a machine is gone");
                    self.handle.tell(Command::MachineGone { token: launch.token }).await?;
                }
            }
        }
        self.missing = missing;
        Ok(())
    }
}
