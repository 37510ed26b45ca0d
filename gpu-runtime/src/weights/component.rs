//! Component folders of a model: which files hold their weights, and old names of tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::RuntimeError;

/// Largest index file of a sharded model that is read, in bytes.
const INDEX_BYTES_MAX: u64 = 32 << 20;

/// A part of a model with weights of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// CLIP text encoder.
    TextEncoder,
    /// CLIP image encoder.
    ImageEncoder,
    /// Denoising network.
    Unet,
    /// Temporal layers added to it.
    MotionAdapter,
    /// Encoder and decoder of pictures.
    Vae,
}

impl Component {
    /// Name of its folder, and first part of its tensors' names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::ImageEncoder => "image_encoder",
            Self::Unet => "unet",
            Self::MotionAdapter => "motion_adapter",
            Self::Vae => "vae",
        }
    }

    /// Name of its weights file without endings.
    fn stem(self) -> &'static str {
        match self {
            Self::TextEncoder | Self::ImageEncoder => "model",
            Self::Unet | Self::MotionAdapter | Self::Vae => "diffusion_pytorch_model",
        }
    }

    /// The present name of a stored tensor: CLIP without its wrapper's prefix, attention of old VAE files renamed.
    pub(super) fn canonical(self, stored: &str) -> String {
        match self {
            Self::TextEncoder => stored.strip_prefix("text_model.").unwrap_or(stored).to_owned(),
            Self::Vae if stored.contains(".attentions.") => {
                // The names that AutoencoderKL wrote before diffusers 0.12; SD1.5's own folder still has them.
                [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")]
                    .iter()
                    .find_map(|(old, new)| {
                        ["weight", "bias"].iter().find_map(|kind| {
                            let stem = stored.strip_suffix(&format!(".{old}.{kind}"))?;
                            Some(format!("{stem}.{new}.{kind}"))
                        })
                    })
                    .unwrap_or_else(|| stored.to_owned())
            }
            Self::ImageEncoder | Self::Unet | Self::MotionAdapter | Self::Vae => stored.to_owned(),
        }
    }
}

/// The safetensors files of a component: one, or the shards that an index names; `.fp16` variants where there are no
/// others.
pub(super) fn files(component: Component, folder: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
    let stem = component.stem();
    for variant in ["", ".fp16"] {
        let single = folder.join(format!("{stem}{variant}.safetensors"));
        if single.exists() {
            return Ok(vec![single]);
        }
        for index in [
            format!("{stem}{variant}.safetensors.index.json"),
            format!("{stem}.safetensors.index{variant}.json"),
        ] {
            let index = folder.join(index);
            if index.exists() {
                return shards(&index, folder);
            }
        }
    }
    Err(RuntimeError::BadModel {
        path: folder.to_owned(),
        why: format!(
            "holds no `{stem}.safetensors` (nor `{stem}.fp16.safetensors`, nor an index of shards); fetch them, or \
             convert `{stem}.bin` to safetensors"
        ),
    })
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn shards(index: &Path, folder: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
    let bad = |why: String| RuntimeError::BadModel { path: index.to_owned(), why };
    let unreadable = |error: std::io::Error| bad(format!("cannot be read: {error}"));
    let bytes = fs::metadata(index).map_err(unreadable)?.len();
    if bytes > INDEX_BYTES_MAX {
        return Err(bad(format!("has {bytes} bytes; at most {INDEX_BYTES_MAX} are read")));
    }
    let text = fs::read(index).map_err(unreadable)?;
    let parsed: Index = serde_json::from_slice(&text)
        .map_err(|error| bad(format!("is no index of shards: {error}; fetch it again")))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if names.is_empty() {
        return Err(bad("names no shard; fetch it again".to_owned()));
    }
    names
        .into_iter()
        .map(|name| {
            if Path::new(&name).file_name() != Some(name.as_ref()) {
                return Err(bad(format!("shard `{name}` is not a file of this folder")));
            }
            let path = folder.join(&name);
            if path.exists() { Ok(path) } else { Err(bad(format!("shard `{name}` is missing; fetch it"))) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_are_read_as_new_ones() {
        for (component, stored, canonical) in [
            (Component::TextEncoder, "text_model.final_layer_norm.bias", "final_layer_norm.bias"),
            (Component::TextEncoder, "final_layer_norm.bias", "final_layer_norm.bias"),
            (
                Component::Vae,
                "encoder.mid_block.attentions.0.query.weight",
                "encoder.mid_block.attentions.0.to_q.weight",
            ),
            (
                Component::Vae,
                "decoder.mid_block.attentions.0.proj_attn.bias",
                "decoder.mid_block.attentions.0.to_out.0.bias",
            ),
            (
                Component::Vae,
                "decoder.mid_block.attentions.0.to_k.bias",
                "decoder.mid_block.attentions.0.to_k.bias",
            ),
            (Component::Unet, "conv_in.weight", "conv_in.weight"),
        ] {
            assert_eq!(component.canonical(stored), canonical);
        }
    }
}
