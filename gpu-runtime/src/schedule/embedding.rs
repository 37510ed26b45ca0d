//! What a model is told besides the latents: the timestep and the guidance scale, as sines and cosines.
//!
//! Both follow the f32 arithmetic that the models were trained with: angles reach 10⁴ radians, where the rounding of the
//! angle moves the sine by 10⁻⁴.

use std::f64::consts::LN_10;

/// Longest period over shortest, as its natural logarithm.
const LN_MAX_PERIOD: f64 = 4.0 * LN_10;

/// Sine or cosine.
type Wave = fn(f64) -> f64;

/// The sinusoid of a timestep, `[dim]`. Frequency `i` of `dim/2` is `10000^(−i/(dim/2 − freq_shift))`.
///
/// `flip_sin_to_cos` puts the cosines first. An odd `dim` ends with a zero.
///
/// # Panics
/// `dim/2` is not above `freq_shift`; the model's configuration was checked for that.
pub fn timestep_embedding(timestep: f64, dim: usize, flip_sin_to_cos: bool, freq_shift: f64) -> Vec<f32> {
    let half = dim / 2;
    assert!(half as f64 > freq_shift, "a time embedding of {dim} channels with shift {freq_shift}");
    let exponent = |i: usize| (-LN_MAX_PERIOD as f32) * i as f32 / (half as f64 - freq_shift) as f32;
    let angles: Vec<f32> = (0..half).map(|i| timestep as f32 * exp(exponent(i))).collect();
    let (first, second): (Wave, Wave) =
        if flip_sin_to_cos { (libm::cos, libm::sin) } else { (libm::sin, libm::cos) };
    waves(&angles, first, second, dim)
}

/// The embedding of a guidance scale that latent consistency models take (`time_cond_proj_dim` channels): sines, then
/// cosines, of `1000·(scale − 1)` times frequencies from 1 to 1/10000.
///
/// # Panics
/// `dim` is below 4.
pub fn guidance_embedding(guidance_scale: f64, dim: usize) -> Vec<f32> {
    assert!(dim >= 4, "a guidance embedding of {dim} channels");
    let half = dim / 2;
    let rate = -(LN_MAX_PERIOD / (half - 1) as f64) as f32;
    let scaled = (guidance_scale - 1.0) as f32 * 1000.0;
    let angles: Vec<f32> = (0..half).map(|i| scaled * exp(i as f32 * rate)).collect();
    waves(&angles, libm::sin, libm::cos, dim)
}

fn exp(x: f32) -> f32 {
    libm::exp(f64::from(x)) as f32
}

fn waves(angles: &[f32], first: Wave, second: Wave, dim: usize) -> Vec<f32> {
    let wave = |function: Wave| angles.iter().map(move |&angle| function(f64::from(angle)) as f32);
    let mut values: Vec<f32> = wave(first).chain(wave(second)).collect();
    values.resize(dim, 0.0);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestep_zero_is_all_ones_and_zeros() {
        assert_eq!(timestep_embedding(0.0, 5, true, 0.0), [1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(timestep_embedding(0.0, 4, false, 1.0), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn frequencies_fall_from_one_to_the_longest_period() {
        let check = |timestep: f64, dim: usize, shift: f64, at: usize, angle: f64| {
            let found = f64::from(timestep_embedding(timestep, dim, true, shift)[at]);
            assert!((found - angle.cos()).abs() < 1e-4, "{timestep} {dim} {at}: {found}");
        };
        check(759.0, 320, 0.0, 0, 759.0);
        check(759.0, 320, 0.0, 80, 7.59);
        check(759.0, 320, 1.0, 159, 0.0759);
    }
}
