//! Training of the tiny models through the CUDA host code and the emulated kernels, against PyTorch's f32 gradients.
//!
//! The bounds are 1.5 times what PyTorch's own bf16 loses in the same (`fixtures/train/facts.json`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod golden;
mod lessons;
mod stand_in;

use golden::{fixtures, relative_error};
use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::train::Pair;
use lessons::{case, golden_file};
use stand_in::StandIn;

fn bound(tag: &str, what: &str) -> f64 {
    let facts = std::fs::read_to_string(fixtures().join("train/facts.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
    1.5 * facts[format!("bf16_{tag}_{what}_rel_err")].as_f64().unwrap()
}

fn flat(gradients: &[Pair]) -> Vec<f32> {
    gradients.iter().flat_map(|pair| [&pair.down[..], &pair.up[..]].concat()).collect()
}

/// The CPU's gradients are PyTorch's to a few millionths (`tests/train.rs`), and there are those of all layers.
#[test]
fn gradients_lose_no_more_than_pytorch_in_bf16() {
    let Some(stand_in) = StandIn::new() else { return };
    let golden = golden_file();
    for tag in ["picture", "clip"] {
        let (mut cpu, samples) = case(&golden, tag, Box::new(CpuBackend::new(2)));
        let (loss, exact) = cpu.gradients(&samples).unwrap();
        let (mut cuda, _) = case(&golden, tag, Box::new(stand_in.open()));
        let (low_loss, low) = cuda.gradients(&samples).unwrap();
        let error = relative_error(&flat(&low), &flat(&exact));
        let loss_error = (low_loss / loss - 1.0).abs();
        println!("{tag}: gradients {error:.2e}, loss {loss_error:.2e}");
        assert!(error <= bound(tag, "gradient"), "{tag}: gradients {error:.2e}");
        // The loss of one draw is off by as little as chance wills; what is allowed is a thousandth.
        assert!(loss_error <= 1e-3_f64.max(bound(tag, "loss")), "{tag}: loss {loss_error:.2e}");
        for (layer, (low, exact)) in cuda.adapters().layers.iter().zip(low.iter().zip(&exact)) {
            for (got, expected) in [(&low.down, &exact.down), (&low.up, &exact.up)] {
                let error = relative_error(got, expected);
                assert!(error <= 4.0 * bound(tag, "gradient"), "{tag} {}: {error:.2e}", layer.name);
            }
        }
        assert_eq!(stand_in.get("threads"), 1, "one thread owns the device");
        drop(cuda);
        assert_eq!(["blocks", "graphs", "streams"].map(|what| stand_in.get(what)), [0, 0, 0]);
    }
}

#[test]
fn steps_follow_those_of_pytorch() {
    let Some(stand_in) = StandIn::new() else { return };
    let golden = golden_file();
    let tag = "picture";
    let (mut trainer, samples) = case(&golden, tag, Box::new(stand_in.open()));
    for (step, expected) in golden[&format!("{tag}.losses")].values.iter().enumerate() {
        let report = trainer.step(&samples).unwrap();
        let error = (report.loss / f64::from(*expected) - 1.0).abs();
        println!("step {step}: {} instead of {expected}", report.loss);
        assert!(error < 5e-3, "step {step}: {} instead of {expected}", report.loss);
    }
}
