//! The dispatcher put away: its dynamic state as data, for any format of serde. Jobs stand in the order of their turns
//! instead of in links, and nothing is in it that follows from the rest or from the [`crate::model::System`].
//!
//! Taking it up again is in `restore`.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::group::{Group, MinuteCounts, TickCounts};
use super::instance::{Instance, InstanceState};
use super::job::{Job, JobState, Jobs, NONE};
use super::shape::{Timing, shape_of};
use super::timer::Entry;
use super::{Dispatcher, RegionDemand, Totals};
use crate::model::{CapacityType, InstanceId, JobId, SLOT_KINDS_MAX, System};
use crate::policies::{PurchaseMemory, QualityState, RoutingTable, ScalingMemory};
use crate::units::{Instant, UsdPerHour};

/// Changes whenever a field does.
pub(super) const FORMAT: u16 = 1;

/// The state of a dispatcher, borrowed; it serializes as an [`Image`].
#[derive(Clone, Copy)]
pub struct ImageRef<'a>(&'a Dispatcher);

/// The state of a dispatcher, for [`Dispatcher::restore`].
#[derive(Debug, Deserialize)]
pub struct Image {
    pub(super) format: u16,
    pub(super) shape: Vec<String>,
    pub(super) timing: Timing,
    /// Concurrent calls that external pools take, by pool.
    pub(super) calls_max: BTreeMap<u16, u32>,
    pub(super) jobs: Vec<JobSlot>,
    pub(super) jobs_free: Vec<u32>,
    /// With the jobs that run on it, in the order of its list.
    pub(super) instances: Vec<Option<(Instance, Vec<u32>)>>,
    pub(super) instances_free: Vec<u32>,
    pub(super) pools: Vec<PoolImage>,
    pub(super) groups: Vec<GroupImage>,
    pub(super) table: RoutingTable,
    pub(super) demand: Vec<RegionDemand>,
    pub(super) next_refresh: Instant,
    pub(super) last_refresh: Instant,
    pub(super) leases: Vec<Vec<Entry>>,
    pub(super) deadlines: Vec<Vec<Entry>>,
    pub(super) own_deadlines: Vec<Entry>,
    pub(super) backoffs: Vec<Entry>,
    pub(super) next_minute: Instant,
    pub(super) wake: Instant,
    pub(super) totals: Totals,
}

/// Fields of [`Image`].
const FIELDS: usize = 21;

#[derive(Debug, Deserialize)]
pub(super) enum JobSlot {
    Free { generation: u32, token: u32 },
    Held(Job),
}

/// Serializes as a [`JobSlot`].
#[derive(Serialize)]
enum JobSlotRef<'a> {
    Free { generation: u32, token: u32 },
    Held(&'a Job),
}

