//! Kernels become machine code: NVRTC through eight of its functions, and a cache of compiled modules on disk.
//!
//! The functions are taken from the very library that the probe opened. A damaged or foreign cache entry is compiled
//! again; a cache that cannot be written costs only time.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::os::unix::Library;
use sha2::{Digest, Sha256};

use crate::RuntimeError;

/// What every kernel file begins with.
const PRELUDE: &str = include_str!("../../kernels/prelude.cu");

/// A kernel file behind `statistics.cu`, with lines counted as in each.
macro_rules! with_statistics {
    ($file:literal) => {
        concat!(
            "#line 1 \"statistics.cu\"\n",
            include_str!("../../kernels/statistics.cu"),
            "#line 1 \"",
            $file,
            "\"\n",
            include_str!(concat!("../../kernels/", $file))
        )
    };
}

/// The kernel files. Each is one module.
pub const SOURCES: [(&str, &str); 7] = [
    ("gemm.cu", include_str!("../../kernels/gemm.cu")),
    ("norm.cu", with_statistics!("norm.cu")),
    ("attention.cu", include_str!("../../kernels/attention.cu")),
    ("elementwise.cu", include_str!("../../kernels/elementwise.cu")),
    ("attention_gradient.cu", include_str!("../../kernels/attention_gradient.cu")),
    ("gradient.cu", include_str!("../../kernels/gradient.cu")),
    ("norm_gradient.cu", with_statistics!("norm_gradient.cu")),
];

/// Those that only the way back of a training needs: they are compiled when a program has it.
pub const TRAINING_SOURCES: [&str; 3] = ["attention_gradient.cu", "gradient.cu", "norm_gradient.cu"];

/// First bytes of a cache entry, before the SHA-256 of what follows it.
const MAGIC: &[u8; 8] = b"hrcubin1";

/// Names of the kernels that a source defines.
#[must_use]
pub fn kernel_names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in source.lines() {
        let first = |macro_name: &str| {
            let rest = line.strip_prefix(macro_name)?;
            Some(rest.split([',', ')']).next()?.trim().to_owned())
        };
        if let Some(name) = first("KERNEL(") {
            names.push(name);
        } else if let Some(name) = first("BY_WIDTH(") {
            names.extend([format!("{name}_8"), format!("{name}_1")]);
        } else if let Some(width) = first("ATTENTION(") {
            names.extend([format!("attention_{width}"), format!("attention_{width}_any")]);
        } else if let Some(width) = first("ACROSS(") {
            names.extend([format!("across_{width}"), format!("across_{width}_any")]);
        } else if let Some(width) = first("GRADIENTS_OF(") {
            let cuts = ["", "_1", "_any"];
            for what in ["rows", "query", "key_value"] {
                names.extend(cuts.map(|cut| format!("attention_{what}_{width}{cut}")));
            }
        }
    }
    names
}

/// A compiled module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code for one architecture.
    pub cubin: Vec<u8>,
    /// What the compiler said: registers, spills and shared memory of each kernel. Empty when it came from the cache.
    pub log: String,
    /// Whether it came from the cache.
    pub cached: bool,
}

type Program = *mut c_void;

/// NVRTC's functions.
#[derive(Debug)]
pub struct Compiler {
    version: (c_int, c_int),
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    cache: Option<PathBuf>,
    _library: Library,
}

macro_rules! symbol {
    ($library:expr, $path:expr, $name:literal) => {
        // SAFETY: the signatures are those of nvrtc.h, unchanged since CUDA 11.2.
        *unsafe { $library.get(concat!($name, "\0").as_bytes()) }.map_err(|error| {
            RuntimeError::Unavailable { what: $path.display().to_string(), why: error.to_string() }
        })?
    };
}

impl Compiler {
    /// Takes the functions out of an opened library. Modules are cached in `cache`, where it is given.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when the library lacks one of them.
    pub fn new(path: &Path, library: Library, cache: Option<PathBuf>) -> Result<Self, RuntimeError> {
        let version_of: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int =
            symbol!(library, path, "nvrtcVersion");
        let mut version = (0, 0);
        // SAFETY: both point to integers.
        let status = unsafe { version_of(&raw mut version.0, &raw mut version.1) };
        if status != 0 {
            let why = format!("nvrtcVersion answers {status}");
            return Err(RuntimeError::Unavailable { what: path.display().to_string(), why });
        }
        Ok(Self {
            version,
            create: symbol!(library, path, "nvrtcCreateProgram"),
            compile: symbol!(library, path, "nvrtcCompileProgram"),
            log_size: symbol!(library, path, "nvrtcGetProgramLogSize"),
            log: symbol!(library, path, "nvrtcGetProgramLog"),
            cubin_size: symbol!(library, path, "nvrtcGetCUBINSize"),
            cubin: symbol!(library, path, "nvrtcGetCUBIN"),
            destroy: symbol!(library, path, "nvrtcDestroyProgram"),
            error_string: symbol!(library, path, "nvrtcGetErrorString"),
            cache,
            _library: library,
        })
    }

