//! Blocks of draws: a law sampled for 64 consecutive jobs at once, keyed by the job's number.
//!
//! Laws are sampled by inversion with the branch-free functions of `policy::units::math`, so the compiler runs several
//! lanes at a time; one lane and several give the same bits, and so do a block and a single draw.

use policy::units::math::{fast_exp, fast_ln, fast_sin_turns};
use policy::units::random::{Stream, to_unit};
use scenarios::scenario::Law;

/// Draws made at once.
pub const BLOCK: usize = 64;

const HALF: usize = BLOCK / 2;

/// A law with its constants worked out.
#[derive(Clone, Debug)]
enum Shape {
    Constant(f64),
    Uniform {
        low: f64,
        span: f64,
    },
    Exponential {
        mean: f64,
    },
    /// exp(mu + sigma·z)
    Lognormal {
        mu: f64,
        sigma: f64,
    },
    /// scale·(−ln u)^exponent
    Weibull {
        scale: f64,
        exponent: f64,
    },
    /// scale·u^(−1/tail)
    Pareto {
        scale: f64,
        exponent: f64,
    },
    Quantiles(Vec<f64>),
}

/// Draws of one law for one purpose, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Sampler {
    shape: Shape,
    stream: Stream,
    /// First job number of the block at hand.
    base: u64,
    block: [u64; BLOCK],
}

impl Sampler {
    /// Draws of `law` from `stream`. The law is a checked one.
    pub fn new(law: &Law, stream: Stream) -> Self {
        let ns = |time: &policy::units::Duration| time.as_nanos() as f64;
        let shape = match law {
            Law::Constant(value) => Shape::Constant(ns(value)),
            Law::Uniform { low, high } => Shape::Uniform { low: ns(low), span: ns(high) - ns(low) },
            Law::Exponential { mean } => Shape::Exponential { mean: ns(mean) },
            Law::Lognormal { mean, cv } => {
                let variance = libm::log(1.0 + cv * cv);
                let mu = libm::log(ns(mean).max(1.0)) - variance / 2.0;
                Shape::Lognormal { mu, sigma: variance.sqrt() }
            }
            Law::Weibull { mean, shape } => {
                let exponent = 1.0 / shape;
                Shape::Weibull { scale: ns(mean) / libm::tgamma(1.0 + exponent), exponent }
            }
            Law::Pareto { mean, tail } => {
                Shape::Pareto { scale: ns(mean) * (tail - 1.0) / tail, exponent: -1.0 / tail }
            }
            Law::Quantiles(values) => Shape::Quantiles(values.iter().map(ns).collect()),
        };
        let constant = if let Shape::Constant(value) = shape { value as u64 } else { 0 };
        Self { shape, stream, base: u64::MAX, block: [constant; BLOCK] }
    }

    /// Whether every draw is the same.
    pub fn is_constant(&self) -> bool {
        matches!(self.shape, Shape::Constant(_))
    }

    /// The draw for job number `index`; fast when numbers ascend.
    #[inline(always)]
    pub fn at(&mut self, index: u64) -> u64 {
        let base = index & !(BLOCK as u64 - 1);
        if base != self.base {
            self.refill(base);
        }
        self.block[(index % BLOCK as u64) as usize]
    }

    /// The draws for job numbers `base..base + BLOCK`; `base` is a multiple of [`BLOCK`].
    #[inline]
    pub fn block(&mut self, base: u64) -> &[u64; BLOCK] {
        debug_assert!(base.is_multiple_of(BLOCK as u64), "blocks start at multiples of their length");
        if base != self.base {
            self.refill(base);
        }
        &self.block
    }

    /// The draw for job number `index` without touching the block; for numbers out of order.
    pub fn single(&self, index: u64) -> u64 {
        let base = index & !(BLOCK as u64 - 1);
        if base == self.base {
            return self.block[(index % BLOCK as u64) as usize];
        }
        let mut copy = self.clone();
        copy.refill(base);
        copy.block[(index % BLOCK as u64) as usize]
    }

