//! The calendar: pending events in order of (time, class, sequence).
//!
//! A calendar queue (R. Brown, CACM 31(10), 1988): days of equal, power-of-two length in a ring of buckets, far events
//! waiting in their bucket for a later year. What differs from the original: the day at hand is a short sorted list with
//! a heap behind it, so that a day which turns out crowded costs a logarithm and never a scan, and the length of a day follows the measured
//! rate of events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Order of events at one instant, written here and nowhere else: capacity that falls free is free before anybody asks
/// for it, news of the fleet comes before arrivals, and clients lose patience only after they could have been served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventClass {
    /// Work that completes.
    Completion = 0,
    /// Instances that boot, become ready or vanish.
    Fleet = 1,
    /// Markets: shocks, availability.
    Market = 2,
    /// Jobs that arrive.
    Arrival = 3,
    /// The dispatcher's own timers.
    Timer = 4,
    /// Clients that give up.
    Patience = 5,
}

const NONE: u32 = u32::MAX;
const CLASS_SHIFT: u32 = 58;
const BUCKETS_MIN: usize = 64;
/// Pops between two looks at the length of a day.
const TUNE_EVERY: u64 = 4096;
/// Events of a day that are kept sorted; inserting into so few costs less than a heap.
const TODAY_MAX: usize = 24;
/// Events per bucket, far ones included, beyond which there are too few buckets.
const BUCKET_MEAN_MAX: usize = 2;
/// Buckets from which events lie so far apart in memory that they are asked for ahead of time.
const FETCH_MIN: usize = 1 << 13;
/// Days that they are asked for ahead of time.
const FETCH_DAYS: usize = 4;
/// Events per day to aim at: enough that hardly a day is empty, few enough to be ranked against each other.
const EVENTS_PER_DAY: u64 = 4;

#[derive(Clone, Copy)]
struct Entry<P> {
    at: u64,
    /// Class in the upper bits, sequence below.
    order: u64,
    payload: P,
}

impl<P> Entry<P> {
    /// Time and order in one number.
    #[inline(always)]
    fn key(&self) -> u128 {
        u128::from(self.at) << 64 | u128::from(self.order)
    }
}

impl<P> PartialEq for Entry<P> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<P> Eq for Entry<P> {}
impl<P> PartialOrd for Entry<P> {
    #[inline(always)]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<P> Ord for Entry<P> {
    #[inline(always)]
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[derive(Clone, Copy)]
struct Node<P> {
    entry: Entry<P>,
    next: u32,
}

/// Pending events in order of (time, class, sequence).
pub struct Calendar<P> {
    /// The events of the day at hand, latest first; at most `TODAY_MAX`.
    today: Vec<Entry<P>>,
    /// Those of a day that is being taken, in any order.
    morning: Vec<Entry<P>>,
    /// Events of a day that turned out crowded.
    crowd: BinaryHeap<Reverse<Entry<P>>>,
    /// Number of the day at hand; its events, and none of a later day, are in `today`.
    day: u64,
    /// A day lasts 2^`shift` nanoseconds.
    shift: u32,
    heads: Vec<u32>,
    nodes: Vec<Node<P>>,
    vacant: u32,
    /// Events in buckets.
    later: usize,
    sequence: u64,
    pops: u64,
    tuned_pops: u64,
    tuned_at: u64,
    /// Buckets looked at since the last tuning.
    looked: u64,
}

impl<P: Copy> Default for Calendar<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Copy> Calendar<P> {
    /// An empty calendar at time zero.
    pub fn new() -> Self {
        Self {
            today: Vec::with_capacity(TODAY_MAX),
            morning: Vec::with_capacity(TODAY_MAX),
            crowd: BinaryHeap::new(),
            day: 0,
            shift: 20,
            heads: vec![NONE; BUCKETS_MIN],
            nodes: Vec::new(),
            vacant: NONE,
            later: 0,
            sequence: 0,
            pops: 0,
            tuned_pops: 0,
            tuned_at: 0,
            looked: 0,
        }
    }

