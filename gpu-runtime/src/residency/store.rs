//! Loaded models behind one lock: acquire, share a load, evict, release. Which model goes is the ledger's choice.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::counters::{Counters, Source};
use super::ledger::{Begin, Ledger, Plan, Victim};
use super::order::Eviction;
use super::{Bytes, Loaded, Loader, Tier};
use crate::RuntimeError;

/// Time since some moment, from wherever the owner takes it.
type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// Models within budgets of device and host memory, for any number of threads.
///
/// A model is in one tier at a time; one that is used is never evicted. A caller who is refused may try again when
/// somebody has released a model: the store does not wait for that.
pub struct Store<L: Loader> {
    loader: L,
    clock: Clock,
    shared: Mutex<Shared<L>>,
    /// A load has ended, or a model has left the device.
    changed: Condvar,
}

struct Shared<L: Loader> {
    ledger: Ledger,
    device: BTreeMap<String, Arc<L::Device>>,
    host: BTreeMap<String, L::Host>,
    attempts: BTreeMap<String, Arc<Attempt>>,
    /// Why the device is broken.
    broken: Option<String>,
    counters: Counters,
}

/// One load, for those who wait for it.
#[derive(Default)]
struct Attempt {
    outcome: OnceLock<Result<(), RuntimeError>>,
}

/// A model that leaves, until it has.
struct Leaver<D> {
    victim: Victim,
    device: Option<D>,
}

/// Memory and places at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Bytes held, with those that running loads have reserved.
    pub used: Bytes,
    /// The fastest place that wholly holds each model.
    pub tiers: BTreeMap<String, Tier>,
}

