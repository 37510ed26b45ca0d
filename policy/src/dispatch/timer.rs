//! Timers of the dispatcher. Those of equal length (leases, deadlines) sit in rings, whose order is that of their time;
//! backoffs and deadlines of single jobs, which differ, in heaps. A timer whose job moved on is dropped when it is met.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::units::Instant;

/// Void timers that a heap may hold beside as many as there are jobs.
const VOID_MAX: usize = 64;

/// A timer: when, which slot, and the token or generation that must still be in force.
pub(super) type Entry = (Instant, u32, u32);

/// Timers of one length.
#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
}

impl Ring {
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.back().is_none_or(|last| last.0 <= entry.0), "a ring's times never fall");
        self.entries.push_back(entry);
    }

    /// Drops leading timers that `is_live` refuses; returns the time of the first that is left.
    pub(super) fn next(&mut self, is_live: impl Fn(&Entry) -> bool) -> Option<Instant> {
        while let Some(first) = self.entries.front() {
            if is_live(first) {
                return Some(first.0);
            }
            self.entries.pop_front();
        }
        None
    }

    /// Takes the first timer that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Entry> {
        self.entries.pop_front_if(|first| first.0 <= now)
    }
}

/// Timers of any length.
#[derive(Debug, Default)]
pub(super) struct Heap {
    entries: BinaryHeap<Reverse<(Instant, u64, u32, u32)>>,
    pushed: u64,
}

impl Heap {
    pub(super) fn push(&mut self, (at, slot, token): Entry) {
        self.pushed += 1;
        self.entries.push(Reverse((at, self.pushed, slot, token)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.entries.peek().map(|entry| entry.0.0)
    }

    /// Drops leading timers that `is_live` refuses; returns the time of the first that is left.
    pub(super) fn next_live(&mut self, is_live: impl Fn(&Entry) -> bool) -> Option<Instant> {
        while let Some(&Reverse((at, _, slot, token))) = self.entries.peek() {
            if is_live(&(at, slot, token)) {
                return Some(at);
            }
            self.entries.pop();
        }
        None
    }

    /// Drops timers that `is_live` refuses once they outnumber `live_max`, the most that can be live.
    pub(super) fn drop_void(&mut self, live_max: usize, is_live: impl Fn(&Entry) -> bool) {
        if self.entries.len() > 2 * live_max + VOID_MAX {
            self.entries.retain(|&Reverse((at, _, slot, token))| is_live(&(at, slot, token)));
        }
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Entry> {
        if self.next()? > now {
            return None;
        }
        let Reverse((at, _, slot, token)) = self.entries.pop()?;
        Some((at, slot, token))
    }
}
