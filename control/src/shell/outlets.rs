//! Where effects go: answers to those who asked, messages to workers, orders to the fleet, news to those who watch.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use policy::model::PoolId;
use policy::records::{DecisionRow, InstanceRow, MinuteRow};
use policy::units::Instant;
use tokio::sync::{broadcast, mpsc};

use super::Asker;
use super::handle::{EndSender, News};
use crate::command::{Command, LaunchToken, SessionId};
use crate::effect::{Answer, Effect, JobRecord, JobView, WebhookTask};
use crate::number::JobNumber;
use crate::plane::{Figures, Plane};
use crate::protocol::ToWorker;
use crate::store::StoreError;
use crate::submission::Submission;
use crate::trace::{Observer, TraceContext, Traces};

/// Ended jobs kept in memory for those who ask soon.
const RECENT_MAX: usize = 20_000;

/// Rows that a slow listener may fall behind.
const ROWS_MAX: usize = 4096;

/// Time between two looks at the figures.
const FIGURES_EVERY: policy::units::Duration = policy::units::Duration::from_millis(250);

/// What the fleet must do.
#[derive(Clone, Debug, PartialEq)]
pub enum FleetOrder {
    /// Launch; answer with `Launched` or `LaunchFailed`.
    Launch { token: LaunchToken, pool: PoolId },
    /// Terminate; answer with `MachineGone`.
    Terminate { token: LaunchToken, pool: PoolId, handle: Option<String> },
    /// No launches, or launches again.
    Hold { is_held: bool },
}

/// A record of the run, for logs, metrics and the dashboard.
#[derive(Clone, Debug)]
pub enum Row {
    /// A policy changed something.
    Decided(Arc<DecisionRow>),
    /// A minute of a group is over.
    Minute(Arc<MinuteRow>),
    /// An instance's life is over.
    Instance(Arc<InstanceRow>),
    /// A job ended.
    Job(Arc<JobRecord>),
}

/// What the plane's thread and the rest of the process share.
pub struct Shared {
    figures: RwLock<Arc<Figures>>,
    recent: Mutex<Recent>,
    rows: broadcast::Sender<Row>,
    sessions: AtomicU64,
    traces: OnceLock<Arc<Traces>>,
    /// Whether the store takes commits: false while there is no room, and after a failure.
    pub is_writable: AtomicBool,
    /// Whether the plane is asked to stop; seen also where it does not come to its messages.
    wants_stop: AtomicBool,
    /// Commits so far.
    pub commits: AtomicU64,
    /// Commands so far.
    pub commands: AtomicU64,
    /// Time spent in commits, nanoseconds.
    pub commit_nanos: AtomicU64,
    /// The longest commit since it was last asked for, nanoseconds.
    pub commit_max_nanos: AtomicU64,
}

#[derive(Default)]
struct Recent {
    order: VecDeque<JobNumber>,
    records: HashMap<JobNumber, Arc<JobRecord>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A job that ended lately.
    pub fn recent(&self, job: JobNumber) -> Option<Arc<JobRecord>> {
        held(&self.recent).records.get(&job).cloned()
    }

