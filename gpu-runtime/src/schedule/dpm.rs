//! DPM-Solver++, multistep, of first and second order (midpoint), with its rules for the last steps as in diffusers.

use super::config::{FinalSigma, Prediction, ScheduleConfig, TimestepSpacing};
use super::sigmas::{LevelRules, alphas_cumprod, levels, linspace, sigma_of, signal_noise, trailing};
use super::{Schedule, StartNoise, StepCoefficients, denoised_of, refusal};
use crate::RuntimeError;

/// Runs below this many steps end with lower order where `lower_order_final` holds.
const SHORT_RUN: usize = 15;

pub(super) fn schedule(config: &ScheduleConfig, steps: u32, skip: usize) -> Result<Schedule, RuntimeError> {
    let trained: Vec<f64> = alphas_cumprod(config).into_iter().map(sigma_of).collect();
    let karras_range = (trained[trained.len() - 1], trained[0]);
    let rules = LevelRules { timesteps: timesteps(config, steps)?, round: true, karras_range };
    let found = levels(config, &trained, rules);
    let count = found.timesteps.len();
    let mut coefficients = Vec::with_capacity(count - skip);
    for i in skip..count {
        let (now, next) = (found.sigmas[i], found.sigmas[i + 1]);
        let last = i + 1 == count;
        let lower = config.euler_at_final
            || (config.lower_order_final && count < SHORT_RUN)
            || config.final_sigma == FinalSigma::Zero;
        let first_order = config.solver_order == 1 || i == skip || (last && lower);
        let before = (!first_order).then(|| found.sigmas[i - 1]);
        coefficients.push(step(config.prediction, before, now, next));
    }
    let (sample, noise) = signal_noise(found.sigmas[skip]);
    Ok(Schedule {
        timesteps: found.timesteps[skip..].to_vec(),
        init_noise_sigma: 1.0,
        start: StartNoise { sample, noise },
        steps: coefficients,
    })
}

/// With λ = ln(α/σ) = −ln(sigma), `h = λ' − λ` and `r = h₋₁/h`:
/// `x' = σ'/σ·x − α'(e^{−h} − 1)·(m + (m − m₋₁)/(2r))`, where m is the denoised estimate; first order leaves out `1/(2r)`.
fn step(prediction: Prediction, before: Option<f64>, now: f64, next: f64) -> StepCoefficients {
    let (signal, noise) = signal_noise(now);
    let (next_signal, next_noise) = signal_noise(next);
    let (dx, de) = denoised_of(prediction, signal * signal);
    let weight = next_signal * (1.0 - next / now);
    let half_inverse_ratio = before.map_or(0.0, |before| {
        let (h, h_before) = (libm::log(now / next), libm::log(before / now));
        0.5 * h / h_before
    });
    StepCoefficients {
        input_scale: 1.0,
        dx,
        de,
        nx: next_noise / noise,
        nd: weight * (1.0 + half_inverse_ratio),
        np: -weight * half_inverse_ratio,
        nn: 0.0,
    }
}

fn timesteps(config: &ScheduleConfig, steps: u32) -> Result<Vec<f64>, RuntimeError> {
    let train = config.train_timesteps;
    let (found, offset) = match config.timestep_spacing {
        TimestepSpacing::Linspace => {
            let ascending = linspace(0.0, f64::from(train - 1), steps as usize + 1);
            (ascending.into_iter().skip(1).rev().map(f64::round_ties_even).collect::<Vec<f64>>(), 0)
        }
        TimestepSpacing::Leading => {
            let stride = train / (steps + 1);
            ((1..=steps).rev().map(|i| f64::from(i * stride)).collect(), config.steps_offset)
        }
        TimestepSpacing::Trailing => (trailing(train, steps), 0),
    };
    let found: Vec<f64> = found.into_iter().map(|t| t + f64::from(offset)).collect();
    // Two equal levels would divide by nothing.
    if found.windows(2).any(|pair| pair[0] <= pair[1]) || found[0] > f64::from(train - 1) {
        return Err(refusal(format!("{steps} steps of {train} training timesteps are too many; take fewer")));
    }
    Ok(found)
}
