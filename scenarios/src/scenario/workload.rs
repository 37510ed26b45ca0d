//! Who asks, when, and how they wait.

use std::path::PathBuf;

use policy::model::ClassId;
use policy::units::{Bytes, Duration, Ratio, Usd};

use super::law::Law;

/// One source of arrivals; a workload is their sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Unique name; names its stream of chance.
    pub name: String,
    /// When jobs arrive.
    pub arrivals: Arrivals,
    /// Class of its jobs.
    pub class: ClassId,
    /// Share of its jobs by region (`RegionId`); sums to 1.
    pub region_share: Vec<f64>,
    /// Multiplies the rate (≥ 0).
    pub rate_factor: f64,
}

/// When jobs arrive.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrivals {
    /// A rate over time.
    Generator(Generator),
    /// A recorded trace.
    Trace(TraceSource),
}

/// A rate over time. Rates are per second.
#[derive(Clone, Debug, PartialEq)]
pub struct Generator {
    /// The shape of the rate.
    pub shape: Shape,
    /// CV of the gaps: 1 is Poisson, above 1 bursty (the rate is modulated by a gamma noise over `burst_window`).
    pub burstiness: f64,
    /// Over which time the noise holds.
    pub burst_window: Duration,
}

/// The shape of a rate.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Always the same.
    Constant { rate_per_s: f64 },
    /// A daily wave: rate·(1 + amplitude·cos(2π(t − peak_at)/period)).
    Diurnal { rate_per_s: f64, amplitude: Ratio, period: Duration, peak_at: Duration },
    /// A viral cascade: base + (peak − base)·min(1, L/0.9)·D, with L logistic from 0.1 at `start` to 0.9 at `start` +
    /// `rise`, and D the decay from there.
    Viral {
        base_per_s: f64,
        peak_per_s: f64,
        start: Duration,
        rise: Duration,
        half_life: Duration,
        decay: Decay,
    },
    /// An announced launch: straight ramp from `start`, plateau, exponential decay back to the base.
    Launch {
        base_per_s: f64,
        peak_per_s: f64,
        start: Duration,
        ramp: Duration,
        hold: Duration,
        half_life: Duration,
    },
}

/// How a wave of attention fades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Halves every half-life.
    Exponential,
    /// 1/(1 + t/half-life): halves once, then ever more slowly.
    Power,
}

/// A recorded trace.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSource {
    /// File.
    pub path: PathBuf,
    /// Offset into the trace at which the run starts.
    pub start: Duration,
    /// One second of the trace lasts this many seconds of the run (> 0).
    pub time_factor: f64,
    /// Whether it starts again at its end.
    pub repeat: bool,
    /// Scale the trace so that exactly about this many jobs fall into the horizon; overrides the source's factor.
    pub jobs_total: Option<u64>,
}

/// How clients wait and ask again.
#[derive(Clone, Debug, PartialEq)]
pub struct Clients {
    /// How long a client waits for its job to start before it leaves; `None` waits for ever.
    pub patience: Option<Law>,
    /// Whether and when a client whose job failed, was turned away or was abandoned asks again.
    pub reask: Option<Reask>,
}

/// Asking again.
#[derive(Clone, Debug, PartialEq)]
pub struct Reask {
    /// Chance of asking again, each time.
    pub probability: Ratio,
    /// How long after.
    pub delay: Law,
    /// How often at most.
    pub times_max: u32,
}

/// What lies between clients and regions.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Round trips that one job costs between its client's region and the region that serves it (handshakes, upload
    /// windows, result).
    pub round_trips_per_job: f64,
    /// Bytes moved between regions when a job is served away from home.
    pub bytes_per_job: Bytes,
    /// Price of a thousand GB moved between regions.
    pub per_thousand_gib_between_regions: Usd,
    /// Bytes sent to the client per finished job.
    pub egress_bytes_per_job: Bytes,
    /// Price of a thousand GB sent to clients.
    pub per_thousand_gib_egress: Usd,
    /// Work that a probe of a busy slot costs the serving host, in slot-seconds: it slows the jobs that run there.
    pub probe_cost: Duration,
}
