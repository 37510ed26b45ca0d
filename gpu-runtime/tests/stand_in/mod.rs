//! The CUDA backend over the stand-in driver: built once from the kernels' own sources, opened by full path.
//!
//! The stand-in is one per process, and so are its settings: tests that use it hold [`StandIn`], one at a time.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its part")]

use std::ffi::{CStr, CString, c_char, c_longlong};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gpu_runtime::cuda::probe::Search;
use gpu_runtime::cuda::{Cuda, Options};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The stand-in driver with its settings as new.
pub(crate) struct StandIn {
    driver: Library,
    pub(crate) folder: PathBuf,
    _guard: MutexGuard<'static, ()>,
}

impl StandIn {
    /// Builds it where that has not been done; `None`, with a printed line, where it cannot run.
    pub(crate) fn new() -> Option<Self> {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = BUILT.get_or_init(build).clone()?;
        // SAFETY: our own library, whose initialisers only set up its globals.
        let driver = unsafe { Library::open(Some(folder.join("libcuda.so.1")), RTLD_NOW | RTLD_GLOBAL) };
        let stand_in = Self { driver: driver.expect("the stand-in opens"), folder, _guard: guard };
        // SAFETY: takes nothing and returns nothing.
        unsafe { stand_in.driver.get::<unsafe extern "C" fn()>(b"stand_in_reset\0").unwrap()() };
        Some(stand_in)
    }

    pub(crate) fn set(&self, what: &str, value: i64) {
        let name = CString::new(what).unwrap();
        // SAFETY: the signature is the one in libcuda.cpp.
        unsafe {
            let set = self.driver.get::<unsafe extern "C" fn(*const c_char, c_longlong)>(b"stand_in_set\0");
            set.unwrap()(name.as_ptr(), value);
        }
    }

    pub(crate) fn get(&self, what: &str) -> i64 {
        let name = CString::new(what).unwrap();
        // SAFETY: the signature is the one in libcuda.cpp.
        unsafe {
            let get = self.driver.get::<unsafe extern "C" fn(*const c_char) -> c_longlong>(b"stand_in_get\0");
            get.unwrap()(name.as_ptr())
        }
    }

    /// Names of the kernels that ran, in order.
    pub(crate) fn launched(&self) -> Vec<String> {
        // SAFETY: the signature is the one in libcuda.cpp; the text is copied at once.
        let text = unsafe {
            let log = self.driver.get::<unsafe extern "C" fn() -> *const c_char>(b"stand_in_launch_log\0");
            CStr::from_ptr(log.unwrap()()).to_string_lossy().into_owned()
        };
        text.lines().map(str::to_owned).collect()
    }

    /// Options that find nothing but the stand-ins.
    pub(crate) fn options(&self) -> Options {
        let search = Search { folders: vec![self.folder.clone()], ask_loader: false };
        Options { ordinal: 0, search, cache: None }
    }

    pub(crate) fn open(&self) -> Cuda {
        Cuda::open(&self.options()).expect("the stand-in is a device")
    }
}

fn build() -> Option<PathBuf> {
    if std::path::Path::new("/dev/nvidia0").exists() {
        println!("skipped: a real driver is here, and would be found in place of the stand-in");
        return None;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("stand-in");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand_in/build");
    match Command::new(script).arg(&folder).status() {
        Ok(status) if status.success() => Some(folder),
        outcome => {
            let demanded = std::env::var_os("HEADROOM_REQUIRE_STAND_IN").is_some();
            assert!(!demanded, "the stand-in driver does not build: {outcome:?}");
            println!("skipped: the stand-in driver needs a C++ compiler ({outcome:?})");
            None
        }
    }
}
