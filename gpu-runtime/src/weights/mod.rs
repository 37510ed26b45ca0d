//! Weights of a model folder: safetensors files, mapped and checked, never trusted.
//!
//! Nothing is read before the plan asks for it, and nothing is allocated by a number that a file states: sizes come
//! from the plan, and a stored tensor must match them.

mod adapter;
mod component;
mod file;
mod frame_embedding;
mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use half::bf16;
use sha2::{Digest, Sha256};

use crate::RuntimeError;
use crate::graph::{Graph, Mixing, PartSource, WeightLayout, WeightPart, WeightUse};

use adapter::LowRank;
pub use component::Component;
use file::{Kind, MappedFile, Stored};
pub use read::krsc;

/// All stored tensors of a model, by `component/name`.
#[derive(Debug)]
pub struct Weights {
    identity: u64,
    files: Vec<MappedFile>,
    index: BTreeMap<String, (usize, Stored)>,
    adapters: BTreeMap<String, Vec<LowRank>>,
    folders: BTreeMap<String, PathBuf>,
    /// Files of fused adapters, with their strengths.
    fused: Vec<(MappedFile, f32)>,
}

impl Weights {
    /// No weights yet.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            identity: NEXT.fetch_add(1, Ordering::Relaxed),
            files: Vec::new(),
            index: BTreeMap::new(),
            adapters: BTreeMap::new(),
            folders: BTreeMap::new(),
            fused: Vec::new(),
        }
    }

    /// A number that no other weights of this process have: backends share what is named alike only within it.
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Maps the files of one component folder (`unet`, `vae`, …) and lists their tensors.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] when no weights are found, or a file or its header is damaged.
    pub fn add(&mut self, component: Component, folder: &Path) -> Result<(), RuntimeError> {
        for path in component::files(component, folder)? {
            let file = MappedFile::open(&path)?;
            for (name, stored) in file.tensors()? {
                let full = format!("{}/{}", component.name(), component.canonical(&name));
                self.index.insert(full, (self.files.len(), stored));
            }
            self.files.push(file);
        }
        self.folders.insert(component.name().to_owned(), folder.to_owned());
        Ok(())
    }

    /// Adds a low-rank adapter to every matrix that the file names: weight + strength · alpha / rank · up · down.
    ///
    /// Diffusers' and kohya's names are known. The products are formed when a weight is read, so that the folder's
    /// files stay as they are and nothing large is kept.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] when the file is damaged, or names a weight that the model does not have.
    pub fn fuse_adapter(&mut self, path: &Path, strength: f32) -> Result<(), RuntimeError> {
        let file = MappedFile::open(path)?;
        for (name, low_rank) in adapter::read(&file, strength, &self.index)? {
            self.adapters.entry(name).or_default().push(low_rank);
        }
        self.fused.push((file, strength));
        Ok(())
    }

    /// What tells these weights from those of another model, whatever their folder: lengths of the files and pages all over
    /// them, and the same of fused adapters.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.files.iter().for_each(|file| hash.update(file.fingerprint()));
        for (file, strength) in &self.fused {
            hash.update(file.fingerprint());
            hash.update(strength.to_le_bytes());
        }
        hash.finalize().into()
    }

    /// Whether every weight of a plan is there with the right shape and a known type.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] for the first that is not.
    pub fn check(&self, graph: &Graph) -> Result<(), RuntimeError> {
        graph.weights.iter().try_for_each(|wanted| self.parts(wanted).map(|_| ()))
    }

    /// A weight in f32, axes in the stored order, parts joined, adapters fused.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] when a part is missing or does not fit.
    pub fn f32(&self, wanted: &WeightUse) -> Result<Vec<f32>, RuntimeError> {
        let mut values = Vec::new();
        for part in self.parts(wanted)? {
            part.extend_f32(&mut values);
        }
        Ok(values)
    }

    /// The same, rounded to bf16 (nearest, ties to even).
    ///
    /// # Errors
    /// As [`Weights::f32`].
    pub fn bf16(&self, wanted: &WeightUse) -> Result<Vec<bf16>, RuntimeError> {
        let mut values = Vec::new();
        for part in self.parts(wanted)? {
            match part {
                Part::Stored { bytes, kind, adapters: [], share: None } => {
                    read::extend_bf16(&mut values, bytes, kind);
                }
                changed => {
                    let mut exact = Vec::new();
                    changed.extend_f32(&mut exact);
                    values.extend(exact.into_iter().map(bf16::from_f32));
                }
            }
        }
        Ok(values)
    }

    /// A learned share: the sigmoid of one stored number, or one minus it.
    ///
    /// # Errors
    /// [`RuntimeError::BadModel`] when the number is missing or is not one.
    pub fn share(&self, mixing: &Mixing) -> Result<f32, RuntimeError> {
        let one = WeightUse {
            name: mixing.factor.clone(),
            parts: vec![WeightPart { name: mixing.factor.clone(), rows: 1, source: PartSource::Stored }],
            dims: vec![1],
            layout: WeightLayout::Vector,
            turned: false,
        };
        let factor = f64::from(self.f32(&one)?[0]);
        let share = 1.0 / (1.0 + libm::exp(if mixing.complement { factor } else { -factor }));
        Ok(share as f32)
    }

    /// The parts of a weight, each checked against the plan.
    fn parts(&self, wanted: &WeightUse) -> Result<Vec<Part<'_>>, RuntimeError> {
        wanted.parts.iter().map(|part| self.part(wanted, part)).collect()
    }

    fn part(&self, wanted: &WeightUse, part: &WeightPart) -> Result<Part<'_>, RuntimeError> {
        let share = match &part.source {
            PartSource::Stored => None,
            PartSource::Mixed(mixing) => Some(self.share(mixing)?),
            PartSource::FrameEmbedding { hidden } => {
                return frame_embedding::table(self, &part.name, wanted.dims[1], *hidden, part.rows)
                    .map(Part::Made);
            }
        };
        let Some((file, stored)) = self.index.get(&part.name) else {
            return Err(self.missing(&part.name));
        };
        let file = &self.files[*file];
        let mut expected = vec![part.rows as usize];
        expected.extend(wanted.dims[1..].iter().map(|&extent| extent as usize));
        if !fits(&stored.shape, &expected, wanted.layout) {
            return Err(file.bad(format!(
                "tensor `{}` has shape {:?}, but config.json makes it {expected:?}; both must be of one model",
                part.name, stored.shape
            )));
        }
        let Some(kind) = stored.kind else {
            return Err(file.bad(format!(
                "tensor `{}` is stored as {}; convert it to BF16, F16 or F32",
                part.name, stored.dtype
            )));
        };
        let adapters = self.adapters.get(&part.name).map_or(&[][..], Vec::as_slice);
        Ok(Part::Stored { bytes: file.bytes(stored), kind, adapters, share })
    }

    fn missing(&self, name: &str) -> RuntimeError {
        let component = name.split('/').next().unwrap_or(name);
        let path = self.folders.get(component).cloned().unwrap_or_else(|| PathBuf::from(component));
        let why = format!(
            "tensor `{name}` is missing although config.json asks for it; fetch the folder again, or the config.json \
             that belongs to these weights"
        );
        RuntimeError::BadModel { path, why }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self::new()
    }
}

