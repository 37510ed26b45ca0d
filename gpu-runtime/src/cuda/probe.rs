//! Finds and opens the driver and the run-time compiler, before anything that would panic without them.
//!
//! Libraries are opened by full path and stay open, so that a later lookup by soname finds these very files and
//! `LD_LIBRARY_PATH` is not needed.

use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::RuntimeError;

/// Folders named by the user, first to be searched; separated by `:`.
pub const LIBRARIES_VARIABLE: &str = "HEADROOM_CUDA_LIBRARIES";

/// The oldest driver that knows every call made here: CUDA 12.4 (`cuFuncGetParamInfo`).
const DRIVER_VERSION_MIN: i32 = 12040;

/// Files of one folder looked at, at most.
const ENTRIES_MAX: usize = 4096;

/// Where libraries are looked for, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Folders. A folder that does not exist is passed over.
    pub folders: Vec<PathBuf>,
    /// Whether the system's loader is asked for what no folder has.
    pub ask_loader: bool,
}

impl Search {
    /// The folders of `HEADROOM_CUDA_LIBRARIES`, of `LD_LIBRARY_PATH`, of CUDA toolkits, and of Python environments.
    #[must_use]
    pub fn from_environment() -> Self {
        let listed = |name: &str| -> Vec<PathBuf> {
            std::env::var_os(name).map(|value| std::env::split_paths(&value).collect()).unwrap_or_default()
        };
        let mut folders = listed(LIBRARIES_VARIABLE);
        folders.extend(listed("LD_LIBRARY_PATH"));
        for name in ["CUDA_HOME", "CUDA_PATH"] {
            folders.extend(listed(name).into_iter().map(|root| root.join("lib64")));
        }
        folders.extend(
            [
                "/usr/local/nvidia/lib64",
                "/usr/local/cuda/lib64",
                "/usr/lib/x86_64-linux-gnu",
                "/usr/lib/wsl/lib",
            ]
            .map(PathBuf::from),
        );
        folders.extend(children(Path::new("/usr/local"), "cuda-").into_iter().map(|root| root.join("lib64")));
        let mut pythons: Vec<PathBuf> =
            ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().flat_map(|name| listed(name)).collect();
        pythons.extend(std::env::home_dir().map(|home| home.join(".local")));
        pythons.extend(["/usr/local", "/usr", "/opt/conda"].map(PathBuf::from));
        folders.extend(pythons.iter().flat_map(|root| python_folders(root)));
        Self { folders, ask_loader: true }
    }
}

/// `lib/python3*/{site,dist}-packages/nvidia/*/lib` of a Python environment.
fn python_folders(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for python in children(&root.join("lib"), "python3") {
        for packages in ["site-packages", "dist-packages"] {
            let nvidia = python.join(packages).join("nvidia");
            found.extend(children(&nvidia, "").into_iter().map(|package| package.join("lib")));
        }
    }
    found
}

/// Entries of a folder whose names start with `prefix`, sorted; none when it cannot be read.
fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .take(ENTRIES_MAX)
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// The libraries, open for the rest of the process.
#[derive(Debug)]
pub struct Libraries {
    /// Path of the driver library, for messages.
    pub driver: PathBuf,
    /// Path of the compiler library.
    pub compiler: PathBuf,
    /// Handle of the compiler library.
    pub(super) compiler_handle: Library,
}

/// Opens the driver (`libcuda.so.1`) and the compiler (`libnvrtc.so`, with its built-ins).
///
/// # Errors
/// [`RuntimeError::Unavailable`] when one is missing, cannot be opened, or is too old.
pub fn open(search: &Search) -> Result<Libraries, RuntimeError> {
    let (driver, driver_handle) =
        open_first(search, "libcuda.so.1", &["libcuda.so.1"], "install an NVIDIA driver")?;
    check_driver_version(&driver_handle, &driver)?;
    // Stays open: cudarc opens it again by name. Closing would run its destructors under live threads.
    std::mem::forget(driver_handle);
    let (compiler, compiler_handle) = open_compiler(search)?;
    Ok(Libraries { driver, compiler, compiler_handle })
}

