//! `[fleet]`: pools, what they cost, how they start and how they are taken away.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::law::LawFile;
use super::named::Named;
use super::quantity::{HourlyPrice, Money, Share, Time};

/// Pools of instances.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FleetFile {
    /// Names of slot kinds, at most 4. Default: those that the pools name, or one kind `slot`.
    pub(crate) slot_kinds: Option<Vec<String>>,
    /// Pools by name, in the order in which equal choices prefer them.
    pub(crate) pool: Named<PoolFile>,
}

/// Instances of one offering that serve one pool class.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PoolFile {
    /// Pool class whose stages it serves. Default: the pool's own name.
    pub(crate) class: Option<String>,
    /// Cloud or site. Default: `own`.
    pub(crate) provider: Option<String>,
    /// Region. Default: the first of `network.regions`, or `local`.
    pub(crate) region: Option<String>,
    /// Availability zone. Default: none, the region's price.
    pub(crate) zone: Option<String>,
    /// e.g. `g5.xlarge`. Default: `generic`.
    pub(crate) instance_type: Option<String>,
    /// How it is bought. Default: `on-demand`.
    pub(crate) capacity_type: Option<CapacityFile>,
    /// Price of one instance. Default: the catalog's row for provider, region, zone, type and capacity type.
    pub(crate) price: Option<HourlyPrice>,
    /// Undiscounted price of the same instance. Default: the catalog's on-demand row, or `price`.
    pub(crate) price_list: Option<HourlyPrice>,
    /// Where `price` comes from, with its date.
    pub(crate) price_source: Option<String>,
    /// Jobs that one instance runs at once: a number, or a number per slot kind. Default: 1 of the first kind.
    pub(crate) slots: Option<SlotsFile>,
    /// Instances ready when the run starts. Default: `count_min`.
    pub(crate) count: Option<u32>,
    /// Instances never to fall below. Default: 0.
    pub(crate) count_min: Option<u32>,
    /// Instances never to exceed. Default: the larger of `count` and `count_min`.
    pub(crate) count_max: Option<u32>,
    /// Service time here relative to the stage's own (> 0). Default: 1.
    pub(crate) speed_factor: Option<f64>,
    /// From launch to ready.
    pub(crate) startup: Option<StartupFile>,
    /// When the provider takes instances away; must be stated for spot.
    pub(crate) interruption: Option<InterruptionFile>,
    /// Whether a launch succeeds.
    pub(crate) launch: LaunchFile,
    /// How held time is billed.
    pub(crate) billing: BillingFile,
    /// The service behind a pool with `capacity_type = "external"`.
    pub(crate) external: Option<ExternalFile>,
}

/// How capacity is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CapacityFile {
    /// Spare capacity that the provider may reclaim.
    Spot,
    /// Listed price, kept until given back.
    OnDemand,
    /// Committed: paid whether used or not.
    Reserved,
    /// Somebody else's service, paid per call.
    External,
}

/// Jobs that one instance runs at once.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum SlotsFile {
    /// Of the first slot kind.
    Count(u16),
    /// By slot kind.
    ByKind(Named<u16>),
}

impl<'de> Deserialize<'de> for SlotsFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = SlotsFile;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number of slots like 2, or one per kind like { gpu = 1, cpu = 4 }")
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<SlotsFile, E> {
                u16::try_from(count)
                    .map(SlotsFile::Count)
                    .map_err(|_| E::custom(format!("`{count}` slots are not possible; use 1 to 65535")))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SlotsFile, A::Error> {
                Named::deserialize(MapAccessDeserializer::new(map)).map(SlotsFile::ByKind)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// The ladder from launch to ready. Without this table an instance takes 183 s to boot; with it, steps that are not
/// named take no time.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StartupFile {
    /// From the request to a running machine.
    pub(crate) boot: Option<LawFile>,
    /// Image pull.
    pub(crate) image: Option<LawFile>,
    /// Weights to VRAM and warm-up.
    pub(crate) weights: Option<LawFile>,
    /// Stopped, prepared instances that skip `boot` and `image`. Default: 0.
    pub(crate) warm_count: Option<u32>,
    /// From a stopped instance to a running one. Default: 30 s.
    pub(crate) warm_resume: Option<LawFile>,
    /// Price of holding one stopped instance. Default: free.
    pub(crate) warm_price: Option<HourlyPrice>,
}

/// When the provider takes instances away.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct InterruptionFile {
    /// Rate per instance and hour. Default: 0.
    pub(crate) hazard_per_hour: Option<f64>,
    /// Warning before the instance is gone. Default: 120 s.
    pub(crate) notice: Option<Time>,
    /// Chance that the warning does not come. Default: 0.
    pub(crate) notice_missed: Option<Share>,
    /// Shocks that hit many instances at once.
    pub(crate) shock: Option<ShockFile>,
    /// Availability over time from a file.
    pub(crate) trace: Option<AvailabilityFile>,
}

/// A correlated loss.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShockFile {
    /// Pools with the same group are hit at the same moments. Default: the pool's region.
    pub(crate) group: Option<String>,
    /// Shocks per day.
    pub(crate) per_day: f64,
    /// Share of the pool's instances that each shock takes.
    pub(crate) share: Share,
    /// How long launches fail after it. Default: 0 s.
    pub(crate) outage: Option<Time>,
}

/// Availability of a zone over time.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AvailabilityFile {
    /// SkyPilot JSON file, relative to this scenario.
    pub(crate) path: String,
    /// Value in the file that means full availability (>= 1). Default: 1.
    pub(crate) nodes_full: Option<u32>,
    /// Offset into the file at which the run starts. Default: 0 s.
    pub(crate) start: Option<Time>,
}

/// Whether a launch succeeds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LaunchFile {
    /// Chance that a launch is refused for lack of capacity. Default: 0.
    pub(crate) insufficient: Option<Share>,
    /// Time until the refusal is known. Default: 10 s.
    pub(crate) refusal_after: Option<Time>,
}

/// How held time is billed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BillingFile {
    /// Billed time is a multiple of this. Default: 1 s.
    pub(crate) granularity: Option<Time>,
    /// Shortest billed time. Default: 60 s.
    pub(crate) minimum: Option<Time>,
    /// Whether a spot instance interrupted in its first hour is free. Default: false.
    pub(crate) interrupted_first_hour_free: Option<bool>,
}

/// Somebody else's service.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalFile {
    /// Price of one call.
    pub(crate) price_per_call: Money,
    /// Response time.
    pub(crate) time: LawFile,
    /// Calls it serves at once. Default: no limit.
    pub(crate) concurrency_max: Option<u32>,
}
