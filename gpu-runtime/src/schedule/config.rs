//! `scheduler_config.json`: what of it is understood, what is harmless, and what must be refused because it would change
//! the result. Makes no schedule.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::RuntimeError;

/// Bytes of a scheduler file; real ones have below 2 kB.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Steps that AnimateLCM-SVD was distilled on.
const DISTILLED_STEPS: u32 = 40;

/// Training timesteps; real models have 1000.
const TRAIN_TIMESTEPS_MAX: u32 = 100_000;

/// How a state becomes the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// Latent consistency models: denoise, then noise again (Luo et al. 2023, arXiv 2310.04378, algorithm 3).
    Lcm,
    /// DPM-Solver++ of first or second order, multistep (Lu et al. 2022, arXiv 2211.01095, algorithm 2).
    DpmSolverPlusPlus,
    /// Euler's method on the probability flow (Karras et al. 2022, arXiv 2206.00364, algorithm 1 without churn).
    Euler,
    /// DDIM with eta 0 (Song et al. 2020, arXiv 2010.02502, equation 12).
    Ddim,
    /// Consistency models on Karras' noise levels: denoise, then noise again (Song et al. 2023, arXiv 2303.01469,
    /// algorithm 1), as the authors of AnimateLCM-SVD do.
    Consistency,
}

impl Sampler {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Lcm, Self::DpmSolverPlusPlus, Self::Euler, Self::Ddim, Self::Consistency];

    /// Short name, e.g. for command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lcm => "lcm",
            Self::DpmSolverPlusPlus => "dpm++",
            Self::Euler => "euler",
            Self::Ddim => "ddim",
            Self::Consistency => "consistency",
        }
    }

    /// The sampler of that short name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sampler| sampler.name() == name)
    }

    /// Name of the class in diffusers; of consistency sampling in the code of AnimateLCM-SVD's authors.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Lcm => "LCMScheduler",
            Self::DpmSolverPlusPlus => "DPMSolverMultistepScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Consistency => "AnimateLCMSVDStochasticIterativeScheduler",
        }
    }
}

/// How the betas of training lie between their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSpacing {
    /// Evenly.
    Linear,
    /// Their square roots evenly.
    ScaledLinear,
}

/// What the model's output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise in the state.
    Epsilon,
    /// The denoised sample itself.
    Sample,
    /// `v = √ᾱ·noise − √(1−ᾱ)·sample`.
    #[serde(rename = "v_prediction")]
    Velocity,
}

/// Which timesteps of training are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// From the last to the first, evenly.
    Linspace,
    /// Multiples of a whole stride, from 0 upwards.
    Leading,
    /// Multiples of a stride, from the last downwards.
    Trailing,
}

/// How the noise levels lie when they do not follow from the timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigmaSpacing {
    /// They follow from the timesteps.
    Timesteps,
    /// Evenly in log-SNR (Lu et al. 2022).
    UniformLogSnr,
    /// Karras et al. 2022, equation 5, rho 7.
    Karras,
}

/// The noise level after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigma {
    /// None.
    Zero,
    /// That of training's first timestep.
    SigmaMin,
}

/// A schedule's parameters, resolved for one sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleConfig {
    /// How a state becomes the next one.
    pub sampler: Sampler,
    /// Timesteps of training.
    pub train_timesteps: u32,
    /// First beta of training.
    pub beta_start: f64,
    /// Last beta of training.
    pub beta_end: f64,
    /// How they lie between.
    pub beta_spacing: BetaSpacing,
    /// What the model gives.
    pub prediction: Prediction,
    /// Which timesteps are visited. LCM has a way of its own.
    pub timestep_spacing: TimestepSpacing,
    /// Added to `leading` timesteps.
    pub steps_offset: u32,
    /// DDIM: whether the state after the last step is free of noise.
    pub set_alpha_to_one: bool,
    /// LCM and consistency: steps of the teacher's schedule, of which every run is a part.
    pub original_inference_steps: u32,
    /// LCM: factor of the timestep in the boundary condition.
    pub timestep_scaling: f64,
    /// DPM-Solver++ and Euler: noise levels.
    pub sigma_spacing: SigmaSpacing,
    /// DPM-Solver++ and Euler: the last noise level.
    pub final_sigma: FinalSigma,
    /// Euler with Karras sigmas, consistency: the lowest, where the model states it.
    pub sigma_min: Option<f64>,
    /// Euler with Karras sigmas, consistency: the highest, where the model states it.
    pub sigma_max: Option<f64>,
    /// Euler, consistency: the model is told `ln(sigma)/4` instead of a timestep (EDM models with velocity prediction).
    pub continuous_timesteps: bool,
    /// DPM-Solver++: 1 or 2.
    pub solver_order: u32,
    /// DPM-Solver++: first order at the last step of short runs.
    pub lower_order_final: bool,
    /// DPM-Solver++: first order at the last step of every run.
    pub euler_at_final: bool,
}

