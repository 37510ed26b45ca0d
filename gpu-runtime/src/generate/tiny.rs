//! Writes a tiny model with random weights in the real folder layout, so that a fresh machine can run everything without
//! a download. What it draws means nothing; how it is computed is all there: text encoder, distilled guidance, motion
//! modules, encoder and decoder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};

use crate::RuntimeError;
use crate::graph::{Graph, PartSource, WeightLayout, WeightPart, WeightUse};
use crate::model::{self, MotionConfig, TextConfig, UnetConfig, VaeConfig};
use crate::noise::Noise;

/// Entries of the vocabulary.
const VOCABULARY: usize = 600;

/// Merges of the tokenizer, in order of rank.
const MERGES: [&str; 20] = [
    "t h", "th e</w>", "a n", "an i", "m a", "ani ma", "c a", "ca t</w>", "r u", "ru n", "run n", "i n",
    "in g</w>", "o f</w>", "p h", "ph o", "o t", "d o", "do g</w>", "s u",
];

/// Writes the folder; the same seed writes the same bytes.
///
/// # Errors
/// [`RuntimeError::BadModel`] when the folder exists and is not empty, or cannot be written.
pub fn make_tiny(folder: &Path, seed: u64) -> Result<(), RuntimeError> {
    write_texts(folder, texts())?;
    let config = |component: &str| folder.join(component).join("config.json");
    let unet = UnetConfig::read(&config("unet"))?;
    let motion = MotionConfig::read(&config("motion_adapter"), &unet)?;
    let text = TextConfig::read(&config("text_encoder"))?;
    let vae = VaeConfig::read(&config("vae"))?;
    write_weights(folder, &model::smallest_programs(&text, &unet, Some(&motion), &vae), seed, shaped)
}

/// Writes configurations and the like by their path in a folder.
///
/// # Errors
/// [`RuntimeError::BadModel`] when the folder exists and is not empty, or cannot be written.
pub(super) fn write_texts(folder: &Path, texts: Vec<(&'static str, String)>) -> Result<(), RuntimeError> {
    let bad = |why: String| RuntimeError::BadModel { path: folder.to_owned(), why };
    let unwritable = |error: std::io::Error| bad(format!("cannot be written: {error}"));
    fs::create_dir_all(folder).map_err(unwritable)?;
    if fs::read_dir(folder).map_err(unwritable)?.next().is_some() {
        return Err(bad("is not empty; name a new folder for the tiny model".to_owned()));
    }
    for (name, text) in texts {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("files lie below the folder")).map_err(unwritable)?;
        fs::write(path, text).map_err(unwritable)?;
    }
    Ok(())
}

/// Gives a tensor, named by component and path, the extents that its file has.
pub(super) type Shaped = fn(&str, &str, &mut Vec<usize>);

/// Writes random weights for all programs into the folders of their components.
///
/// # Errors
/// [`RuntimeError::BadModel`] when the folder cannot be written.
pub(super) fn write_weights(
    folder: &Path,
    graphs: &[Graph],
    seed: u64,
    shaped: Shaped,
) -> Result<(), RuntimeError> {
    let bad = |why: String| RuntimeError::BadModel { path: folder.to_owned(), why };
    let mut components: BTreeMap<String, BTreeMap<String, Stored>> = BTreeMap::new();
    for weight in graphs.iter().flat_map(|graph| &graph.weights) {
        for part in &weight.parts {
            for (name, shape, layout) in tensors(weight, part) {
                let (component, name) = name.split_once('/').expect("names begin with a component");
                let mut stored = Stored::new(component, name, shape, layout, seed);
                shaped(component, name, &mut stored.shape);
                components.entry(component.to_owned()).or_default().insert(stored.name.clone(), stored);
            }
        }
    }
    for (component, tensors) in components {
        let views = tensors.iter().map(|(name, stored)| {
            let view = TensorView::new(Dtype::BF16, stored.shape.clone(), &stored.bytes);
            (name, view.expect("bytes are made for the shape"))
        });
        let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
        let bytes = serialize(views, metadata).map_err(|error| bad(error.to_string()))?;
        let encoder = component == "text_encoder" || component == "image_encoder";
        let stem = if encoder { "model" } else { "diffusion_pytorch_model" };
        fs::write(folder.join(component).join(format!("{stem}.safetensors")), bytes)
            .map_err(|error| bad(format!("cannot be written: {error}")))?;
    }
    Ok(())
}

/// The stored tensors behind a part of a weight: name, extents, layout.
fn tensors(weight: &WeightUse, part: &WeightPart) -> Vec<(String, Vec<usize>, WeightLayout)> {
    let mut dims = vec![part.rows as usize];
    dims.extend(weight.dims[1..].iter().map(|&extent| extent as usize));
    match &part.source {
        PartSource::Stored => vec![(part.name.clone(), dims, weight.layout)],
        PartSource::Mixed(mixing) => vec![
            (mixing.factor.clone(), vec![1], WeightLayout::Vector),
            (part.name.clone(), dims, weight.layout),
        ],
        PartSource::FrameEmbedding { hidden } => {
            let (channels, hidden) = (dims[1], *hidden as usize);
            [
                ("linear_1.weight", vec![hidden, channels], WeightLayout::Matrix),
                ("linear_1.bias", vec![hidden], WeightLayout::Vector),
                ("linear_2.weight", vec![channels, hidden], WeightLayout::Matrix),
                ("linear_2.bias", vec![channels], WeightLayout::Vector),
            ]
            .map(|(name, dims, layout)| (format!("{}.{name}", part.name), dims, layout))
            .into()
        }
    }
}

