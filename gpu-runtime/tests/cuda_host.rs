//! The host side over the stand-in driver: memory, sharing, capture, errors and their classes, teardown.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod golden;
mod graphs;
mod stand_in;

use golden::fixtures;
use gpu_runtime::RuntimeError;
use gpu_runtime::cuda::nvrtc::{SOURCES, TRAINING_SOURCES, kernel_names};
use gpu_runtime::cuda::{Addresses, Cuda, Launch, Target, lower, memory_of};
use gpu_runtime::generate::Backend;
use gpu_runtime::graph::{AttentionPattern, Builder, Graph, GroupNormSpec, Precision, Shape, TensorId};
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{
    Model, ModelSource, MotionConfig, TextConfig, UnetConfig, VaeConfig, VideoUnetConfig, VisionConfig,
};
use gpu_runtime::train::{self, Scope};
use gpu_runtime::weights::Weights;
use graphs::graph_of;
use graphs::weights::weights_for;
use stand_in::StandIn;

const TARGET: Target = Target { processors: 132, warpgroups: true };

fn model() -> Model {
    Model::open(&ModelSource::folder(&fixtures().join("model"))).unwrap()
}

fn step(model: &Model, frames: u32) -> Graph {
    let size = LatentSize { clips: 1, frames, height: 8, width: 8 };
    program::step(&model.unet, model.motion.as_ref(), size, model.text.tokens)
}

fn read(
    cuda: &mut Cuda,
    id: gpu_runtime::generate::ProgramId,
    graph: &Graph,
    tensor: TensorId,
) -> Result<Vec<f32>, RuntimeError> {
    let mut values = vec![0.0; graph.tensor(tensor).shape.elements() as usize];
    cuda.read(id, tensor, &mut values).map(|()| values)
}

#[test]
fn capture_holds_every_launch_and_runs_none() {
    let Some(stand_in) = StandIn::new() else { return };
    let (model, mut cuda) = (model(), stand_in.open());
    let graph = step(&model, 2);
    let id = cuda.load(&graph, &model.weights).unwrap();
    assert_eq!(stand_in.get("launches"), 0, "loading computes nothing");
    let nodes = cuda.nodes(id).unwrap();
    assert_eq!(nodes, lower(&graph, &addresses(&graph), TARGET).launches.len());
    for runs in 1..=3 {
        cuda.run(id).unwrap();
        read(&mut cuda, id, &graph, graph.outputs[0]).unwrap();
        assert_eq!(stand_in.get("launches"), (nodes * runs) as i64);
    }
}

