//! Adapters as a safetensors file in diffusers' layout, which `weights` fuses again.

use std::collections::HashMap;

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use super::adapter::{Adapters, Layer};
use crate::RuntimeError;

impl Adapters {
    /// The bytes of a file: `unet.MODULE.lora_A.weight` is down, `unet.MODULE.lora_B.weight` is up times alpha / rank, so
    /// that every reader has the same product whether it knows an alpha or not. Motion modules have the names that they
    /// have in diffusers' `UNetMotionModel`.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] when the file would be too large for its format.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, RuntimeError> {
        let scale = self.scale();
        let tensors: Vec<_> = self.layers.iter().flat_map(|layer| stored(layer, self.rank, scale)).collect();
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        file_of(&tensors, metadata, &format!("adapters of rank {}", self.rank))
    }
}

/// A tensor's name, type, extents and bytes.
pub(super) type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// The bytes of a safetensors file; `what` it is, for the error.
pub(super) fn file_of(
    tensors: &[Stored],
    metadata: HashMap<String, String>,
    what: &str,
) -> Result<Vec<u8>, RuntimeError> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.expect("bytes are made for the shape"))
    });
    serialize(views, Some(metadata)).map_err(|error| RuntimeError::BadRequest {
        why: format!("{what} cannot be written: {error}; lower the rank"),
    })
}

fn stored(layer: &Layer, rank: usize, scale: f32) -> [Stored; 2] {
    let module = layer.name.split_once('/').map_or(layer.name.as_str(), |(_, module)| module);
    let bytes = |values: &[f32], factor: f32| -> Vec<u8> {
        values.iter().flat_map(|value| (value * factor).to_le_bytes()).collect()
    };
    let (down, up) = (bytes(&layer.pair.down, 1.0), bytes(&layer.pair.up, scale));
    [
        (format!("unet.{module}.lora_A.weight"), Dtype::F32, vec![rank, layer.columns], down),
        (format!("unet.{module}.lora_B.weight"), Dtype::F32, vec![layer.rows, rank], up),
    ]
}
