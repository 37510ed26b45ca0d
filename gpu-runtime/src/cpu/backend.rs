//! The CPU as a backend: programs with their weights and tensors, run operation by operation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use super::operation::{Operands, execute};
use crate::RuntimeError;
use crate::generate::{Backend, Memory, ProgramId};
use crate::graph::{Arena, Graph, TURNED, TensorId, TensorKind, WeightLayout, WeightUse, turned};
use crate::weights::{Weights, krsc};

/// Bytes of an element: everything is f32.
const ELEMENT_BYTES: u64 = 4;

/// Weights by (identity of the model's weights, name).
type WeightCache = BTreeMap<(u64, String), Arc<Vec<f32>>>;

/// Runs programs on the CPU in f32.
#[derive(Debug)]
pub struct CpuBackend {
    threads: usize,
    programs: BTreeMap<ProgramId, Program>,
    weights: WeightCache,
    next: u32,
    /// Bytes that may be held, where somebody has said so.
    bytes_max: Option<u64>,
    /// Memory of scratch tensors that are not in use, for the next that need some.
    pool: Vec<Vec<f32>>,
}

#[derive(Debug)]
struct Program {
    graph: Graph,
    weights: Vec<Arc<Vec<f32>>>,
    /// One per tensor; empty for scratch tensors outside their life.
    tensors: Vec<Vec<f32>>,
    /// Scratch tensors whose life ends with each operation.
    ends: Vec<Vec<TensorId>>,
}

impl Default for CpuBackend {
    fn default() -> Self {
        Self::new(thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }
}

impl CpuBackend {
    /// A backend that uses up to `threads` threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
            programs: BTreeMap::new(),
            weights: BTreeMap::new(),
            next: 0,
            bytes_max: None,
            pool: Vec::new(),
        }
    }

    /// The same, holding at most `bytes` of weights and tensors.
    #[must_use]
    pub fn with_bytes_max(self, bytes: u64) -> Self {
        Self { bytes_max: Some(bytes), ..self }
    }

    /// Refuses a program for whose weights and tensors there is no room, before any of it is allocated: a process that
    /// allocates more than there is may be killed instead of refused.
    fn check_room(&self, graph: &Graph, weights: &Weights) -> Result<(), RuntimeError> {
        let is_new = |name: &str| !self.weights.contains_key(&(weights.identity(), name.to_owned()));
        let new_weights = held(graph).into_iter().filter(|(name, _)| is_new(name)).map(|(_, bytes)| bytes);
        let wanted_bytes = new_weights.sum::<u64>() + tensor_bytes(graph);
        let free_bytes = self.memory().free;
        if wanted_bytes > free_bytes {
            return Err(RuntimeError::OutOfMemory { wanted_bytes, free_bytes });
        }
        Ok(())
    }

    fn program(&mut self, id: ProgramId) -> &mut Program {
        self.programs.get_mut(&id).expect("a program is not used after it was unloaded")
    }

    /// A weight as the operations want it, read once for all programs.
    fn weight(&mut self, wanted: &WeightUse, weights: &Weights) -> Result<Arc<Vec<f32>>, RuntimeError> {
        let key = (weights.identity(), held_as(wanted).to_owned());
        if let Some(values) = self.weights.get(&key) {
            return Ok(Arc::clone(values));
        }
        let mut stored = weights.f32(wanted)?;
        if wanted.turned && wanted.layout == WeightLayout::Convolution {
            stored = turned(&stored, &wanted.dims);
        }
        let values = Arc::new(match wanted.layout {
            WeightLayout::Convolution => krsc(&stored, &wanted.dims_used()),
            WeightLayout::Matrix | WeightLayout::Vector | WeightLayout::Table => stored,
        });
        self.weights.insert(key, Arc::clone(&values));
        Ok(values)
    }

    fn drop_unused_weights(&mut self) {
        self.weights.retain(|_, values| Arc::strong_count(values) > 1);
    }
}

impl Backend for CpuBackend {
    fn device(&self) -> String {
        format!("cpu, {} threads", self.threads)
    }

    fn load(&mut self, graph: &Graph, weights: &Weights) -> Result<ProgramId, RuntimeError> {
        self.check_room(graph, weights)?;
        let found: Result<Vec<_>, _> =
            graph.weights.iter().map(|wanted| self.weight(wanted, weights)).collect();
        let found = found.inspect_err(|_| self.drop_unused_weights())?;
        let tensors = graph.tensors.iter().map(|tensor| match tensor.kind {
            TensorKind::Scratch => Vec::new(),
            TensorKind::Input | TensorKind::Output | TensorKind::State => {
                vec![0.0; tensor.shape.elements() as usize]
            }
        });
        let program =
            Program { tensors: tensors.collect(), ends: ends(graph), graph: graph.clone(), weights: found };
        let id = ProgramId(self.next);
        self.next += 1;
        self.programs.insert(id, program);
        Ok(id)
    }

