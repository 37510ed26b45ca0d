//! A loaded program: its weights and tensors in device memory, and its captured graph.

use std::collections::BTreeMap;
use std::rc::Rc;

use half::bf16;

use super::device::{Captured, Device, Memory};
use super::fuse::Gates;
use super::layout;
use super::lower::{Addresses, Lowered, Target, check_kernels, lower};
use crate::RuntimeError;
use crate::graph::{Arena, Graph, Precision, Tensor, TensorId, TensorKind, WeightId, WeightUse};

/// Alignment of everything in device memory, in bytes.
const ALIGNMENT: u64 = 256;
/// Bytes of an element of a tensor of the model's precision: bf16.
pub(super) const ELEMENT_BYTES: u64 = 2;

/// Takes the values of the weight with an index.
pub(super) type Sink<'a> = dyn FnMut(usize, &[bf16]) -> Result<(), RuntimeError> + 'a;

/// A block of weights, shared by all programs that name one of them.
type Shared = Rc<Memory>;

/// Where the weights of loaded programs lie.
pub(super) type WeightIndex = BTreeMap<String, Known>;

/// A weight in device memory.
pub(super) struct Known {
    weight: WeightUse,
    gated: bool,
    address: u64,
    block: Shared,
}

/// Where a weight lies.
#[derive(Clone, Copy)]
enum Place {
    /// At an offset in the program's own block.
    Own(u64),
    /// At an address in another program's block.
    Elsewhere(u64),
}

/// Where things of a program lie, relative to its two blocks of memory. Pure.
struct Plan {
    weights: Vec<Place>,
    weight_bytes: u64,
    /// Offsets of tensors in the block of tensors: inputs, outputs and states first, then scratch.
    tensors: Vec<u64>,
    tensor_bytes: u64,
}

impl Plan {
    fn of(graph: &Graph, loaded: &WeightIndex) -> Self {
        let gates = Gates::of(graph);
        let arena = Arena::plan(&gates.applied(graph), ELEMENT_BYTES);
        let mut resident = 0;
        let mut tensors = Vec::with_capacity(graph.tensors.len());
        for tensor in &graph.tensors {
            tensors.push(resident);
            if tensor.kind != TensorKind::Scratch {
                resident += bytes_of(tensor).next_multiple_of(ALIGNMENT);
            }
        }
        for (offset, slot) in tensors.iter_mut().zip(&arena.slots) {
            if let Some(slot) = slot {
                *offset = resident + slot.offset;
            }
        }
        let mut weight_bytes = 0;
        let weights = graph
            .weights
            .iter()
            .enumerate()
            .map(|(index, weight)| {
                let gated = gates.weights.contains(&WeightId(index as u32));
                if let Some(known) = loaded.get(&weight.name)
                    && known.weight == *weight
                    && known.gated == gated
                {
                    return Place::Elsewhere(known.address);
                }
                let at = Place::Own(weight_bytes);
                weight_bytes += layout::bytes(weight).next_multiple_of(ALIGNMENT);
                at
            })
            .collect();
        Self { weights, weight_bytes, tensors, tensor_bytes: resident + arena.bytes }
    }

    fn addresses(&self, weights: u64, tensors: u64) -> Addresses {
        Addresses {
            weights: self
                .weights
                .iter()
                .map(|place| match place {
                    Place::Own(offset) => weights + offset,
                    Place::Elsewhere(address) => *address,
                })
                .collect(),
            tensors: self.tensors.iter().map(|offset| tensors + offset).collect(),
            workspace: tensors + self.tensor_bytes,
        }
    }
}

fn bytes_of(tensor: &Tensor) -> u64 {
    let element = if tensor.precision == Precision::Single { 4 } else { ELEMENT_BYTES };
    tensor.shape.elements() * element
}

/// Bytes of device memory that a program takes: weights, and tensors with scratch and workspace.
#[must_use]
pub fn memory_of(graph: &Graph, target: Target) -> (u64, u64) {
    let plan = Plan::of(graph, &WeightIndex::new());
    let lowered = lower(graph, &plan.addresses(0, 0), target);
    (plan.weight_bytes, plan.tensor_bytes + lowered.workspace_bytes)
}

pub(super) struct Program {
    graph: Graph,
    /// Identity of the model's weights.
    identity: u64,
    /// Own block, and those of other programs' weights that this one uses.
    weights: Vec<Shared>,
    tensors: Memory,
    addresses: Addresses,
    lowered: Lowered,
    captured: Captured,
}

