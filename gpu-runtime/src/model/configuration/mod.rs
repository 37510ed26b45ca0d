//! Configurations of the components, checked so that every graph built from them has shapes that fit.

mod motion;
mod text;
mod unet;
mod vae;
mod video;
mod vision;

pub use motion::MotionConfig;
pub use text::{TextActivation, TextConfig};
pub use unet::UnetConfig;
pub use vae::VaeConfig;
pub(super) use video::GROUPS;
pub use video::VideoUnetConfig;
pub use vision::{PixelNorm, VisionConfig};

use super::keys::Keys;
use crate::RuntimeError;

/// Widest layer that is accepted.
const CHANNELS_MAX: u32 = 8192;
/// Most resolution levels of a network.
const BLOCKS_MAX: usize = 8;
/// Most layers per level, and most blocks per transformer. Published models have up to 3 and 10; together with
/// [`BLOCKS_MAX`] this bounds the plan that a configuration can ask for.
const LAYERS_MAX: u32 = 16;

/// Which levels have attention; the types of all levels must be those of this class.
fn levels_with_attention(
    keys: &Keys,
    key: &str,
    types: &[String],
    levels: usize,
    plain: &str,
) -> Result<Vec<bool>, RuntimeError> {
    if types.len() != levels {
        return Err(keys.bad(format!("`{key}` names {} levels, `block_out_channels` {levels}", types.len())));
    }
    let attention = format!("CrossAttn{plain}");
    types
        .iter()
        .map(|kind| match kind.as_str() {
            kind if kind == attention => Ok(true),
            kind if kind == plain => Ok(false),
            other => {
                Err(keys.bad(format!("`{key}` names `{other}`; {attention} and {plain} are implemented")))
            }
        })
        .collect()
}

fn check_groups(keys: &Keys, channels: &[u32], groups: u32) -> Result<(), RuntimeError> {
    match channels.iter().find(|channels| *channels % groups != 0) {
        None => Ok(()),
        Some(channels) => Err(keys.bad(format!("{channels} channels are not a multiple of {groups} groups"))),
    }
}
