//! The device as its owner thread sees it: context, stream, kernels, memory, copies. Every driver call is here.
//!
//! Plain driver calls instead of cudarc's slices: nothing tracks events, and errors are told apart by what the owner
//! must do. After a sticky error nothing is called any more.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_void};

use cudarc::driver::{DriverError, result, sys};

use super::arguments::Launch;
use super::nvrtc::{Compiler, SOURCES, TRAINING_SOURCES, kernel_names};
use crate::RuntimeError;

/// The oldest architecture that has bf16 tensor cores and asynchronous copies: Ampere.
const CAPABILITY_MIN: i32 = 80;
/// Dynamic shared memory that a kernel may use without asking for it.
const SHARED_BYTES_FREE: u32 = 48 << 10;

/// Kernels that exist for Hopper alone begin so.
pub(super) const HOPPER: &str = "hopper_";

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// As the driver names it.
    pub name: String,
    /// Highest CUDA version that the driver knows: 13000 is 13.0.
    pub driver_version: i32,
    /// Compute capability: 90 is 9.0.
    pub capability: i32,
    /// Multiprocessors.
    pub processors: u32,
    /// Device memory in bytes.
    pub memory_bytes: u64,
    /// Version of the run-time compiler.
    pub compiler_version: (i32, i32),
}

impl Facts {
    /// Architecture to compile for; Hopper's own instructions need the `a` target.
    #[must_use]
    pub fn architecture(&self) -> String {
        let own = if self.capability == 90 { "a" } else { "" };
        format!("sm_{}{own}", self.capability)
    }
}

struct Function {
    handle: sys::CUfunction,
    argument_bytes: usize,
    shared_bytes: u32,
}

/// A captured program, ready to launch.
pub(super) struct Captured {
    handle: sys::CUgraphExec,
    /// Kernel nodes of the graph.
    pub(super) nodes: usize,
}

/// Pinned host memory that reads go through.
struct Staging {
    pointer: *mut c_void,
    bytes: usize,
}

pub(super) struct Device {
    ordinal: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    compiler: Compiler,
    modules: BTreeMap<&'static str, sys::CUmodule>,
    functions: BTreeMap<String, Function>,
    staging: Staging,
    used_bytes: u64,
    broken: Option<String>,
    pub(super) facts: Facts,
}

impl Device {
    /// Opens device `ordinal` on this thread, which owns it from now on, and loads all kernels but those of training.
    pub(super) fn open(ordinal: i32, compiler: Compiler) -> Result<Self, RuntimeError> {
        let (handle, mut facts) = find(ordinal)?;
        facts.compiler_version = compiler.version();
        // SAFETY: the device exists; the context is made current for this thread, which alone uses it.
        let (context, stream) = unsafe {
            let context = result::primary_ctx::retain(handle).map_err(|error| absent(&facts.name, error))?;
            let stream = result::ctx::set_current(context)
                .and_then(|()| result::stream::create(result::stream::StreamKind::NonBlocking));
            match stream {
                Ok(stream) => (context, stream),
                Err(error) => {
                    // The failure to open is what is reported.
                    let _ = result::primary_ctx::release(handle);
                    return Err(absent(&facts.name, error));
                }
            }
        };
        let mut device = Self {
            ordinal: handle,
            context,
            stream,
            compiler,
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            staging: Staging { pointer: std::ptr::null_mut(), bytes: 0 },
            used_bytes: 0,
            broken: None,
            facts,
        };
        for (name, source) in SOURCES.into_iter().filter(|(name, _)| !TRAINING_SOURCES.contains(name)) {
            device.load_kernels(name, source)?;
        }
        Ok(device)
    }

    /// Loads the kernels of these launches that are not loaded yet, which must not happen while capturing.
    pub(super) fn want(&mut self, launches: &[Launch]) -> Result<(), RuntimeError> {
        for (name, source) in SOURCES {
            if self.modules.contains_key(name) {
                continue;
            }
            let names = kernel_names(source);
            if launches.iter().any(|launch| names.iter().any(|name| name == launch.kernel)) {
                self.load_kernels(name, source)?;
            }
        }
        Ok(())
    }

    fn load_kernels(&mut self, name: &'static str, source: &str) -> Result<(), RuntimeError> {
        let architecture = self.facts.architecture();
        let compiled = self.compiler.module(name, source, &architecture)?;
        // SAFETY: a cubin is self-contained and outlives the call.
        let loaded = unsafe { result::module::load_data(compiled.cubin.as_ptr().cast()) };
        let module = self.check(loaded, "loading a module")?;
        self.modules.insert(name, module);
        let own = architecture.ends_with('a');
        for kernel in kernel_names(source).into_iter().filter(|name| own || !name.starts_with(HOPPER)) {
            let function = self.function(module, &kernel)?;
            self.functions.insert(kernel, function);
        }
        Ok(())
    }

