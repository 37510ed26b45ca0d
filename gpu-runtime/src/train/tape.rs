//! One program with all its tensors kept: forward, then backward over the same list of operations.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::adapter::{Adapters, Pair, Place, Site};
use super::backward::contributions;
use super::reach::Reach;
use crate::RuntimeError;
use crate::cpu::{Operands, execute};
use crate::graph::{Graph, Op, TensorId, View, WeightLayout};
use crate::weights::{Weights, krsc};

/// A program that can be differentiated.
#[derive(Debug)]
pub(super) struct Tape {
    graph: Graph,
    weights: Vec<Arc<Vec<f32>>>,
    /// Values of all tensors that the operations touch.
    tensors: Vec<Vec<f32>>,
    sites: Vec<Site>,
    result: TensorId,
    leaves: Vec<TensorId>,
    reach: Reach,
    threads: usize,
}

/// The operations of a graph up to the one that writes `result`.
pub(super) fn until(mut graph: Graph, result: TensorId) -> Graph {
    let last = graph.ops.iter().position(|op| op.out() == result).expect("an operation writes the result");
    graph.ops.truncate(last + 1);
    graph
}

/// Tensors that the operations read or write.
fn touched(graph: &Graph) -> BTreeSet<TensorId> {
    graph.ops.iter().flat_map(|op| op.reads().into_iter().chain([op.out()])).collect()
}

/// Elements of the weights that a tape of this graph holds, and of the tensors that it keeps.
pub(super) fn elements(graph: &Graph) -> [u64; 2] {
    let used: BTreeSet<_> = graph.ops.iter().flat_map(Op::weights).collect();
    let weights = used.into_iter().map(|id| graph.weight(id).elements());
    let tensors = touched(graph).into_iter().map(|id| graph.tensor(id).shape.elements());
    [weights.sum(), tensors.sum()]
}

/// Reads the weights that the operations of a graph use, laid out as they want them; others stay empty.
pub(super) fn read_weights(graph: &Graph, weights: &Weights) -> Result<Vec<Arc<Vec<f32>>>, RuntimeError> {
    let used: BTreeSet<_> = graph.ops.iter().flat_map(Op::weights).collect();
    let read = |(index, wanted): (usize, &crate::graph::WeightUse)| {
        if !used.iter().any(|id| id.0 as usize == index) {
            return Ok(Arc::new(Vec::new()));
        }
        let stored = weights.f32(wanted)?;
        Ok(Arc::new(match wanted.layout {
            WeightLayout::Convolution => krsc(&stored, &wanted.dims),
            WeightLayout::Matrix | WeightLayout::Vector | WeightLayout::Table => stored,
        }))
    };
    graph.weights.iter().enumerate().map(read).collect()
}

impl Tape {
    /// A program from whose `result` gradients go back to the trained matrices of `sites` and to `leaves`.
    ///
    /// # Panics
    /// When two operations write one tensor, or one writes what it reads: values must stay for the way back.
    pub(super) fn new(
        graph: Graph,
        result: TensorId,
        weights: Vec<Arc<Vec<f32>>>,
        sites: Vec<Site>,
        leaves: &[TensorId],
        threads: usize,
    ) -> Self {
        let mut written = BTreeSet::new();
        for op in &graph.ops {
            assert!(written.insert(op.out()), "`{}` is written twice", graph.tensor(op.out()).name);
        }
        let touched = touched(&graph);
        let tensors = graph.tensors.iter().enumerate().map(|(index, tensor)| {
            let kept = touched.contains(&TensorId(index as u32));
            if kept { vec![0.0; tensor.shape.elements() as usize] } else { Vec::new() }
        });
        let trained = sites.iter().map(|site| site.weight).collect();
        let reach = Reach::of(&graph, result, &trained, leaves);
        let tensors = tensors.collect();
        Self { tensors, leaves: leaves.to_vec(), graph, weights, sites, result, reach, threads }
    }

    /// Bytes of weights and of kept tensors.
    pub(super) fn bytes(&self) -> u64 {
        let weights = self.weights.iter().map(|values| values.len());
        4 * weights.chain(self.tensors.iter().map(Vec::len)).sum::<usize>() as u64
    }

