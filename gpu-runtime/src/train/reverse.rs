//! The way back of a program, as operations behind those of the way there. Pure.
//!
//! Each operation has one rule: from the gradient of its result to those of what it read. There is no rule for stored weights,
//! because none is trained, and none for ids and tables. `super::rule_tests` compares every rule with differences.

use std::collections::BTreeMap;

use super::reach::Reach;
use crate::graph::{Builder, Gradient, Graph, Op, Pad, Precision, Shape, TensorId, View};

/// Input of programs that go back: [`UNITS`].
pub(super) const UNITS_NAME: &str = "units";
/// What sums are made with: ones, and a zero.
pub(super) const UNITS: [f32; 5] = [1.0, 1.0, 1.0, 1.0, 0.0];
/// Most terms of one sum.
const TERMS_MAX: usize = UNITS.len() - 1;

/// What is known about where a graph is differentiated.
pub(super) struct Ends<'a> {
    /// The tensor whose gradient is given.
    pub(super) result: TensorId,
    /// Its gradient, written by an operation or from outside.
    pub(super) of_result: TensorId,
    /// Inputs whose gradients are wanted.
    pub(super) leaves: &'a [TensorId],
    /// For matrices that are inputs, the inputs with the same values turned.
    pub(super) turned: &'a BTreeMap<TensorId, TensorId>,
}

/// Part of a tensor's gradient: that of the channels from `offset` on.
#[derive(Debug, Clone, Copy)]
struct Part {
    offset: u32,
    gradient: TensorId,
}

/// Appends the way back; gives the gradients of the leaves, which are outputs, or `None` for what changes nothing.
///
/// # Panics
/// When something that is trained acts through what is added to the channels of a convolution, which has no rule.
pub(super) fn reverse(b: Builder, ends: &Ends<'_>) -> (Graph, Vec<Option<TensorId>>) {
    let ops = b.graph().ops.clone();
    let reach = Reach::of(b.graph(), ends.result, ends.leaves);
    let mut way = Reverse { b, reach, turned: ends.turned, parts: BTreeMap::new(), units: None, count: 0 };
    way.add(ends.result, 0, ends.of_result);
    for op in ops.iter().rev() {
        if way.reach.wants(op.out())
            && let Some(of_out) = way.gradient_of(op.out())
        {
            way.back(op, of_out);
        }
    }
    let gradients: Vec<_> = ends.leaves.iter().map(|&leaf| way.gradient_of(leaf)).collect();
    gradients.iter().flatten().for_each(|&gradient| way.b.output(gradient));
    (way.b.into_graph(), gradients)
}

struct Reverse<'a> {
    b: Builder,
    reach: Reach,
    turned: &'a BTreeMap<TensorId, TensorId>,
    parts: BTreeMap<TensorId, Vec<Part>>,
    units: Option<TensorId>,
    /// Names made so far.
    count: usize,
}