    fn write(&mut self, program: ProgramId, tensor: TensorId, values: &[f32]) -> Result<(), RuntimeError> {
        let program = self.program(program);
        let kind = program.graph.tensor(tensor).kind;
        assert!(matches!(kind, TensorKind::Input | TensorKind::State), "inputs and states are written");
        program.tensors[tensor.0 as usize].copy_from_slice(values);
        Ok(())
    }

    fn run(&mut self, program: ProgramId) -> Result<(), RuntimeError> {
        let threads = self.threads;
        let program = self.programs.get_mut(&program).expect("a program is not used after it was unloaded");
        for index in 0..program.graph.ops.len() {
            let op = &program.graph.ops[index];
            let tensor = program.graph.tensor(op.out());
            // The output is taken out of the list while it is written, so that operands can be borrowed beside it.
            let mut out = std::mem::take(&mut program.tensors[op.out().0 as usize]);
            if tensor.kind == TensorKind::Scratch && out.is_empty() {
                out = from_pool(&mut self.pool, tensor.shape.elements() as usize);
            }
            let operands =
                Operands { graph: &program.graph, weights: &program.weights, tensors: &program.tensors };
            execute(op, operands, &mut out, threads);
            program.tensors[op.out().0 as usize] = out;
            for ended in &program.ends[index] {
                self.pool.push(std::mem::take(&mut program.tensors[ended.0 as usize]));
            }
        }
        Ok(())
    }

    fn read(&mut self, program: ProgramId, tensor: TensorId, values: &mut [f32]) -> Result<(), RuntimeError> {
        let program = self.program(program);
        assert_ne!(program.graph.tensor(tensor).kind, TensorKind::Scratch, "scratch is not kept");
        values.copy_from_slice(&program.tensors[tensor.0 as usize]);
        Ok(())
    }

    fn copy(&mut self, from: (ProgramId, TensorId), to: (ProgramId, TensorId)) -> Result<(), RuntimeError> {
        let source = self.program(from.0);
        assert_ne!(source.graph.tensor(from.1).kind, TensorKind::Scratch, "scratch is not kept");
        let values = source.tensors[from.1.0 as usize].clone();
        self.write(to.0, to.1, &values)
    }

    fn unload(&mut self, program: ProgramId) -> Result<(), RuntimeError> {
        self.programs.remove(&program);
        self.drop_unused_weights();
        self.pool.clear();
        Ok(())
    }

    fn memory(&self) -> Memory {
        let bytes = |values: &Vec<f32>| 4 * values.capacity() as u64;
        let tensors = self.programs.values().flat_map(|program| &program.tensors).map(bytes).sum::<u64>();
        let used = tensors
            + self.weights.values().map(|values| bytes(values)).sum::<u64>()
            + self.pool.iter().map(bytes).sum::<u64>();
        // Where neither a limit nor the system says what is free, an allocation that fails ends the process.
        let of_limit = self.bytes_max.map(|bytes| bytes.saturating_sub(used));
        let free = [of_limit, available_bytes()].into_iter().flatten().min().unwrap_or(u64::MAX);
        Memory { used, free }
    }
}

/// The name by which a weight is held: a matrix that is used turned is the same memory, read the other way.
fn held_as(wanted: &WeightUse) -> &str {
    match (wanted.layout, wanted.name.strip_suffix(TURNED)) {
        (WeightLayout::Matrix, Some(name)) if wanted.turned => name,
        _ => &wanted.name,
    }
}

/// Bytes of the weights that a program holds, by name.
fn held(graph: &Graph) -> BTreeMap<&str, u64> {
    graph.weights.iter().map(|wanted| (held_as(wanted), ELEMENT_BYTES * wanted.elements())).collect()
}

fn tensor_bytes(graph: &Graph) -> u64 {
    let arena = Arena::plan(graph, ELEMENT_BYTES);
    arena.bytes + arena.resident_bytes
}

/// Bytes of memory that a program takes: weights, and tensors as planned.
#[must_use]
pub fn memory_of(graph: &Graph) -> (u64, u64) {
    (held(graph).values().sum(), tensor_bytes(graph))
}

/// Memory that the system says can be allocated, where it says so (Linux).
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Which scratch tensors live last at each operation.
fn ends(graph: &Graph) -> Vec<Vec<TensorId>> {
    let mut last = BTreeMap::new();
    for (index, op) in graph.ops.iter().enumerate() {
        for id in op.reads().into_iter().chain([op.out()]) {
            if graph.tensor(id).kind == TensorKind::Scratch {
                last.insert(id, index);
            }
        }
    }
    let mut ends = vec![Vec::new(); graph.ops.len()];
    last.into_iter().for_each(|(id, index)| ends[index].push(id));
    ends
}

/// Memory for `elements` values, of the smallest piece that is large enough where there is one.
fn from_pool(pool: &mut Vec<Vec<f32>>, elements: usize) -> Vec<f32> {
    let fitting = (0..pool.len())
        .filter(|&index| pool[index].capacity() >= elements)
        .min_by_key(|&index| pool[index].capacity())
        .or_else(|| (0..pool.len()).max_by_key(|&index| pool[index].capacity()));
    let mut piece = fitting.map(|index| pool.swap_remove(index)).unwrap_or_default();
    piece.resize(elements, 0.0);
    piece
}
