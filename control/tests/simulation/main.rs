//! The plane under everything that can go wrong, by seed: crashes at every step, torn and unanswered writes, no room,
//! messages doubled, delayed and out of order, workers that die, hang, lie or come back late, launches that succeed
//! unheard, interruptions, clocks that jump. A judge reads the history.
//!
//! `HEADROOM_SEEDS=5` plays seed 5 and tells its story; `HEADROOM_SEEDS=0..1000000` plays many, on all cores.

mod cloud;
mod judge;
mod scenarios;
mod worker;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use control::store::DiskFault;
use world::{Outcome, World};

/// Seeds that every run of the tests plays.
const SEEDS: u64 = 10_000;

#[test]
fn nothing_is_lost_or_done_twice_whatever_fails() {
    let asked = std::env::var("HEADROOM_SEEDS").unwrap_or_else(|_| format!("0..{SEEDS}"));
    let (from, to, story) = match asked.split_once("..") {
        Some((from, to)) => (from.parse().expect("a sound world"), to.parse().expect("a sound world"), false),
        None => {
            let seed: u64 = asked.parse().expect("a sound world");
            (seed, seed + 1, true)
        }
    };
    let next = AtomicU64::new(from);
    let total = std::sync::Mutex::new(Outcome::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        break;
                    }
                    let played = std::panic::catch_unwind(|| World::new(seed, story).play());
                    let outcome = played.unwrap_or_else(|panic| {
                        next.store(u64::MAX / 2, Ordering::Relaxed);
                        let text = panic.downcast_ref::<String>().cloned();
                        panic!(
                            "seed {seed} failed: {}\nRepeat it with HEADROOM_SEEDS={seed}",
                            text.unwrap_or_default()
                        );
                    });
                    total.lock().expect("a sound world").add(&outcome);
                }
            });
        }
    });
    let total = total.into_inner().expect("a sound world");
    println!("{total:#?}");
    assert!(total.accepted > 0 && total.crashes > 0 || story);
    assert!(total.forgotten > 0 && total.replayed > 0 || to - from < 100);
}

/// Histories that are crashed at each of their writes.
const SHORT_HISTORIES: u64 = 1_000;

#[test]
fn a_crash_at_any_write_of_a_short_history_loses_nothing() {
    let crashes = AtomicU64::new(0);
    let asked = std::env::var("HEADROOM_SHORT").ok().and_then(|seed| seed.parse().ok());
    let next = AtomicU64::new(asked.unwrap_or(0));
    let end = asked.map_or(SHORT_HISTORIES, |seed| seed + 1);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let whole = World::short(seed, None).play();
                    assert!(whole.accepted >= 2 && whole.crashes == 0, "seed {seed}");
                    for at in 0..whole.appends {
                        // Cut within the head, within the body, and after the last byte.
                        let kept = [0, 7, 40, 120][(at % 4) as usize];
                        let torn = World::short(seed, Some((at, DiskFault::Torn { kept }))).play();
                        let unanswered = World::short(seed, Some((at, DiskFault::Unanswered))).play();
                        for outcome in [torn, unanswered] {
                            assert_eq!(outcome.crashes, 1, "seed {seed}, write {at}");
                            // The answers to durable submissions may be what the crash took.
                            let (promised, ended) = (outcome.accepted, outcome.done + outcome.expired);
                            assert!(
                                promised <= ended && ended <= 2 + seed % 3,
                                "seed {seed}, write {at}: {outcome:?}"
                            );
                            crashes.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    println!("{} crashes in {SHORT_HISTORIES} histories", crashes.into_inner());
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in [1, 77] {
        assert_eq!(World::new(seed, false).play(), World::new(seed, false).play());
    }
}
