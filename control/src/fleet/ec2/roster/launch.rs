//! Launches: gathered into calls, looked up while in doubt, handed out among the instances that came of them.

use policy::model::PoolId;
use policy::units::Instant;

use super::super::call::{BATCH_MAX, Call, CloudError, LaunchCall, Reply, Way};
use super::{Answer, Asked, Batch, BatchState, Entry, Roster, Standing, Task};
use crate::command::{LaunchRefusal, LaunchToken};

/// Tries to write a token on an instance before it is given up: 15 of half a minute after the first few.
const TAG_TRIES_MAX: u32 = 20;

impl Roster {
    /// An instance is wanted. A launch that has one is answered with it.
    pub fn launch(&mut self, now: Instant, token: LaunchToken, pool: PoolId) {
        if let Some(entry) = self.entries.get(&token) {
            if let Standing::Up(handle) = &entry.standing {
                self.answers.push_back(Answer::Launched { token, handle: handle.clone() });
            }
            return;
        }
        let Some(queue) = self.pools.get_mut(pool.index()) else {
            let why = LaunchRefusal::Other("the pool has no launch template in the settings".to_owned());
            self.answers.push_back(Answer::Refused { token, why });
            return;
        };
        if queue.waiting.is_empty() {
            queue.window_ends = now + self.patience.window;
        }
        queue.waiting.push_back(token);
        self.entries.insert(token, Entry { pool, standing: Standing::Waiting, since: now, is_doomed: false });
        if let Some(handle) = self.bearer(token) {
            self.assign(now, token, handle, true);
        }
    }

    pub(super) fn next_launch(&mut self, now: Instant) -> Option<(Asked, Call)> {
        let ready = |batch: &Batch| matches!(batch.state, BatchState::Ready(at) if at <= now);
        let found = self.batches.iter().find(|(_, batch)| ready(batch)).map(|(id, _)| *id);
        let id = match found {
            Some(id) => id,
            None => self.gather(now)?,
        };
        let batch = self.batches.get_mut(&id)?;
        batch.state = BatchState::Asked;
        Some((Asked::Launch(id), Call::Launch(batch.call.clone())))
    }

    /// Makes a call of the launches that wait, for the first pool whose time has come.
    fn gather(&mut self, now: Instant) -> Option<u64> {
        if !self.is_settled {
            return None;
        }
        let due =
            self.pools.iter().position(|queue| !queue.waiting.is_empty() && queue.window_ends <= now)?;
        let queue = &mut self.pools[due];
        let count = queue.waiting.len().min(BATCH_MAX);
        let tokens: Vec<LaunchToken> = queue.waiting.drain(..count).collect();
        let call = LaunchCall { pool: PoolId(due as u16), tokens, way: queue.plan.way, place: 0 };
        Some(self.begin(now, call, now))
    }

    fn begin(&mut self, now: Instant, call: LaunchCall, began: Instant) -> u64 {
        let id = self.batches_made;
        self.batches_made += 1;
        for token in &call.tokens {
            if let Some(entry) = self.entries.get_mut(token) {
                entry.standing = Standing::InBatch(id);
            }
        }
        let open = call.tokens.clone();
        let state = BatchState::Ready(now);
        self.batches.insert(id, Batch { call, open, state, began, throttles: 0, repeats: 0 });
        id
    }

