//! Every rule of the way back against differences of the way there, element by element, at small odd extents.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView, serialize};

use super::adapter::{Adapters, Layer, Pair, Scope, sites};
use super::attach::{Joint, attach};
use super::reverse::{Ends, UNITS, UNITS_NAME, reverse};
use crate::cpu::CpuBackend;
use crate::generate::Loaded;
use crate::graph::{
    ActivationFunction, AttentionPattern, Builder, Conv, Graph, GroupNormSpec, LinearSpec, Pad, Precision,
    Shape, TensorId, View, WeightLayout,
};
use crate::noise::Noise;
use crate::weights::{Component, Weights};

/// Step of the differences. Their error is of fourth order, so that rounding to f32 is the larger part.
const STEP: f32 = 0.04;

/// Largest deviation, relative to the largest gradient of the same tensor and at least 1.
const TOLERANCE: f64 = 3e-4;

fn normals(stream: &str, count: usize) -> Vec<f32> {
    Noise::new(5, stream).take(count)
}

/// Random weights for all that a graph names.
fn weights(graph: &Graph) -> (Weights, tempfile::TempDir) {
    let mut stored: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for wanted in &graph.weights {
        let scale = match wanted.layout {
            WeightLayout::Vector | WeightLayout::Table => 0.5,
            WeightLayout::Matrix | WeightLayout::Convolution => (wanted.row_elements() as f32).sqrt().recip(),
        };
        for part in &wanted.parts {
            let name = part.name.strip_prefix("unet/").unwrap().to_owned();
            let dims = [&[part.rows][..], &wanted.dims[1..]].concat();
            let dims: Vec<_> = dims.into_iter().map(|extent| extent as usize).collect();
            let values = normals(&name, dims.iter().product());
            let bytes = values.iter().flat_map(|value| (value * scale).to_le_bytes()).collect();
            stored.insert(name, (dims, bytes));
        }
    }
    let view = |(dims, bytes)| TensorView::new(Dtype::F32, dims, bytes).unwrap();
    let views = stored.iter().map(|(name, (dims, bytes))| (name, view((dims.clone(), bytes))));
    let folder = tempfile::tempdir().unwrap();
    let file = serialize(views, None).unwrap();
    std::fs::write(folder.path().join("diffusion_pytorch_model.safetensors"), file).unwrap();
    let mut weights = Weights::new();
    weights.add(Component::Unet, folder.path()).unwrap();
    (weights, folder)
}

/// A graph with the way back to all its inputs that are not scalars, and to its adapters.
struct Way {
    backend: CpuBackend,
    graph: Graph,
    loaded: Loaded,
    result: TensorId,
    of_result: TensorId,
    joints: Vec<Joint>,
    /// Gradients of the inputs, then of each joint's down and up.
    gradients: Vec<Option<TensorId>>,
}

impl Way {
    fn new(graph: Graph, inputs: &[TensorId], adapters: &mut Adapters) -> Self {
        let result = graph.outputs[0];
        let found = sites(&graph, Scope::SpatialAndMotion, 3, adapters);
        for layer in &mut adapters.layers {
            layer.pair.up = normals(&format!("up {}", layer.name), layer.pair.up.len());
        }
        let (graph, joints) = attach(graph, &found, adapters);
        let mut b = Builder::resume(graph);
        let of_result = b.input("of result", b.shape(result), Precision::Model);
        let matrices = joints.iter().flat_map(|joint| [joint.down, joint.up]);
        let leaves: Vec<_> = inputs.iter().copied().chain(matrices).collect();
        let turned = joints
            .iter()
            .flat_map(|joint| [(joint.down, joint.down_turned), (joint.up, joint.up_turned)])
            .collect();
        let (graph, gradients) = reverse(b, &Ends { result, of_result, leaves: &leaves, turned: &turned });
        let (weights, _folder) = weights(&graph);
        let mut backend = CpuBackend::new(2);
        let loaded = Loaded::new(&mut backend, &weights, graph.clone()).unwrap();
        if let Some(units) = graph.find(UNITS_NAME) {
            loaded.write_at(&mut backend, units, &UNITS).unwrap();
        }
        Self { backend, graph, loaded, result, of_result, joints, gradients }
    }

