//! The plane and its fleet driver as far as they matter, and the calls on their way to the cloud and back.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use control::command::LaunchToken;
use control::fleet::ec2::call::{Call, CloudError, Reply, Way};
use control::fleet::ec2::roster::{Answer, CallId, Known, Patience, Plan, Roster};
use policy::model::PoolId;
use policy::units::random::mix;
use policy::units::{Duration, Instant};

use crate::cloud::{Dice, Machine, SimCloud, ms};

/// What the plane keeps durably of a launch.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    pub(crate) handle: Option<String>,
    pub(crate) is_ending: bool,
}

/// What the fleet driver tells the plane.
#[derive(Clone, Debug)]
enum Told {
    Launched(LaunchToken, String),
    Failed(LaunchToken),
    Gone(LaunchToken),
}

#[derive(Clone, Debug)]
enum Happening {
    /// A call reaches the cloud.
    Reaches {
        life: u64,
        id: CallId,
        call: Call,
        reply: Fate,
    },
    Reply {
        life: u64,
        id: CallId,
        result: Result<Reply, CloudError>,
    },
    Durable {
        life: u64,
        told: Told,
    },
    Demand,
    Compare {
        life: u64,
    },
    TakenAway,
    Killed,
    Wake,
}

/// What becomes of a call's request and reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Both,
    RequestLost,
    ReplyLost,
    ReplyGarbled,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    dice: Dice,
    pub(crate) cloud: SimCloud,
    /// Events by time, earliest first.
    calendar: BinaryHeap<std::cmp::Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Happening>,
    sequence: u64,
    pub(crate) plane: BTreeMap<LaunchToken, Durable>,
    /// Instances that each launch was durably told to have.
    pub(crate) told: BTreeMap<LaunchToken, BTreeSet<String>>,
    /// The process: it is killed and started again.
    life: u64,
    pub(crate) roster: Roster,
    launching: BTreeSet<LaunchToken>,
    ending: BTreeSet<LaunchToken>,
    missing: BTreeMap<LaunchToken, Instant>,
    compared: Option<(Instant, BTreeSet<LaunchToken>)>,
    pending: Vec<Told>,
    pub(crate) ordered: u64,
    wanted: u64,
    size_max: usize,
    pub(crate) refused: u64,
    pub(crate) kills: u64,
    wake: Option<Instant>,
    /// Whose story is printed.
    traced: Option<String>,
}

const PLANS: [Plan; 3] = [
    Plan { way: Way::Fleet, places: 6 },
    Plan { way: Way::Run, places: 3 },
    Plan { way: Way::Fleet, places: 1 },
];

fn pool_of(token: LaunchToken) -> PoolId {
    PoolId((token.0 % PLANS.len() as u128) as u16)
}

impl World {
    pub(crate) fn new(seed: u64, wanted: u64, is_idempotent: bool) -> Self {
        let cloud = SimCloud {
            dice: Dice(mix(seed)),
            machines: BTreeMap::new(),
            by_client_token: BTreeMap::new(),
            made: 0,
            is_idempotent,
            has_faults: true,
            lag_ms: 10_000,
            faults: BTreeMap::new(),
        };
        let first = Patience { settle: Duration::ZERO, ..Patience::default() };
        let mut world = Self {
            now: Instant::START,
            dice: Dice(mix(seed ^ 1)),
            cloud,
            calendar: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            plane: BTreeMap::new(),
            told: BTreeMap::new(),
            life: 0,
            roster: Roster::new(Instant::START, first, &PLANS, &[]),
            launching: BTreeSet::new(),
            ending: BTreeSet::new(),
            missing: BTreeMap::new(),
            compared: None,
            pending: Vec::new(),
            ordered: 0,
            wanted,
            size_max: 600,
            refused: 0,
            kills: 0,
            wake: None,
            traced: std::env::var("HEADROOM_TRACE").ok(),
        };
        // Somebody else's instances, which must outlive everything.
        for number in 0..20 {
            let foreign = Machine {
                token: None,
                batch: Vec::new(),
                is_own: false,
                visible_from: Instant::START,
                over: None,
            };
            world.cloud.machines.insert(format!("i-foreign-{number}"), foreign);
        }
        world.at(ms(0), Happening::Demand);
        world.at(ms(1000), Happening::TakenAway);
        world.at(ms(90_000), Happening::Killed);
        world.at(ms(100), Happening::Compare { life: 0 });
        world
    }

