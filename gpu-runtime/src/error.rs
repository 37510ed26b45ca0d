//! What can go wrong in a runtime, by what its owner must do about it.

use std::path::PathBuf;

/// Why a model could not be loaded or a request not be served.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// A library or device is not there: use another backend.
    #[error("{what} is not available: {why}")]
    Unavailable {
        /// Library or device.
        what: String,
        /// What was tried, and the remedy.
        why: String,
    },
    /// Not enough device memory for this request: send it elsewhere or make it smaller.
    #[error("out of device memory: {wanted_bytes} bytes wanted, {free_bytes} free")]
    OutOfMemory {
        /// Bytes of the allocation that failed.
        wanted_bytes: u64,
        /// Bytes free at that time.
        free_bytes: u64,
    },
    /// The device context is broken: this process must be replaced.
    #[error("the device context is broken and the process must be replaced: {why}")]
    Sticky {
        /// What the driver said.
        why: String,
    },
    /// The model folder is damaged or of an unknown kind.
    #[error("model `{path}`: {why}")]
    BadModel {
        /// File or folder at fault.
        path: PathBuf,
        /// What is wrong, with names and numbers, and the remedy.
        why: String,
    },
    /// The request asks for something impossible.
    #[error("bad request: {why}")]
    BadRequest {
        /// What is wrong, and the allowed range.
        why: String,
    },
    /// The request was cancelled between two steps.
    #[error("cancelled after {steps_done} of {steps} steps")]
    Cancelled {
        /// Steps done.
        steps_done: u32,
        /// Steps asked for.
        steps: u32,
    },
}
