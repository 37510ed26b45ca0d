//! Euler's method on the probability flow, in the state `x = sample + sigma·noise` of Karras et al. 2022.

use super::config::{Prediction, ScheduleConfig, TimestepSpacing};
use super::sigmas::{LevelRules, alphas_cumprod, levels, sigma_of, timesteps};
use super::{Schedule, StartNoise, StepCoefficients};
use crate::RuntimeError;

pub(super) fn schedule(config: &ScheduleConfig, steps: u32, skip: usize) -> Result<Schedule, RuntimeError> {
    let trained: Vec<f64> = alphas_cumprod(config).into_iter().map(sigma_of).collect();
    // Diffusers holds these in f32, and `linspace` ones are fractions.
    let visited: Vec<f64> = timesteps(config, steps).into_iter().map(|t| f64::from(t as f32)).collect();
    let at = |t: f64| trained[(t as usize).min(trained.len() - 1)];
    let karras_range = (at(visited[0]), at(visited[visited.len() - 1]));
    let mut found = levels(config, &trained, LevelRules { timesteps: visited, round: false, karras_range });
    if config.continuous_timesteps {
        found.timesteps = found.sigmas[..steps as usize].iter().map(|&s| 0.25 * libm::log(s)).collect();
    }
    let sigma_max = found.sigmas.iter().copied().fold(0.0, f64::max);
    let init_noise_sigma = match config.timestep_spacing {
        TimestepSpacing::Linspace | TimestepSpacing::Trailing => sigma_max,
        TimestepSpacing::Leading => (sigma_max * sigma_max + 1.0).sqrt(),
    };
    let sigmas = &found.sigmas[skip..];
    Ok(Schedule {
        timesteps: found.timesteps[skip..].to_vec(),
        init_noise_sigma,
        start: StartNoise { sample: 1.0, noise: sigmas[0] },
        steps: sigmas.windows(2).map(|pair| step(config.prediction, pair[0], pair[1])).collect(),
    })
}

/// `x' = x + (x − x0)/σ · (σ' − σ)`.
fn step(prediction: Prediction, sigma: f64, next: f64) -> StepCoefficients {
    let variance = sigma * sigma + 1.0;
    let (dx, de) = match prediction {
        Prediction::Epsilon => (1.0, -sigma),
        Prediction::Sample => (0.0, 1.0),
        Prediction::Velocity => (1.0 / variance, -sigma / variance.sqrt()),
    };
    let ratio = next / sigma;
    StepCoefficients {
        input_scale: 1.0 / variance.sqrt(),
        dx,
        de,
        nx: ratio,
        nd: 1.0 - ratio,
        np: 0.0,
        nn: 0.0,
    }
}
