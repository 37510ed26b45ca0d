//! The store with models that are numbers, a device that counts its bytes, and a clock that loads turn.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A loader whose models take bytes of a device that refuses what it does not have.
struct Fake {
    bytes: BTreeMap<String, Bytes>,
    budget: Bytes,
    device: Arc<AtomicU64>,
    host: Arc<AtomicU64>,
    /// What the next loads and evictions end with.
    faults: Mutex<Vec<Fault>>,
    /// Nanoseconds; a load from the disk takes a second, from host memory a tenth.
    clock: Arc<AtomicU64>,
    loads: AtomicU64,
    /// Called by every load before it ends.
    meanwhile: Box<dyn Fn(&str) + Send + Sync>,
}

#[derive(Clone, Debug)]
enum Fault {
    Load(RuntimeError),
    Evict(RuntimeError),
    LoadPanics,
}

/// Bytes that are held until this is dropped.
struct Held {
    of: Arc<AtomicU64>,
    bytes: u64,
}

impl Held {
    fn new(of: &Arc<AtomicU64>, bytes: u64, budget: u64) -> Self {
        let before = of.fetch_add(bytes, Ordering::SeqCst);
        assert!(before + bytes <= budget, "{before} + {bytes} bytes are more than {budget}");
        Self { of: Arc::clone(of), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// A model on the device.
struct Copy {
    name: String,
    _held: Held,
}

impl Fake {
    fn new(models: &[(&str, u64, u64)], budget: (u64, u64)) -> Self {
        let bytes = models.iter().map(|&(name, device, host)| (name.to_owned(), Bytes { device, host }));
        Self {
            bytes: bytes.collect(),
            budget: Bytes { device: budget.0, host: budget.1 },
            device: Arc::default(),
            host: Arc::default(),
            faults: Mutex::default(),
            clock: Arc::default(),
            loads: AtomicU64::new(0),
            meanwhile: Box::new(|_| {}),
        }
    }

    fn store(self, eviction: Eviction) -> Store<Self> {
        let (clock, bytes, budget) = (Arc::clone(&self.clock), self.bytes.clone(), self.budget);
        let now = move || Duration::from_nanos(clock.load(Ordering::SeqCst));
        let store = Store::new(self, budget, eviction, now);
        bytes.iter().for_each(|(name, &bytes)| store.add(name, bytes).unwrap());
        store
    }

    fn fault(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let index = faults.iter().position(wanted)?;
        Some(faults.remove(index))
    }
}

impl Loader for Fake {
    type Device = Copy;
    type Host = Held;

    fn load(&self, model: &str, host: Option<&Held>) -> Result<Loaded<Copy>, RuntimeError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let nanos = if host.is_some() { 100_000_000 } else { 1_000_000_000 };
        self.clock.fetch_add(nanos, Ordering::SeqCst);
        let held = Held::new(&self.device, self.bytes[model].device, self.budget.device);
        (self.meanwhile)(model);
        match self.fault(|fault| !matches!(fault, Fault::Evict(_))) {
            Some(Fault::Load(error)) => Err(error),
            Some(_) => panic!("a planned panic"),
            None => Ok(Loaded { value: Copy { name: model.to_owned(), _held: held }, source: Source::Disk }),
        }
    }

    fn evict(&self, model: &str, device: Copy, keep: bool) -> Result<Option<Held>, RuntimeError> {
        assert_eq!(device.name, model);
        drop(device);
        match self.fault(|fault| matches!(fault, Fault::Evict(_))) {
            Some(Fault::Evict(error)) => Err(error),
            _ => Ok(keep.then(|| Held::new(&self.host, self.bytes[model].host, self.budget.host))),
        }
    }
}

fn tiers(store: &Store<Fake>) -> Vec<Tier> {
    store.usage().tiers.into_values().collect()
}

fn sticky() -> RuntimeError {
    RuntimeError::Sticky { why: "error 719".to_owned() }
}

fn bad_model() -> RuntimeError {
    RuntimeError::BadModel { path: "unet".into(), why: "is cut short".to_owned() }
}

const THREE: [(&str, u64, u64); 3] = [("a", 4, 3), ("b", 4, 3), ("c", 4, 3)];

#[test]
fn models_move_through_the_tiers_and_loads_are_timed_by_source() {
    let store = Fake::new(&THREE, (8, 3)).store(Eviction::LeastRecentlyUsed);
    for name in ["a", "b", "a", "c", "b"] {
        assert_eq!(store.acquire(name).unwrap().name, name);
    }
    // c displaced b, whose copy displaced none; b came back from it and displaced a, for whose copy there was no room.
    assert_eq!(tiers(&store), [Tier::Disk, Tier::Device, Tier::Device]);
    drop(store.acquire("a").unwrap());
    assert_eq!(tiers(&store), [Tier::Device, Tier::Device, Tier::Host]);
    let times = |count, bytes, total_ms, max_ms| LoadTimes {
        count,
        bytes,
        total: Duration::from_millis(total_ms),
        max: Duration::from_millis(max_ms),
    };
    let expected = Counters {
        hits: 1,
        misses: 5,
        evictions_to_host: 2,
        evictions_to_disk: 1,
        bytes_evicted: 12,
        loads: [(Source::Disk, times(4, 16, 4000, 1000)), (Source::Pinned, times(1, 4, 100, 100))].into(),
        ..Counters::default()
    };
    assert_eq!(store.counters(), expected);
    assert_eq!(store.counters().loads[&Source::Disk].mean(), Some(Duration::from_secs(1)));
    assert_eq!(store.usage().used, Bytes { device: 8, host: 3 });
    assert_eq!(store.loader().device.load(Ordering::SeqCst), 8);
    assert_eq!(store.loader().host.load(Ordering::SeqCst), 3);
}

#[test]
fn models_in_use_are_not_evicted_but_refuse_others() {
    let store = Fake::new(&THREE, (9, 0)).store(Eviction::default());
    let (a, b) = (store.acquire("a").unwrap(), store.acquire("b").unwrap());
    let refused = store.acquire("c").unwrap_err();
    assert!(matches!(refused, RuntimeError::OutOfMemory { wanted_bytes: 4, free_bytes: 1 }), "{refused:?}");
    assert_eq!((a.name.as_str(), b.model(), store.counters().refusals), ("a", "b", 1));
    let again = store.acquire("a").unwrap();
    drop(a);
    assert!(store.acquire("c").is_err(), "one of the two users of `a` remains");
    drop(again);
    drop(store.acquire("c").unwrap());
    assert_eq!(tiers(&store), [Tier::Disk, Tier::Device, Tier::Device]);
    assert!(matches!(store.acquire("d").unwrap_err(), RuntimeError::BadRequest { .. }));
    assert!(matches!(store.add("a", Bytes { device: 1, host: 1 }), Err(RuntimeError::BadRequest { .. })));
    assert!(store.pin("d", true).is_err());
}

#[test]
fn several_acquirers_share_one_load() {
    const CALLERS: usize = 8;
    // The load ends when all others have joined it.
    let mut fake = Fake::new(&THREE, (4, 0));
    let barrier = Arc::new(Barrier::new(2));
    let in_load = Arc::clone(&barrier);
    fake.meanwhile = Box::new(move |_| {
        in_load.wait();
    });
    let store = fake.store(Eviction::default());
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| assert_eq!(store.acquire("a").unwrap().name, "a"));
        }
        while store.counters().joined < CALLERS as u64 - 1 {
            thread::yield_now();
        }
        barrier.wait();
    });
    let Counters { hits, misses, joined, .. } = store.counters();
    assert_eq!((hits, misses, joined), (0, 1, CALLERS as u64 - 1));
    assert_eq!(store.loader().loads.load(Ordering::SeqCst), 1);
}

