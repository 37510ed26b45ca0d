//! A histogram of durations in nanoseconds: a few ns per value, exact moments, quantiles of known accuracy.
//!
//! Buckets are log-linear: values below 256 ns have a bucket each, above that every power of two is cut into
//! 128 equal buckets. The midpoint of a bucket is within 1/256 (0.39 %) of every value in it, its far end
//! within 1/128. Count, sum, sum of squares, minimum and maximum are exact integers, so merging in any order
//! gives the same bits. 58 KiB once the first value is recorded, nothing before.

/// Bits kept below the leading one.
const MANTISSA_BITS: u32 = 7;

/// Values below this have their position as index.
const LINEAR: u64 = 1 << MANTISSA_BITS;

/// Bucket of `u64::MAX`, plus one.
const BUCKETS: usize = bucket_of(u64::MAX) + 1;

/// `v` in bucket `(shift << 7) + (v >> shift)`, where `shift` leaves 8 significant bits (or is 0).
#[inline(always)]
const fn bucket_of(value: u64) -> usize {
    let shift = (64 - MANTISSA_BITS - 1) - (value | LINEAR).leading_zeros();
    ((shift as usize) << MANTISSA_BITS) + (value >> shift) as usize
}

/// Half the bits of a value (833 days) whose square's parts, [`CHUNK`] of them, sum to less than 2^64.
const HALF_BITS: u32 = 28;

/// Values counted at once.
const CHUNK: usize = 256;

/// Smallest and largest value of a bucket.
const fn bounds_of(bucket: usize) -> (u64, u64) {
    let shift = (bucket >> MANTISSA_BITS).saturating_sub(1) as u32;
    let low = ((bucket - ((shift as usize) << MANTISSA_BITS)) as u64) << shift;
    (low, low + ((1 << shift) - 1))
}

/// A log-linear histogram of `u64` nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    counts: Option<Box<[u64; BUCKETS]>>,
    count: u64,
    sum: u128,
    squares: Wide,
    min: u64,
    max: u64,
}

/// An unsigned integer of 192 bits: `2^64` squares of 64-bit values fit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Wide {
    low: u128,
    high: u64,
}

impl Wide {
    #[inline(always)]
    fn add(&mut self, low: u128) {
        let (sum, carry) = self.low.overflowing_add(low);
        self.low = sum;
        self.high += u64::from(carry);
    }

    fn to_f64(self) -> f64 {
        self.high as f64 * 2f64.powi(128) + self.low as f64
    }
}

