//! `[workload]`: who asks, when, and how they wait.

use schemars::JsonSchema;
use serde::Deserialize;

use super::law::LawFile;
use super::named::Named;
use super::quantity::{Rate, Share, Time};

/// Who asks, when, and how they wait.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorkloadFile {
    /// Sources of arrivals; the workload is their sum. At least one.
    pub(crate) source: Vec<SourceFile>,
    /// Classes of jobs. Without any there is one class `default`.
    pub(crate) class: Vec<ClassFile>,
    /// How clients wait and ask again.
    pub(crate) clients: ClientsFile,
}

/// One source of arrivals.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceFile {
    /// Unique name. Default: `source-1`, `source-2`, ... by position.
    pub(crate) name: Option<String>,
    /// When its jobs arrive.
    pub(crate) arrivals: ArrivalsFile,
    /// Class of its jobs. Default: the first class.
    pub(crate) class: Option<String>,
    /// Share of its jobs by region; sums to 1. Default: all from the first region.
    pub(crate) region_mix: Option<Named<f64>>,
    /// Multiplies its rate (>= 0). Default: 1.
    pub(crate) factor: Option<f64>,
}

/// When jobs arrive.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[schemars(tag = "kind")]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ArrivalsFile {
    /// Always the same rate.
    Constant {
        /// The rate.
        rate: Rate,
        /// CV of the gaps: 1 is Poisson, above 1 bursty. Default: 1.
        burstiness: Option<f64>,
        /// Over which time the noise of bursty arrivals holds. Default: 1 min.
        burst_window: Option<Time>,
    },
    /// A daily wave: rate * (1 + amplitude * cos(2 pi (t - peak_at) / period)).
    Diurnal {
        /// Mean rate.
        rate: Rate,
        /// Height of the wave over the mean rate, 0..=1.
        amplitude: Share,
        /// Length of the wave. Default: 24 h.
        period: Option<Time>,
        /// When the rate peaks, from the start of the run. Default: 0 s.
        peak_at: Option<Time>,
        /// CV of the gaps. Default: 1.
        burstiness: Option<f64>,
        /// Over which time the noise of bursty arrivals holds. Default: 1 min.
        burst_window: Option<Time>,
    },
    /// A viral cascade: logistic rise, then decay.
    Viral {
        /// Rate before and long after.
        base: Rate,
        /// Highest rate.
        peak: Rate,
        /// When the rise begins.
        start: Time,
        /// From 10 % to 90 % of the rise.
        rise: Time,
        /// Time in which the wave halves.
        half_life: Time,
        /// How it fades. Default: `power`.
        decay: Option<DecayFile>,
        /// CV of the gaps. Default: 1.
        burstiness: Option<f64>,
        /// Over which time the noise of bursty arrivals holds. Default: 1 min.
        burst_window: Option<Time>,
    },
    /// An announced launch: straight ramp, plateau, exponential decay.
    Launch {
        /// Rate before and long after.
        base: Rate,
        /// Rate of the plateau.
        peak: Rate,
        /// When the ramp begins.
        start: Time,
        /// Length of the ramp.
        ramp: Time,
        /// Length of the plateau.
        hold: Time,
        /// Time in which the rate above the base halves afterwards.
        half_life: Time,
        /// CV of the gaps. Default: 1.
        burstiness: Option<f64>,
        /// Over which time the noise of bursty arrivals holds. Default: 1 min.
        burst_window: Option<Time>,
    },
    /// A recorded trace.
    Trace {
        /// File, relative to this scenario.
        path: String,
        /// Offset into the trace at which the run starts. Default: 0 s.
        start: Option<Time>,
        /// One second of the trace lasts this many seconds of the run (> 0). Default: 1.
        time_factor: Option<f64>,
        /// Whether it starts again at its end. Default: false.
        repeat: Option<bool>,
        /// Scale it so that about this many jobs fall into the horizon; overrides `factor`.
        jobs_total: Option<u64>,
    },
}

/// How a wave of attention fades.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DecayFile {
    /// Halves every half-life.
    Exponential,
    /// 1/(1 + t/half-life).
    Power,
}

/// Jobs that are treated alike.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassFile {
    /// Unique name.
    pub(crate) name: String,
    /// 0 is served first; at most 7. Default: 0.
    pub(crate) priority: Option<u8>,
    /// Time in the system after which a job is worth nothing. Default: the objective's, when the file states one.
    pub(crate) deadline: Option<Time>,
    /// Whether a job still waiting at its deadline is expired. Default: false.
    pub(crate) expires: Option<bool>,
}

/// How clients wait and ask again.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClientsFile {
    /// How long a client waits for its job to start before it leaves. Default: for ever.
    pub(crate) patience: Option<LawFile>,
    /// Whether and when a client whose job was not done asks again. Default: never.
    pub(crate) reask: Option<ReaskFile>,
}

/// Asking again.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReaskFile {
    /// Chance of asking again, each time.
    pub(crate) probability: Share,
    /// How long after.
    pub(crate) delay: LawFile,
    /// How often at most. Default: 3.
    pub(crate) times_max: Option<u32>,
}