    /// Writes an input by its name.
    pub(super) fn write(&mut self, name: &str, values: &[f32]) {
        let id = self.graph.find(name).expect("programs have the tensors that their module names");
        self.tensors[id.0 as usize].copy_from_slice(values);
    }

    /// Elements of a tensor by its name.
    pub(super) fn elements(&self, name: &str) -> usize {
        let id = self.graph.find(name).expect("programs have the tensors that their module names");
        self.tensors[id.0 as usize].len()
    }

    /// The value of the result after the last forward pass.
    pub(super) fn result(&self) -> &[f32] {
        &self.tensors[self.result.0 as usize]
    }

    /// Computes all tensors, with the adapters beside the weights.
    pub(super) fn forward(&mut self, adapters: &Adapters) {
        for op in &self.graph.ops {
            let mut out = std::mem::take(&mut self.tensors[op.out().0 as usize]);
            let operands = Operands { graph: &self.graph, weights: &self.weights, tensors: &self.tensors };
            execute(op, operands, &mut out, self.threads);
            if let Op::Linear { input, weight, out: to, .. } = op {
                let channels = self.graph.tensor(*to).shape.channels as usize;
                for site in self.sites.iter().filter(|site| site.weight == *weight) {
                    let pair = &adapters.layers[site.layer].pair;
                    let input = &self.tensors[input.0 as usize];
                    Place::new(adapters, *site, channels).apply(pair, input, &mut out);
                }
            }
            self.tensors[op.out().0 as usize] = out;
        }
    }

    /// Adds to `gradients` (one for each layer of `adapters`) those of a number whose gradient by the result is
    /// `of_result`; gives its gradients by the leaves.
    ///
    /// Values are those of the last forward pass, which must have had the same adapters.
    pub(super) fn backward(
        &self,
        of_result: &[f32],
        adapters: &Adapters,
        gradients: &mut [Pair],
    ) -> Vec<Vec<f32>> {
        let mut of_tensors: Vec<Vec<f32>> = vec![Vec::new(); self.tensors.len()];
        of_tensors[self.result.0 as usize] = of_result.to_vec();
        for op in self.graph.ops.iter().rev().filter(|op| self.reach.wants(op.out())) {
            let of_out = std::mem::take(&mut of_tensors[op.out().0 as usize]);
            if of_out.is_empty() {
                continue;
            }
            let operands = Operands { graph: &self.graph, weights: &self.weights, tensors: &self.tensors };
            let wanted = |id: TensorId| self.reach.wants(id);
            for (view, values) in contributions(op, operands, &of_out, &wanted, self.threads) {
                self.add(&mut of_tensors, view, values);
            }
            if let Op::Linear { input, weight, out, .. } = op {
                let channels = self.graph.tensor(*out).shape.channels as usize;
                for site in self.sites.iter().filter(|site| site.weight == *weight) {
                    let of_input = wanted(*input).then(|| of_tensors[input.0 as usize].as_mut_slice());
                    Place::new(adapters, *site, channels).backward(
                        &adapters.layers[site.layer].pair,
                        &self.tensors[input.0 as usize],
                        &of_out,
                        &mut gradients[site.layer],
                        of_input,
                    );
                }
            }
        }
        let zeros = |leaf: &TensorId| vec![0.0; self.tensors[leaf.0 as usize].len()];
        self.leaves
            .iter()
            .map(|leaf| match std::mem::take(&mut of_tensors[leaf.0 as usize]) {
                none if none.is_empty() => zeros(leaf),
                gradient => gradient,
            })
            .collect()
    }

    /// Adds the gradient of a view's channels to that of its tensor.
    fn add(&self, of_tensors: &mut [Vec<f32>], view: View, values: Vec<f32>) {
        let shape = self.graph.tensor(view.tensor).shape;
        let sum = &mut of_tensors[view.tensor.0 as usize];
        if view.channels == shape.channels && sum.is_empty() {
            *sum = values;
            return;
        }
        sum.resize(shape.elements() as usize, 0.0);
        let channels = view.channels as usize;
        let rows = sum.chunks_exact_mut(shape.channels as usize).zip(values.chunks_exact(channels));
        for (sum, row) in rows {
            let sum = &mut sum[view.offset as usize..][..channels];
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
    }
}
