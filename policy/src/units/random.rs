//! Seeded chance. A stream is a key; a draw is a hash of (key, index), so a draw depends on what it is for and never on
//! how many draws came before. Two policies that serve the same job see the same service time (common random numbers).

/// One named source of chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014, variant 13 of Stafford).
#[inline(always)]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number strictly between 0 and 1, from the upper 52 bits.
#[inline(always)]
pub fn to_unit(bits: u64) -> f64 {
    f64::from_bits((bits >> 12) | 0x3FF0_0000_0000_0000) - (1.0 - f64::EPSILON / 2.0)
}

impl Stream {
    /// The stream called `name` of replication `replication` under `seed`. Adding a stream leaves all others alone.
    pub fn new(seed: u64, replication: u64, name: &str) -> Self {
        let mut key = 0xCBF2_9CE4_8422_2325_u64; // FNV-1a over the name
        for byte in name.bytes() {
            key = (key ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        Self {
            key: mix(mix(mix(key) ^ seed.wrapping_mul(GOLDEN)).wrapping_add(replication.wrapping_mul(GOLDEN))),
        }
    }

    /// The stream of entity `id` below this one.
    #[inline]
    pub const fn child(self, id: u64) -> Self {
        Self { key: mix(self.key ^ mix(id.wrapping_add(GOLDEN))) }
    }

    /// Draw number `index`: 64 evenly distributed bits.
    #[inline(always)]
    pub const fn bits(self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_mul(GOLDEN)))
    }

    /// Draw number `index`, evenly distributed strictly between 0 and 1.
    #[inline(always)]
    pub fn unit(self, index: u64) -> f64 {
        to_unit(self.bits(index))
    }

    /// Draw number `index`, evenly distributed over `0..bound`; the bias is below `bound`/2⁶⁴.
    ///
    /// # Panics
    /// When `bound` is zero.
    #[inline]
    pub fn below(self, index: u64, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no member to draw");
        ((u128::from(self.bits(index)) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_do_not_depend_on_other_draws() {
        let stream = Stream::new(1, 0, "arrivals");
        assert_eq!(stream.bits(7), Stream::new(1, 0, "arrivals").bits(7));
        for other in
            [Stream::new(2, 0, "arrivals"), Stream::new(1, 1, "arrivals"), Stream::new(1, 0, "service")]
        {
            assert_ne!(stream.bits(7), other.bits(7));
        }
    }

    #[test]
    fn units_are_even_and_never_zero_or_one() {
        assert!(to_unit(0) > 0.0 && to_unit(u64::MAX) < 1.0);
        let stream = Stream::new(3, 0, "even");
        let mut tenths = [0_u32; 10];
        for index in 0..100_000 {
            tenths[(stream.unit(index) * 10.0) as usize] += 1;
        }
        // Chi-squared with 9 degrees of freedom: 27.9 is its 99.9 % point.
        let chi: f64 = tenths.iter().map(|n| (f64::from(*n) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 27.9, "{chi}");
    }

    #[test]
    fn neighbouring_streams_are_uncorrelated() {
        let (a, b) = (Stream::new(5, 0, "x").child(1), Stream::new(5, 0, "x").child(2));
        let n = 50_000_u64;
        let sum: f64 = (0..n).map(|i| (a.unit(i) - 0.5) * (b.unit(i) - 0.5)).sum();
        // Standard error of the mean product is (1/12)/√n.
        assert!((sum / n as f64).abs() < 3.3 / 12.0 / (n as f64).sqrt(), "{sum}");
    }
}
