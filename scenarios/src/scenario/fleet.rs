//! What pools do in the world: how long launches take, when they fail, when instances are taken away.

use std::path::PathBuf;

use policy::model::Billing;
use policy::units::{Duration, Ratio, UsdPerHour};

use super::law::Law;

/// What a pool's instances do in the world.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolWorld {
    /// From launch to ready.
    pub startup: Startup,
    /// Whether a launch succeeds.
    pub launch: Launch,
    /// When the provider takes instances away.
    pub interruption: Interruption,
    /// How held time is billed.
    pub billing: Billing,
    /// Response time of an external pool; unused for others.
    pub external_time: Option<Law>,
    /// Calls an external pool serves at once; `None` is no limit.
    pub external_concurrency_max: Option<u32>,
}

/// The ladder from launch to ready; steps follow one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Startup {
    /// From the request to a running machine.
    pub boot: Law,
    /// Image pull.
    pub image: Law,
    /// Weights to VRAM and warm-up.
    pub weights: Law,
    /// Stopped, prepared instances that skip `boot` and `image`; used first, refilled when instances are given back.
    pub warm_count: u32,
    /// From a stopped instance to a running one.
    pub warm_resume: Law,
    /// Price of holding one stopped instance (its disk).
    pub warm_price: UsdPerHour,
}

/// Whether a launch succeeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch {
    /// Chance that a launch is refused for lack of capacity.
    pub insufficient: Ratio,
    /// Time until the refusal is known.
    pub refusal_after: Duration,
}

/// When the provider takes instances away.
#[derive(Clone, Debug, PartialEq)]
pub struct Interruption {
    /// Chance per instance and hour, as a rate (exponential lifetimes); zero never.
    pub hazard_per_hour: f64,
    /// Warning before the instance is gone (EC2: 120 s).
    pub notice: Duration,
    /// Chance that the warning does not come.
    pub notice_missed: Ratio,
    /// Shocks that hit many instances at once; shared by all pools of the same `group` name.
    pub shock: Option<Shock>,
    /// Availability over time from a file: above this ceiling launches fail and instances are taken.
    pub trace: Option<AvailabilityTrace>,
}

/// A correlated loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Shock {
    /// Pools with the same group are hit at the same moments.
    pub group: String,
    /// Shocks per day.
    pub per_day: f64,
    /// Share of the pool's instances that each shock takes.
    pub share: Ratio,
    /// How long launches fail after it.
    pub outage: Duration,
}

/// Availability of a zone over time.
#[derive(Clone, Debug, PartialEq)]
pub struct AvailabilityTrace {
    /// SkyPilot JSON file.
    pub path: PathBuf,
    /// Ceiling of instances = value in the file / `nodes_full` × pool maximum.
    pub nodes_full: u32,
    /// Offset into the file at which the run starts.
    pub start: Duration,
}
