//! From a graph's operations to kernel launches. Pure: addresses go in, launches come out, no device is touched.

mod attention;
mod attention_gradient;
mod elementwise;
mod gemm;
mod gradient;
mod limits;
mod norm;

pub(super) use limits::check_kernels;

use super::arguments::{Arguments, Launch};
use super::fuse::Gates;
use crate::graph::{Graph, Op, Precision, Shape, TensorId, View, WeightId};

/// Where everything lies in device memory.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// By tensor.
    pub tensors: Vec<u64>,
    /// By weight.
    pub weights: Vec<u64>,
    /// Memory for partial results of one operation.
    pub workspace: u64,
}

/// What a choice of tiles depends on.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Multiprocessors of the device.
    pub processors: u32,
    /// Whether kernels with warpgroup products (sm_90a) may be used.
    pub warpgroups: bool,
}

/// The launches of a program, and the workspace that they need.
#[derive(Debug, Clone, PartialEq)]
pub struct Lowered {
    /// In order.
    pub launches: Vec<Launch>,
    /// Bytes of workspace.
    pub workspace_bytes: u64,
}

/// Lowers all operations of a graph.
///
/// # Panics
/// When a graph breaks the contract of its operations: convolutions, norms and attention take tensors of the model's
/// precision only. When no kernel does one of them, which loading a program refuses.
#[must_use]
pub fn lower(graph: &Graph, addresses: &Addresses, target: Target) -> Lowered {
    let mut lowering = Lowering { graph, addresses, target, launches: Vec::new(), workspace_bytes: 0 };
    let gates = Gates::of(graph);
    for (at, op) in graph.ops.iter().enumerate() {
        match op {
            Op::Linear { .. } if gates.absorbs(at) => {}
            Op::Conv2d { .. } | Op::TemporalConv { .. } | Op::Linear { .. } | Op::Product { .. } => {
                lowering.gemm(op, None);
            }
            Op::Gradient(gradient) => lowering.gradient(gradient),
            Op::Geglu { out, .. } if gates.linear_of.contains_key(&at) => {
                lowering.gemm(&graph.ops[gates.linear_of[&at]], Some(*out));
            }
            Op::GroupNorm { .. } | Op::LayerNorm { .. } => lowering.norm(op),
            Op::Attention { .. } => lowering.attention(op),
            Op::Geglu { .. }
            | Op::Activation { .. }
            | Op::AddFrameTable { .. }
            | Op::Concat { .. }
            | Op::Embed { .. }
            | Op::Combine { .. } => lowering.elementwise(op),
        }
    }
    Lowered { launches: lowering.launches, workspace_bytes: lowering.workspace_bytes }
}

struct Lowering<'a> {
    graph: &'a Graph,
    addresses: &'a Addresses,
    target: Target,
    launches: Vec<Launch>,
    workspace_bytes: u64,
}

impl Lowering<'_> {
    fn shape(&self, id: TensorId) -> Shape {
        self.graph.tensor(id).shape
    }

    /// Address of a bf16 tensor.
    fn at(&self, id: TensorId) -> u64 {
        let tensor = self.graph.tensor(id);
        assert_eq!(
            tensor.precision,
            Precision::Model,
            "`{}` is read or written by a bf16 kernel",
            tensor.name
        );
        self.addresses.tensors[id.0 as usize]
    }

    /// Address of an f32 tensor.
    fn at_single(&self, id: TensorId) -> u64 {
        let tensor = self.graph.tensor(id);
        assert_eq!(tensor.precision, Precision::Single, "`{}` is read as f32", tensor.name);
        self.addresses.tensors[id.0 as usize]
    }

    fn at_view(&self, view: View) -> u64 {
        self.at(view.tensor) + 2 * u64::from(view.offset)
    }

    fn weight(&self, id: WeightId) -> u64 {
        self.addresses.weights[id.0 as usize]
    }

    fn need_workspace(&mut self, bytes: u64) {
        self.workspace_bytes = self.workspace_bytes.max(bytes);
    }

    fn launch<A: Arguments>(
        &mut self,
        kernel: &'static str,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        arguments: &A,
    ) {
        self.launches.push(Launch::new(kernel, grid, threads, shared, arguments));
    }

    /// A launch of one thread per `width` elements, 256 threads a block.
    fn launch_flat<A: Arguments>(&mut self, kernel: &'static str, elements: u64, width: u64, arguments: &A) {
        self.launch(kernel, [narrow((elements / width).div_ceil(256)), 1, 1], 256, 0, arguments);
    }
}

/// A count that a graph of sensible size keeps below 2^32.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).expect("rows, channels and blocks of a program stay below 2^32")
}
