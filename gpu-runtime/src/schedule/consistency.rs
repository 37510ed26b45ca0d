//! The sampler of consistency models on noise levels, in the state `x = sample + sigma·noise`: denoise, then noise again to
//! the next level (Song et al. 2023, arXiv 2303.01469, algorithm 1).

use super::config::ScheduleConfig;
use super::sigmas::karras_level;
use super::{Schedule, StartNoise, StepCoefficients, refusal, skipped};
use crate::RuntimeError;

/// Range of the noise levels where the model states none: what AnimateLCM-SVD was distilled for.
const SIGMA_RANGE: (f64, f64) = (0.002, 700.0);

pub(super) fn schedule(config: &ScheduleConfig, steps: u32, strength: f64) -> Result<Schedule, RuntimeError> {
    let distilled = config.original_inference_steps;
    if steps > distilled {
        return Err(refusal(format!("{steps} steps; this model has {distilled} distilled steps")));
    }
    let skip = skipped(steps, strength)?;
    let (low, high) = (config.sigma_min.unwrap_or(SIGMA_RANGE.0), config.sigma_max.unwrap_or(SIGMA_RANGE.1));
    let stride = distilled / steps;
    // Every so many-th of the distilled levels, from the highest.
    let level = |index: u32| karras_level(high, low, f64::from(index * stride) / f64::from(distilled - 1));
    let mut sigmas: Vec<f64> = (0..steps).map(level).skip(skip).collect();
    let timesteps = sigmas.iter().map(|&sigma| 0.25 * libm::log(sigma)).collect();
    sigmas.push(0.0);
    Ok(Schedule {
        timesteps,
        init_noise_sigma: (high * high + 1.0).sqrt(),
        start: StartNoise { sample: 1.0, noise: sigmas[0] },
        steps: sigmas.windows(2).map(|pair| step(pair[0], pair[1])).collect(),
    })
}

/// `denoised = x/(σ²+1) − output·σ/√(σ²+1)`, the boundary condition for data of deviation 1; then `denoised + σ'·noise`.
fn step(sigma: f64, next: f64) -> StepCoefficients {
    let variance = sigma * sigma + 1.0;
    StepCoefficients {
        input_scale: 1.0 / variance.sqrt(),
        dx: 1.0 / variance,
        de: -sigma / variance.sqrt(),
        nx: 0.0,
        nd: 1.0,
        np: 0.0,
        nn: next,
    }
}