/// One part of a weight that fits the plan.
enum Part<'a> {
    /// A stored tensor, with adapters to add and a share to multiply by.
    Stored { bytes: &'a [u8], kind: Kind, adapters: &'a [LowRank], share: Option<f32> },
    /// Values made of several.
    Made(Vec<f32>),
}

impl Part<'_> {
    fn extend_f32(self, values: &mut Vec<f32>) {
        match self {
            Part::Made(made) => values.extend(made),
            Part::Stored { bytes, kind, adapters, share } => {
                let from = values.len();
                read::extend_f32(values, bytes, kind);
                let values = &mut values[from..];
                adapters.iter().for_each(|low_rank| low_rank.add_to(values));
                if let Some(share) = share {
                    values.iter_mut().for_each(|value| *value *= share);
                }
            }
        }
    }
}

/// Whether a stored shape holds what a plan expects. Axes of a matrix after the first count as one; axes of extent one at
/// the end (convolutions across frames) or the beginning (tables with a batch axis) do not matter.
fn fits(stored: &[usize], expected: &[usize], layout: WeightLayout) -> bool {
    match layout {
        WeightLayout::Matrix => {
            let columns =
                |shape: &[usize]| shape[1..].iter().try_fold(1usize, |n, &axis| n.checked_mul(axis));
            stored.first() == expected.first() && columns(stored) == columns(expected)
        }
        WeightLayout::Convolution => {
            let trimmed = |shape: &[usize]| {
                let end = shape.iter().rposition(|&extent| extent != 1).map_or(0, |last| last + 1);
                shape[..end.max(shape.len().min(2))].to_vec()
            };
            trimmed(stored) == trimmed(expected)
        }
        WeightLayout::Table => stored == expected || stored.strip_prefix(&[1]) == Some(expected),
        WeightLayout::Vector => stored == expected,
    }
}
