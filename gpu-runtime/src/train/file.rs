//! Adapters as a safetensors file in diffusers' layout, which `weights` fuses again.

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
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (name, view.expect("bytes are made for the shape"))
        });
        let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
        serialize(views, metadata).map_err(|error| RuntimeError::BadRequest {
            why: format!("adapters of rank {} cannot be written: {error}; lower the rank", self.rank),
        })
    }
}

type Stored = (String, Vec<usize>, Vec<u8>);

fn stored(layer: &Layer, rank: usize, scale: f32) -> [Stored; 2] {
    let module = layer.name.split_once('/').map_or(layer.name.as_str(), |(_, module)| module);
    let bytes = |values: &[f32], factor: f32| -> Vec<u8> {
        values.iter().flat_map(|value| (value * factor).to_le_bytes()).collect()
    };
    [
        (format!("unet.{module}.lora_A.weight"), vec![rank, layer.columns], bytes(&layer.pair.down, 1.0)),
        (format!("unet.{module}.lora_B.weight"), vec![layer.rows, rank], bytes(&layer.pair.up, scale)),
    ]
}