    /// Prints what concerns the instance or launch that `HEADROOM_TRACE` names.
    fn trace(&self, what: &impl std::fmt::Debug) {
        if let Some(traced) = &self.traced {
            let text = format!("{what:?}");
            if text.contains(traced) {
                let lines = text.chars().take(2000).collect::<String>();
                println!("{:.3} life {}: {lines}", self.now.as_secs_f64(), self.life);
            }
        }
    }

    fn at(&mut self, after: Duration, event: Happening) {
        let time = (self.now + after).since(Instant::START).as_nanos();
        self.calendar.push(std::cmp::Reverse((time, self.sequence)));
        self.events.insert(self.sequence, event);
        self.sequence += 1;
    }

    /// Whether as many launches as wanted have had an instance.
    fn is_enough(&self) -> bool {
        self.told.len() as u64 >= self.wanted
    }

    /// Until nothing more is wanted, then on without faults until all is quiet.
    pub(crate) fn run(&mut self) {
        while !self.is_enough() {
            self.step();
        }
        self.cloud.has_faults = false;
        let quiet = self.now + ms(900_000);
        while self.now < quiet {
            self.step();
        }
    }

    fn step(&mut self) {
        let std::cmp::Reverse((time, sequence)) = self.calendar.pop().expect("something always comes");
        self.now = Instant::START + Duration::from_nanos(time);
        let event = self.events.remove(&sequence).expect("it is in the calendar");
        if let Happening::Reply { result: Ok(Reply::Listed(seen)), .. } = &event {
            seen.iter().for_each(|one| self.trace(one));
        } else {
            self.trace(&event);
        }
        let is_now = |life: u64| life == self.life;
        match event {
            Happening::Reaches { life, id, call, reply } => self.reaches(life, id, &call, reply),
            Happening::Reply { life, id, result } if is_now(life) => self.roster.reply(self.now, id, result),
            Happening::Durable { life, told } if is_now(life) => self.fold(told),
            Happening::Compare { life } if is_now(life) => self.begin_comparison(),
            Happening::Demand => self.demand(),
            Happening::TakenAway => self.take_away(),
            Happening::Killed => self.kill(),
            Happening::Wake => {
                if self.wake.is_some_and(|wake| wake <= self.now) {
                    self.wake = None;
                }
            }
            Happening::Reply { .. } | Happening::Durable { .. } | Happening::Compare { .. } => {}
        }
        self.drive();
    }

    /// What the provider's task does after each event.
    fn drive(&mut self) {
        while let Some((id, call)) = self.roster.poll_call(self.now) {
            let has_faults = self.cloud.has_faults;
            let reply = match self.dice.below(100) {
                0..3 if has_faults => Fate::RequestLost,
                3..7 if has_faults => Fate::ReplyLost,
                7..9 if has_faults => Fate::ReplyGarbled,
                _ => Fate::Both,
            };
            let after = self.dice.span(20, 2000);
            self.at(after, Happening::Reaches { life: self.life, id, call, reply });
        }
        while let Some(answer) = self.roster.poll_answer() {
            self.answer(answer);
        }
        let wake = self.roster.poll_timeout();
        if wake != Instant::NEVER {
            let after = wake.since(self.now).max(ms(1));
            if self.wake.is_none_or(|known| self.now + after < known) {
                self.wake = Some(self.now + after);
                self.at(after, Happening::Wake);
            }
        }
    }

    fn reaches(&mut self, life: u64, id: CallId, call: &Call, reply: Fate) {
        let timeout = || CloudError::InDoubt("timed out".to_owned());
        if reply == Fate::RequestLost {
            self.cloud.count("request lost");
            return self.at(ms(30_000), Happening::Reply { life, id, result: Err(timeout()) });
        }
        if let Call::Terminate { handles } = call {
            self.check_not_needed(handles);
        }
        let result = self.cloud.execute(self.now, call);
        let (after, result) = match reply {
            Fate::ReplyLost => (ms(28_000), Err(timeout())),
            Fate::ReplyGarbled => (ms(50), Err(CloudError::InDoubt("cannot be decoded".to_owned()))),
            Fate::Both | Fate::RequestLost => (self.dice.span(5, 500), result),
        };
        match reply {
            Fate::ReplyLost => self.cloud.count("reply lost"),
            Fate::ReplyGarbled => self.cloud.count("reply garbled"),
            Fate::Both | Fate::RequestLost => {}
        }
        self.at(after, Happening::Reply { life, id, result });
    }

