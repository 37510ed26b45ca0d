//! The shape of a system: what must stay the same while a dispatcher's state lives on under another [`System`], since
//! ids and links in that state refer to it. Parameters are not in it.

use super::{ClassRow, Dispatcher, StageRow};
use crate::model::{Place, System};
use crate::units::Duration;

/// A state meets a system of another shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the state was made with {was}, the system has {is}; start anew, or take the system the state was made with"
)]
pub struct ShapeError {
    /// What the state knows.
    pub was: String,
    /// What the system has in its place.
    pub is: String,
}

/// Every part of the shape in words, in a fixed order.
pub(super) fn shape_of(system: &System) -> Vec<String> {
    let routing =
        if system.policies.routing.is_regional() { "one queue per region" } else { "one queue for all" };
    let mut parts = vec![routing.to_owned()];
    parts.extend(system.regions.iter().map(|region| format!("region `{}`", region.name)));
    parts.extend(system.classes.iter().map(|class| format!("class `{}`", class.name)));
    parts.extend(system.slot_kinds.iter().map(|kind| format!("slot kind `{kind}`")));
    parts.extend(system.pool_classes.iter().map(|class| format!("pool class `{class}`")));
    parts.extend(system.qualities.iter().map(|level| format!("quality level `{}`", level.name)));
    for stage in &system.stages {
        parts.push(match stage.place {
            Place::Outside => format!("stage `{}` outside", stage.name),
            Place::Slot { pool_class, kind } => {
                format!("stage `{}` on slot kind {} of pool class {pool_class}", stage.name, kind.0)
            }
        });
    }
    for pool in &system.pools {
        let (name, class, region, slots) = (&pool.name, pool.pool_class, pool.region.0, &pool.slots);
        let bought = pool.offering.capacity_type.name();
        parts.push(format!("pool `{name}` ({bought}, pool class {class}, region {region}, slots {slots:?})"));
    }
    parts
}

/// Compares two shapes.
pub(super) fn same_shape(was: &[String], is: &[String]) -> Result<(), ShapeError> {
    let differs = (0..was.len().max(is.len())).find(|at| was.get(*at) != is.get(*at));
    let Some(at) = differs else { return Ok(()) };
    let part = |parts: &[String]| parts.get(at).map_or("nothing more".to_owned(), String::clone);
    Err(ShapeError { was: part(was), is: part(is) })
}

/// What timers were set by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Timing {
    /// Lease by stage.
    pub(super) leases: Vec<Option<Duration>>,
    /// Deadline by class, and whether jobs of the class expire.
    pub(super) deadlines: Vec<(Duration, bool)>,
}

impl Dispatcher {
    pub(super) fn timing(&self) -> Timing {
        Timing {
            leases: self.stages.iter().map(|stage: &StageRow| stage.lease).collect(),
            deadlines: self.classes.iter().map(|row: &ClassRow| (row.deadline, row.expires_own)).collect(),
        }
    }
}
