//! Terminations: only of instances that a list or a launch showed to be the plane's, and until EC2 confirms.

use policy::units::Instant;

use super::super::call::{Call, CloudError, Reply};
use super::{Answer, Asked, Ending, Roster, Standing, Task};
use crate::command::{LaunchRefusal, LaunchToken};

/// Instances that one call ends at most.
const HANDLES_MAX: usize = 100;

impl Roster {
    /// The instance of a launch is not wanted any more.
    pub fn terminate(&mut self, now: Instant, token: LaunchToken, handle: Option<String>) {
        let standing = self.entries.get(&token).map(|entry| entry.standing.clone());
        let own = match &standing {
            Some(Standing::Up(own) | Standing::Tagging(own)) => Some(own.clone()),
            _ => None,
        };
        let handle = handle.or(own.clone()).or_else(|| self.bearer(token));
        match (handle, standing) {
            (None, Some(Standing::Waiting)) => {
                self.drop_waiting(token);
                self.answers.push_back(Answer::Refused { token, why: LaunchRefusal::Held });
                self.answers.push_back(Answer::Terminated { token });
            }
            (_, Some(Standing::InBatch(_))) => {
                if let Some(entry) = self.entries.get_mut(&token) {
                    entry.is_doomed = true;
                }
            }
            (Some(handle), _) if self.is_own(&handle) => {
                if own.as_deref() == Some(handle.as_str()) {
                    self.forget(token, &handle);
                }
                self.end(now, handle, Some(token));
            }
            (handle, _) => {
                self.unseen.insert(token, (handle, now));
                self.list(now);
            }
        }
    }

    /// Whether it is known to bear the plane's tags.
    fn is_own(&self, handle: &str) -> bool {
        self.alive.contains_key(handle)
            || self.by_handle.contains_key(handle)
            || self.endings.contains_key(handle)
    }

    pub(super) fn drop_waiting(&mut self, token: LaunchToken) {
        if let Some(entry) = self.entries.remove(&token) {
            self.pools[entry.pool.index()].waiting.retain(|waiting| *waiting != token);
        }
    }

    fn forget(&mut self, token: LaunchToken, handle: &str) {
        let was_told =
            self.entries.remove(&token).is_some_and(|entry| matches!(entry.standing, Standing::Up(_)));
        if !was_told {
            self.answers.push_back(Answer::Refused { token, why: LaunchRefusal::Held });
        }
        self.by_handle.remove(handle);
        self.tags.remove(handle);
        self.tagged.remove(handle);
    }

    /// Ends an instance that no launch needs.
    pub(super) fn orphan(&mut self, now: Instant, handle: String) {
        if !self.endings.contains_key(&handle) {
            self.health.orphans += 1;
        }
        self.end(now, handle, None);
    }

    pub(super) fn end(&mut self, now: Instant, handle: String, token: Option<LaunchToken>) {
        let fresh = || Ending { task: Task::new(now), tokens: Vec::new(), done: None };
        let ending = self.endings.entry(handle).or_insert_with(fresh);
        match (ending.done, token) {
            (Some(_), Some(token)) => self.answers.push_back(Answer::Terminated { token }),
            (None, Some(token)) if !ending.tokens.contains(&token) => ending.tokens.push(token),
            _ => {}
        }
    }

    pub(super) fn next_termination(&mut self, now: Instant) -> Option<(Asked, Call)> {
        // One call at a time: what comes meanwhile is one call too.
        if self.is_terminating() {
            return None;
        }
        let is_due = |ending: &Ending| ending.done.is_none() && ending.task.is_due(now);
        // After a refusal each is asked for alone: one unknown id spoils the call of all.
        let mut handles = Vec::new();
        for (handle, ending) in self.endings.iter_mut().filter(|(_, ending)| is_due(ending)) {
            let is_alone = ending.task.tries > 0;
            if is_alone && !handles.is_empty() {
                continue;
            }
            ending.task.ask();
            handles.push(handle.clone());
            if is_alone || handles.len() == HANDLES_MAX {
                break;
            }
        }
        let call = Call::Terminate { handles: handles.clone() };
        (!handles.is_empty()).then_some((Asked::Terminate(handles), call))
    }

    pub(super) fn terminate_replied(
        &mut self,
        now: Instant,
        handles: Vec<String>,
        result: Result<Reply, CloudError>,
    ) {
        let is_single = handles.len() == 1;
        for handle in handles {
            let is_fresh = self.alive.get(&handle).is_some_and(|since| now.since(*since) < self.patience.lag);
            let tries = self.endings.get(&handle).map_or(1, |ending| ending.task.tries);
            let pause = self.pause(tries);
            let Some(ending) = self.endings.get_mut(&handle) else { continue };
            match &result {
                Ok(_) => self.ended(now, &handle),
                Err(CloudError::NotFound) if is_single && !is_fresh => self.ended(now, &handle),
                // Alone at once; a young one may be unknown for a while.
                Err(CloudError::NotFound) => {
                    ending.task.again(if is_single { now + pause } else { now });
                }
                Err(CloudError::Throttled | CloudError::InDoubt(_)) => ending.task.again(now + pause),
                Err(error) => {
                    ending.task.again(now + pause);
                    let what = format!("{handle} could not be terminated: {error}");
                    let tokens = std::mem::take(&mut ending.tokens);
                    for token in tokens {
                        self.answers.push_back(Answer::NotTerminated { token, what: what.clone() });
                    }
                }
            }
        }
    }

    fn ended(&mut self, now: Instant, handle: &str) {
        self.alive.remove(handle);
        let Some(ending) = self.endings.get_mut(handle) else { return };
        ending.done = Some(now);
        for token in std::mem::take(&mut ending.tokens) {
            self.answers.push_back(Answer::Terminated { token });
        }
    }
}
