//! What a program costs: floating-point operations of its matrix products, bytes that it must move.

use super::{AttentionGradient, AttentionPattern, Gradient, Graph, Op, Precision, TensorId, View};

/// Cost of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpCost {
    /// Floating-point operations of convolutions, matrix products and attention; a multiply-add counts as two.
    /// Elementwise work and softmax count as none: bytes bound them.
    pub flops: u64,
    /// Bytes of weights read.
    pub weight_bytes: u64,
    /// Bytes of tensors read and written, each operand once.
    pub tensor_bytes: u64,
}

/// Cost of a program, operation by operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// In the order of the graph's operations.
    pub ops: Vec<OpCost>,
}

impl Cost {
    /// Counts a graph on a backend whose own element type has `element_bytes` (2 or 4).
    #[must_use]
    pub fn of(graph: &Graph, element_bytes: u64) -> Self {
        let tensor_bytes = |id: TensorId| {
            let tensor = graph.tensor(id);
            tensor.shape.elements() * if tensor.precision == Precision::Single { 4 } else { element_bytes }
        };
        let ops = graph.ops.iter().map(|op| OpCost {
            flops: flops(graph, op),
            weight_bytes: op.weights().iter().map(|&id| graph.weight(id).elements() * element_bytes).sum(),
            tensor_bytes: op.reads().into_iter().chain([op.out()]).map(tensor_bytes).sum(),
        });
        Self { ops: ops.collect() }
    }

    /// Sum over all operations.
    #[must_use]
    pub fn total(&self) -> OpCost {
        self.ops.iter().fold(OpCost::default(), |sum, op| OpCost {
            flops: sum.flops + op.flops,
            weight_bytes: sum.weight_bytes + op.weight_bytes,
            tensor_bytes: sum.tensor_bytes + op.tensor_bytes,
        })
    }
}

fn flops(graph: &Graph, op: &Op) -> u64 {
    let shape = |id: TensorId| graph.tensor(id).shape;
    match op {
        Op::Conv2d { out, weight, .. }
        | Op::TemporalConv { out, weight, .. }
        | Op::Linear { out, weight, .. } => 2 * shape(*out).rows() * graph.weight(*weight).elements(),
        Op::Attention { query, key, value, pattern, .. } => {
            pairs(graph, *query, *key, *pattern) * u64::from(2 * (key.channels + value.channels))
        }
        Op::Product { left, right, .. } => 2 * shape(*left).rows() * shape(*right).elements(),
        Op::Gradient(gradient) => gradient_flops(graph, gradient),
        Op::GroupNorm { .. }
        | Op::LayerNorm { .. }
        | Op::Geglu { .. }
        | Op::Activation { .. }
        | Op::AddFrameTable { .. }
        | Op::Concat { .. }
        | Op::Embed { .. }
        | Op::Combine { .. } => 0,
    }
}

/// Queries times the keys that each sees.
fn pairs(graph: &Graph, query: View, key: View, pattern: AttentionPattern) -> u64 {
    let shape = |view: View| graph.tensor(view.tensor).shape;
    let seen = match pattern {
        AttentionPattern::Spatial | AttentionPattern::Causal | AttentionPattern::Cross => {
            shape(key).positions()
        }
        AttentionPattern::Temporal { frames } => u64::from(frames),
    };
    shape(query).rows() * seen
}

fn gradient_flops(graph: &Graph, gradient: &Gradient) -> u64 {
    let shape = |id: TensorId| graph.tensor(id).shape;
    // Scores and the gradient of the shares are computed for queries and for keys.
    let both = |of: &AttentionGradient, more: u32| {
        pairs(graph, of.query, of.key, of.pattern)
            * u64::from(2 * (of.key.channels + of.value.channels + more))
    };
    match gradient {
        Gradient::Matrix { left, right, .. } => {
            2 * shape(*left).elements() * u64::from(shape(*right).channels)
        }
        Gradient::AttentionRows { query, key, pattern, .. } => {
            pairs(graph, *query, *key, *pattern) * u64::from(2 * key.channels)
        }
        Gradient::AttentionQuery { of, .. } => both(of, of.query.channels),
        Gradient::AttentionKeyValue { of, .. } => both(of, of.key.channels + of.value.channels),
        Gradient::GroupNorm { .. }
        | Gradient::LayerNorm { .. }
        | Gradient::Geglu { .. }
        | Gradient::Activation { .. }
        | Gradient::Spread { .. }
        | Gradient::SumOfFour { .. }
        | Gradient::Channels { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, Conv, LinearSpec, Shape};
    use super::*;

    #[test]
    fn products_are_counted_by_hand() {
        let mut builder = Builder::new("test", "unet");
        let x = builder.input("x", Shape::new(2, 4, 4, 8), Precision::Model);
        let conv = builder.conv("conv", x, Conv::same(16));
        let wide = builder.linear("fc", conv, LinearSpec { channels: 48, bias: false, residual: None });
        let view = |offset| super::super::View { tensor: wide, offset, channels: 16 };
        let views = [view(0), view(16), view(32)];
        let spatial = builder.attention("spatial", views, 2, AttentionPattern::Spatial);
        let temporal = builder.attention("temporal", views, 2, AttentionPattern::Temporal { frames: 2 });
        builder.output(spatial);
        builder.output(temporal);
        let cost = Cost::of(&builder.finish(), 2);
        let flops: Vec<_> = cost.ops.iter().map(|op| op.flops).collect();
        assert_eq!(flops, [2 * 32 * 16 * 8 * 9, 2 * 32 * 48 * 16, 2 * 2 * 32 * 16 * 16, 2 * 2 * 32 * 2 * 16]);
        assert_eq!(cost.ops[0].weight_bytes, 2 * (16 * 8 * 9 + 16));
        assert_eq!(cost.ops[1].tensor_bytes, 2 * 32 * (16 + 48));
        assert_eq!(cost.total().flops, flops.iter().sum::<u64>());
    }
}
