//! Which models are kept on a device and in host memory, within budgets of bytes, and how many replicas fit.
//!
//! A [`Store`] loads a model when it is first asked for and evicts idle ones for it. It knows neither what a model is
//! nor how it is loaded: a [`Loader`] does, so that everything here is tested without a device. It must not read a clock
//! of its own or start threads.

mod counters;
mod density;
mod ledger;
#[cfg(test)]
mod ledger_tests;
mod order;
mod store;
#[cfg(test)]
mod store_tests;

pub use counters::{Counters, LoadTimes, Source};
pub use density::{Footprint, Placement, density_max};
pub use order::Eviction;
pub use store::{Guard, Store, Usage};

use crate::RuntimeError;

/// The fastest place that holds a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Ready to run.
    Device,
    /// A copy in host memory.
    Host,
    /// Its files alone.
    Disk,
}

/// Memory that one model takes, or that all may take together, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// On the device: weights, and tensors of all programs that are kept.
    pub device: u64,
    /// Of a copy in host memory.
    pub host: u64,
}

/// What a loader made.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The model on the device.
    pub value: T,
    /// Where its bytes came from. Not looked at when the store gave a host copy: that is [`Source::Pinned`].
    pub source: Source,
}

/// Brings models to a device and away from it. The store calls it without holding a lock, for several models at once.
pub trait Loader {
    /// A model on the device.
    type Device;
    /// A copy in host memory, from which a load is faster. Dropping it frees its memory and must not use the store.
    type Host;

    /// Loads a model, from the host copy where there is one, else from its files.
    ///
    /// # Errors
    /// Whatever fails; nothing of the model may stay on the device then.
    fn load(&self, model: &str, host: Option<&Self::Host>) -> Result<Loaded<Self::Device>, RuntimeError>;

    /// Takes a model off the device; where `keep` is set, it may give a copy in host memory.
    ///
    /// # Errors
    /// [`RuntimeError::Sticky`] when the device has failed. Any other error says that there is no copy; the model is off
    /// the device all the same.
    fn evict(
        &self,
        model: &str,
        device: Self::Device,
        keep: bool,
    ) -> Result<Option<Self::Host>, RuntimeError>;
}
