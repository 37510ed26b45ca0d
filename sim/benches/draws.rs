//! The cost of one draw of each law: in order, as the engine takes them for jobs, and each by itself.

use std::hint::black_box;
use std::time::Duration as Wall;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use policy::units::Duration;
use policy::units::random::Stream;
use scenarios::scenario::Law;
use sim::kernel::Sampler;

fn draws(criterion: &mut Criterion) {
    let mean = Duration::from_secs(1);
    let laws = [
        ("uniform", Law::Uniform { low: Duration::ZERO, high: mean }),
        ("exponential", Law::Exponential { mean }),
        ("lognormal", Law::Lognormal { mean, cv: 0.5 }),
        ("weibull", Law::Weibull { mean, shape: 2.0 }),
        ("pareto", Law::Pareto { mean, tail: 2.5 }),
        ("quantiles", Law::Quantiles(vec![Duration::ZERO, mean, mean.scaled(3.0)])),
    ];
    let mut group = criterion.benchmark_group("draw");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.warm_up_time(Wall::from_millis(200)).measurement_time(Wall::from_millis(600));
    for (name, law) in &laws {
        let mut sampler = Sampler::new(law, Stream::new(1, 0, "draws"));
        let mut index = 0;
        group.bench_function(BenchmarkId::new("in order", name), |bench| {
            bench.iter(|| {
                index += 1;
                black_box(sampler.at(index))
            });
        });
        group.bench_function(BenchmarkId::new("single", name), |bench| {
            bench.iter(|| {
                index += 1;
                black_box(sampler.single(index))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, draws);
criterion_main!(benches);