    /// No instance is terminated that the plane counts on, or will once it has heard what it is being told.
    fn check_not_needed(&self, handles: &[String]) {
        // What is over already may be ended again: lists may show it alive once more.
        let is_alive =
            |handle: &&String| self.cloud.machines.get(*handle).is_some_and(|machine| machine.over.is_none());
        for handle in handles.iter().filter(is_alive) {
            let needs = |durable: &Durable| durable.handle.as_ref() == Some(handle) && !durable.is_ending;
            let needed = self.plane.iter().find(|(_, durable)| needs(durable));
            assert!(needed.is_none(), "{handle} is terminated while {needed:?} needs it, at {:?}", self.now);
            let told = self.pending.iter().any(|told| {
                matches!(told, Told::Launched(token, new) if new == handle
                    && self.plane.get(token).is_some_and(|durable| !durable.is_ending))
            });
            assert!(!told, "{handle} is terminated while the plane hears of it");
        }
    }

    fn answer(&mut self, answer: Answer) {
        if !matches!(answer, Answer::Listed { .. }) {
            self.trace(&answer);
        }
        match answer {
            Answer::Launched { token, handle } => {
                self.launching.remove(&token);
                self.tell(Told::Launched(token, handle));
            }
            Answer::Refused { token, .. } => {
                self.refused += 1;
                self.launching.remove(&token);
                self.tell(Told::Failed(token));
            }
            Answer::Terminated { token } => {
                if self.ending.remove(&token) {
                    self.tell(Told::Gone(token));
                }
            }
            Answer::NotTerminated { .. } => panic!("this cloud lets everything be terminated"),
            Answer::Listed { asked, own } => self.compare(asked, &own),
            Answer::NotListed(_) => {
                if self.compared.take().is_some() {
                    self.at(ms(30_000), Happening::Compare { life: self.life });
                }
            }
        }
    }

    fn tell(&mut self, told: Told) {
        self.pending.push(told.clone());
        self.at(ms(10), Happening::Durable { life: self.life, told });
    }

    /// What the plane makes of what it is told, as `plane::workers` does.
    fn fold(&mut self, told: Told) {
        self.pending.remove(0);
        match told {
            Told::Launched(token, handle) => {
                let handles = self.told.entry(token).or_default();
                handles.insert(handle.clone());
                assert!(handles.len() == 1, "launch {token} was told two instances: {handles:?}");
                let other = self.plane.iter().find(|(other, durable)| {
                    **other != token && durable.handle.as_ref() == Some(&handle) && !durable.is_ending
                });
                assert!(other.is_none(), "{handle} is told to {token} and to {other:?}");
                let Some(durable) = self.plane.get_mut(&token) else { return };
                durable.handle = Some(handle);
                if durable.is_ending {
                    self.order_end(token);
                }
            }
            Told::Failed(token) | Told::Gone(token) => {
                self.plane.remove(&token);
            }
        }
    }

    fn order_launch(&mut self, token: LaunchToken) {
        self.launching.insert(token);
        self.roster.launch(self.now, token, pool_of(token));
    }

    fn order_end(&mut self, token: LaunchToken) {
        // The driver waits for the end of a launch: the plane orders again then.
        if self.launching.contains(&token) {
            return;
        }
        let handle = self.plane.get(&token).and_then(|durable| durable.handle.clone());
        if self.ending.insert(token) {
            self.trace(&("ordered to end", token, &handle));
            self.roster.terminate(self.now, token, handle);
        }
    }

