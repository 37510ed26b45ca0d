//! The CUDA backend as the rest of the crate sees it: a handle to the thread that owns the device.
//!
//! One thread owns the context, because graphs and contexts are bound to threads. Every call hands it a piece of work
//! and waits for the answer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use half::bf16;

use super::device::{Device, Facts};
use super::fuse::Gates;
use super::layout;
use super::lower::Target;
use super::nvrtc::{Compiler, default_cache};
use super::probe::{self, Search};
use super::program::{Program, Sink, WeightIndex};
use crate::RuntimeError;
use crate::generate::{Backend, Memory, ProgramId};
use crate::graph::{Graph, TensorId, WeightId, WeightUse};
use crate::weights::Weights;

/// Threads that read and turn weights, at most.
const READERS_MAX: usize = 8;
/// Weights read ahead of the device, at most.
const READ_AHEAD: usize = 16;

/// How to open a device.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which device.
    pub ordinal: i32,
    /// Where libraries are looked for.
    pub search: Search,
    /// Folder of compiled kernels; `None` compiles at every start.
    pub cache: Option<PathBuf>,
}

impl Options {
    /// Device 0, libraries and cache as the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        Self { ordinal: 0, search: Search::from_environment(), cache: default_cache() }
    }
}

/// What the owner thread holds.
struct Owner {
    device: Device,
    target: Target,
    programs: BTreeMap<u32, Program>,
    programs_loaded: u32,
    gauge: Arc<Gauge>,
}

/// Device memory as of the last load or unload, in bytes.
#[derive(Debug, Default)]
struct Gauge {
    used: AtomicU64,
    free: AtomicU64,
}

type Work = Box<dyn FnOnce(&mut Owner) + Send>;

/// Programs on one NVIDIA GPU, in bf16, each captured once and replayed.
///
/// Programs of one model share the weights that they both name.
#[derive(Debug)]
pub struct Cuda {
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    facts: Facts,
    gauge: Arc<Gauge>,
}

impl Cuda {
    /// Opens a device and makes all kernels ready but those that only training needs.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when a library or the device is missing or too old; [`RuntimeError::OutOfMemory`]
    /// or [`RuntimeError::Sticky`] as the driver says.
    pub fn open(options: &Options) -> Result<Self, RuntimeError> {
        let libraries = probe::open(&options.search)?;
        let compiler = Compiler::new(&libraries.compiler, libraries.compiler_handle, options.cache.clone())?;
        let (work, works) = mpsc::channel::<Work>();
        let (answer, answers) = mpsc::channel();
        let ordinal = options.ordinal;
        let gauge = Arc::new(Gauge::default());
        let gauge_of_owner = Arc::clone(&gauge);
        let thread = std::thread::Builder::new().name(format!("cuda-{ordinal}"));
        let spawned = thread.spawn(move || match Device::open(ordinal, compiler) {
            Ok(device) => {
                let facts = device.facts.clone();
                let target =
                    Target { processors: facts.processors, warpgroups: facts.architecture() == "sm_90a" };
                let mut owner = Owner {
                    device,
                    target,
                    programs: BTreeMap::new(),
                    programs_loaded: 0,
                    gauge: gauge_of_owner,
                };
                owner.read_gauge();
                if answer.send(Ok(facts)).is_ok() {
                    works.into_iter().for_each(|work| work(&mut owner));
                }
                for program in std::mem::take(&mut owner.programs).into_values() {
                    program.unload(&mut owner.device);
                }
            }
            // Nobody waits for the answer only if the caller has panicked.
            Err(error) => drop(answer.send(Err(error))),
        });
        let thread = spawned.map_err(|error| RuntimeError::Unavailable {
            what: "a thread for the device".to_owned(),
            why: error.to_string(),
        })?;
        match answers.recv() {
            Ok(Ok(facts)) => Ok(Self { work: Some(work), thread: Some(thread), facts, gauge }),
            Ok(Err(error)) => {
                // The thread has nothing left to do but end.
                let _ = thread.join();
                Err(error)
            }
            Err(_) => Err(owner_gone()),
        }
    }

    /// What the device is.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Kernel nodes of a loaded program's captured graph.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed.
    pub fn nodes(&mut self, program: ProgramId) -> Result<usize, RuntimeError> {
        self.on_owner(move |owner| Ok(owner.program(program).0.nodes()))
    }

    /// Runs a program's kernels one by one, without its captured graph.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed.
    pub fn run_uncaptured(&mut self, program: ProgramId) -> Result<(), RuntimeError> {
        self.on_owner(move |owner| {
            let (program, device) = owner.program(program);
            program.run_launches(device)
        })
    }

    /// Milliseconds of device time for `runs` runs of a program, one after another.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed.
    pub fn time(&mut self, program: ProgramId, runs: u32) -> Result<f32, RuntimeError> {
        self.on_owner(move |owner| {
            let (program, device) = owner.program(program);
            device.time(|device| (0..runs).try_for_each(|_| program.run(device)))
        })
    }

    /// Loads a program whose weights come from `values`: the values of a weight in the stored order of axes. Programs
    /// loaded with the same `identity` share the weights that they both name.
    ///
    /// # Errors
    /// Those of `values`; [`RuntimeError::OutOfMemory`]; [`RuntimeError::Sticky`]; [`RuntimeError::Unavailable`] when no
    /// kernel does one of the operations, or those of a training do not compile.
    pub fn load_from(
        &mut self,
        graph: &Graph,
        identity: u64,
        values: impl Fn(&WeightUse) -> Result<Vec<bf16>, RuntimeError> + Sync,
    ) -> Result<ProgramId, RuntimeError> {
        let values = &values;
        self.on_owner(move |owner| {
            let mut index = WeightIndex::new();
            owner.programs.values().for_each(|program| program.index_weights(identity, &mut index));
            let program =
                Program::load(&mut owner.device, (graph, identity), owner.target, &index, |wanted, sink| {
                    read_weights(graph, &wanted, values, sink)
                })?;
            let id = owner.programs_loaded;
            owner.programs_loaded += 1;
            owner.programs.insert(id, program);
            owner.read_gauge();
            Ok(ProgramId(id))
        })
    }

