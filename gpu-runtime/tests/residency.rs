//! Residency with real models: two tiny ones on the CPU where only one has room, and densities of the published ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpu_runtime::RuntimeError;
use gpu_runtime::cpu::CpuBackend;
use gpu_runtime::generate::{CancelToken, Generator, Request, make_tiny};
use gpu_runtime::graph::Graph;
use gpu_runtime::model::program::{self, LatentSize};
use gpu_runtime::model::{Model, ModelSource, MotionConfig, TextConfig, UnetConfig, VaeConfig};
use gpu_runtime::picture::Picture;
use gpu_runtime::residency::{
    Bytes, Eviction, Footprint, Loaded, Loader, Placement, Source, Store, density_max,
};

/// Requests that the test makes.
fn request(seed: u64) -> Request {
    Request {
        prompt: "the cat running".to_owned(),
        seed,
        steps: 2,
        frames: 2,
        width: 16,
        height: 16,
        guidance: 8.0,
        start: None,
        sampler: None,
    }
}

/// Everything that a model runs for frames of `side` pixels.
fn programs(
    text: &TextConfig,
    unet: &UnetConfig,
    motion: Option<&MotionConfig>,
    vae: &VaeConfig,
    (frames, side): (u32, u32),
) -> Vec<Graph> {
    let latents = side / vae.factor();
    let size = LatentSize { clips: 1, frames, height: latents, width: latents };
    vec![
        program::text(text),
        program::context(unet, text.tokens),
        program::step(unet, motion.filter(|_| frames > 1), size, text.tokens),
        program::decode(vae, 1, latents, latents),
        program::encode(vae, latents, latents),
    ]
}

/// Model folders, each loaded on a backend of its own that holds no more than was stated.
struct Folders {
    root: PathBuf,
    bytes: u64,
    /// Models on the device, and the most there were.
    here: Cell<(u32, u32)>,
}

impl Loader for Folders {
    type Device = RefCell<Generator>;
    type Host = ();

    fn load(&self, model: &str, _: Option<&()>) -> Result<Loaded<Self::Device>, RuntimeError> {
        let backend = CpuBackend::new(2).with_bytes_max(self.bytes);
        let mut generator = Generator::new(&ModelSource::folder(&self.root.join(model)), Box::new(backend))?;
        let Request { frames, width, height, .. } = request(0);
        generator.prepare(frames, width, height, true)?;
        let (now, most) = self.here.get();
        self.here.set((now + 1, most.max(now + 1)));
        Ok(Loaded { value: RefCell::new(generator), source: Source::PageCache })
    }

    fn evict(&self, _: &str, device: Self::Device, _: bool) -> Result<Option<()>, RuntimeError> {
        let backend = device.into_inner().unload()?;
        assert_eq!(backend.memory().used, 0, "nothing stays behind");
        let (now, most) = self.here.get();
        self.here.set((now - 1, most));
        Ok(None)
    }
}

fn generate(generator: &mut Generator, seed: u64) -> Vec<Picture> {
    generator.generate(&request(seed), &mut |_| {}, &CancelToken::new()).unwrap().frames
}

/// Bytes that a model holds once it has served a request: what its owner states to the store.
fn measured(folder: &Path) -> u64 {
    let mut generator = Generator::new(&ModelSource::folder(folder), Box::new(CpuBackend::new(2))).unwrap();
    let Request { frames, width, height, .. } = request(0);
    generator.prepare(frames, width, height, true).unwrap();
    generate(&mut generator, 0);
    generator.memory().used
}

/// What the CPU backend must hold at least: its scratch tensors are pieces of a pool, not of one planned block, so that
/// it takes more than is counted.
fn counted(folder: &Path) -> Footprint {
    let model = Model::open(&ModelSource::folder(folder)).unwrap();
    let Request { frames, width, .. } = request(0);
    let all = programs(&model.text, &model.unet, model.motion.as_ref(), &model.vae, (frames, width));
    Footprint::of(&all, 4)
}

