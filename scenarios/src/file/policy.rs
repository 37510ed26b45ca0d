//! `[policy]`: who decides what. Parameters that are not named keep the published defaults of the system they copy.

use schemars::JsonSchema;
use serde::Deserialize;

use super::quantity::{Rate, Share, Time};

/// Who decides what.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PolicyFile {
    /// How many instances each group should hold. Default: `static`.
    pub(crate) scaling: Option<ScalingFile>,
    /// Which pools they come from. Default: `pool-order`.
    pub(crate) purchase: Option<PurchaseFile>,
    /// Which region serves a job. Default: `global`.
    pub(crate) routing: Option<RoutingFile>,
    /// Whether a job may wait. Default: always.
    pub(crate) admission: Option<AdmissionFile>,
    /// What happens after a failed attempt. Default: `backoff`.
    pub(crate) retry: Option<RetryFile>,
    /// Which level of the quality ladder a job gets. Default: `fixed` at the first level.
    pub(crate) quality: Option<QualityFile>,
    /// Which of several free instances takes a job. Default: `pack`.
    pub(crate) packing: Option<PackingFile>,
    /// The quality ladder, best first, at most 16 levels. Default: one level `full`.
    pub(crate) quality_level: Vec<QualityLevelFile>,
}

/// How many instances each group should hold.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[schemars(tag = "kind")]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ScalingFile {
    /// The initial count, always.
    Static,
    /// Counts at given times.
    Schedule(ScheduleFile),
    /// AWS target tracking on the backlog per instance.
    TargetTracking(TargetTrackingFile),
    /// Kubernetes Horizontal Pod Autoscaler v2.
    Hpa(HpaFile),
    /// KEDA on the length of a queue.
    Keda(KedaFile),
    /// SkyServe on the request rate.
    SkyServe(SkyServeFile),
}

/// Counts at given times.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleFile {
    /// Counts and the times from which they hold.
    pub(crate) steps: Vec<ScheduleStepFile>,
    /// How long before a rise instances are launched. Default: the group's expected start-up time.
    pub(crate) lead: Option<Time>,
    /// Length after which the steps start over. Default: never.
    pub(crate) repeat: Option<Time>,
}

/// A count from a time on.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleStepFile {
    /// When the instances should be ready.
    pub(crate) at: Time,
    /// Instances from then on.
    pub(crate) instances: u32,
}

/// Parameters of AWS target tracking.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TargetTrackingFile {
    /// Waiting jobs per instance to aim at (> 0); or state `acceptable_latency`.
    pub(crate) backlog_per_instance: Option<f64>,
    /// Aims at as many waiting jobs as an instance finishes within this time.
    pub(crate) acceptable_latency: Option<Time>,
    /// Time between two values of the metric.
    pub(crate) period: Option<Time>,
    /// Consecutive values above the target before instances are added.
    pub(crate) periods_out: Option<u32>,
    /// Consecutive values below the scale-in threshold before instances are removed.
    pub(crate) periods_in: Option<u32>,
    /// The scale-in threshold, relative to the target.
    pub(crate) scale_in_below: Option<Share>,
}

/// Parameters of the Horizontal Pod Autoscaler.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HpaFile {
    /// Busy share of slots to aim at (> 0); or state `jobs_per_instance`.
    pub(crate) utilization: Option<Share>,
    /// Jobs per instance to aim at (> 0), as an external metric.
    pub(crate) jobs_per_instance: Option<f64>,
    /// Whether running jobs count beside the waiting ones, with `jobs_per_instance`. Default: true.
    pub(crate) running_counts: Option<bool>,
    /// Time between two looks at the metric.
    pub(crate) period: Option<Time>,
    /// How fast the count may move.
    pub(crate) behavior: BehaviorFile,
}

/// How fast an HPA may move the count.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BehaviorFile {
    /// Relative distance from the target within which nothing moves.
    pub(crate) tolerance: Option<Share>,
    /// On the way up.
    pub(crate) up: Option<RulesFile>,
    /// On the way down.
    pub(crate) down: Option<RulesFile>,
}

/// The rules for one direction.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RulesFile {
    /// Recommendations of this long back are weighed.
    pub(crate) stabilization_window: Option<Time>,
    /// Limits on the change; an empty list is no limit.
    pub(crate) policies: Option<Vec<ChangeFile>>,
    /// Which of them counts.
    pub(crate) select: Option<SelectFile>,
}

/// One limit on the change within a period: either `pods` or `percent`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeFile {
    /// This many instances.
    pub(crate) pods: Option<u32>,
    /// This many percent of the count at the start of the period.
    pub(crate) percent: Option<u32>,
    /// Within how long.
    pub(crate) period: Time,
}

/// Which of several limits counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SelectFile {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// No change in this direction at all.
    Disabled,
}

/// Parameters of a KEDA `ScaledObject`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KedaFile {
    /// Jobs per instance to aim at (> 0).
    pub(crate) queue_length: Option<f64>,
    /// Whether running jobs count beside the waiting ones.
    pub(crate) running_counts: Option<bool>,
    /// Jobs above which a group of zero is woken.
    pub(crate) activation: Option<f64>,
    /// Time between two looks of the operator.
    pub(crate) polling: Option<Time>,
    /// Time without activity after which the last instance goes.
    pub(crate) cooldown: Option<Time>,
    /// The same, after the start of the run.
    pub(crate) initial_cooldown: Option<Time>,
    /// Fewest instances.
    pub(crate) replicas_min: Option<u32>,
    /// Most instances.
    pub(crate) replicas_max: Option<u32>,
    /// Time between two looks of the Horizontal Pod Autoscaler.
    pub(crate) period: Option<Time>,
    /// How fast the count may move between 1 and N.
    pub(crate) behavior: BehaviorFile,
}