#[test]
fn those_who_share_a_load_share_its_failure_and_nothing_is_kept() {
    let mut fake = Fake::new(&THREE, (4, 3));
    let barrier = Arc::new(Barrier::new(2));
    let in_load = Arc::clone(&barrier);
    fake.meanwhile = Box::new(move |model| {
        if model == "a" {
            in_load.wait();
        }
    });
    fake.faults = Mutex::new(vec![Fault::Load(bad_model())]);
    let store = fake.store(Eviction::default());
    thread::scope(|scope| {
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(|| store.acquire("a").unwrap_err())).collect();
        while store.counters().joined < 2 {
            thread::yield_now();
        }
        barrier.wait();
        for caller in callers {
            let error = caller.join().unwrap();
            assert!(
                matches!(&error, RuntimeError::BadModel { why, .. } if why == "is cut short"),
                "{error:?}"
            );
        }
    });
    assert_eq!(store.usage().used, Bytes { device: 0, host: 0 });
    assert_eq!(store.loader().device.load(Ordering::SeqCst), 0);
    assert_eq!((store.counters().misses, store.counters().failures), (1, 1));
    assert_eq!(store.acquire("b").unwrap().name, "b");
}

#[test]
fn a_load_from_host_memory_that_fails_keeps_the_copy() {
    let store = Fake::new(&THREE, (4, 6)).store(Eviction::default());
    for name in ["a", "b"] {
        drop(store.acquire(name).unwrap());
    }
    store.loader().faults.lock().unwrap().push(Fault::Load(bad_model()));
    assert!(store.acquire("a").is_err());
    assert_eq!(tiers(&store), [Tier::Host, Tier::Host, Tier::Disk]);
    assert_eq!(store.usage().used, Bytes { device: 0, host: 6 });
    drop(store.acquire("a").unwrap());
    assert_eq!(store.counters().loads[&Source::Pinned].count, 1);
}

