//! A uniform sample of fixed size from a stream of unknown length.
//!
//! Algorithm R (J. S. Vitter, ACM TOMS 11, 1985). Chance is handed in, one word per item offered.

/// Holds up to a fixed number of items; every item offered so far is held with the same probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Reservoir<T> {
    capacity: usize,
    seen: u64,
    items: Vec<T>,
}

impl<T> Reservoir<T> {
    /// An empty reservoir for `capacity` items; memory is taken as items come.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, seen: 0, items: Vec::new() }
    }

    /// Offers one item; `random` is a fresh word, uniform over all 64 bits.
    ///
    /// Of `seen` items each is held with probability `capacity/seen`, up to `seen/2^64` of rounding.
    #[inline]
    pub fn offer(&mut self, item: T, random: u64) {
        self.seen += 1;
        if self.items.len() < self.capacity {
            self.items.push(item);
            return;
        }
        // Uniform in 0..seen: the high word of the product.
        let place = (u128::from(random) * u128::from(self.seen)) >> 64;
        if place < self.capacity as u128 {
            self.items[place as usize] = item;
        }
    }

    /// Items offered so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The sample, in no particular order.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// The sample, handed over.
    pub fn into_items(self) -> Vec<T> {
        self.items
    }
}

#[cfg(test)]
mod tests {
    use super::super::draws::Draws;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_item_is_equally_likely() {
        let mut draws = Draws(3);
        let mut held = [0u32; 50];
        for _ in 0..20_000 {
            let mut reservoir = Reservoir::new(10);
            (0..50).for_each(|item| reservoir.offer(item, draws.word()));
            reservoir.items().iter().for_each(|item| held[*item] += 1);
        }
        // Each is binomial(20000, 0.2): 4000 ± 4·56.6.
        assert!(held.iter().all(|count| (3774..=4226).contains(count)), "{held:?}");
    }

    #[test]
    fn no_room_holds_nothing() {
        let mut reservoir = Reservoir::new(0);
        (0..9).for_each(|item| reservoir.offer(item, u64::MAX));
        assert_eq!((reservoir.items().len(), reservoir.seen()), (0, 9));
    }

    #[test]
    fn extreme_words_pick_first_and_none() {
        let mut reservoir = Reservoir::new(2);
        [7, 8].into_iter().for_each(|item| reservoir.offer(item, 0));
        reservoir.offer(9, u64::MAX);
        assert_eq!(reservoir.items(), [7, 8]);
        reservoir.offer(10, 0);
        assert_eq!(reservoir.items(), [10, 8]);
    }

    proptest! {
        #[test]
        fn sample_is_distinct_items_of_the_stream(capacity in 0usize..40, count in 0u64..200, seed in any::<u64>()) {
            let mut draws = Draws(seed);
            let mut reservoir = Reservoir::new(capacity);
            (0..count).for_each(|item| reservoir.offer(item, draws.word()));
            let mut items = reservoir.into_items();
            items.sort_unstable();
            items.dedup();
            prop_assert_eq!(items.len() as u64, count.min(capacity as u64));
            prop_assert!(items.iter().all(|item| *item < count));
        }
    }
}
