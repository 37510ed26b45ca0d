//! Operations without sums over a neighbourhood.

use super::{Lowering, narrow};
use crate::cuda::arguments::{Arguments, Combine, Embed, Rows};
use crate::graph::{ActivationFunction, Op, Precision, Shape, TensorId};

impl Lowering<'_> {
    pub(super) fn elementwise(&mut self, op: &Op) {
        let out = op.out();
        let shape = self.shape(out);
        match op {
            Op::Geglu { input, .. } => {
                let arguments = self.rows(out, *input);
                self.launch_rows(["geglu_8", "geglu_1"], true, shape, &arguments);
            }
            Op::Activation { input, function, .. } => {
                let arguments = Rows { function: number_of(*function), ..self.rows(out, *input) };
                self.launch_rows(["activation_8", "activation_1"], true, shape, &arguments);
            }
            Op::AddFrameTable { input, table, frames, .. } => {
                let arguments = Rows {
                    right: self.weight(*table),
                    rows_per_frame: narrow(shape.positions()),
                    frames_per_clip: *frames,
                    ..self.rows(out, *input)
                };
                self.launch_rows(["add_frame_table_8", "add_frame_table_1"], true, shape, &arguments);
            }
            Op::Concat { left, right, .. } => {
                let left_channels = self.shape(*left).channels;
                let wide = left_channels.is_multiple_of(8);
                let arguments = Rows { right: self.at(*right), left_channels, ..self.rows(out, *left) };
                self.launch_rows(["concat_8", "concat_1"], wide, shape, &arguments);
            }
            Op::Embed { ids, tokens, positions, .. } => {
                let arguments = Embed {
                    ids: self.at_single(*ids),
                    tokens: self.weight(*tokens),
                    positions: self.weight(*positions),
                    out: self.at(out),
                    count: narrow(shape.rows()),
                    channels: shape.channels,
                    vocabulary: self.graph.weight(*tokens).dims[0],
                    reserved: 0,
                };
                self.launch_flat("embed", shape.elements(), 1, &arguments);
            }
            Op::Combine { terms, coefficients, .. } => {
                assert!((1..=4).contains(&terms.len()), "{} terms", terms.len());
                let place = |id: TensorId| self.addresses.tensors[id.0 as usize];
                let is_single =
                    |id: TensorId| u32::from(self.graph.tensor(id).precision == Precision::Single);
                let mut term = [0; 4];
                let mut single = is_single(out) << 8;
                for (index, id) in terms.iter().enumerate() {
                    term[index] = place(*id);
                    single |= is_single(*id) << index;
                }
                let arguments = Combine {
                    term,
                    out: place(out),
                    coefficients: self.at_single(coefficients.tensor) + 4 * u64::from(coefficients.offset),
                    elements: shape.elements(),
                    terms: narrow(terms.len() as u64),
                    single,
                };
                self.launch_flat("combine", shape.elements(), 1, &arguments);
            }
            _ => unreachable!("only elementwise operations come here"),
        }
    }

    fn rows(&self, out: TensorId, left: TensorId) -> Rows {
        let shape = self.shape(out);
        Rows {
            left: self.at(left),
            out: self.at(out),
            rows: shape.rows(),
            channels: shape.channels,
            rows_per_frame: 1,
            frames_per_clip: 1,
            ..Rows::default()
        }
    }

    /// One thread per eight channels of `shape` where rows allow it, else per channel.
    pub(super) fn launch_rows<A: Arguments>(
        &mut self,
        kernels: [&'static str; 2],
        wide: bool,
        shape: Shape,
        arguments: &A,
    ) {
        if wide && shape.channels.is_multiple_of(8) {
            self.launch_flat(kernels[0], shape.elements(), 8, arguments);
        } else {
            self.launch_flat(kernels[1], shape.elements(), 1, arguments);
        }
    }
}

/// As `elementwise.cu` and `gradient.cu` number functions.
pub(super) fn number_of(function: ActivationFunction) -> u32 {
    match function {
        ActivationFunction::Silu => 0,
        ActivationFunction::Gelu => 1,
        ActivationFunction::QuickGelu => 2,
    }
}
