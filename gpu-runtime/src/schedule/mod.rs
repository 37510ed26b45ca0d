//! Noise schedules and samplers: LCM, DPM-Solver++, Euler, DDIM, consistency. Pure f64; knows nothing of tensors or devices.
//!
//! Every sampler here is linear, so that a step is six numbers ([`StepCoefficients`]) whichever sampler it belongs to.

mod config;
mod consistency;
mod ddim;
mod dpm;
pub mod embedding;
mod euler;
mod lcm;
mod sigmas;

pub use config::{
    BetaSpacing, FinalSigma, Prediction, Sampler, ScheduleConfig, SchedulerFile, SigmaSpacing,
    TimestepSpacing,
};

use crate::RuntimeError;

/// Most steps of one request: more than any sampler gains from, and little enough to hold in a table.
pub const STEPS_MAX: u32 = 1000;

/// The numbers of one denoising step, for a model that gives `output` at `input_scale * x`:
///
/// `denoised = dx*x + de*output`, then `next = nx*x + nd*denoised + np*denoised_previous + nn*noise`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCoefficients {
    /// Factor of the state before it enters the model.
    pub input_scale: f64,
    /// Share of the state in the denoised estimate.
    pub dx: f64,
    /// Share of the model's output in the denoised estimate.
    pub de: f64,
    /// Share of the state in the next state.
    pub nx: f64,
    /// Share of the denoised estimate in the next state.
    pub nd: f64,
    /// Share of the denoised estimate of the step before in the next state; zero at the first step.
    pub np: f64,
    /// Share of fresh standard normal noise in the next state; zero for deterministic samplers.
    pub nn: f64,
}

/// How a start is made from given latents: `x = sample*latents + noise*standard_normal`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartNoise {
    /// Share of the latents.
    pub sample: f64,
    /// Share of the noise.
    pub noise: f64,
}

/// A whole run of a sampler. The state after the last step is the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What the model is told at each step; whole numbers but for Euler's `linspace` and Karras times.
    pub timesteps: Vec<f64>,
    /// Standard deviation of the state that a run without a start image begins with.
    pub init_noise_sigma: f64,
    /// How a run with a start image begins.
    pub start: StartNoise,
    /// One for each timestep.
    pub steps: Vec<StepCoefficients>,
}

impl ScheduleConfig {
    /// Share of signal variance at every training timestep: a noised state is `√ᾱ·latents + √(1−ᾱ)·noise`.
    pub fn signal_variances(&self) -> Vec<f64> {
        sigmas::alphas_cumprod(self)
    }

    /// The schedule of `steps` steps. `strength` in `(0, 1]` is how much of the way is walked: 1 from pure noise, less from
    /// a start image. LCM takes all its steps on the shorter way; the others leave out the first ones, as diffusers does.
    ///
    /// # Errors
    /// `BadRequest` when no step would be left or the sampler cannot make so many.
    pub fn schedule(&self, steps: u32, strength: f64) -> Result<Schedule, RuntimeError> {
        if !(1..=STEPS_MAX.min(self.train_timesteps)).contains(&steps) {
            let most = STEPS_MAX.min(self.train_timesteps);
            return Err(refusal(format!("{steps} steps; this model takes 1 to {most}")));
        }
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(refusal(format!("strength {strength} is outside (0, 1]")));
        }
        let schedule = match self.sampler {
            Sampler::Lcm => lcm::schedule(self, steps, strength),
            Sampler::Consistency => consistency::schedule(self, steps, strength),
            Sampler::DpmSolverPlusPlus => dpm::schedule(self, steps, skipped(steps, strength)?),
            Sampler::Euler => euler::schedule(self, steps, skipped(steps, strength)?),
            Sampler::Ddim => ddim::schedule(self, steps, skipped(steps, strength)?),
        }?;
        debug_assert_eq!(schedule.steps.len(), schedule.timesteps.len());
        Ok(schedule)
    }
}

/// Steps that are left out at the start for a `strength`, as diffusers' image-to-image pipelines count them.
fn skipped(steps: u32, strength: f64) -> Result<usize, RuntimeError> {
    let taken = ((f64::from(steps) * strength) as u32).min(steps);
    if taken == 0 {
        let least = 1.0 / f64::from(steps);
        return Err(refusal(format!(
            "strength {strength} leaves none of {steps} steps; it must be at least {least:.3}"
        )));
    }
    Ok((steps - taken) as usize)
}

fn refusal(why: String) -> RuntimeError {
    RuntimeError::BadRequest { why }
}

/// `x0 = px*x + pe*output` of a variance-preserving state, with `alpha` = ᾱ, the share of signal variance.
fn denoised_of(prediction: Prediction, alpha: f64) -> (f64, f64) {
    let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
    match prediction {
        Prediction::Epsilon => (1.0 / signal, -noise / signal),
        Prediction::Sample => (0.0, 1.0),
        Prediction::Velocity => (signal, -noise),
    }
}

#[cfg(test)]
mod trajectory_tests;