impl Histogram {
    /// An empty histogram; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one value, in nanoseconds.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        let Some(counts) = &mut self.counts else {
            return self.record_first(nanos);
        };
        counts[bucket_of(nanos)] += 1;
        self.count += 1;
        self.sum += u128::from(nanos);
        self.squares.add(u128::from(nanos) * u128::from(nanos));
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    /// Counts many values, in nanoseconds; the same as one after the other.
    #[inline]
    pub fn record_all(&mut self, values: &[u64]) {
        for chunk in values.chunks(CHUNK) {
            self.record_chunk(chunk);
        }
    }

    /// Counts up to [`CHUNK`] values: sums in plain 64-bit numbers, which the compiler takes several at a time.
    #[inline]
    fn record_chunk(&mut self, values: &[u64]) {
        let (mut min, mut max) = (u64::MAX, 0);
        for &nanos in values {
            min = min.min(nanos);
            max = max.max(nanos);
        }
        let Some(counts) = self.counts.as_mut().filter(|_| max < 1 << (2 * HALF_BITS)) else {
            return values.iter().for_each(|nanos| self.record(*nanos));
        };
        // With v = h·2^28 + l, h and l below 2^28, the squares of a chunk sum to Σh²·2^56 + Σhl·2^29 + Σl².
        let (mut sum, mut high, mut mixed, mut low) = (0_u64, 0_u64, 0_u64, 0_u64);
        for &nanos in values {
            let (h, l) = (nanos >> HALF_BITS, nanos & ((1 << HALF_BITS) - 1));
            sum += nanos;
            high += h * h;
            mixed += h * l;
            low += l * l;
        }
        for &nanos in values {
            // SAFETY: `bucket_of` rises with its value, and BUCKETS is one more than the bucket of the largest.
            unsafe { *counts.get_unchecked_mut(bucket_of(nanos)) += 1 };
        }
        let squares =
            (u128::from(high) << (2 * HALF_BITS)) + (u128::from(mixed) << (HALF_BITS + 1)) + u128::from(low);
        self.squares.add(squares);
        self.sum += u128::from(sum);
        self.count += values.len() as u64;
        self.min = self.min.min(min);
        self.max = self.max.max(max);
    }

    #[cold]
    #[inline(never)]
    fn record_first(&mut self, nanos: u64) {
        self.counts = Some(empty_counts());
        self.min = nanos;
        self.record(nanos);
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Self) {
        let Some(theirs) = &other.counts else { return };
        if self.counts.is_none() {
            self.min = other.min;
        }
        let ours = self.counts.get_or_insert_with(empty_counts);
        for (count, more) in ours.iter_mut().zip(theirs.iter()) {
            *count += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.squares.add(other.squares.low);
        self.squares.high += other.squares.high;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Forgets all values and keeps the memory.
    pub fn clear(&mut self) {
        if let Some(mut counts) = self.counts.take() {
            counts.fill(0);
            *self = Self { counts: Some(counts), min: u64::MAX, ..Self::default() };
        }
    }

    /// Number of values, exact.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the values in nanoseconds, exact.
    pub fn sum_ns(&self) -> u128 {
        self.sum
    }

    /// Smallest value in nanoseconds, exact; `None` when empty.
    pub fn min_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min)
    }

    /// Largest value in nanoseconds, exact; `None` when empty.
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    /// Mean in nanoseconds, exact to rounding; `None` when empty.
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// Sample variance (divisor `n − 1`) in ns²; `None` with fewer than two values.
    ///
    /// Squares are taken about the whole-number mean in integers, so a spread far below the mean is not lost.
    pub fn variance_ns2(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        let count = self.count as f64;
        let centre = self.sum / u128::from(self.count);
        let rest = (self.sum % u128::from(self.count)) as f64; // Σ(v − centre)
        let about_centre = if self.squares.high == 0 {
            // Σ(v − c)² = Σv² − 2cΣv + c²n: it fits, though terms on the way may wrap.
            let cross = centre.wrapping_mul(self.sum).wrapping_mul(2);
            let square = centre.wrapping_mul(centre).wrapping_mul(u128::from(self.count));
            self.squares.low.wrapping_sub(cross).wrapping_add(square) as f64
        } else {
            let centre = centre as f64;
            (self.squares.to_f64() - centre * (2.0 * self.sum as f64 - centre * count)).max(0.0)
        };
        Some((about_centre - rest * rest / count).max(0.0) / (count - 1.0))
    }

    /// The value in nanoseconds that a share `p` (0 to 1) of the values does not exceed; `None` when empty.
    ///
    /// The value of rank `⌈p n⌉`, interpolated inside its bucket as if values lay evenly there, and kept
    /// within the minimum and maximum. Below 256 ns, at the least and at the greatest rank it is exact;
    /// elsewhere within 1/128 of the exact value, and on smooth data far closer.
    ///
    /// # Panics
    /// If `p` is outside 0..=1.
    pub fn quantile(&self, p: f64) -> Option<u64> {
        assert!((0.0..=1.0).contains(&p), "quantile {p} is outside 0..=1");
        let counts = self.counts.as_ref().filter(|_| self.count > 0)?;
        let rank = rank_of(p, self.count);
        if rank == 1 {
            return Some(self.min);
        }
        if rank == self.count {
            return Some(self.max);
        }
        let mut before = 0;
        for bucket in bucket_of(self.min)..=bucket_of(self.max) {
            let count = counts[bucket];
            if before + count >= rank {
                let (low, high) = bounds_of(bucket);
                let width = (high - low) as f64 + 1.0;
                let inside = (width * ((rank - before) as f64 - 0.5) / count as f64) as u64;
                return Some((low + inside.min(high - low)).clamp(self.min, self.max));
            }
            before += count;
        }
        Some(self.max)
    }

    /// The share of values at or below `nanos`, interpolated inside its bucket; `None` when empty.
    ///
    /// Off by at most the share of values within 1/128 of `nanos`.
    pub fn share_within(&self, nanos: u64) -> Option<f64> {
        let counts = self.counts.as_ref().filter(|_| self.count > 0)?;
        if nanos >= self.max {
            return Some(1.0);
        }
        if nanos < self.min {
            return Some(0.0);
        }
        let bucket = bucket_of(nanos);
        let before: u64 = counts[bucket_of(self.min)..bucket].iter().sum();
        let (low, high) = bounds_of(bucket);
        let part = ((nanos - low) as f64 + 1.0) / ((high - low) as f64 + 1.0);
        Some((before as f64 + counts[bucket] as f64 * part) / self.count as f64)
    }

    /// Buckets that hold something, in rising order: smallest value, largest value, count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let counts = self.counts.iter().flat_map(|counts| counts.iter().enumerate());
        counts.filter(|(_, count)| **count > 0).map(|(bucket, count)| {
            let (low, high) = bounds_of(bucket);
            (low, high, *count)
        })
    }
}

