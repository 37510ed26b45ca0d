//! Draws from a random source that the caller seeds: uniform, exponential, gamma, Weibull, binomial.
//!
//! Only `libm` and plain arithmetic, so that a seed gives the same bytes on every machine. No source of
//! chance lives here.

use std::sync::LazyLock;

/// A stream of uniform 64-bit words, seeded and owned by the caller.
pub trait RandomSource {
    /// Returns the next word; all 64 bits are uniform.
    fn next_u64(&mut self) -> u64;
}

impl<R: RandomSource + ?Sized> RandomSource for &mut R {
    fn next_u64(&mut self) -> u64 {
        (**self).next_u64()
    }
}

impl<R: RandomSource + ?Sized> RandomSource for Box<R> {
    fn next_u64(&mut self) -> u64 {
        (**self).next_u64()
    }
}

/// Wraps a closure as a random source.
#[derive(Debug, Clone)]
pub struct FromFn<F>(pub F);

impl<F: FnMut() -> u64> RandomSource for FromFn<F> {
    fn next_u64(&mut self) -> u64 {
        (self.0)()
    }
}

/// Draws a number in `0.0..1.0`, a multiple of 2^-53.
pub(super) fn uniform(random: &mut impl RandomSource) -> f64 {
    (random.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Draws a number in `0.0..=1.0` that is never 0, for use under a logarithm.
fn uniform_positive(random: &mut impl RandomSource) -> f64 {
    ((random.next_u64() >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Draws an integer in `0..bound` (0 when `bound` is 0); the bias is below `bound` / 2^64.
pub(super) fn below(random: &mut impl RandomSource, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// Layers of the ziggurat under exp(-x): Marsaglia and Tsang, "The Ziggurat Method for Generating Random
/// Variables", J. Stat. Software 5(8), 2000; right end and layer area for 256 layers from there.
const LAYERS: usize = 256;
const RIGHT_END: f64 = 7.697_117_470_131_05;
const LAYER_AREA: f64 = 0.003_949_659_822_581_557;

/// Draws from the exponential law of mean 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exponential {
    table: &'static Ziggurat,
}

#[derive(Debug)]
struct Ziggurat {
    edge: [f64; LAYERS + 1],
    height: [f64; LAYERS + 1],
}

static ZIGGURAT: LazyLock<Ziggurat> = LazyLock::new(|| {
    let mut edge = [0.0; LAYERS + 1];
    edge[0] = LAYER_AREA / libm::exp(-RIGHT_END);
    edge[1] = RIGHT_END;
    for i in 2..LAYERS {
        edge[i] = -libm::log(LAYER_AREA / edge[i - 1] + libm::exp(-edge[i - 1]));
    }
    Ziggurat { edge, height: edge.map(|x| libm::exp(-x)) }
});

impl Exponential {
    pub(super) fn new() -> Self {
        Self { table: &ZIGGURAT }
    }

    #[inline]
    pub(super) fn draw(self, random: &mut impl RandomSource) -> f64 {
        loop {
            let word = random.next_u64();
            let layer = (word & 0xff) as usize; // disjoint from the 53 bits used below
            let x = (word >> 11) as f64 * (1.0 / (1u64 << 53) as f64) * self.table.edge[layer];
            if x < self.table.edge[layer + 1] {
                return x;
            }
            if let Some(x) = self.draw_outside(layer, x, random) {
                return x;
            }
        }
    }

    #[cold]
    fn draw_outside(self, layer: usize, x: f64, random: &mut impl RandomSource) -> Option<f64> {
        if layer == 0 {
            return Some(RIGHT_END - libm::log(uniform_positive(random)));
        }
        let (low, high) = (self.table.height[layer], self.table.height[layer + 1]);
        (low + (high - low) * uniform(random) < libm::exp(-x)).then_some(x)
    }
}

/// Draws from the gamma law of this shape and scale 1 (mean `shape`).
///
/// Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables", ACM TOMS 26(3), 2000; shapes
/// below 1 by their boost Gamma(a) = Gamma(a + 1) U^(1/a).
pub(super) fn gamma(shape: f64, random: &mut impl RandomSource) -> f64 {
    assert!(shape > 0.0, "gamma shape {shape} must be positive");
    if shape < 1.0 {
        let boost = libm::pow(uniform_positive(random), 1.0 / shape);
        return gamma(shape + 1.0, random) * boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    loop {
        let x = normal(random);
        let v = 1.0 + c * x;
        if v <= 0.0 {
            continue;
        }
        let v = v * v * v;
        if libm::log(uniform_positive(random)) < 0.5 * x * x + d - d * v + d * libm::log(v) {
            return d * v;
        }
    }
}

/// Draws from the standard normal law (Marsaglia's polar method, one of the pair is dropped).
fn normal(random: &mut impl RandomSource) -> f64 {
    loop {
        let (x, y) = (2.0 * uniform(random) - 1.0, 2.0 * uniform(random) - 1.0);
        let s = x * x + y * y;
        if s > 0.0 && s < 1.0 {
            return x * libm::sqrt(-2.0 * libm::log(s) / s);
        }
    }
}

/// Draws how many of `trials` succeed, each with `probability` in `0..1`, by jumping from one success to
/// the next: the work is the number of successes, not of trials.
pub(super) fn binomial(
    trials: u64,
    probability: f64,
    law: Exponential,
    random: &mut impl RandomSource,
) -> u64 {
    let rate = -libm::log1p(-probability);
    if rate <= 0.0 {
        return 0;
    }
    let (mut seen, mut hits) = (0u64, 0u64);
    loop {
        let skipped = law.draw(random) / rate; // floor of it is geometric
        if skipped >= (trials - seen) as f64 {
            return hits;
        }
        seen += skipped as u64 + 1;
        hits += 1;
        if seen >= trials {
            return hits;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// SplitMix64 (Steele, Lea and Flood 2014), for tests only.
    #[derive(Debug, Clone)]
    pub(crate) struct SplitMix(pub(crate) u64);

    impl RandomSource for SplitMix {
        fn next_u64(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    /// Checks mean and variance of `draw` within 5 standard errors of the sample moments.
    fn check_moments(mean: f64, variance: f64, mut draw: impl FnMut(&mut SplitMix) -> f64) {
        let (n, mut random) = (400_000, SplitMix(7));
        let xs: Vec<f64> = (0..n).map(|_| draw(&mut random)).collect();
        let m = xs.iter().sum::<f64>() / n as f64;
        let squares: Vec<f64> = xs.iter().map(|x| (x - mean) * (x - mean)).collect();
        let v = squares.iter().sum::<f64>() / n as f64;
        let v_error = (squares.iter().map(|s| (s - v) * (s - v)).sum::<f64>() / n as f64 / n as f64).sqrt();
        assert!((m - mean).abs() < 5.0 * (variance / n as f64).sqrt(), "mean {m}, theory {mean}");
        assert!((v - variance).abs() < 5.0 * v_error, "variance {v}, theory {variance}");
    }

    #[test]
    fn laws_have_their_moments() {
        let law = Exponential::new();
        check_moments(0.5, 1.0 / 12.0, uniform);
        check_moments(1.0, 1.0, |r| law.draw(r));
        check_moments(0.0, 1.0, normal);
        check_moments(2.5, 2.5, |r| gamma(2.5, r));
        check_moments(0.2, 0.2, |r| gamma(0.2, r));
        check_moments(30.0, 21.0, |r| binomial(100, 0.3, law, r) as f64);
        check_moments(1.8, 0.18, |r| binomial(2, 0.9, law, r) as f64);
    }

    #[test]
    fn exponential_has_its_distribution_function() {
        let (law, mut random, n) = (Exponential::new(), SplitMix(3), 400_000);
        let xs: Vec<f64> = (0..n).map(|_| law.draw(&mut random)).collect();
        for at in [0.01f64, 0.1, 0.5, 1.0, 2.0, 4.0, 7.0, 8.0, 9.0] {
            let share = xs.iter().filter(|x| **x > at).count() as f64 / n as f64;
            let theory = (-at).exp();
            let error = (theory * (1.0 - theory) / n as f64).sqrt();
            assert!((share - theory).abs() < 4.5 * error, "P(X > {at}) is {share}, theory {theory}");
        }
    }
}
