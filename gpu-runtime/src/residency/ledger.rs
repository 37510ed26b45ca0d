//! The state of every model and the moves between tiers, as pure bookkeeping: what may be done next, and who holds which
//! bytes meanwhile. It holds no model, calls no loader and knows no lock.
//!
//! ```text
//! Disk ──┐                 ┌── failed: back to where it was
//!        ├──► Loading ─────┤
//! Host ──┘                 └──► Device (users) ── no users, others need room ──► Leaving ──► Host or Disk
//! Host ── other copies need room ──► Disk
//! ```

use std::collections::BTreeMap;

use super::order::{self, Eviction, Inflation, Rank};
use super::{Bytes, Tier};

/// What a model does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Lies on the disk alone.
    Disk,
    /// Has a copy in host memory.
    Host,
    /// Comes to the device. The host copy that it comes from stays until it is there.
    Loading {
        /// Whether it comes from a host copy.
        from_host: bool,
        /// Device bytes that are its own already; the others are still held by models that leave for it.
        reserved: u64,
        /// Acquirers beside the one who loads.
        joined: u32,
    },
    /// Ready.
    Device {
        /// Guards that hold it.
        users: u32,
    },
    /// Is being taken off the device.
    Leaving {
        /// Whether host memory is reserved for a copy.
        keep: bool,
    },
}

#[derive(Debug)]
struct Slot {
    bytes: Bytes,
    pinned: bool,
    state: State,
    /// Place among those that may be evicted from the tier where it is.
    rank: Rank,
    /// Measured time of the last load in seconds; 0 before the first.
    cost_s: f64,
}

impl Slot {
    fn on_device(&self) -> u64 {
        match self.state {
            State::Disk | State::Host => 0,
            State::Loading { reserved, .. } => reserved,
            State::Device { .. } | State::Leaving { .. } => self.bytes.device,
        }
    }

    fn on_host(&self) -> u64 {
        match self.state {
            State::Host | State::Loading { from_host: true, .. } | State::Leaving { keep: true } => {
                self.bytes.host
            }
            State::Disk | State::Loading { .. } | State::Device { .. } | State::Leaving { .. } => 0,
        }
    }
}

/// What an acquirer has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Nobody has added a model of this name.
    Unknown,
    /// Use it; one user was counted.
    Ready,
    /// Wait for the load that another has begun; one user is counted when it succeeds.
    Join,
    /// Wait until some model has left the device, then ask again.
    Wait,
    /// There is no room.
    Refused {
        /// Device bytes of the model.
        wanted: u64,
        /// Device bytes that nobody holds.
        free: u64,
    },
    /// Drop the copies, evict the victims in order, load.
    Load(Plan),
}

/// Who makes room for a load.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Models that leave the device.
    pub(super) victims: Vec<Victim>,
    /// Models whose host copies are no longer accounted for: to be dropped before anything else.
    pub(super) dropped: Vec<String>,
}

/// A model that leaves the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) model: String,
    /// Whether host memory is reserved for a copy.
    pub(super) keep: bool,
}

/// All models and their bytes.
#[derive(Debug)]
pub(super) struct Ledger {
    budget: Bytes,
    by: Eviction,
    slots: BTreeMap<String, Slot>,
    device: Inflation,
    host: Inflation,
    uses: u64,
}

impl Ledger {
    pub(super) fn new(budget: Bytes, by: Eviction) -> Self {
        let (device, host) = (Inflation::default(), Inflation::default());
        Self { budget, by, slots: BTreeMap::new(), device, host, uses: 0 }
    }

    /// Adds a model that lies on the disk; `false` where there is one of that name.
    pub(super) fn add(&mut self, model: &str, bytes: Bytes) -> bool {
        if self.slots.contains_key(model) {
            return false;
        }
        let rank = Rank { credit: 0.0, used: 0 };
        let slot = Slot { bytes, pinned: false, state: State::Disk, rank, cost_s: 0.0 };
        self.slots.insert(model.to_owned(), slot);
        true
    }

    /// Keeps a model from being evicted, or no longer; `false` where there is none of that name.
    pub(super) fn pin(&mut self, model: &str, pinned: bool) -> bool {
        self.slots.get_mut(model).map(|slot| slot.pinned = pinned).is_some()
    }

    /// Bytes that models hold or have reserved.
    pub(super) fn used(&self) -> Bytes {
        Bytes {
            device: self.slots.values().map(Slot::on_device).sum(),
            host: self.slots.values().map(Slot::on_host).sum(),
        }
    }

    /// Every model with its state.
    pub(super) fn states(&self) -> impl Iterator<Item = (&str, State)> {
        self.slots.iter().map(|(name, slot)| (name.as_str(), slot.state))
    }

    /// The fastest place that wholly holds each model.
    pub(super) fn tiers(&self) -> BTreeMap<String, Tier> {
        let tier = |state| match state {
            State::Disk | State::Loading { from_host: false, .. } | State::Leaving { .. } => Tier::Disk,
            State::Host | State::Loading { from_host: true, .. } => Tier::Host,
            State::Device { .. } => Tier::Device,
        };
        self.states().map(|(name, state)| (name.to_owned(), tier(state))).collect()
    }