    /// Pending events.
    pub fn len(&self) -> usize {
        self.today.len() + self.crowd.len() + self.later
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an event at `at` nanoseconds. Times before the last popped one are served next.
    #[inline]
    pub fn push(&mut self, at: u64, class: EventClass, payload: P) {
        self.sequence += 1;
        let entry = Entry { at, order: (class as u64) << CLASS_SHIFT | self.sequence, payload };
        if at >> self.shift <= self.day {
            return self.insert_today(entry);
        }
        self.file(entry);
        if self.later > BUCKET_MEAN_MAX * self.heads.len() {
            self.rebuild();
        }
    }

    /// Time and class of the next event.
    #[inline(always)]
    pub fn peek(&mut self) -> Option<(u64, EventClass)> {
        if self.crowd.is_empty()
            && let Some(first) = self.today.last()
        {
            return Some((first.at, class_of(first.order)));
        }
        let next = self.next_entry()?;
        Some((next.at, class_of(next.order)))
    }

    /// Takes the next event.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<(u64, P)> {
        let next = if self.crowd.is_empty()
            && let Some(first) = self.today.pop()
        {
            first
        } else {
            self.take_entry()?
        };
        self.pops += 1;
        if self.pops - self.tuned_pops >= TUNE_EVERY {
            self.tune(next.at);
        }
        Some((next.at, next.payload))
    }

    /// Takes the next event where today has none or is crowded.
    #[inline(never)]
    fn take_entry(&mut self) -> Option<Entry<P>> {
        let next = self.next_entry()?;
        if self.crowd.is_empty() || self.today.last().is_some_and(|first| first.order == next.order) {
            self.today.pop();
        } else {
            self.crowd.pop();
        }
        Some(next)
    }

    /// The next event; moves on to the day that has it.
    #[inline(never)]
    fn next_entry(&mut self) -> Option<Entry<P>> {
        loop {
            match (self.today.last(), self.crowd.peek()) {
                (Some(first), None) => return Some(*first),
                (Some(first), Some(Reverse(other))) => {
                    return Some(if first < other { *first } else { *other });
                }
                (None, Some(Reverse(other))) => return Some(*other),
                (None, None) => {}
            }
            if !self.next_day() {
                return None;
            }
        }
    }

    #[inline(always)]
    fn insert_today(&mut self, entry: Entry<P>) {
        let len = self.today.len();
        if len == TODAY_MAX {
            return self.crowd.push(Reverse(entry));
        }
        let mut at = len;
        // SAFETY: `new` and `rebuild` leave room for TODAY_MAX entries, so there is a place behind the last; the loop
        // moves each later-served entry up by one, and every place up to `len` holds a value before the length says so.
        unsafe {
            let today = self.today.as_mut_ptr();
            while at > 0 && (*today.add(at - 1)).key() < entry.key() {
                today.add(at).write(*today.add(at - 1));
                at -= 1;
            }
            today.add(at).write(entry);
            self.today.set_len(len + 1);
        }
    }

    #[inline]
    fn file(&mut self, entry: Entry<P>) {
        let bucket = (entry.at >> self.shift) as usize & (self.heads.len() - 1);
        // SAFETY: the number of buckets is a power of two, so the mask keeps `bucket` below it.
        let head = unsafe { self.heads.get_unchecked_mut(bucket) };
        let node = Node { entry, next: *head };
        *head = self.vacant;
        if self.vacant == NONE {
            *head = self.nodes.len() as u32;
            self.nodes.push(node);
        } else {
            // SAFETY: `vacant` names a node that was pushed, and nodes are never taken away one by one.
            let place = unsafe { self.nodes.get_unchecked_mut(self.vacant as usize) };
            self.vacant = place.next;
            *place = node;
        }
        self.later += 1;
    }

    /// Moves on to the next day that has events; false when there is none.
    #[inline]
    fn next_day(&mut self) -> bool {
        if self.later == 0 {
            return false;
        }
        let mask = self.heads.len() - 1;
        let mut empty = 0;
        loop {
            self.day += 1;
            self.looked += 1;
            let bucket = self.day as usize & mask;
            // SAFETY: the number of buckets is a power of two, so the mask keeps `bucket` below it.
            if unsafe { *self.heads.get_unchecked(bucket) } != NONE && self.take_day(bucket) {
                return true;
            }
            empty += 1;
            if empty > mask {
                // A whole year without events: jump to the first day that has one.
                let first = self.pending().map(|entry| entry.at >> self.shift).min();
                self.day = first.expect("`later` counts the filed events") - 1;
                empty = 0;
            }
        }
    }

