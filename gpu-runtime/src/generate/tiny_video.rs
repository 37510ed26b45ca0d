//! Writes a tiny image-to-video model with random weights in the layout of Stable Video Diffusion, less the weights that
//! are never read.

use std::path::Path;

use serde_json::{Value, json};

use super::tiny::{write_texts, write_weights};
use crate::RuntimeError;
use crate::model::{self, VaeConfig, VideoUnetConfig, VisionConfig};

/// Side of the image encoder's patches in pixels: few tokens from the usual 224 pixels.
const PATCH: usize = 56;

/// Writes the folder; the same seed writes the same bytes.
///
/// # Errors
/// [`RuntimeError::BadModel`] when the folder exists and is not empty, or cannot be written.
pub fn make_tiny_video(folder: &Path, seed: u64) -> Result<(), RuntimeError> {
    write_texts(folder, texts())?;
    let config = |component: &str| folder.join(component).join("config.json");
    let vision = VisionConfig::read(&config("image_encoder"))?;
    let unet = VideoUnetConfig::read(&config("unet"))?;
    let vae = VaeConfig::read(&config("vae"))?;
    write_weights(folder, &model::smallest_video_programs(&vision, &unet, &vae), seed, shaped)
}

/// Convolutions that plans have as matrices or with fewer axes, and the class embedding.
fn shaped(component: &str, name: &str, shape: &mut Vec<usize>) {
    let across_frames = shape.len() == 4 && shape[3] == 1;
    if across_frames {
        shape.push(1);
    } else if name.ends_with("quant_conv.weight") || name.ends_with("conv_shortcut.weight") {
        shape.extend([1, 1]);
    } else if component == "image_encoder" && name.ends_with("class_embedding") {
        shape.truncate(1);
    } else if name.ends_with("patch_embedding.weight") {
        shape.truncate(1);
        shape.extend([3, PATCH, PATCH]);
    }
}

/// Configuration files by their path in the folder.
fn texts() -> Vec<(&'static str, String)> {
    let pretty = |value: Value| format!("{value:#}\n");
    let levels = json!([32, 64]);
    vec![
        (
            "model_index.json",
            pretty(json!({
                "_class_name": "StableVideoDiffusionPipeline",
                "feature_extractor": ["transformers", "CLIPImageProcessor"],
                "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
                "scheduler": ["diffusers", "EulerDiscreteScheduler"],
                "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
                "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
            })),
        ),
        (
            "feature_extractor/preprocessor_config.json",
            pretty(json!({
                "image_processor_type": "CLIPImageProcessor", "do_normalize": true,
                "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
                "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
            })),
        ),
        (
            "image_encoder/config.json",
            pretty(json!({
                "architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model",
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                "image_size": 224, "patch_size": PATCH, "num_channels": 3, "hidden_act": "gelu",
                "layer_norm_eps": 1e-5, "projection_dim": 32,
            })),
        ),
        (
            "unet/config.json",
            pretty(json!({
                "_class_name": "UNetSpatioTemporalConditionModel", "sample_size": 24, "num_frames": 8,
                "in_channels": 8, "out_channels": 4,
                "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
                "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
                "block_out_channels": levels, "layers_per_block": 1, "cross_attention_dim": 32,
                "num_attention_heads": [2, 4], "transformer_layers_per_block": 1,
                "addition_time_embed_dim": 16, "projection_class_embeddings_input_dim": 48,
            })),
        ),
        (
            "vae/config.json",
            pretty(json!({
                "_class_name": "AutoencoderKLTemporalDecoder", "in_channels": 3, "out_channels": 3,
                "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
                "block_out_channels": levels, "layers_per_block": 2, "latent_channels": 4, "sample_size": 48,
                "scaling_factor": 0.18215, "force_upcast": true,
            })),
        ),
        (
            "scheduler/scheduler_config.json",
            pretty(json!({
                "_class_name": "EulerDiscreteScheduler", "beta_start": 0.000_85, "beta_end": 0.012,
                "beta_schedule": "scaled_linear", "interpolation_type": "linear", "num_train_timesteps": 1000,
                "prediction_type": "v_prediction", "sigma_max": 700.0, "sigma_min": 0.002, "steps_offset": 1,
                "timestep_spacing": "leading", "timestep_type": "continuous", "use_karras_sigmas": true,
            })),
        ),
    ]
}