#[test]
fn an_eviction_without_a_copy_is_an_eviction() {
    let store = Fake::new(&THREE, (4, 6)).store(Eviction::default());
    store.loader().faults.lock().unwrap().push(Fault::Evict(bad_model()));
    for name in ["a", "b"] {
        drop(store.acquire(name).unwrap());
    }
    assert_eq!(tiers(&store), [Tier::Disk, Tier::Device, Tier::Disk]);
    assert_eq!(store.usage().used, Bytes { device: 4, host: 0 });
}

#[test]
fn a_broken_device_breaks_the_store() {
    let check = |fault: Fault, expected: &[Tier]| {
        let models = [("a", 2, 1), ("b", 2, 1), ("c", 4, 1)];
        let store = Fake::new(&models, (4, 0)).store(Eviction::LeastRecentlyUsed);
        for name in ["a", "b"] {
            drop(store.acquire(name).unwrap());
        }
        store.loader().faults.lock().unwrap().push(fault.clone());
        let first = catch_unwind(AssertUnwindSafe(|| store.acquire("c").map(drop)));
        match fault {
            Fault::LoadPanics => assert!(first.is_err()),
            _ => assert!(matches!(first.unwrap(), Err(RuntimeError::Sticky { .. }))),
        }
        // Also what is loaded cannot be used any more.
        for name in ["a", "b", "c"] {
            assert!(matches!(store.acquire(name), Err(RuntimeError::Sticky { .. })), "{fault:?}: {name}");
        }
        assert_eq!(tiers(&store), expected, "{fault:?}");
        let used = store.usage().used.device;
        assert_eq!(used, store.loader().device.load(Ordering::SeqCst), "{fault:?}");
    };
    check(Fault::Load(sticky()), &[Tier::Disk; 3]);
    check(Fault::LoadPanics, &[Tier::Disk; 3]);
    check(Fault::Evict(sticky()), &[Tier::Disk, Tier::Device, Tier::Disk]);
    let store = Fake::new(&THREE, (4, 0)).store(Eviction::default());
    store.poison("a kernel failed");
    let error = store.acquire("a").unwrap_err().to_string();
    assert!(error.contains("a kernel failed"), "{error}");
}