/// Rank `⌈p n⌉`, from 1 to `count`; a product that only rounding lifts above a whole number is that number.
fn rank_of(p: f64, count: u64) -> u64 {
    let rank = (p * count as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil();
    (rank as u64).clamp(1, count)
}

fn empty_counts() -> Box<[u64; BUCKETS]> {
    // Straight from the zeroed heap: an array would pass through the stack.
    vec![0; BUCKETS].into_boxed_slice().try_into().expect("the length is the array's")
}

#[cfg(test)]
mod tests {
    use super::super::draws::Draws;
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    #[test]
    fn buckets_cover_every_value_once() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let (low, high) = bounds_of(bucket);
            assert_eq!(low, next, "bucket {bucket}");
            assert_eq!((bucket_of(low), bucket_of(high)), (bucket, bucket));
            next = high.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends at the largest value");
    }

    #[test]
    fn many_at_once_are_one_after_the_other() {
        let mut draws = Draws(9);
        for bits in [4, 20, 40, 55, 56, 57, 63] {
            let values: Vec<u64> =
                (0..3000).map(|_| draws.word() >> (64 - bits)).chain([0, (1 << bits) - 1]).collect();
            let mut many = Histogram::new();
            values.chunks(517).for_each(|chunk| many.record_all(chunk));
            assert_eq!(many, of(&values), "{bits} bits");
        }
    }

    #[test]
    fn midpoint_is_within_a_256th() {
        for bucket in 1..BUCKETS {
            let (low, high) = bounds_of(bucket);
            let half = (high - low) as f64 / 2.0;
            assert!(half / low as f64 <= 1.0 / 256.0, "bucket {low}..={high}");
        }
    }

    #[test]
    fn it_fits_in_64_kib_and_empty_ones_cost_nothing() {
        const { assert!(BUCKETS * 8 <= 64 * 1024) };
        assert!(std::mem::size_of::<Histogram>() <= 96);
        let mut empty = Histogram::new();
        empty.merge(&Histogram::new());
        assert!(empty.counts.is_none());
    }

    #[test]
    fn empty_has_no_statistics() {
        let empty = Histogram::new();
        assert_eq!((empty.count(), empty.mean_ns(), empty.quantile(0.5)), (0, None, None));
        assert_eq!((empty.min_ns(), empty.variance_ns2(), empty.share_within(5)), (None, None, None));
    }

    #[test]
    fn small_values_are_exact() {
        let values: Vec<u64> = (0..=100).collect();
        let histogram = of(&values);
        for percent in 1..=100u64 {
            // Rank ⌈p·101⌉ of 0..=100.
            let expected = (percent * 101).div_ceil(100) - 1;
            assert_eq!(histogram.quantile(percent as f64 / 100.0), Some(expected));
        }
        assert_eq!(histogram.share_within(49), Some(50.0 / 101.0));
    }

    #[test]
    fn rank_is_not_lifted_by_rounding() {
        // 0.07 · 100 is 7.000000000000001 in doubles.
        let cases =
            [(0.07, 100, 7), (0.071, 100, 8), (0.5, 1, 1), (0.0, 9, 1), (1.0, 9, 9), (1.0, 1 << 40, 1 << 40)];
        for (p, count, expected) in cases {
            assert_eq!(rank_of(p, count), expected, "{p} of {count}");
        }
    }

    #[test]
    fn moments_are_exact_beside_a_large_mean() {
        // An hour in nanoseconds, give or take one: variance 1 beside a squared mean of 1.3e25.
        let hour = 3_600_000_000_000;
        let histogram = of(&[hour - 1, hour, hour + 1]);
        assert_eq!(histogram.mean_ns(), Some(hour as f64));
        assert_eq!(histogram.variance_ns2(), Some(1.0));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let histogram = of(&[u64::MAX, u64::MAX, 0, 0]);
        assert_eq!(histogram.sum_ns(), 2 * u128::from(u64::MAX));
        let expected = (u64::MAX as f64).powi(2) / 3.0;
        assert!((histogram.variance_ns2().unwrap() / expected - 1.0).abs() < 1e-12);
        assert_eq!(histogram.quantile(1.0), Some(u64::MAX));
    }

    #[test]
    fn exponential_quantiles_are_close() {
        let mut draws = Draws(1);
        let mut histogram = Histogram::new();
        for _ in 0..1_000_000 {
            histogram.record((-libm::log(draws.uniform()) * 8e9) as u64);
        }
        for p in [0.5, 0.9, 0.99] {
            let exact = -libm::log(1.0 - p) * 8e9;
            let found = histogram.quantile(p).unwrap() as f64;
            assert!((found / exact - 1.0).abs() < 0.005, "p {p}: {found} is not {exact}");
            assert!((histogram.share_within(found as u64).unwrap() - p).abs() < 1e-5);
        }
        let (mean, deviation) = (histogram.mean_ns().unwrap(), histogram.variance_ns2().unwrap().sqrt());
        assert!((mean / 8e9 - 1.0).abs() < 0.004 && (deviation / 8e9 - 1.0).abs() < 0.008);
    }

    #[test]
    fn cleared_is_as_good_as_new() {
        let mut histogram = of(&[5, 1_000_000]);
        histogram.clear();
        assert_eq!((histogram.count(), histogram.min_ns(), histogram.buckets().count()), (0, None, 0));
        histogram.record(700);
        assert_eq!(histogram, of(&[700]));
    }

    proptest! {
        #[test]
        fn merge_equals_recording_together(
            left in prop::collection::vec(any::<u64>(), 0..60),
            right in prop::collection::vec(0u64..10_000_000_000, 0..60),
        ) {
            let mut merged = of(&left);
            merged.merge(&of(&right));
            let mut reversed = of(&right);
            reversed.merge(&of(&left));
            let together: Vec<u64> = left.into_iter().chain(right).collect();
            prop_assert_eq!(&merged, &of(&together));
            prop_assert_eq!(&merged, &reversed);
        }

        #[test]
        fn quantiles_stay_within_the_stated_error(
            mut values in prop::collection::vec((0u32..63, any::<u64>()), 1..200),
            p in 0.0f64..=1.0,
        ) {
            let mut values: Vec<u64> = values.drain(..).map(|(shift, value)| value >> shift).collect();
            let found = of(&values).quantile(p).unwrap();
            values.sort_unstable();
            let exact = values[rank_of(p, values.len() as u64) as usize - 1];
            prop_assert!(found.abs_diff(exact) as f64 <= exact as f64 / 128.0, "{} is not {}", found, exact);
        }

        #[test]
        fn variance_matches_two_passes(values in prop::collection::vec(0u64..1 << 40, 2..100)) {
            let mean = values.iter().map(|v| *v as f64).sum::<f64>() / values.len() as f64;
            let squares: f64 = values.iter().map(|v| (*v as f64 - mean).powi(2)).sum();
            let expected = squares / (values.len() - 1) as f64;
            let found = of(&values).variance_ns2().unwrap();
            prop_assert!((found - expected).abs() <= 1e-9 * expected, "{} is not {}", found, expected);
        }
    }
}
