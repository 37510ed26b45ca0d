//! What the provider knows of its instances, and what it asks EC2 next: a state machine without input or output.
//!
//! ```text
//! roster.launch(now, token, pool); roster.terminate(now, token, handle); roster.list(now);   // orders, then
//! while let Some((id, call)) = roster.poll_call(now) { ... }      // calls, whose ends come back by roster.reply(...),
//! while let Some(answer) = roster.poll_answer() { ... }           // and what became of the orders.
//! ```
//!
//! Three rules keep launches from being doubled or lost:
//! - An instance is told to the plane only once its launch's token is written on it; what the plane was told, it is asked
//!   for at the start.
//! - A launch call without a clear answer is looked up by its tags, and repeated only unchanged, with its client token.
//! - After a restart nothing is launched before a list of the instances is old enough to show what the process before made.
//!
//! What appears late all the same is nobody's: it is terminated. What bears no launch or batch tag is never touched.

mod launch;
mod reconcile;
mod terminate;

use std::collections::{BTreeMap, VecDeque};

use policy::model::PoolId;
use policy::units::random::mix;
use policy::units::{Duration, Instant};

use super::call::{Call, CloudError, LaunchCall, Reply, Way};
use crate::command::{LaunchRefusal, LaunchToken};

/// Times and limits of a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Launches of a pool that come within this time are one call.
    pub window: Duration,
    /// How long EC2's lists may lack what was made or tagged.
    pub lag: Duration,
    /// Time before the first launch, in which a process before this one may have made instances; zero when there was none.
    pub settle: Duration,
    /// Time between lists while something is in doubt.
    pub look_every: Duration,
    /// How often a call in doubt is repeated.
    pub repeats_max: u32,
    /// A launch that EC2 keeps throttling is given up after so long.
    pub throttled_for: Duration,
    /// Calls under way at once.
    pub calls_max: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            window: Duration::from_millis(200),
            lag: Duration::from_secs(30),
            settle: Duration::from_secs(15),
            look_every: Duration::from_secs(5),
            repeats_max: 2,
            throttled_for: Duration::from_secs(240),
            calls_max: 8,
        }
    }
}

/// How instances of a pool are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// First choice.
    pub way: Way,
    /// Places (zone and type) that [`Way::Run`] tries in turn.
    pub places: usize,
}

/// An instance that the plane knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The launch that it was made for.
    pub token: LaunchToken,
    /// Its pool.
    pub pool: PoolId,
    /// EC2's id of it.
    pub handle: String,
}

impl Known {
    fn entry(&self, now: Instant) -> Entry {
        Entry { pool: self.pool, standing: Standing::Up(self.handle.clone()), since: now, is_doomed: false }
    }
}

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The launch has this instance.
    Launched { token: LaunchToken, handle: String },
    /// It has none, and will have none that is kept.
    Refused { token: LaunchToken, why: LaunchRefusal },
    /// The launch's instance is ending, or there is none.
    Terminated { token: LaunchToken },
    /// EC2 does not let it be ended.
    NotTerminated { token: LaunchToken, what: String },
    /// All instances that are alive and belong to a launch; the list was asked for at `asked`.
    Listed { asked: Instant, own: Vec<(LaunchToken, String)> },
    /// EC2 gave no list.
    NotListed(String),
}

/// Counts, for health and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Answers in a row that were none.
    pub doubts_in_row: u32,
    /// The last of them.
    pub doubt: Option<String>,
    /// Instances terminated that no launch needed.
    pub orphans: u64,
    /// Calls that EC2 throttled.
    pub throttled: u64,
}

impl Health {
    /// Answers in a row without which the provider counts as degraded.
    const DOUBTS_MAX: u32 = 5;

    /// Why the provider is degraded, if it is.
    pub fn degraded(&self) -> Option<&str> {
        self.doubt.as_deref().filter(|_| self.doubts_in_row >= Self::DOUBTS_MAX)
    }
}

/// Where a launch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// In no call yet.
    Waiting,
    /// In a call.
    InBatch(u64),
    /// Has an instance that does not bear its token yet, for sure.
    Tagging(String),
    /// Has an instance; told.
    Up(String),
}

#[derive(Clone, Debug)]
struct Entry {
    pool: PoolId,
    standing: Standing,
    /// Since when it stands there.
    since: Instant,
    /// Its termination was ordered before it had an instance.
    is_doomed: bool,
}