    /// Moves the events of today out of `bucket`; false when all of them belong to later years.
    #[inline]
    fn take_day(&mut self, bucket: usize) -> bool {
        debug_assert!(self.today.is_empty(), "a new day begins when the last is over");
        let (mut index, mut kept, mut count) = (self.heads[bucket], NONE, 0);
        while index != NONE {
            // SAFETY: heads and links are NONE or name a node that was pushed; see `file`.
            let node = unsafe { self.nodes.get_unchecked_mut(index as usize) };
            let (entry, next) = (node.entry, node.next);
            // Without a branch: which of a bucket's events are of this year is anybody's guess.
            let is_today = entry.at >> self.shift == self.day;
            node.next = if is_today { self.vacant } else { kept };
            kept = if is_today { kept } else { index };
            self.vacant = if is_today { index } else { self.vacant };
            self.later -= usize::from(is_today);
            if count == TODAY_MAX {
                if is_today {
                    self.crowd.push(Reverse(entry));
                }
            } else {
                // SAFETY: `new` made room for TODAY_MAX.
                unsafe { self.morning.as_mut_ptr().add(count).write(entry) };
                count += usize::from(is_today);
            }
            index = next;
        }
        // SAFETY: the first `count` places were written just now.
        unsafe { self.morning.set_len(count) };
        self.heads[bucket] = kept;
        if self.heads.len() >= FETCH_MIN {
            self.fetch_coming_days(bucket);
        }
        self.rank_morning()
    }

