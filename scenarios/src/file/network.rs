//! `[network]` and `[queue]`: what lies between clients, regions and workers.

use schemars::JsonSchema;
use serde::Deserialize;

use super::named::Named;
use super::quantity::{Money, Size, Time};

/// What lies between clients and regions.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetworkFile {
    /// Regions with users, pools or both. Default: the regions that pools name, or one region `local`.
    pub(crate) regions: Option<Vec<String>>,
    /// Round-trip times by pair, e.g. `"us-east-1/eu-west-1" = "80ms"`; one entry holds for both directions.
    pub(crate) round_trip: Named<Time>,
    /// Round-trip time of every pair that `round_trip` does not name. Without it each pair must be named.
    pub(crate) round_trip_default: Option<Time>,
    /// Round trips that one job costs between its client's region and the one that serves it. Default: 1.
    pub(crate) round_trips_per_job: Option<f64>,
    /// Bytes moved between regions when a job is served away from home. Default: 0 B.
    pub(crate) bytes_per_job: Option<Size>,
    /// Price of a gigabyte moved between regions. Default: free.
    pub(crate) per_gb_between_regions: Option<Money>,
    /// Bytes sent to the client per finished job. Default: 0 B.
    pub(crate) egress_bytes_per_job: Option<Size>,
    /// Price of a gigabyte sent to clients. Default: free.
    pub(crate) per_gb_egress: Option<Money>,
    /// Work that a probe of a busy slot costs the host. Default: 0 s.
    pub(crate) probe_cost: Option<Time>,
}

/// The queue between clients and workers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct QueueFile {
    /// Which waiting job is served next, within one priority. Default: `fifo`.
    pub(crate) order: Option<OrderFile>,
    /// Waiting jobs per slot that a queue takes; 0 is no queue at all. Default: no limit.
    pub(crate) per_slot_max: Option<f64>,
    /// A tariff of the price catalog, e.g. `aws-sqs`.
    pub(crate) price: Option<String>,
    /// Price of a million requests, stated here. Default: free.
    pub(crate) per_million_requests: Option<Money>,
    /// Requests per delivered job and stage (send, receive, delete). Default: 3.
    pub(crate) requests_per_delivery: Option<f64>,
    /// Long-poll length of an idle slot. Default: 20 s where requests have a price, else it never polls.
    pub(crate) idle_poll: Option<Time>,
}

/// Which waiting job is served next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OrderFile {
    /// First come, first served.
    Fifo,
    /// Last come, first served.
    Lifo,
    /// Earliest deadline first.
    Deadline,
}
