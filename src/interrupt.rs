//! Ctrl-C: ends the program at once with exit code 130 and takes the unfinished file away.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a shell reports for a program that SIGINT ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// The file being written, which must not stay behind.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Starts to listen. Where no handler can be set, the system's own one ends the program.
pub(crate) fn watch() {
    let _ = ctrlc::set_handler(|| {
        if let Some(path) = unfinished().take() {
            let _ = std::fs::remove_file(path);
        }
        process::exit(i32::from(EXIT_CODE));
    });
}

/// Names the file to take away on an interrupt, for as long as this lives.
pub(crate) struct Unfinished;

impl Unfinished {
    pub(crate) fn new(path: &Path) -> Self {
        *unfinished() = Some(path.to_owned());
        Self
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        *unfinished() = None;
    }
}

fn unfinished() -> MutexGuard<'static, Option<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}