    fn function(&mut self, module: sys::CUmodule, kernel: &str) -> Result<Function, RuntimeError> {
        let name = CString::new(kernel).expect("kernel names hold no zero byte");
        // SAFETY: the module is loaded.
        let handle = self.check(unsafe { result::module::get_function(module, name) }, kernel)?;
        let (mut offset, mut bytes) = (0usize, 0usize);
        // SAFETY: the function is loaded; both pointers are valid.
        let status = unsafe { sys::cuFuncGetParamInfo(handle, 0, &raw mut offset, &raw mut bytes) };
        self.check(status.result(), "asking for a kernel's parameter")?;
        // Drivers load kernels at their first launch, which could then fall into a capture.
        // SAFETY: the function belongs to a loaded module.
        self.check(unsafe { sys::cuFuncLoad(handle) }.result(), "loading a kernel")?;
        Ok(Function { handle, argument_bytes: bytes, shared_bytes: SHARED_BYTES_FREE })
    }

    /// Turns a driver's answer into ours; anything but a lack of memory breaks the device for good.
    fn check<T>(&mut self, answer: Result<T, DriverError>, doing: &str) -> Result<T, RuntimeError> {
        match answer {
            Ok(value) => Ok(value),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(self.out_of_memory(0)),
            Err(error) => {
                let why = format!("{doing}: {}", message(error));
                self.broken = Some(why.clone());
                Err(RuntimeError::Sticky { why })
            }
        }
    }

    fn out_of_memory(&self, wanted_bytes: u64) -> RuntimeError {
        let free_bytes = result::mem_get_info().map_or(0, |(free, _)| free as u64);
        RuntimeError::OutOfMemory { wanted_bytes, free_bytes }
    }

