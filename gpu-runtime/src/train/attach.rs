//! Adapters inside a program: each matrix product with trained parts gets two thin products beside it.
//!
//! A joined matrix (`to_qkv`, or the keys and values of all cross attentions) has one pair for all its parts: their down
//! matrices below each other, their up matrices along a diagonal of blocks. So every result is still written once, and the
//! pair's zeros cost rank / channels of the matrix itself.

use std::collections::BTreeMap;

use super::adapter::{Adapters, Pair, Site};
use crate::RuntimeError;
use crate::generate::{Backend, Loaded};
use crate::graph::{Builder, Graph, Op, Precision, Shape, TensorId, WeightId, turned};

/// Ranks of a joint are rounded up to this, so that rows begin at multiples of 16 bytes in bf16.
const RANK_STEP: usize = 8;

/// The thin matrices beside one weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Joint {
    sites: Vec<Site>,
    /// Rows of the whole weight.
    rows: usize,
    columns: usize,
    /// Ranks of all sites, rounded up.
    depth: usize,
    /// `[depth, columns]` and `[rows, depth]`.
    pub(super) down: TensorId,
    pub(super) up: TensorId,
    /// The same with their axes exchanged, which only the way back reads.
    pub(super) down_turned: TensorId,
    pub(super) up_turned: TensorId,
}

/// Puts the thin products of all sites into a graph.
pub(super) fn attach(mut graph: Graph, sites: &[Site], adapters: &Adapters) -> (Graph, Vec<Joint>) {
    let mut by_weight: BTreeMap<WeightId, Vec<Site>> = BTreeMap::new();
    sites.iter().for_each(|site| by_weight.entry(site.weight).or_default().push(*site));
    let ops = std::mem::take(&mut graph.ops);
    let mut b = Builder::resume(graph);
    let joints: BTreeMap<_, _> = by_weight
        .into_iter()
        .map(|(weight, sites)| (weight, joint(&mut b, weight, sites, adapters)))
        .collect();
    for (index, mut op) in ops.into_iter().enumerate() {
        if let Op::Linear { out, input, weight, residual, .. } = &mut op
            && let Some(joint) = joints.get(weight)
        {
            let name = b.graph().tensor(*out).name.clone();
            let low = b.product(&format!("{name} lowered {index}"), *input, joint.down, None);
            *residual = Some(b.product(&format!("{name} raised {index}"), low, joint.up, *residual));
        }
        b.push(op);
    }
    (b.into_graph(), joints.into_values().collect())
}

fn joint(b: &mut Builder, weight: WeightId, sites: Vec<Site>, adapters: &Adapters) -> Joint {
    let used = b.graph().weight(weight).clone();
    let (rows, columns) = (used.dims[0] as usize, used.row_elements() as usize);
    let depth = (sites.len() * adapters.rank).next_multiple_of(RANK_STEP);
    let mut matrix = |what: &str, rows: usize, columns: usize| {
        let shape = Shape::new(1, 1, rows as u32, columns as u32);
        b.input(&format!("{what} {}", used.name), shape, Precision::Model)
    };
    let (down, up) = (matrix("down", depth, columns), matrix("up", rows, depth));
    let (down_turned, up_turned) = (matrix("down turned", columns, depth), matrix("up turned", depth, rows));
    Joint { sites, rows, columns, depth, down, up, down_turned, up_turned }
}

impl Joint {
    /// Writes the adapters' values into a program: up times alpha / rank, so that the program knows no scale.
    pub(super) fn write(
        &self,
        backend: &mut dyn Backend,
        program: &Loaded,
        adapters: &Adapters,
    ) -> Result<(), RuntimeError> {
        let [down, up] = self.values(adapters);
        program.write_at(backend, self.down, &down)?;
        program.write_at(backend, self.up, &up)?;
        let turned =
            |values: &[f32], rows: usize, columns: usize| turned(values, &[rows as u32, columns as u32]);
        program.write_at(backend, self.down_turned, &turned(&down, self.depth, self.columns))?;
        program.write_at(backend, self.up_turned, &turned(&up, self.rows, self.depth))
    }

    /// Down and up of all sites together.
    fn values(&self, adapters: &Adapters) -> [Vec<f32>; 2] {
        let (rank, scale) = (adapters.rank, adapters.scale());
        let (mut down, mut up) = (vec![0.0; self.depth * self.columns], vec![0.0; self.rows * self.depth]);
        for (index, site) in self.sites.iter().enumerate() {
            let pair = &adapters.layers[site.layer].pair;
            down[index * rank * self.columns..][..pair.down.len()].copy_from_slice(&pair.down);
            for (row, values) in pair.up.chunks_exact(rank).enumerate() {
                let to = &mut up[(site.first_row + row) * self.depth + index * rank..][..rank];
                to.iter_mut().zip(values).for_each(|(to, value)| *to = scale * value);
            }
        }
        [down, up]
    }

    /// Adds gradients of the two matrices to those of the adapters.
    pub(super) fn add(&self, of_down: &[f32], of_up: &[f32], adapters: &Adapters, gradients: &mut [Pair]) {
        let (rank, scale) = (adapters.rank, adapters.scale());
        for (index, site) in self.sites.iter().enumerate() {
            let Pair { down, up } = &mut gradients[site.layer];
            let from = &of_down[index * rank * self.columns..];
            down.iter_mut().zip(from).for_each(|(sum, value)| *sum += value);
            for (row, sums) in up.chunks_exact_mut(rank).enumerate() {
                let from = &of_up[(site.first_row + row) * self.depth + index * rank..];
                sums.iter_mut().zip(from).for_each(|(sum, value)| *sum += scale * value);
            }
        }
    }

    /// Elements of down and of up.
    pub(super) fn elements(&self) -> [usize; 2] {
        [self.depth * self.columns, self.rows * self.depth]
    }
}