/// A scheduler file as it stands, before a sampler is chosen for it.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerFile {
    path: PathBuf,
    class: String,
    keys: Map<String, Value>,
    /// Keys that the writer did not set, which give way to the defaults of another class.
    defaulted: Vec<String>,
}

/// Keys that are understood.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    num_train_timesteps: Option<u32>,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    beta_schedule: Option<BetaSpacing>,
    prediction_type: Option<Prediction>,
    timestep_spacing: Option<TimestepSpacing>,
    steps_offset: Option<u32>,
    set_alpha_to_one: Option<bool>,
    original_inference_steps: Option<u32>,
    timestep_scaling: Option<f64>,
    use_karras_sigmas: Option<bool>,
    use_lu_lambdas: Option<bool>,
    final_sigmas_type: Option<FinalSigma>,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    timestep_type: Option<String>,
    solver_order: Option<u32>,
    lower_order_final: Option<bool>,
    euler_at_final: Option<bool>,
}

/// Keys that change nothing while those of [`FIXED`] hold, or belong to samplers that are not here.
const HARMLESS: &[&str] = &[
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "flow_shift",
    "sample_max_value",
    "skip_prk_steps",
    "time_shift_type",
];

/// Keys with the only values that are understood; another value would change the result.
const FIXED: &[(&str, &[&str])] = &[
    ("algorithm_type", &["\"dpmsolver++\""]),
    ("clip_denoised", &["false"]),
    ("clip_sample", &["false"]),
    ("interpolation_type", &["\"linear\""]),
    ("lambda_min_clipped", &["null"]),
    ("rescale_betas_zero_snr", &["false"]),
    ("rho", &["7", "7.0"]),
    ("s_noise", &["1", "1.0"]),
    ("sigma_data", &["1", "1.0"]),
    ("solver_type", &["\"midpoint\""]),
    ("thresholding", &["false"]),
    ("trained_betas", &["null"]),
    ("use_beta_sigmas", &["false", "null"]),
    ("use_dynamic_shifting", &["false"]),
    ("use_exponential_sigmas", &["false", "null"]),
    ("use_flow_sigmas", &["false"]),
    ("variance_type", &["null", "\"fixed_small\"", "\"fixed_small_log\"", "\"fixed_large\""]),
];

impl SchedulerFile {
    /// Reads `FOLDER/scheduler_config.json`.
    ///
    /// # Errors
    /// `BadModel` when the file is absent or no scheduler file.
    pub fn load(folder: &Path) -> Result<Self, RuntimeError> {
        let path = folder.join("scheduler_config.json");
        let text = crate::small_file::read(&path, FILE_BYTES_MAX)?;
        Self::parse(&path, &text)
    }