    /// Whether the device can still be used.
    pub(super) fn healthy(&self) -> Result<(), RuntimeError> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(RuntimeError::Sticky { why: why.clone() }),
        }
    }

    /// Allocates; the content is anything.
    pub(super) fn allocate(&mut self, bytes: u64) -> Result<Memory, RuntimeError> {
        self.healthy()?;
        let size = usize::try_from(bytes.max(1)).map_err(|_| self.out_of_memory(bytes))?;
        // SAFETY: the context is current on this thread.
        match unsafe { result::malloc_sync(size) } {
            Ok(address) => {
                self.used_bytes += bytes;
                Ok(Memory { address, bytes })
            }
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(self.out_of_memory(bytes)),
            Err(error) => self.check(Err(error), "allocating"),
        }
    }

    /// Frees. After a sticky error the driver frees everything with the process.
    pub(super) fn free(&mut self, memory: Memory) {
        self.used_bytes -= memory.bytes;
        if self.broken.is_none() {
            // SAFETY: allocated here and freed once, as `Memory` cannot be copied.
            let freed = unsafe { result::free_sync(memory.address) };
            // A failure marks the device as broken, which the next call reports.
            let _ = self.check(freed, "freeing memory");
        }
    }

    /// Fills with zeros, in stream order.
    pub(super) fn zero(&mut self, memory: &Memory) -> Result<(), RuntimeError> {
        self.healthy()?;
        // SAFETY: the range is allocated.
        let done = unsafe { result::memset_d8_async(memory.address, 0, memory.bytes as usize, self.stream) };
        self.check(done, "clearing memory")
    }

    /// Copies from the host, in stream order. The source may be reused when this returns: it is pageable memory,
    /// which the driver stages first.
    pub(super) fn upload(&mut self, to: u64, from: &[u8]) -> Result<(), RuntimeError> {
        self.healthy()?;
        // SAFETY: the callers pass ranges inside their own allocations.
        let done = unsafe { result::memcpy_htod_async(to, from, self.stream) };
        self.check(done, "copying to the device")
    }

    /// Copies to the host and waits for everything before it.
    pub(super) fn download(
        &mut self,
        from: u64,
        bytes: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), RuntimeError> {
        self.healthy()?;
        self.grow_staging(bytes)?;
        // SAFETY: the staging buffer has at least `bytes`; it is read only after the stream is idle.
        unsafe {
            let status = sys::cuMemcpyDtoHAsync_v2(self.staging.pointer, from, bytes, self.stream);
            self.check(status.result(), "copying from the device")?;
            self.wait()?;
            into.clear();
            into.extend_from_slice(std::slice::from_raw_parts(self.staging.pointer.cast::<u8>(), bytes));
        }
        Ok(())
    }

    fn grow_staging(&mut self, bytes: usize) -> Result<(), RuntimeError> {
        if self.staging.bytes >= bytes && !self.staging.pointer.is_null() {
            return Ok(());
        }
        self.drop_staging();
        let bytes = bytes.next_power_of_two().max(1 << 16);
        // Flags 0: memory that is quick to read back, unlike write-combined.
        // SAFETY: the context is current on this thread.
        let pinned = unsafe { result::malloc_host(bytes, 0) };
        self.staging = Staging { pointer: self.check(pinned, "pinning host memory")?, bytes };
        Ok(())
    }

    fn drop_staging(&mut self) {
        let staging =
            std::mem::replace(&mut self.staging, Staging { pointer: std::ptr::null_mut(), bytes: 0 });
        if !staging.pointer.is_null() && self.broken.is_none() {
            // SAFETY: allocated here; no copy is under way, as every download waits.
            let freed = unsafe { result::free_host(staging.pointer) };
            let _ = self.check(freed, "freeing pinned memory");
        }
    }

    /// Copies on the device, in stream order.
    pub(super) fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), RuntimeError> {
        self.healthy()?;
        // SAFETY: the callers pass ranges inside their own allocations.
        let done = unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) };
        self.check(done, "copying on the device")
    }

    /// Waits for everything before.
    pub(super) fn wait(&mut self) -> Result<(), RuntimeError> {
        self.healthy()?;
        // SAFETY: the stream is ours.
        let done = unsafe { result::stream::synchronize(self.stream) };
        self.check(done, "waiting for the device")
    }

    /// Launches one kernel, in stream order, or records it while capturing.
    fn launch(&mut self, launch: &Launch) -> Result<(), RuntimeError> {
        let Some(function) = self.functions.get_mut(launch.kernel) else {
            unreachable!("kernel `{}` is not in any source", launch.kernel)
        };
        assert_eq!(
            function.argument_bytes, launch.argument_bytes,
            "the parameter of `{}` here and in its source",
            launch.kernel
        );
        let handle = function.handle;
        if launch.shared_bytes > function.shared_bytes {
            function.shared_bytes = launch.shared_bytes;
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let wanted = i32::try_from(launch.shared_bytes).expect("a block has less than 2 GiB");
            // SAFETY: the function is loaded.
            let done = unsafe { result::function::set_function_attribute(handle, attribute, wanted) };
            self.check(done, launch.kernel)?;
        }
        let mut parameters = [launch.arguments.as_ptr().cast_mut().cast::<c_void>()];
        let [x, y, z] = launch.grid;
        // SAFETY: the only parameter points to a struct of the size that the kernel takes, as asserted above.
        let done = unsafe {
            result::launch_kernel(
                handle,
                (x, y, z),
                (launch.threads, 1, 1),
                launch.shared_bytes,
                self.stream,
                &mut parameters,
            )
        };
        self.check(done, launch.kernel)
    }

    /// Launches in order without capturing, for timing and checking single operations.
    pub(super) fn launch_all(&mut self, launches: &[Launch]) -> Result<(), RuntimeError> {
        self.healthy()?;
        launches.iter().try_for_each(|launch| self.launch(launch))
    }

    /// Captures launches into a graph and makes it ready to run.
    pub(super) fn capture(&mut self, launches: &[Launch]) -> Result<Captured, RuntimeError> {
        self.healthy()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours and idle in host order; the graph handles are used once each below.
        unsafe {
            let begun = result::stream::begin_capture(self.stream, mode);
            self.check(begun, "beginning a capture")?;
            let launched = launches.iter().try_for_each(|launch| self.launch(launch));
            let graph = result::stream::end_capture(self.stream);
            launched?;
            let graph = self.check(graph, "ending a capture")?;
            let mut nodes = 0;
            let counted = sys::cuGraphGetNodes(graph, std::ptr::null_mut(), &raw mut nodes).result();
            let mut handle = std::ptr::null_mut();
            let made = sys::cuGraphInstantiateWithFlags(&raw mut handle, graph, 0).result();
            let destroyed = result::graph::destroy(graph);
            self.check(made, "instantiating a graph")?;
            let captured = Captured { handle, nodes };
            let uploaded = result::graph::upload(handle, self.stream);
            let checked = self.check(counted.and(destroyed).and(uploaded), "preparing a graph");
            match checked {
                Ok(()) => Ok(captured),
                Err(error) => {
                    self.discard(captured);
                    Err(error)
                }
            }
        }
    }

    /// Runs a captured program, in stream order. Returns before it is done.
    pub(super) fn replay(&mut self, captured: &Captured) -> Result<(), RuntimeError> {
        self.healthy()?;
        // SAFETY: the graph is alive; what it reads and writes is freed only after it.
        let done = unsafe { result::graph::launch(captured.handle, self.stream) };
        self.check(done, "launching a graph")
    }

    /// Milliseconds of device time between the beginning and the end of `work`.
    pub(super) fn time(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), RuntimeError>,
    ) -> Result<f32, RuntimeError> {
        self.healthy()?;
        let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
        let made = result::event::create(flags).and_then(|start| Ok((start, result::event::create(flags)?)));
        let (start, end) = self.check(made, "creating events")?;
        // SAFETY: both events are alive until destroyed below.
        unsafe {
            let recorded = result::event::record(start, self.stream);
            self.check(recorded, "recording an event")?;
            work(self)?;
            let measured = result::event::record(end, self.stream)
                .and_then(|()| result::event::synchronize(end))
                .and_then(|()| result::event::elapsed(start, end));
            let milliseconds = self.check(measured, "measuring")?;
            let destroyed = result::event::destroy(start).and(result::event::destroy(end));
            self.check(destroyed, "destroying events")?;
            Ok(milliseconds)
        }
    }

    /// Drops a captured program.
    pub(super) fn discard(&mut self, captured: Captured) {
        if self.broken.is_none() {
            // SAFETY: instantiated here, destroyed once.
            let destroyed = unsafe { result::graph::exec_destroy(captured.handle) };
            let _ = self.check(destroyed, "destroying a graph");
        }
    }

    /// Bytes allocated here, and bytes free on the device.
    pub(super) fn memory(&mut self) -> Result<(u64, u64), RuntimeError> {
        self.healthy()?;
        let (free, _) = self.check(result::mem_get_info(), "asking for free memory")?;
        Ok((self.used_bytes, free as u64))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // After a sticky error every call fails; the process is about to be replaced.
        let _ = self.wait();
        self.drop_staging();
        if self.broken.is_none() {
            // SAFETY: all of these were made here and are released once.
            unsafe {
                for module in std::mem::take(&mut self.modules).into_values() {
                    let _ = result::module::unload(module);
                }
                let _ = result::stream::destroy(self.stream);
                let _ = result::ctx::set_current(std::ptr::null_mut());
                debug_assert!(!self.context.is_null());
                let _ = result::primary_ctx::release(self.ordinal);
            }
        }
    }
}

