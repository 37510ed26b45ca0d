//! What a job's payload asks of a diffusion model: JSON, every key optional but the prompt of models that take one.

use gpu_runtime::schedule::Sampler;
use serde::Deserialize;

use crate::protocol::Start;

/// A payload. Keys that are not named here are the application's own, and not looked at.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Wish {
    /// Model, by the name of its folder; the worker's first where none is named.
    pub(super) model: Option<String>,
    pub(super) prompt: Option<String>,
    pub(super) seed: u64,
    pub(super) frames: Option<u32>,
    pub(super) steps: Option<u32>,
    pub(super) width: Option<u32>,
    pub(super) height: Option<u32>,
    pub(super) guidance: Option<f64>,
    pub(super) sampler: Option<String>,
    /// `png`, `apng`, `gif` or `webp`.
    pub(super) format: Option<String>,
    /// Frames a second.
    pub(super) rate: Option<u16>,
    /// How far from the start picture, the first input object, 0 to 1.
    pub(super) strength: Option<f64>,
    /// Image to video: how much moves.
    pub(super) motion: Option<u32>,
    /// Image to video: noise on the picture.
    pub(super) noise: Option<f64>,
}

/// Steps where nobody says how many.
const STEPS_USUAL: u32 = 4;

impl Wish {
    /// Reads the payload of a start.
    pub(super) fn read(start: &Start) -> Result<Self, String> {
        serde_json::from_slice(&start.payload).map_err(|error| format!("the payload cannot be read: {error}"))
    }

    /// Steps: as asked for, but no more than the quality level has, which stands for what can be afforded now.
    pub(super) fn steps(&self, quality: &str) -> u32 {
        match (self.steps, steps_of(quality)) {
            (Some(asked), Some(level)) => asked.min(level),
            (Some(steps), None) | (None, Some(steps)) => steps,
            (None, None) => STEPS_USUAL,
        }
    }

    pub(super) fn sampler(&self) -> Result<Option<Sampler>, String> {
        let Some(name) = &self.sampler else { return Ok(None) };
        let known = || Sampler::ALL.map(Sampler::name).join(", ");
        Sampler::named(name).map(Some).ok_or_else(|| format!("`{name}` is no sampler; there are {}", known()))
    }
}

/// Steps that a quality level names, as `4-steps` does.
fn steps_of(quality: &str) -> Option<u32> {
    let (count, word) = quality.split_once('-')?;
    count.parse().ok().filter(|count| *count > 0 && matches!(word, "step" | "steps"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_bounds_the_steps() {
        let check = |asked, quality: &str, expected| {
            assert_eq!(
                Wish { steps: asked, ..Wish::default() }.steps(quality),
                expected,
                "{asked:?} {quality}"
            );
        };
        check(None, "full", STEPS_USUAL);
        check(Some(8), "full", 8);
        check(Some(8), "4-steps", 4);
        check(Some(2), "4-steps", 2);
        check(None, "1-step", 1);
        check(None, "0-steps", STEPS_USUAL);
        check(None, "4-stars", STEPS_USUAL);
    }
}