    /// Counts for metrics and health, at most half a second old.
    pub fn figures(&self) -> Arc<Figures> {
        self.figures.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Listens to records from now on.
    pub fn rows(&self) -> broadcast::Receiver<Row> {
        self.rows.subscribe()
    }

    /// Traces of jobs, where they are made.
    pub fn traces(&self) -> Option<&Arc<Traces>> {
        self.traces.get()
    }

    pub(super) fn ask_to_stop(&self) {
        self.wants_stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    fn forget(&self, below: JobNumber) {
        let mut recent = held(&self.recent);
        recent.order.retain(|job| *job >= below);
        recent.records.retain(|job, _| *job >= below);
    }

    fn keep(&self, record: &Arc<JobRecord>) {
        let mut recent = held(&self.recent);
        if recent.order.len() >= RECENT_MAX
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.records.remove(&oldest);
        }
        recent.order.push_back(record.job);
        recent.records.insert(record.job, record.clone());
    }
}

/// Where effects go.
pub struct Outlets {
    shared: Arc<Shared>,
    fleet: mpsc::UnboundedSender<FleetOrder>,
    webhooks: mpsc::UnboundedSender<WebhookTask>,
    sessions: HashMap<SessionId, mpsc::UnboundedSender<ToWorker>>,
    /// Acknowledgements that wait until all else is told: nobody needs them soon.
    acks: Vec<(SessionId, ToWorker)>,
    watchers: HashMap<JobNumber, Vec<mpsc::UnboundedSender<News>>>,
    ends: HashMap<JobNumber, Vec<EndSender>>,
    figures_at: Instant,
    observer: Option<Box<Observer>>,
}

impl Outlets {
    /// Outlets; orders to the fleet and announcements come by the receivers. `epoch` keeps session numbers of different
    /// planes apart.
    pub fn new(
        epoch: u64,
    ) -> (Self, mpsc::UnboundedReceiver<FleetOrder>, mpsc::UnboundedReceiver<WebhookTask>) {
        let (fleet, orders) = mpsc::unbounded_channel();
        let (webhooks, tasks) = mpsc::unbounded_channel();
        let shared = Shared {
            figures: RwLock::default(),
            recent: Mutex::default(),
            rows: broadcast::channel(ROWS_MAX).0,
            sessions: AtomicU64::new(epoch << 40),
            traces: OnceLock::new(),
            is_writable: AtomicBool::new(true),
            wants_stop: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            commit_nanos: AtomicU64::new(0),
            commit_max_nanos: AtomicU64::new(0),
        };
        let outlets = Self {
            shared: Arc::new(shared),
            fleet,
            webhooks,
            sessions: HashMap::new(),
            acks: Vec::new(),
            watchers: HashMap::new(),
            ends: HashMap::new(),
            figures_at: Instant::START,
            observer: None,
        };
        (outlets, orders, tasks)
    }

    /// The same with an observer that traces jobs.
    pub fn observed(mut self, observer: Observer) -> Self {
        let _ = self.shared.traces.set(observer.traces().clone());
        self.observer = Some(Box::new(observer));
        self
    }

    /// The client's span of a submission, where traces are made.
    pub(super) fn client(&self, submission: &Submission) -> Option<TraceContext> {
        self.observer.as_ref().and_then(|_| Observer::client(submission))
    }

    /// Somebody says something to the plane.
    pub(super) fn heard(&mut self, command: &Command) {
        if let Some(observer) = &mut self.observer {
            observer.heard(command);
        }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    pub(super) fn attach(&mut self, session: SessionId, sender: mpsc::UnboundedSender<ToWorker>) {
        self.sessions.insert(session, sender);
    }

    pub(super) fn watch(&mut self, job: JobNumber, view: JobView, sender: mpsc::UnboundedSender<News>) {
        let event = crate::effect::JobEvent {
            job,
            version: view.version,
            at: view.arrived,
            state: view.state,
            stage: view.stage,
            deliveries: view.deliveries,
        };
        let _ = sender.send(News::Changed(event));
        let watchers = self.watchers.entry(job).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(sender);
    }

    pub(super) fn progress(&mut self, job: JobNumber, done: u32, of: u32) {
        for watcher in self.watchers.get(&job).into_iter().flatten() {
            let _ = watcher.send(News::Progress { done, of });
        }
    }

    pub(super) fn perform(&mut self, effects: &mut Vec<Effect>, askers: &mut VecDeque<Asker>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Answer(answer) => self.answer(answer, askers),
                Effect::Tell { session, mut message } => {
                    if let Some(observer) = &mut self.observer {
                        observer.told(session, &mut message);
                    }
                    match message {
                        ToWorker::Ack { .. } => self.acks.push((session, message)),
                        _ => self.tell(session, message),
                    }
                }
                Effect::Close { session } => {
                    self.acknowledge();
                    self.sessions.remove(&session);
                    if let Some(observer) = &mut self.observer {
                        observer.closed(session);
                    }
                }
                Effect::Changed(event) => {
                    if let Some(observer) = &mut self.observer {
                        observer.changed(&event);
                    }
                    for watcher in self.watchers.get(&event.job).into_iter().flatten() {
                        let _ = watcher.send(News::Changed(event.clone()));
                    }
                }
                Effect::Ended(record) => self.ended(Arc::new(*record)),
                Effect::Webhook(task) => {
                    if let Some(observer) = &mut self.observer {
                        observer.announced(task.job);
                    }
                    let _ = self.webhooks.send(*task);
                }
                Effect::Launch { token, pool } => self.order(FleetOrder::Launch { token, pool }),
                Effect::Terminate { token, pool, handle } => {
                    self.order(FleetOrder::Terminate { token, pool, handle });
                }
                Effect::Held { is_held, .. } => self.order(FleetOrder::Hold { is_held }),
                Effect::Decided(row) => self.row(Row::Decided(Arc::new(*row))),
                Effect::Minute(row) => self.row(Row::Minute(Arc::new(*row))),
                Effect::InstanceEnded(row) => self.row(Row::Instance(Arc::new(*row))),
            }
        }
        self.acknowledge();
    }

