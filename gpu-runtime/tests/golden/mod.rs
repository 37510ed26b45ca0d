//! Recorded outputs of the tiny models (`fixtures/make_fixtures.py`), turned to channels last.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its part, and a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// One recorded tensor.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Recorded {
    /// `[n, c, h, w]` to `[n, h, w, c]`; `[1, c, f, h, w]` to `[f, h, w, c]`; others as they are.
    pub(crate) fn channels_last(&self) -> Vec<f32> {
        match self.dims[..] {
            [n, c, h, w] => turn(&self.values, [n, c, h * w], [0, 2, 1]),
            [1, c, f, h, w] => turn(&self.values, [c, f, h * w], [1, 2, 0]),
            _ => self.values.clone(),
        }
    }

    /// `[positions, frames, c]` to `[frames, positions, c]`.
    pub(crate) fn frames_first(&self) -> Vec<f32> {
        let [positions, frames, c] = self.dims[..] else { panic!("{:?}", self.dims) };
        turn(&self.values, [positions, frames, c], [1, 0, 2])
    }
}

fn turn(values: &[f32], dims: [usize; 3], axes: [usize; 3]) -> Vec<f32> {
    let strides = [dims[1] * dims[2], dims[2], 1];
    let mut out = Vec::with_capacity(values.len());
    for i in 0..dims[axes[0]] {
        for j in 0..dims[axes[1]] {
            for k in 0..dims[axes[2]] {
                out.push(values[i * strides[axes[0]] + j * strides[axes[1]] + k * strides[axes[2]]]);
            }
        }
    }
    out
}

pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub(crate) fn recorded(name: &str) -> BTreeMap<String, Recorded> {
    recorded_file(&fixtures().join("golden").join(format!("{name}.safetensors")))
}

pub(crate) fn recorded_file(path: &Path) -> BTreeMap<String, Recorded> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let values = match view.dtype() {
                Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                Dtype::I64 => {
                    view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect()
                }
                Dtype::F64 => {
                    view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
                }
                Dtype::U8 => view.data().iter().map(|b| f32::from(*b)).collect(),
                other => panic!("{other:?}"),
            };
            (name, Recorded { dims: view.shape().to_vec(), values })
        })
        .collect()
}

/// ‖got - expected‖ / ‖expected‖.
pub(crate) fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = square(&mut got.iter().zip(expected).map(|(g, e)| f64::from(*g) - f64::from(*e)));
    difference / square(&mut expected.iter().map(|e| f64::from(*e)))
}
