//! Low-rank adapters while they are trained: weight + alpha / rank · up · down, with up and down apart from the weight.

use crate::graph::{Graph, Op, PartSource, WeightId};
use crate::noise::Noise;

/// The two matrices of a low-rank product, or their gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Lowers the rank: `[rank, columns]`, diffusers' `lora_A`.
    pub down: Vec<f32>,
    /// Raises it: `[rows, rank]`, diffusers' `lora_B`.
    pub up: Vec<f32>,
}

impl Pair {
    /// Zeros of the same extents.
    pub(super) fn zeros(&self) -> Self {
        Self { down: vec![0.0; self.down.len()], up: vec![0.0; self.up.len()] }
    }
}

/// A low-rank product beside one stored matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Component and module, without `.weight`: `unet/down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q`.
    pub name: String,
    /// Rows of the matrix: output channels.
    pub rows: usize,
    /// Columns of the matrix: input channels.
    pub columns: usize,
    /// What is trained.
    pub pair: Pair,
}

/// All low-rank products of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapters {
    /// Rank of every product.
    pub rank: usize,
    /// Products are multiplied by alpha / rank.
    pub alpha: f32,
    /// In the order in which the programs use the matrices.
    pub layers: Vec<Layer>,
}

impl Adapters {
    pub(super) fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Number of trained values.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.pair.down.len() + layer.pair.up.len()).sum()
    }
}

/// Which attention layers are trained. All have the names `to_q`, `to_k`, `to_v` and `to_out.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of the pictures: within a frame, and to the prompt.
    Spatial,
    /// Those of motion modules as well.
    SpatialAndMotion,
}

impl Scope {
    fn covers(self, part: &str) -> bool {
        let motion = part.starts_with("motion_adapter/");
        (part.starts_with("unet/") || motion && self == Self::SpatialAndMotion)
            && [".attn1.", ".attn2."].iter().any(|attention| part.contains(attention))
            && ["to_q", "to_k", "to_v", "to_out.0"].iter().any(|matrix| part.ends_with(matrix))
    }
}

/// Where a layer takes part in a graph: rows of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) weight: WeightId,
    pub(super) first_row: usize,
    /// Index in [`Adapters::layers`].
    pub(super) layer: usize,
}

/// Finds the matrices of a graph that are trained; appends a layer for each, with down from a normal law of deviation
/// 1 / rank (as diffusers' training scripts draw it) and up zero, so that nothing changes before the first step.
pub(super) fn sites(graph: &Graph, scope: Scope, seed: u64, adapters: &mut Adapters) -> Vec<Site> {
    let mut sites = Vec::new();
    for op in &graph.ops {
        let Op::Linear { weight, .. } = op else { continue };
        let used = graph.weight(*weight);
        let mut first_row = 0;
        for part in &used.parts {
            let name = part.name.strip_suffix(".weight").unwrap_or(&part.name);
            if part.source == PartSource::Stored && scope.covers(name) {
                let (rows, columns) = (part.rows as usize, used.row_elements() as usize);
                let mut down = Noise::new(seed, &format!("down {name}")).take(adapters.rank * columns);
                down.iter_mut().for_each(|value| *value /= adapters.rank as f32);
                let pair = Pair { down, up: vec![0.0; rows * adapters.rank] };
                sites.push(Site { weight: *weight, first_row, layer: adapters.layers.len() });
                adapters.layers.push(Layer { name: name.to_owned(), rows, columns, pair });
            }
            first_row += part.rows as usize;
        }
    }
    sites
}