#[derive(Clone, Debug)]
enum BatchState {
    Ready(Instant),
    Asked,
    InDoubt(Instant),
}

/// A launch call, until all of its tokens have an answer.
#[derive(Clone, Debug)]
struct Batch {
    call: LaunchCall,
    /// Tokens without an instance.
    open: Vec<LaunchToken>,
    state: BatchState,
    began: Instant,
    throttles: u32,
    repeats: u32,
}

#[derive(Clone, Debug)]
struct PoolQueue {
    plan: Plan,
    waiting: VecDeque<LaunchToken>,
    window_ends: Instant,
}

/// A tag to write, or a termination to ask for, that may need several tries.
#[derive(Clone, Debug)]
struct Task {
    at: Instant,
    tries: u32,
    is_asked: bool,
}

/// A termination.
#[derive(Clone, Debug)]
struct Ending {
    task: Task,
    /// Who waits for it.
    tokens: Vec<LaunchToken>,
    /// EC2 confirmed it.
    done: Option<Instant>,
}

/// What the provider knows of its instances.
#[derive(Debug)]
pub struct Roster {
    patience: Patience,
    started: Instant,
    /// A list was seen that shows all that the process before made.
    is_settled: bool,
    pools: Vec<PoolQueue>,
    entries: BTreeMap<LaunchToken, Entry>,
    by_handle: BTreeMap<String, LaunchToken>,
    /// Instances that the last list showed alive, or that calls gave since.
    alive: BTreeMap<String, Instant>,
    /// The tokens of those, as the last list showed them.
    tagged: BTreeMap<String, LaunchToken>,
    batches: BTreeMap<u64, Batch>,
    batches_made: u64,
    tags: BTreeMap<String, (LaunchToken, Task)>,
    endings: BTreeMap<String, Ending>,
    /// Terminations that wait for a list asked for after this time.
    unseen: BTreeMap<LaunchToken, (Option<String>, Instant)>,
    /// Since when somebody wants a list that was asked for later than that.
    list_wanted: Option<Instant>,
    /// When the list under way was asked for.
    list_asked: Option<Instant>,
    list_last: Instant,
    list_tries: u32,
    list_at: Instant,
    asked: BTreeMap<CallId, Asked>,
    calls_made: u64,
    paused_until: Instant,
    throttles_in_row: u32,
    answers: VecDeque<Answer>,
    health: Health,
}

/// What a call under way was about.
#[derive(Clone, Debug)]
enum Asked {
    Launch(u64),
    Tag(String),
    Terminate(Vec<String>),
    List(Instant),
}

impl Roster {
    /// A roster; `pools` by number, `known` the instances that the plane was told of before this process.
    pub fn new(now: Instant, patience: Patience, pools: &[Plan], known: &[Known]) -> Self {
        let queue = |plan: &Plan| PoolQueue { plan: *plan, waiting: VecDeque::new(), window_ends: now };
        Self {
            patience,
            started: now,
            is_settled: patience.settle == Duration::ZERO,
            pools: pools.iter().map(queue).collect(),
            entries: known.iter().map(|known| (known.token, known.entry(now))).collect(),
            by_handle: known.iter().map(|known| (known.handle.clone(), known.token)).collect(),
            alive: BTreeMap::new(),
            tagged: BTreeMap::new(),
            batches: BTreeMap::new(),
            batches_made: 0,
            tags: BTreeMap::new(),
            endings: BTreeMap::new(),
            unseen: BTreeMap::new(),
            list_wanted: (patience.settle > Duration::ZERO).then_some(now),
            list_asked: None,
            list_last: now,
            list_tries: 0,
            list_at: now,
            asked: BTreeMap::new(),
            calls_made: 0,
            paused_until: now,
            throttles_in_row: 0,
            answers: VecDeque::new(),
            health: Health::default(),
        }
    }

    /// The launch that an instance belongs to, for notices.
    pub fn owner(&self, handle: &str) -> Option<LaunchToken> {
        self.by_handle.get(handle).or_else(|| self.tagged.get(handle)).copied()
    }

    /// The instance that bears a token, as the last list showed it, and is not being ended.
    fn bearer(&self, token: LaunchToken) -> Option<String> {
        let bears = |(handle, tagged): &(&String, &LaunchToken)| {
            **tagged == token && !self.endings.contains_key(*handle) && !self.by_handle.contains_key(*handle)
        };
        self.tagged.iter().find(bears).map(|(handle, _)| handle.clone())
    }

