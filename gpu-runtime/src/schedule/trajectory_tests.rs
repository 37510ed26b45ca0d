//! Schedules and whole trajectories against diffusers 0.42's, as recorded in `tests/fixtures/golden/`.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use super::config::{BetaSpacing, FinalSigma, SigmaSpacing, TimestepSpacing};
use super::embedding::guidance_embedding;
use super::sigmas::alphas_cumprod;
use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name)
}

fn values(tensors: &SafeTensors, name: &str) -> Vec<f64> {
    let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    tensor.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
}

/// `|a − b| / |b|` in the Euclidean norm.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied())
}

/// As the authors of AnimateLCM-SVD put their sampler together.
const CONSISTENCY: &str = r#"{ "_class_name": "AnimateLCMSVDStochasticIterativeScheduler", "clip_denoised": false,
    "num_train_timesteps": 40, "rho": 7, "s_noise": 1.0, "sigma_data": 1.0, "sigma_max": 700.0, "sigma_min": 0.002 }"#;

fn config(sampler: Sampler) -> ScheduleConfig {
    if sampler == Sampler::Consistency {
        return SchedulerFile::parse(Path::new("a.json"), CONSISTENCY).unwrap().resolve(None).unwrap();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model/scheduler");
    SchedulerFile::load(&folder).unwrap().resolve(Some(sampler)).unwrap()
}

/// The configurations of the recorded runs.
fn recorded(name: &str) -> (ScheduleConfig, u32) {
    match name {
        "lcm4" => (config(Sampler::Lcm), 4),
        "lcm8" => (config(Sampler::Lcm), 8),
        "dpmpp2m_lu15" => {
            let sigma_spacing = SigmaSpacing::UniformLogSnr;
            let timestep_spacing = TimestepSpacing::Linspace;
            let base = config(Sampler::DpmSolverPlusPlus);
            (ScheduleConfig { sigma_spacing, timestep_spacing, ..base }, 15)
        }
        "euler_trailing4" => {
            let timestep_spacing = TimestepSpacing::Trailing;
            let beta_spacing = BetaSpacing::Linear;
            (ScheduleConfig { timestep_spacing, beta_spacing, ..config(Sampler::Euler) }, 4)
        }
        "ddim8" => {
            let base = config(Sampler::Ddim);
            (ScheduleConfig { set_alpha_to_one: false, steps_offset: 1, ..base }, 8)
        }
        other => panic!("no run `{other}`"),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn alphas_are_those_of_diffusers() {
    let facts: Value = serde_json::from_slice(&std::fs::read(golden("schedules.json")).unwrap()).unwrap();
    let check = |key: &str, beta_spacing: BetaSpacing| {
        let alphas = alphas_cumprod(&ScheduleConfig { beta_spacing, ..config(Sampler::Lcm) });
        let found: Vec<f64> = [0, 1, 250, 499, 500, 998, 999].map(|t| alphas[t]).to_vec();
        for (found, expected) in found.iter().zip(numbers(&facts[key])) {
            assert!((found / expected - 1.0).abs() < 5e-6, "{key}: {found} {expected}");
        }
    };
    check("alphas_cumprod_scaled_linear", BetaSpacing::ScaledLinear);
    check("alphas_cumprod_linear", BetaSpacing::Linear);
}

#[test]
fn timesteps_and_start_are_those_of_diffusers() {
    let facts: Value = serde_json::from_slice(&std::fs::read(golden("schedules.json")).unwrap()).unwrap();
    for (name, run) in facts["runs"].as_object().unwrap() {
        let (config, steps) = recorded(name);
        let schedule = config.schedule(steps, 1.0).unwrap();
        assert_eq!(schedule.timesteps, numbers(&run["timesteps"]), "{name}");
        let sigma = run["init_noise_sigma"].as_f64().unwrap();
        assert!((schedule.init_noise_sigma / sigma - 1.0).abs() < 5e-6, "{name}");
    }
}

/// The recorded outputs stand in for the model; every state must follow from them.
#[test]
fn trajectories_are_those_of_diffusers() {
    let bytes = std::fs::read(golden("schedules.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["lcm4", "lcm8", "dpmpp2m_lu15", "euler_trailing4", "ddim8"] {
        let (config, steps) = recorded(name);
        let schedule = config.schedule(steps, 1.0).unwrap();
        let mut x = values(&tensors, &format!("{name}.x0"));
        let mut before = vec![0.0; x.len()];
        for (i, step) in schedule.steps.iter().enumerate() {
            let output = values(&tensors, &format!("{name}.eps{i}"));
            let noise = match tensors.tensor(&format!("{name}.noise{i}")) {
                Ok(_) => values(&tensors, &format!("{name}.noise{i}")),
                Err(_) => vec![0.0; x.len()],
            };
            let denoised: Vec<f64> = x.iter().zip(&output).map(|(x, e)| step.dx * x + step.de * e).collect();
            let next =
                |j: usize| step.nx * x[j] + step.nd * denoised[j] + step.np * before[j] + step.nn * noise[j];
            x = (0..x.len()).map(next).collect();
            let error = relative_error(&x, &values(&tensors, &format!("{name}.x{}", i + 1)));
            assert!(error < 1e-5, "{name} step {i}: relative error {error:e}");
            if let Ok(expected) = tensors.tensor(&format!("{name}.den{i}")).map(|_| format!("{name}.den{i}"))
            {
                let error = relative_error(&denoised, &values(&tensors, &expected));
                assert!(error < 1e-5, "{name} estimate {i}: relative error {error:e}");
            }
            before = denoised;
        }
    }
}

/// The recorded image-to-animation run starts at strength 0.8 with four LCM steps: 799, 599, 399, 199.
#[test]
fn strength_shortens_the_way() {
    let check = |sampler: Sampler, steps: u32, strength: f64, expected: &[f64]| {
        let schedule = config(sampler).schedule(steps, strength).unwrap();
        assert_eq!(schedule.timesteps, expected, "{sampler:?}");
    };
    check(Sampler::Lcm, 4, 0.8, &[799.0, 599.0, 399.0, 199.0]);
    check(Sampler::Ddim, 4, 0.5, &[250.0, 0.0]);
    check(Sampler::Ddim, 4, 1.0, &[750.0, 500.0, 250.0, 0.0]);
    let start = config(Sampler::Lcm).schedule(4, 0.8).unwrap().start;
    assert!((start.sample.powi(2) + start.noise.powi(2) - 1.0).abs() < 1e-12);
}

#[test]
fn impossible_runs_are_refused() {
    let check = |sampler: Sampler, steps: u32, strength: f64, part: &str| {
        let error = config(sampler).schedule(steps, strength).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(Sampler::Lcm, 0, 1.0, "0 steps");
    check(Sampler::Lcm, 51, 1.0, "50 distilled steps");
    check(Sampler::Lcm, 8, 0.1, "of which 5 are left");
    check(Sampler::Euler, 4, 0.2, "at least 0.250");
    check(Sampler::Euler, 4, 0.0, "outside (0, 1]");
    check(Sampler::Euler, 4, f64::NAN, "outside (0, 1]");
    check(Sampler::Ddim, 1001, 1.0, "takes 1 to 1000");
    check(Sampler::Consistency, 41, 1.0, "takes 1 to 40");
}

/// Levels, times and states of a state of one number, by the formulas of the sampler of AnimateLCM-SVD's authors in NumPy.
#[test]
fn consistency_sampling_is_that_of_its_authors() {
    let check = |steps: u32, times: &[f64], states: &[f64]| {
        let schedule = config(Sampler::Consistency).schedule(steps, 1.0).unwrap();
        assert!(relative_error(&schedule.timesteps, times) < 1e-12, "{:?}", schedule.timesteps);
        assert!((schedule.init_noise_sigma - 490_001.0_f64.sqrt()).abs() < 1e-9);
        let mut x = 0.5 * schedule.init_noise_sigma;
        let mut found = Vec::new();
        for (i, step) in schedule.steps.iter().enumerate() {
            let output = 0.3 - 0.1 * i as f64;
            let noise = if i % 2 == 0 { 0.25 } else { -0.25 };
            x = step.nx * x + step.nd * (step.dx * x + step.de * output) + step.nn * noise;
            found.push(x);
        }
        assert!(relative_error(&found, states) < 1e-12, "{found:?}");
    };
    check(1, &[1.637_770_083_760_850_9], &[-0.299_285_408_892_595_7]);
    check(
        4,
        &[
            1.637_770_083_760_850_9,
            1.214_106_119_943_289_4,
            0.653_955_292_820_360_2,
            -0.174_852_477_476_363_37,
        ],
        &[
            31.841_638_897_571_062,
            -3.617_678_640_630_089_6,
            0.005_253_017_257_095_496,
            0.004_212_901_690_991_77,
        ],
    );
    // Forty over six is six.
    let levels = config(Sampler::Consistency).schedule(6, 1.0).unwrap();
    assert!((levels.steps[4].nn - 0.496_878_420_334_353_03).abs() < 1e-12);
}

/// A model that knows the answer gives it back, whatever the sampler, the spacing and the kind of prediction. DDIM may end
/// at the first timestep of training, where a noise of 0.029 is left, of which the start had 0.7.
#[test]
fn perfect_model_arrives_at_its_sample() {
    for sampler in Sampler::ALL {
        for timestep_spacing in
            [TimestepSpacing::Linspace, TimestepSpacing::Leading, TimestepSpacing::Trailing]
        {
            for prediction in [Prediction::Epsilon, Prediction::Sample, Prediction::Velocity] {
                for sigma_spacing in
                    [SigmaSpacing::Timesteps, SigmaSpacing::UniformLogSnr, SigmaSpacing::Karras]
                {
                    let base = config(sampler);
                    let config = ScheduleConfig { timestep_spacing, prediction, sigma_spacing, ..base };
                    for (steps, strength) in [(2, 1.0), (7, 1.0), (15, 1.0), (8, 0.6)] {
                        let found = arrival(&config, steps, strength, 0.3);
                        let error = (found - 0.3).abs();
                        assert!(error < 2.1e-2, "{config:?} {steps} {strength}: {found}");
                    }
                }
            }
        }
    }
}

/// Where a run ends whose model always predicts `sample`, from a state with some noise in it.
fn arrival(config: &ScheduleConfig, steps: u32, strength: f64, sample: f64) -> f64 {
    let schedule = config.schedule(steps, strength).unwrap();
    let (mut x, mut before) = (schedule.start.sample * sample + schedule.start.noise * 0.7, 0.0);
    for step in &schedule.steps {
        // Solve `dx*x + de*output = sample` for the output, then take the step.
        let output = (sample - step.dx * x) / step.de;
        let denoised = step.dx * x + step.de * output;
        x = step.nx * x + step.nd * denoised + step.np * before + step.nn * 0.4;
        before = denoised;
        assert!(x.is_finite());
    }
    x
}

#[test]
fn last_noise_level_of_training_can_be_the_end() {
    let final_sigma = FinalSigma::SigmaMin;
    for sampler in [Sampler::Euler, Sampler::DpmSolverPlusPlus] {
        let config =
            ScheduleConfig { final_sigma, timestep_spacing: TimestepSpacing::Trailing, ..config(sampler) };
        let last = *config.schedule(6, 1.0).unwrap().steps.last().unwrap();
        assert!(last.nx > 0.0, "{sampler:?}");
    }
}

/// The guidance embedding that the recorded model step was given, at scale 8 (`w` = 7).
#[test]
fn guidance_embedding_is_that_of_diffusers() {
    let bytes = std::fs::read(golden("unet.safetensors")).unwrap();
    let expected = values(&SafeTensors::deserialize(&bytes).unwrap(), "w_cond");
    let found: Vec<f64> = guidance_embedding(8.0, 32).into_iter().map(f64::from).collect();
    let error = relative_error(&found, &expected);
    assert!(error < 1e-4, "relative error {error:e}");
}

/// 46 settings that the recorded model runs do not visit, written by `tests/fixtures/make_schedules.py` from diffusers'
/// own classes. The state is three numbers, the outputs and the noise are sines and cosines.
#[test]
fn other_settings_are_those_of_diffusers() {
    let runs: Vec<Value> =
        serde_json::from_slice(&std::fs::read(golden("schedules_more.json")).unwrap()).unwrap();
    assert_eq!(runs.len(), 46);
    for run in &runs {
        let text = run["config"].to_string();
        let config = SchedulerFile::parse(Path::new("a.json"), &text).unwrap().resolve(None).unwrap();
        let schedule = config.schedule(run["steps"].as_u64().unwrap() as u32, 1.0).unwrap();
        let close = |found: &[f64], expected: &[f64], error_max: f64| {
            let error = relative_error(found, expected);
            assert!(error < error_max, "{text}: {found:?} {expected:?}: relative error {error:e}");
        };
        close(&schedule.timesteps, &numbers(&run["timesteps"]), 1e-5);
        let sigma = schedule.init_noise_sigma;
        close(&[sigma], &[run["init_noise_sigma"].as_f64().unwrap()], 5e-6);
        let mut x = [sigma, -0.5 * sigma, 0.2 * sigma];
        let mut before = [0.0; 3];
        for (i, (step, expected)) in schedule.steps.iter().zip(run["states"].as_array().unwrap()).enumerate()
        {
            let i = i as f64;
            let output = [i + 1.0, 2.0 * i, 3.0 - i].map(f64::sin);
            let noise = [i, 5.0 * i, 1.0 + i].map(f64::cos);
            let denoised: [f64; 3] = std::array::from_fn(|j| step.dx * x[j] + step.de * output[j]);
            x = std::array::from_fn(|j| {
                step.nx * x[j] + step.nd * denoised[j] + step.np * before[j] + step.nn * noise[j]
            });
            before = denoised;
            close(&x, &numbers(expected), 2e-5);
        }
    }
}
