//! A worker: joins a plane, works on what it is told, and reports. It survives lost connections and restarts of the plane with
//! all its work; what the plane does not want any more it drops. It decides nothing but when to give up.

mod bells;
mod desk;
#[cfg(test)]
mod desk_tests;
mod diffusion;
mod imds;
mod link;
mod member;
mod objects;
mod pause;
mod runner;
mod service_time;
mod simulated;

pub use diffusion::{DiffusionError, DiffusionRunner, DiffusionSettings};
pub use imds::{IMDS_URL, watch_interruption};
pub use link::{Address, AddressError};
pub use member::Worker;
pub use objects::{ObjectError, Objects};
pub use runner::{JobControl, Runner, Skills, Timed};
pub use simulated::SleepRunner;

pub(crate) use link::plain_client;

use std::time::Duration;

/// How a worker behaves.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Where the plane is.
    pub address: Address,
    /// Pool to serve.
    pub pool: String,
    /// Token of the launch that made this worker; `None` for one that joins by itself, and stands by again when drained.
    pub launch: Option<String>,
    /// Jobs at once.
    pub slots: u16,
    /// Work without a sign of life for so long is not named in beats, so that it goes elsewhere.
    pub hang_after: Duration,
    /// Without a connection for so long it ends; `None` waits for ever.
    pub alone_for: Option<Duration>,
}

/// Asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not yet.
    No,
    /// Take nothing new, finish within this time, then go.
    Within(Duration),
    /// Go now: unfinished work begins again elsewhere.
    Now,
}

/// Why a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to, or its machine is given back; it held no work.
    Left,
    /// The plane does not want it.
    Refused(String),
    /// Its models cannot be loaded.
    NotPrepared(String),
    /// The device does not work, or cancelled work does not stop: only a new process helps.
    DeviceFailed(String),
    /// It was without a plane for too long.
    Alone(Duration),
}
