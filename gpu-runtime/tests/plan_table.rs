//! Parameters, floating-point operations and memory of the published models, from their configurations alone.
//!
//! The figures are those of the table that the runtime was designed by: counted there layer by layer from the same
//! configurations, a multiply-add as two operations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::{Path, PathBuf};

use gpu_runtime::graph::{Arena, Cost, Graph};
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{MotionConfig, TextConfig, UnetConfig, VaeConfig};

struct Published {
    text: TextConfig,
    unet: UnetConfig,
    motion: MotionConfig,
    vae: VaeConfig,
}

fn published() -> Published {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations");
    let base = folder.join("lcm_dreamshaper_v7");
    let unet = UnetConfig::read(&base.join("unet/config.json")).unwrap();
    Published {
        text: TextConfig::read(&base.join("text_encoder/config.json")).unwrap(),
        motion: MotionConfig::read(&folder.join("animatelcm/motion_adapter/config.json"), &unet).unwrap(),
        vae: VaeConfig::read(&base.join("vae/config.json")).unwrap(),
        unet,
    }
}

impl Published {
    fn step(&self, clips: u32, frames: u32, side: u32) -> Graph {
        let size = LatentSize { clips, frames, height: side / 8, width: side / 8 };
        let motion = (frames > 1).then_some(&self.motion);
        program::step(&self.unet, motion, size, self.text.tokens)
    }
}

fn tera(graphs: &[&Graph]) -> f64 {
    graphs.iter().map(|graph| Cost::of(graph, 2).total().flops as f64).sum::<f64>() / 1e12
}

fn assert_near(what: &str, got: f64, expected: f64, within: f64) {
    assert!((got - expected).abs() <= within, "{what}: {got}, expected {expected} ± {within}");
}

#[test]
fn steps_cost_what_the_table_says() {
    let mut model = published();
    let context = program::context(&model.unet, model.text.tokens);
    let context_tera = tera(&[&context]);
    // The table counts keys and values of the context once per frame and step, as diffusers computes them; ours are
    // computed once per request. Its clips have the older adapter of 417 M, without a module in the middle.
    model.motion.middle = false;
    for (clips, frames, side, expected) in [
        (1, 1, 512, 0.8033),
        (2, 1, 512, 1.6065),
        (4, 1, 512, 3.213),
        (8, 1, 512, 6.426),
        (1, 8, 512, 8.83),
        (1, 16, 512, 17.67),
        (1, 16, 256, 4.09),
    ] {
        let step = model.step(clips, frames, side);
        let got = tera(&[&step]) + context_tera * f64::from(clips * frames);
        assert_near(&format!("step {clips} × {frames} at {side}"), got, expected, 0.001 * expected);
    }
}

#[test]
fn encoders_and_decoders_cost_what_the_table_says() {
    let model = published();
    assert_near("decode 512", tera(&[&program::decode(&model.vae, 1, 64, 64)]), 2.5145, 0.0005);
    assert_near("decode 16 × 512", tera(&[&program::decode(&model.vae, 16, 64, 64)]), 40.2, 0.05);
    assert_near("text", tera(&[&program::text(&model.text)]), 0.013, 0.0005);
}

#[test]
fn parameters_are_those_of_the_published_files() {
    let model = published();
    let context = program::context(&model.unet, model.text.tokens);
    let picture = model.step(1, 1, 512).parameters() + context.parameters();
    let clip = model.step(1, 16, 512).parameters() + context.parameters();
    // 859,520,964 of SD 1.5 and the guidance projection of 256 × 320.
    assert_eq!(picture, 859_520_964 + 256 * 320);
    // The adapter's file of 908 MB in 16 bits holds 454 M; position tables count as parameters here.
    assert_near("motion adapter", (clip - picture) as f64 / 1e6, 454.0, 1.0);
    let without_middle = MotionConfig { middle: false, ..model.motion.clone() };
    let size = LatentSize { clips: 1, frames: 16, height: 64, width: 64 };
    let older = program::step(&model.unet, Some(&without_middle), size, 77).parameters();
    assert_near("older motion adapter", (older + context.parameters() - picture) as f64 / 1e6, 417.0, 1.0);
    assert_eq!(program::text(&model.text).parameters(), 123_060_480);
    let vae =
        program::decode(&model.vae, 1, 8, 8).parameters() + program::encode(&model.vae, 8, 8).parameters();
    assert_eq!(vae, 83_653_863);
}

#[test]
fn the_arena_is_a_small_share_of_all_tensors() {
    let model = published();
    for (graph, mebibytes_max) in [
        (model.step(1, 1, 512), 64),
        (model.step(1, 16, 512), 1024),
        (program::decode(&model.vae, 1, 64, 64), 1024),
    ] {
        let arena = Arena::plan(&graph, 2);
        let all: u64 = arena.slots.iter().flatten().map(|slot| slot.bytes).sum();
        println!("{}: {} MiB of {} MiB", graph.name, arena.bytes >> 20, all >> 20);
        assert!(arena.bytes >> 20 <= mebibytes_max, "{}: {} MiB", graph.name, arena.bytes >> 20);
        // No plan can be smaller than what lives at once.
        let at_once = (0..graph.ops.len()).map(|op| {
            let live = arena.slots.iter().flatten().filter(|slot| slot.from_op <= op && op <= slot.to_op);
            live.map(|slot| slot.bytes).sum::<u64>()
        });
        let least = at_once.max().unwrap();
        assert!(arena.bytes >= least && arena.bytes <= least + least / 4, "{} of {least}", arena.bytes);
    }
}