    /// Takes the text of a scheduler file; `path` is for messages.
    ///
    /// # Errors
    /// `BadModel` when it is no scheduler file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, RuntimeError> {
        let bad = |why: String| RuntimeError::BadModel { path: path.to_owned(), why };
        let keys = serde_json::from_str(&without_infinity(text));
        let mut keys: Map<String, Value> = keys.map_err(|error| bad(format!("is not JSON: {error}")))?;
        let class = match keys.get("_class_name") {
            Some(Value::String(class)) => class.clone(),
            _ => return Err(bad("`_class_name` is missing; it names the sampler".to_owned())),
        };
        let defaulted = match keys.get("_use_default_values") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        keys.retain(|key, _| !key.starts_with('_'));
        Ok(Self { path: path.to_owned(), class, keys, defaulted })
    }

    /// The sampler that the file names, if it is one of ours.
    pub fn sampler(&self) -> Option<Sampler> {
        Sampler::ALL.into_iter().find(|sampler| sampler.class() == self.class)
    }

    /// The parameters for `sampler`, or for the file's own one. What the file does not say is as the sampler's class in
    /// diffusers has it.
    ///
    /// # Errors
    /// `BadModel` naming the key that is unknown, out of range, or would change the result in a way that is not understood.
    pub fn resolve(&self, sampler: Option<Sampler>) -> Result<ScheduleConfig, RuntimeError> {
        let Some(chosen) = sampler.or_else(|| self.sampler()) else {
            let names = Sampler::ALL.map(Sampler::name).join(", ");
            return Err(self.bad(format!("`{}` is not supported; choose a sampler: {names}", self.class)));
        };
        let mut keys = self.keys.clone();
        if chosen.class() != self.class {
            keys.retain(|key, _| !self.defaulted.contains(key));
        }
        self.check_fixed(&mut keys, chosen)?;
        let known: Known = serde_json::from_value(Value::Object(keys))
            .map_err(|error| self.bad(format!("{error}; it may change the result, so it is refused")))?;
        let is_own = chosen.class() == self.class;
        let config = resolved(&known, chosen, is_own).map_err(|why| self.bad(why))?;
        check_ranges(&config).map_err(|why| self.bad(why))?;
        Ok(config)
    }

    /// Takes out the keys of [`FIXED`] and [`HARMLESS`].
    fn check_fixed(&self, keys: &mut Map<String, Value>, sampler: Sampler) -> Result<(), RuntimeError> {
        for (key, allowed) in FIXED {
            let Some(value) = keys.remove(*key) else { continue };
            let text = value.to_string();
            if !allowed.contains(&text.as_str()) {
                return Err(
                    self.bad(format!("`{key}` = {text} is not supported, only {}", allowed.join(" or ")))
                );
            }
        }
        let says = |key: &str| self.keys.contains_key(key);
        if sampler == Sampler::Ddim && !says("clip_sample") {
            let why = "`clip_sample` is missing, which means true for DDIM; only false is supported";
            return Err(self.bad(why.to_owned()));
        }
        if self.class == Sampler::Consistency.class() && !(says("clip_denoised") && says("sigma_data")) {
            let why = "`clip_denoised` or `sigma_data` is missing, which means true and 0.5; only false and 1 are supported";
            return Err(self.bad(why.to_owned()));
        }
        keys.retain(|key, _| !HARMLESS.contains(&key.as_str()));
        Ok(())
    }

    fn bad(&self, why: String) -> RuntimeError {
        RuntimeError::BadModel { path: self.path.clone(), why }
    }
}

/// Fills in what the class in diffusers 0.42 takes where nothing is said. `is_own`: the file is that class's.
fn resolved(known: &Known, sampler: Sampler, is_own: bool) -> Result<ScheduleConfig, String> {
    let (lcm, consistency) = (sampler == Sampler::Lcm, sampler == Sampler::Consistency);
    let spacing = match sampler {
        Sampler::Lcm | Sampler::Ddim => TimestepSpacing::Leading,
        Sampler::DpmSolverPlusPlus | Sampler::Euler | Sampler::Consistency => TimestepSpacing::Linspace,
    };
    let sigma_spacing = match (known.use_karras_sigmas, known.use_lu_lambdas, sampler) {
        (Some(true), _, Sampler::DpmSolverPlusPlus | Sampler::Euler) => SigmaSpacing::Karras,
        (_, Some(true), Sampler::DpmSolverPlusPlus) => SigmaSpacing::UniformLogSnr,
        _ => SigmaSpacing::Timesteps,
    };
    let is_edm = consistency && is_own;
    let prediction = if is_edm { Prediction::Velocity } else { Prediction::Epsilon };
    let prediction = known.prediction_type.unwrap_or(prediction);
    let continuous = match known.timestep_type.as_deref() {
        None | Some("discrete") => is_edm,
        // Diffusers looks at the type for velocity prediction alone.
        Some("continuous") => {
            prediction == Prediction::Velocity && matches!(sampler, Sampler::Euler | Sampler::Consistency)
        }
        Some(other) => return Err(format!("`timestep_type` = \"{other}\" is not discrete or continuous")),
    };
    if consistency && !(continuous && prediction == Prediction::Velocity) {
        let why = "consistency sampling is for models that are told noise levels and predict velocities \
                   (`timestep_type` \"continuous\", `prediction_type` \"v_prediction\"): image-to-video models";
        return Err(why.to_owned());
    }
    let teacher = match sampler {
        // In a file of its own the steps of training are those that were distilled.
        Sampler::Consistency if is_own => known.num_train_timesteps.unwrap_or(DISTILLED_STEPS),
        Sampler::Consistency => DISTILLED_STEPS,
        _ => 50,
    };
    let beta_spacing = if lcm { BetaSpacing::ScaledLinear } else { BetaSpacing::Linear };
    Ok(ScheduleConfig {
        sampler,
        train_timesteps: known.num_train_timesteps.unwrap_or(if is_edm { DISTILLED_STEPS } else { 1000 }),
        beta_start: known.beta_start.unwrap_or(if lcm { 0.00085 } else { 0.0001 }),
        beta_end: known.beta_end.unwrap_or(if lcm { 0.012 } else { 0.02 }),
        beta_spacing: known.beta_schedule.unwrap_or(beta_spacing),
        prediction,
        timestep_spacing: known.timestep_spacing.unwrap_or(spacing),
        steps_offset: known.steps_offset.unwrap_or(0),
        set_alpha_to_one: known.set_alpha_to_one.unwrap_or(true),
        original_inference_steps: known.original_inference_steps.unwrap_or(teacher),
        timestep_scaling: known.timestep_scaling.unwrap_or(10.0),
        sigma_spacing,
        final_sigma: known.final_sigmas_type.unwrap_or(FinalSigma::Zero),
        sigma_min: known.sigma_min,
        sigma_max: known.sigma_max,
        continuous_timesteps: continuous,
        solver_order: known.solver_order.unwrap_or(2),
        lower_order_final: known.lower_order_final.unwrap_or(true),
        euler_at_final: known.euler_at_final.unwrap_or(false),
    })
}