    fn elements(&self, tensor: TensorId) -> usize {
        self.graph.tensor(tensor).shape.elements() as usize
    }

    fn write(&mut self, tensor: TensorId, values: &[f32]) {
        self.loaded.write_at(&mut self.backend, tensor, values).unwrap();
    }

    fn run(&mut self, adapters: &Adapters) {
        for joint in &self.joints {
            joint.write(&mut self.backend, &self.loaded, adapters).unwrap();
        }
        self.loaded.run(&mut self.backend).unwrap();
    }

    fn read(&mut self, tensor: TensorId) -> Vec<f32> {
        self.loaded.read_at(&mut self.backend, tensor).unwrap()
    }

    /// Σ weight · result, a number whose gradient by the result is `weight`.
    fn number(&mut self, adapters: &Adapters, weight: &[f32]) -> f64 {
        self.run(adapters);
        let values = self.read(self.result);
        values.iter().zip(weight).map(|(value, weight)| f64::from(*value) * f64::from(*weight)).sum()
    }
}

/// (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h.
fn difference(mut f: impl FnMut(f32) -> f64) -> f64 {
    let near = f(STEP) - f(-STEP);
    let far = f(2.0 * STEP) - f(-2.0 * STEP);
    (8.0 * near - far) / (12.0 * f64::from(STEP))
}

fn compare(what: &str, got: &[f32], differences: &[f64]) {
    let largest = differences.iter().fold(1.0f64, |largest, value| largest.max(value.abs()));
    assert!(differences.iter().any(|value| value.abs() > 1e-3), "{what}: nothing depends on it");
    for (index, (got, expected)) in got.iter().zip(differences).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        assert!(error <= TOLERANCE * largest, "{what}[{index}]: {got} instead of {expected}");
    }
}

/// Gradients by every element of every input, and of every adapter.
fn check(what: &str, build: impl FnOnce(&mut Builder) -> TensorId) {
    let mut builder = Builder::new(what, "unet");
    let out = build(&mut builder);
    builder.output(out);
    let graph = builder.finish();
    // Scalars of a combination are data, not something that is differentiated by; what is added to a convolution's
    // channels has no rule.
    let is_data =
        |id: &TensorId| graph.tensor(*id).precision == Precision::Single || graph.tensor(*id).name == "rows";
    let (data, by): (Vec<_>, Vec<_>) = graph.inputs.iter().copied().partition(is_data);
    let mut adapters = Adapters { rank: 2, alpha: 3.0, layers: Vec::new() };
    let mut way = Way::new(graph, &by, &mut adapters);
    let mut fill = |id: TensorId| {
        let values = normals(&way.graph.tensor(id).name, way.elements(id));
        way.write(id, &values);
        values
    };
    data.into_iter().for_each(|id| drop(fill(id)));
    let mut inputs: Vec<_> = by.iter().map(|&id| fill(id)).collect();
    let weight = normals("weight", way.elements(way.result));
    way.write(way.of_result, &weight);
    way.run(&adapters);
    let gradients: Vec<_> = way.gradients.clone().into_iter().map(|id| way.read(id.unwrap())).collect();
    let (of_inputs, of_matrices) = gradients.split_at(by.len());
    let mut of_layers: Vec<_> = adapters.layers.iter().map(|layer| layer.pair.zeros()).collect();
    for (joint, [of_down, of_up]) in way.joints.iter().zip(of_matrices.as_chunks().0) {
        joint.add(of_down, of_up, &adapters, &mut of_layers);
    }

    for (input, &id) in by.iter().enumerate() {
        let differences: Vec<_> = (0..inputs[input].len())
            .map(|element| {
                let centre = inputs[input][element];
                let slope = difference(|step| {
                    inputs[input][element] = centre + step;
                    way.write(id, &inputs[input]);
                    way.number(&adapters, &weight)
                });
                inputs[input][element] = centre;
                way.write(id, &inputs[input]);
                slope
            })
            .collect();
        compare(&format!("{what} by {}", way.graph.tensor(id).name), &of_inputs[input], &differences);
    }
    let matrix = |adapters: &mut Adapters, layer: usize, up: bool, element: usize, value: Option<f32>| {
        let Pair { down, up: raised } = &mut adapters.layers[layer].pair;
        let place = if up { &mut raised[element] } else { &mut down[element] };
        std::mem::replace(place, value.unwrap_or(*place))
    };
    for (layer, gradient) in of_layers.iter().enumerate() {
        let Layer { name, pair, .. } = &adapters.layers[layer];
        let (name, lengths) = (name.clone(), [pair.down.len(), pair.up.len()]);
        for (up, length) in [false, true].into_iter().zip(lengths) {
            let differences: Vec<_> = (0..length)
                .map(|element| {
                    let centre = matrix(&mut adapters, layer, up, element, None);
                    let slope = difference(|step| {
                        matrix(&mut adapters, layer, up, element, Some(centre + step));
                        way.number(&adapters, &weight)
                    });
                    matrix(&mut adapters, layer, up, element, Some(centre));
                    slope
                })
                .collect();
            let got = if up { &gradient.up } else { &gradient.down };
            compare(&format!("{what} by {name} up {up}"), got, &differences);
        }
    }
}