/// Opens the compiler alone: kernels can be compiled where no driver is.
///
/// # Errors
/// [`RuntimeError::Unavailable`] when it is missing or cannot be opened.
pub fn open_compiler(search: &Search) -> Result<(PathBuf, Library), RuntimeError> {
    // NVRTC opens its built-ins by soname at the first compilation and has no search path of its own for them.
    for folder in &search.folders {
        for built_ins in children(folder, "libnvrtc-builtins.so.") {
            if let Ok(handle) = open_file(&built_ins) {
                std::mem::forget(handle);
            }
        }
    }
    let remedy = "install the CUDA toolkit 12 or 13, or the Python package nvidia-cuda-nvrtc";
    open_first(search, "libnvrtc", &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"], remedy)
}

fn open_first(
    search: &Search,
    what: &str,
    names: &[&str],
    remedy: &str,
) -> Result<(PathBuf, Library), RuntimeError> {
    let mut refusals = Vec::new();
    for folder in &search.folders {
        for name in names {
            let path = folder.join(name);
            if path.is_file() {
                match open_file(&path) {
                    Ok(handle) => return Ok((path, handle)),
                    Err(refusal) => refusals.push(refusal),
                }
            }
        }
    }
    if search.ask_loader {
        for name in names {
            if let Ok(handle) = open_file(*name) {
                return Ok((PathBuf::from(name), handle));
            }
        }
    }
    let tried = if refusals.is_empty() {
        format!("not found in {} folders", search.folders.len())
    } else {
        refusals.join("; ")
    };
    let why = format!("{tried}; {remedy}, or name its folder in {LIBRARIES_VARIABLE}");
    Err(RuntimeError::Unavailable { what: what.to_owned(), why })
}

fn open_file(path: impl libloading::AsFilename) -> Result<Library, String> {
    // SAFETY: NVIDIA's libraries may be opened at any time from any thread; their initialisers only set up themselves.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| error.to_string())
}

fn check_driver_version(driver: &Library, path: &Path) -> Result<(), RuntimeError> {
    let refuse = |why: String| RuntimeError::Unavailable { what: path.display().to_string(), why };
    let mut version = 0;
    // SAFETY: `cuDriverGetVersion` has this signature since CUDA 2.2 and may be called before `cuInit`.
    let status = unsafe {
        driver
            .get::<unsafe extern "C" fn(*mut i32) -> i32>(b"cuDriverGetVersion\0")
            .map(|function| function(&raw mut version))
    };
    match status {
        Err(error) => Err(refuse(error.to_string())),
        Ok(status) if status != 0 => Err(refuse(format!("cuDriverGetVersion answers {status}"))),
        Ok(_) if version < DRIVER_VERSION_MIN => Err(refuse(format!(
            "the driver knows CUDA {}.{}; install one for CUDA {}.{} or later",
            version / 1000,
            version % 1000 / 10,
            DRIVER_VERSION_MIN / 1000,
            DRIVER_VERSION_MIN % 1000 / 10
        ))),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(search: &Search, expected: &str) {
        let RuntimeError::Unavailable { what, why } = open(search).expect_err("nothing is there") else {
            panic!("another error")
        };
        assert!(format!("{what}: {why}").contains(expected), "{what}: {why}");
    }

    #[test]
    fn absent_library_is_unavailable() {
        let search = Search { folders: vec![PathBuf::from("/nonexistent")], ask_loader: false };
        check(&search, "install an NVIDIA driver, or name its folder in HEADROOM_CUDA_LIBRARIES");
    }

    #[test]
    fn damaged_library_is_unavailable_and_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libcuda.so.1"), b"not a library").unwrap();
        let search = Search { folders: vec![folder.path().to_owned()], ask_loader: false };
        check(&search, "libcuda.so.1");
    }
}
