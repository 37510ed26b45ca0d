//! One station of the recurrence: the times at which its servers are free, or a delay that puts jobs in a new order.

use crate::kernel::KeyHeap;

/// Bits of a key that hold the job's slot; the time, relative to a moving base, stands above.
const SLOT_BITS: u32 = 20;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// No job: a server that has not served yet.
const NOBODY: u64 = SLOT_MASK;

/// Jobs inside at most.
pub(super) const JOBS_MAX: usize = NOBODY as usize;

/// Relative time from which the base is moved up; a key's time has 44 bits (4.9 hours).
const REBASE_AT: u64 = 1 << 42;

/// A station.
pub(super) struct Station {
    keys: KeyHeap,
    base: u64,
    is_delay: bool,
    pool: u16,
    factor: f64,
    busy_ns: u64,
}

impl Station {
    /// Any number of jobs at once.
    pub(super) fn delay() -> Self {
        Self { keys: KeyHeap::new(), base: 0, is_delay: true, pool: u16::MAX, factor: 1.0, busy_ns: 0 }
    }

    /// `servers` servers, free from time zero.
    pub(super) fn servers(servers: u32, pool: u16, factor: f64) -> Self {
        let mut keys = KeyHeap::new();
        for _ in 0..servers {
            keys.push(NOBODY);
        }
        Self { keys, base: 0, is_delay: false, pool, factor, busy_ns: 0 }
    }

    #[inline(always)]
    pub(super) fn is_delay(&self) -> bool {
        self.is_delay
    }

    pub(super) fn pool(&self) -> usize {
        self.pool as usize
    }

    #[inline(always)]
    pub(super) fn factor(&self) -> f64 {
        self.factor
    }

    pub(super) fn busy_ns(&self) -> u64 {
        self.busy_ns
    }

    /// When the first server is free, and who leaves it then.
    #[inline(always)]
    pub(super) fn first_free(&self) -> (u64, Option<u32>) {
        let key = self.keys.first();
        let slot = key & SLOT_MASK;
        (self.base + (key >> SLOT_BITS), (slot != NOBODY).then_some(slot as u32))
    }

    /// The first free server serves `slot` until `until`.
    #[inline(always)]
    pub(super) fn take(&mut self, until: u64, slot: u32, took: u64) {
        self.busy_ns += took;
        let key = self.key(until, slot);
        self.keys.replace_first(key);
    }

    /// A delay holds `slot` until `until`.
    #[inline]
    pub(super) fn hold(&mut self, until: u64, slot: u32) {
        let key = self.key(until, slot);
        self.keys.push(key);
    }

    /// Takes the first job that leaves at or before `at`.
    #[inline]
    pub(super) fn leave_before(&mut self, at: u64) -> Option<(u64, u32)> {
        loop {
            let key = self.keys.first();
            let left = self.base + (key >> SLOT_BITS);
            if self.keys.is_empty() || left > at {
                return None;
            }
            self.keys.pop();
            if key & SLOT_MASK != NOBODY {
                return Some((left, (key & SLOT_MASK) as u32));
            }
        }
    }

    #[inline(always)]
    fn key(&mut self, until: u64, slot: u32) -> u64 {
        if until - self.base >= REBASE_AT {
            self.rebase();
        }
        (until - self.base) << SLOT_BITS | u64::from(slot)
    }

    /// Moves the base up to the earliest time still held.
    #[cold]
    fn rebase(&mut self) {
        let earliest = self.keys.first() >> SLOT_BITS;
        // Servers that were never used stand at time zero; the base may pass them, since they are free either way.
        let step = if earliest > 0 && !self.keys.is_empty() { earliest } else { REBASE_AT / 2 };
        self.keys.lower(step << SLOT_BITS, SLOT_MASK);
        self.base += step;
    }
}