    /// Whether a list has been seen that shows all of the process before.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Counts.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Somebody wants to know all instances.
    pub fn list(&mut self, now: Instant) {
        self.list_wanted = self.list_wanted.max(Some(now));
    }

    /// The next answer.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// The next call that may be made now.
    pub fn poll_call(&mut self, now: Instant) -> Option<(CallId, Call)> {
        if now < self.paused_until || self.asked.len() >= self.patience.calls_max {
            return None;
        }
        let (asked, call) = match self.next_list(now).or_else(|| self.next_termination(now)) {
            Some(next) => next,
            None if self.has_room() => self.next_tag(now).or_else(|| self.next_launch(now))?,
            None => return None,
        };
        let id = CallId(self.calls_made);
        self.calls_made += 1;
        self.asked.insert(id, asked);
        Some((id, call))
    }

    /// Whether launches and tags may be asked for: lists and terminations always find a place.
    fn has_room(&self) -> bool {
        self.asked.len() + 2 <= self.patience.calls_max
    }

    fn is_terminating(&self) -> bool {
        self.asked.values().any(|asked| matches!(asked, Asked::Terminate(_)))
    }

    /// When something may be asked that may not be asked now. Never before a reply when all calls are used.
    pub fn poll_timeout(&self) -> Instant {
        if self.asked.len() >= self.patience.calls_max {
            return Instant::NEVER;
        }
        let mut next = self.next_list_at();
        if !self.is_terminating() {
            let due = |ending: &Ending| ending.done.is_none() && !ending.task.is_asked;
            let times = self.endings.values().filter(|ending| due(ending)).map(|ending| ending.task.at);
            next = times.fold(next, Instant::min);
        }
        if self.has_room() {
            let tags = self.tags.values().filter(|(_, task)| !task.is_asked).map(|(_, task)| task.at);
            next = tags.fold(next, Instant::min);
            let queues = self.pools.iter().filter(|queue| self.is_settled && !queue.waiting.is_empty());
            next = queues.map(|queue| queue.window_ends).fold(next, Instant::min);
            let ready = |batch: &Batch| match batch.state {
                BatchState::Ready(at) => Some(at),
                BatchState::Asked | BatchState::InDoubt(_) => None,
            };
            next = self.batches.values().filter_map(ready).fold(next, Instant::min);
        }
        if next == Instant::NEVER { next } else { next.max(self.paused_until) }
    }

    /// Takes the end of a call.
    pub fn reply(&mut self, now: Instant, id: CallId, result: Result<Reply, CloudError>) {
        let Some(asked) = self.asked.remove(&id) else { return };
        self.note(now, &result);
        match asked {
            Asked::Launch(batch) => self.launch_replied(now, batch, result),
            Asked::Tag(handle) => self.tag_replied(now, &handle, result),
            Asked::Terminate(handles) => self.terminate_replied(now, handles, result),
            Asked::List(at) => self.list_replied(now, at, result),
        }
    }

    fn note(&mut self, now: Instant, result: &Result<Reply, CloudError>) {
        match result {
            Err(CloudError::Throttled) => {
                self.health.throttled += 1;
                self.throttles_in_row += 1;
                self.paused_until = self.paused_until.max(now + self.pause(self.throttles_in_row));
                return;
            }
            Err(CloudError::InDoubt(what)) => {
                self.health.doubts_in_row += 1;
                self.health.doubt = Some(what.clone());
            }
            Ok(_) | Err(_) => self.health.doubts_in_row = 0,
        }
        self.throttles_in_row = 0;
    }

    /// Pause before try number `tries`: half a second doubled, at most 30 s, less up to a half by chance.
    fn pause(&self, tries: u32) -> Duration {
        let longest = 500_u64 << tries.saturating_sub(1).min(6);
        let longest = longest.min(30_000);
        let chance = mix(self.calls_made ^ (u64::from(tries) << 48)) % (longest / 2 + 1);
        Duration::from_millis(longest - chance)
    }
}

impl Task {
    fn new(now: Instant) -> Self {
        Self { at: now, tries: 0, is_asked: false }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.is_asked && self.at <= now
    }

    fn ask(&mut self) {
        self.is_asked = true;
        self.tries += 1;
    }

    fn again(&mut self, at: Instant) {
        self.is_asked = false;
        self.at = at;
    }
}
