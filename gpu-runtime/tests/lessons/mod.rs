//! The recorded trainings of the tiny models, on any backend.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use gpu_runtime::generate::Backend;
use gpu_runtime::model::program::LatentSize;
use gpu_runtime::model::{Model, ModelSource};
use gpu_runtime::schedule::SchedulerFile;
use gpu_runtime::train::{Conditions, OptimizerSettings, Sample, Scope, Settings, Trainer};

use super::golden::{Recorded, fixtures, recorded, recorded_file};

/// Guidance scale of the recorded conditions.
pub(crate) const GUIDANCE: f64 = 8.0;

/// As in `make_golden.py`.
pub(crate) const SETTINGS: Settings = Settings {
    rank: 4,
    alpha: 6.0,
    scope: Scope::SpatialAndMotion,
    seed: 1,
    optimizer: OptimizerSettings { learning_rate: 2e-2, warm_up_steps: 3, weight_decay: 1e-2, norm_max: 0.1 },
};

pub(crate) fn source() -> ModelSource {
    ModelSource::folder(&fixtures().join("model"))
}

pub(crate) fn trainer(frames: u32, settings: Settings, backend: Box<dyn Backend>) -> Trainer {
    let source = source();
    let model = Model::open(&source).unwrap();
    let schedule = SchedulerFile::load(&source.folder.join("scheduler")).unwrap().resolve(None).unwrap();
    let context = recorded("unet")["ctx"].values.clone();
    let conditions = Conditions { context, guidance: Some(GUIDANCE) };
    let size = LatentSize { clips: 1, frames, height: 8, width: 8 };
    Trainer::new(&model, &schedule, &conditions, size, &settings, backend).unwrap()
}

pub(crate) fn golden_file() -> BTreeMap<String, Recorded> {
    recorded_file(&fixtures().join("train/golden.safetensors"))
}

/// The trainer and samples of a recorded case.
pub(crate) fn case(
    golden: &BTreeMap<String, Recorded>,
    tag: &str,
    backend: Box<dyn Backend>,
) -> (Trainer, Vec<Sample>) {
    let frames = if tag == "clip" { 4 } else { 1 };
    let mut trainer = trainer(frames, SETTINGS, backend);
    for layer in &mut trainer.adapters_mut().layers {
        let module = layer.name.split_once('/').unwrap().1.to_owned();
        layer.pair.down.copy_from_slice(&golden[&format!("{tag}.down.{module}")].values);
        layer.pair.up.copy_from_slice(&golden[&format!("{tag}.up.{module}")].values);
    }
    let samples = [259, 701].into_iter().enumerate().map(|(n, timestep)| Sample {
        latents: golden[&format!("{tag}.latents{n}")].channels_last(),
        noise: golden[&format!("{tag}.noise{n}")].channels_last(),
        timestep,
    });
    let samples = samples.collect();
    (trainer, samples)
}
