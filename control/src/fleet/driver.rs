//! Takes the plane's orders to the providers, tries again what may be tried again, and tells the plane what became of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policy::model::PoolId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::guard::{Guard, SpendLimits};
use super::reconcile::Reconciler;
use super::{LaunchError, Provider};
use crate::command::{Command, LaunchRefusal, LaunchToken};
use crate::shell::{Busy, FleetOrder, Handle};

/// First pause before a call is made again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How a fleet is driven.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSettings {
    /// Log what would be launched; launch nothing.
    pub is_dry_run: bool,
    /// What may be spent.
    pub limits: SpendLimits,
    /// A launch without an answer is given up after so long.
    pub launch_for: Duration,
    /// Time between two comparisons of the providers' machines with the plane's.
    pub reconcile_every: Duration,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            is_dry_run: false,
            limits: SpendLimits::default(),
            launch_for: Duration::from_secs(300),
            reconcile_every: Duration::from_secs(30),
        }
    }
}

/// Drives the providers of a plane.
pub struct Fleet {
    handle: Handle,
    /// By pool.
    providers: Vec<Arc<dyn Provider>>,
    settings: FleetSettings,
    guard: Guard,
    /// Launches under way; the flag ends their tries.
    launching: BTreeMap<LaunchToken, watch::Sender<bool>>,
    /// Terminations under way.
    ending: BTreeMap<LaunchToken, ()>,
    calls: JoinSet<Finished>,
}

/// A call that is over.
enum Finished {
    Launch { token: LaunchToken, pool: PoolId, result: Result<Option<String>, LaunchRefusal> },
    Terminate { token: LaunchToken },
}

impl Fleet {
    /// A driver; `providers` holds one per pool of the plane, in the plane's order.
    pub fn new(handle: Handle, providers: Vec<Arc<dyn Provider>>, settings: FleetSettings) -> Self {
        Self {
            guard: Guard::new(handle.clone(), settings.limits),
            handle,
            providers,
            settings,
            launching: BTreeMap::new(),
            ending: BTreeMap::new(),
            calls: JoinSet::new(),
        }
    }

    /// Works until the plane stops.
    pub async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<FleetOrder>,
        mut news: mpsc::UnboundedReceiver<Command>,
    ) {
        let mut look = tokio::time::interval(Duration::from_secs(1));
        let reconciler = Reconciler::new(self.handle.clone(), &self.providers);
        let comparing = reconciler.run(self.settings.reconcile_every);
        tokio::pin!(comparing);
        loop {
            let done = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.order(order).await,
                    None => return,
                },
                Some(command) = news.recv() => self.handle.tell(command).await,
                Some(finished) = self.calls.join_next() => match finished {
                    Ok(finished) => self.finished(finished).await,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                _ = look.tick() => self.guard.look().await,
                busy = &mut comparing => Err(busy),
            };
            if let Err(Busy::Stopped) = done {
                return;
            }
        }
    }

    async fn order(&mut self, order: FleetOrder) -> Result<(), Busy> {
        match order {
            FleetOrder::Launch { token, pool } => self.launch(token, pool).await,
            FleetOrder::Terminate { token, pool, handle } => {
                self.terminate(token, pool, handle);
                Ok(())
            }
            FleetOrder::Hold { is_held } => {
                if is_held {
                    self.launching.values().for_each(|stop| {
                        stop.send_replace(true);
                    });
                }
                Ok(())
            }
        }
    }

    async fn launch(&mut self, token: LaunchToken, pool: PoolId) -> Result<(), Busy> {
        if self.launching.contains_key(&token) {
            return Ok(());
        }
        let Some(provider) = self.providers.get(pool.index()).cloned() else {
            let why = LaunchRefusal::Other("no provider serves the pool".to_owned());
            return self.handle.tell(Command::LaunchFailed { token, why }).await;
        };
        if self.settings.is_dry_run {
            tracing::info!(pool = pool.0, provider = provider.name(), "dry run: would launch a machine");
            return self.handle.tell(Command::LaunchFailed { token, why: LaunchRefusal::Held }).await;
        }
        if !self.guard.admits(token, pool).await? {
            return self.handle.tell(Command::LaunchFailed { token, why: LaunchRefusal::Held }).await;
        }
        let (stop, stopped) = watch::channel(false);
        self.launching.insert(token, stop);
        let patience = self.settings.launch_for;
        self.calls.spawn(async move {
            let result = try_launch(provider, token, pool, stopped, patience).await;
            Finished::Launch { token, pool, result }
        });
        Ok(())
    }

    fn terminate(&mut self, token: LaunchToken, pool: PoolId, handle: Option<String>) {
        if let Some(stop) = self.launching.get(&token) {
            // Its end, whichever, has the plane order the termination again, with the machine's name.
            stop.send_replace(true);
            return;
        }
        let Some(provider) = self.providers.get(pool.index()).cloned() else { return };
        if self.ending.insert(token, ()).is_some() {
            return;
        }
        self.calls.spawn(async move {
            try_terminate(provider, token, handle).await;
            Finished::Terminate { token }
        });
    }

    async fn finished(&mut self, finished: Finished) -> Result<(), Busy> {
        match finished {
            Finished::Launch { token, pool, result } => {
                self.launching.remove(&token);
                self.guard.settled(token);
                match result {
                    Ok(Some(handle)) => {
                        tracing::info!(pool = pool.0, handle, "launched a machine");
                        self.handle.tell(Command::Launched { token, handle }).await
                    }
                    Ok(None) => Ok(()),
                    Err(why) => {
                        tracing::warn!(pool = pool.0, ?why, "no machine was launched");
                        self.handle.tell(Command::LaunchFailed { token, why }).await
                    }
                }
            }
            Finished::Terminate { token } => {
                self.ending.remove(&token);
                self.handle.tell(Command::MachineGone { token }).await
            }
        }
    }
}

/// Tries until there is an answer, nobody wants the machine any more, or patience ends. In the latter cases a machine may
/// exist all the same: the comparison with the provider's list finds it.
async fn try_launch(
    provider: Arc<dyn Provider>,
    token: LaunchToken,
    pool: PoolId,
    mut stopped: watch::Receiver<bool>,
    patience: Duration,
) -> Result<Option<String>, LaunchRefusal> {
    let until = tokio::time::Instant::now() + patience;
    let mut pause = PAUSE_MIN;
    loop {
        let error = match provider.launch(token, pool).await {
            Ok(handle) => return Ok(handle),
            Err(LaunchError::Refused(why)) => return Err(why),
            Err(LaunchError::Again(error)) => error,
        };
        tracing::warn!("launching for pool {}: {error}; again in {pause:?}", pool.0);
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = tokio::time::sleep(pause) => {}
        }
        let is_over = *stopped.borrow();
        if is_over || tokio::time::Instant::now() >= until {
            return Err(if is_over { LaunchRefusal::Held } else { LaunchRefusal::Other(error.to_string()) });
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Tries until it is done: a machine that nobody ends costs for ever.
async fn try_terminate(provider: Arc<dyn Provider>, token: LaunchToken, handle: Option<String>) {
    let mut pause = PAUSE_MIN;
    while let Err(error) = provider.terminate(token, handle.clone()).await {
        tracing::error!("terminating {handle:?} ({token}): {error}; again in {pause:?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