fn check_ranges(config: &ScheduleConfig) -> Result<(), String> {
    let within = |name: &str, value: f64, low: f64, high: f64| {
        let fits = value >= low && value <= high;
        if fits { Ok(()) } else { Err(format!("`{name}` = {value} is outside {low} to {high}")) }
    };
    let train = f64::from(config.train_timesteps);
    within("num_train_timesteps", train, 2.0, f64::from(TRAIN_TIMESTEPS_MAX))?;
    within("beta_start", config.beta_start, 1e-12, 0.9)?;
    within("beta_end", config.beta_end, config.beta_start, 0.9)?;
    within("steps_offset", f64::from(config.steps_offset), 0.0, train - 1.0)?;
    within("original_inference_steps", f64::from(config.original_inference_steps), 1.0, train)?;
    if config.sampler == Sampler::Consistency {
        within("original_inference_steps", f64::from(config.original_inference_steps), 2.0, train)?;
    }
    within("timestep_scaling", config.timestep_scaling, 1e-3, 1e3)?;
    if config.sampler == Sampler::DpmSolverPlusPlus {
        within("solver_order", f64::from(config.solver_order), 1.0, 2.0)?;
    }
    let low = config.sigma_min.unwrap_or(1e-6);
    within("sigma_min", low, 1e-6, 1e5)?;
    within("sigma_max", config.sigma_max.unwrap_or(1e5), low, 1e5)
}

