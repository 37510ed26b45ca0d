//! Every operation of the way back, in the emulator through the real host code, against the CPU backend at odd and small
//! shapes. What the operations compute is compared with differences elsewhere (`src/train/rule_tests.rs`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod beside_cpu;
mod golden;
mod graphs;
mod stand_in;

use beside_cpu::check;
use gpu_runtime::graph::{AttentionPattern, GroupNormSpec, Shape};
use stand_in::StandIn;

/// One rounding of the result.
const ONE_ROUNDING: f64 = 2.5e-3;
/// Sums of f32.
const NO_ROUNDING: f64 = 1e-5;
/// Shares and gradients of scores are rounded, and the result of the way there was.
const ATTENTION: f64 = 5e-3;

#[test]
fn products_with_tensors() {
    let Some(stand_in) = StandIn::new() else { return };
    for (what, rows, columns, depth) in
        [("few rows", 3, 24, 40), ("odd", 77, 20, 8), ("more than a tile", 150, 136, 200)]
    {
        check(&stand_in, what, &graphs::product(rows, columns, depth), ONE_ROUNDING);
    }
}

#[test]
fn turned_weights() {
    let Some(stand_in) = StandIn::new() else { return };
    for (what, from, to) in [("even", 24, 40), ("odd", 20, 12)] {
        check(&stand_in, what, &graphs::turned(Shape::new(2, 4, 6, from), to), ONE_ROUNDING);
    }
}

#[test]
fn normalisations() {
    let Some(stand_in) = StandIn::new() else { return };
    for (frames, side, channels, groups, frames_together, silu) in [
        (1, 5, 32, 4, 1, true),
        (4, 6, 40, 5, 2, false),
        (2, 3, 18, 3, 1, true),
        (1, 40, 64, 32, 1, true),
        (3, 2, 2560, 32, 3, true),
    ] {
        let shape = Shape::new(frames, side, side + 1, channels);
        let graph =
            graphs::group_norm_gradient(shape, GroupNormSpec { groups, eps: 1e-5, silu, frames_together });
        check(&stand_in, &format!("group norm of {shape}"), &graph, ONE_ROUNDING);
    }
    for (rows, channels) in [(9, 40), (70, 320), (5, 13)] {
        let shape = Shape::new(1, 1, rows, channels);
        check(
            &stand_in,
            &format!("layer norm of {shape}"),
            &graphs::layer_norm_gradient(shape),
            ONE_ROUNDING,
        );
    }
}

#[test]
fn elements_and_rows() {
    let Some(stand_in) = StandIn::new() else { return };
    for channels in [24, 10] {
        let graph = graphs::element_gradients(Shape::new(2, 6, 4, channels));
        check(&stand_in, &format!("{channels} channels"), &graph, ONE_ROUNDING);
    }
}

#[test]
fn matrices() {
    let Some(stand_in) = StandIn::new() else { return };
    for (rows, left, right) in [(77, 40, 8), (1, 8, 16), (900, 136, 24), (64, 200, 72), (300, 13, 5)] {
        let graph = graphs::matrix_gradient(rows, left, right);
        check(&stand_in, &format!("{rows} rows of {left} and {right}"), &graph, NO_ROUNDING);
    }
    assert!(stand_in.launched().iter().any(|kernel| kernel == "matrix_64_any"));
}

#[test]
fn attention_within_one_tensor() {
    let Some(stand_in) = StandIn::new() else { return };
    let temporal = |frames| AttentionPattern::Temporal { frames };
    for (pattern, frames, height, heads, width) in [
        (AttentionPattern::Spatial, 2, 3, 2, 8),
        (AttentionPattern::Spatial, 1, 15, 2, 40),
        (AttentionPattern::Spatial, 1, 13, 1, 160),
        (AttentionPattern::Spatial, 2, 10, 1, 80),
        (AttentionPattern::Spatial, 1, 12, 1, 64),
        (AttentionPattern::Spatial, 1, 9, 1, 128),
        (AttentionPattern::Spatial, 1, 10, 3, 5),
        (AttentionPattern::Causal, 1, 11, 2, 32),
        (AttentionPattern::Causal, 2, 2, 1, 16),
        (temporal(4), 4, 2, 2, 8),
        (temporal(16), 32, 1, 1, 40),
        (temporal(24), 24, 1, 2, 160),
        (temporal(3), 6, 2, 1, 6),
    ] {
        let graph = graphs::attention_gradients([frames, height, 7], (heads, width), pattern);
        let what = format!("{pattern:?}, {frames} frames of {height} x 7, {heads} heads of {width}");
        check(&stand_in, &what, &graph, ATTENTION);
    }
}

#[test]
fn attention_to_another_tensor() {
    let Some(stand_in) = StandIn::new() else { return };
    for (frames, height, tokens, heads, width) in
        [(1, 3, 5, 2, 8), (3, 20, 77, 2, 40), (2, 30, 9, 1, 160), (1, 80, 77, 1, 64), (2, 3, 7, 1, 12)]
    {
        let graph = graphs::cross_attention_gradients([frames, height, 7], tokens, (heads, width));
        let what = format!("{frames} frames of {height} x 7 to {tokens} tokens, {heads} heads of {width}");
        check(&stand_in, &what, &graph, ATTENTION);
    }
    assert!(stand_in.launched().iter().any(|kernel| kernel == "split_sums"), "some keys are split");
}
