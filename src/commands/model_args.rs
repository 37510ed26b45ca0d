//! Flags that name a model and what is asked of it. What they mean to a model is checked by the runtime.

use std::path::{Path, PathBuf};

use clap::Args;
use gpu_runtime::model::ModelSource;
use gpu_runtime::schedule::Sampler;

use super::device::Device;

/// Strength of a low-rank adapter where none is said: what AnimateLCM recommends for its own.
const ADAPTER_STRENGTH: f32 = 0.8;

/// Parts of a model beside its folder, and the device.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Motion modules from this folder. Default: `motion_adapter` in the model's folder, where it is there.
    #[arg(long, value_name = "DIR")]
    pub(crate) motion_adapter: Option<PathBuf>,
    /// Fuse this low-rank adapter (safetensors) into the weights, at a strength [0.8]; may be repeated.
    #[arg(long = "lora", value_name = "FILE[=STRENGTH]", value_parser = adapter)]
    pub(crate) adapters: Vec<(PathBuf, f32)>,
    /// Sampler instead of the model's own: lcm, dpm++, euler, ddim; for image-to-video
    /// models euler, consistency.
    #[arg(long, value_name = "NAME", value_parser = sampler)]
    pub(crate) sampler: Option<Sampler>,
    /// Guidance scale. Default: 8 for models with a guidance embedding, else 1, which is none.
    #[arg(long, value_name = "SCALE")]
    pub(crate) guidance: Option<f64>,
    /// Where the model runs.
    #[arg(long, value_enum, value_name = "DEVICE", default_value_t)]
    pub(crate) device: Device,
}

impl ModelArgs {
    /// The folder with the parts.
    pub(crate) fn source(&self, folder: &Path) -> ModelSource {
        let whole = ModelSource::folder(folder);
        ModelSource {
            motion_adapter: self.motion_adapter.clone().or(whole.motion_adapter),
            adapters: self.adapters.clone(),
            folder: whole.folder,
        }
    }
}

/// Pixels of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Reads `512` or `512x768`.
pub(crate) fn size(text: &str) -> Result<Size, String> {
    let side = |text: &str| text.parse::<u32>().ok().filter(|side| *side > 0);
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    match (side(width), side(height)) {
        (Some(width), Some(height)) => Ok(Size { width, height }),
        _ => Err("it must be a side or WIDTHxHEIGHT in pixels, such as 512 or 512x768".to_owned()),
    }
}

fn sampler(name: &str) -> Result<Sampler, String> {
    let known = || format!("it must be one of {}", Sampler::ALL.map(Sampler::name).join(", "));
    Sampler::named(name).ok_or_else(known)
}

fn adapter(text: &str) -> Result<(PathBuf, f32), String> {
    let Some((path, strength)) = text.rsplit_once('=') else { return Ok((text.into(), ADAPTER_STRENGTH)) };
    let strength: f32 =
        strength.parse().map_err(|_| format!("`{strength}` is not a strength, such as 0.8"))?;
    if strength.is_finite() { Ok((path.into(), strength)) } else { Err(format!("a strength of {strength}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_squares_or_two_sides() {
        let check = |text: &str, expected: Option<(u32, u32)>| {
            assert_eq!(size(text).ok().map(|size| (size.width, size.height)), expected, "{text}");
        };
        check("512", Some((512, 512)));
        check("512x768", Some((512, 768)));
        check("0", None);
        check("512x", None);
        check("-1x5", None);
    }

    #[test]
    fn adapters_have_a_strength() {
        let check = |text: &str, expected: Option<(&str, f32)>| {
            assert_eq!(
                adapter(text).ok(),
                expected.map(|(path, strength)| (path.into(), strength)),
                "{text}"
            );
        };
        check("a.safetensors", Some(("a.safetensors", 0.8)));
        check("a=b.safetensors=1.5", Some(("a=b.safetensors", 1.5)));
        check("a=strong", None);
        check("a=inf", None);
    }
}