/// Parameters of SkyServe's request-rate autoscaler.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SkyServeFile {
    /// Requests that one instance is meant to take. Default: as many as its slots finish.
    pub(crate) replica_rate: Option<Rate>,
    /// Requests of this long back are counted.
    pub(crate) window: Option<Time>,
    /// Time between two decisions.
    pub(crate) interval: Option<Time>,
    /// Time between two decisions while the target is zero.
    pub(crate) interval_at_zero: Option<Time>,
    /// How long more must be wanted before the target rises.
    pub(crate) upscale_delay: Option<Time>,
    /// How long less must be wanted before the target falls.
    pub(crate) downscale_delay: Option<Time>,
}

/// Which pools of a group hold its instances.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[schemars(tag = "kind")]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum PurchaseFile {
    /// No spot: the cheapest on-demand pool first.
    OnDemandOnly,
    /// A fixed share on spot.
    SpotShare {
        /// Share of the instances above the base that is bought on spot.
        share: Share,
        /// Instances that are on-demand first. Default: 0.
        on_demand_base: Option<u32>,
    },
    /// Spot with a surplus, and on-demand while spot is not ready.
    SpotHedge {
        /// Spot instances beyond the target. Default: 1.
        overprovision: Option<u32>,
        /// Whether on-demand stands in for spot that is not ready. Default: true.
        dynamic_fallback: Option<bool>,
        /// Instances that are always on-demand. Default: 0.
        on_demand_base: Option<u32>,
    },
    /// Pools in the order of the scenario, each up to its limit.
    PoolOrder,
}

/// Which region serves a job.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[schemars(tag = "kind")]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum RoutingFile {
    /// One queue for all.
    Global,
    /// Any region, by its ready slots.
    Anywhere,
    /// The user's own region, or the nearest with pools.
    Nearest,
    /// The user's own region until it nears capacity, then ever farther ones.
    Rings(RingsFile),
}

/// Parameters of ring routing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RingsFile {
    /// Load above which a region hands jobs away. Default: 0.8.
    pub(crate) overload: Option<f64>,
    /// Rings, nearest first. Default: 25 ms, 75 ms, 150 ms and any distance, unlocked at 0.8, 0.88, 0.94 and 0.98.
    pub(crate) ring: Option<Vec<RingFile>>,
    /// Share of a region's jobs moved at once (> 0). Default: 0.02.
    pub(crate) chunk: Option<Share>,
    /// Time between two rebuilds of the table (> 0). Default: 5 s.
    pub(crate) refresh: Option<Time>,
}

/// One ring.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RingFile {
    /// Round-trip time within which the ring lies. Default: any distance.
    pub(crate) round_trip_max: Option<Time>,
    /// Load from which a region may use the ring.
    pub(crate) unlock_at: f64,
}

/// Whether a job may wait.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdmissionFile {
    /// Sheds a job whose expected time exceeds the time left to its deadline times this (> 0). Default: never sheds.
    pub(crate) shed_slack: Option<f64>,
    /// A job goes to an external pool once its expected wait passes this. Default: never.
    pub(crate) overflow_above: Option<Time>,
}

/// What happens after a failed attempt.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[schemars(tag = "kind")]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum RetryFile {
    /// The job fails at once.
    Never,
    /// The next attempt follows after a fixed pause.
    Immediate {
        /// Attempts at most (>= 1). Default: 3.
        attempts_max: Option<u32>,
        /// One trip through the router. Default: 10 ms.
        pause: Option<Time>,
    },
    /// Waits between attempts grow, with full jitter.
    Backoff {
        /// Attempts at most (>= 1). Default: 3.
        attempts_max: Option<u32>,
        /// Upper end of the first wait. Default: 100 ms.
        base: Option<Time>,
        /// Upper end of any wait. Default: 20 s.
        cap: Option<Time>,
        /// Holds back some jobs before their first attempt. Default: none.
        execution_delay: Option<ExecutionDelayFile>,
    },
}

/// Holds back some jobs before their first attempt.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecutionDelayFile {
    /// Share of jobs that are held back.
    pub(crate) share: Share,
    /// They wait evenly between nothing and this.
    pub(crate) delay_max: Time,
}

/// Which level of the quality ladder a job gets.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[schemars(tag = "kind")]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum QualityFile {
    /// Always the same level.
    Fixed {
        /// Name of the level. Default: the first.
        level: Option<String>,
    },
    /// One level down for each threshold that the load has passed.
    Ladder {
        /// Jobs waiting and running per ready slot, ascending, fewer than there are levels.
        thresholds: Vec<f64>,
        /// One level up below this times the threshold, 0..=1. Default: 0.8.
        recover: Option<f64>,
    },
}

/// Which of several free instances takes a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PackingFile {
    /// The fullest that still has a slot.
    Pack,
    /// The emptiest.
    Spread,
}

/// One level of the quality ladder.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QualityLevelFile {
    /// Unique name, e.g. `8-steps`.
    pub(crate) name: String,
    /// Service time relative to the best level (> 0).
    pub(crate) service_factor: f64,
    /// Worth relative to the best level. Default: 1.
    pub(crate) value: Option<Share>,
}
