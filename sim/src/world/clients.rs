//! Clients that ask again: what they remember while they think it over.

use policy::model::{ClassId, RegionId};

/// A client that will ask again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reasking {
    pub(crate) tag: u64,
    pub(crate) class: ClassId,
    pub(crate) region: RegionId,
    /// How often it has asked so far.
    pub(crate) asked: u16,
}

/// Clients that will ask again, by slot.
#[derive(Debug, Default)]
pub(crate) struct ReaskTable {
    slots: Vec<Reasking>,
    free: Vec<u32>,
}

impl ReaskTable {
    pub(crate) fn insert(&mut self, client: Reasking) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = client;
            return slot;
        }
        self.slots.push(client);
        (self.slots.len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Reasking {
        self.free.push(slot);
        self.slots[slot as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
