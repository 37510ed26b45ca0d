//! The plane: everything the live system knows, as a state machine without input or output.
//!
//! ```text
//! plane.apply(now, command, &mut effects);   // one change ...
//! store.append(command);                     // ... made durable,
//! for effect in effects { perform(effect) }  // ... and only then seen by anybody.
//! ```
//!
//! It holds the dispatcher and, beside it, what a simulator has no need of: payloads, connections, the provider's names
//! of machines, idempotency keys. Its state is the fold of its commands, so restart is replay. It reads no clock and
//! draws no chance; it never iterates over a hash table.

mod image;
mod jobs;
mod keys;
mod machines;
mod money;
mod perform;
mod rules;
mod served;
mod work;
mod workers;

pub use image::{ImageError, PlaneImage, PlaneImageRef};
pub use jobs::Listing;
pub use rules::{Patience, Rules, RulesError};
pub use served::{ScenarioText, Served, ServedError};

use std::collections::{BTreeMap, VecDeque};

use policy::dispatch::{CancelScope, Dispatcher, Input, InstanceState, Output, Totals};
use policy::model::{InstanceId, Lease, PoolId, SystemError};
use policy::units::random::Stream;
use policy::units::{Duration, Instant, UsdPerHour};

use crate::command::{Command, LaunchToken, SessionId};
use crate::effect::{Answer, Effect, JobView, Refusal, WebhookTask};
use crate::number::JobNumber;
use crate::submission::{Submission, TenantId};
use jobs::Jobs;
use keys::Keys;
use machines::Machines;
use money::Money;

/// Everything the live system knows.
pub struct Plane {
    rules: Rules,
    /// What the journal says that it was last started with.
    served: Option<Served>,
    /// The scenario that an operator gave it since.
    reloaded: Option<String>,
    dispatcher: Dispatcher,
    jobs: Jobs,
    machines: Machines,
    keys: Keys,
    money: Money,
    /// Jobs in the system, by tenant.
    tenants: BTreeMap<TenantId, u32>,
    /// Announcements that were not settled.
    webhooks: BTreeMap<JobNumber, WebhookTask>,
    /// Why nothing may be launched, while nothing may.
    hold: Option<String>,
    /// Job numbers given.
    sequence: u64,
    /// Launches asked for.
    launches: u64,
    epoch: u64,
    /// The plane's clock and the wall's, Unix milliseconds, when the epoch began.
    wall: Option<(Instant, u64)>,
    /// The latest time that a command had.
    last: Instant,
    /// Between inputs and outputs of one command.
    inputs: VecDeque<Input>,
    outputs: Vec<Output>,
    arriving: Option<Box<Submission>>,
}

/// Counts for metrics and health, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// What the dispatcher counted.
    pub totals: Totals,
    /// Jobs in the system.
    pub jobs: usize,
    /// By pool: name, ready, starting, draining.
    pub pools: Vec<(String, u32, u32, u32)>,
    /// Workers connected.
    pub workers: usize,
    /// Announcements not settled.
    pub webhooks: usize,
    /// Spent so far, billionths of a dollar.
    pub spent_nanousd: i64,
    /// Spent per hour now, billionths of a dollar.
    pub burn_nanousd_per_hour: i64,
    /// Why nothing may be launched, while nothing may.
    pub hold: Option<String>,
    /// Which plane's turn it is.
    pub epoch: u64,
}

/// A launch, as providers may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchView {
    /// Which.
    pub token: LaunchToken,
    /// For which pool.
    pub pool: PoolId,
    /// The provider's name of the machine, once launched.
    pub handle: Option<String>,
}

/// A machine, as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineView {
    /// The plane's number of it. Numbers are used again.
    pub instance: InstanceId,
    /// Its pool.
    pub pool: PoolId,
    /// Its launch.
    pub token: LaunchToken,
    /// The provider's name of it, once launched.
    pub handle: Option<String>,
    /// Name of its worker, once joined.
    pub worker: Option<String>,
    /// Where it stands in its life.
    pub state: InstanceState,
    /// Whether its worker is connected.
    pub is_connected: bool,
    /// Slots that its worker offered.
    pub slots: u16,
    /// Jobs that it works on, in no order.
    pub jobs: Vec<JobNumber>,
    /// When its worker last said something, or its contact last changed.
    pub heard: Instant,
    /// What machines of its pool cost now; none before it is billed.
    pub price: Option<UsdPerHour>,
}

