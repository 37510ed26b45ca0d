//! A set of small integers with constant-time insert, remove and least member: three levels of 64-bit words.

/// A set of integers below [`FreeSet::CAPACITY`].
#[derive(Clone, Debug, Default)]
pub(super) struct FreeSet {
    top: u64,
    middle: Vec<u64>,
    words: Vec<u64>,
}

impl FreeSet {
    pub(super) const CAPACITY: u32 = 64 * 64 * 64;

    #[inline]
    pub(super) fn insert(&mut self, member: u32) {
        debug_assert!(member < Self::CAPACITY);
        let (word, middle) = ((member >> 6) as usize, (member >> 12) as usize);
        match self.words.get_mut(word) {
            Some(bits) => *bits |= 1 << (member & 63),
            None => return self.insert_beyond(member),
        }
        self.middle[middle] |= 1 << (word & 63);
        self.top |= 1 << middle;
    }

    #[cold]
    #[inline(never)]
    fn insert_beyond(&mut self, member: u32) {
        self.words.resize((member >> 6) as usize + 1, 0);
        self.middle.resize((member >> 12) as usize + 1, 0);
        self.insert(member);
    }

    #[inline]
    pub(super) fn remove(&mut self, member: u32) {
        let (word, middle) = ((member >> 6) as usize, (member >> 12) as usize);
        let Some(bits) = self.words.get_mut(word) else { return };
        *bits &= !(1 << (member & 63));
        if *bits == 0 {
            self.middle[middle] &= !(1 << (word & 63));
            if self.middle[middle] == 0 {
                self.top &= !(1 << middle);
            }
        }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.top == 0
    }

    /// Takes out the least member.
    #[inline(always)]
    pub(super) fn take_first(&mut self) -> Option<u32> {
        if self.top == 0 {
            return None;
        }
        let middle = self.top.trailing_zeros();
        let middle_bits = &mut self.middle[middle as usize];
        let word = (middle << 6) | middle_bits.trailing_zeros();
        let bits = &mut self.words[word as usize];
        let member = (word << 6) | bits.trailing_zeros();
        *bits &= *bits - 1;
        if *bits == 0 {
            *middle_bits &= *middle_bits - 1;
            if *middle_bits == 0 {
                self.top &= self.top - 1;
            }
        }
        Some(member)
    }

    /// The least member.
    #[inline]
    pub(super) fn first(&self) -> Option<u32> {
        if self.top == 0 {
            return None;
        }
        let middle = self.top.trailing_zeros();
        let word = (middle << 6) | self.middle[middle as usize].trailing_zeros();
        Some((word << 6) | self.words[word as usize].trailing_zeros())
    }

    pub(super) fn contains(&self, member: u32) -> bool {
        self.words.get((member >> 6) as usize).is_some_and(|bits| bits >> (member & 63) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_tree_set() {
        let (mut fast, mut slow) = (FreeSet::default(), BTreeSet::new());
        let stream = crate::units::random::Stream::new(1, 0, "free");
        for step in 0..20_000 {
            let member = stream.below(step, 6000) as u32 * 43;
            if stream.bits(step + 1_000_000) & 1 == 0 {
                fast.insert(member);
                slow.insert(member);
            } else {
                fast.remove(member);
                slow.remove(&member);
            }
            assert_eq!(fast.first(), slow.first().copied());
            assert_eq!(fast.contains(member), slow.contains(&member));
            if step % 7 == 0 {
                assert_eq!(fast.take_first(), slow.pop_first());
            }
            assert_eq!(fast.is_empty(), slow.is_empty());
        }
    }
}