/// Python's `json` writes an infinite number as `-Infinity` or `Infinity`, which is no JSON: `-Infinity`, the one that
/// diffusers has as a default, becomes `null`. Text in quotes stays.
fn without_infinity(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut quoted = false;
    for part in text.split('"') {
        parts.push(if quoted { part.to_owned() } else { part.replace("-Infinity", "null") });
        let escapes = part.len() - part.trim_end_matches('\\').len();
        if !(quoted && escapes % 2 == 1) {
            quoted = !quoted;
        }
    }
    parts.join("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, sampler: Option<Sampler>) -> Result<ScheduleConfig, String> {
        let file = SchedulerFile::parse(Path::new("scheduler_config.json"), text);
        file.and_then(|file| file.resolve(sampler)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_would_change_the_result_is_refused() {
        let check = |keys: &str, part: &str| {
            let text = format!("{{\"_class_name\": \"DPMSolverMultistepScheduler\"{keys}}}");
            let error = parsed(&text, None).expect_err(keys);
            assert!(error.contains(part), "{keys}: {error}");
        };
        check(", \"thresholding\": true", "`thresholding` = true is not supported");
        check(", \"clip_sample\": true", "clip_sample");
        check(", \"algorithm_type\": \"sde-dpmsolver++\"", "algorithm_type");
        check(", \"trained_betas\": [0.1]", "trained_betas");
        check(", \"lambda_min_clipped\": -5.1", "lambda_min_clipped");
        check(", \"new_trick\": 1", "unknown field `new_trick`");
        check(", \"beta_schedule\": \"squaredcos_cap_v2\"", "squaredcos_cap_v2");
        check(", \"prediction_type\": \"flow_prediction\"", "flow_prediction");
        check(", \"num_train_timesteps\": 4000000000", "num_train_timesteps");
        check(", \"beta_start\": 0", "`beta_start` = 0 is outside");
        check(", \"beta_end\": 1.5", "`beta_end` = 1.5");
        check(", \"solver_order\": 3", "`solver_order` = 3");
        check(", \"timestep_type\": \"odd\"", "odd");
        check(", \"steps_offset\": -1", "-1");
        check(",", "is not JSON");
    }

    #[test]
    fn classes_have_the_defaults_of_diffusers() {
        let check = |class: &str, expected: (f64, BetaSpacing, TimestepSpacing)| {
            let text = format!("{{\"_class_name\": \"{class}\", \"clip_sample\": false}}");
            let config = parsed(&text, None).unwrap();
            assert_eq!((config.beta_end, config.beta_spacing, config.timestep_spacing), expected, "{class}");
        };
        check("LCMScheduler", (0.012, BetaSpacing::ScaledLinear, TimestepSpacing::Leading));
        check("DDIMScheduler", (0.02, BetaSpacing::Linear, TimestepSpacing::Leading));
        check("EulerDiscreteScheduler", (0.02, BetaSpacing::Linear, TimestepSpacing::Linspace));
        check("DPMSolverMultistepScheduler", (0.02, BetaSpacing::Linear, TimestepSpacing::Linspace));
        let error = parsed("{\"_class_name\": \"DDIMScheduler\"}", None).unwrap_err();
        assert!(error.contains("clip_sample"), "{error}");
    }

    /// Stable Diffusion 1.5 ships a PNDM file; pipelines put another sampler on it.
    #[test]
    fn another_sampler_takes_over_a_file() {
        let text = r#"{ "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
            "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
            "clip_sample": false, "timestep_spacing": "trailing", "_use_default_values": ["timestep_spacing"] }"#;
        assert!(parsed(text, None).unwrap_err().contains("`PNDMScheduler` is not supported"));
        let config = parsed(text, Some(Sampler::DpmSolverPlusPlus)).unwrap();
        assert_eq!((config.beta_spacing, config.steps_offset), (BetaSpacing::ScaledLinear, 1));
        assert_eq!(config.timestep_spacing, TimestepSpacing::Linspace);
    }

    /// Stable Video Diffusion ships a file of Euler's method.
    #[test]
    fn consistency_sampling_takes_models_of_noise_levels_alone() {
        let file = |more: &str| {
            format!("{{\"_class_name\": \"EulerDiscreteScheduler\", \"num_train_timesteps\": 1000{more}}}")
        };
        let continuous =
            ", \"timestep_type\": \"continuous\", \"prediction_type\": \"v_prediction\", \"sigma_max\": 500";
        let config = parsed(&file(continuous), Some(Sampler::Consistency)).unwrap();
        assert_eq!((config.original_inference_steps, config.sigma_max), (40, Some(500.0)));
        assert!(config.continuous_timesteps);
        for other in ["", ", \"prediction_type\": \"v_prediction\"", ", \"timestep_type\": \"continuous\""] {
            let error = parsed(&file(other), Some(Sampler::Consistency)).unwrap_err();
            assert!(error.contains("image-to-video"), "{other}: {error}");
        }
        let own = |keys: &str| {
            let class = Sampler::Consistency.class();
            parsed(&format!("{{\"_class_name\": \"{class}\"{keys}}}"), None)
        };
        let fixed = ", \"clip_denoised\": false, \"sigma_data\": 1.0";
        assert_eq!(own(fixed).unwrap().original_inference_steps, 40);
        let twenty = own(&format!("{fixed}, \"num_train_timesteps\": 20")).unwrap();
        assert_eq!((twenty.original_inference_steps, twenty.prediction), (20, Prediction::Velocity));
        assert!(own("").unwrap_err().contains("`clip_denoised` or `sigma_data` is missing"));
        assert!(own(", \"clip_denoised\": true, \"sigma_data\": 1.0").unwrap_err().contains("clip_denoised"));
        assert!(own(", \"clip_denoised\": false, \"sigma_data\": 0.5").unwrap_err().contains("sigma_data"));
    }

    #[test]
    fn python_infinity_outside_quotes_is_none() {
        let check = |text: &str, expected: &str| assert_eq!(without_infinity(text), expected);
        check(r#"{"a": -Infinity}"#, r#"{"a": null}"#);
        check(r#"{"-Infinity": "-Infinity \" -Infinity"}"#, r#"{"-Infinity": "-Infinity \" -Infinity"}"#);
        let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity}"#;
        assert!(parsed(text, None).is_ok());
    }

    #[test]
    fn any_text_is_refused_or_resolved_without_a_panic() {
        proptest::proptest!(|(text in "\\PC{0,80}")| {
            for sampler in Sampler::ALL {
                let _ = parsed(&text, Some(sampler));
                let _ = parsed(&format!("{{\"_class_name\": \"LCMScheduler\", {text}}}"), Some(sampler));
            }
        });
    }
}
