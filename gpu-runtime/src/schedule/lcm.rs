//! The sampler of latent consistency models: denoise with a boundary condition, then noise again to the next level.

use super::config::ScheduleConfig;
use super::sigmas::alphas_cumprod;
use super::{Schedule, StartNoise, StepCoefficients, denoised_of, refusal};
use crate::RuntimeError;

/// Standard deviation of the data that the boundary condition assumes (Karras et al. 2022; diffusers fixes it, too).
const SIGMA_DATA: f64 = 0.5;

pub(super) fn schedule(config: &ScheduleConfig, steps: u32, strength: f64) -> Result<Schedule, RuntimeError> {
    let alphas = alphas_cumprod(config);
    let timesteps = timesteps(config, steps, strength)?;
    let mut coefficients = Vec::with_capacity(timesteps.len());
    for (i, &timestep) in timesteps.iter().enumerate() {
        let next = timesteps.get(i + 1).map(|&next| alphas[next]);
        coefficients.push(step(config, timestep, alphas[timestep], next));
    }
    let alpha = alphas[timesteps[0]];
    Ok(Schedule {
        timesteps: timesteps.iter().map(|&t| t as f64).collect(),
        init_noise_sigma: 1.0,
        start: StartNoise { sample: alpha.sqrt(), noise: (1.0 - alpha).sqrt() },
        steps: coefficients,
    })
}

/// `denoised = c_skip·x + c_out·x0` with `s = timestep·timestep_scaling`, `c_skip = σ²/(s²+σ²)`, `c_out = s/√(s²+σ²)`
/// and σ = [`SIGMA_DATA`]; then `√ᾱ·denoised + √(1−ᾱ)·noise` at the next timestep's ᾱ, or `denoised` alone at the end.
fn step(config: &ScheduleConfig, timestep: usize, alpha: f64, next_alpha: Option<f64>) -> StepCoefficients {
    let scaled = timestep as f64 * config.timestep_scaling;
    let variance = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
    let (skip, out) = (SIGMA_DATA * SIGMA_DATA / variance, scaled / variance.sqrt());
    let (px, pe) = denoised_of(config.prediction, alpha);
    let (nd, nn) = next_alpha.map_or((1.0, 0.0), |alpha| (alpha.sqrt(), (1.0 - alpha).sqrt()));
    StepCoefficients { input_scale: 1.0, dx: skip + out * px, de: out * pe, nx: 0.0, nd, np: 0.0, nn }
}

/// `steps` of the teacher's timesteps, evenly by index from the highest that `strength` allows.
fn timesteps(config: &ScheduleConfig, steps: u32, strength: f64) -> Result<Vec<usize>, RuntimeError> {
    let original = config.original_inference_steps;
    let stride = (config.train_timesteps / original) as usize;
    let count = (f64::from(original) * strength) as usize;
    if count < steps as usize {
        return Err(refusal(format!(
            "{steps} steps at strength {strength}; this model has {original} distilled steps, of which {count} are \
             left, so take fewer steps or more strength"
        )));
    }
    let every = count as f64 / f64::from(steps);
    let index = |i: u32| (f64::from(i) * every) as usize;
    Ok((0..steps).map(|i| (count - index(i)) * stride - 1).collect())
}
