//! One queue: eight priorities, each a linked list through the table of jobs, or one heap by deadline.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::job::{JobState, Jobs, NONE};
use crate::model::QueueOrder;
use crate::units::Instant;

const PRIORITIES: usize = 8;

/// Void entries that a heap may hold beside as many as it has waiting jobs.
const VOID_MAX: usize = 64;

/// (priority, deadline, number, slot, generation)
type Waiting = (u8, Instant, u64, u32, u32);

#[derive(Debug)]
pub(super) struct Queue {
    order: QueueOrder,
    heads: [u32; PRIORITIES],
    tails: [u32; PRIORITIES],
    /// Bit p is set while priority p has a waiting job.
    filled: u8,
    /// For [`QueueOrder::Deadline`]; left jobs are skipped when met.
    by_deadline: BinaryHeap<Reverse<Waiting>>,
    pushed: u64,
    pub(super) len: u32,
}

impl Queue {
    pub(super) fn new(order: QueueOrder) -> Self {
        Self {
            order,
            heads: [NONE; PRIORITIES],
            tails: [NONE; PRIORITIES],
            filled: 0,
            by_deadline: BinaryHeap::new(),
            pushed: 0,
            len: 0,
        }
    }

    /// Adds a job at the place that the order gives it.
    #[inline]
    pub(super) fn push(&mut self, jobs: &mut Jobs, slot: u32) {
        match self.order {
            QueueOrder::Fifo => self.link_back(jobs, slot),
            QueueOrder::Lifo => self.link_front(jobs, slot),
            QueueOrder::Deadline => self.push_by_deadline(jobs, slot),
        }
        self.len += 1;
    }

    /// Adds a job behind all others of its priority, whatever the order; by deadline it keeps its place.
    pub(super) fn append(&mut self, jobs: &mut Jobs, slot: u32) {
        match self.order {
            QueueOrder::Fifo | QueueOrder::Lifo => self.link_back(jobs, slot),
            QueueOrder::Deadline => self.push_by_deadline(jobs, slot),
        }
        self.len += 1;
    }

    /// The jobs that wait, in the order of their turns.
    #[cfg(feature = "image")]
    pub(super) fn in_order(&self, jobs: &Jobs) -> Vec<u32> {
        if self.order == QueueOrder::Deadline {
            let mut entries: Vec<Waiting> = self.by_deadline.iter().map(|entry| entry.0).collect();
            entries.retain(|entry| self.is_current(jobs, *entry));
            entries.sort_unstable();
            return entries.into_iter().map(|entry| entry.3).collect();
        }
        let mut order = Vec::with_capacity(self.len as usize);
        for head in self.heads {
            let mut slot = head;
            while slot != NONE {
                order.push(slot);
                slot = jobs[slot].next;
            }
        }
        order
    }

    /// Adds a job that was served before and lost its instance: ahead of all others of its priority.
    pub(super) fn push_again(&mut self, jobs: &mut Jobs, slot: u32) {
        match self.order {
            QueueOrder::Fifo | QueueOrder::Lifo => self.link_front(jobs, slot),
            QueueOrder::Deadline => self.push_by_deadline(jobs, slot),
        }
        self.len += 1;
    }

    /// Takes the job whose turn it is.
    #[inline(always)]
    pub(super) fn pop(&mut self, jobs: &mut Jobs) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        if self.order == QueueOrder::Deadline {
            let slot = self.first_by_deadline(jobs)?;
            self.by_deadline.pop();
            self.len -= 1;
            return Some(slot);
        }
        let slot = self.heads[self.filled.trailing_zeros() as usize];
        self.unlink(jobs, slot);
        self.len -= 1;
        Some(slot)
    }

    /// Takes out a job that waits here.
    pub(super) fn remove(&mut self, jobs: &mut Jobs, slot: u32) {
        if self.order != QueueOrder::Deadline {
            self.unlink(jobs, slot);
        } else {
            jobs[slot].next = NONE; // its entry in the heap is void once `prev` differs
            jobs[slot].prev = NONE;
        }
        self.len -= 1;
        if self.by_deadline.len() > 2 * self.len as usize + VOID_MAX {
            self.drop_void_entries(jobs);
        }
    }

    /// Entries of jobs that left before their turn must not outgrow the jobs that wait.
    fn drop_void_entries(&mut self, jobs: &Jobs) {
        let mut entries = std::mem::take(&mut self.by_deadline);
        entries.retain(|entry| self.is_current(jobs, entry.0));
        self.by_deadline = entries;
    }

    /// When the job that has waited longest began to wait (first of the highest filled priority).
    pub(super) fn oldest(&self, jobs: &Jobs) -> Option<Instant> {
        if self.order == QueueOrder::Deadline {
            let waiting = |entry: &Reverse<Waiting>| self.is_current(jobs, entry.0);
            return self.by_deadline.iter().filter(|e| waiting(e)).map(|e| jobs[e.0.3].since).min();
        }
        let ends = if self.order == QueueOrder::Fifo { &self.heads } else { &self.tails };
        ends.iter().filter(|slot| **slot != NONE).map(|slot| jobs[*slot].since).min()
    }

    fn push_by_deadline(&mut self, jobs: &mut Jobs, slot: u32) {
        self.pushed += 1;
        let job = &mut jobs[slot];
        job.prev = self.pushed as u32; // names the job's current entry
        self.by_deadline.push(Reverse((job.priority, job.deadline, self.pushed, slot, job.generation)));
    }

    fn is_current(&self, jobs: &Jobs, entry: Waiting) -> bool {
        let job = &jobs[entry.3];
        job.generation == entry.4 && job.state == JobState::Waiting && job.prev == entry.2 as u32
    }

    fn first_by_deadline(&mut self, jobs: &Jobs) -> Option<u32> {
        while let Some(Reverse(entry)) = self.by_deadline.peek().copied() {
            if self.is_current(jobs, entry) {
                return Some(entry.3);
            }
            self.by_deadline.pop();
        }
        None
    }

    #[inline]
    fn link_back(&mut self, jobs: &mut Jobs, slot: u32) {
        let priority = jobs[slot].priority as usize;
        let tail = self.tails[priority];
        let job = &mut jobs[slot];
        (job.prev, job.next) = (tail, NONE);
        if tail == NONE {
            self.heads[priority] = slot;
            self.filled |= 1 << priority;
        } else {
            jobs[tail].next = slot;
        }
        self.tails[priority] = slot;
    }

    fn link_front(&mut self, jobs: &mut Jobs, slot: u32) {
        let priority = jobs[slot].priority as usize;
        let head = self.heads[priority];
        let job = &mut jobs[slot];
        (job.prev, job.next) = (NONE, head);
        if head == NONE {
            self.tails[priority] = slot;
            self.filled |= 1 << priority;
        } else {
            jobs[head].prev = slot;
        }
        self.heads[priority] = slot;
    }

    #[inline]
    fn unlink(&mut self, jobs: &mut Jobs, slot: u32) {
        let (prev, next, priority) = (jobs[slot].prev, jobs[slot].next, jobs[slot].priority as usize);
        if prev == NONE {
            self.heads[priority] = next;
        } else {
            jobs[prev].next = next;
        }
        if next == NONE {
            self.tails[priority] = prev;
        } else {
            jobs[next].prev = prev;
        }
        if self.heads[priority] == NONE {
            self.filled &= !(1 << priority);
        }
    }
}
