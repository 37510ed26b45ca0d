//! One station of the recurrence: the times at which its servers are free, or a delay that puts jobs in a new order.
//!
//! A station takes jobs in order of their arrival and hands them on in order of their departure, in blocks. It may hold a
//! job back long after its time has come; the next station only needs the order.

use super::record::Records;
use crate::kernel::Tournament;

/// Bits of a key that hold the job's slot, or the number of the server; the time, relative to a moving base, stands above.
const SLOT_BITS: u32 = crate::kernel::tournament::PLAYER_BITS;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// The slot of no job: a server that has not served yet, or whose last job went on.
const NOBODY: u32 = SLOT_MASK as u32;

/// Jobs inside at most.
pub(super) const JOBS_MAX: usize = NOBODY as usize;

/// Relative time from which the base is moved up.
const REBASE_AT: u64 = 1 << 42;

/// A key's time has 44 bits (4.9 hours).
const TIME_MAX: u64 = 1 << (64 - SLOT_BITS);

/// Departures that a delay lets gather at least before it sorts them.
const GATHER_MIN: usize = 128;

/// A job at a station's door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) at: u64,
    pub(super) slot: u32,
}

/// A time that no key can hold: the scenario is one for the engine.
#[derive(Debug)]
pub(super) struct OutOfRange;

/// Waits of measured jobs, in order of their starts.
#[derive(Default)]
pub(super) struct Waits {
    pub(super) measured: Vec<u64>,
}

/// A station.
pub(super) enum Station {
    Servers(Servers),
    Delay(Delay),
}

/// Servers that serve first come, first served.
pub(super) struct Servers {
    /// When each is free, relative to the base.
    free: Tournament,
    /// The job that each served last and that has not gone on.
    serving: Vec<u32>,
    base: u64,
}

/// Any number of jobs at once.
#[derive(Default)]
pub(super) struct Delay {
    keys: Vec<u64>,
    due: Vec<u64>,
    base: u64,
    /// Jobs that the last sorting left.
    left: usize,
}

impl Station {
    /// Takes `visits` at stage `stage`; who leaves is appended to `out`.
    #[inline]
    pub(super) fn serve(
        &mut self,
        stage: usize,
        visits: &[Visit],
        records: &mut Records,
        (warmup, waits): (u64, &mut Waits),
        out: &mut Vec<Visit>,
    ) -> Result<(), OutOfRange> {
        waits.measured.clear();
        waits.measured.resize(visits.len(), 0);
        let starts = records.starts().map(|starts| starts + stage);
        let measured = match self {
            Self::Servers(servers) => {
                servers.serve(1 + stage, starts, visits, records, warmup, &mut waits.measured, out)?
            }
            Self::Delay(delay) => delay.serve(1 + stage, starts, visits, records, warmup, out)?,
        };
        waits.measured.truncate(measured);
        Ok(())
    }

    /// Lets everybody inside leave.
    pub(super) fn drain(&mut self, out: &mut Vec<Visit>) {
        match self {
            Self::Servers(servers) => {
                for key in servers.free.ranking() {
                    servers.hand_on(key, out);
                }
            }
            Self::Delay(delay) => delay.settle(u64::MAX, out),
        }
    }
}

#[inline(always)]
fn visit(base: u64, key: u64) -> Visit {
    Visit { at: base + (key >> SLOT_BITS), slot: (key & SLOT_MASK) as u32 }
}

impl Servers {
    /// `servers` servers, free from time zero.
    pub(super) fn new(servers: u32) -> Self {
        let count = servers as usize;
        Self { free: Tournament::new(count), serving: vec![NOBODY; count], base: 0 }
    }

