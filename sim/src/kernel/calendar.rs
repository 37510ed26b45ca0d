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
/// Events up to which days are short and buckets many: those of so few fit the processor's nearest memory.
const SHORT_MAX: usize = 1024;
/// Short days per event: most days have no event, nearly all others one, which needs no order.
const SHORT_DAYS: u64 = 2;
/// Events of a long day to aim at: enough that hardly a day is empty, few enough to be ranked against each other.
const LONG_EVENTS: u64 = 4;
/// By how much a long day is longer than a short one, as a power of two.
const LONGER: u32 = (SHORT_DAYS * LONG_EVENTS).trailing_zeros();
/// Buckets per event with short days, so that a year is as long as with long ones.
const SHORT_BUCKETS: usize = 1 << LONGER;
/// Long days whose events are asked for ahead of time, since they lie far apart in memory.
const FETCH_DAYS: usize = 4;

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
    /// Events of a day that turned out crowded; none comes before one of `today`.
    crowd: BinaryHeap<Reverse<Entry<P>>>,
    /// Number of the day at hand; its events, and none of a later day, are in `today`.
    day: u64,
    /// A day lasts 2^`shift` nanoseconds.
    shift: u32,
    /// Whether days are so short that most have no event; see [`SHORT_MAX`].
    is_short: bool,
    heads: Vec<u32>,
    /// One bit for each bucket that has an event.
    filled: Vec<u64>,
    nodes: Vec<Node<P>>,
    vacant: u32,
    /// Events in buckets.
    later: usize,
    /// Events in buckets beyond which there are too few buckets.
    later_max: usize,
    sequence: u64,
    /// Pops until the length of a day is looked at again.
    until_tuning: u64,
    tuned_at: u64,
    /// Looks for the next day's bucket since the last tuning.
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
            is_short: true,
            heads: vec![NONE; BUCKETS_MIN],
            filled: vec![0; BUCKETS_MIN / 64],
            nodes: Vec::new(),
            vacant: NONE,
            later: 0,
            later_max: 2 * BUCKETS_MIN / SHORT_BUCKETS,
            sequence: 0,
            until_tuning: TUNE_EVERY,
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
    #[inline(always)]
    pub fn push(&mut self, at: u64, class: EventClass, payload: P) {
        self.sequence += 1;
        let entry = Entry { at, order: (class as u64) << CLASS_SHIFT | self.sequence, payload };
        if at >> self.shift <= self.day {
            return self.insert_today(entry);
        }
        self.file(entry);
        if self.later > self.later_max {
            self.rebuild();
        }
    }

    /// Time and class of the next event.
    #[inline(always)]
    pub fn peek(&mut self) -> Option<(u64, EventClass)> {
        if self.today.is_empty() && !self.advance() {
            return None;
        }
        // SAFETY: `today` is not empty, or `advance` has found something for it.
        let first = unsafe { self.today.get_unchecked(self.today.len() - 1) };
        Some((first.at, class_of(first.order)))
    }

    /// The next event after [`Calendar::peek`] has found it.
    #[inline(always)]
    pub fn first(&self) -> Option<P> {
        self.today.last().map(|entry| entry.payload)
    }

    /// Takes the next event.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<(u64, P)> {
        let Some(next) = self.today.pop() else {
            return self.pop_from_later();
        };
        self.until_tuning -= 1;
        if self.until_tuning == 0 {
            self.tune(next.at);
        }
        Some((next.at, next.payload))
    }

    #[cold]
    #[inline(never)]
    fn pop_from_later(&mut self) -> Option<(u64, P)> {
        self.peek()?;
        self.pop()
    }

    /// Fills the empty `today` from the crowd or with the next day that has events; false when nothing is pending.
    #[inline(always)]
    fn advance(&mut self) -> bool {
        if self.crowd.is_empty() { self.next_day() } else { self.let_in() }
    }

    /// Fills the empty `today` with the first of the crowd.
    #[cold]
    #[inline(never)]
    fn let_in(&mut self) -> bool {
        let first = std::iter::from_fn(|| self.crowd.pop()).take(TODAY_MAX / 2);
        self.today.extend(first.map(|Reverse(entry)| entry));
        self.today.reverse();
        true
    }

    #[inline(always)]
    fn insert_today(&mut self, entry: Entry<P>) {
        let len = self.today.len();
        if len == TODAY_MAX || !self.crowd.is_empty() {
            return self.insert_crowded(entry);
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

    /// The same where today is crowded: nobody in the crowd comes before one who is in.
    #[cold]
    #[inline(never)]
    fn insert_crowded(&mut self, entry: Entry<P>) {
        if self.today.first().is_none_or(|last| *last < entry) {
            return self.crowd.push(Reverse(entry));
        }
        if self.today.len() == TODAY_MAX {
            self.crowd.push(Reverse(self.today.remove(0)));
        }
        let at = self.today.partition_point(|other| *other > entry);
        self.today.insert(at, entry);
    }

    #[inline(always)]
    fn file(&mut self, entry: Entry<P>) {
        let bucket = (entry.at >> self.shift) as usize & (self.heads.len() - 1);
        // SAFETY: the number of buckets is a power of two, so the mask keeps `bucket` below it, and each has its bit.
        let head = unsafe {
            *self.filled.get_unchecked_mut(bucket / 64) |= 1 << (bucket % 64);
            self.heads.get_unchecked_mut(bucket)
        };
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
    #[inline(always)]
    fn next_day(&mut self) -> bool {
        let bucket = (self.day + 1) as usize & (self.heads.len() - 1);
        // SAFETY: the number of buckets is a power of two, so the mask keeps `bucket` below it; each has its bit, and a
        // filled one names a node, which was pushed; `new` and `rebuild` leave room for TODAY_MAX entries.
        unsafe {
            let coming = *self.filled.get_unchecked(bucket / 64) >> (bucket % 64);
            let skipped = coming.trailing_zeros() as usize;
            let (day, bucket) = (self.day + 1 + skipped as u64, bucket + skipped);
            // A word with nothing to come skips 64 and may lead beyond the last bucket.
            if coming == 0 || !self.is_short {
                return self.find_day();
            }
            let head = self.heads.get_unchecked_mut(bucket);
            let index = *head;
            let node = self.nodes.get_unchecked_mut(index as usize);
            if node.next != NONE || node.entry.at >> self.shift != day {
                return self.find_day();
            }
            *head = NONE;
            *self.filled.get_unchecked_mut(bucket / 64) &= !(1 << (bucket % 64));
            node.next = self.vacant;
            self.vacant = index;
            self.later -= 1;
            self.day = day;
            self.today.as_mut_ptr().write(node.entry);
            self.today.set_len(1);
        }
        true
    }

    /// The same where the next bucket is not at hand or holds more than one event of its day.
    #[inline(never)]
    fn find_day(&mut self) -> bool {
        if self.later == 0 {
            return false;
        }
        let mask = self.heads.len() - 1;
        let (mut day, mut end) = (self.day + 1, self.day + 1 + self.heads.len() as u64);
        loop {
            self.looked += 1;
            let bucket = day as usize & mask;
            let coming = self.filled[bucket / 64] >> (bucket % 64);
            if coming == 0 {
                day = (day | 63) + 1;
            } else {
                self.day = day + u64::from(coming.trailing_zeros());
                let bucket = self.day as usize & mask;
                if if self.is_short { self.take_short_day(bucket) } else { self.take_day(bucket) } {
                    return true;
                }
                day = self.day + 1;
            }
            if day >= end {
                // A whole year without events: jump to the first day that has one.
                let first = self.pending().map(|entry| entry.at >> self.shift).min();
                day = first.expect("`later` counts the filed events");
                end = u64::MAX;
            }
        }
    }

    /// Moves the events of a short day out of `bucket`; false when all of them belong to later years.
    #[inline]
    fn take_short_day(&mut self, bucket: usize) -> bool {
        let (mut index, mut kept) = (self.heads[bucket], NONE);
        while index != NONE {
            // SAFETY: heads and links are NONE or name a node that was pushed; see `file`.
            let node = unsafe { self.nodes.get_unchecked_mut(index as usize) };
            let (entry, next) = (node.entry, node.next);
            if entry.at >> self.shift == self.day {
                (node.next, self.vacant) = (self.vacant, index);
                self.later -= 1;
                self.insert_today(entry);
            } else {
                (node.next, kept) = (kept, index);
            }
            index = next;
        }
        self.heads[bucket] = kept;
        self.filled[bucket / 64] &= !(u64::from(kept == NONE) << (bucket % 64));
        !self.today.is_empty()
    }

    /// The same of a long day.
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
        self.filled[bucket / 64] &= !(u64::from(kept == NONE) << (bucket % 64));
        self.fetch_coming_days(bucket);
        if !self.crowd.is_empty() {
            self.crowd.extend(self.morning.drain(..).map(Reverse));
            return self.let_in();
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
        let elapsed = now.saturating_sub(self.tuned_at);
        let wanted = shift_for(elapsed, TUNE_EVERY, self.is_short);
        let crowded = self.heads.len() > BUCKETS_MIN && self.later < self.later_max / 16;
        self.until_tuning = TUNE_EVERY;
        self.tuned_at = now;
        let sparse = self.looked > 6 * TUNE_EVERY;
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
        let is_short = entries.len() <= if self.is_short { SHORT_MAX } else { SHORT_MAX / 2 };
        if is_short != self.is_short {
            self.shift = if is_short { self.shift.saturating_sub(LONGER) } else { self.shift + LONGER };
            self.is_short = is_short;
        }
        let per_event = if is_short { SHORT_BUCKETS } else { 1 };
        let buckets = (entries.len() * per_event).next_power_of_two().max(BUCKETS_MIN);
        self.heads.clear();
        self.heads.resize(buckets, NONE);
        self.filled.clear();
        self.filled.resize(buckets / 64, 0);
        self.later_max = 2 * buckets / per_event;
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

/// Length of a day at this rate, as a power of two.
fn shift_for(elapsed: u64, events: u64, is_short: bool) -> u32 {
    let gap = elapsed / events.max(1);
    let day = if is_short { gap / SHORT_DAYS } else { gap.saturating_mul(LONG_EVENTS) }.max(1);
    (63 - day.leading_zeros()).clamp(4, 52)
}

#[inline(always)]
fn class_of(order: u64) -> EventClass {
    use EventClass::{Arrival, Completion, Fleet, Market, Patience, Timer};
    const CLASSES: [EventClass; 8] =
        [Completion, Fleet, Market, Arrival, Timer, Patience, Patience, Patience];
    CLASSES[(order >> CLASS_SHIFT) as usize % CLASSES.len()]
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