    /// The policies' wishes: waves of launches, and terminations of whatever.
    fn demand(&mut self) {
        if !self.is_enough() {
            let after = self.dice.span(50, 800);
            self.at(after, Happening::Demand);
        }
        let burst = if self.dice.percent(5) { 120 } else { self.dice.below(9) };
        let burst = if self.is_enough() { 0 } else { burst };
        let burst = if self.plane.len() < self.size_max { burst } else { 0 };
        for _ in 0..burst {
            let token = LaunchToken(u128::from(mix(self.ordered)) << 64 | u128::from(self.ordered));
            self.ordered += 1;
            self.plane.insert(token, Durable { handle: None, is_ending: false });
            self.order_launch(token);
        }
        let full = self.plane.len() * 10 / self.size_max.max(1);
        for _ in 0..self.dice.below(1 + full as u64) {
            let index = self.dice.below(self.plane.len() as u64) as usize;
            let Some((token, durable)) = self.plane.iter_mut().nth(index) else { continue };
            let token = *token;
            // Launches that have no instance yet are called off now and then only.
            let is_fresh = durable.handle.is_none() && self.dice.percent(90);
            if !durable.is_ending && !is_fresh {
                durable.is_ending = true;
                self.order_end(token);
            }
        }
    }

    /// Spot capacity is reclaimed.
    fn take_away(&mut self) {
        let after = self.dice.span(500, 4000);
        if self.cloud.has_faults {
            self.at(after, Happening::TakenAway);
        }
        let alive: Vec<String> = self.cloud.alive().into_iter().collect();
        let victim = self.dice.below(alive.len() as u64) as usize;
        if let Some(machine) = alive.get(victim).and_then(|handle| self.cloud.machines.get_mut(handle)) {
            machine.over = Some(self.now);
        }
    }

    /// The process dies: what was not durable is lost. The next one hears the orders without an answer again.
    fn kill(&mut self) {
        if !self.cloud.has_faults {
            return;
        }
        let after = self.dice.span(1_000, 240_000);
        self.at(after, Happening::Killed);
        self.kills += 1;
        self.life += 1;
        self.pending.clear();
        self.launching.clear();
        self.ending.clear();
        self.missing.clear();
        self.compared = None;
        let known: Vec<Known> = self
            .plane
            .iter()
            .filter_map(|(token, durable)| {
                let handle = durable.handle.clone()?;
                Some(Known { token: *token, pool: pool_of(*token), handle })
            })
            .collect();
        self.roster = Roster::new(self.now, Patience::default(), &PLANS, &known);
        let orders: Vec<(LaunchToken, Durable)> =
            self.plane.iter().map(|(token, durable)| (*token, durable.clone())).collect();
        for (token, durable) in orders {
            if durable.is_ending {
                self.order_end(token);
            } else if durable.handle.is_none() {
                self.order_launch(token);
            }
        }
        self.at(ms(0), Happening::Compare { life: self.life });
    }

    fn begin_comparison(&mut self) {
        let counted: BTreeSet<LaunchToken> = self.plane.keys().copied().collect();
        self.compared = Some((self.now, counted));
        self.roster.list(self.now);
    }

    /// As the fleet driver compares: see `fleet::reconcile`.
    fn compare(&mut self, asked: Instant, own: &[(LaunchToken, String)]) {
        let Some((began, _)) = &self.compared else { return };
        if asked < *began {
            return;
        }
        let Some((_, before)) = self.compared.take() else { return };
        self.at(ms(30_000), Happening::Compare { life: self.life });
        for (token, handle) in own {
            if !self.plane.contains_key(token) {
                self.trace(&("no launch needs", token, handle));
                self.roster.terminate(self.now, *token, Some(handle.clone()));
            }
        }
        let listed: BTreeSet<LaunchToken> = own.iter().map(|(token, _)| *token).collect();
        let mut missing = BTreeMap::new();
        let counted: Vec<LaunchToken> = before
            .into_iter()
            .filter(|token| self.plane.get(token).is_some_and(|durable| durable.handle.is_some()))
            .filter(|token| !listed.contains(token))
            .collect();
        for token in counted {
            let since = self.missing.get(&token).copied().unwrap_or(self.now);
            if self.now.since(since) < ms(60_000) {
                missing.insert(token, since);
            } else {
                self.tell(Told::Gone(token));
            }
        }
        self.missing = missing;
    }
}