impl<L: Loader> Store<L> {
    /// A store without models. `clock` gives the time since any fixed moment; loads are measured with it.
    #[must_use]
    pub fn new(
        loader: L,
        budget: Bytes,
        eviction: Eviction,
        clock: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            ledger: Ledger::new(budget, eviction),
            device: BTreeMap::new(),
            host: BTreeMap::new(),
            attempts: BTreeMap::new(),
            broken: None,
            counters: Counters::default(),
        };
        Self { loader, clock: Box::new(clock), shared: Mutex::new(shared), changed: Condvar::new() }
    }

    /// Makes a model known, with the memory that it takes; nothing is loaded.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] when there is a model of that name.
    pub fn add(&self, model: &str, bytes: Bytes) -> Result<(), RuntimeError> {
        if self.lock().ledger.add(model, bytes) {
            return Ok(());
        }
        Err(RuntimeError::BadRequest { why: format!("model `{model}` is known already; use another name") })
    }

    /// Keeps a model from being evicted once it is loaded, or no longer.
    ///
    /// # Errors
    /// [`RuntimeError::BadRequest`] when there is no model of that name.
    pub fn pin(&self, model: &str, pinned: bool) -> Result<(), RuntimeError> {
        if self.lock().ledger.pin(model, pinned) { Ok(()) } else { Err(unknown(model)) }
    }

    /// A model, ready to use until the guard is dropped; loaded where it is not, with idle models evicted for it.
    ///
    /// Waits for a load or an eviction that is under way; several callers share one load, and its error.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`] when models in use or pinned leave no room; [`RuntimeError::Sticky`] when the device
    /// has failed once, forever; [`RuntimeError::BadRequest`] when there is no model of that name; what the loader says.
    ///
    /// # Panics
    /// When the loader does; the store is broken then.
    pub fn acquire(&self, model: &str) -> Result<Guard<'_, L>, RuntimeError> {
        let mut shared = self.lock();
        loop {
            if let Some(why) = &shared.broken {
                return Err(RuntimeError::Sticky { why: why.clone() });
            }
            match shared.ledger.begin(model) {
                Begin::Unknown => return Err(unknown(model)),
                Begin::Ready => {
                    shared.counters.hits += 1;
                    return Ok(self.guard(&shared, model));
                }
                Begin::Join => return self.join(shared, model),
                Begin::Wait => shared = self.wait(shared),
                Begin::Refused { wanted, free } => {
                    shared.counters.refusals += 1;
                    return Err(RuntimeError::OutOfMemory { wanted_bytes: wanted, free_bytes: free });
                }
                Begin::Load(plan) => return self.load(shared, model, plan),
            }
        }
    }

    /// Says that the device has failed: every later acquire ends with [`RuntimeError::Sticky`].
    pub fn poison(&self, why: &str) {
        self.lock().broken.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.lock().counters.clone()
    }

    /// Memory and places now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let shared = self.lock();
        Usage { used: shared.ledger.used(), tiers: shared.ledger.tiers() }
    }

    /// What brings models and takes them away.
    #[must_use]
    pub fn loader(&self) -> &L {
        &self.loader
    }

    fn join(&self, mut shared: MutexGuard<Shared<L>>, model: &str) -> Result<Guard<'_, L>, RuntimeError> {
        shared.counters.joined += 1;
        let attempt = Arc::clone(shared.attempts.get(model).expect("a load under way has an attempt"));
        loop {
            match attempt.outcome.get() {
                Some(Ok(())) => return Ok(self.guard(&shared, model)),
                Some(Err(error)) => return Err(error.clone()),
                None => shared = self.wait(shared),
            }
        }
    }

    fn load(
        &self,
        mut shared: MutexGuard<Shared<L>>,
        model: &str,
        plan: Plan,
    ) -> Result<Guard<'_, L>, RuntimeError> {
        shared.counters.misses += 1;
        shared.counters.host_evictions += plan.dropped.len() as u64;
        // Under the lock, so that nobody fills their room before they are gone.
        plan.dropped.iter().for_each(|dropped| drop(shared.host.remove(dropped)));
        let mut leavers: VecDeque<Leaver<L::Device>> = plan
            .victims
            .into_iter()
            .map(|victim| {
                let held = shared.device.remove(&victim.model).expect("victims are on the device");
                let device = Some(Arc::into_inner(held).expect("an idle model has no guard"));
                Leaver { victim, device }
            })
            .collect();
        let host = shared.host.remove(model);
        shared.attempts.insert(model.to_owned(), Arc::default());
        drop(shared);

        let work = AssertUnwindSafe(|| -> Result<_, RuntimeError> {
            while !leavers.is_empty() {
                self.evict_first(&mut leavers, model)?;
            }
            let started = (self.clock)();
            let loaded = self.loader.load(model, host.as_ref())?;
            Ok((loaded, (self.clock)().saturating_sub(started)))
        });
        let done = catch_unwind(work);
        match done {
            Ok(Ok((loaded, took))) => Ok(self.succeed(model, loaded, host, took)),
            Ok(Err(error)) => {
                self.fail(model, leavers, host, error.clone());
                Err(error)
            }
            Err(panic) => {
                let why = format!("loading or evicting for `{model}` panicked: {}", said(panic.as_ref()));
                self.fail(model, leavers, host, RuntimeError::Sticky { why });
                resume_unwind(panic)
            }
        }
    }

    /// Takes the first of the leavers off the device.
    fn evict_first(
        &self,
        leavers: &mut VecDeque<Leaver<L::Device>>,
        for_model: &str,
    ) -> Result<(), RuntimeError> {
        let Some(Leaver { victim, device }) = leavers.front_mut() else { return Ok(()) };
        let device = device.take().expect("a leaver is evicted once");
        let copy = self.loader.evict(&victim.model, device, victim.keep);
        let Leaver { victim, .. } = leavers.pop_front().expect("it was looked at");
        let (copy, outcome) = match copy {
            Ok(copy) => (copy.filter(|_| victim.keep), Ok(())),
            Err(error @ RuntimeError::Sticky { .. }) => (None, Err(error)),
            Err(_) => (None, Ok(())),
        };
        let mut shared = self.lock();
        shared.left(&victim.model, copy, for_model);
        self.changed.notify_all();
        outcome
    }

    fn succeed(
        &self,
        model: &str,
        loaded: Loaded<L::Device>,
        host: Option<L::Host>,
        took: Duration,
    ) -> Guard<'_, L> {
        let source = if host.is_some() { Source::Pinned } else { loaded.source };
        drop(host);
        let mut shared = self.lock();
        let bytes = shared.ledger.bytes(model).device;
        shared.ledger.loaded(model, took.as_secs_f64());
        shared.device.insert(model.to_owned(), Arc::new(loaded.value));
        shared.counters.loads.entry(source).or_default().add(bytes, took);
        shared.end(model, Ok(()));
        self.changed.notify_all();
        self.guard(&shared, model)
    }

    /// Undoes what a load had begun.
    fn fail(
        &self,
        model: &str,
        leavers: VecDeque<Leaver<L::Device>>,
        host: Option<L::Host>,
        error: RuntimeError,
    ) {
        let mut shared = self.lock();
        for Leaver { victim, device } in leavers {
            match device {
                Some(device) => {
                    shared.ledger.stays(&victim.model);
                    shared.device.insert(victim.model, Arc::new(device));
                }
                // Its eviction panicked.
                None => shared.left(&victim.model, None, model),
            }
        }
        shared.ledger.failed(model);
        if let Some(host) = host {
            shared.host.insert(model.to_owned(), host);
        }
        shared.counters.failures += 1;
        if let RuntimeError::Sticky { why } = &error {
            shared.broken.get_or_insert_with(|| why.clone());
        }
        shared.end(model, Err(error));
        self.changed.notify_all();
    }

    /// A guard for a user who is counted.
    fn guard(&self, shared: &Shared<L>, model: &str) -> Guard<'_, L> {
        let value = Arc::clone(shared.device.get(model).expect("a model with users is on the device"));
        Guard { store: self, model: model.to_owned(), value: Some(value) }
    }

    /// Nothing that runs under the lock leaves it half-changed by a panic, but for a host copy's own `drop`.
    fn lock(&self) -> MutexGuard<'_, Shared<L>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, shared: MutexGuard<'a, Shared<L>>) -> MutexGuard<'a, Shared<L>> {
        self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Loader> Shared<L> {
    /// A victim is off the device.
    fn left(&mut self, victim: &str, copy: Option<L::Host>, for_model: &str) {
        self.counters.bytes_evicted += self.ledger.bytes(victim).device;
        self.ledger.left(victim, copy.is_some(), for_model);
        match copy {
            Some(copy) => {
                self.counters.evictions_to_host += 1;
                self.host.insert(victim.to_owned(), copy);
            }
            None => self.counters.evictions_to_disk += 1,
        }
    }

    /// Tells those who wait for a load how it ended.
    fn end(&mut self, model: &str, outcome: Result<(), RuntimeError>) {
        let attempt = self.attempts.remove(model).expect("a load under way has an attempt");
        attempt.outcome.set(outcome).expect("a load ends once");
    }
}

