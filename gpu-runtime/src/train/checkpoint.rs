//! Where a training stands between two steps, as a file: whoever goes on from it comes to the same adapters.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::adapter::Pair;
use super::file::file_of;
use crate::RuntimeError;

/// Kept as the file's `format`; another number is another layout.
const FORMAT: &str = "headroom-training-1";

/// Names of the tensors beside those of the layers.
const LOSSES: &str = "losses";
const LOSS_BEFORE: &str = "loss_before";

/// What of a layer is kept: its values, the means of their gradients and of the gradients' squares.
const KINDS: [&str; 3] = ["value", "mean", "square"];

/// A training between two steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What is trained and how, by name: whatever makes two trainings differ.
    pub(super) of: BTreeMap<String, String>,
    /// Loss of every step that was done.
    pub(super) losses: Vec<f64>,
    /// Loss over fixed timesteps and noise before the first.
    pub(super) loss_before: f64,
    /// Of each layer, by name, what [`KINDS`] says.
    pub(super) layers: BTreeMap<String, [Pair; 3]>,
}

impl Checkpoint {
    /// Steps that were done.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.losses.len() as u32
    }

    /// Refuses to go on with another training.
    pub(super) fn check(&self, wanted: &BTreeMap<String, String>) -> Result<(), RuntimeError> {
        let absent = "nothing".to_owned();
        let names = wanted.keys().chain(self.of.keys());
        for name in names {
            let [there, here] = [&self.of, wanted].map(|of| of.get(name).unwrap_or(&absent));
            if there != here {
                let why = format!(
                    "the checkpoint is of another training: {name} is {there} there and {here} here; remove it, or name \
                     another file"
                );
                return Err(RuntimeError::BadRequest { why });
            }
        }
        Ok(())
    }

    /// The layer's values, means and squares.
    pub(super) fn layer(&self, name: &str, like: &Pair) -> Result<&[Pair; 3], RuntimeError> {
        let fits = |pair: &Pair| pair.down.len() == like.down.len() && pair.up.len() == like.up.len();
        self.layers.get(name).filter(|pairs| pairs.iter().all(fits)).ok_or_else(|| RuntimeError::BadRequest {
            why: format!("the checkpoint has no layer `{name}` of the model's extents"),
        })
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] when it would be too large for its format.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, RuntimeError> {
        let mut tensors = vec![
            (LOSSES.to_owned(), Dtype::F64, vec![self.losses.len()], doubles(&self.losses)),
            (LOSS_BEFORE.to_owned(), Dtype::F64, vec![1], doubles(&[self.loss_before])),
        ];
        for (layer, pairs) in &self.layers {
            for (kind, Pair { down, up }) in KINDS.iter().zip(pairs) {
                for (side, values) in [("down", down), ("up", up)] {
                    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    tensors.push((format!("{layer}.{side}.{kind}"), Dtype::F32, vec![values.len()], bytes));
                }
            }
        }
        let mut metadata: HashMap<_, _> = self.of.clone().into_iter().collect();
        metadata.insert("format".to_owned(), FORMAT.to_owned());
        file_of(&tensors, metadata, "the checkpoint")
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] naming the file when it cannot be read or is no checkpoint.
    pub fn read_file(path: &Path) -> Result<Self, RuntimeError> {
        let bad =
            |why: String| RuntimeError::BadRequest { why: format!("checkpoint `{}`: {why}", path.display()) };
        let bytes = std::fs::read(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
        Self::from_safetensors(&bytes).map_err(|why| bad(format!("{why}; remove it, or name another file")))
    }

    fn from_safetensors(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |error: safetensors::SafeTensorError| format!("is damaged or no checkpoint: {error}");
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let mut of: BTreeMap<_, _> = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
        match of.remove("format") {
            Some(format) if format == FORMAT => {}
            Some(other) => return Err(format!("has format {other}, not {FORMAT}")),
            None => return Err("is no checkpoint of a training".to_owned()),
        }
        let (mut losses, mut loss_before) = (None, None);
        let mut layers: BTreeMap<String, [Pair; 3]> = BTreeMap::new();
        for (name, view) in tensors.iter() {
            match (name, view.dtype()) {
                (LOSSES, Dtype::F64) => losses = Some(numbers(view.data(), f64::from_le_bytes)),
                (LOSS_BEFORE, Dtype::F64) => {
                    loss_before = numbers(view.data(), f64::from_le_bytes).first().copied();
                }
                (_, Dtype::F32) => {
                    let values = numbers(view.data(), f32::from_le_bytes);
                    let (layer, side, kind) = place(name).ok_or_else(|| format!("has a tensor `{name}`"))?;
                    let empty = || Pair { down: Vec::new(), up: Vec::new() };
                    let pairs = layers.entry(layer.to_owned()).or_insert_with(|| [(); 3].map(|()| empty()));
                    let pair = &mut pairs[kind];
                    *(if side == "down" { &mut pair.down } else { &mut pair.up }) = values;
                }
                (_, dtype) => return Err(format!("has a tensor `{name}` of {dtype:?}")),
            }
        }
        let missing = |name: &str| format!("has no tensor `{name}`");
        Ok(Self {
            of,
            losses: losses.ok_or_else(|| missing(LOSSES))?,
            loss_before: loss_before.ok_or_else(|| missing(LOSS_BEFORE))?,
            layers,
        })
    }
}