/// A tensor as its file holds it.
struct Stored {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    /// Random values that keep activations near unit variance, as the fixtures have them.
    fn new(component: &str, name: &str, shape: Vec<usize>, layout: WeightLayout, seed: u64) -> Self {
        let columns: usize = shape[1..].iter().product();
        let count = shape.iter().product();
        let normals = Noise::new(seed, &format!("weights {component}/{name}")).take(count);
        let values: Vec<f32> = if name.ends_with("pos_embed.pe") {
            (0..count).map(|index| sinusoid(index / columns, index % columns, columns)).collect()
        } else {
            let (mean, deviation) = match layout {
                WeightLayout::Vector if name.ends_with("bias") => (0.0, 0.1),
                WeightLayout::Vector => (1.0, 0.1),
                WeightLayout::Table => (0.0, 0.5),
                WeightLayout::Matrix | WeightLayout::Convolution => (0.0, 1.0 / (columns as f32).sqrt()),
            };
            normals.iter().map(|normal| mean + deviation * normal).collect()
        };
        let prefix = if component == "text_encoder" { "text_model." } else { "" };
        let bytes = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
        Self { name: format!("{prefix}{name}"), shape, bytes }
    }
}

/// 1 × 1 convolutions that plans have as matrices, and tables with a batch axis.
fn shaped(component: &str, name: &str, shape: &mut Vec<usize>) {
    let point_convolution =
        ["quant_conv.weight", "conv_shortcut.weight"].iter().any(|end| name.ends_with(end))
            || component == "unet" && (name.ends_with("proj_in.weight") || name.ends_with("proj_out.weight"));
    if point_convolution {
        shape.extend([1, 1]);
    } else if name.ends_with("pos_embed.pe") {
        shape.insert(0, 1);
    }
}

/// The table of SinusoidalPositionalEmbedding: sin(p · 10000^(-c / channels)) for even c, cos for odd.
fn sinusoid(position: usize, channel: usize, channels: usize) -> f32 {
    let even = channel / 2 * 2;
    let angle = position as f64 * libm::pow(10_000.0, -(even as f64) / channels as f64);
    if channel == even { libm::sin(angle) as f32 } else { libm::cos(angle) as f32 }
}

/// Configuration and tokenizer files by their path in the folder.
fn texts() -> Vec<(&'static str, String)> {
    let pretty = |value: Value| format!("{value:#}\n");
    let mut merges = "#version: 0.2\n".to_owned();
    MERGES.iter().for_each(|merge| {
        merges.push_str(merge);
        merges.push('\n');
    });
    let levels = json!([16, 40]);
    vec![
        (
            "model_index.json",
            pretty(json!({
                "_class_name": "AnimateDiffPipeline",
                "motion_adapter": ["diffusers", "MotionAdapter"],
                "scheduler": ["diffusers", "LCMScheduler"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"],
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
            })),
        ),
        (
            "unet/config.json",
            pretty(json!({
                "_class_name": "UNet2DConditionModel", "sample_size": 8, "in_channels": 4, "out_channels": 4,
                "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
                "mid_block_type": "UNetMidBlock2DCrossAttn",
                "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
                "block_out_channels": levels, "layers_per_block": 1, "cross_attention_dim": 32,
                "attention_head_dim": [2, 1], "norm_num_groups": 4, "norm_eps": 1e-5, "time_cond_proj_dim": 32,
                "flip_sin_to_cos": true, "freq_shift": 0, "act_fn": "silu",
            })),
        ),
        (
            "motion_adapter/config.json",
            pretty(json!({
                "_class_name": "MotionAdapter", "block_out_channels": levels, "motion_layers_per_block": 1,
                "motion_mid_block_layers_per_block": 1, "motion_num_attention_heads": 2,
                "motion_norm_num_groups": 4, "motion_max_seq_length": 32, "use_motion_mid_block": true,
            })),
        ),
        (
            "vae/config.json",
            pretty(json!({
                "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3,
                "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
                "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
                "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
                "latent_channels": 4, "sample_size": 16, "scaling_factor": 0.18215, "act_fn": "silu",
            })),
        ),
        (
            "text_encoder/config.json",
            pretty(json!({
                "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": VOCABULARY,
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                "max_position_embeddings": 16, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
                "projection_dim": 32, "bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1,
            })),
        ),
        (
            "scheduler/scheduler_config.json",
            pretty(json!({
                "_class_name": "LCMScheduler", "beta_start": 0.000_85, "beta_end": 0.012,
                "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "original_inference_steps": 50,
                "prediction_type": "epsilon", "set_alpha_to_one": true, "clip_sample": false,
                "timestep_scaling": 10.0,
            })),
        ),
        ("tokenizer/vocab.json", pretty(vocabulary())),
        ("tokenizer/merges.txt", merges),
        (
            "tokenizer/tokenizer_config.json",
            pretty(json!({
                "tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
            })),
        ),
    ]
}

/// Bytes, bytes at the end of a word, merges, padding, and the two special tokens, as CLIP orders them.
fn vocabulary() -> Value {
    // Printable bytes stand for themselves, the others for code points from 256 on (GPT-2's byte_to_unicode).
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 255;
    let bytes: Vec<String> = (0..256u32)
        .map(|byte| {
            let code = if printable(&byte) {
                byte
            } else {
                next += 1;
                next
            };
            char::from_u32(code).expect("code points below 512 are characters").to_string()
        })
        .collect();
    let mut tokens = bytes.clone();
    tokens.extend(bytes.iter().map(|byte| format!("{byte}</w>")));
    tokens.extend(MERGES.iter().map(|merge| merge.replace(' ', "")));
    let padding = VOCABULARY - 2 - tokens.len();
    tokens.extend((0..padding).map(|index| format!("<|pad{index}|>")));
    tokens.extend(["<|startoftext|>".to_owned(), "<|endoftext|>".to_owned()]);
    Value::Object(tokens.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect())
}