impl<'a> JobSlotRef<'a> {
    fn of(job: &'a Job) -> Self {
        match job.state {
            JobState::Free => Self::Free { generation: job.generation, token: job.token },
            _ => Self::Held(job),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PoolImage {
    pub(super) price: UsdPerHour,
    pub(super) refused_until: Instant,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GroupImage {
    /// Waiting jobs by kind, in the order of their turns.
    pub(super) queues: [Vec<u32>; SLOT_KINDS_MAX],
    pub(super) service_ns: [f64; SLOT_KINDS_MAX],
    pub(super) quality: QualityState,
    pub(super) scaling: ScalingMemory,
    pub(super) purchase: PurchaseMemory,
    pub(super) target: u32,
    pub(super) next_tick: Instant,
    pub(super) last_tick: Instant,
    pub(super) tick: TickCounts,
    pub(super) minute: MinuteCounts,
}

impl Dispatcher {
    /// The whole dynamic state, to be put away and taken up again by [`Dispatcher::restore`].
    pub fn image(&self) -> ImageRef<'_> {
        ImageRef(self)
    }
}

/// Serializes what an iterator yields, without gathering it.
struct Each<F>(F);

impl<I: IntoIterator<Item: Serialize>, F: Fn() -> I> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

impl Serialize for ImageRef<'_> {
    /// Field by field in the order of [`Image`], since a format need not name them.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of = self.0;
        let runs = |&(_, slot, token): &Entry| {
            of.jobs.get(slot).is_some_and(|job| job.token == token && job.state == JobState::Running)
        };
        let lives = |&(_, slot, generation): &Entry| of.jobs.live(JobId { slot, generation }).is_some();
        let instance = |instance: &'_ Instance| match instance.state {
            InstanceState::Free => None,
            _ => Some((instance.clone(), jobs_on(&of.jobs, instance))),
        };
        let pool = |index: usize| {
            let state = &of.pools[index];
            PoolImage { price: state.price, refused_until: state.refused_until }
        };
        let mut image = serializer.serialize_struct("Image", FIELDS)?;
        image.serialize_field("format", &FORMAT)?;
        image.serialize_field("shape", &shape_of(&of.system))?;
        image.serialize_field("timing", &of.timing())?;
        image.serialize_field("calls_max", &calls_max(&of.system))?;
        image.serialize_field("jobs", &Each(|| of.jobs.slots.iter().map(JobSlotRef::of)))?;
        image.serialize_field("jobs_free", &of.jobs.free)?;
        image.serialize_field("instances", &Each(|| of.instances.slots.iter().map(instance)))?;
        image.serialize_field("instances_free", &of.instances.free)?;
        image.serialize_field("pools", &Each(|| (0..of.pools.len()).map(pool)))?;
        image.serialize_field("groups", &Each(|| of.groups.iter().map(|group| group.image(&of.jobs))))?;
        image.serialize_field("table", &of.table)?;
        image.serialize_field("demand", &of.demand)?;
        image.serialize_field("next_refresh", &of.next_refresh)?;
        image.serialize_field("last_refresh", &of.last_refresh)?;
        image.serialize_field("leases", &Each(|| of.leases.iter().map(|ring| ring.in_order(runs))))?;
        image.serialize_field("deadlines", &Each(|| of.deadlines.iter().map(|ring| ring.in_order(lives))))?;
        image.serialize_field("own_deadlines", &of.own_deadlines.in_order(lives))?;
        // Void backoffs stay: they wake a driver.
        image.serialize_field("backoffs", &of.backoffs.in_order(|_| true))?;
        image.serialize_field("next_minute", &of.next_minute)?;
        image.serialize_field("wake", &of.wake)?;
        image.serialize_field("totals", &of.totals)?;
        image.end()
    }
}

/// Concurrent calls that external pools take, by pool.
pub(super) fn calls_max(system: &System) -> BTreeMap<u16, u32> {
    let pools = system.pools.iter().enumerate();
    let external = pools.filter(|(_, pool)| pool.offering.capacity_type == CapacityType::External);
    external.map(|(index, pool)| (index as u16, pool.count_max)).collect()
}

/// The jobs that run on an instance, in the order of its list.
fn jobs_on(jobs: &Jobs, instance: &Instance) -> Vec<u32> {
    let mut found = Vec::new();
    let mut slot = instance.first_job;
    while slot != NONE {
        found.push(slot);
        slot = jobs[slot].next;
    }
    found
}

impl Group {
    fn image(&self, jobs: &Jobs) -> GroupImage {
        GroupImage {
            queues: std::array::from_fn(|kind| self.queues[kind].in_order(jobs)),
            service_ns: self.service_ns,
            quality: self.quality,
            scaling: self.scaling.memory(),
            purchase: self.purchase.memory(),
            target: self.target,
            next_tick: self.next_tick,
            last_tick: self.last_tick,
            tick: self.tick,
            minute: self.minute,
        }
    }
}

impl Instance {
    /// The id's slot while nobody has it.
    pub(super) fn free() -> Self {
        let mut instance = Self::new(crate::model::PoolId(0), 0, Instant::START);
        instance.state = InstanceState::Free;
        instance
    }
}

/// The id at `index` of the table of instances.
pub(super) fn instance_id(index: usize) -> InstanceId {
    InstanceId(index as u32)
}
