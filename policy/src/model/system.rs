//! The system under control: everything the dispatcher must know before the first job.

use super::ids::RegionId;
use super::offering::CapacityType;
use super::pool::{POOL_INSTANCES_MAX, Pool, SLOT_KINDS_MAX};
use super::stage::{Place, Stage};
use crate::policies::Policies;
use crate::units::{Duration, Ratio};

/// Levels of the quality ladder at most.
pub const QUALITY_LEVELS_MAX: usize = 16;

/// A place with users, pools or both.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Unique name.
    pub name: String,
    /// Round-trip time to each region, by [`RegionId`]; zero to itself or the regional figure.
    pub round_trip: Vec<Duration>,
}

/// Jobs that are treated alike.
#[derive(Clone, Debug, PartialEq)]
pub struct JobClass {
    /// Unique name.
    pub name: String,
    /// 0 is served first; at most 7.
    pub priority: u8,
    /// Time in the system after which the job is worth nothing.
    pub deadline: Option<Duration>,
    /// Whether a job still waiting at its deadline is expired.
    pub expires: bool,
}

/// One level of the quality ladder, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityLevel {
    /// e.g. `8-steps`.
    pub name: String,
    /// Service time relative to the best level (> 0).
    pub service_factor: f64,
    /// Worth relative to the best level.
    pub value: Ratio,
}

/// Which waiting job is served next, within one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOrder {
    /// First come, first served.
    Fifo,
    /// Last come, first served.
    Lifo,
    /// Earliest deadline first; jobs without a deadline last.
    Deadline,
}

/// Everything the dispatcher must know before the first job.
#[derive(Clone, Debug, PartialEq)]
pub struct System {
    /// Regions; at least one.
    pub regions: Vec<Region>,
    /// Classes of jobs; at least one.
    pub classes: Vec<JobClass>,
    /// Names of slot kinds, at most [`SLOT_KINDS_MAX`].
    pub slot_kinds: Vec<String>,
    /// Names of pool classes.
    pub pool_classes: Vec<String>,
    /// Stages in order; at least one.
    pub stages: Vec<Stage>,
    /// Pools, in the order in which equal choices prefer them.
    pub pools: Vec<Pool>,
    /// Quality ladder; at least one level.
    pub qualities: Vec<QualityLevel>,
    /// Order within one priority.
    pub queue_order: QueueOrder,
    /// Waiting jobs per slot that a queue takes; `None` is no limit, `Some(0)` is no queue at all (probing).
    pub queue_per_slot_max: Option<f64>,
    /// Who decides.
    pub policies: Policies,
}

/// A system that cannot run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SystemError {
    /// A table that must not be empty is.
    #[error("there is no {what}; a system needs at least one")]
    Empty { what: &'static str },
    /// Too many of something.
    #[error("{count} {what} are too many; at most {max}")]
    TooMany { what: &'static str, count: usize, max: usize },
    /// No pool has the slots that a stage needs.
    #[error("stage `{stage}` needs `{kind}` slots of pool class `{pool_class}`, and no pool has any")]
    NoPool { stage: String, pool_class: String, kind: String },
    /// Pool limits contradict each other.
    #[error("pool `{pool}`: instance counts must satisfy min {min} <= initial {initial} <= max {max}")]
    Counts { pool: String, min: u32, initial: u32, max: u32 },
    /// Queues are regional and no region has everything.
    #[error("no region has pools of every class that stages use; add pools, or route with kind = \"global\"")]
    NoServingRegion,
    /// Nothing could ever be ready.
    #[error("stage `{stage}` can never run: every pool of class `{pool_class}` has a maximum of 0 instances")]
    NoCapacity { stage: String, pool_class: String },
}

impl System {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`SystemError`] naming the first contradiction.
    pub fn check(&self) -> Result<(), SystemError> {
        for (what, len, max) in [
            ("region", self.regions.len(), 64),
            ("job class", self.classes.len(), 64),
            ("stage", self.stages.len(), 64),
            ("quality level", self.qualities.len(), QUALITY_LEVELS_MAX),
        ] {
            if len == 0 {
                return Err(SystemError::Empty { what });
            }
            if len > max {
                return Err(SystemError::TooMany { what, count: len, max });
            }
        }
        for (what, count, max) in
            [("slot kinds", self.slot_kinds.len(), SLOT_KINDS_MAX), ("pools", self.pools.len(), 1024)]
        {
            if count > max {
                return Err(SystemError::TooMany { what, count, max });
            }
        }
        for pool in &self.pools {
            if pool.count_max > POOL_INSTANCES_MAX {
                let (count, max) = (pool.count_max as usize, POOL_INSTANCES_MAX as usize);
                return Err(SystemError::TooMany { what: "instances in one pool", count, max });
            }
            if pool.count_min > pool.count_initial || pool.count_initial > pool.count_max {
                let (min, initial, max) = (pool.count_min, pool.count_initial, pool.count_max);
                return Err(SystemError::Counts { pool: pool.name.clone(), min, initial, max });
            }
        }
        self.stages.iter().try_for_each(|stage| self.check_stage(stage))
    }

    fn check_stage(&self, stage: &Stage) -> Result<(), SystemError> {
        let Place::Slot { pool_class, kind } = stage.place else { return Ok(()) };
        let class_name = self.pool_classes[pool_class as usize].clone();
        let mut serving = self.pools.iter().filter(|pool| {
            let external = pool.offering.capacity_type == CapacityType::External;
            pool.pool_class == pool_class && (external || pool.slots[kind.index()] > 0)
        });
        let mut any = false;
        if serving.any(|pool| {
            any = true;
            pool.count_max > 0 || pool.offering.capacity_type == CapacityType::External
        }) {
            return Ok(());
        }
        let stage_name = stage.name.clone();
        Err(if any {
            SystemError::NoCapacity { stage: stage_name, pool_class: class_name }
        } else {
            let kind = self.slot_kinds[kind.index()].clone();
            SystemError::NoPool { stage: stage_name, pool_class: class_name, kind }
        })
    }

    /// Round-trip time between two regions.
    pub fn round_trip(&self, from: RegionId, to: RegionId) -> Duration {
        self.regions[from.index()].round_trip[to.index()]
    }
}