/// A range of device memory; freed by [`Device::free`] alone.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) address: u64,
    pub(super) bytes: u64,
}

impl Memory {
    pub(super) fn contains(&self, address: u64) -> bool {
        (self.address..self.address + self.bytes.max(1)).contains(&address)
    }
}

fn find(ordinal: i32) -> Result<(sys::CUdevice, Facts), RuntimeError> {
    let what = format!("CUDA device {ordinal}");
    let ask = || -> Result<(sys::CUdevice, Facts), DriverError> {
        result::init()?;
        let handle = result::device::get(ordinal)?;
        let mut driver_version = 0;
        // SAFETY: the device exists; the pointer is valid.
        unsafe {
            sys::cuDriverGetVersion(&raw mut driver_version).result()?;
            use sys::CUdevice_attribute as Attribute;
            let attribute = |which| result::device::get_attribute(handle, which);
            let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            let processors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
            let facts = Facts {
                name: result::device::get_name(handle)?,
                driver_version,
                capability: major * 10 + minor,
                processors: processors.unsigned_abs().max(1),
                memory_bytes: result::device::total_mem(handle)? as u64,
                compiler_version: (0, 0),
            };
            Ok((handle, facts))
        }
    };
    let (handle, facts) = ask().map_err(|error| absent(&what, error))?;
    if facts.capability < CAPABILITY_MIN {
        let why = format!(
            "{} has compute capability {}.{}; bf16 kernels need 8.0 (A100, RTX 30) or later",
            facts.name,
            facts.capability / 10,
            facts.capability % 10
        );
        return Err(RuntimeError::Unavailable { what, why });
    }
    Ok((handle, facts))
}

fn absent(what: &str, error: DriverError) -> RuntimeError {
    RuntimeError::Unavailable { what: what.to_owned(), why: message(error) }
}

fn message(error: DriverError) -> String {
    let text = |found: Result<&CStr, DriverError>| {
        found.map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({}), code {}", text(error.error_string()), text(error.error_name()), error.0 as u32)
}
