//! Elementary functions whose bits do not depend on the platform's mathematics library or on the crates built beside us.
//!
//! Exact ones come from `libm`. The `fast_*` ones are branch-free polynomials that compilers can run several lanes at a
//! time; they use no fused multiply-add, so one lane and eight give the same bits.

use std::f64::consts::{LN_2, LOG2_E, PI};

/// Natural logarithm.
pub fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// e to the power `x`.
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// `x` to the power `y`.
pub fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

/// Square root, exact by IEEE 754.
pub fn sqrt(x: f64) -> f64 {
    x.sqrt()
}

/// Sine of `x` radians.
pub fn sin(x: f64) -> f64 {
    libm::sin(x)
}

/// 2⁵² as a double: adding it to a small integer's bits turns the integer into a double without a conversion.
const MAGIC: u64 = 0x4330_0000_0000_0000;

/// Natural logarithm of a normal, positive `x`; relative error below 2e-15.
///
/// `x = m·2^e` with `m` in `[√½, √2)`; `ln m = 2·atanh(s)`, `s = (m−1)/(m+1)`, by its series (`s² < 0.0295`).
#[inline(always)]
pub fn fast_ln(x: f64) -> f64 {
    const SQRT_HALF: u64 = 0x3FE6_A09E_667F_3BCD;
    let shifted = x.to_bits().wrapping_sub(SQRT_HALF);
    let biased = (shifted >> 52).wrapping_add(1024) & 0xFFF;
    let exponent = f64::from_bits(MAGIC | biased) - (f64::from_bits(MAGIC) + 1024.0);
    let exponent = if exponent > 1023.0 { exponent - 4096.0 } else { exponent };
    let m = f64::from_bits((shifted & 0x000F_FFFF_FFFF_FFFF) + SQRT_HALF);
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let odd = 1.0 / 17.0 + z * (1.0 / 19.0);
    let odd = 1.0 / 13.0 + z * (1.0 / 15.0 + z * odd);
    let odd = 1.0 / 9.0 + z * (1.0 / 11.0 + z * odd);
    let odd = 1.0 / 5.0 + z * (1.0 / 7.0 + z * odd);
    let series = 2.0 + 2.0 * z * (1.0 / 3.0 + z * odd);
    exponent * LN_2 + s * series
}

/// e to the power `x` for `|x| ≤ 700`; relative error below 1e-14. Outside, `x` is clamped.
///
/// `x = n·ln 2 + r`, `|r| ≤ ln 2 / 2`; Taylor to degree 12 in `r`.
#[inline(always)]
pub fn fast_exp(x: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2⁵²: adding and subtracting it rounds to a whole number
    const LN2_HI: f64 = 6.931_471_803_691_238e-1;
    const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
    let x = x.clamp(-700.0, 700.0);
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HI) - n * LN2_LO;
    let p = 1.0 / 39_916_800.0 + r * (1.0 / 479_001_600.0);
    let p = 1.0 / 362_880.0 + r * (1.0 / 3_628_800.0 + r * p);
    let p = 1.0 / 5_040.0 + r * (1.0 / 40_320.0 + r * p);
    let p = 1.0 / 120.0 + r * (1.0 / 720.0 + r * p);
    let p = 1.0 / 6.0 + r * (1.0 / 24.0 + r * p);
    let p = 1.0 + r * (1.0 + r * (0.5 + r * p));
    // The low bits of `shifted` hold n in two's complement; moved up they add n to p's exponent.
    f64::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 52))
}

/// Sine of a whole turn times `turns`, for `turns` in `0..=2`; absolute error below 1e-15.
#[inline(always)]
pub fn fast_sin_turns(turns: f64) -> f64 {
    let turns = if turns >= 1.0 { turns - 1.0 } else { turns };
    let a = turns - 0.5; // sin(2π·turns) = −sin(2π·a)
    let folded = 0.25 - (0.25 - a.abs()).abs();
    let x = 2.0 * PI * folded; // 0..=π/2
    let z = x * x;
    let p = 1.0 / 121_645_100_408_832_000.0 - z * (1.0 / 51_090_942_171_709_440_000.0);
    let p = 1.0 / 1_307_674_368_000.0 - z * (1.0 / 355_687_428_096_000.0 - z * p);
    let p = 1.0 / 39_916_800.0 - z * (1.0 / 6_227_020_800.0 - z * p);
    let p = 1.0 / 5_040.0 - z * (1.0 / 362_880.0 - z * p);
    let p = 1.0 / 6.0 - z * (1.0 / 120.0 - z * p);
    let sine = x - x * z * p;
    if a >= 0.0 { -sine } else { sine }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_functions_agree_with_libm() {
        let mut x = 1e-300;
        while x < 1e300 {
            let (fast, exact) = (fast_ln(x), libm::log(x));
            assert!((fast - exact).abs() <= 2e-15 * exact.abs().max(1e-3), "ln {x}: {fast} {exact}");
            x *= 1.37;
        }
        for step in -7000..=7000 {
            let x = f64::from(step) * 0.0999;
            let (fast, exact) = (fast_exp(x), libm::exp(x));
            assert!((fast / exact - 1.0).abs() < 1e-14, "exp {x}: {fast} {exact}");
        }
        for step in 0..=2000 {
            let turns = f64::from(step) / 1000.0;
            let (fast, exact) = (fast_sin_turns(turns), libm::sin(turns * 2.0 * PI));
            assert!((fast - exact).abs() < 1e-15 + 1e-15 * turns * 10.0, "sin {turns}: {fast} {exact}");
        }
    }

    #[test]
    fn logarithm_is_exact_enough_near_one() {
        for x in [1.0 - 1e-16, 1.0 - 1e-10, 1.0, 1.0 + 1e-10] {
            assert!((fast_ln(x) - libm::log(x)).abs() <= 1e-15 * libm::log(x).abs() + 1e-26, "{x}");
        }
    }
}
