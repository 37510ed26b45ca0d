//! Instances and the pools that hold them.

use super::free::FreeSet;
use super::job::NONE;
use crate::model::{GroupId, InstanceId, PoolId, SLOT_KINDS_MAX};
use crate::policies::Packing;
use crate::records::InstanceEnd;
use crate::units::{Instant, UsdPerHour};

/// The life of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub enum InstanceState {
    /// The id is free.
    Free,
    /// Asked for.
    Requested,
    /// Running, pulling its image and loading its models.
    Loading,
    /// Taking jobs.
    Ready,
    /// Held, but its worker does not answer: it has no jobs and takes none. Counted as starting.
    Silent,
    /// Finishing its last jobs: given back, or under an interruption notice.
    Draining,
    /// Termination was asked for.
    Terminating,
}

#[derive(Clone, Debug)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Instance {
    pub(super) pool: PoolId,
    pub(super) state: InstanceState,
    pub(super) seat: u32,
    pub(super) requested: Instant,
    pub(super) booted: Option<Instant>,
    pub(super) ready: Option<Instant>,
    /// First job that runs on it; the others follow through the jobs' links.
    #[cfg_attr(feature = "image", serde(skip))]
    pub(super) first_job: u32,
    #[cfg_attr(feature = "image", serde(skip))]
    pub(super) busy: [u16; SLOT_KINDS_MAX],
    pub(super) busy_ns: u64,
    /// Why it will end, once it drains or terminates.
    pub(super) end: InstanceEnd,
    /// The machine is gone already: nobody has to be asked to terminate it.
    #[cfg_attr(feature = "image", serde(skip))]
    pub(super) is_gone: bool,
}

impl Instance {
    /// An instance that is asked for at `now`.
    pub(super) fn new(pool: PoolId, seat: u32, now: Instant) -> Self {
        Self {
            pool,
            state: InstanceState::Requested,
            seat,
            requested: now,
            booted: None,
            ready: None,
            first_job: NONE,
            busy: [0; SLOT_KINDS_MAX],
            busy_ns: 0,
            end: InstanceEnd::Released,
            is_gone: false,
        }
    }

    pub(super) fn busy_total(&self) -> u32 {
        self.busy.iter().map(|busy| u32::from(*busy)).sum()
    }
}

#[derive(Debug, Default)]
pub(super) struct Instances {
    pub(super) slots: Vec<Instance>,
    /// The last is used next.
    pub(super) free: Vec<u32>,
}

impl Instances {
    pub(super) fn insert(&mut self, pool: PoolId, seat: u32, now: Instant) -> InstanceId {
        let instance = Instance::new(pool, seat, now);
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = instance;
            return InstanceId(slot);
        }
        self.slots.push(instance);
        InstanceId((self.slots.len() - 1) as u32)
    }

    pub(super) fn remove(&mut self, id: InstanceId) {
        self.slots[id.index()].state = InstanceState::Free;
        self.free.push(id.0);
    }

    pub(super) fn state(&self, id: InstanceId) -> InstanceState {
        self.slots.get(id.index()).map_or(InstanceState::Free, |instance| instance.state)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        let live = |(_, instance): &(usize, &Instance)| instance.state != InstanceState::Free;
        self.slots.iter().enumerate().filter(live).map(|(slot, instance)| (InstanceId(slot as u32), instance))
    }
}

impl std::ops::Index<InstanceId> for Instances {
    type Output = Instance;
    #[inline(always)]
    fn index(&self, id: InstanceId) -> &Instance {
        &self.slots[id.index()]
    }
}

impl std::ops::IndexMut<InstanceId> for Instances {
    #[inline(always)]
    fn index_mut(&mut self, id: InstanceId) -> &mut Instance {
        &mut self.slots[id.index()]
    }
}

/// One pool at work.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) group: GroupId,
    pub(super) slots: [u16; SLOT_KINDS_MAX],
    pub(super) price: UsdPerHour,
    /// By kind: seats of ready instances with free slots.
    free: [FreeSeats; SLOT_KINDS_MAX],
    /// Free slots of ready instances, by kind.
    pub(super) free_slots: [u32; SLOT_KINDS_MAX],
    /// Seats without an instance.
    vacant: FreeSet,
    pub(super) seated: Vec<InstanceId>,
    pub(super) starting: u32,
    pub(super) ready: u32,
    pub(super) draining: u32,
    /// Until when a refused launch is not repeated: the group's next tick.
    pub(super) refused_until: Instant,
    /// Calls in progress, for external pools.
    pub(super) external_running: u32,
}

