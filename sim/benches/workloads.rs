//! W1 (M/M/100 at 0.9 load) and W2 (a delay and two pools in tandem) through the whole product path, jobs per second:
//! by the event engine, and as an experiment runs them, which may choose a faster way.

use std::hint::black_box;
use std::time::Duration as Wall;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use policy::units::Duration;
use scenarios::scenario::Scenario;
use sim::experiment;
use sim::inputs::Inputs;
use sim::models;
use sim::outcome::Outcome;
use sim::replication::{Keep, Replication};

/// Jobs of one run.
const JOBS: u64 = 200_000;

fn by_engine(scenario: &Scenario) -> Outcome {
    let replication = Replication::new(scenario, &Inputs::default(), 0, Keep::Statistics);
    replication.expect("the model is valid").run().expect("no invariant is checked")
}

fn as_chosen(scenario: &Scenario) -> Outcome {
    experiment::one(scenario, &Inputs::default(), 0, Keep::Statistics).expect("the model is valid")
}

fn workloads(criterion: &mut Criterion) {
    let w1 = models::mmc(90.0, 100, JOBS, 1);
    let w2 = models::lyrebird_benchmark(Duration::from_secs(JOBS / 300), 1);
    let mut group = criterion.benchmark_group("workload");
    group.throughput(Throughput::Elements(JOBS)).sample_size(10);
    group.warm_up_time(Wall::from_millis(500)).measurement_time(Wall::from_secs(2));
    for (name, scenario) in [("w1", &w1), ("w2", &w2)] {
        group.bench_function(BenchmarkId::new("engine", name), |bench| {
            bench.iter(|| black_box(by_engine(scenario).jobs.done));
        });
        group.bench_function(BenchmarkId::new("experiment", name), |bench| {
            bench.iter(|| black_box(as_chosen(scenario).jobs.done));
        });
    }
    group.finish();
}

criterion_group!(benches, workloads);
criterion_main!(benches);