    /// Runs `work` on the owner thread and waits for its result.
    fn on_owner<'a, R: Send + 'a>(
        &mut self,
        work: impl FnOnce(&mut Owner) -> Result<R, RuntimeError> + Send + 'a,
    ) -> Result<R, RuntimeError> {
        let (answer, answers) = mpsc::channel();
        let boxed: Box<dyn FnOnce(&mut Owner) + Send + 'a> = Box::new(move |owner| {
            // The receiver below waits until the sender is gone.
            let _ = answer.send(work(owner));
        });
        // SAFETY: the work is done or dropped before this call returns: `recv` ends with the answer, which is sent
        // after the work, or when the sender is dropped, which the owner's unwinding does after dropping the work's
        // own frame. `&mut self` keeps a second piece of work from being queued behind one that panics.
        let boxed = unsafe { std::mem::transmute::<Box<dyn FnOnce(&mut Owner) + Send + 'a>, Work>(boxed) };
        let Some(sender) = &self.work else { return Err(owner_gone()) };
        if sender.send(boxed).is_err() {
            return Err(owner_gone());
        }
        answers.recv().map_err(|_| owner_gone())?
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported to the call that caused it.
            let _ = thread.join();
        }
    }
}

impl Owner {
    /// # Panics
    /// When the program is not loaded.
    fn program(&mut self, id: ProgramId) -> (&Program, &mut Device) {
        let program = self.programs.get(&id.0).expect("a program is used between load and unload");
        (program, &mut self.device)
    }

    fn read_gauge(&mut self) {
        // A broken device has nothing that could still be allocated.
        let (used, free) = self.device.memory().unwrap_or((0, 0));
        self.gauge.used.store(used, Ordering::Relaxed);
        self.gauge.free.store(free, Ordering::Relaxed);
    }
}

fn owner_gone() -> RuntimeError {
    RuntimeError::Sticky { why: "the thread that owns the device has ended".to_owned() }
}

/// Reads and turns weights on several threads, and hands them over on this one.
fn read_weights(
    graph: &Graph,
    wanted: &[usize],
    values: &(impl Fn(&WeightUse) -> Result<Vec<bf16>, RuntimeError> + Sync),
    sink: &mut Sink<'_>,
) -> Result<(), RuntimeError> {
    let next = AtomicUsize::new(0);
    let gates = &Gates::of(graph);
    let readers =
        std::thread::available_parallelism().map_or(1, usize::from).min(READERS_MAX).min(wanted.len());
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(READ_AHEAD);
        for _ in 0..readers {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(&index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let weight = &graph.weights[index];
                    let gated = gates.weights.contains(&WeightId(index as u32));
                    let turned = values(weight).map(|values| (index, layout::turn(weight, gated, values)));
                    if sender.send(turned).is_err() {
                        return; // the receiver met an error
                    }
                }
            });
        }
        drop(sender);
        for turned in receiver {
            let (index, turned) = turned?;
            sink(index, &turned)?;
        }
        Ok(())
    })
}

impl Backend for Cuda {
    fn device(&self) -> String {
        self.facts.name.clone()
    }

    fn load(&mut self, graph: &Graph, weights: &Weights) -> Result<ProgramId, RuntimeError> {
        weights.check(graph)?;
        self.load_from(graph, weights.identity(), |weight| weights.bf16(weight))
    }

    fn write(&mut self, program: ProgramId, tensor: TensorId, values: &[f32]) -> Result<(), RuntimeError> {
        self.on_owner(move |owner| {
            let (program, device) = owner.program(program);
            program.write(device, tensor, values)
        })
    }

    fn run(&mut self, program: ProgramId) -> Result<(), RuntimeError> {
        self.on_owner(move |owner| {
            let (program, device) = owner.program(program);
            program.run(device)
        })
    }

    fn read(&mut self, program: ProgramId, tensor: TensorId, values: &mut [f32]) -> Result<(), RuntimeError> {
        self.on_owner(move |owner| {
            let (program, device) = owner.program(program);
            program.read(device, tensor, values)
        })
    }

    fn copy(&mut self, from: (ProgramId, TensorId), to: (ProgramId, TensorId)) -> Result<(), RuntimeError> {
        self.on_owner(move |owner| {
            let program =
                |id: ProgramId| owner.programs.get(&id.0).expect("a program is used between load and unload");
            let (source, target) = (program(from.0), program(to.0));
            Program::copy(&mut owner.device, (source, from.1), (target, to.1))
        })
    }

    fn unload(&mut self, program: ProgramId) -> Result<(), RuntimeError> {
        self.on_owner(move |owner| {
            let unloaded = owner.programs.remove(&program.0).expect("a program is unloaded once");
            unloaded.unload(&mut owner.device);
            owner.read_gauge();
            owner.device.healthy()
        })
    }

    fn memory(&self) -> Memory {
        Memory {
            used: self.gauge.used.load(Ordering::Relaxed),
            free: self.gauge.free.load(Ordering::Relaxed),
        }
    }
}
