//! Model folders as they come: other names, other types, shards, damage. Each kind of damage has its message.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod folder;

use std::fs;

use folder::{Folder, join};
use gpu_runtime::RuntimeError;
use gpu_runtime::graph::{Graph, WeightUse};
use gpu_runtime::model::{Model, ModelSource, program};
use serde_json::{Map, Value, json};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const MOTION: &str = "motion_adapter/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT: &str = "text_encoder/model.safetensors";

fn open(folder: &Folder) -> Result<Model, RuntimeError> {
    Model::open(&ModelSource::folder(folder.path()))
}

/// The folder with one edit is refused with a message that names the file and says each of `said`.
fn refused(edit: impl FnOnce(&Folder), file: &str, said: &[&str]) {
    let folder = Folder::new();
    edit(&folder);
    let error = open(&folder).unwrap_err();
    let RuntimeError::BadModel { path, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*path, folder.file(file), "{error}");
    for said in said {
        assert!(error.to_string().contains(said), "`{error}` does not say `{said}`");
    }
}

fn tensor<'a>(header: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    header[name].as_object_mut().unwrap()
}

#[test]
fn damaged_weights_are_refused_by_name() {
    let rename = |file: &'static str, from: &'static str| {
        move |folder: &Folder| {
            folder.edit_header(file, |header| {
                let value = header.remove(from).unwrap();
                header.insert("renamed".to_owned(), value);
            });
        }
    };
    refused(rename(UNET, "conv_in.weight"), "unet", &["`unet/conv_in.weight` is missing", "fetch"]);
    let pe = "mid_block.motion_modules.0.transformer_blocks.0.pos_embed.pe";
    refused(rename(MOTION, pe), "motion_adapter", &[pe, "is missing"]);
    let shape = |folder: &Folder| {
        folder.edit_header(UNET, |header| {
            tensor(header, "conv_in.weight").insert("shape".to_owned(), json!([4, 16, 3, 3]));
        });
    };
    refused(shape, UNET, &["`unet/conv_in.weight`", "[4, 16, 3, 3]", "[16, 4, 3, 3]"]);
    let dtype = |folder: &Folder| {
        folder.edit_header(VAE, |header| {
            tensor(header, "decoder.conv_in.bias").insert("dtype".to_owned(), json!("I16"));
        });
    };
    refused(dtype, VAE, &["`vae/decoder.conv_in.bias`", "I16", "convert it to BF16, F16 or F32"]);
}

#[test]
fn damaged_files_are_refused() {
    let cut = |bytes: usize| {
        move |folder: &Folder| {
            let whole = fs::read(folder.file(TEXT)).unwrap();
            fs::write(folder.file(TEXT), &whole[..whole.len().min(bytes)]).unwrap();
        }
    };
    refused(cut(70_000), TEXT, &["bytes of tensors", "follow", "fetch it again"]);
    refused(cut(100), TEXT, &["ends within its header"]);
    refused(cut(5), TEXT, &["has 5 bytes and no header"]);
    refused(cut(0), TEXT, &["no header"]);
    let prefix = |length: u64| {
        move |folder: &Folder| {
            let mut bytes = fs::read(folder.file(TEXT)).unwrap();
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            fs::write(folder.file(TEXT), bytes).unwrap();
        }
    };
    refused(prefix(u64::MAX), TEXT, &["says that its header has 18446744073709551615 bytes"]);
    refused(prefix(1 << 30), TEXT, &["1073741824 bytes"]);
    refused(prefix(1 << 24), TEXT, &["ends within its header"]);
    refused(prefix(10), TEXT, &["header is damaged"]);
    let entry = |key: &'static str, value: Value| {
        move |folder: &Folder| {
            folder.edit_header(TEXT, |header| {
                tensor(header, "final_layer_norm.bias").insert(key.to_owned(), value);
            });
        }
    };
    refused(entry("shape", json!([u64::MAX, u64::MAX])), TEXT, &["header is damaged"]);
    refused(entry("data_offsets", json!([0, u64::MAX])), TEXT, &["header is damaged"]);
    refused(entry("data_offsets", json!([-1, 4])), TEXT, &["header is damaged"]);
    refused(entry("dtype", json!("F128")), TEXT, &["header is damaged"]);
}

#[test]
fn a_folder_without_weights_says_which_file_it_wants() {
    let remove = |folder: &Folder| {
        fs::rename(folder.file(UNET), folder.file("unet/diffusion_pytorch_model.bin")).unwrap();
    };
    refused(remove, "unet", &["diffusion_pytorch_model.safetensors", "convert"]);
    let config = |folder: &Folder| fs::remove_file(folder.file("vae/config.json")).unwrap();
    refused(config, "vae/config.json", &["cannot be read"]);
    let folder = Folder::new();
    let error = Model::open(&ModelSource::folder(&folder.file("nowhere"))).unwrap_err();
    assert!(error.to_string().contains("is no folder"), "{error}");
}

