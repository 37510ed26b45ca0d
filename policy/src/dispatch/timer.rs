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
    /// Timers from before the length changed, or before a restart; mostly none.
    settled: VecDeque<Entry>,
}

impl Ring {
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.back().is_none_or(|last| last.0 <= entry.0), "a ring's times never fall");
        self.entries.push_back(entry);
    }

    /// Drops leading timers that `is_live` refuses; returns the time of the first that is left.
    pub(super) fn next(&mut self, is_live: impl Fn(&Entry) -> bool) -> Option<Instant> {
        let settled = first_live(&mut self.settled, &is_live);
        let first = first_live(&mut self.entries, &is_live);
        settled.map_or(first, |settled| Some(first.map_or(settled, |first| first.min(settled))))
    }

    /// Takes the first timer that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Entry> {
        if let Some(settled) = self.settled.front().filter(|settled| settled.0 <= now)
            && self.entries.front().is_none_or(|first| settled.0 <= first.0)
        {
            return self.settled.pop_front();
        }
        self.entries.pop_front_if(|first| first.0 <= now)
    }

    /// The timers that `is_live` accepts, in the order in which they are due.
    pub(super) fn in_order(&self, is_live: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let all = self.settled.iter().chain(&self.entries);
        let mut entries: Vec<Entry> = all.filter(|entry| is_live(entry)).copied().collect();
        entries.sort_by_key(|entry| entry.0); // stable: timers of one instant stay in the order they were set in
        entries
    }

    /// Timers that were set before, in the order in which they are due; new ones may be of another length.
    pub(super) fn settled(entries: Vec<Entry>) -> Self {
        Self { entries: VecDeque::new(), settled: entries.into() }
    }
}

/// Drops leading timers that `is_live` refuses; returns the time of the first that is left.
fn first_live(entries: &mut VecDeque<Entry>, is_live: &impl Fn(&Entry) -> bool) -> Option<Instant> {
    while let Some(first) = entries.front() {
        if is_live(first) {
            return Some(first.0);
        }
        entries.pop_front();
    }
    None
}

/// Timers of any length.
#[derive(Debug, Default)]
pub(super) struct Heap {
    entries: BinaryHeap<Reverse<(Instant, u64, u32, u32)>>,
    pushed: u64,
}

impl Heap {
    /// Timers that were set before, in the order in which they are due.
    #[cfg(feature = "image")]
    pub(super) fn of(entries: Vec<Entry>) -> Self {
        let mut heap = Self::default();
        for entry in entries {
            heap.push(entry);
        }
        heap
    }

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

    /// The timers that `is_live` accepts, in the order in which they are due.
    #[cfg(feature = "image")]
    pub(super) fn in_order(&self, is_live: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut entries: Vec<_> = self.entries.iter().map(|entry| entry.0).collect();
        entries.sort_unstable();
        let timers = entries.into_iter().map(|(at, _, slot, token)| (at, slot, token));
        timers.filter(|entry| is_live(entry)).collect()
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
