//! Announcements that wait, in memory: who is next. Every receiver has its own line, and the lines take turns, so that one
//! that is slow or down holds up nobody else. No clock, no socket.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::effect::WebhookTask;
use crate::number::JobNumber;

/// Bounds of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Calls at once.
    pub calls_max: usize,
    /// Calls at once to one receiver.
    pub host_calls_max: usize,
    /// Announcements in memory.
    pub waiting_max: usize,
    /// Announcements to one receiver in memory.
    pub host_waiting_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { calls_max: 256, host_calls_max: 8, waiting_max: 100_000, host_waiting_max: 10_000 }
    }
}

#[derive(Debug)]
struct Entry {
    task: Arc<WebhookTask>,
    host: Arc<str>,
    /// Attempts that failed.
    attempts: usize,
}

#[derive(Debug, Default)]
struct Host {
    ready: VecDeque<JobNumber>,
    calls: usize,
    /// Entries in memory, those that wait for their time included.
    held: usize,
    is_listed: bool,
}

/// Announcements that wait.
#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    entries: HashMap<JobNumber, Entry>,
    hosts: HashMap<Arc<str>, Host>,
    /// Receivers with something ready and a call free, in turn; each at most once.
    turns: VecDeque<Arc<str>>,
    later: BTreeSet<(Instant, JobNumber)>,
    calls: usize,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: HashMap::new(),
            hosts: HashMap::new(),
            turns: VecDeque::new(),
            later: BTreeSet::new(),
            calls: 0,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes an announcement to `host`, to be made at once; says no when there is no room. One that is in is not taken
    /// twice.
    pub(super) fn offer(&mut self, task: WebhookTask, host: &str) -> bool {
        if self.entries.contains_key(&task.job) {
            return true;
        }
        let held = self.hosts.get(host).map_or(0, |host| host.held);
        if self.entries.len() >= self.bounds.waiting_max || held >= self.bounds.host_waiting_max {
            return false;
        }
        let (job, host): (_, Arc<str>) = (task.job, host.into());
        self.hosts.entry(host.clone()).or_default().held += 1;
        self.entries.insert(job, Entry { task: Arc::new(task), host: host.clone(), attempts: 0 });
        self.ready(job, &host);
        true
    }

    /// The next announcement to make, and how often it failed; it is under way until [`Queue::done`] or
    /// [`Queue::again`].
    pub(super) fn next(&mut self, now: Instant) -> Option<(Arc<WebhookTask>, usize)> {
        while let Some((at, job)) = self.later.first().copied()
            && at <= now
        {
            self.later.pop_first();
            if let Some(host) = self.entries.get(&job).map(|entry| entry.host.clone()) {
                self.ready(job, &host);
            }
        }
        if self.calls >= self.bounds.calls_max {
            return None;
        }
        let name = self.turns.pop_front()?;
        let host = self.hosts.get_mut(&name)?;
        host.is_listed = false;
        let job = host.ready.pop_front()?;
        host.calls += 1;
        self.calls += 1;
        self.list(&name);
        let entry = self.entries.get(&job)?;
        Some((entry.task.clone(), entry.attempts))
    }

    /// How often an announcement failed.
    pub(super) fn attempts(&self, job: JobNumber) -> usize {
        self.entries.get(&job).map_or(0, |entry| entry.attempts)
    }

    /// When the next that waits for its time is ready.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// The call for `job` is over, and no other follows.
    pub(super) fn done(&mut self, job: JobNumber) {
        let Some(entry) = self.entries.remove(&job) else { return };
        self.hung_up(&entry.host);
        if let Some(host) = self.hosts.get_mut(&entry.host) {
            host.held -= 1;
            if host.held == 0 {
                self.hosts.remove(&entry.host);
            }
        }
    }

    /// The call for `job` failed; another follows after `pause`.
    pub(super) fn again(&mut self, job: JobNumber, now: Instant, pause: Duration) {
        let Some(entry) = self.entries.get_mut(&job) else { return };
        entry.attempts += 1;
        let host = entry.host.clone();
        self.later.insert((now + pause, job));
        self.hung_up(&host);
    }

    fn hung_up(&mut self, name: &Arc<str>) {
        self.calls -= 1;
        if let Some(host) = self.hosts.get_mut(name) {
            host.calls -= 1;
        }
        self.list(name);
    }

    fn ready(&mut self, job: JobNumber, name: &Arc<str>) {
        if let Some(host) = self.hosts.get_mut(name) {
            host.ready.push_back(job);
        }
        self.list(name);
    }

    /// Gives a receiver its turn where it may have one.
    fn list(&mut self, name: &Arc<str>) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        if !host.is_listed && !host.ready.is_empty() && host.calls < self.bounds.host_calls_max {
            host.is_listed = true;
            self.turns.push_back(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::records::JobOutcome;
    use proptest::prelude::*;

    fn task(number: u64) -> WebhookTask {
        WebhookTask {
            job: JobNumber::new(0, number),
            tenant: 1,
            url: String::new(),
            outcome: JobOutcome::Done,
            ended: policy::units::Instant::START,
            unix_ms: 0,
        }
    }

    fn bounds(calls_max: usize, host_calls_max: usize) -> Bounds {
        Bounds { calls_max, host_calls_max, waiting_max: 100, host_waiting_max: 50 }
    }

    fn sequence(next: Option<(Arc<WebhookTask>, usize)>) -> Option<u64> {
        next.map(|(task, _)| task.job.sequence())
    }

    #[test]
    fn slow_receiver_holds_up_nobody() {
        let mut queue = Queue::new(bounds(10, 2));
        for number in 0..40 {
            assert!(queue.offer(task(number), "slow"));
        }
        assert!(queue.offer(task(100), "quick"));
        let now = Instant::now();
        let begun: Vec<_> = std::iter::from_fn(|| sequence(queue.next(now))).collect();
        assert_eq!(begun, [0, 100, 1], "two calls to the slow one, and the quick one in between");
        queue.done(JobNumber::new(0, 0));
        assert_eq!(sequence(queue.next(now)), Some(2));
    }

    #[test]
    fn receivers_take_turns() {
        let mut queue = Queue::new(bounds(4, 4));
        for number in 0..6 {
            assert!(queue.offer(task(number), if number < 4 { "a" } else { "b" }));
        }
        let now = Instant::now();
        let begun: Vec<_> = std::iter::from_fn(|| sequence(queue.next(now))).collect();
        assert_eq!(begun, [0, 4, 1, 5], "and four calls at once are the limit");
    }

    #[test]
    fn no_room_is_said() {
        let mut queue = Queue::new(bounds(1, 1));
        for number in 0..50 {
            assert!(queue.offer(task(number), "a"));
        }
        assert!(!queue.offer(task(50), "a"), "the receiver's line is full");
        assert!(queue.offer(task(49), "a"), "one that is in is in");
        for number in 50..100 {
            assert!(queue.offer(task(number), &format!("host-{number}")));
        }
        assert!(!queue.offer(task(100), "b"), "all is full");
        assert_eq!(queue.len(), 100);
    }

    #[test]
    fn failed_calls_come_again_in_their_time() {
        let mut queue = Queue::new(bounds(1, 1));
        let (now, pause) = (Instant::now(), Duration::from_secs(5));
        assert!(queue.offer(task(1), "a") && queue.offer(task(2), "a"));
        assert_eq!(sequence(queue.next(now)), Some(1));
        queue.again(JobNumber::new(0, 1), now, pause);
        assert_eq!(sequence(queue.next(now)), Some(2));
        queue.done(JobNumber::new(0, 2));
        assert_eq!(queue.wake_at(), Some(now + pause));
        assert!(queue.next(now).is_none());
        let again = queue.next(now + pause).expect("its time has come");
        assert_eq!((again.0.job.sequence(), again.1), (1, 1));
        queue.done(again.0.job);
        assert_eq!((queue.len(), queue.hosts.len(), queue.calls), (0, 0, 0));
    }

    proptest! {
        /// Whatever happens: bounds hold, nothing is called twice at once, and in the end everything was called.
        #[test]
        fn everything_is_called_within_bounds(
            hosts in prop::collection::vec(0_u8..4, 1..60),
            fates in prop::collection::vec(any::<bool>(), 1..40),
        ) {
            let mut queue = Queue::new(bounds(5, 2));
            let mut now = Instant::now();
            let mut open: HashMap<JobNumber, u8> = HashMap::new();
            for (number, host) in hosts.iter().enumerate() {
                prop_assert!(queue.offer(task(number as u64), &host.to_string()));
            }
            let mut fates = fates.into_iter();
            let mut done = 0;
            while done < hosts.len() {
                while let Some((task, _)) = queue.next(now) {
                    let host = hosts[task.job.sequence() as usize];
                    prop_assert!(open.insert(task.job, host).is_none());
                    prop_assert!(open.len() <= 5);
                    prop_assert!(open.values().filter(|other| **other == host).count() <= 2);
                }
                match open.keys().copied().min() {
                    Some(job) => {
                        open.remove(&job);
                        if fates.next().unwrap_or(true) {
                            queue.done(job);
                            done += 1;
                        } else {
                            queue.again(job, now, Duration::from_secs(1));
                        }
                    }
                    None => now = queue.wake_at().expect("what is left waits for its time"),
                }
            }
            prop_assert_eq!((queue.len(), queue.hosts.len(), queue.calls, queue.turns.len()), (0, 0, 0, 0));
        }
    }
}
