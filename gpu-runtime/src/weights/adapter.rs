//! Low-rank adapters (LoRA): weight + strength · alpha / rank · up · down, by diffusers' or kohya's names.

use std::collections::BTreeMap;

use super::component::Component;
use super::file::{MappedFile, Stored};
use super::read;
use crate::RuntimeError;

/// Largest rank that is read; published adapters have 4 to 256.
const RANK_MAX: usize = 1024;

/// Ends of the names of the matrix that lowers the rank and of the one that raises it.
const ENDS: [(&str, &str); 5] = [
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
];

/// Components that an adapter file may name, with the prefixes by which it does.
const PREFIXES: [(&str, &str); 5] = [
    ("lora_unet_", "unet"),
    ("lora_te_text_model_", "text_encoder"),
    ("unet.", "unet"),
    ("text_encoder.text_model.", "text_encoder"),
    ("text_encoder.", "text_encoder"),
];

/// One product to be added to a weight.
#[derive(Debug)]
pub(super) struct LowRank {
    /// `[rank, columns]`.
    down: Vec<f32>,
    /// `[rows, rank]`, already times strength · alpha / rank.
    up: Vec<f32>,
    rank: usize,
}

impl LowRank {
    /// Adds the product to a weight of `rows × columns` elements.
    pub(super) fn add_to(&self, weight: &mut [f32]) {
        let columns = self.down.len() / self.rank;
        for (row, up) in weight.chunks_exact_mut(columns).zip(self.up.chunks_exact(self.rank)) {
            for (&factor, down) in up.iter().zip(self.down.chunks_exact(columns)) {
                for (value, &term) in row.iter_mut().zip(down) {
                    *value += factor * term;
                }
            }
        }
    }
}

/// Reads an adapter file; names of the result are those of the weights in `index`.
pub(super) fn read(
    file: &MappedFile,
    strength: f32,
    index: &BTreeMap<String, (usize, Stored)>,
) -> Result<Vec<(String, LowRank)>, RuntimeError> {
    let tensors: BTreeMap<String, Stored> = file.tensors()?.into_iter().collect();
    // kohya writes `_` for `.`, which cannot be undone without knowing the model's names.
    let flat: BTreeMap<String, &String> = index
        .keys()
        .filter_map(|full| Some((full.strip_suffix(".weight")?.replace(['.', '/'], "_"), full)))
        .collect();
    let mut found = Vec::new();
    let mut used = 0;
    for (name, down) in &tensors {
        let Some((stem, up_end)) =
            ENDS.iter().find_map(|(down_end, up_end)| Some((name.strip_suffix(down_end)?, up_end)))
        else {
            continue;
        };
        let target = target(stem, &flat).ok_or_else(|| {
            file.bad(format!(
                "`{stem}` changes a weight that this model does not have; use an adapter made for it"
            ))
        })?;
        let up_name = format!("{stem}{up_end}");
        let up = tensors.get(&up_name).ok_or_else(|| file.bad(format!("tensor `{up_name}` is missing")))?;
        let alpha = tensors.get(&format!("{stem}.alpha"));
        used += 2 + usize::from(alpha.is_some());
        let shape = &index[target].1.shape;
        found.push((target.clone(), low_rank(file, stem, [down, up], alpha, strength, shape)?));
    }
    if found.is_empty() || used != tensors.len() {
        return Err(file.bad(format!(
            "{} of its {} tensors belong to no low-rank product that is known (lora_down/lora_up, lora_A/lora_B); \
             convert it to diffusers' names",
            tensors.len() - used,
            tensors.len()
        )));
    }
    Ok(found)
}

/// The weight that an adapter's stem changes.
fn target<'a>(stem: &str, flat: &BTreeMap<String, &'a String>) -> Option<&'a String> {
    let (rest, component) = PREFIXES
        .iter()
        .find_map(|(prefix, component)| Some((stem.strip_prefix(prefix)?, *component)))
        .unwrap_or((stem, "unet"));
    let rest = rest.replace(".processor.", ".").replace('.', "_");
    let wanted = format!("{component}_{rest}");
    // Attention's output is `to_out.0` in the model and `to_out` in old adapters. Motion modules are a part of the network
    // in adapters, and a component of their own here.
    let motion = format!("{}_{rest}", Component::MotionAdapter.name());
    [wanted, motion]
        .iter()
        .find_map(|wanted| flat.get(wanted).or_else(|| flat.get(&format!("{wanted}_0"))).copied())
}

fn low_rank(
    file: &MappedFile,
    stem: &str,
    [down, up]: [&Stored; 2],
    alpha: Option<&Stored>,
    strength: f32,
    weight: &[usize],
) -> Result<LowRank, RuntimeError> {
    let values = |stored: &Stored| {
        let kind = stored
            .kind
            .ok_or_else(|| file.bad(format!("`{stem}` is stored as {}; convert it to F32", stored.dtype)))?;
        let mut values = Vec::new();
        read::extend_f32(&mut values, file.bytes(stored), kind);
        Ok::<_, RuntimeError>(values)
    };
    let rank = down.shape.first().copied().unwrap_or(0);
    let columns: usize = weight[1..].iter().product();
    let rows_fit = up.shape.len() >= 2
        && up.shape[..2] == [weight.first().copied().unwrap_or(0), rank]
        && up.shape[2..].iter().all(|&extent| extent == 1);
    let columns_fit = down.shape.len() >= 2 && down.shape[1..].iter().product::<usize>() == columns;
    if rank == 0 || rank > RANK_MAX || columns == 0 || !rows_fit || !columns_fit {
        return Err(file.bad(format!(
            "`{stem}`: down {:?} and up {:?} do not make a weight of {weight:?} (rank 1 to {RANK_MAX}); use an \
             adapter made for this model",
            down.shape, up.shape
        )));
    }
    let alpha = match alpha {
        None => rank as f32,
        Some(stored) => match values(stored)?[..] {
            [alpha] => alpha,
            _ => return Err(file.bad(format!("`{stem}.alpha` is not one number"))),
        },
    };
    let factor = strength * alpha / rank as f32;
    if !factor.is_finite() {
        return Err(file.bad(format!("`{stem}`: alpha {alpha} is not a finite number")));
    }
    let up = values(up)?.into_iter().map(|value| value * factor).collect();
    Ok(LowRank { down: values(down)?, up, rank })
}
