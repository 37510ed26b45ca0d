//! The jobs of a plane: what the dispatcher does not know of them. Slots are the dispatcher's.

use std::collections::BTreeMap;

use policy::model::{InstanceId, JobId, Lease};
use policy::units::Instant;
use serde::{Deserialize, Serialize};

use crate::effect::{JobEvent, JobState, JobView};
use crate::number::JobNumber;
use crate::submission::{Submission, TenantId};

/// Jobs that one listing looks at; a tenant with few jobs among many pages through more.
const SCAN_MAX: usize = 10_000;

/// A page of jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The jobs, by number.
    pub jobs: Vec<JobView>,
    /// Where the next page begins; `None` at the end.
    pub after: Option<JobNumber>,
}

/// One job in the system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) number: JobNumber,
    pub(crate) id: JobId,
    pub(crate) submission: Box<Submission>,
    pub(crate) arrived: Instant,
    pub(crate) state: JobState,
    pub(crate) version: u32,
    pub(crate) stage: u16,
    pub(crate) quality: u16,
    pub(crate) delivery: u16,
    pub(crate) deliveries: u16,
    /// The lease in force, and who has it.
    pub(crate) held: Option<(Lease, InstanceId)>,
    /// Result of the last stage that was done, or message of the last failure.
    pub(crate) result: Box<[u8]>,
    pub(crate) objects: Vec<String>,
}

impl Job {
    pub(crate) fn new(number: JobNumber, id: JobId, submission: Box<Submission>, arrived: Instant) -> Self {
        Self {
            number,
            id,
            submission,
            arrived,
            state: JobState::Queued,
            version: 1,
            stage: 0,
            quality: 0,
            delivery: 0,
            deliveries: 0,
            held: None,
            result: Box::default(),
            objects: Vec::new(),
        }
    }

    /// Notes a change.
    pub(crate) fn change(&mut self, at: Instant, state: JobState) -> JobEvent {
        self.version += 1;
        self.state = state;
        JobEvent {
            job: self.number,
            version: self.version,
            at,
            state,
            stage: self.stage,
            deliveries: self.deliveries,
        }
    }

    pub(crate) fn view(&self) -> JobView {
        JobView {
            job: self.number,
            tenant: self.submission.tenant,
            class: self.submission.class.0,
            state: self.state,
            arrived: self.arrived,
            stage: self.stage,
            deliveries: self.deliveries,
            version: self.version,
        }
    }
}

/// All jobs in the system, by the dispatcher's slot and by number.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    slots: Vec<Option<Box<Job>>>,
    by_number: BTreeMap<JobNumber, u32>,
}

impl Jobs {
    pub(crate) fn insert(&mut self, job: Box<Job>) {
        let slot = job.id.slot;
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, || None);
        }
        self.by_number.insert(job.number, slot);
        debug_assert!(self.slots[slot as usize].is_none(), "a slot holds one job");
        self.slots[slot as usize] = Some(job);
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Box<Job>> {
        let job = self.slots.get_mut(slot as usize)?.take()?;
        self.by_number.remove(&job.number);
        Some(job)
    }

    pub(crate) fn at(&self, slot: u32) -> Option<&Job> {
        self.slots.get(slot as usize)?.as_deref()
    }

    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut Job> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    pub(crate) fn get(&self, number: JobNumber) -> Option<&Job> {
        self.at(*self.by_number.get(&number)?)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// The smallest number.
    pub(crate) fn first(&self) -> Option<JobNumber> {
        self.by_number.first_key_value().map(|(number, _)| *number)
    }

    /// Up to `limit` jobs above `after`, of one tenant or of all; no more than [`SCAN_MAX`] are looked at.
    pub(crate) fn list(&self, tenant: Option<TenantId>, after: Option<JobNumber>, limit: usize) -> Listing {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut listing = Listing::default();
        for (seen, (number, slot)) in
            self.by_number.range((after.map_or(Unbounded, Excluded), Unbounded)).enumerate()
        {
            if seen == SCAN_MAX || listing.jobs.len() == limit {
                return listing;
            }
            listing.after = Some(*number);
            if let Some(job) = self.at(*slot)
                && tenant.is_none_or(|tenant| job.submission.tenant == tenant)
            {
                listing.jobs.push(job.view());
            }
        }
        listing.after = None;
        listing
    }

    /// Every job, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.slots.iter().flatten().map(|job| &**job)
    }
}
