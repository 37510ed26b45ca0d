//! A leader says that it lives. It does so on a thread and a connection of its own, so that neither load nor a long
//! commit keeps it from doing so; and it notices first when it cannot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::LeaseGate;
use crate::store::{Election, PostgresPlace, StoreError};

/// Pause before a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Time for giving up the leadership in good order; without, the others wait for the lease to end.
const RESIGN_FOR: Duration = Duration::from_secs(2);

/// What a leader does for its lease.
#[derive(Clone)]
pub(super) struct Renewal {
    pub(super) place: PostgresPlace,
    pub(super) epoch: u64,
    pub(super) gate: Arc<LeaseGate>,
    pub(super) lease: Duration,
    pub(super) every: Duration,
}

/// The renewals under way.
pub(super) struct Lead {
    gate: Arc<LeaseGate>,
    resign: oneshot::Sender<oneshot::Sender<()>>,
    lost: watch::Receiver<Option<String>>,
}

impl Lead {
    /// Begins to renew.
    pub(super) fn start(renewal: Renewal) -> std::io::Result<Self> {
        let (gate, (resign, resigns), (losing, lost)) =
            (renewal.gate.clone(), oneshot::channel(), watch::channel(None));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("lease".to_owned()).spawn(move || {
            let gate = renewal.gate.clone();
            if let Some(why) = runtime.block_on(renewal.run(resigns)) {
                gate.close();
                losing.send_replace(Some(why));
            }
            runtime.shutdown_background();
        })?;
        Ok(Self { gate, resign, lost })
    }

    /// Completes when the lease is lost, with the reason.
    pub(super) async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| "the thread that renews the lease is gone".to_owned())
    }

    /// Gives the leadership up: nothing is answered any more, and a standby takes over at once.
    pub(super) async fn resign(self) {
        self.gate.close();
        let (done, is_done) = oneshot::channel();
        if self.resign.send(done).is_ok() {
            let _ = tokio::time::timeout(RESIGN_FOR, is_done).await;
        }
    }
}

impl Renewal {
    /// Renews until asked to resign, or until the lease is lost, for the reason that it returns.
    async fn run(self, mut resigns: oneshot::Receiver<oneshot::Sender<()>>) -> Option<String> {
        let mut election = None;
        let mut last = "the database does not answer".to_owned();
        loop {
            let asked = Instant::now();
            let left = self.gate.left(asked);
            let pause = tokio::select! {
                done = &mut resigns => {
                    if let Ok(done) = done {
                        let _ = tokio::time::timeout(RESIGN_FOR, self.resign(election)).await;
                        let _ = done.send(());
                    }
                    return None;
                }
                renewed = tokio::time::timeout(left, self.renew(&mut election)) => match renewed {
                    Ok(Ok(true)) => {
                        self.gate.renew(asked, self.lease);
                        self.every
                    }
                    Ok(Ok(false)) => return Some(format!("epoch {} is over: another plane took over", self.epoch)),
                    Ok(Err(error)) => {
                        tracing::warn!("the lease was not renewed: {error}");
                        election = None;
                        last = error.to_string();
                        AGAIN
                    }
                    Err(_) => Duration::ZERO,
                },
            };
            let left = self.gate.left(Instant::now());
            if left.is_zero() {
                return Some(format!("the lease ended before it could be renewed: {last}"));
            }
            tokio::select! {
                done = &mut resigns => {
                    if let Ok(done) = done {
                        let _ = tokio::time::timeout(RESIGN_FOR, self.resign(election)).await;
                        let _ = done.send(());
                    }
                    return None;
                }
                () = tokio::time::sleep(pause.min(left)) => {}
            }
        }
    }

    async fn renew(&self, election: &mut Option<Election>) -> Result<bool, StoreError> {
        let election = match election {
            Some(election) => election,
            none => none.insert(Election::reconnect(self.place.clone()).await?),
        };
        election.renew(self.epoch).await
    }

    async fn resign(&self, election: Option<Election>) {
        let resign = async {
            let election = match election {
                Some(election) => election,
                None => Election::reconnect(self.place.clone()).await?,
            };
            election.resign(self.epoch).await
        };
        if let Err(error) = resign.await {
            tracing::warn!("the leadership was not given up, its lease must end: {error}");
        }
    }
}
