//! Real processes in trouble: a disk that is full, a disk that is slow, a network that cuts connections, and `kill -9` of
//! the plane and of eight workers with a diffusion model. What was promised is kept: each test folds the whole journal
//! afterwards. `HEADROOM_FAULTS_MINUTES` lengthens the kills.

#[path = "../ha/client.rs"]
#[allow(dead_code, reason = "the tests of several planes use more of it")]
mod client;
mod disk;
#[path = "../ha/fleet.rs"]
#[allow(dead_code, reason = "the tests of several planes use more of it")]
mod fleet;
mod full_disk;
mod house;
#[path = "../ha/judge.rs"]
mod judge;
mod kills;
mod network;
mod painters;
mod proxy;
#[path = "../scene/mod.rs"]
mod scene;
mod slow_disk;

use std::sync::{Mutex, MutexGuard, PoisonError};

#[test]
#[ignore = "a process of the other tests"]
fn process_that_serves() {
    house::serve()
}

#[test]
#[ignore = "a process of the other tests"]
fn process_that_works() {
    fleet::work()
}

#[test]
#[ignore = "a process of the other tests"]
fn process_that_serves_painters() {
    painters::serve()
}

#[test]
#[ignore = "a process of the other tests"]
fn process_that_paints() {
    painters::paint()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// One trouble at a time: each brings enough processes for a small machine.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