    #[inline(never)]
    fn refill(&mut self, base: u64) {
        self.base = base;
        if self.is_constant() {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512dq")
            {
                // SAFETY: the processor has the features, asked just now.
                return unsafe { fill_avx512(&self.shape, self.stream, base, &mut self.block) };
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has the feature, asked just now.
                return unsafe { fill_avx2(&self.shape, self.stream, base, &mut self.block) };
            }
        }
        fill(&self.shape, self.stream, base, &mut self.block);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn fill_avx512(shape: &Shape, stream: Stream, base: u64, block: &mut [u64; BLOCK]) {
    fill(shape, stream, base, block);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_avx2(shape: &Shape, stream: Stream, base: u64, block: &mut [u64; BLOCK]) {
    fill(shape, stream, base, block);
}

/// Nanoseconds of a non-negative time below 2⁵¹ ns (26 days), rounded; longer times are cut there.
#[inline(always)]
fn to_nanos(value: f64) -> u64 {
    const ROUND: f64 = 4_503_599_627_370_496.0; // 2⁵²
    (value.clamp(0.0, 2_251_799_813_685_247.0) + ROUND).to_bits() & 0x000F_FFFF_FFFF_FFFF
}

#[inline(always)]
fn fill(shape: &Shape, stream: Stream, base: u64, block: &mut [u64; BLOCK]) {
    let mut unit = [0.0; BLOCK];
    for (lane, unit) in unit.iter_mut().enumerate() {
        *unit = to_unit(stream.bits(base + lane as u64));
    }
    match *shape {
        Shape::Constant(value) => block.fill(value as u64),
        Shape::Uniform { low, span } => {
            for (out, unit) in block.iter_mut().zip(unit) {
                *out = to_nanos(low + span * unit);
            }
        }
        Shape::Exponential { mean } => {
            for (out, unit) in block.iter_mut().zip(unit) {
                *out = to_nanos(-mean * fast_ln(unit));
            }
        }
        Shape::Lognormal { mu, sigma } => {
            // Box and Muller 1958: lanes i and i + 32 share a radius and differ by a quarter turn.
            let (radii, turns) = unit.split_at(HALF);
            let mut normal = [0.0; BLOCK];
            for lane in 0..HALF {
                let radius = (-2.0 * fast_ln(radii[lane])).sqrt() * sigma;
                normal[lane] = radius * fast_sin_turns(turns[lane]);
                normal[lane + HALF] = radius * fast_sin_turns(turns[lane] + 0.25);
            }
            for (out, z) in block.iter_mut().zip(normal) {
                *out = to_nanos(fast_exp(mu + z));
            }
        }
        Shape::Weibull { scale, exponent } => {
            for (out, unit) in block.iter_mut().zip(unit) {
                *out = to_nanos(scale * fast_exp(exponent * fast_ln(-fast_ln(unit))));
            }
        }
        Shape::Pareto { scale, exponent } => {
            for (out, unit) in block.iter_mut().zip(unit) {
                *out = to_nanos(scale * fast_exp(exponent * fast_ln(unit)));
            }
        }
        Shape::Quantiles(ref values) => {
            for (out, unit) in block.iter_mut().zip(unit) {
                let place = unit * (values.len() - 1) as f64;
                let below = (place as usize).min(values.len() - 2);
                *out = to_nanos(values[below] + (values[below + 1] - values[below]) * (place - below as f64));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::units::Duration;

    const S: Duration = Duration::from_secs(1);

    fn laws() -> Vec<(Law, f64)> {
        vec![
            (Law::Constant(S), 0.0),
            (Law::Uniform { low: Duration::ZERO, high: Duration::from_secs(2) }, (1.0_f64 / 3.0).sqrt()),
            (Law::Exponential { mean: S }, 1.0),
            (Law::Lognormal { mean: S, cv: 0.5 }, 0.5),
            (Law::Weibull { mean: S, shape: 2.0 }, 0.522_723),
            (Law::Pareto { mean: S, tail: 5.0 }, (1.0_f64 / 15.0).sqrt()),
            (Law::Quantiles(vec![Duration::ZERO, S, Duration::from_secs(2)]), (1.0_f64 / 3.0).sqrt()),
        ]
    }

    #[test]
    fn means_and_variations_are_those_of_the_law() {
        for (law, cv) in laws() {
            let mut sampler = Sampler::new(&law, Stream::new(1, 0, "draws"));
            let n = 400_000;
            let draws = (0..n).map(|index| sampler.at(index) as f64 * 1e-9);
            let (sum, squares) = draws.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
            let mean = sum / n as f64;
            let deviation = (squares / n as f64 - mean * mean).max(0.0).sqrt();
            // Four standard errors of the mean; the deviation of a heavy tail converges more slowly.
            assert!((mean - 1.0).abs() < 4.0 * cv / (n as f64).sqrt() + 1e-9, "{law:?}: mean {mean}");
            assert!((deviation - cv).abs() < 0.02 * cv + 1e-9, "{law:?}: deviation {deviation}");
        }
    }

    #[test]
    fn a_single_draw_is_the_one_of_the_block() {
        for (law, _) in laws() {
            let mut block = Sampler::new(&law, Stream::new(2, 0, "draws"));
            let single = block.clone();
            for index in [0, 1, 63, 64, 1_000_003, 5] {
                assert_eq!(block.at(index), single.single(index), "{law:?} {index}");
            }
        }
    }

    #[test]
    fn lanes_do_not_change_the_bits() {
        for (law, _) in laws() {
            let mut wide = Sampler::new(&law, Stream::new(3, 0, "draws"));
            let mut narrow = [0; BLOCK];
            fill(&wide.shape, wide.stream, 640, &mut narrow);
            wide.refill(640);
            if !wide.is_constant() {
                assert_eq!(wide.block, narrow, "{law:?}");
            }
        }
    }
}