impl Plane {
    /// A plane before its first command; the launches of its initial instances are in `out`.
    ///
    /// # Errors
    /// [`SystemError`] when the system cannot run.
    pub fn new(rules: Rules, out: &mut Vec<Effect>) -> Result<Self, SystemError> {
        let mut outputs = Vec::new();
        let chance = Stream::new(rules.seed, 0, "dispatcher");
        let dispatcher = Dispatcher::new(rules.system.clone(), chance, &mut outputs)?;
        let mut plane = Self {
            money: Money::new(&rules),
            rules,
            served: None,
            reloaded: None,
            dispatcher,
            jobs: Jobs::default(),
            machines: Machines::default(),
            keys: Keys::default(),
            tenants: BTreeMap::new(),
            webhooks: BTreeMap::new(),
            hold: None,
            sequence: 0,
            launches: 0,
            epoch: 0,
            wall: None,
            last: Instant::START,
            inputs: VecDeque::new(),
            outputs: Vec::new(),
            arriving: None,
        };
        for output in outputs {
            plane.perform(Instant::START, output, out);
        }
        plane.drain(Instant::START, out);
        Ok(plane)
    }

    /// Changes the state by one command at `now`, appending what follows from it to `out`.
    ///
    /// A `now` before that of an earlier command counts as the earlier one's: clocks that jump back do no harm.
    pub fn apply(&mut self, now: Instant, command: Command, out: &mut Vec<Effect>) {
        let now = now.max(self.last);
        self.last = now;
        match command {
            Command::TookOver { epoch, unix_ms } => {
                self.wall = Some((now, unix_ms));
                self.take_over(now, epoch, out);
            }
            Command::Submit(submission) => self.submit(now, submission, out),
            Command::Cancel { job, tenant } => self.cancel(now, job, tenant, out),
            Command::Hello { session, hello } => self.hello(now, session, *hello, out),
            Command::Ready { session } => self.ready(now, session, out),
            Command::Beat { session, alive } => self.beat(now, session, &alive, out),
            Command::Finished { session, lease, job, report } => {
                self.finished(now, session, lease, job, report, out);
            }
            Command::Disconnected { session } => {
                self.disconnected(now, session);
                out.push(Effect::Close { session });
            }
            Command::Leaving { session } => self.leaving(now, session, out),
            Command::Notice { session, seconds } => {
                if let Some(instance) = self.machines.by_session(session) {
                    self.notice(now, instance, seconds, out);
                }
            }
            Command::MachineNotice { token, seconds } => {
                if let Some(instance) = self.machines.by_token(token) {
                    self.notice(now, instance, seconds, out);
                }
            }
            Command::Launched { token, handle } => self.launched(now, token, handle, out),
            Command::LaunchFailed { token, .. } => self.launch_failed(now, token, out),
            Command::MachineGone { token } => self.machine_gone(now, token, out),
            Command::PriceChanged { pool, price } => {
                if pool.index() < self.rules.system.pools.len() {
                    self.money.set_price(pool, price);
                    self.give(now, Input::PriceChanged { pool, price }, out);
                }
            }
            Command::WebhookSettled { job, .. } => {
                self.webhooks.remove(&job);
            }
            Command::Hold { is_held, why } => {
                self.hold = is_held.then(|| why.clone());
                out.push(Effect::Held { is_held, why });
            }
            Command::Reload { scenario } => self.reload(now, &scenario, out),
            Command::Served(served) => self.serve(now, *served, out),
            Command::Tick => {
                self.alarms(now, out);
                self.keys.forget(now, self.rules.patience.idempotency);
                if self.dispatcher.poll_timeout() <= now {
                    self.give(now, Input::TimeReached, out);
                }
            }
        }
    }

    /// When [`Command::Tick`] is next wanted.
    pub fn poll_timeout(&self) -> Instant {
        self.dispatcher.poll_timeout().min(self.machines.next_alarm())
    }

