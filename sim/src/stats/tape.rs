//! A tape: values noted in passing and counted many at once, which costs half as much as one by one.

/// Values that a tape holds.
const LENGTH: usize = 64;

/// Up to 64 values in the order they came.
#[derive(Clone, Debug)]
pub(crate) struct Tape {
    values: [u64; LENGTH],
    len: usize,
}

impl Tape {
    pub(crate) const EMPTY: Self = Self { values: [0; LENGTH], len: 0 };

    /// Notes a value; true when the tape is now full and must be counted before the next.
    #[inline(always)]
    #[must_use]
    pub(crate) fn note(&mut self, value: u64) -> bool {
        self.values[self.len % LENGTH] = value;
        self.len += 1;
        self.len == LENGTH
    }

    /// The values noted, for the last time.
    pub(crate) fn take(&mut self) -> &[u64] {
        let len = std::mem::take(&mut self.len);
        &self.values[..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_once_in_order() {
        let mut tape = Tape::EMPTY;
        let mut seen = Vec::new();
        for value in 0..1000 {
            if tape.note(value) {
                seen.extend_from_slice(tape.take());
            }
        }
        seen.extend_from_slice(tape.take());
        assert_eq!(seen, (0..1000).collect::<Vec<u64>>());
        assert!(tape.take().is_empty());
    }
}