/// Layer, side and index in [`KINDS`] of a tensor's name.
fn place(name: &str) -> Option<(&str, &str, usize)> {
    let (rest, kind) = name.rsplit_once('.')?;
    let (layer, side) = rest.rsplit_once('.')?;
    let kind = KINDS.iter().position(|known| *known == kind)?;
    ["down", "up"].contains(&side).then_some((layer, side, kind))
}

fn doubles(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn numbers<T, const N: usize>(bytes: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|chunk| of(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::adapter::{Adapters, Layer};

    fn example() -> Checkpoint {
        let pair = |first: f32| Pair { down: vec![first, 0.5, -0.0], up: vec![first, 1e-38] };
        let of = [("steps", "9"), ("prompt", "a \"cat\"\n")];
        Checkpoint {
            of: of.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            losses: vec![0.25, f64::MIN_POSITIVE],
            loss_before: 0.1,
            layers: [("unet/a.to_q".to_owned(), [pair(1.0), pair(2.0), pair(3.0)])].into(),
        }
    }

    #[test]
    fn a_file_brings_back_the_same() {
        let bytes = example().to_safetensors().unwrap();
        assert_eq!(Checkpoint::from_safetensors(&bytes), Ok(example()));
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let bytes = example().to_safetensors().unwrap();
        for end in 0..bytes.len() {
            assert!(Checkpoint::from_safetensors(&bytes[..end]).is_err(), "cut after {end} bytes");
        }
        let pair = Pair { down: vec![1.0], up: vec![1.0] };
        let layer = Layer { name: "unet/to_q".to_owned(), rows: 1, columns: 1, pair };
        let foreign = Adapters { rank: 1, alpha: 1.0, layers: vec![layer] }.to_safetensors().unwrap();
        assert_eq!(
            Checkpoint::from_safetensors(&foreign).unwrap_err(),
            "has format pt, not headroom-training-1"
        );
    }

    #[test]
    fn another_training_is_refused_by_what_differs() {
        let checkpoint = example();
        let mut wanted = checkpoint.of.clone();
        assert!(checkpoint.check(&wanted).is_ok());
        wanted.insert("steps".to_owned(), "10".to_owned());
        let said = checkpoint.check(&wanted).unwrap_err().to_string();
        assert!(said.contains("steps is 9 there and 10 here"), "{said}");
        wanted.remove("steps");
        let said = checkpoint.check(&wanted).unwrap_err().to_string();
        assert!(said.contains("steps is 9 there and nothing here"), "{said}");
    }
}
