//! The roster, running: orders come by [`Provider`], calls go out by a [`Cloud`], several at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use policy::model::PoolId;
use policy::units::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::call::{Cloud, CloudError, Reply};
use super::roster::{Answer, CallId, Health, Known, Patience, Plan, Roster};
use crate::command::LaunchToken;
use crate::fleet::{Answered, LaunchError, Own, Provider, ProviderError};

/// What logs and errors call it.
const NAME: &str = "ec2";

/// Longest sleep of the task.
const SLEEP_MAX: StdDuration = StdDuration::from_secs(3600);

type Launching = oneshot::Sender<Result<Option<String>, LaunchError>>;
type Ending = oneshot::Sender<Result<(), ProviderError>>;
type Listing = oneshot::Sender<Result<Vec<Own>, ProviderError>>;

enum Order {
    Launch(LaunchToken, PoolId, Launching),
    Terminate(LaunchToken, Option<String>, Ending),
    List(Listing),
    Owner(String, oneshot::Sender<Option<LaunchToken>>),
    Health(oneshot::Sender<Health>),
}

/// The provider of EC2 instances. Cheap to clone; the task behind it ends with the last clone.
#[derive(Clone)]
pub struct Ec2Provider {
    orders: mpsc::UnboundedSender<Order>,
    lag: StdDuration,
}

impl Ec2Provider {
    /// Starts the provider's task on the current tokio runtime; `plans` by pool number, `known` the instances that the
    /// plane was told of before.
    pub fn start<C: Cloud>(cloud: C, patience: Patience, plans: &[Plan], known: &[Known]) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let started = tokio::time::Instant::now();
        let task = Running {
            cloud: Arc::new(cloud),
            roster: Roster::new(Instant::START, patience, plans, known),
            started,
            launching: BTreeMap::new(),
            ending: BTreeMap::new(),
            listing: Vec::new(),
            calls: JoinSet::new(),
            was_degraded: false,
            orphans: 0,
        };
        tokio::spawn(task.run(receiver));
        Self { orders, lag: StdDuration::from_nanos(patience.lag.as_nanos() * 2) }
    }

    /// The launch that an instance belongs to.
    pub async fn owner(&self, handle: &str) -> Option<LaunchToken> {
        let (sender, answer) = oneshot::channel();
        self.orders.send(Order::Owner(handle.to_owned(), sender)).ok()?;
        answer.await.ok().flatten()
    }

    /// Counts, and whether EC2 can be understood; `None` once the task has ended.
    pub async fn health(&self) -> Option<Health> {
        let (sender, answer) = oneshot::channel();
        self.orders.send(Order::Health(sender)).ok()?;
        answer.await.ok()
    }

    async fn ask<T, E: From<ProviderError>>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Order,
    ) -> Result<T, E> {
        let (sender, answer) = oneshot::channel();
        let over = || E::from(failed("the provider has stopped".to_owned()));
        self.orders.send(order(sender)).map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }
}

fn failed(what: String) -> ProviderError {
    ProviderError { provider: NAME, what }
}

impl Provider for Ec2Provider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn launch(&self, token: LaunchToken, pool: PoolId) -> Answered<'_, Result<Option<String>, LaunchError>> {
        Box::pin(self.ask(move |sender| Order::Launch(token, pool, sender)))
    }

    fn terminate(
        &self,
        token: LaunchToken,
        handle: Option<String>,
    ) -> Answered<'_, Result<(), ProviderError>> {
        Box::pin(self.ask(move |sender| Order::Terminate(token, handle, sender)))
    }

    fn list(&self) -> Answered<'_, Result<Vec<Own>, ProviderError>> {
        Box::pin(self.ask(Order::List))
    }

    fn list_lag(&self) -> StdDuration {
        self.lag
    }
}

struct Running<C> {
    cloud: Arc<C>,
    roster: Roster,
    started: tokio::time::Instant,
    launching: BTreeMap<LaunchToken, Vec<Launching>>,
    ending: BTreeMap<LaunchToken, Vec<Ending>>,
    listing: Vec<(Instant, Listing)>,
    calls: JoinSet<(CallId, Result<Reply, CloudError>)>,
    was_degraded: bool,
    orphans: u64,
}

