//! The nouns that the dispatcher, the policies and both drivers share. Plain checked data; nothing here decides.

mod ids;
mod objective;
mod offering;
mod pool;
mod stage;
mod system;

pub use ids::{ClassId, GroupId, InstanceId, JobId, KindId, Lease, PoolId, QualityId, RegionId, StageId};
pub use objective::Objective;
pub use offering::{Billing, CapacityType, Offering};
pub use pool::{POOL_INSTANCES_MAX, Pool, SLOT_KINDS_MAX};
pub use stage::{Place, Stage};
pub use system::{JobClass, QUALITY_LEVELS_MAX, QualityLevel, QueueOrder, Region, System, SystemError};
