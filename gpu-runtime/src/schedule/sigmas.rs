//! Noise levels: what training used, and which of them a run visits. `sigma = √((1−ᾱ)/ᾱ)`, the ratio of noise to signal.

use super::config::{BetaSpacing, FinalSigma, ScheduleConfig, SigmaSpacing, TimestepSpacing};

/// Exponent of Karras et al. 2022, equation 5.
const KARRAS_RHO: f64 = 7.0;

/// ᾱ of every training timestep: the share of signal variance, `∏ (1 − βₛ)` over `s <= t`.
pub(super) fn alphas_cumprod(config: &ScheduleConfig) -> Vec<f64> {
    let count = config.train_timesteps as usize;
    let betas = match config.beta_spacing {
        BetaSpacing::Linear => linspace(config.beta_start, config.beta_end, count),
        BetaSpacing::ScaledLinear => {
            let roots = linspace(config.beta_start.sqrt(), config.beta_end.sqrt(), count);
            roots.into_iter().map(|root| root * root).collect()
        }
    };
    let products = betas.into_iter().scan(1.0, |product, beta| {
        *product *= 1.0 - beta;
        Some(*product)
    });
    products.collect()
}

/// The noise level of a share of signal.
pub(super) fn sigma_of(alpha: f64) -> f64 {
    ((1.0 - alpha) / alpha).sqrt()
}

/// Signal and noise amplitudes of a state of unit variance with noise level `sigma`.
pub(super) fn signal_noise(sigma: f64) -> (f64, f64) {
    let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
    (signal, sigma * signal)
}

/// `count` values from `first` to `last`, both included; `first` alone where `count` is 1.
pub(super) fn linspace(first: f64, last: f64, count: usize) -> Vec<f64> {
    let step = if count > 1 { (last - first) / (count - 1) as f64 } else { 0.0 };
    let value = |i: usize| if i > 0 && i + 1 == count { last } else { first + step * i as f64 };
    (0..count).map(value).collect()
}

/// `steps` timesteps downwards from `train`, a stride of `train / steps` apart, less one.
pub(super) fn trailing(train: u32, steps: u32) -> Vec<f64> {
    let stride = f64::from(train) / f64::from(steps);
    let timestep = |i: u32| (f64::from(train) - stride * f64::from(i)).round_ties_even() - 1.0;
    (0..steps).map(timestep).collect()
}

/// The noise levels that a run visits and what the model is told at each; the levels have one more at their end.
pub(super) struct Levels {
    /// Highest first.
    pub(super) sigmas: Vec<f64>,
    /// One fewer.
    pub(super) timesteps: Vec<f64>,
}

/// What DPM-Solver++ and Euler do differently.
pub(super) struct LevelRules {
    /// Timesteps of [`SigmaSpacing::Timesteps`], highest first.
    pub(super) timesteps: Vec<f64>,
    /// Whether timesteps found from noise levels are rounded.
    pub(super) round: bool,
    /// Karras: ends of the range where the model states none, highest first.
    pub(super) karras_range: (f64, f64),
}

/// Chooses the levels; `trained` are those of training, by timestep.
pub(super) fn levels(config: &ScheduleConfig, trained: &[f64], rules: LevelRules) -> Levels {
    let count = rules.timesteps.len();
    let logs: Vec<f64> = trained.iter().map(|&sigma| libm::log(sigma)).collect();
    let mut sigmas = match config.sigma_spacing {
        SigmaSpacing::Timesteps => rules.timesteps.iter().map(|&t| interpolated(trained, t)).collect(),
        SigmaSpacing::UniformLogSnr => {
            let ends = (logs[logs.len() - 1], logs[0]);
            linspace(ends.0, ends.1, count).into_iter().map(libm::exp).collect()
        }
        SigmaSpacing::Karras => karras(config, rules.karras_range, count),
    };
    let timesteps = match config.sigma_spacing {
        SigmaSpacing::Timesteps => rules.timesteps,
        SigmaSpacing::UniformLogSnr | SigmaSpacing::Karras => {
            let found = sigmas.iter().map(|&sigma| timestep_of(sigma, &logs));
            found.map(|t| if rules.round { t.round_ties_even() } else { t }).collect()
        }
    };
    sigmas.push(match config.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => trained[0],
    });
    Levels { sigmas, timesteps }
}

fn karras(config: &ScheduleConfig, range: (f64, f64), count: usize) -> Vec<f64> {
    let (high, low) = (config.sigma_max.unwrap_or(range.0), config.sigma_min.unwrap_or(range.1));
    linspace(0.0, 1.0, count).into_iter().map(|ramp| karras_level(high, low, ramp)).collect()
}

/// The noise level at `ramp`, 0 to 1, of the way from `high` down to `low` (Karras et al. 2022, equation 5).
pub(super) fn karras_level(high: f64, low: f64, ramp: f64) -> f64 {
    let (high, low) = (libm::pow(high, 1.0 / KARRAS_RHO), libm::pow(low, 1.0 / KARRAS_RHO));
    libm::pow(high + ramp * (low - high), KARRAS_RHO)
}

/// The value at a fractional index, ends held.
fn interpolated(values: &[f64], at: f64) -> f64 {
    let last = values.len() - 1;
    let at = at.clamp(0.0, last as f64);
    let below = (at as usize).min(last - 1);
    let share = at - below as f64;
    values[below] + (values[below + 1] - values[below]) * share
}

/// The fractional timestep of a noise level; `logs` are those of training, ascending.
fn timestep_of(sigma: f64, logs: &[f64]) -> f64 {
    let log = libm::log(sigma.max(1e-10));
    let low = logs.partition_point(|&trained| trained <= log).saturating_sub(1).min(logs.len() - 2);
    let share = ((logs[low] - log) / (logs[low] - logs[low + 1])).clamp(0.0, 1.0);
    (1.0 - share) * low as f64 + share * (low + 1) as f64
}

/// Timesteps of diffusers' DDIM and Euler; DPM-Solver++ has a way of its own for two of the three.
pub(super) fn timesteps(config: &ScheduleConfig, steps: u32) -> Vec<f64> {
    let train = config.train_timesteps;
    match config.timestep_spacing {
        TimestepSpacing::Linspace => {
            let mut ascending = linspace(0.0, f64::from(train - 1), steps as usize);
            ascending.reverse();
            ascending
        }
        TimestepSpacing::Leading => {
            let stride = train / steps;
            (0..steps).rev().map(|i| f64::from(i * stride + config.steps_offset)).collect()
        }
        TimestepSpacing::Trailing => trailing(train, steps),
    }
}
