//! A simulated account: late and stale lists, partial fleets, refusals, throttling.

use std::collections::{BTreeMap, BTreeSet};

use control::command::{LaunchRefusal, LaunchToken};
use control::fleet::ec2::call::{Call, CloudError, Life, Reply, Seen, Way};
use policy::units::random::mix;
use policy::units::{Duration, Instant};

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Chance, from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn span(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        ms(from_ms + self.below(to_ms - from_ms))
    }
}

/// An instance of the simulated account.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) token: Option<(LaunchToken, Instant)>,
    pub(crate) batch: Vec<LaunchToken>,
    pub(crate) is_own: bool,
    pub(crate) visible_from: Instant,
    pub(crate) over: Option<Instant>,
}

/// The simulated account.
pub(crate) struct SimCloud {
    pub(crate) dice: Dice,
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) by_client_token: BTreeMap<String, Vec<String>>,
    pub(crate) made: u64,
    pub(crate) is_idempotent: bool,
    pub(crate) has_faults: bool,
    /// Longest time that a list may lag.
    pub(crate) lag_ms: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

impl SimCloud {
    pub(crate) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_insert(0) += 1;
    }

    /// Carries a call out at `now`; gives the reply that the caller may get.
    pub(crate) fn execute(&mut self, now: Instant, call: &Call) -> Result<Reply, CloudError> {
        if self.has_faults && self.dice.percent(5) {
            self.count("throttled");
            return Err(CloudError::Throttled);
        }
        match call {
            Call::Launch(call) => self.launch(now, call.client_token(), &call.tokens, call.way),
            Call::Tag { handle, token } => {
                let visible = self.machines.get(handle).filter(|machine| machine.visible_from <= now);
                if visible.is_none() {
                    self.count("tag of an instance not seen yet");
                    return Err(CloudError::NotFound);
                }
                let shown = now + self.dice.span(0, self.lag_ms);
                if let Some(machine) = self.machines.get_mut(handle) {
                    machine.token = Some((*token, shown));
                }
                Ok(Reply::Done)
            }
            Call::Terminate { handles } => {
                let known = |handle: &String| {
                    self.machines.get(handle).is_some_and(|machine| machine.visible_from <= now)
                };
                if !handles.iter().all(known) {
                    self.count("termination of an instance not seen yet");
                    return Err(CloudError::NotFound);
                }
                for handle in handles {
                    let machine = self.machines.get_mut(handle).expect("it is known");
                    assert!(machine.is_own, "an instance of somebody else was terminated: {handle}");
                    machine.over = machine.over.or(Some(now));
                }
                Ok(Reply::Done)
            }
            Call::List => {
                if self.has_faults && self.dice.percent(2) {
                    self.count("list that nobody understands");
                    return Err(CloudError::InDoubt("<html>".to_owned()));
                }
                Ok(Reply::Listed(self.list(now)))
            }
        }
    }

    fn launch(
        &mut self,
        now: Instant,
        client_token: String,
        tokens: &[LaunchToken],
        way: Way,
    ) -> Result<Reply, CloudError> {
        if self.is_idempotent
            && let Some(handles) = self.by_client_token.get(&client_token)
        {
            return Ok(Reply::Launched { handles: handles.clone(), refusals: Vec::new() });
        }
        if self.has_faults && way == Way::Fleet && self.dice.below(2000) == 0 {
            self.count("CreateFleet not to be had");
            return Err(CloudError::Unsupported("UnsupportedOperation".to_owned()));
        }
        if self.has_faults && self.dice.percent(15) {
            self.count("no capacity");
            return Err(CloudError::Refused(LaunchRefusal::InsufficientCapacity));
        }
        let mut count = tokens.len();
        let mut refusals = Vec::new();
        if self.has_faults && self.dice.percent(20) {
            self.count("partial fleet");
            count = self.dice.below(count as u64) as usize;
            refusals.push(LaunchRefusal::Quota);
        }
        let mut handles = Vec::new();
        for _ in 0..count {
            let handle = format!("i-{:08x}", mix(self.made) as u32 as u64 | self.made << 32);
            self.made += 1;
            // One in a thousand is seen far later than lists may lag.
            let late = if self.has_faults && self.dice.below(1000) == 0 {
                self.count("instance seen very late");
                self.dice.span(30_000, 180_000)
            } else {
                self.dice.span(0, self.lag_ms)
            };
            let token = (tokens.len() == 1).then(|| (tokens[0], now));
            let batch = if tokens.len() == 1 { Vec::new() } else { tokens.to_vec() };
            let machine = Machine { token, batch, is_own: true, visible_from: now + late, over: None };
            self.machines.insert(handle.clone(), machine);
            handles.push(handle);
        }
        self.by_client_token.insert(client_token, handles.clone());
        Ok(Reply::Launched { handles, refusals })
    }

    pub(crate) fn list(&mut self, now: Instant) -> Vec<Seen> {
        // Terminated instances are shown for a while, then never again.
        let shown = |machine: &Machine| machine.over.is_none_or(|over| now.since(over) < ms(300_000));
        self.machines.retain(|_, machine| shown(machine));
        let mut seen = Vec::new();
        for (handle, machine) in self.machines.iter().filter(|(_, machine)| machine.is_own) {
            if machine.visible_from > now {
                continue;
            }
            let stale = ms(mix(self.dice.0 ^ seen.len() as u64) % self.lag_ms);
            let life =
                if machine.over.is_some_and(|over| over + stale <= now) { Life::Over } else { Life::Up };
            let token = machine.token.filter(|(_, shown)| *shown <= now).map(|(token, _)| token);
            seen.push(Seen { handle: handle.clone(), token, batch: machine.batch.clone(), life });
        }
        seen
    }

    pub(crate) fn alive(&self) -> BTreeSet<String> {
        let alive = self.machines.iter().filter(|(_, machine)| machine.is_own && machine.over.is_none());
        alive.map(|(handle, _)| handle.clone()).collect()
    }
}