impl<L: Loader> fmt::Debug for Store<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { used, tiers } = self.usage();
        formatter.debug_struct("Store").field("used", &used).field("tiers", &tiers).finish_non_exhaustive()
    }
}

/// A model in use: it stays on the device until this is dropped.
pub struct Guard<'a, L: Loader> {
    store: &'a Store<L>,
    model: String,
    /// Given back before the model counts as idle.
    value: Option<Arc<L::Device>>,
}

impl<L: Loader> Guard<'_, L> {
    /// Name of the model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }
}

impl<L: Loader> Deref for Guard<'_, L> {
    type Target = L::Device;

    fn deref(&self) -> &L::Device {
        self.value.as_ref().expect("a guard has its model until it is dropped")
    }
}

impl<L: Loader> Drop for Guard<'_, L> {
    fn drop(&mut self) {
        // Under the lock: an evictor must find no other owner of an idle model.
        let mut shared = self.store.lock();
        self.value = None;
        shared.ledger.release(&self.model);
    }
}

impl<L: Loader> fmt::Debug for Guard<'_, L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Guard").field("model", &self.model).finish_non_exhaustive()
    }
}

fn unknown(model: &str) -> RuntimeError {
    RuntimeError::BadRequest { why: format!("model `{model}` is not known; add it first") }
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