#[test]
fn configurations_are_strict() {
    let unet = "unet/config.json";
    let (motion, vae, text) = ("motion_adapter/config.json", "vae/config.json", "text_encoder/config.json");
    for (file, key, value, said) in [
        (unet, "brand_new", json!(1), "`brand_new` = 1 is not known"),
        (unet, "_class_name", json!("UNet3DConditionModel"), "\"UNet2DConditionModel\", the only value"),
        (unet, "act_fn", json!("gelu"), "`act_fn` is \"gelu\", not \"silu\""),
        (unet, "class_embed_type", json!("timestep"), "`class_embed_type` is \"timestep\""),
        (unet, "in_channels", json!(9), "`in_channels` 9 and `out_channels` 4 differ"),
        (unet, "block_out_channels", json!([]), "a list of 1 to 8 numbers"),
        (unet, "block_out_channels", json!([16]), "names 2 levels"),
        (unet, "block_out_channels", json!([16, 1u64 << 40]), "a whole number from 1 to 8192"),
        (unet, "block_out_channels", json!([16, 42]), "not a multiple of 4 groups"),
        (unet, "norm_num_groups", json!(0), "`norm_num_groups` is 0"),
        (unet, "attention_head_dim", json!([3, 1]), "not a multiple of 3 heads"),
        (unet, "layers_per_block", json!(1 << 30), "`layers_per_block` is 1073741824"),
        (unet, "layers_per_block", json!([1, 1]), "`layers_per_block` is [1,1]"),
        (unet, "norm_eps", json!(-1), "a positive number"),
        (unet, "up_block_types", json!(["UpBlock2D", "AttnUpBlock2D"]), "AttnUpBlock2D"),
        (unet, "layers_per_block", json!(2), "is made for levels of [16, 40]"),
        (motion, "motion_num_attention_heads", json!(3), "not a multiple of 3 heads"),
        (motion, "conv_in_channels", json!(9), "`conv_in_channels` is 9"),
        (motion, "brand_new", json!(true), "`brand_new` = true is not known"),
        (vae, "latent_channels", json!(4.5), "`latent_channels` is 4.5"),
        (vae, "shift_factor", json!(0.1), "`shift_factor` is 0.1"),
        (vae, "down_block_types", json!(["DownEncoderBlock2D"]), "`down_block_types`"),
        (text, "hidden_act", json!("relu"), "`hidden_act` is relu"),
        (text, "num_attention_heads", json!(5), "not a multiple of `num_attention_heads` 5"),
        (text, "vocab_size", json!("many"), "`vocab_size` is \"many\""),
    ] {
        let at = if said.starts_with("is made for") { motion } else { file };
        let edit = |folder: &Folder| {
            folder.edit_json(file, |keys| {
                keys.insert(key.to_owned(), value);
            });
        };
        refused(edit, at, &[said]);
    }
    let wider = |folder: &Folder| {
        folder.edit_json(unet, |keys| {
            keys.insert("cross_attention_dim".to_owned(), json!(48));
        });
    };
    refused(wider, "", &["gives 32 channels and its UNet expects 48"]);
}

/// A weight of the step program.
fn weight(graph: &Graph, name: &str) -> WeightUse {
    graph.weights.iter().find(|weight| weight.name == name).unwrap().clone()
}

fn step(model: &Model) -> Graph {
    let size = model.latent_size(1, 16, 16).unwrap();
    program::step(&model.unet, model.motion.as_ref(), size, model.text.tokens)
}

