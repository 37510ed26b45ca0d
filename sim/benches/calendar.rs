//! The calendar under the hold model: take the next event, file another an exponential time later, with 100 to a million
//! pending. The standard library's binary heap, with the same keys and payload, stands beside it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use policy::units::random::Stream;
use scenarios::scenario::Law;
use sim::kernel::{Calendar, EventClass, Sampler};

/// Draws beforehand, in nanoseconds, mean one second; a power of two.
const INCREMENTS: usize = 1 << 16;

/// Holds before timing, so that the days have found their length.
const SETTLE: usize = 20_000;

fn increments() -> Vec<u64> {
    let law = Law::Exponential { mean: policy::units::Duration::from_secs(1) };
    let mut sampler = Sampler::new(&law, Stream::new(1, 0, "hold"));
    (0..INCREMENTS as u64).map(|index| sampler.at(index)).collect()
}

/// What an event of the engine carries: 16 bytes.
type Payload = [u32; 4];

fn hold(criterion: &mut Criterion) {
    let after = increments();
    let mut group = criterion.benchmark_group("hold");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for pending in [100_usize, 1_000, 10_000, 100_000, 1_000_000] {
        let payload: Payload = [1; 4];
        let mut next = 0;
        let mut draw = || {
            next = (next + 1) & (INCREMENTS - 1);
            after[next]
        };
        let mut calendar = Calendar::new();
        (0..pending).for_each(|_| calendar.push(draw(), EventClass::Completion, payload));
        let mut step = || {
            let (at, payload) = calendar.pop().expect("as many are filed as are taken");
            calendar.push(at + draw(), EventClass::Completion, payload);
            at
        };
        (0..SETTLE.max(2 * pending)).for_each(|_| assert!(black_box(step()) > 0));
        group.bench_function(BenchmarkId::new("calendar", pending), |bench| bench.iter(&mut step));
        drop(calendar);

        let mut sequence = 0_u64;
        let mut heap = BinaryHeap::with_capacity(pending);
        let mut draw = || {
            next = (next + 1) & (INCREMENTS - 1);
            after[next]
        };
        (0..pending).for_each(|index| heap.push(Reverse((draw(), index as u64, payload))));
        let mut step = || {
            let Reverse((at, _, payload)) = heap.pop().expect("as many are pushed as are popped");
            sequence += 1;
            heap.push(Reverse((at + draw(), sequence, payload)));
            at
        };
        (0..SETTLE.max(2 * pending)).for_each(|_| assert!(black_box(step()) > 0));
        group.bench_function(BenchmarkId::new("std BinaryHeap", pending), |bench| bench.iter(&mut step));
    }
    group.finish();
}

criterion_group!(benches, hold);
criterion_main!(benches);
