//! The two benchmark workloads through the whole product path, one JSON line each, as the peer programs print theirs.
//!
//! `cargo run --release -p sim --example workload -- w1|w2 JOBS-OR-REPLICATIONS [engine|stepwise|recurrence] [THREADS]`
//!
//! W1 makes one run of so many jobs for each thread; W2 shares its replications of 1200 s out among the threads.
//! `stepwise` is the engine with an event of its own for every transfer and every computation.

#![allow(clippy::disallowed_types, reason = "it measures how long the simulator takes")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use policy::units::Duration;
use scenarios::scenario::Scenario;
use sim::inputs::Inputs;
use sim::models;
use sim::outcome::Outcome;
use sim::recurrence;
use sim::replication::{Keep, Replication};

/// What is asked for on the command line.
struct Ask {
    workload: &'static str,
    size: u64,
    method: &'static str,
    threads: u64,
}

impl Ask {
    fn read() -> Option<Self> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let text = |index: usize| args.get(index).map(String::as_str);
        let number = |index: usize, absent: u64| text(index).map_or(Some(absent), |text| text.parse().ok());
        Some(Self {
            workload: ["w1", "w2"].into_iter().find(|name| text(0) == Some(name))?,
            size: number(1, 10_000_000)?,
            method: ["engine", "stepwise", "recurrence"]
                .into_iter()
                .find(|name| text(2).unwrap_or("engine") == *name)?,
            threads: number(3, 1)?.max(1),
        })
    }

    fn scenario(&self) -> Scenario {
        match self.workload {
            "w1" => models::mmc(90.0, 100, self.size, 1),
            _ => models::lyrebird_benchmark(Duration::from_secs(1200), 1),
        }
    }

    fn run(&self, scenario: &Scenario, number: u64) -> Outcome {
        let inputs = Inputs::default();
        if self.method == "recurrence" {
            return recurrence::run(scenario, &inputs, number).expect("the model is valid");
        }
        let replication = Replication::new(scenario, &inputs, number, Keep::Statistics);
        let mut replication = replication.expect("the model is valid");
        if self.method == "stepwise" {
            replication = replication.stepwise();
        }
        replication.run().expect("no invariant is checked")
    }
}

/// Sums over runs.
#[derive(Default)]
struct Sums {
    jobs: u64,
    events: u64,
    mean_s: f64,
    p99_s: f64,
}

fn main() -> ExitCode {
    let Some(ask) = Ask::read() else {
        eprintln!("usage: workload w1|w2 JOBS-OR-REPLICATIONS [engine|stepwise|recurrence] [THREADS]");
        return ExitCode::from(2);
    };
    let runs = if ask.workload == "w1" { ask.threads } else { ask.size };
    let (next, sums) = (AtomicU64::new(0), Mutex::new(Sums::default()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                return;
            }
            let outcome = ask.run(&ask.scenario(), number);
            let of = if ask.workload == "w1" { &outcome.stages[0].wait } else { &outcome.latency };
            let mut sums = sums.lock().expect("no thread panics while it adds");
            sums.jobs += outcome.jobs.done;
            sums.events += outcome.events;
            sums.mean_s += of.mean_ns().unwrap_or(0.0) * 1e-9 / runs as f64;
            sums.p99_s += of.quantile(0.99).unwrap_or(0) as f64 * 1e-9 / runs as f64;
        }
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        (1..ask.threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let wall = started.elapsed().as_secs_f64();
    let sums = sums.into_inner().expect("no thread panics while it adds");
    println!(
        "{{\"tool\":\"headroom {}\",\"workload\":\"{}\",\"threads\":{},\"jobs\":{},\"wall_s\":{wall:.3},\
         \"jobs_per_s\":{:.0},\"events_per_s\":{:.0},\"mean\":{:.5},\"p99\":{:.4}}}",
        ask.method,
        ask.workload,
        ask.threads,
        sums.jobs,
        sums.jobs as f64 / wall,
        sums.events as f64 / wall,
        sums.mean_s,
        sums.p99_s,
    );
    ExitCode::SUCCESS
}