    /// Asks the processor for the events of the next days, which it could not guess: one link of each day's chain at a time.
    #[inline(never)]
    fn fetch_coming_days(&self, bucket: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let mask = self.heads.len() - 1;
            for lead in 1..=FETCH_DAYS {
                let mut index = self.heads[(bucket + lead) & mask];
                for _ in lead..FETCH_DAYS {
                    match self.nodes.get(index as usize) {
                        Some(node) => index = node.next,
                        None => break,
                    }
                }
                if let Some(node) = self.nodes.get(index as usize) {
                    // SAFETY: the instruction is part of every x86-64 processor and reads nothing.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(node).cast()) };
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = bucket;
    }

    /// Puts the morning's events in order; false when there are none.
    ///
    /// Each is counted against each other without a branch: for a handful, whose order nobody can predict, that costs a
    /// fraction of a sort.
    #[inline]
    fn rank_morning(&mut self) -> bool {
        let morning = &self.morning;
        let count = morning.len();
        if count == 0 {
            return false;
        }
        let mut later = [0_u8; TODAY_MAX];
        for (at, entry) in morning.iter().enumerate() {
            let mut mine = 0;
            for (other, rank) in morning[..at].iter().zip(&mut later) {
                let is_earlier = u8::from(entry.key() < other.key());
                mine += is_earlier;
                *rank += 1 - is_earlier;
            }
            later[at] = mine;
        }
        // SAFETY: keys differ, so the ranks are a permutation of `0..count`, and `today` has room for TODAY_MAX.
        unsafe {
            let today = self.today.as_mut_ptr();
            for (entry, rank) in morning.iter().zip(later) {
                today.add(rank as usize).write(*entry);
            }
            self.today.set_len(count);
        }
        self.morning.clear();
        true
    }

    fn pending(&self) -> impl Iterator<Item = &Entry<P>> {
        self.heads.iter().flat_map(move |head| {
            let node = |index: u32| (index != NONE).then(|| &self.nodes[index as usize]);
            std::iter::successors(node(*head), move |last| node(last.next)).map(|node| &node.entry)
        })
    }

    /// Chooses the length of a day anew when the measured rate has left the present one.
    #[cold]
    fn tune(&mut self, now: u64) {
        let pops = self.pops - self.tuned_pops;
        let elapsed = now.saturating_sub(self.tuned_at);
        let wanted = shift_for(elapsed, pops);
        let crowded = self.heads.len() > BUCKETS_MIN && self.later < self.heads.len() / 8;
        self.tuned_pops = self.pops;
        self.tuned_at = now;
        let sparse = self.looked > 6 * pops;
        self.looked = 0;
        if wanted.abs_diff(self.shift) > 1 || sparse && wanted > self.shift || crowded {
            self.shift = wanted;
            self.rebuild();
        }
    }

    #[cold]
    fn rebuild(&mut self) {
        let mut entries: Vec<Entry<P>> = self.pending().copied().collect();
        let crowd = self.crowd.peek().map(|Reverse(entry)| entry.at);
        let now = self.today.last().map(|entry| entry.at).into_iter().chain(crowd).min();
        entries.append(&mut self.today);
        entries.extend(self.crowd.drain().map(|Reverse(entry)| entry));
        let buckets = (2 * entries.len() / BUCKET_MEAN_MAX).next_power_of_two().max(BUCKETS_MIN);
        self.heads.clear();
        self.heads.resize(buckets, NONE);
        self.nodes.clear();
        self.vacant = NONE;
        self.later = 0;
        let first = now.or_else(|| entries.iter().map(|entry| entry.at).min());
        // Never behind the last event popped, whose time `tuned_at` bounds from below only; an early event is served next.
        self.day = first.map_or(0, |at| at >> self.shift);
        for entry in entries {
            if entry.at >> self.shift <= self.day {
                self.insert_today(entry);
            } else {
                self.file(entry);
            }
        }
    }
}

/// Length of a day, as a power of two, that holds [`EVENTS_PER_DAY`] at this rate.
fn shift_for(elapsed: u64, events: u64) -> u32 {
    let day = (elapsed / events.max(1)).saturating_mul(EVENTS_PER_DAY).max(1);
    (63 - day.leading_zeros()).clamp(4, 52)
}

#[inline(always)]
fn class_of(order: u64) -> EventClass {
    match order >> CLASS_SHIFT {
        0 => EventClass::Completion,
        1 => EventClass::Fleet,
        2 => EventClass::Market,
        3 => EventClass::Arrival,
        4 => EventClass::Timer,
        _ => EventClass::Patience,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::units::random::Stream;

    #[test]
    fn events_at_one_instant_come_by_class_then_sequence() {
        let mut calendar = Calendar::new();
        calendar.push(5, EventClass::Patience, 0);
        calendar.push(5, EventClass::Completion, 1);
        calendar.push(5, EventClass::Fleet, 2);
        calendar.push(5, EventClass::Completion, 3);
        calendar.push(4, EventClass::Timer, 4);
        calendar.push(5, EventClass::Market, 5);
        let order: Vec<i32> = std::iter::from_fn(|| calendar.pop()).map(|(_, payload)| payload).collect();
        assert_eq!(order, [4, 1, 3, 2, 5, 0]);
    }

    /// Pushes and pops as a simulation does, beside a sorted reference.
    fn agrees_with_reference(name: &str, gap: impl Fn(f64) -> u64) {
        let stream = Stream::new(7, 0, name);
        let mut calendar = Calendar::new();
        let mut reference = std::collections::BTreeSet::new();
        let (mut now, mut sequence) = (0, 0_u64);
        for step in 0..60_000_u64 {
            if stream.unit(step * 3) < 0.5 + 0.2 * f64::from(step < 30_000) || reference.is_empty() {
                let at = now + gap(stream.unit(step * 3 + 1));
                sequence += 1;
                reference.insert((at, sequence));
                calendar.push(at, EventClass::Completion, sequence);
            } else {
                let expected = reference.pop_first();
                assert_eq!(calendar.peek().map(|next| next.0), expected.map(|e| e.0), "{name} step {step}");
                let popped = calendar.pop();
                assert_eq!(popped, expected, "{name} step {step}");
                now = popped.map_or(now, |event| event.0);
            }
            assert_eq!(calendar.len(), reference.len());
        }
        while let Some(expected) = reference.pop_first() {
            assert_eq!(calendar.pop(), Some(expected), "{name} at the end");
        }
        assert!(calendar.is_empty() && calendar.pop().is_none());
    }

    #[test]
    fn order_holds_for_any_spacing() {
        agrees_with_reference("even", |u| (u * 1e9) as u64);
        agrees_with_reference("exponential", |u| (-u.ln() * 1e6) as u64);
        agrees_with_reference("same instant", |_| 0);
        agrees_with_reference("two scales", |u| if u < 0.9 { (u * 1e4) as u64 } else { (u * 3.6e12) as u64 });
        agrees_with_reference("heavy tail", |u| (1e3 / (u * u * u)).min(1e15) as u64);
        agrees_with_reference("far", |u| (1_u64 << 60) + (u * 1e12) as u64);
    }
}