fn input(b: &mut Builder, name: &str, extents: [u32; 4]) -> TensorId {
    let [frames, height, width, channels] = extents;
    b.input(name, Shape::new(frames, height, width, channels), Precision::Model)
}

#[test]
fn convolutions() {
    let right_bottom = Pad { top: 0, left: 0, bottom: 1, right: 1 };
    for (kernel, stride, pad, upsample) in [
        (3, 1, Pad::even(1), false),
        (3, 2, Pad::even(1), false),
        (3, 2, right_bottom, false),
        (3, 1, Pad::even(1), true),
        (3, 2, Pad::even(1), true),
        (1, 1, Pad::even(0), false),
        (1, 2, Pad::even(0), false),
    ] {
        check(&format!("conv {kernel} {stride} {pad:?} {upsample}"), |b| {
            let x = input(b, "x", [2, 5, 3, 3]);
            b.conv("conv", x, Conv { kernel, stride, pad, upsample, ..Conv::same(4) })
        });
    }
}

#[test]
fn what_is_added_to_a_convolution() {
    for frames in [1, 2] {
        check(&format!("conv with {frames} rows and a residual"), |b| {
            let x = input(b, "x", [2, 3, 2, 2]);
            let rows = input(b, "rows", [frames, 1, 1, 7]);
            let add = Some(View { tensor: rows, offset: 3, channels: 4 });
            let residual = Some(input(b, "residual", [2, 3, 2, 4]));
            b.conv("conv", x, Conv { channel_add: add, residual, ..Conv::same(4) })
        });
        check(&format!("temporal conv with {frames} rows and a residual"), |b| {
            let x = input(b, "x", [2, 3, 2, 2]);
            let rows = input(b, "rows", [frames, 1, 1, 7]);
            let add = Some(View { tensor: rows, offset: 3, channels: 4 });
            let residual = Some(input(b, "residual", [2, 3, 2, 4]));
            b.temporal_conv("conv", x, 2, Conv { channel_add: add, residual, ..Conv::same(4) })
        });
    }
    check("temporal conv of two clips", |b| {
        let x = input(b, "x", [6, 2, 1, 3]);
        b.temporal_conv("conv", x, 3, Conv::same(2))
    });
}

#[test]
fn matrix_products_and_their_adapters() {
    check("linear", |b| {
        let x = input(b, "x", [2, 2, 3, 5]);
        let residual = Some(input(b, "residual", [2, 2, 3, 4]));
        b.linear("fc", x, LinearSpec { channels: 4, bias: true, residual })
    });
    check("adapted linear", |b| {
        let x = input(b, "x", [1, 1, 7, 5]);
        b.linear("a.attn1.to_out.0", x, LinearSpec { channels: 4, bias: true, residual: None })
    });
    check("adapted parts of a joined linear", |b| {
        let x = input(b, "x", [1, 1, 6, 4]);
        let parts = ["a.attn1.to_q", "a.other", "a.attn1.to_v"].map(|name| (name.to_owned(), 3));
        b.linear_joined("joined", &parts, x, LinearSpec { channels: 9, bias: false, residual: None })
    });
}