    fn tell(&self, session: SessionId, message: ToWorker) {
        if let Some(worker) = self.sessions.get(&session) {
            let _ = worker.send(message);
        }
    }

    fn acknowledge(&mut self) {
        let mut acks = std::mem::take(&mut self.acks);
        for (session, ack) in acks.drain(..) {
            self.tell(session, ack);
        }
        self.acks = acks;
    }

    fn order(&self, order: FleetOrder) {
        let _ = self.fleet.send(order);
    }

    fn row(&self, row: Row) {
        let _ = self.shared.rows.send(row);
    }

    fn ended(&mut self, record: Arc<JobRecord>) {
        if let Some(observer) = &mut self.observer {
            observer.ended(&record);
        }
        self.shared.keep(&record);
        for end in self.ends.remove(&record.job).into_iter().flatten() {
            let _ = end.send(record.clone());
        }
        for watcher in self.watchers.remove(&record.job).into_iter().flatten() {
            let _ = watcher.send(News::Ended(record.clone()));
        }
        if self.shared.rows.receiver_count() > 0 {
            self.row(Row::Job(record));
        }
    }

    fn answer(&mut self, answer: Answer, askers: &mut VecDeque<Asker>) {
        let asker = askers.pop_front();
        debug_assert!(asker.is_some(), "every answer was asked for");
        if let Some(observer) = &mut self.observer {
            match (&answer, &asker) {
                (Answer::Accepted(job), Some(Asker::One(_, _, client) | Asker::Many(_, client))) => {
                    observer.accepted(*job, *client);
                }
                (Answer::Reloaded, _) => observer.reloaded(),
                _ => {}
            }
        }
        match asker {
            Some(Asker::One(sender, end, _)) => {
                if let (Answer::Accepted(job), Some(end)) = (&answer, end) {
                    self.ends.entry(*job).or_default().push(end);
                }
                let _ = sender.send(answer);
            }
            Some(Asker::Many(gathered, _)) => {
                let mut gathered = gathered.borrow_mut();
                gathered.answers.push(answer);
                if gathered.answers.len() == gathered.wanted
                    && let Some(sender) = gathered.sender.take()
                {
                    let _ = sender.send(std::mem::take(&mut gathered.answers));
                }
            }
            None => {}
        }
    }

    pub(super) fn committed(&self, commands: u64, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.commands.fetch_add(commands, Ordering::Relaxed);
        self.shared.commit_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.shared.commit_max_nanos.fetch_max(nanos, Ordering::Relaxed);
        if !self.shared.is_writable.swap(true, Ordering::Relaxed) {
            tracing::info!("the journal takes commits again");
        }
    }

    pub(super) fn full(&self, error: &StoreError) {
        if self.shared.is_writable.swap(false, Ordering::Relaxed) {
            tracing::error!("{error}, the plane goes on by itself");
        }
    }

    /// Ended jobs below a number are known no more.
    pub(super) fn forget(&self, below: JobNumber) {
        self.shared.forget(below);
    }

    pub(super) fn wants_stop(&self) -> bool {
        self.shared.wants_stop.load(Ordering::Relaxed)
    }

    pub(super) fn fail(&self, error: &StoreError) {
        self.shared.is_writable.store(false, Ordering::Relaxed);
        tracing::error!("{error}");
    }

    pub(super) fn renew_figures(&mut self, now: Instant, plane: &Plane) {
        if now < self.figures_at {
            return;
        }
        self.figures_at = now + FIGURES_EVERY;
        if let Some(observer) = &mut self.observer {
            observer.renew(plane);
        }
        let figures = Arc::new(plane.figures(now));
        *self.shared.figures.write().unwrap_or_else(PoisonError::into_inner) = figures;
    }
}
