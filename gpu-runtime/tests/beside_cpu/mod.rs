//! The same graph on the stand-in GPU and on the CPU, with the same bf16 weights and inputs.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its part")]

use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::Backend;
use gpu_runtime::graph::{Graph, TensorId};

use super::golden::relative_error;
use super::graphs::weights::{numbers, weights_for};
use super::stand_in::StandIn;

/// Runs a graph on both, inputs and states random, and compares its outputs.
pub(crate) fn check(stand_in: &StandIn, what: &str, graph: &Graph, tolerance: f64) {
    let (weights, _folder) = weights_for(graph);
    let mut cuda = stand_in.open();
    let mut cpu = CpuBackend::new(2);
    let mut results = Vec::new();
    for backend in [&mut cuda as &mut dyn Backend, &mut cpu] {
        let id = backend.load(graph, &weights).unwrap();
        for (index, tensor) in graph.inputs.iter().enumerate() {
            let shape = graph.tensor(*tensor).shape;
            let mut values = numbers(index as u64 + 1, shape.elements() as usize);
            if graph.tensor(*tensor).name == "ids" {
                values.iter_mut().for_each(|v| *v = (v.abs() * 600.0).floor());
            }
            backend.write(id, *tensor, &values).unwrap();
        }
        backend.run(id).unwrap();
        let read = |tensor: &TensorId| {
            let mut values = vec![0.0; graph.tensor(*tensor).shape.elements() as usize];
            backend.read(id, *tensor, &mut values).unwrap();
            values
        };
        results.push(graph.outputs.iter().map(read).collect::<Vec<_>>());
    }
    let pairs = results[0].iter().zip(&results[1]).zip(&graph.outputs);
    let errors: Vec<_> = pairs
        .map(|((got, expected), out)| (&graph.tensor(*out).name, relative_error(got, expected)))
        .collect();
    for (name, error) in &errors {
        println!("{what}, {name}: {error:.2e}");
    }
    for (name, error) in errors {
        assert!(error <= tolerance, "{what}, {name}: relative error {error:.2e} beyond {tolerance:.1e}");
    }
}