    /// Version of the compiler: major, minor.
    #[must_use]
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Machine code of one kernel file for `arch` (`sm_80`, `sm_90a`), from the cache or compiled.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] with the compiler's message when it refuses the source or the architecture.
    pub fn module(&self, name: &str, source: &str, arch: &str) -> Result<Compiled, RuntimeError> {
        let text = format!("{PRELUDE}\n#line 1 \"{name}\"\n{source}");
        let options =
            [format!("--gpu-architecture={arch}"), "--std=c++17".to_owned(), "--ptxas-options=-v".to_owned()];
        let entry = self.cache.as_ref().map(|folder| folder.join(self.entry_name(&text, &options)));
        if let Some(cubin) = entry.as_deref().and_then(read_entry) {
            return Ok(Compiled { cubin, log: String::new(), cached: true });
        }
        let compiled = self.compile_text(name, &text, &options)?;
        if let Some(entry) = &entry {
            // Without a cache the next start compiles again; nothing else is lost.
            let _ = write_entry(entry, &compiled.cubin);
        }
        Ok(compiled)
    }

    fn entry_name(&self, text: &str, options: &[String]) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("nvrtc {}.{}\n{}\n", self.version.0, self.version.1, options.join(" ")));
        hash.update(text);
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digest}.cubin")
    }

    fn compile_text(&self, name: &str, text: &str, options: &[String]) -> Result<Compiled, RuntimeError> {
        let c_string = |value: &str| CString::new(value).expect("sources and options hold no zero byte");
        let (text, name_c) = (c_string(text), c_string(name));
        let options: Vec<CString> = options.iter().map(|option| c_string(option)).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: all strings outlive the calls; without headers both header arrays may be null.
        let status = unsafe {
            (self.create)(
                &raw mut program,
                text.as_ptr(),
                name_c.as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        self.check(status, name, "")?;
        let program = OwnedProgram { compiler: self, program };
        let count = c_int::try_from(pointers.len()).expect("a handful of options");
        // SAFETY: the program is alive; `pointers` has `count` strings.
        let status = unsafe { (self.compile)(program.program, count, pointers.as_ptr()) };
        let log = self.text(program.program, name)?;
        self.check(status, name, &log)?;
        let mut bytes = 0;
        // SAFETY: the program is compiled; the buffer has the size that the compiler asks for.
        let cubin = unsafe {
            self.check((self.cubin_size)(program.program, &raw mut bytes), name, "")?;
            let mut cubin = vec![0u8; bytes];
            self.check((self.cubin)(program.program, cubin.as_mut_ptr().cast()), name, "")?;
            cubin
        };
        Ok(Compiled { cubin, log, cached: false })
    }

    fn text(&self, program: Program, name: &str) -> Result<String, RuntimeError> {
        let mut bytes = 0;
        // SAFETY: the program is alive; the buffer has the size that the compiler asks for.
        let text = unsafe {
            self.check((self.log_size)(program, &raw mut bytes), name, "")?;
            let mut text = vec![0u8; bytes.max(1)];
            self.check((self.log)(program, text.as_mut_ptr().cast()), name, "")?;
            text
        };
        Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned())
    }

    fn check(&self, status: c_int, name: &str, log: &str) -> Result<(), RuntimeError> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC returns a static string for every status.
        let message = unsafe { CStr::from_ptr((self.error_string)(status)) }.to_string_lossy();
        let what = format!("kernel file {name}");
        Err(RuntimeError::Unavailable { what, why: format!("{message} {log}").trim_end().to_owned() })
    }
}

struct OwnedProgram<'a> {
    compiler: &'a Compiler,
    program: Program,
}

impl Drop for OwnedProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        unsafe { (self.compiler.destroy)(&raw mut self.program) };
    }
}

/// The folder of compiled modules: `HEADROOM_CACHE`, else `XDG_CACHE_HOME/headroom`, else `~/.cache/headroom`.
#[must_use]
pub fn default_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HEADROOM_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|root| root.join("headroom")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache/headroom")))
        .map(|root| root.join("kernels"))
}

/// A module from the cache; `None` when it is absent or not what was written.
fn read_entry(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let rest = bytes.strip_prefix(MAGIC)?;
    let (digest, cubin) = rest.split_at_checked(32)?;
    (Sha256::digest(cubin).as_slice() == digest).then(|| cubin.to_vec())
}

/// Writes beside the entry and renames, so that a reader sees all of it or nothing.
fn write_entry(path: &Path, cubin: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let part = path.with_extension(format!("part{}", std::process::id()));
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&Sha256::digest(cubin));
    bytes.extend_from_slice(cubin);
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_cache_entries_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/entry.cubin");
        assert_eq!(read_entry(&path), None);
        write_entry(&path, b"machine code").unwrap();
        assert_eq!(read_entry(&path).as_deref(), Some(&b"machine code"[..]));
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..20], b"", &[&whole[..], b"x"].concat()] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(read_entry(&path), None, "{} bytes", damaged.len());
        }
    }

    #[test]
    fn kernels_are_found_in_their_sources() {
        let names: Vec<String> = SOURCES.iter().flat_map(|(_, source)| kernel_names(source)).collect();
        for expected in ["conv_128x128", "linear_few_rows", "attention_512_any", "across_16", "combine"] {
            assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
        }
    }
}