    /// The latest time that a command had; the clock of the next plane goes on from here.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// The wall clock at [`Plane::last`], Unix milliseconds, as far as the plane knows.
    pub fn last_unix_ms(&self) -> Option<u64> {
        self.wall.map(|(at, unix_ms)| unix_ms.saturating_add(self.last.since(at).as_nanos() / 1_000_000))
    }

    /// Which plane's turn it is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What the journal says that it was last started with; none in journals that do not say it.
    pub fn served(&self) -> Option<&Served> {
        self.served.as_ref()
    }

    /// Whether an operator gave it another scenario since.
    pub fn is_reloaded(&self) -> bool {
        self.reloaded.is_some()
    }

    /// Whether the plane can go on under `rules`.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub fn accepts(&self, rules: &Rules) -> Result<(), String> {
        if rules.shard != self.rules.shard {
            return Err(format!("its jobs are of shard {}, not {}", self.rules.shard, rules.shard));
        }
        self.dispatcher.accepts(&rules.system).map_err(|error| error.to_string())
    }

    /// Jobs in the system.
    pub fn jobs_in_system(&self) -> usize {
        self.jobs.len()
    }

    /// Jobs with smaller numbers have ended, and whoever wished to hear of it has heard, or was given up.
    pub fn ended_below(&self) -> JobNumber {
        let unsettled = self.webhooks.first_key_value().map(|(job, _)| *job);
        let first = self.jobs.first().unwrap_or(self.next_job());
        unsettled.map_or(first, |job| job.min(first))
    }

    /// Number of the next job.
    pub fn next_job(&self) -> JobNumber {
        JobNumber::new(self.rules.shard, self.sequence)
    }

    /// The dispatcher, to look at.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// A job in the system.
    pub fn job(&self, number: JobNumber) -> Option<JobView> {
        self.jobs.get(number).map(jobs::Job::view)
    }

    /// Up to `limit` jobs in the system above `after`, by number, of one tenant or of all.
    pub fn list(&self, tenant: Option<TenantId>, after: Option<JobNumber>, limit: usize) -> Listing {
        self.jobs.list(tenant, after, limit)
    }

    /// Shows every job in the system with its lease and its client's trace context, for traces.
    pub fn each_job(&self, mut see: impl FnMut(JobView, Option<Lease>, Option<&str>)) {
        for job in self.jobs.iter() {
            see(job.view(), job.held.map(|(lease, _)| lease), job.submission.traceparent.as_deref());
        }
    }

    /// Up to `limit` announcements above `after`, by job, that are not settled.
    pub fn unsettled(&self, after: Option<JobNumber>, limit: usize) -> Vec<WebhookTask> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = self.webhooks.range((after.map_or(Unbounded, Excluded), Unbounded));
        range.take(limit).map(|(_, task)| task.clone()).collect()
    }

    /// Launch tokens of the machines in the book, those whose termination is not confirmed included.
    pub fn tokens(&self) -> Vec<LaunchToken> {
        let held = self.machines.iter().map(|(_, machine)| machine.token);
        held.chain(self.machines.endings.keys().copied()).collect()
    }

    /// Counts for metrics and health.
    pub fn figures(&self, now: Instant) -> Figures {
        let pools = (0..self.rules.system.pools.len() as u16).map(|index| {
            let (ready, starting, draining) = self.dispatcher.pool_counts(PoolId(index));
            (self.rules.system.pools[index as usize].name.clone(), ready, starting, draining)
        });
        let connected = |machine: &machines::Machine| machine.session().is_some();
        Figures {
            totals: self.dispatcher.totals(),
            jobs: self.jobs.len(),
            pools: pools.collect(),
            workers: self.machines.iter().filter(|(_, machine)| connected(machine)).count(),
            webhooks: self.webhooks.len(),
            spent_nanousd: self.money.spent(now, &self.machines).as_nanos(),
            burn_nanousd_per_hour: self.money.burn(&self.machines).as_nanos(),
            hold: self.hold.clone(),
            epoch: self.epoch,
        }
    }

    /// The price of a pool now.
    pub fn price(&self, pool: PoolId) -> UsdPerHour {
        self.money.price(pool)
    }

    /// Spent per hour now.
    pub fn burn(&self) -> policy::units::Usd {
        self.money.burn(&self.machines)
    }

    /// The lease in force on a job, the pool of the machine that has it, and the quality it is worked on at.
    pub fn work_on(&self, job: JobNumber) -> Option<(Lease, PoolId, u16)> {
        let job = self.jobs.get(job)?;
        let (lease, instance) = job.held?;
        Some((lease, self.machines.get(instance)?.pool, job.quality))
    }

    /// The launch that the worker of a connection belongs to.
    pub fn launch_of(&self, session: SessionId) -> Option<LaunchToken> {
        Some(self.machines.get(self.machines.by_session(session)?)?.token)
    }

    /// Up to `limit` machines above `after`, by number, of one pool or of all; whether there are more.
    pub fn machines(
        &self,
        pool: Option<PoolId>,
        after: Option<InstanceId>,
        limit: usize,
    ) -> (Vec<MachineView>, bool) {
        let is_wanted = |machine: &machines::Machine| pool.is_none_or(|pool| pool == machine.pool);
        let mut found = self.machines.after(after).filter(|(_, machine)| is_wanted(machine));
        let number = |slot: &u32| self.jobs.at(*slot).map(|job| job.number);
        let page = found.by_ref().take(limit).map(|(instance, machine)| MachineView {
            instance,
            pool: machine.pool,
            token: machine.token,
            handle: machine.handle.clone(),
            worker: machine.worker.clone(),
            state: self.dispatcher.instance_state(instance),
            is_connected: machine.session().is_some(),
            slots: machine.slots,
            jobs: machine.work.iter().filter_map(number).collect(),
            heard: machine.heard,
            price: machine.costs.map(|_| self.money.price(machine.pool)),
        });
        (page.collect(), found.next().is_some())
    }

    /// Machines that were given up, and whose end the provider has not confirmed.
    pub fn endings(&self) -> impl Iterator<Item = LaunchView> {
        self.machines.endings.iter().map(|(token, ending)| LaunchView {
            token: *token,
            pool: ending.pool,
            handle: ending.handle.clone(),
        })
    }

    /// Every launch whose machine is needed, or whose end is not confirmed.
    pub fn launches(&self) -> Vec<LaunchView> {
        let machines = self.machines.iter().map(|(_, machine)| LaunchView {
            token: machine.token,
            pool: machine.pool,
            handle: machine.handle.clone(),
        });
        machines.chain(self.endings()).collect()
    }

    /// Hands an input to the dispatcher, and performs all that follows.
    fn give(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        self.inputs.push_back(input);
        self.drain(now, out);
    }

    fn drain(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some(input) = self.inputs.pop_front() {
            let mut outputs = std::mem::take(&mut self.outputs);
            self.dispatcher.handle_input(now, input, &mut outputs);
            for output in outputs.drain(..) {
                self.perform(now, output, out);
            }
            self.outputs = outputs;
        }
    }

    fn submit(&mut self, now: Instant, submission: Box<Submission>, out: &mut Vec<Effect>) {
        if let Some(key) = submission.idempotency
            && let Some((body, job)) = self.keys.get(key.key)
        {
            let same = body == key.body;
            out.push(Effect::Answer(if same { Answer::Known(job) } else { Answer::OtherBody(job) }));
            return;
        }
        let held = self.tenants.get(&submission.tenant).copied().unwrap_or(0);
        let why = if held >= submission.tenant_jobs_max {
            Some(Refusal::TenantFull)
        } else {
            (self.jobs.len() >= self.rules.patience.jobs_max as usize).then_some(Refusal::QueueFull)
        };
        if let Some(why) = why {
            let retry_after = self.retry_after();
            out.push(Effect::Answer(Answer::Rejected { why, retry_after }));
            return;
        }
        let shape = &self.rules.system;
        if submission.class.index() >= shape.classes.len() || submission.region.index() >= shape.regions.len()
        {
            // The API names classes and regions by the same rules; only a journal of other rules comes here.
            let retry_after = Duration::ZERO;
            out.push(Effect::Answer(Answer::Rejected { why: Refusal::QueueFull, retry_after }));
            return;
        }
        let tag = JobNumber::new(self.rules.shard, self.sequence).0;
        self.sequence += 1;
        let input = Input::JobSubmitted {
            tag,
            class: submission.class,
            region: submission.region,
            priority: submission.priority,
            deadline: submission.deadline,
        };
        self.arriving = Some(submission);
        self.give(now, input, out);
        self.arriving = None;
    }

    /// When a turned-away client may ask again: the time in which the queue as it is would be served, at least a second
    /// and at most five minutes.
    fn retry_after(&self) -> Duration {
        let slots: u32 = (0..self.rules.system.pools.len() as u16)
            .map(|index| {
                let (ready, ..) = self.dispatcher.pool_counts(PoolId(index));
                ready
                    * self.rules.system.pools[index as usize].slots.iter().map(|s| u32::from(*s)).sum::<u32>()
            })
            .sum();
        let service: Duration =
            self.rules.system.stages.iter().fold(Duration::ZERO, |sum, stage| sum + stage.service_expected);
        let wait = service.scaled(self.jobs.len() as f64 / f64::from(slots.max(1)) * 0.1);
        wait.max(Duration::from_secs(1)).min(Duration::from_secs(300))
    }

    fn cancel(&mut self, now: Instant, number: JobNumber, tenant: Option<TenantId>, out: &mut Vec<Effect>) {
        let job = self.jobs.get(number).filter(|job| tenant.is_none_or(|id| job.submission.tenant == id));
        let Some(id) = job.map(|job| job.id) else {
            out.push(Effect::Answer(Answer::NotRunning));
            return;
        };
        out.push(Effect::Answer(Answer::Cancelled));
        self.give(now, Input::JobCancelled { job: id, scope: CancelScope::Always }, out);
    }

    fn reload(&mut self, now: Instant, text: &str, out: &mut Vec<Effect>) {
        let answer = match self.try_reload(now, text, out) {
            Ok(()) => Answer::Reloaded,
            Err(why) => Answer::NotReloaded(why),
        };
        out.push(Effect::Answer(answer));
    }

    /// Takes new policy parameters.
    fn try_reload(&mut self, now: Instant, text: &str, out: &mut Vec<Effect>) -> Result<(), String> {
        let rules = self.rules.reloaded(text).map_err(|error| error.to_string())?;
        self.go_on_under(now, rules, out)?;
        self.reloaded = Some(text.to_owned());
        Ok(())
    }

    /// Goes on with what it was started with. What cannot be followed changes nothing: whoever gave it looks at
    /// [`Plane::served`].
    fn serve(&mut self, now: Instant, served: Served, out: &mut Vec<Effect>) {
        let Ok(mut rules) = served.rules(self.rules.secret) else { return };
        // Chance goes on where it was.
        rules.seed = self.rules.seed;
        if rules.decides_like(&self.rules) {
            self.rules = rules;
        } else if rules.shard != self.rules.shard || self.go_on_under(now, rules, out).is_err() {
            return;
        }
        self.served = Some(served);
        self.reloaded = None;
    }

    fn go_on_under(&mut self, now: Instant, rules: Rules, out: &mut Vec<Effect>) -> Result<(), String> {
        let mut outputs = Vec::new();
        self.dispatcher.reload(now, rules.system.clone(), &mut outputs).map_err(|error| error.to_string())?;
        self.money.reload(&self.rules, &rules);
        self.rules = rules;
        for output in outputs {
            self.perform(now, output, out);
        }
        self.drain(now, out);
        Ok(())
    }

    /// The next launch's token: from the plane's secret, so that nobody guesses it, and from a count, so that replay
    /// makes the same.
    fn next_token(&mut self) -> LaunchToken {
        use hmac::{Hmac, Mac};
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&self.rules.secret).expect("any length is a key");
        mac.update(b"launch");
        mac.update(&self.rules.shard.to_be_bytes());
        mac.update(&self.launches.to_be_bytes());
        self.launches += 1;
        let bytes = mac.finalize().into_bytes();
        let mut first = [0_u8; 16];
        first.copy_from_slice(&bytes[..16]);
        LaunchToken(u128::from_be_bytes(first))
    }

    fn pool_slots(&self, pool: PoolId) -> u16 {
        self.rules.system.pools[pool.index()].slots.iter().sum()
    }

    /// The session of an instance's worker, if it is connected.
    fn session_of(&self, instance: InstanceId) -> Option<crate::command::SessionId> {
        self.machines.get(instance)?.session()
    }
}