impl Program {
    /// Allocates, uploads and captures. `weights` gives, for the indices it is handed, each weight's values as the
    /// kernels want them, in any order, to the function it is handed.
    pub(super) fn load(
        device: &mut Device,
        (graph, identity): (&Graph, u64),
        target: Target,
        loaded: &WeightIndex,
        weights: impl FnOnce(Vec<usize>, &mut Sink<'_>) -> Result<(), RuntimeError>,
    ) -> Result<Self, RuntimeError> {
        check_kernels(graph)?;
        let plan = Plan::of(graph, loaded);
        let Lowered { launches, workspace_bytes } = lower(graph, &plan.addresses(0, 0), target);
        device.want(&launches)?;
        let own = device.allocate(plan.weight_bytes)?;
        let tensors = match device.allocate(plan.tensor_bytes + workspace_bytes) {
            Ok(memory) => memory,
            Err(error) => {
                device.free(own);
                return Err(error);
            }
        };
        let addresses = plan.addresses(own.address, tensors.address);
        let lowered = lower(graph, &addresses, target);
        let missing: Vec<usize> =
            (0..graph.weights.len()).filter(|&index| matches!(plan.weights[index], Place::Own(_))).collect();
        let mut upload = |index: usize, values: &[bf16]| {
            // SAFETY: bf16 is two plain bytes, little-endian on every machine that CUDA runs on.
            let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), values.len() * 2) };
            device.upload(addresses.weights[index], bytes)
        };
        let captured = weights(missing, &mut upload)
            .and_then(|()| device.zero(&tensors))
            .and_then(|()| device.capture(&lowered.launches))
            // Errors of the copies belong to the load.
            .and_then(|captured| device.wait().map(|()| captured));
        match captured {
            Ok(captured) => {
                let others = graph.weights.iter().filter_map(|weight| loaded.get(&weight.name));
                let mut weights: Vec<Shared> = Vec::new();
                for known in others {
                    if !weights.iter().any(|held| Rc::ptr_eq(held, &known.block)) {
                        weights.push(Rc::clone(&known.block));
                    }
                }
                weights.push(Rc::new(own));
                Ok(Self { graph: graph.clone(), identity, weights, tensors, addresses, lowered, captured })
            }
            Err(error) => {
                // The copies may still be under way; a broken device frees nothing.
                let _ = device.wait();
                device.free(own);
                device.free(tensors);
                Err(error)
            }
        }
    }

    /// Adds where this program's weights lie, if they are of the model `identity`.
    pub(super) fn index_weights(&self, identity: u64, index: &mut WeightIndex) {
        if self.identity != identity {
            return;
        }
        let gates = Gates::of(&self.graph);
        for (at, (weight, &address)) in self.graph.weights.iter().zip(&self.addresses.weights).enumerate() {
            let block = self.weights.iter().find(|block| block.contains(address));
            let block = block.expect("a program holds the blocks of all its weights");
            let gated = gates.weights.contains(&WeightId(at as u32));
            let known = Known { weight: weight.clone(), gated, address, block: Rc::clone(block) };
            index.insert(weight.name.clone(), known);
        }
    }

    pub(super) fn unload(self, device: &mut Device) {
        device.discard(self.captured);
        device.free(self.tensors);
        for block in self.weights {
            if let Some(memory) = Rc::into_inner(block) {
                device.free(memory);
            }
        }
    }

    pub(super) fn run(&self, device: &mut Device) -> Result<(), RuntimeError> {
        device.replay(&self.captured)
    }

    /// Runs the same launches one by one, outside the captured graph.
    pub(super) fn run_launches(&self, device: &mut Device) -> Result<(), RuntimeError> {
        device.launch_all(&self.lowered.launches)
    }

    pub(super) fn nodes(&self) -> usize {
        self.captured.nodes
    }

    /// Writes a tensor from f32, rounding to bf16 where that is its type.
    pub(super) fn write(
        &self,
        device: &mut Device,
        id: TensorId,
        values: &[f32],
    ) -> Result<(), RuntimeError> {
        let (address, single) = self.place(id, values.len());
        let bytes: Vec<u8> = if single {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        } else {
            values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()
        };
        device.upload(address, &bytes)
    }

    /// Reads a tensor as f32, after everything before it is done.
    pub(super) fn read(
        &self,
        device: &mut Device,
        id: TensorId,
        values: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let (address, single) = self.place(id, values.len());
        let mut bytes = Vec::new();
        device.download(address, values.len() * if single { 4 } else { 2 }, &mut bytes)?;
        if single {
            for (value, stored) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*stored);
            }
        } else {
            for (value, stored) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = bf16::from_le_bytes(*stored).to_f32();
            }
        }
        Ok(())
    }

    /// Address of a tensor and whether it is f32.
    ///
    /// # Panics
    /// When the tensor has another number of elements, or is scratch and thus has no value between operations.
    fn place(&self, id: TensorId, elements: usize) -> (u64, bool) {
        let tensor = self.graph.tensor(id);
        assert_eq!(
            elements as u64,
            tensor.shape.elements(),
            "elements of `{}` {}",
            tensor.name,
            tensor.shape
        );
        assert_ne!(tensor.kind, TensorKind::Scratch, "`{}` has no value of its own", tensor.name);
        (self.addresses.tensors[id.0 as usize], tensor.precision == Precision::Single)
    }

    /// Copies a tensor of one program to one of another with the same elements, on the device where both have one
    /// type.
    pub(super) fn copy(
        device: &mut Device,
        from: (&Self, TensorId),
        to: (&Self, TensorId),
    ) -> Result<(), RuntimeError> {
        let elements = from.0.graph.tensor(from.1).shape.elements() as usize;
        let (source, source_single) = from.0.place(from.1, elements);
        let (target, target_single) = to.0.place(to.1, elements);
        if source_single == target_single {
            return device.copy(target, source, elements * if source_single { 4 } else { 2 });
        }
        // Types differ only where a sampler's state is handed to a decoder, once per request.
        let mut values = vec![0.0; elements];
        from.0.read(device, from.1, &mut values)?;
        to.0.write(device, to.1, &values)
    }
}