#[test]
fn other_names_types_and_shards_hold_the_same_weights() {
    let plain = open(&Folder::new()).unwrap();
    let qkv = "unet/mid_block.attentions.0.transformer_blocks.0.attn1.to_qkv.weight";
    let expected = plain.weights.f32(&weight(&step(&plain), qkv)).unwrap();

    let variant = Folder::new();
    fs::rename(variant.file(UNET), variant.file("unet/diffusion_pytorch_model.fp16.safetensors")).unwrap();
    let shards = Folder::new();
    let (header, data) = shards.split(UNET);
    let mut halves = [Map::new(), Map::new()];
    let mut bytes = [Vec::new(), Vec::new()];
    let mut weight_map = Map::new();
    for (index, (name, entry)) in header.iter().filter(|(name, _)| *name != "__metadata__").enumerate() {
        let half = index % 2;
        let at = |n: usize| entry["data_offsets"][n].as_u64().unwrap() as usize;
        let from = bytes[half].len();
        bytes[half].extend(&data[at(0)..at(1)]);
        let mut entry = entry.clone();
        entry["data_offsets"] = json!([from, bytes[half].len()]);
        halves[half].insert(name.clone(), entry);
        weight_map.insert(name.clone(), json!(format!("part-{half}.safetensors")));
    }
    for half in 0..2 {
        fs::write(shards.file(&format!("unet/part-{half}.safetensors")), join(&halves[half], &bytes[half]))
            .unwrap();
    }
    fs::remove_file(shards.file(UNET)).unwrap();
    let index = shards.file(&format!("{UNET}.index.json"));
    fs::write(&index, serde_json::to_vec(&json!({ "weight_map": weight_map })).unwrap()).unwrap();

    let single = Folder::new();
    let (mut header, data) = single.split(UNET);
    for entry in header.values_mut().filter(|entry| entry.get("dtype").is_some()) {
        let offsets: Vec<_> = (0..2).map(|n| 2 * entry["data_offsets"][n].as_u64().unwrap()).collect();
        entry["dtype"] = json!("F32");
        entry["data_offsets"] = json!(offsets);
    }
    // A bf16 is the upper half of an f32.
    let wide: Vec<u8> = data.as_chunks::<2>().0.iter().flat_map(|[low, high]| [0, 0, *low, *high]).collect();
    fs::write(single.file(UNET), join(&header, &wide)).unwrap();

    for (what, folder) in [("fp16 name", variant), ("shards", shards), ("f32", single)] {
        let model = open(&folder).unwrap();
        assert_eq!(model.weights.f32(&weight(&step(&model), qkv)).unwrap(), expected, "{what}");
        let rounded = model.weights.bf16(&weight(&step(&model), qkv)).unwrap();
        assert!(rounded.iter().zip(&expected).all(|(got, expected)| got.to_f32() == *expected), "{what}");
    }
}

#[test]
fn shards_are_files_of_the_folder() {
    for (shard, said) in
        [("../part.safetensors", "is not a file of this folder"), ("gone.safetensors", "is missing")]
    {
        let edit = |folder: &Folder| {
            fs::remove_file(folder.file(UNET)).unwrap();
            let index = json!({ "weight_map": { "conv_in.weight": shard } });
            let path = folder.file(&format!("{UNET}.index.json"));
            fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
        };
        refused(edit, &format!("{UNET}.index.json"), &[shard, said]);
    }
}

#[test]
fn old_attention_names_of_the_vae_are_read() {
    let folder = Folder::new();
    folder.edit_header(VAE, |header| {
        for (new, old) in [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")] {
            for part in ["encoder", "decoder"] {
                for kind in ["weight", "bias"] {
                    let stem = format!("{part}.mid_block.attentions.0");
                    let value = header.remove(&format!("{stem}.{new}.{kind}")).unwrap();
                    header.insert(format!("{stem}.{old}.{kind}"), value);
                }
            }
        }
    });
    open(&folder).unwrap();
}

/// A safetensors file of f32 tensors.
fn adapter(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let from = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        header.insert(
            name.clone(),
            json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, data.len()] }),
        );
    }
    join(&header, &data)
}

#[test]
fn low_rank_adapters_are_fused_by_either_kind_of_name() {
    let folder = Folder::new();
    let path = folder.file("adapter.safetensors");
    let (rank, rows, columns) = (2, 40, 40);
    let value = |n: usize| ((n * 13 % 17) as f32 - 8.0) / 16.0;
    let down: Vec<f32> = (0..rank * columns).map(value).collect();
    let up: Vec<f32> = (0..rows * rank).map(|n| value(n + 3)).collect();
    let block = "mid_block.attentions.0.transformer_blocks.0.attn1";
    let flat = block.replace('.', "_");
    // kohya's own alpha of 1 at rank 2 halves the product; without one the factor is 1.
    let names = [
        ("kohya", format!("lora_unet_{flat}_to_k"), ".lora_down.weight", ".lora_up.weight", true),
        ("kohya output", format!("lora_unet_{flat}_to_out_0"), ".lora_down.weight", ".lora_up.weight", true),
        ("diffusers", format!("unet.{block}.to_k"), ".lora_A.weight", ".lora_B.weight", false),
        (
            "old diffusers",
            format!("unet.{block}.processor.to_k"),
            "_lora.down.weight",
            "_lora.up.weight",
            false,
        ),
        (
            "old output",
            format!("unet.{block}.processor.to_out"),
            "_lora.down.weight",
            "_lora.up.weight",
            false,
        ),
    ];
    for (what, stem, down_end, up_end, has_alpha) in names {
        let mut tensors = vec![
            (format!("{stem}{down_end}"), vec![rank, columns], down.clone()),
            (format!("{stem}{up_end}"), vec![rows, rank], up.clone()),
        ];
        if has_alpha {
            tensors.push((format!("{stem}.alpha"), vec![], vec![1.0]));
        }
        fs::write(&path, adapter(&tensors)).unwrap();
        let plain = open(&folder).unwrap();
        let fused = Model::open(&ModelSource { adapters: vec![(path.clone(), 0.8)], ..plain.source.clone() })
            .unwrap();
        let of_output = what.ends_with("output");
        let name = if of_output { "to_out.0" } else { "to_qkv" };
        let wanted = weight(&step(&plain), &format!("unet/{block}.{name}.weight"));
        let (before, after) = (plain.weights.f32(&wanted).unwrap(), fused.weights.f32(&wanted).unwrap());
        let factor = if has_alpha { 0.8 / 2.0 } else { 0.8 };
        // Keys are the middle third of the joined matrix.
        let from = if of_output { 0 } else { rows * columns };
        for (index, (before, after)) in before.iter().zip(&after).enumerate() {
            let expected = match index.checked_sub(from).filter(|at| *at < rows * columns) {
                Some(at) => {
                    let (row, column) = (at / columns, at % columns);
                    let product: f32 =
                        (0..rank).map(|r| up[row * rank + r] * down[r * columns + column]).sum();
                    before + factor * product
                }
                None => *before,
            };
            assert!((after - expected).abs() < 1e-6, "{what} {index}: {after} {expected}");
        }
        let rounded = fused.weights.bf16(&wanted).unwrap();
        assert!(
            rounded.iter().zip(&after).all(|(got, exact)| *got == half::bf16::from_f32(*exact)),
            "{what}"
        );
    }
}