impl<C: Cloud> Running<C> {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let wait = self.until(self.roster.poll_timeout());
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    self.order(order);
                    // What came together is asked for together.
                    while let Ok(order) = orders.try_recv() {
                        self.order(order);
                    }
                }
                Some(ended) = self.calls.join_next() => match ended {
                    Ok((id, result)) => self.roster.reply(self.now(), id, result),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = tokio::time::sleep(wait) => {}
            }
            let now = self.now();
            while let Some((id, call)) = self.roster.poll_call(now) {
                tracing::debug!(?call, "asking EC2");
                let cloud = self.cloud.clone();
                self.calls.spawn(async move { (id, cloud.call(&call).await) });
            }
            while let Some(answer) = self.roster.poll_answer() {
                self.answer(answer);
            }
            self.report_health();
        }
    }

    fn now(&self) -> Instant {
        let since = self.started.elapsed().as_nanos();
        Instant::START + Duration::from_nanos(u64::try_from(since).unwrap_or(u64::MAX))
    }

    fn until(&self, at: Instant) -> StdDuration {
        // A millisecond more than needed: tokio's timers are as coarse.
        let wait = StdDuration::from_nanos(at.since(self.now()).as_nanos());
        wait.saturating_add(StdDuration::from_millis(1)).min(SLEEP_MAX)
    }

    fn order(&mut self, order: Order) {
        let now = self.now();
        match order {
            Order::Launch(token, pool, sender) => {
                self.launching.entry(token).or_default().push(sender);
                self.roster.launch(now, token, pool);
            }
            Order::Terminate(token, handle, sender) => {
                self.ending.entry(token).or_default().push(sender);
                self.roster.terminate(now, token, handle);
            }
            Order::List(sender) => {
                self.listing.push((now, sender));
                self.roster.list(now);
            }
            Order::Owner(handle, sender) => {
                let _ = sender.send(self.roster.owner(&handle));
            }
            Order::Health(sender) => {
                let _ = sender.send(self.roster.health().clone());
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Launched { token, handle } => {
                for sender in self.launching.remove(&token).into_iter().flatten() {
                    let _ = sender.send(Ok(Some(handle.clone())));
                }
            }
            Answer::Refused { token, why } => {
                for sender in self.launching.remove(&token).into_iter().flatten() {
                    let _ = sender.send(Err(LaunchError::Refused(why.clone())));
                }
            }
            Answer::Terminated { token } => {
                for sender in self.ending.remove(&token).into_iter().flatten() {
                    let _ = sender.send(Ok(()));
                }
            }
            Answer::NotTerminated { token, what } => {
                for sender in self.ending.remove(&token).into_iter().flatten() {
                    let _ = sender.send(Err(failed(what.clone())));
                }
            }
            Answer::Listed { asked, own } => {
                let own: Vec<Own> = own.into_iter().map(|(token, handle)| Own { token, handle }).collect();
                for (wanted, sender) in std::mem::take(&mut self.listing) {
                    if wanted <= asked {
                        let _ = sender.send(Ok(own.clone()));
                    } else {
                        self.listing.push((wanted, sender));
                    }
                }
            }
            Answer::NotListed(what) => {
                for (_, sender) in std::mem::take(&mut self.listing) {
                    let _ = sender.send(Err(failed(what.clone())));
                }
            }
        }
    }

    fn report_health(&mut self) {
        let degraded = self.roster.health().degraded();
        match (self.was_degraded, degraded) {
            (false, Some(why)) => tracing::error!("EC2 cannot be understood any more, launches wait: {why}"),
            (true, None) => tracing::info!("EC2 answers again"),
            _ => {}
        }
        self.was_degraded = degraded.is_some();
        let orphans = self.roster.health().orphans;
        if orphans > self.orphans {
            tracing::warn!(count = orphans - self.orphans, "ending instances that no launch needs");
            self.orphans = orphans;
        }
    }
}