impl PoolState {
    pub(super) fn new(group: GroupId, slots: [u16; SLOT_KINDS_MAX], price: UsdPerHour) -> Self {
        Self {
            group,
            slots,
            price,
            free: slots.map(FreeSeats::new),
            free_slots: [0; SLOT_KINDS_MAX],
            vacant: FreeSet::default(),
            seated: Vec::new(),
            starting: 0,
            ready: 0,
            draining: 0,
            refused_until: Instant::START,
            external_running: 0,
        }
    }

    /// Puts an instance on its seat; `false` when somebody has it. Seats that are passed over are vacant.
    #[cfg(feature = "image")]
    pub(super) fn sit(&mut self, id: InstanceId, seat: u32) -> bool {
        while self.seated.len() <= seat as usize {
            self.vacant.insert(self.seated.len() as u32);
            self.seated.push(InstanceId(NONE));
        }
        self.vacant.remove(seat);
        std::mem::replace(&mut self.seated[seat as usize], id).0 == NONE
    }

    /// The lowest vacant seat.
    pub(super) fn take_seat(&mut self) -> u32 {
        match self.vacant.first() {
            Some(seat) => {
                self.vacant.remove(seat);
                seat
            }
            None => {
                self.seated.push(InstanceId(NONE));
                (self.seated.len() - 1) as u32
            }
        }
    }

    pub(super) fn leave_seat(&mut self, seat: u32) {
        self.seated[seat as usize] = InstanceId(NONE);
        self.vacant.insert(seat);
    }

    /// Lists a ready instance's slots as free.
    pub(super) fn open(&mut self, instance: &Instance) {
        for kind in 0..SLOT_KINDS_MAX {
            let free = self.slots[kind] - instance.busy[kind];
            self.free_slots[kind] += u32::from(free);
            if free > 0 {
                self.free[kind].level(free).insert(instance.seat);
            }
        }
    }

    /// Takes an instance's free slots off the list.
    pub(super) fn close(&mut self, instance: &Instance) {
        for kind in 0..SLOT_KINDS_MAX {
            let free = self.slots[kind] - instance.busy[kind];
            self.free_slots[kind] -= u32::from(free);
            if free > 0 {
                self.free[kind].level(free).remove(instance.seat);
            }
        }
    }

    /// Takes one free slot of the instance whose turn it is.
    #[inline(always)]
    pub(super) fn take(&mut self, kind: usize, packing: Packing) -> Option<InstanceId> {
        if self.free_slots[kind] == 0 {
            return None;
        }
        let seat = self.free[kind].take(packing)?;
        self.free_slots[kind] -= 1;
        Some(self.seated[seat as usize])
    }

    /// Notes that one slot of a ready instance is free again; `busy` is the count before.
    #[inline(always)]
    pub(super) fn vacate(&mut self, seat: u32, kind: usize, busy: u16) {
        let free = self.slots[kind] - busy;
        if free > 0 {
            self.free[kind].level(free).remove(seat);
        }
        self.free[kind].level(free + 1).insert(seat);
        self.free_slots[kind] += 1;
    }

    pub(super) fn is_listed(&self, seat: u32, kind: usize, free: u16) -> bool {
        let levels = std::iter::once(&self.free[kind].one).chain(&self.free[kind].more);
        levels.enumerate().all(|(at, set)| set.contains(seat) == (at + 1 == free as usize))
    }
}

/// Seats with free slots of one kind, by how many are free.
#[derive(Debug)]
struct FreeSeats {
    /// Seats with one free slot; where instances have one slot there are no others.
    one: FreeSet,
    /// By free slots − 2.
    more: Vec<FreeSet>,
}

impl FreeSeats {
    fn new(slots: u16) -> Self {
        Self { one: FreeSet::default(), more: vec![FreeSet::default(); usize::from(slots.saturating_sub(1))] }
    }

    /// Seats with `free` (> 0) free slots.
    #[inline(always)]
    fn level(&mut self, free: u16) -> &mut FreeSet {
        if free == 1 { &mut self.one } else { &mut self.more[free as usize - 2] }
    }

    /// The seat that gives the next slot; it is listed with one free slot less.
    #[inline(always)]
    fn take(&mut self, packing: Packing) -> Option<u32> {
        if self.more.is_empty() || packing == Packing::Pack && !self.one.is_empty() {
            return self.one.take_first();
        }
        self.take_from_more(packing)
    }

    fn take_from_more(&mut self, packing: Packing) -> Option<u32> {
        let level = match packing {
            Packing::Pack => self.more.iter().position(|set| !set.is_empty()),
            Packing::Spread => self.more.iter().rposition(|set| !set.is_empty()),
        };
        let Some(level) = level else { return self.one.take_first() };
        let seat = self.more[level].take_first()?;
        self.level(level as u16 + 1).insert(seat);
        Some(seat)
    }
}
