//! Lists: what EC2 shows is compared with what the roster knows. Instances of launches in doubt are found here, and those
//! that belong to nobody.

use std::collections::{BTreeMap, BTreeSet};

use policy::units::{Duration, Instant};

use super::super::call::{Call, CloudError, Life, Reply, Seen};
use super::{Answer, Asked, Batch, BatchState, Ending, Roster, Standing, Task};
use crate::command::{LaunchRefusal, LaunchToken};

/// How long an instance that ended is remembered: a repeated call may still name it.
const FORGET_ENDED: Duration = Duration::from_secs(600);

/// How long one that no list shows is remembered.
const FORGET_LOST: Duration = Duration::from_secs(3600);

impl Roster {
    /// When the next list is wanted.
    pub(super) fn next_list_at(&self) -> Instant {
        if self.list_asked.is_some() {
            return Instant::NEVER;
        }
        let mut at = if self.list_wanted.is_some() { self.list_at } else { Instant::NEVER };
        if !self.is_settled {
            at = at.min((self.started + self.patience.settle).max(self.list_at));
        }
        let in_doubt = |batch: &Batch| matches!(batch.state, BatchState::InDoubt(_));
        if !self.unseen.is_empty() || self.batches.values().any(in_doubt) {
            at = at.min((self.list_last + self.patience.look_every).max(self.list_at));
        }
        at
    }

    pub(super) fn next_list(&mut self, now: Instant) -> Option<(Asked, Call)> {
        if self.next_list_at() > now {
            return None;
        }
        (self.list_asked, self.list_last) = (Some(now), now);
        Some((Asked::List(now), Call::List))
    }

    pub(super) fn list_replied(&mut self, now: Instant, at: Instant, result: Result<Reply, CloudError>) {
        self.list_asked = None;
        let seen = match result {
            Ok(Reply::Listed(seen)) => seen,
            Ok(_) => {
                return self.list_failed(now, &CloudError::InDoubt("an answer of another kind".to_owned()));
            }
            Err(error) => return self.list_failed(now, &error),
        };
        self.list_tries = 0;
        self.list_at = now;
        if self.list_wanted.is_some_and(|wanted| wanted <= at) {
            self.list_wanted = None;
        }
        let was_settled = self.is_settled;
        self.is_settled |= at >= self.started + self.patience.settle;
        self.note_alive(now, &seen);
        for one in &seen {
            self.compare(now, at, one);
        }
        if !was_settled && self.is_settled {
            // Launches that were held back begin a window of their own, so that they are few calls.
            for queue in &mut self.pools {
                queue.window_ends = now + self.patience.window;
            }
        }
        self.resolve_doubts(now, at);
        self.resolve_unseen(now, at);
        self.prune(now, at, &seen);
        let own = self.own(now);
        self.answers.push_back(Answer::Listed { asked: at, own });
    }

    fn list_failed(&mut self, now: Instant, error: &CloudError) {
        self.list_tries += 1;
        self.list_at = now + self.pause(self.list_tries);
        // What waits for a list is told why, at once where waiting does not help.
        let is_hopeless = matches!(error, CloudError::Unauthorized(_) | CloudError::Refused(_));
        let patience = self.patience.throttled_for;
        let is_over = |since: Instant| is_hopeless || now.since(since) > patience;
        let what = format!("EC2 gives no list of its instances: {error}");
        if !self.is_settled {
            let waiting = self.entries.iter().filter(|(_, entry)| entry.standing == Standing::Waiting);
            let over: Vec<LaunchToken> =
                waiting.filter(|(_, entry)| is_over(entry.since)).map(|(token, _)| *token).collect();
            for token in over {
                self.drop_waiting(token);
                self.answers.push_back(Answer::Refused { token, why: LaunchRefusal::Other(what.clone()) });
            }
        }
        let doubtful = |batch: &Batch| matches!(batch.state, BatchState::InDoubt(since) if is_over(since));
        let over: Vec<u64> =
            self.batches.iter().filter(|(_, batch)| doubtful(batch)).map(|(id, _)| *id).collect();
        for id in over {
            self.refuse_open(id, &LaunchRefusal::Other(what.clone()));
        }
        let answers = &mut self.answers;
        self.unseen.retain(|token, (_, ordered)| {
            let is_over = is_over(*ordered);
            if is_over {
                answers.push_back(Answer::NotTerminated { token: *token, what: what.clone() });
            }
            !is_over
        });
        self.answers.push_back(Answer::NotListed(what));
    }

