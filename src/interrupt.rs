//! Ctrl-C: ends the program at once with exit code 130 and takes unfinished files and folders away.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a shell reports for a program that SIGINT ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// The files and folders being written, which must not stay behind.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// What a command does instead of ending at once: it ends by itself, in order.
#[cfg(feature = "live")]
type Request = Box<dyn Fn() + Send>;

#[cfg(feature = "live")]
static REQUEST: Mutex<Option<Request>> = Mutex::new(None);

/// From now on an interrupt (SIGINT, SIGTERM, SIGHUP) calls `request`, which must be quick, and ends nothing by itself.
#[cfg(feature = "live")]
pub(crate) fn ask_instead(request: impl Fn() + Send + 'static) {
    *REQUEST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(request));
}

/// From now on an interrupt ends the program again.
#[cfg(feature = "live")]
pub(crate) fn end_again() {
    *REQUEST.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Starts to listen. Where no handler can be set, the system's own one ends the program.
pub(crate) fn watch() {
    let _ = ctrlc::set_handler(|| {
        #[cfg(feature = "live")]
        if let Some(request) = REQUEST.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return request();
        }
        // Held until the end: no result may take its place meanwhile.
        let unfinished = unfinished();
        for path in unfinished.iter() {
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
        process::exit(i32::from(EXIT_CODE));
    });
}

/// Names a file or folder to take away on an interrupt, for as long as this lives.
pub(crate) struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    /// Makes the file or folder, which is at `path`; no interrupt comes between its making and its naming.
    pub(crate) fn make<T, E>(
        make: impl FnOnce() -> Result<T, E>,
        path: impl FnOnce(&T) -> &Path,
    ) -> Result<(T, Self), E> {
        let mut held = unfinished();
        let made = make()?;
        let path = path(&made).to_owned();
        held.push(path.clone());
        Ok((made, Self { path }))
    }

    /// Does `work`, during which no interrupt ends the program.
    pub(crate) fn uninterrupted<T>(work: impl FnOnce() -> T) -> T {
        let _held = unfinished();
        work()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        unfinished().retain(|path| *path != self.path);
    }
}

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}
