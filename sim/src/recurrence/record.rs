//! What the recurrence keeps of each job inside: a short row of numbers, all jobs' rows end to end.

use super::block::Lanes;

/// Rows of the jobs inside, by slot: arrival, time per stage, lengths of crossing spans, starts per stage where needed.
pub(super) struct Records {
    rows: Vec<u64>,
    stride: usize,
    stages: usize,
    /// Where the starts stand; `None` when no span needs them.
    starts: Option<usize>,
    free: Vec<u32>,
}

impl Records {
    /// Rows for `stages` stages and `crossing` spans that depend on waiting.
    pub(super) fn new(stages: usize, crossing: usize) -> Self {
        let starts = (crossing > 0).then_some(1 + stages + crossing);
        let stride = starts.map_or(1 + stages, |starts| starts + stages);
        Self { rows: Vec::new(), stride, stages, starts, free: Vec::new() }
    }

    /// Rows in use and free.
    pub(super) fn len(&self) -> usize {
        self.rows.len() / self.stride
    }

    /// Rows in use.
    pub(super) fn used(&self) -> usize {
        self.len() - self.free.len()
    }

    /// Takes a slot for each arrival.
    #[inline]
    pub(super) fn enter(&mut self, arrivals: &[u64], slots: &mut [u32]) {
        if self.free.len() < arrivals.len() {
            let (have, more) = (self.len(), arrivals.len() - self.free.len());
            self.rows.resize((have + more) * self.stride, 0);
            self.free.extend((have..have + more).map(|slot| slot as u32));
        }
        let kept = self.free.len() - arrivals.len();
        slots.copy_from_slice(&self.free[kept..]);
        self.free.truncate(kept);
        for (slot, arrived) in slots.iter().zip(arrivals) {
            self.rows[*slot as usize * self.stride] = *arrived;
        }
    }

    /// Gives a slot back.
    #[inline]
    pub(super) fn leave(&mut self, slot: u32) {
        self.free.push(slot);
    }

    #[inline]
    pub(super) fn write_times(&mut self, stage: usize, slots: &[u32], times: &Lanes) {
        self.write(1 + stage, slots, times);
    }

    #[inline]
    pub(super) fn write_length(&mut self, word: usize, slots: &[u32], lengths: &Lanes) {
        self.write(1 + self.stages + word, slots, lengths);
    }

    #[inline]
    fn write(&mut self, column: usize, slots: &[u32], values: &Lanes) {
        for (slot, value) in slots.iter().zip(values) {
            self.rows[*slot as usize * self.stride + column] = *value;
        }
    }

    /// A job's row.
    #[inline(always)]
    pub(super) fn row(&mut self, slot: u32) -> &mut [u64] {
        let from = slot as usize * self.stride;
        &mut self.rows[from..from + self.stride]
    }

    /// Where in a row the starts stand.
    #[inline(always)]
    pub(super) fn starts(&self) -> Option<usize> {
        self.starts
    }

    /// Length of the crossing span `word`, from `from` to `to`.
    #[inline]
    pub(super) fn span(&self, slot: u32, (word, from, to): (usize, usize, usize)) -> u64 {
        let row = &self.rows[slot as usize * self.stride..][..self.stride];
        let starts = self.starts.unwrap_or(0);
        row[1 + self.stages + word].wrapping_add(row[starts + to]).wrapping_sub(row[starts + from])
    }
}
