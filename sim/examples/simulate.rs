//! Simulates scenario files and prints each summary as JSON: `simulate FILE [KEY=VALUE ...]`.

#![allow(clippy::disallowed_types, reason = "the wall-clock time of the whole run is part of its summary")]

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("usage: simulate FILE [KEY=VALUE ...]");
    let overrides: Vec<String> = args.collect();
    let loaded = match scenarios::load(std::path::Path::new(&path), &overrides) {
        Ok(loaded) => loaded,
        Err(errors) => {
            errors.iter().for_each(|error| eprintln!("{error}"));
            std::process::exit(3);
        }
    };
    let inputs = sim::inputs::Inputs::load(&loaded.scenario).expect("inputs can be read");
    let options = sim::experiment::RunOptions { threads: 2, keep: sim::replication::Keep::Statistics };
    let started = std::time::Instant::now();
    let run = sim::experiment::run(&loaded.scenario, &inputs, options, &sim::experiment::Unwatched)
        .expect("it runs");
    let mut summary = sim::summary::summarize(&loaded.scenario, &run);
    summary.engine.wall_s = started.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string_pretty(&summary).expect("a summary is JSON"));
}