    fn note_alive(&mut self, now: Instant, seen: &[Seen]) {
        let listed: BTreeMap<&str, &Seen> = seen.iter().map(|one| (one.handle.as_str(), one)).collect();
        let lag = self.patience.lag;
        self.alive.retain(|handle, since| match listed.get(handle.as_str()) {
            Some(one) => one.life != Life::Over,
            None => now.since(*since) < lag,
        });
        self.tagged.clear();
        for one in seen.iter().filter(|one| one.life == Life::Up) {
            self.alive.entry(one.handle.clone()).or_insert(now);
            if let Some(token) = one.token
                && !self.endings.contains_key(&one.handle)
            {
                self.tagged.insert(one.handle.clone(), token);
            }
        }
    }

    /// Finds the launch of an instance, or ends it.
    fn compare(&mut self, now: Instant, at: Instant, one: &Seen) {
        if one.life == Life::Over || (one.token.is_none() && one.batch.is_empty()) {
            return;
        }
        if let Some(ending) = self.endings.get_mut(&one.handle) {
            // Confirmed, and alive long after: it is asked for again.
            if ending.done.is_some_and(|done| at.since(done) > self.patience.lag) {
                ending.done = None;
                ending.task = Task::new(now);
            }
            return;
        }
        if one.life == Life::Stopped {
            if let Some(token) = self.by_handle.remove(&one.handle) {
                self.entries.remove(&token);
            }
            return self.orphan(now, one.handle.clone());
        }
        if self.by_handle.contains_key(&one.handle) {
            return;
        }
        match one.token {
            Some(token) => self.compare_tagged(now, token, one),
            None => self.compare_unassigned(now, at, one),
        }
    }

    fn compare_tagged(&mut self, now: Instant, token: LaunchToken, one: &Seen) {
        match self.entries.get(&token).map(|entry| entry.standing.clone()) {
            Some(Standing::Up(_) | Standing::Tagging(_)) => self.orphan(now, one.handle.clone()),
            Some(Standing::InBatch(id)) if self.is_asked(id) => {}
            Some(Standing::InBatch(_) | Standing::Waiting) => {
                self.assign(now, token, one.handle.clone(), true);
            }
            // The plane knows whether it needs it: it is in the answer to whoever asked for the list.
            None => {}
        }
    }

    /// An instance of a call whose tokens have not been handed out.
    fn compare_unassigned(&mut self, now: Instant, at: Instant, one: &Seen) {
        let same = self.batches.values().find(|batch| batch.call.tokens == one.batch);
        match same {
            Some(batch) if matches!(batch.state, BatchState::Asked) => return,
            Some(batch) => {
                return match batch.open.first().copied() {
                    Some(token) => self.assign(now, token, one.handle.clone(), false),
                    None => self.orphan(now, one.handle.clone()),
                };
            }
            None => {}
        }
        if !self.is_settled || at < self.started + self.patience.settle {
            return;
        }
        let waits = |token: &&LaunchToken| {
            self.entries.get(token).is_some_and(|entry| entry.standing == Standing::Waiting)
        };
        match one.batch.iter().find(waits).copied() {
            Some(token) => self.assign(now, token, one.handle.clone(), false),
            None => self.orphan(now, one.handle.clone()),
        }
    }

    fn is_asked(&self, id: u64) -> bool {
        self.batches.get(&id).is_some_and(|batch| matches!(batch.state, BatchState::Asked))
    }

