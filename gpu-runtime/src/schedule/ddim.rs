//! DDIM with eta 0: the deterministic walk along the model's own estimates of sample and noise.

use super::config::{ScheduleConfig, TimestepSpacing};
use super::sigmas::{alphas_cumprod, timesteps};
use super::{Schedule, StartNoise, StepCoefficients, denoised_of, refusal};
use crate::RuntimeError;

pub(super) fn schedule(config: &ScheduleConfig, steps: u32, skip: usize) -> Result<Schedule, RuntimeError> {
    let alphas = alphas_cumprod(config);
    let all = visited(config, steps)?;
    let visited = &all[skip..];
    let stride = i64::from(config.train_timesteps / steps);
    let last = if config.set_alpha_to_one { 1.0 } else { alphas[0] };
    let mut coefficients = Vec::with_capacity(visited.len());
    for &timestep in visited {
        let next = usize::try_from(timestep as i64 - stride).map_or(last, |next| alphas[next]);
        coefficients.push(step(config, alphas[timestep], next));
    }
    let alpha = alphas[visited[0]];
    Ok(Schedule {
        timesteps: visited.iter().map(|&t| t as f64).collect(),
        init_noise_sigma: 1.0,
        start: StartNoise { sample: alpha.sqrt(), noise: (1.0 - alpha).sqrt() },
        steps: coefficients,
    })
}

/// Equation 12: `√ᾱ'·x0 + √(1−ᾱ')·ε` where the noise is `ε = (x − √ᾱ·x0)/√(1−ᾱ)` whatever the model predicts.
fn step(config: &ScheduleConfig, alpha: f64, next: f64) -> StepCoefficients {
    let (dx, de) = denoised_of(config.prediction, alpha);
    let ratio = ((1.0 - next) / (1.0 - alpha)).sqrt();
    let nd = next.sqrt() - ratio * alpha.sqrt();
    StepCoefficients { input_scale: 1.0, dx, de, nx: ratio, nd, np: 0.0, nn: 0.0 }
}

fn visited(config: &ScheduleConfig, steps: u32) -> Result<Vec<usize>, RuntimeError> {
    let mut found = timesteps(config, steps);
    if config.timestep_spacing == TimestepSpacing::Linspace {
        found.iter_mut().for_each(|t| *t = t.round_ties_even());
    }
    let train = f64::from(config.train_timesteps);
    if let Some(outside) = found.iter().find(|t| !(0.0..train).contains(*t)) {
        let offset = config.steps_offset;
        return Err(refusal(format!(
            "{steps} steps visit timestep {outside} with `steps_offset` {offset}, beyond the {train} of training; \
             take fewer"
        )));
    }
    Ok(found.into_iter().map(|t| t as usize).collect())
}