#[test]
fn two_models_take_turns_where_one_has_room_and_draw_the_same() {
    const TURNS: u64 = 6;
    let root = tempfile::tempdir().unwrap();
    let names = ["a", "b"];
    names.iter().zip([1, 2]).for_each(|(name, seed)| make_tiny(&root.path().join(name), seed).unwrap());
    let bytes = measured(&root.path().join("a"));
    let of = counted(&root.path().join("a"));
    let least = of.weights + of.tensors;
    assert!((least..=least * 5 / 4).contains(&bytes), "{bytes} bytes are held, {of:?} were counted");

    let alone = |name: &str, seed: u64| {
        let source = ModelSource::folder(&root.path().join(name));
        generate(&mut Generator::new(&source, Box::new(CpuBackend::new(2))).unwrap(), seed)
    };
    let expected: Vec<Vec<Picture>> = (0..TURNS).map(|turn| alone(names[turn as usize % 2], turn)).collect();
    assert_ne!(alone("a", 0), alone("b", 0), "the models differ");

    let run = |room: u64| {
        let loader = Folders { root: root.path().to_owned(), bytes, here: Cell::new((0, 0)) };
        let budget = Bytes { device: room * bytes + bytes / 2, host: 0 };
        let store = Store::new(loader, budget, Eviction::LeastRecentlyUsed, || Duration::ZERO);
        for name in names {
            store.add(name, Bytes { device: bytes, host: 0 }).unwrap();
        }
        for turn in 0..TURNS {
            let model = store.acquire(names[turn as usize % 2]).unwrap();
            let frames = generate(&mut model.borrow_mut(), turn);
            assert!(frames == expected[turn as usize], "turn {turn} in room for {room}");
            let held = model.borrow().memory().used;
            assert!(held <= bytes, "{held} bytes are held, {bytes} were stated");
        }
        (store.counters(), store.loader().here.get())
    };
    let (tight, here) = run(1);
    assert_eq!((tight.hits, tight.misses, tight.evictions(), here), (0, TURNS, TURNS - 1, (1, 1)));
    assert_eq!(tight.bytes_evicted, (TURNS - 1) * bytes);
    assert_eq!(tight.loads[&Source::PageCache].count, TURNS);
    let (roomy, here) = run(2);
    assert_eq!((roomy.hits, roomy.misses, roomy.evictions(), here), (TURNS - 2, 2, 0, (2, 2)));
}

#[test]
fn densities_of_the_published_model_follow_from_its_configurations() {
    const GB: u64 = 1_000_000_000;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations");
    let base = folder.join("lcm_dreamshaper_v7");
    let unet = UnetConfig::read(&base.join("unet/config.json")).unwrap();
    let motion = MotionConfig::read(&folder.join("animatelcm/motion_adapter/config.json"), &unet).unwrap();
    let text = TextConfig::read(&base.join("text_encoder/config.json")).unwrap();
    let vae = VaeConfig::read(&base.join("vae/config.json")).unwrap();
    let of = Footprint::of(&programs(&text, &unet, Some(&motion), &vae, (16, 512)), 2);
    // docs/gpu-runtime.md: weights 3.04 GB; tensors 1.25 GB there, with the workspace of kernels.
    assert_eq!(of.weights / 10_000_000, 304);
    assert!((GB..GB * 5 / 4).contains(&of.tensors), "{of:?}");
    let most = |placement| density_max(of, placement, 24 * GB).unwrap();
    let [shared, own] = [Placement::SharedWeights, Placement::OwnWeights].map(most);
    println!("{of:?}: {shared} replicas with shared weights, {own} with their own, in 24 GB");
    assert_eq!(own, 24 * GB / (of.weights + of.tensors));
    assert!(shared > 3 * own, "weights are most of the memory: {shared} and {own}");
}