    pub(super) fn launch_replied(&mut self, now: Instant, id: u64, result: Result<Reply, CloudError>) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        match result {
            Ok(Reply::Launched { handles, refusals }) => self.distribute(now, id, handles, refusals),
            Ok(_) => {
                batch.state = BatchState::InDoubt(now);
            }
            Err(CloudError::InDoubt(_)) => {
                batch.state = BatchState::InDoubt(now);
            }
            Err(CloudError::Throttled) => {
                batch.throttles += 1;
                let (throttles, began) = (batch.throttles, batch.began);
                if now.since(began) > self.patience.throttled_for {
                    let why = "EC2 asks for fewer calls (RequestLimitExceeded) all the time; ask AWS for higher API limits";
                    self.refuse_open(id, &LaunchRefusal::Other(why.to_owned()));
                } else {
                    let at = now + self.pause(throttles);
                    self.set_state(id, BatchState::Ready(at));
                }
            }
            Err(CloudError::Refused(why)) => self.next_place(now, id, why),
            Err(CloudError::Unsupported(what)) => {
                if batch.call.way == Way::Fleet {
                    batch.call.way = Way::Run;
                    batch.state = BatchState::Ready(now);
                    let pool = batch.call.pool.index();
                    self.pools[pool].plan.way = Way::Run;
                } else {
                    self.refuse_open(id, &LaunchRefusal::Other(what));
                }
            }
            Err(error @ (CloudError::Unauthorized(_) | CloudError::NotFound)) => {
                self.refuse_open(id, &LaunchRefusal::Other(error.to_string()));
            }
        }
    }

    fn set_state(&mut self, id: u64, state: BatchState) {
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.state = state;
        }
    }

    /// Hands instances out among the tokens of the call that made them.
    fn distribute(&mut self, now: Instant, id: u64, mut handles: Vec<String>, refusals: Vec<LaunchRefusal>) {
        handles.sort_unstable();
        handles.dedup();
        let is_single = self.batches.get(&id).is_some_and(|batch| batch.call.tokens.len() == 1);
        for handle in handles {
            if self.by_handle.contains_key(&handle) || self.endings.contains_key(&handle) {
                continue;
            }
            self.alive.insert(handle.clone(), now);
            match self.batches.get(&id).and_then(|batch| batch.open.first().copied()) {
                Some(token) => self.assign(now, token, handle, is_single),
                None => self.orphan(now, handle),
            }
        }
        self.next_place(now, id, worst(refusals).unwrap_or(LaunchRefusal::InsufficientCapacity));
    }

    /// A token has an instance. Unless its tag is known to be written, that comes first.
    pub(super) fn assign(&mut self, now: Instant, token: LaunchToken, handle: String, is_tagged: bool) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        match entry.standing {
            Standing::InBatch(id) => {
                if let Some(batch) = self.batches.get_mut(&id) {
                    batch.open.retain(|open| *open != token);
                    if batch.open.is_empty() && !matches!(batch.state, BatchState::Asked) {
                        self.batches.remove(&id);
                    }
                }
            }
            Standing::Waiting => self.pools[entry.pool.index()].waiting.retain(|waiting| *waiting != token),
            Standing::Tagging(_) | Standing::Up(_) => return,
        }
        self.by_handle.insert(handle.clone(), token);
        entry.since = now;
        if entry.is_doomed {
            self.give_up_doomed(now, token, handle);
        } else if is_tagged {
            entry.standing = Standing::Up(handle.clone());
            self.answers.push_back(Answer::Launched { token, handle });
        } else {
            entry.standing = Standing::Tagging(handle.clone());
            self.tags.insert(handle, (token, Task::new(now)));
        }
    }

    fn give_up_doomed(&mut self, now: Instant, token: LaunchToken, handle: String) {
        self.entries.remove(&token);
        self.by_handle.remove(&handle);
        self.answers.push_back(Answer::Refused { token, why: LaunchRefusal::Held });
        self.end(now, handle, Some(token));
    }

    /// The tokens that got nothing try the next place, if there is one.
    fn next_place(&mut self, now: Instant, id: u64, why: LaunchRefusal) {
        let Some(batch) = self.batches.get(&id) else { return };
        let (pool, place) = (batch.call.pool, batch.call.place + 1);
        let is_worth_it = batch.call.way == Way::Run && why == LaunchRefusal::InsufficientCapacity;
        if batch.open.is_empty() || !is_worth_it || place >= self.pools[pool.index()].plan.places {
            self.refuse_open(id, &why);
            return;
        }
        if let Some(batch) = self.batches.remove(&id) {
            let call = LaunchCall { pool, tokens: batch.open, way: Way::Run, place };
            self.begin(now, call, batch.began);
        }
    }

    /// The tokens of a call that have no instance will have none.
    pub(super) fn refuse_open(&mut self, id: u64, why: &LaunchRefusal) {
        let Some(batch) = self.batches.remove(&id) else { return };
        for token in batch.open {
            let entry = self.entries.remove(&token);
            self.answers.push_back(Answer::Refused { token, why: why.clone() });
            if entry.is_some_and(|entry| entry.is_doomed) {
                self.answers.push_back(Answer::Terminated { token });
            }
        }
    }

    pub(super) fn next_tag(&mut self, now: Instant) -> Option<(Asked, Call)> {
        let (handle, (token, task)) = self.tags.iter_mut().find(|(_, (_, task))| task.is_due(now))?;
        task.ask();
        Some((Asked::Tag(handle.clone()), Call::Tag { handle: handle.clone(), token: *token }))
    }

    pub(super) fn tag_replied(&mut self, now: Instant, handle: &str, result: Result<Reply, CloudError>) {
        let Some((token, task)) = self.tags.get(handle) else { return };
        let (token, tries) = (*token, task.tries);
        let error = match result {
            Ok(_) => {
                self.tags.remove(handle);
                if let Some(entry) = self.entries.get_mut(&token) {
                    entry.standing = Standing::Up(handle.to_owned());
                    entry.since = now;
                    self.answers.push_back(Answer::Launched { token, handle: handle.to_owned() });
                }
                return;
            }
            Err(error) => error,
        };
        let is_hopeless = matches!(error, CloudError::Unauthorized(_) | CloudError::Refused(_));
        if is_hopeless || tries >= TAG_TRIES_MAX {
            self.tags.remove(handle);
            self.by_handle.remove(handle);
            self.entries.remove(&token);
            let why =
                LaunchRefusal::Other(format!("the launch token could not be written on {handle}: {error}"));
            self.answers.push_back(Answer::Refused { token, why });
            self.end(now, handle.to_owned(), None);
            return;
        }
        let at = now + self.pause(tries);
        if let Some((_, task)) = self.tags.get_mut(handle) {
            task.again(at);
        }
    }
}

/// Of several reasons the one to act upon: no quota beats no capacity, which a better time may cure.
fn worst(refusals: Vec<LaunchRefusal>) -> Option<LaunchRefusal> {
    let rank = |why: &LaunchRefusal| match why {
        LaunchRefusal::Quota => 3,
        LaunchRefusal::InsufficientCapacity => 2,
        LaunchRefusal::Other(_) => 1,
        LaunchRefusal::Held => 0,
    };
    refusals.into_iter().max_by_key(rank)
}