    /// Device bytes of a model.
    ///
    /// # Panics
    /// When there is none of that name, as with everything below.
    pub(super) fn bytes(&self, model: &str) -> Bytes {
        self.slots.get(model).expect("models stay once they were added").bytes
    }

    /// Asks for a model; where the answer is to load, room is reserved and victims are leaving when it returns.
    pub(super) fn begin(&mut self, model: &str) -> Begin {
        let Some(slot) = self.slots.get_mut(model) else { return Begin::Unknown };
        match &mut slot.state {
            State::Device { users } => {
                *users += 1;
                self.touch(model);
                Begin::Ready
            }
            State::Loading { joined, .. } => {
                *joined += 1;
                Begin::Join
            }
            State::Leaving { .. } => Begin::Wait,
            State::Disk => self.make_room(model, false),
            State::Host => self.make_room(model, true),
        }
    }

    fn make_room(&mut self, model: &str, from_host: bool) -> Begin {
        let wanted = self.bytes(model).device;
        let free = self.budget.device - self.used().device;
        let idle = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.state == State::Device { users: 0 } && !slot.pinned)
            .map(|(name, slot)| (name.as_str(), slot.rank, slot.bytes.device));
        let Some(victims) = order::victims(idle, wanted.saturating_sub(free)) else {
            // What a model leaves behind beyond the need of the one that it leaves for may suffice.
            let leaving = self.states().any(|(_, state)| matches!(state, State::Leaving { .. }));
            let waits = leaving && wanted <= self.budget.device;
            return if waits { Begin::Wait } else { Begin::Refused { wanted, free } };
        };
        self.slot(model).state = State::Loading { from_host, reserved: wanted.min(free), joined: 0 };
        let mut plan = Plan::default();
        for (model, rank) in victims {
            self.device.evicted(rank);
            let dropped = self.host_room(self.bytes(&model).host);
            let keep = dropped.is_some();
            self.slot(&model).state = State::Leaving { keep };
            plan.dropped.extend(dropped.into_iter().flatten());
            plan.victims.push(Victim { model, keep });
        }
        Begin::Load(plan)
    }

    /// Makes room for a host copy; gives whose copies go for it, or `None` where there is no room.
    fn host_room(&mut self, wanted: u64) -> Option<Vec<String>> {
        let free = self.budget.host - self.used().host;
        let idle = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.state == State::Host && !slot.pinned)
            .map(|(name, slot)| (name.as_str(), slot.rank, slot.bytes.host));
        let victims = order::victims(idle, wanted.saturating_sub(free))?;
        for (model, rank) in &victims {
            self.host.evicted(*rank);
            self.slot(model).state = State::Disk;
        }
        Some(victims.into_iter().map(|(model, _)| model).collect())
    }

    /// A victim is off the device; what it held goes to the model that it left for, as far as that still lacks some.
    pub(super) fn left(&mut self, victim: &str, with_copy: bool, for_model: &str) {
        let (by, uses) = (self.by, self.next_use());
        let inflation = self.host;
        let slot = self.slot(victim);
        let State::Leaving { keep } = slot.state else { panic!("`{victim}` leaves the device only once") };
        let freed = slot.bytes.device;
        slot.state = if keep && with_copy { State::Host } else { State::Disk };
        slot.rank = inflation.rank(by, slot.cost_s, slot.bytes.host, uses);
        let loading = self.slot(for_model);
        let wanted = loading.bytes.device;
        if let State::Loading { reserved, .. } = &mut loading.state {
            *reserved += freed.min(wanted - *reserved);
        }
    }

    /// A victim that has not left the device stays after all.
    pub(super) fn stays(&mut self, victim: &str) {
        let slot = self.slot(victim);
        assert!(matches!(slot.state, State::Leaving { .. }), "`{victim}` was about to leave");
        slot.state = State::Device { users: 0 };
    }

    /// A load has succeeded in `cost_s` seconds: the one who loaded and all who joined are users.
    pub(super) fn loaded(&mut self, model: &str, cost_s: f64) {
        let slot = self.slot(model);
        let State::Loading { reserved, joined, .. } = slot.state else {
            panic!("`{model}` was being loaded")
        };
        assert_eq!(reserved, slot.bytes.device, "a model is loaded when its victims have left");
        slot.cost_s = cost_s;
        slot.state = State::Device { users: 1 + joined };
        self.touch(model);
    }

    /// A load has failed: the model is where it was before.
    pub(super) fn failed(&mut self, model: &str) {
        let slot = self.slot(model);
        let State::Loading { from_host, .. } = slot.state else { panic!("`{model}` was being loaded") };
        slot.state = if from_host { State::Host } else { State::Disk };
    }

    /// One user has ended.
    pub(super) fn release(&mut self, model: &str) {
        match &mut self.slot(model).state {
            State::Device { users } if *users > 0 => *users -= 1,
            state => panic!("`{model}` is released by a user, but is {state:?}"),
        }
        self.touch(model);
    }

    /// A model on the device is used now.
    fn touch(&mut self, model: &str) {
        let (by, uses, inflation) = (self.by, self.next_use(), self.device);
        let slot = self.slot(model);
        slot.rank = inflation.rank(by, slot.cost_s, slot.bytes.device, uses);
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    fn slot(&mut self, model: &str) -> &mut Slot {
        self.slots.get_mut(model).expect("models stay once they were added")
    }
}
