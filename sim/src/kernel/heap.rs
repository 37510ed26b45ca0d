//! A 4-ary heap of packed keys: the fastest of the queues measured for a few hundred entries.
//!
//! A key holds a time above and a small number below, so one comparison orders both and no payload moves apart.

/// A minimum heap of 64-bit keys.
#[derive(Clone, Debug, Default)]
pub struct KeyHeap {
    /// Entries, followed by four of `u64::MAX` so that any entry's four children can be read.
    keys: Vec<u64>,
    len: usize,
}

const PADDING: usize = 4;

impl KeyHeap {
    /// An empty heap.
    pub fn new() -> Self {
        Self { keys: vec![u64::MAX; PADDING], len: 0 }
    }

    /// Entries.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The least key; `u64::MAX` when empty.
    #[inline(always)]
    pub fn first(&self) -> u64 {
        self.keys[0]
    }

    /// Adds a key below `u64::MAX`.
    #[inline]
    pub fn push(&mut self, key: u64) {
        if self.len + PADDING >= self.keys.len() {
            self.keys.resize(2 * self.keys.len() + PADDING, u64::MAX);
        }
        self.len += 1;
        self.climb(self.len - 1, key);
    }

    /// Takes the least key.
    #[inline]
    pub fn pop(&mut self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let first = self.keys[0];
        self.len -= 1;
        let last = self.keys[self.len];
        self.keys[self.len] = u64::MAX;
        if self.len > 0 {
            self.replace_first(last);
        }
        Some(first)
    }

    /// Puts `key` in the place of the least one; there must be one.
    #[inline(always)]
    pub fn replace_first(&mut self, key: u64) {
        let hole = self.sink();
        self.climb(hole, key);
    }

    /// Lowers every key by `amount`; keys below it become their own low bits under `mask`.
    pub fn lower(&mut self, amount: u64, mask: u64) {
        for key in &mut self.keys[..self.len] {
            *key = if *key >= amount { *key - amount } else { *key & mask };
        }
        // Keys that were clamped may have left their order.
        let mut keys: Vec<u64> = self.keys[..self.len].to_vec();
        keys.sort_unstable();
        self.keys[..self.len].copy_from_slice(&keys);
    }

    /// Moves the hole at the root down to a leaf along the least children; returns where it is.
    #[inline(always)]
    fn sink(&mut self) -> usize {
        let (keys, len) = (self.keys.as_mut_slice(), self.len);
        let mut hole = 0;
        loop {
            let child = 4 * hole + 1;
            if child >= len {
                return hole;
            }
            // SAFETY: child < len, and four padding keys follow the entries, so child + 3 < len + 4 <= keys.len().
            let group = unsafe { keys.get_unchecked(child..child + 4) };
            let (a, b, c, d) = (group[0], group[1], group[2], group[3]);
            let (left, left_at) = if b < a { (b, 1) } else { (a, 0) };
            let (right, right_at) = if d < c { (d, 3) } else { (c, 2) };
            let (least, at) = if right < left { (right, right_at) } else { (left, left_at) };
            // SAFETY: hole starts at 0 < len and is only ever set to a child below len + 4.
            unsafe { *keys.get_unchecked_mut(hole) = least };
            // Padding is never less than an entry, and `child` is one: the hole stays among the entries.
            hole = child + at;
        }
    }

    #[inline(always)]
    fn climb(&mut self, mut at: usize, key: u64) {
        let keys = self.keys.as_mut_slice();
        assert!(at < keys.len(), "a hole lies among the entries");
        while at > 0 {
            let parent = (at - 1) / 4;
            // SAFETY: `at` is in range, asserted above, and only ever falls; its parent lies below it.
            let above = unsafe { *keys.get_unchecked(parent) };
            if above <= key {
                break;
            }
            // SAFETY: as before.
            unsafe { *keys.get_unchecked_mut(at) = above };
            at = parent;
        }
        keys[at] = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::units::random::Stream;

    #[test]
    fn agrees_with_a_sorted_list() {
        let stream = Stream::new(1, 0, "keys");
        let (mut heap, mut list) = (KeyHeap::new(), Vec::new());
        for step in 0..50_000 {
            let key = stream.bits(3 * step) >> 8;
            match stream.below(3 * step + 1, 5) {
                0 | 1 => {
                    heap.push(key);
                    list.push(key);
                }
                2 | 3 if !list.is_empty() => {
                    let least = list.iter().position(|known| Some(known) == list.iter().min()).unwrap();
                    assert_eq!(heap.first(), list[least]);
                    list[least] = key;
                    heap.replace_first(key);
                }
                _ => {
                    let least = list.iter().min().copied();
                    assert_eq!(heap.pop(), least);
                    list.retain(|known| Some(*known) != least);
                }
            }
            assert_eq!(heap.len(), list.len());
            if step % 1000 == 999 {
                list.truncate(40);
                heap = KeyHeap::new();
                list.iter().for_each(|key| heap.push(*key));
            }
        }
    }

    #[test]
    fn lowering_keeps_order_and_low_bits() {
        let mut heap = KeyHeap::new();
        [0x5_03, 0x1_02, 0x9_01].iter().for_each(|key| heap.push(*key));
        heap.lower(0x4_00, 0xFF);
        assert_eq!(std::iter::from_fn(|| heap.pop()).collect::<Vec<_>>(), [0x02, 0x1_03, 0x5_01]);
    }
}