#[test]
fn normalisations() {
    for (silu, frames_together) in [(false, 1), (true, 1), (false, 2), (true, 4)] {
        check(&format!("group norm {silu} {frames_together}"), |b| {
            let x = input(b, "x", [4, 2, 3, 6]);
            b.group_norm("norm", x, GroupNormSpec { groups: 2, eps: 1e-5, silu, frames_together })
        });
    }
    check("layer norm", |b| {
        let x = input(b, "x", [2, 1, 3, 9]);
        b.layer_norm("norm", x, 1e-5)
    });
}

#[test]
fn attentions() {
    for pattern in
        [AttentionPattern::Spatial, AttentionPattern::Causal, AttentionPattern::Temporal { frames: 2 }]
    {
        check(&format!("{pattern:?} of one tensor"), |b| {
            let qkv = input(b, "qkv", [4, 2, 3, 16]);
            let view = |offset, channels| View { tensor: qkv, offset, channels };
            b.attention("attended", [view(0, 6), view(6, 6), view(12, 4)], 2, pattern)
        });
    }
    check("cross attention", |b| {
        let query = input(b, "query", [3, 2, 2, 6]);
        let kv = input(b, "kv", [1, 1, 5, 20]);
        let view = |offset, channels| View { tensor: kv, offset, channels };
        let query = View { tensor: query, offset: 0, channels: 6 };
        b.attention("attended", [query, view(3, 6), view(10, 6)], 3, AttentionPattern::Cross)
    });
    // More queries than one block has.
    check("long attention", |b| {
        let query = input(b, "query", [1, 26, 10, 1]);
        let kv = input(b, "kv", [1, 1, 3, 2]);
        let view = |tensor, offset| View { tensor, offset, channels: 1 };
        let views = [view(query, 0), view(kv, 0), view(kv, 1)];
        b.attention("attended", views, 1, AttentionPattern::Cross)
    });
}

#[test]
fn elementwise_operations() {
    for function in [ActivationFunction::Silu, ActivationFunction::Gelu, ActivationFunction::QuickGelu] {
        check(&format!("{function:?}"), |b| {
            let x = input(b, "x", [1, 2, 3, 5]);
            b.activation("act", x, function)
        });
    }
    check("geglu", |b| {
        let x = input(b, "x", [1, 2, 3, 6]);
        b.geglu("gate", x)
    });
    check("frame table", |b| {
        let x = input(b, "x", [4, 2, 1, 3]);
        b.add_frame_table("placed", "table", 3, x, 2)
    });
    check("concatenation", |b| {
        let (left, right) = (input(b, "left", [2, 1, 3, 2]), input(b, "right", [2, 1, 3, 5]));
        b.concat("both", left, right)
    });
    check("combination", |b| {
        let (x, y) = (input(b, "x", [1, 1, 3, 4]), input(b, "y", [1, 1, 3, 4]));
        let tensor = b.input("scalars", Shape::new(1, 1, 1, 4), Precision::Single);
        b.combine("sum", &[x, y, x], View { tensor, offset: 1, channels: 3 }, Precision::Model)
    });
}

/// What is read twice gets both gradients; what leads nowhere, or depends on nothing that is wanted, is left out.
#[test]
fn gradients_meet_and_end_where_they_should() {
    check("a residual around a gate", |b| {
        let x = input(b, "x", [1, 1, 4, 6]);
        let h = b.layer_norm("norm", x, 1e-5);
        let aside = b.activation("aside", h, ActivationFunction::Silu);
        let _unused = b.linear("unused", aside, LinearSpec { channels: 2, bias: true, residual: None });
        let h = b.linear("wide", h, LinearSpec { channels: 12, bias: true, residual: None });
        let h = b.geglu("gate", h);
        b.linear("narrow", h, LinearSpec { channels: 6, bias: true, residual: Some(x) })
    });
}
