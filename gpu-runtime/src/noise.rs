//! Seeded Gaussian noise, the same on every backend: value `i` of a stream depends on (seed, stream, i) and nothing else.
//!
//! Counter-based, so that a kernel can draw any part of it. Exactly:
//!
//! 1. The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). Its key is
//!    `[low, high]` half of the seed. Its counter is `[low, high]` half of the block `i / 4` (integer division), then
//!    `[low, high]` half of the stream's number: the first eight bytes, little endian, of the SHA-256 of its name.
//! 2. The four words of a block give values `4b .. 4b+3`. Each pair of words `(a, b)` becomes two uniforms strictly inside
//!    (0, 1), `u = (a + ½)·2⁻³²` and `v = (b + ½)·2⁻³²`, exact in f64, and these two normals by Box and Muller in f64:
//!    `√(−2 ln u)·cos(2πv)` and `√(−2 ln u)·sin(2πv)`, in this order.
//! 3. Each is rounded to f32, to nearest even. The largest possible magnitude is 6.77.
//!
//! Words and uniforms are the same bits everywhere. The logarithm, sine and cosine are `libm`'s; another library may differ
//! in the last bit of f64, which moves a rounded f32 by one unit in the last place about once in 10⁸ values.

use sha2::{Digest, Sha256};

/// Multipliers of the rounds.
const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What is added to the key after each round (golden ratio and √3 − 1).
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;
/// Values of one block.
const BLOCK: usize = 4;

/// One Philox4x32-10 block.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let first = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let second = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A stream of standard normal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    seed: u64,
    stream: u64,
}

impl Noise {
    /// The stream called `stream`, e.g. `start` or `step 3`, of a request's seed.
    pub fn new(seed: u64, stream: &str) -> Self {
        let digest = Sha256::digest(stream.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self { seed, stream: u64::from_le_bytes(first) }
    }

    /// Philox key, `[low, high]` half of the seed.
    pub fn key(self) -> [u32; 2] {
        halves(self.seed)
    }

    /// Philox counter of a block.
    pub fn counter(self, block: u64) -> [u32; 4] {
        let ([a, b], [c, d]) = (halves(block), halves(self.stream));
        [a, b, c, d]
    }

    /// Writes values `first ..` of the stream.
    pub fn fill(self, first: u64, values: &mut [f32]) {
        let mut block = first / BLOCK as u64;
        let mut within = (first % BLOCK as u64) as usize;
        let mut rest = values;
        while !rest.is_empty() {
            let normals = self.block(block);
            let count = rest.len().min(BLOCK - within);
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&normals[within..within + count]);
            (block, within, rest) = (block.wrapping_add(1), 0, later);
        }
    }

    /// The first `count` values of the stream.
    pub fn take(self, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        self.fill(0, &mut values);
        values
    }

    fn block(self, block: u64) -> [f32; BLOCK] {
        let words = philox4x32_10(self.counter(block), self.key());
        let ([a, b], [c, d]) = (normals(words[0], words[1]), normals(words[2], words[3]));
        [a, b, c, d]
    }
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// Box–Muller (1958) on two words.
fn normals(first: u32, second: u32) -> [f32; 2] {
    let uniform = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    let radius = (-2.0 * libm::log(uniform(first))).sqrt();
    let angle = std::f64::consts::TAU * uniform(second);
    [(radius * libm::cos(angle)) as f32, (radius * libm::sin(angle)) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of Random123 1.14, lines `philox4x32 10`.
    #[test]
    fn philox_gives_its_published_answers() {
        let check = |counter: [u32; 4], key: [u32; 2], expected: [u32; 4]| {
            assert_eq!(philox4x32_10(counter, key), expected);
        };
        check([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        check([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        check(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        );
    }

    #[test]
    fn any_part_of_a_stream_is_the_same_values() {
        let noise = Noise::new(7, "start");
        let whole = noise.take(64);
        for first in 0..12 {
            for count in 0..12 {
                let mut part = vec![0.0; count];
                noise.fill(first as u64, &mut part);
                assert_eq!(part, whole[first..first + count], "{first} {count}");
            }
        }
    }

    #[test]
    fn seeds_and_streams_differ() {
        let values = |seed, stream| Noise::new(seed, stream).take(8);
        assert_ne!(values(1, "a"), values(2, "a"));
        assert_ne!(values(1, "a"), values(1, "b"));
        assert_ne!(values(1, "a"), values(1 << 32 | 1, "a"));
    }

    #[test]
    fn values_are_finite_at_the_ends_of_the_words() {
        for first in [0, 1, u32::MAX] {
            for second in [0, 1 << 30, u32::MAX] {
                assert!(normals(first, second).iter().all(|value| value.abs() < 6.77));
            }
        }
    }

    /// Mean, variance, skewness and kurtosis of 400,000 values lie within five standard errors of the normal law, and so
    /// does the correlation of neighbours.
    #[test]
    fn moments_are_those_of_the_normal_law() {
        let n = 400_000;
        let values: Vec<f64> = Noise::new(20, "moments").take(n).into_iter().map(f64::from).collect();
        let moment = |power: i32| values.iter().map(|v| v.powi(power)).sum::<f64>() / n as f64;
        let check = |found: f64, expected: f64, variance: f64| {
            let error = (variance / n as f64).sqrt();
            assert!((found - expected).abs() < 5.0 * error, "{found} instead of {expected} ± {error}");
        };
        check(moment(1), 0.0, 1.0);
        check(moment(2), 1.0, 2.0);
        check(moment(3), 0.0, 15.0);
        check(moment(4), 3.0, 96.0);
        check(values.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / n as f64, 0.0, 1.0);
    }
}