impl Reverse<'_> {
    fn name(&mut self, of: TensorId) -> String {
        self.count += 1;
        format!("gradient {} of {}", self.count, self.b.graph().tensor(of).name)
    }

    /// Adds to the gradient of a tensor's channels, if somebody wants it.
    fn add(&mut self, to: TensorId, offset: u32, gradient: TensorId) {
        if self.reach.wants(to) {
            self.parts.entry(to).or_default().push(Part { offset, gradient });
        }
    }

    fn add_whole(&mut self, to: Option<TensorId>, gradient: TensorId) {
        if let Some(to) = to {
            self.add(to, 0, gradient);
        }
    }

    /// Takes a gradient of all channels of this tensor that the next operation can add to its own.
    fn take_whole(&mut self, of: TensorId) -> Option<TensorId> {
        let shape = self.b.shape(of);
        let parts = self.parts.get_mut(&of)?;
        let graph = self.b.graph();
        let fits = |part: &Part| {
            let tensor = graph.tensor(part.gradient);
            tensor.shape == shape && tensor.precision == Precision::Model
        };
        let at = parts.iter().position(fits)?;
        Some(parts.remove(at).gradient)
    }

    /// The sum of all parts of a tensor's gradient.
    fn gradient_of(&mut self, tensor: TensorId) -> Option<TensorId> {
        let parts = self.parts.remove(&tensor).filter(|parts| !parts.is_empty())?;
        let mut runs: BTreeMap<(u32, u32), Vec<TensorId>> = BTreeMap::new();
        for part in parts {
            let channels = self.b.shape(part.gradient).channels;
            runs.entry((part.offset, channels)).or_default().push(part.gradient);
        }
        let channels = self.b.shape(tensor).channels;
        let mut whole = runs.remove(&(0, channels)).unwrap_or_default();
        let runs: Vec<_> = runs.into_iter().collect();
        let runs: Vec<_> = runs.into_iter().map(|(run, terms)| (run, self.sum(tensor, &terms))).collect();
        whole.extend((!runs.is_empty()).then(|| self.side_by_side(tensor, &runs)));
        Some(self.sum(tensor, &whole))
    }

    /// Runs of channels beside each other, zeros between them.
    ///
    /// # Panics
    /// When two of them overlap without being the same.
    fn side_by_side(&mut self, tensor: TensorId, runs: &[((u32, u32), TensorId)]) -> TensorId {
        let channels = self.b.shape(tensor).channels;
        let mut joined: Option<TensorId> = None;
        let mut end = 0;
        let last = ((channels, 0), tensor);
        for &((offset, count), gradient) in runs.iter().chain([&last]) {
            assert!(offset >= end, "views of `{}` overlap", self.b.graph().tensor(tensor).name);
            if offset > end {
                let zeros = self.zeros(View { tensor, offset: end, channels: offset - end });
                joined = Some(self.beside(tensor, joined, zeros));
            }
            if count > 0 {
                joined = Some(self.beside(tensor, joined, gradient));
            }
            end = offset + count;
        }
        joined.expect("there is a run")
    }

    fn beside(&mut self, of: TensorId, left: Option<TensorId>, right: TensorId) -> TensorId {
        let Some(left) = left else { return right };
        let name = self.name(of);
        self.b.concat(&name, left, right)
    }

    fn zeros(&mut self, view: View) -> TensorId {
        let name = self.name(view.tensor);
        let some = self.b.channels(&name, view);
        let coefficients = self.units(TERMS_MAX as u32, 1);
        let name = self.name(view.tensor);
        self.b.combine(&name, &[some], coefficients, Precision::Model)
    }

    fn sum(&mut self, of: TensorId, terms: &[TensorId]) -> TensorId {
        let mut sum = terms[0];
        for more in terms[1..].chunks(TERMS_MAX - 1) {
            let terms = [&[sum], more].concat();
            let precision = self.b.graph().tensor(sum).precision;
            let coefficients = self.units(0, terms.len() as u32);
            let name = self.name(of);
            sum = self.b.combine(&name, &terms, coefficients, precision);
        }
        sum
    }

    fn units(&mut self, offset: u32, channels: u32) -> View {
        let shape = Shape::new(1, 1, 1, UNITS.len() as u32);
        let b = &mut self.b;
        let tensor = *self.units.get_or_insert_with(|| b.input(UNITS_NAME, shape, Precision::Single));
        View { tensor, offset, channels }
    }

    /// What the gradient of an operation's result adds to those of what it read.
    fn back(&mut self, op: &Op, of_out: TensorId) {
        match op {
            Op::Conv2d { channel_add, residual, .. } => {
                self.no_rule(*channel_add);
                self.add_whole(*residual, of_out);
                self.conv(op, of_out);
            }
            Op::TemporalConv { input, weight, frames, channel_add, residual, .. } => {
                self.no_rule(*channel_add);
                self.add_whole(*residual, of_out);
                self.chained(*input, |b, name, sum| {
                    b.temporal_conv_turned(name, of_out, *weight, *frames, sum)
                });
            }
            Op::Linear { input, weight, residual, .. } => {
                self.add_whole(*residual, of_out);
                self.chained(*input, |b, name, sum| b.linear_turned(name, of_out, *weight, sum));
            }
            Op::Product { left, right, residual, .. } => {
                self.add_whole(*residual, of_out);
                if self.reach.wants(*left) {
                    let turned = self.turned[right];
                    self.chained(*left, |b, name, sum| b.product(name, of_out, turned, sum));
                }
                self.chained(*right, |b, name, _| b.matrix(name, of_out, *left));
            }
            Op::GroupNorm { input, .. } | Op::LayerNorm { input, .. } => {
                self.chained(*input, |b, name, sum| b.norm_gradient(name, op, of_out, sum));
            }
            &Op::Geglu { input, .. } => {
                self.alone(input, |b, name| {
                    b.gradient_like(name, input, |out| Gradient::Geglu { out, of_out, input })
                });
            }
            &Op::Activation { input, function, .. } => {
                self.alone(input, |b, name| {
                    b.gradient_like(name, input, |out| Gradient::Activation { out, of_out, input, function })
                });
            }
            Op::Attention { .. } => self.attention(op, of_out),
            Op::AddFrameTable { input, .. } => self.add(*input, 0, of_out),
            Op::Concat { left, right, .. } => {
                let mut offset = 0;
                for part in [*left, *right] {
                    let channels = self.b.shape(part).channels;
                    let view = View { tensor: of_out, offset, channels };
                    self.alone(part, |b, name| b.channels(name, view));
                    offset += channels;
                }
            }
            Op::Combine { terms, coefficients, .. } => {
                for (index, &term) in (0u32..).zip(terms) {
                    let coefficient =
                        View { offset: coefficients.offset + index, channels: 1, ..*coefficients };
                    self.alone(term, |b, name| b.combine(name, &[of_out], coefficient, Precision::Model));
                }
            }
            // Ids name rows of a table: nothing can be differentiated by them.
            Op::Embed { .. } => {}
            Op::Gradient(_) => unreachable!("the way there has no operations of the way back"),
        }
    }

    fn no_rule(&self, channel_add: Option<View>) {
        let wanted = channel_add.is_some_and(|view| self.reach.wants(view.tensor));
        assert!(!wanted, "nothing trained acts through the time embedding");
    }

    /// A gradient that an operation computes, if somebody wants it.
    fn alone(&mut self, of: TensorId, compute: impl FnOnce(&mut Builder, &str) -> TensorId) {
        if self.reach.wants(of) {
            let name = self.name(of);
            let gradient = compute(&mut self.b, &name);
            self.add(of, 0, gradient);
        }
    }

    /// The same by an operation that adds another gradient of the tensor to its own.
    fn chained(
        &mut self,
        of: TensorId,
        compute: impl FnOnce(&mut Builder, &str, Option<TensorId>) -> TensorId,
    ) {
        if self.reach.wants(of) {
            let sum = self.take_whole(of);
            self.alone(of, |b, name| compute(b, name, sum));
        }
    }

    fn conv(&mut self, op: &Op, of_out: TensorId) {
        let Op::Conv2d { input, weight, kernel, stride, pad, upsample, .. } = op else {
            unreachable!("called for convolutions")
        };
        if !self.reach.wants(*input) {
            return;
        }
        let from = self.b.shape(*input);
        let scale = if *upsample { 2 } else { 1 };
        let side = |extent: u32, pad: u32| extent * scale + pad + 1 - kernel;
        let of_out = if *stride == 1 {
            of_out
        } else {
            // What a step of one pixel would have given.
            let extents = [side(from.height, pad.top + pad.bottom), side(from.width, pad.left + pad.right)];
            let name = self.name(*input);
            self.b.spread(&name, of_out, extents)
        };
        let rest = |zeros: u32| kernel - 1 - zeros;
        let pad = Pad {
            top: rest(pad.top),
            left: rest(pad.left),
            bottom: rest(pad.bottom),
            right: rest(pad.right),
        };
        let shape = (*kernel, pad);
        if *upsample {
            let name = self.name(*input);
            let doubled = self.b.conv_turned(&name, of_out, *weight, shape, None);
            self.alone(*input, |b, name| b.sum_of_four(name, doubled));
        } else {
            self.chained(*input, |b, name, sum| b.conv_turned(name, of_out, *weight, shape, sum));
        }
    }

    fn attention(&mut self, op: &Op, of_out: TensorId) {
        let Op::Attention { query, key, value, .. } = op else { unreachable!("called for attention") };
        let name = self.name(op.out());
        let of = self.b.attention_rows(&name, op, of_out);
        if self.reach.wants(query.tensor) {
            let name = self.name(query.tensor);
            let gradient = self.b.attention_query(&name, of);
            self.add(query.tensor, query.offset, gradient);
        }
        if !self.reach.wants(key.tensor) && !self.reach.wants(value.tensor) {
            return;
        }
        let name = self.name(key.tensor);
        let both = self.b.attention_key_value(&name, of);
        if key.tensor == value.tensor && key.offset + key.channels == value.offset {
            self.add(key.tensor, key.offset, both);
            return;
        }
        let mut offset = 0;
        for view in [key, value] {
            if self.reach.wants(view.tensor) {
                let name = self.name(view.tensor);
                let part = View { tensor: both, offset, channels: view.channels };
                let gradient = self.b.channels(&name, part);
                self.add(view.tensor, view.offset, gradient);
            }
            offset += view.channels;
        }
    }
}