    /// Calls in doubt that a list should have shown by now: nothing came of them, or all that will.
    fn resolve_doubts(&mut self, now: Instant, at: Instant) {
        let is_over = |batch: &Batch| match batch.state {
            BatchState::InDoubt(since) => at >= since + self.patience.lag,
            _ => false,
        };
        let over: Vec<u64> =
            self.batches.iter().filter(|(_, batch)| is_over(batch)).map(|(id, _)| *id).collect();
        for id in over {
            let Some(batch) = self.batches.get_mut(&id) else { continue };
            let nothing_came = batch.open.len() == batch.call.tokens.len();
            if nothing_came && batch.repeats < self.patience.repeats_max {
                batch.repeats += 1;
                batch.state = BatchState::Ready(now);
            } else if nothing_came {
                let doubt = self.health.doubt.clone().unwrap_or_default();
                let why = format!("EC2 gave no clear answer to a launch, and nothing came of it: {doubt}");
                self.refuse_open(id, &LaunchRefusal::Other(why));
            } else {
                self.refuse_open(id, &LaunchRefusal::InsufficientCapacity);
            }
        }
    }

    /// Terminations of what was not known when they were ordered.
    fn resolve_unseen(&mut self, now: Instant, at: Instant) {
        let due = |ordered: &Instant| *ordered <= at;
        let unseen = std::mem::take(&mut self.unseen);
        for (token, (handle, ordered)) in unseen {
            let found = match &handle {
                Some(handle) => Some(handle.clone()).filter(|handle| self.alive.contains_key(handle)),
                None => self.bearer(token),
            };
            if let Some(handle) = found {
                self.end(now, handle, Some(token));
            } else if due(&ordered) && self.is_settled {
                self.answers.push_back(Answer::Terminated { token });
            } else {
                self.unseen.insert(token, (handle, ordered));
            }
        }
    }

    /// Forgets what has been gone for long.
    fn prune(&mut self, now: Instant, at: Instant, seen: &[Seen]) {
        let over: BTreeSet<&str> =
            seen.iter().filter(|one| one.life == Life::Over).map(|one| one.handle.as_str()).collect();
        let listed: BTreeSet<&str> = seen.iter().map(|one| one.handle.as_str()).collect();
        self.endings.retain(|handle, ending| {
            let gone = over.contains(handle.as_str()) || !listed.contains(handle.as_str());
            !(gone && ending.done.is_some_and(|done| at.since(done) > FORGET_ENDED))
        });
        let (by_handle, endings) = (&mut self.by_handle, &mut self.endings);
        self.entries.retain(|_, entry| {
            let Standing::Up(handle) = &entry.standing else { return true };
            let is_over = over.contains(handle.as_str());
            let is_lost = !listed.contains(handle.as_str()) && now.since(entry.since) > FORGET_LOST;
            if is_over {
                // Lists may show it alive once more; it is nobody's any more.
                let done = Ending { task: Task::new(now), tokens: Vec::new(), done: Some(now) };
                endings.insert(handle.clone(), done);
            }
            if is_over || is_lost {
                by_handle.remove(handle);
            }
            !(is_over || is_lost)
        });
    }

    /// All instances that are alive and belong to a launch.
    fn own(&self, now: Instant) -> Vec<(LaunchToken, String)> {
        let mut own: BTreeSet<(LaunchToken, String)> = BTreeSet::new();
        for (handle, token) in self.tagged.iter().filter(|(handle, _)| !self.endings.contains_key(*handle)) {
            let token = self.by_handle.get(handle).unwrap_or(token);
            own.insert((*token, handle.clone()));
        }
        for (token, entry) in &self.entries {
            if let Standing::Up(handle) | Standing::Tagging(handle) = &entry.standing
                && (self.alive.contains_key(handle) || now.since(entry.since) < self.patience.lag)
            {
                own.insert((*token, handle.clone()));
            }
        }
        own.into_iter().collect()
    }
}