    /// Lets the job go on that a server served until the time of its `key`.
    #[inline(always)]
    fn hand_on(&mut self, key: u64, out: &mut Vec<Visit>) {
        let slot = std::mem::replace(&mut self.serving[Tournament::player(key)], NOBODY);
        if slot != NOBODY {
            out.push(Visit { at: self.base + Tournament::count(key), slot });
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "one caller, which takes its own fields apart")]
    fn serve(
        &mut self,
        column: usize,
        starts: Option<usize>,
        visits: &[Visit],
        records: &mut Records,
        warmup: u64,
        waits: &mut [u64],
        out: &mut Vec<Visit>,
    ) -> Result<usize, OutOfRange> {
        let mut measured = 0;
        out.reserve(visits.len());
        for &Visit { at, slot } in visits {
            let first = self.free.first();
            self.hand_on(first, out);
            let start = (self.base + Tournament::count(first)).max(at);
            let row = records.row(slot);
            let until = start + row[column];
            waits[measured] = start - at;
            measured += usize::from(row[0] >= warmup);
            if let Some(starts) = starts {
                row[starts] = start;
            }
            if until - self.base >= REBASE_AT {
                self.rebase(start, out);
                if until - self.base >= TIME_MAX {
                    return Err(OutOfRange);
                }
            }
            self.serving[Tournament::player(self.free.first())] = slot;
            self.free.replace_first(until - self.base);
        }
        Ok(measured)
    }

    /// Moves the base up to `now`, at or before which the first server is free. Jobs that are over by then leave: a key
    /// could not say when they did.
    #[cold]
    fn rebase(&mut self, now: u64, out: &mut Vec<Visit>) {
        let step = now - self.base;
        let mut keys = self.free.ranking();
        for key in &mut keys {
            if Tournament::count(*key) <= step {
                self.hand_on(*key, out);
                *key = Tournament::player(*key) as u64;
            } else {
                *key -= step << SLOT_BITS;
            }
        }
        self.free.seat(&keys);
        self.base = now;
    }
}

impl Delay {
    #[inline(always)]
    fn serve(
        &mut self,
        column: usize,
        starts: Option<usize>,
        visits: &[Visit],
        records: &mut Records,
        warmup: u64,
        out: &mut Vec<Visit>,
    ) -> Result<usize, OutOfRange> {
        let mut measured = 0;
        for &Visit { at, slot } in visits {
            let row = records.row(slot);
            let until = at + row[column];
            measured += usize::from(row[0] >= warmup);
            if let Some(starts) = starts {
                row[starts] = at;
            }
            if until - self.base >= REBASE_AT {
                self.rebase(at, out);
                if until - self.base >= TIME_MAX {
                    return Err(OutOfRange);
                }
            }
            self.keys.push((until - self.base) << SLOT_BITS | u64::from(slot));
        }
        // Sorting is worth its while once as many came as stayed the last time.
        if let Some(last) = visits.last()
            && self.keys.len() >= 2 * self.left + GATHER_MIN
        {
            self.settle(last.at, out);
        }
        Ok(measured)
    }

    /// Lets all leave whose time is before `now`.
    fn settle(&mut self, now: u64, out: &mut Vec<Visit>) {
        let passed = now.saturating_sub(self.base);
        let limit = if passed >= TIME_MAX { u64::MAX } else { passed << SLOT_BITS };
        self.due.resize(self.keys.len(), 0);
        let (mut due, mut left) = (0, 0);
        for at in 0..self.keys.len() {
            let key = self.keys[at];
            let is_due = key < limit;
            // Written to both; only one of the two counts it.
            self.due[due] = key;
            self.keys[left] = key;
            due += usize::from(is_due);
            left += usize::from(!is_due);
        }
        self.keys.truncate(left);
        self.left = left;
        self.due.truncate(due);
        self.due.sort_unstable();
        let base = self.base;
        out.extend(self.due.iter().map(|key| visit(base, *key)));
    }

    /// Moves the base up to `now`.
    #[cold]
    fn rebase(&mut self, now: u64, out: &mut Vec<Visit>) {
        self.settle(now, out);
        // Who is left has a time not before `now`, which then is in a key's range.
        let step = now - self.base;
        self.keys.iter_mut().for_each(|key| *key -= step << SLOT_BITS);
        self.base = now;
    }
}
