//! Who leads which shard, as it was seen a moment ago. Asked of the database twice a second; never trusted for anything
//! but directions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::store::{Election, Leader, PostgresPlace};

/// Pause before a database that could not be asked is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// What was seen last.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Leaders by shard.
    pub leaders: Vec<Leader>,
    /// When; `None` before the first answer, and while the database does not answer.
    pub at: Option<Instant>,
}

/// Who leads which shard.
#[derive(Clone)]
pub struct Directory {
    seen: watch::Receiver<Arc<Seen>>,
    lease: Duration,
}

impl Directory {
    /// Asks every `poll` from now on, until the task that is returned is aborted.
    pub(super) fn start(
        place: PostgresPlace,
        poll: Duration,
        lease: Duration,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, seen) = watch::channel(Arc::default());
        let task = tokio::spawn(ask(place, poll, sender));
        (Self { seen, lease }, task)
    }

    /// What was seen last; changes wake the receiver.
    pub(super) fn seen(&self) -> watch::Receiver<Arc<Seen>> {
        self.seen.clone()
    }

    /// Who leads `shard`, if somebody was heard there within the lease.
    pub fn leader(&self, shard: u16) -> Option<Leader> {
        let seen = self.seen.borrow();
        let since = seen.at?.elapsed();
        let leader = seen.leaders.iter().find(|leader| leader.shard == shard)?;
        (leader.epoch > 0 && leader.silent + since <= self.lease).then(|| leader.clone())
    }

    /// A directory that never changes.
    #[cfg(test)]
    pub(super) fn fixed(leaders: Vec<Leader>) -> Self {
        let seen = Seen { leaders, at: Some(Instant::now()) };
        Self { seen: watch::channel(Arc::new(seen)).1, lease: Duration::from_secs(3600) }
    }
}

async fn ask(place: PostgresPlace, poll: Duration, sender: watch::Sender<Arc<Seen>>) {
    let mut said = String::new();
    loop {
        let error = match Election::reconnect(place.clone()).await {
            Ok(election) => {
                said.clear();
                loop {
                    match election.leaders().await {
                        Ok(leaders) => {
                            sender.send_replace(Arc::new(Seen { leaders, at: Some(Instant::now()) }));
                        }
                        Err(error) => break error,
                    }
                    tokio::time::sleep(poll).await;
                }
            }
            Err(error) => error,
        };
        sender.send_modify(|seen| Arc::make_mut(seen).at = None);
        let text = error.to_string();
        if said != text {
            tracing::warn!("{text}; trying on");
            said = text;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