#[test]
fn threads_keep_budget_and_accounting() {
    const THREADS: u64 = 6;
    const ACQUIRES: u64 = 300;
    let models = [("a", 3, 2), ("b", 4, 3), ("c", 5, 2), ("d", 2, 2), ("e", 6, 4)];
    let mut fake = Fake::new(&models, (10, 6));
    fake.meanwhile = Box::new(|_| thread::yield_now());
    // The fake device and host memory panic beyond their budgets, which would break the store.
    let store = fake.store(Eviction::default());
    let (served, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, served, refused) = (&store, &served, &refused);
            scope.spawn(move || {
                let mut chance = thread;
                for _ in 0..ACQUIRES {
                    // Knuth's multiplier; the high bits are random enough.
                    chance = chance
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let name = models[(chance >> 33) as usize % models.len()].0;
                    match store.acquire(name) {
                        Ok(guard) => {
                            assert_eq!(guard.name, name);
                            thread::yield_now();
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(RuntimeError::OutOfMemory { wanted_bytes, free_bytes }) => {
                            assert!(wanted_bytes > free_bytes);
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let counters = store.counters();
    let (served, refused) = (served.into_inner(), refused.into_inner());
    assert_eq!(served + refused, THREADS * ACQUIRES);
    assert_eq!(counters.hits + counters.joined + counters.misses, served);
    assert_eq!((counters.refusals, counters.failures), (refused, 0));
    let loads: u64 = counters.loads.values().map(|times| times.count).sum();
    assert_eq!((loads, store.loader().loads.load(Ordering::SeqCst)), (counters.misses, counters.misses));
    let on_device = tiers(&store).into_iter().filter(|tier| *tier == Tier::Device).count() as u64;
    assert_eq!(loads - counters.evictions(), on_device);
    let used = store.usage().used;
    assert_eq!(used.device, store.loader().device.load(Ordering::SeqCst));
    assert_eq!(used.host, store.loader().host.load(Ordering::SeqCst));
    // Threads may happen to run one after the other; one of them alone, in turn, evicts to both places in any case.
    for (name, _, _) in models.iter().cycle().take(4 * models.len()) {
        drop(store.acquire(name).expect("nothing is in use"));
    }
    let counters = store.counters();
    assert!(counters.evictions_to_host > 0 && counters.evictions_to_disk > 0, "{counters:?}");
}

proptest! {
    #[test]
    fn accounting_equals_what_is_held(
        sizes in prop::collection::vec((1u64..6, 1u64..6), 1..6),
        budget in (3u64..14, 0u64..10),
        moves in prop::collection::vec((0u8..8, any::<u8>()), 1..120),
    ) {
        let names: Vec<String> = (0..sizes.len()).map(|index| index.to_string()).collect();
        let models: Vec<_> =
            names.iter().zip(&sizes).map(|(name, &(device, host))| (name.as_str(), device, host)).collect();
        let store = Fake::new(&models, budget).store(Eviction::default());
        let mut guards = Vec::new();
        for (kind, pick) in moves {
            match kind {
                0..=3 => {
                    if kind == 0 {
                        let fault = if pick % 2 == 0 { Fault::Load(bad_model()) } else { Fault::Evict(bad_model()) };
                        store.loader().faults.lock().unwrap().push(fault);
                    }
                    match store.acquire(&names[usize::from(pick) % names.len()]) {
                        Ok(guard) => guards.push(guard),
                        Err(RuntimeError::OutOfMemory { .. } | RuntimeError::BadModel { .. }) => {}
                        Err(other) => prop_assert!(false, "{}", other),
                    }
                }
                _ if !guards.is_empty() => drop(guards.swap_remove(usize::from(pick) % guards.len())),
                _ => {}
            }
            let usage = store.usage();
            prop_assert_eq!(usage.used.device, store.loader().device.load(Ordering::SeqCst));
            prop_assert_eq!(usage.used.host, store.loader().host.load(Ordering::SeqCst));
            for guard in &guards {
                prop_assert_eq!(usage.tiers[guard.model()], Tier::Device);
            }
        }
    }
}