#[test]
fn adapters_of_convolutions_are_fused_too() {
    let folder = Folder::new();
    let path = folder.file("adapter.safetensors");
    let value = |n: usize| ((n * 7 % 11) as f32 - 5.0) / 8.0;
    let down: Vec<f32> = (0..3 * 4 * 9).map(value).collect();
    let up: Vec<f32> = (0..16 * 3).map(value).collect();
    let tensors = [
        ("lora_unet_conv_in.lora_down.weight".to_owned(), vec![3, 4, 3, 3], down.clone()),
        ("lora_unet_conv_in.lora_up.weight".to_owned(), vec![16, 3, 1, 1], up.clone()),
    ];
    fs::write(&path, adapter(&tensors)).unwrap();
    let plain = open(&folder).unwrap();
    let fused = Model::open(&ModelSource { adapters: vec![(path, 1.0)], ..plain.source.clone() }).unwrap();
    let wanted = weight(&step(&plain), "unet/conv_in.weight");
    let (before, after) = (plain.weights.f32(&wanted).unwrap(), fused.weights.f32(&wanted).unwrap());
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        let product: f32 = (0..3).map(|r| up[index / 36 * 3 + r] * down[r * 36 + index % 36]).sum();
        assert!((after - before - product).abs() < 1e-6, "{index}");
    }
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_k";
    let pair = |stem: &str, down: Vec<usize>, up: Vec<usize>| {
        let zeros = |shape: &Vec<usize>| vec![0.0; shape.iter().product()];
        vec![
            (format!("{stem}.lora_down.weight"), down.clone(), zeros(&down)),
            (format!("{stem}.lora_up.weight"), up.clone(), zeros(&up)),
        ]
    };
    let mut alpha = pair(stem, vec![2, 40], vec![40, 2]);
    alpha.push((format!("{stem}.alpha"), vec![], vec![f32::NAN]));
    let mut stray = pair(stem, vec![2, 40], vec![40, 2]);
    stray.push(("something.else".to_owned(), vec![1], vec![0.0]));
    let mut half = pair(stem, vec![2, 40], vec![40, 2]);
    half.pop();
    for (tensors, said) in [
        (
            pair("lora_unet_nowhere_to_k", vec![2, 40], vec![40, 2]),
            "`lora_unet_nowhere_to_k` changes a weight",
        ),
        (pair(stem, vec![2, 39], vec![40, 2]), "do not make a weight of [40, 40]"),
        (pair(stem, vec![2, 40], vec![40, 3]), "do not make a weight of [40, 40]"),
        (pair(stem, vec![0, 40], vec![40, 0]), "do not make a weight of [40, 40]"),
        (alpha, "alpha NaN is not a finite number"),
        (stray, "1 of its 3 tensors belong to no low-rank product"),
        (half, ".lora_up.weight` is missing"),
        (Vec::new(), "0 of its 0 tensors"),
    ] {
        let folder = Folder::new();
        let path = folder.file("adapter.safetensors");
        fs::write(&path, adapter(&tensors)).unwrap();
        let source =
            ModelSource { adapters: vec![(path.clone(), 0.8)], ..ModelSource::folder(folder.path()) };
        let error = Model::open(&source).unwrap_err();
        assert!(matches!(&error, RuntimeError::BadModel { path: at, .. } if *at == path), "{error:?}");
        assert!(error.to_string().contains(said), "`{error}` does not say `{said}`");
    }
}