/// A model may have any number of groups and heads; kernels do not. The device stays as it was.
#[test]
fn extents_without_a_kernel_are_refused() {
    let Some(stand_in) = StandIn::new() else { return };
    let mut cuda = stand_in.open();
    let mut check = |build: &dyn Fn(&mut Builder) -> TensorId, expected: &str| {
        let graph = graph_of(&[], |b, _| build(b));
        let (weights, _folder) = weights_for(&graph);
        match cuda.load(&graph, &weights) {
            Err(RuntimeError::Unavailable { what, why }) => {
                assert!(what.contains("program `test`") && why.contains(expected), "{what}: {why}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    };
    let attended = |b: &mut Builder, width: u32| {
        let shape = Shape::new(1, 1, 4, width);
        let views = ["q", "k", "v"].map(|name| b.input(name, shape, Precision::Model)).map(|id| b.whole(id));
        b.attention("attended", views, 1, AttentionPattern::Spatial)
    };
    check(&|b| attended(b, 520), "heads 520 channels wide, kernels at most 512");
    check(
        &|b| {
            let out = attended(b, 168);
            let of_out = b.input("of out", b.shape(out), Precision::Model);
            let forward = b.graph().ops[0].clone();
            let of = b.attention_rows("rows", &forward, of_out);
            b.attention_query("of query", of)
        },
        "trains heads 168 channels wide, kernels at most 160",
    );
    check(
        &|b| {
            let input = b.input("x", Shape::new(1, 2, 2, 128), Precision::Model);
            let spec = GroupNormSpec { groups: 128, eps: 1e-5, silu: false, frames_together: 1 };
            b.group_norm("norm", input, spec)
        },
        "normalises 128 groups",
    );
    assert_eq!(stand_in.get("blocks"), 0);
}

#[test]
fn states_are_zero_after_loading() {
    let Some(stand_in) = StandIn::new() else { return };
    let (model, mut cuda) = (model(), stand_in.open());
    let graph = step(&model, 1);
    let id = cuda.load(&graph, &model.weights).unwrap();
    let latents = graph.find(program::LATENTS).unwrap();
    assert!(read(&mut cuda, id, &graph, latents).unwrap().iter().all(|value| *value == 0.0));
}

#[test]
fn runs_allocate_nothing_and_unloading_frees_all() {
    let Some(stand_in) = StandIn::new() else { return };
    let (model, mut cuda) = (model(), stand_in.open());
    let graph = step(&model, 1);
    let id = cuda.load(&graph, &model.weights).unwrap();
    let (weights, tensors) = memory_of(&graph, TARGET);
    assert_eq!(cuda.memory().used, weights + tensors, "as planned without a device");
    let allocations = stand_in.get("allocations");
    for _ in 0..3 {
        cuda.run(id).unwrap();
    }
    read(&mut cuda, id, &graph, graph.outputs[0]).unwrap();
    assert_eq!(stand_in.get("allocations"), allocations);
    cuda.unload(id).unwrap();
    assert_eq!((cuda.memory().used, stand_in.get("used"), stand_in.get("graphs")), (0, 0, 0));
}

#[test]
fn programs_of_one_model_share_weights() {
    let Some(stand_in) = StandIn::new() else { return };
    let (model, mut cuda) = (model(), stand_in.open());
    let (one, two) = (step(&model, 1), step(&model, 2));
    let first = cuda.load(&one, &model.weights).unwrap();
    let before = cuda.memory().used;
    let second = cuda.load(&two, &model.weights).unwrap();
    let (weights, tensors) = memory_of(&two, TARGET);
    assert!(cuda.memory().used - before < weights + tensors, "the second brings only its tensors");
    assert_eq!(cuda.memory().used - before, tensors);
    // The weights outlive the program that brought them.
    cuda.unload(first).unwrap();
    cuda.run(second).unwrap();
    read(&mut cuda, second, &two, two.outputs[0]).unwrap();
    cuda.unload(second).unwrap();
    assert_eq!(stand_in.get("blocks"), 0);
    // Another opening of the same folder is another model.
    let other = Model::open(&model.source).unwrap();
    cuda.load(&one, &model.weights).unwrap();
    let before = cuda.memory().used;
    cuda.load(&one, &other.weights).unwrap();
    assert_eq!(cuda.memory().used, 2 * before);
}

#[test]
fn dropping_the_backend_releases_everything() {
    let Some(stand_in) = StandIn::new() else { return };
    let model = model();
    let mut cuda = stand_in.open();
    cuda.load(&step(&model, 1), &model.weights).unwrap();
    cuda.load(&program::text(&model.text), &model.weights).unwrap();
    drop(cuda);
    assert_eq!(["blocks", "graphs", "streams"].map(|what| stand_in.get(what)), [0, 0, 0]);
}

#[test]
fn lack_of_memory_is_no_end() {
    let Some(stand_in) = StandIn::new() else { return };
    let (model, mut cuda) = (model(), stand_in.open());
    let graph = step(&model, 1);
    let (weights, tensors) = memory_of(&graph, TARGET);
    for cap in [weights / 2, weights + tensors / 2] {
        stand_in.set("cap", cap as i64);
        match cuda.load(&graph, &model.weights) {
            Err(RuntimeError::OutOfMemory { wanted_bytes, free_bytes }) => {
                assert!(
                    wanted_bytes > free_bytes && free_bytes <= cap,
                    "{wanted_bytes} wanted, {free_bytes} free"
                );
            }
            other => panic!("{other:?} with {cap} bytes"),
        }
        assert_eq!((stand_in.get("blocks"), cuda.memory().used), (0, 0), "nothing is left behind");
    }
    stand_in.set("cap", 1 << 30);
    let id = cuda.load(&graph, &model.weights).unwrap();
    cuda.run(id).unwrap();
    read(&mut cuda, id, &graph, graph.outputs[0]).unwrap();
}

#[test]
fn sticky_error_breaks_the_backend_for_good() {
    let Some(stand_in) = StandIn::new() else { return };
    let (model, mut cuda) = (model(), stand_in.open());
    let graph = step(&model, 1);
    let id = cuda.load(&graph, &model.weights).unwrap();
    stand_in.set("launches_until_break", 5);
    cuda.run(id).unwrap(); // fails on the device, later
    let is_sticky = |outcome: Result<(), RuntimeError>| match outcome {
        Err(RuntimeError::Sticky { why }) => assert!(why.contains("ILLEGAL_ADDRESS"), "{why}"),
        other => panic!("{other:?}"),
    };
    is_sticky(read(&mut cuda, id, &graph, graph.outputs[0]).map(drop));
    assert_eq!(stand_in.get("launches"), 6, "nothing runs after the kernel that broke it");
    is_sticky(cuda.run(id));
    is_sticky(cuda.load(&graph, &model.weights).map(drop));
    is_sticky(cuda.unload(id));
    drop(cuda); // and the end is quiet
}

#[test]
fn bad_weights_leave_nothing_behind() {
    let Some(stand_in) = StandIn::new() else { return };
    let (model, mut cuda) = (model(), stand_in.open());
    let graph = step(&model, 1);
    let outcome = cuda.load_from(&graph, 1, |weight| {
        if weight.name.contains("conv_out") {
            let path = "unet".into();
            return Err(RuntimeError::BadModel { path, why: format!("`{}` is damaged", weight.name) });
        }
        model.weights.bf16(weight)
    });
    assert!(matches!(outcome, Err(RuntimeError::BadModel { .. })), "{outcome:?}");
    assert_eq!(stand_in.get("blocks"), 0);
    cuda.load(&graph, &model.weights).unwrap();
}

#[test]
fn devices_that_cannot_serve_are_unavailable() {
    let Some(stand_in) = StandIn::new() else { return };
    for (setting, value, expected) in [
        ("devices", 0, "code 100"),
        ("capability", 75, "compute capability 7.5"),
        ("driver_version", 11080, "the driver knows CUDA 11.8"),
    ] {
        stand_in.set(setting, value);
        match Cuda::open(&stand_in.options()) {
            Err(RuntimeError::Unavailable { what, why }) => {
                assert!(why.contains(expected), "{setting}: {what}: {why}");
            }
            other => panic!("{setting}: {other:?}"),
        }
        stand_in.set("devices", 1);
        stand_in.set("capability", 90);
        stand_in.set("driver_version", 13000);
    }
    assert_eq!(stand_in.get("streams"), 0);
    stand_in.open();
}

#[test]
fn compiled_kernels_are_cached_and_damaged_entries_replaced() {
    let Some(stand_in) = StandIn::new() else { return };
    let cache = tempfile::tempdir().unwrap();
    let mut options = stand_in.options();
    options.cache = Some(cache.path().join("kernels"));
    let entries = || -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let folder = std::fs::read_dir(cache.path().join("kernels")).unwrap();
        let mut all: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    };
    Cuda::open(&options).unwrap();
    let fresh = entries();
    assert_eq!(fresh.len(), SOURCES.len() - TRAINING_SOURCES.len(), "those of training are not wanted");
    std::fs::write(&fresh[0].0, b"damaged").unwrap();
    std::fs::write(&fresh[1].0, &fresh[1].1[..fresh[1].1.len() - 1]).unwrap();
    let mut cuda = Cuda::open(&options).unwrap();
    assert_eq!(entries(), fresh);
    let mut b = Builder::new("gradient", "unet");
    let x = b.input("x", Shape::new(1, 2, 2, 8), Precision::Model);
    let sum = b.sum_of_four("sum", x);
    b.output(sum);
    let id = cuda.load(&b.finish(), &Weights::new()).unwrap();
    cuda.run(id).unwrap();
    assert_eq!(entries().len(), fresh.len() + 1, "and of those only what a program has");
}

/// The launches of the published models at full size: nothing is computed, but every one must be possible.
#[test]
fn full_size_programs_lower_to_launches_that_a_device_can_take() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations");
    let base = folder.join("lcm_dreamshaper_v7");
    let unet = UnetConfig::read(&base.join("unet/config.json")).unwrap();
    let motion = MotionConfig::read(&folder.join("animatelcm/motion_adapter/config.json"), &unet).unwrap();
    let vae = VaeConfig::read(&base.join("vae/config.json")).unwrap();
    let text = TextConfig::read(&base.join("text_encoder/config.json")).unwrap();
    let video = VideoUnetConfig::read(&folder.join("svd_xt/unet/config.json")).unwrap();
    let video_vae = VaeConfig::read(&folder.join("svd_xt/vae/config.json")).unwrap();
    let vision = VisionConfig::read(&folder.join("svd_xt/image_encoder/config.json")).unwrap();
    let size = |frames| LatentSize { clips: 1, frames, height: 64, width: 64 };
    let wide = LatentSize { clips: 1, frames: 14, height: 72, width: 128 };
    let known: Vec<String> = SOURCES.iter().flat_map(|(_, source)| kernel_names(source)).collect();
    let training = |frames| {
        let motion = Some(&motion).filter(|_| frames > 1);
        train::graph(&unet, motion, (size(frames), text.tokens), (4, Scope::SpatialAndMotion))
    };
    for (what, graph) in [
        ("training", training(1)),
        ("training with 16 frames", training(16)),
        ("text", program::text(&text)),
        ("context", program::context(&unet, text.tokens)),
        ("step", program::step(&unet, None, size(1), text.tokens)),
        ("16 frames", program::step(&unet, Some(&motion), size(16), text.tokens)),
        ("decode", program::decode(&vae, 1, 64, 64)),
        ("decode 16", program::decode(&vae, 16, 64, 64)),
        ("encode", program::encode(&vae, 64, 64)),
        ("image", program::image(&vision)),
        ("video step", program::video_step(&video, wide)),
        ("video decode", program::decode(&video_vae, 14, 72, 128)),
    ] {
        for warpgroups in [false, true] {
            let target = Target { warpgroups, ..TARGET };
            let addresses = addresses(&graph);
            let launches = lower(&graph, &addresses, target).launches;
            for launch in &launches {
                assert!(known.iter().any(|name| name == launch.kernel), "{what}: {launch:?}");
                assert_eq!(
                    launch.kernel.starts_with("hopper_"),
                    launch.kernel.starts_with("hopper_") && warpgroups
                );
                check_limits(launch);
            }
            let (weights, tensors) = memory_of(&graph, target);
            println!(
                "{what}, warpgroups {warpgroups}: {} launches, {} MiB of weights, {} MiB of tensors",
                launches.len(),
                weights >> 20,
                tensors >> 20
            );
        }
    }
}

fn addresses(graph: &Graph) -> Addresses {
    Addresses {
        tensors: (0..graph.tensors.len() as u64).map(|n| n << 32).collect(),
        weights: (0..graph.weights.len() as u64).map(|n| (n << 32) + (1 << 48)).collect(),
        workspace: 1 << 50,
    }
}

fn check_limits(launch: &Launch) {
    assert!(launch.threads.is_multiple_of(32) && launch.shared_bytes <= 227 << 10, "{launch:?}");
    let [x, y, z] = launch.grid;
    assert!(x > 0 && x <= i32::MAX as u32 && y > 0 && z > 0 && y.max(z) < 65536, "{launch:?}");
}

#[test]
fn lowering_is_the_same_every_time_and_asks_for_its_workspace() {
    let model = model();
    let graph = step(&model, 2);
    let addresses = addresses(&graph);
    let lowered = lower(&graph, &addresses, TARGET);
    assert_eq!(lowered, lower(&graph, &addresses, TARGET));
    assert!(lowered.workspace_bytes > 0 && !lowered.launches.is_empty());
    lowered.launches.iter().for_each(check_limits);
}
