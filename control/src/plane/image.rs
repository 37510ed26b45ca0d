//! A plane put away and taken up again. Restart is the image and the journal behind it.

use std::collections::{BTreeMap, VecDeque};

use policy::dispatch::{Dispatcher, Image, ImageRef, RestoreError};
use policy::units::Instant;
use policy::units::random::Stream;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::jobs::{Job, Jobs};
use super::keys::Keys;
use super::machines::Machines;
use super::money::Money;
use super::{Plane, Rules, Served, ServedError};
use crate::effect::WebhookTask;
use crate::number::JobNumber;
use crate::submission::TenantId;

/// Layout of an image; another layout is another number.
const LAYOUT: u32 = 2;

/// Bytes of the checksum (SHA-256, cut) that an image begins with.
const DIGEST_BYTES: usize = 16;

/// An image that this plane cannot take up.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not decodable.
    #[error("the image in the journal cannot be read: {0}")]
    Unreadable(#[from] postcard::Error),
    /// Of another release.
    #[error(
        "the image in the journal has layout {found}, this release knows {LAYOUT}: start the release that wrote it, or a later one"
    )]
    Layout { found: u32 },
    /// Of another system.
    #[error(
        "the journal is of another scenario: {0}. Serve the scenario that it was made with, or give another data folder"
    )]
    OtherSystem(#[from] RestoreError),
    /// The rules in it cannot be used.
    #[error("the image in the journal was made under rules that cannot be used: {0}")]
    Rules(#[from] ServedError),
    /// It disagrees with itself: damaged.
    #[error("the image in the journal is damaged: {0}")]
    Damaged(String),
}

/// By what the state came about: what the plane was started with, what it was given since, and its seed.
#[derive(Serialize, Deserialize)]
struct Origin {
    served: Option<Served>,
    reloaded: Option<String>,
    seed: u64,
}

/// Everything but the dispatcher, which has its own form.
#[derive(Serialize, Deserialize)]
struct Rest {
    jobs: Vec<Job>,
    machines: Machines,
    keys: Vec<(Instant, u128, u64, JobNumber)>,
    money: Money,
    tenants: BTreeMap<TenantId, u32>,
    webhooks: BTreeMap<JobNumber, WebhookTask>,
    hold: Option<String>,
    sequence: u64,
    launches: u64,
    epoch: u64,
    wall: Option<(Instant, u64)>,
    last: Instant,
}

#[derive(Serialize)]
struct RestRef<'a> {
    jobs: Vec<&'a Job>,
    machines: &'a Machines,
    keys: Vec<(Instant, u128, u64, JobNumber)>,
    money: &'a Money,
    tenants: &'a BTreeMap<TenantId, u32>,
    webhooks: &'a BTreeMap<JobNumber, WebhookTask>,
    hold: &'a Option<String>,
    sequence: u64,
    launches: u64,
    epoch: u64,
    wall: Option<(Instant, u64)>,
    last: Instant,
}

/// A plane's state, to be put away.
pub struct PlaneImageRef<'a>(&'a Plane);

impl PlaneImageRef<'_> {
    /// The state as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let plane = self.0;
        let rest = RestRef {
            jobs: plane.jobs.iter().collect(),
            machines: &plane.machines,
            keys: plane.keys.entries(),
            money: &plane.money,
            tenants: &plane.tenants,
            webhooks: &plane.webhooks,
            hold: &plane.hold,
            sequence: plane.sequence,
            launches: plane.launches,
            epoch: plane.epoch,
            wall: plane.wall,
            last: plane.last,
        };
        let origin =
            Origin { served: plane.served.clone(), reloaded: plane.reloaded.clone(), seed: plane.rules.seed };
        let whole: (u32, Origin, ImageRef<'_>, RestRef<'_>) =
            (LAYOUT, origin, plane.dispatcher.image(), rest);
        let mut bytes = vec![0; DIGEST_BYTES];
        bytes = postcard::to_extend(&whole, bytes).expect("a plane's state encodes");
        let digest = Sha256::digest(&bytes[DIGEST_BYTES..]);
        bytes[..DIGEST_BYTES].copy_from_slice(&digest[..DIGEST_BYTES]);
        bytes
    }
}

/// A plane's state, taken from a journal.
pub struct PlaneImage {
    origin: Origin,
    dispatcher: Image,
    rest: Rest,
}

impl PlaneImage {
    /// Reads what [`PlaneImageRef::encode`] wrote.
    ///
    /// # Errors
    /// [`ImageError::Unreadable`] or [`ImageError::Layout`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let damaged = || ImageError::Damaged("its checksum differs".to_owned());
        let (digest, bytes) = bytes.split_at_checked(DIGEST_BYTES).ok_or_else(damaged)?;
        if Sha256::digest(bytes)[..DIGEST_BYTES] != *digest {
            return Err(damaged());
        }
        let (layout, bytes) = postcard::take_from_bytes::<u32>(bytes)?;
        if layout != LAYOUT {
            return Err(ImageError::Layout { found: layout });
        }
        let (origin, dispatcher, rest) = postcard::from_bytes(bytes)?;
        Ok(Self { origin, dispatcher, rest })
    }

    /// What its plane was started with, where it holds that.
    pub fn served(&self) -> Option<&Served> {
        self.origin.served.as_ref()
    }
}

impl Plane {
    /// The state, to be put away.
    pub fn image(&self) -> PlaneImageRef<'_> {
        PlaneImageRef(self)
    }

    /// The plane of an image, under the rules that it was taken under; under `rules` as far as it does not hold them.
    ///
    /// # Errors
    /// [`ImageError::OtherSystem`] when the rules are not those of the image, [`ImageError::Rules`],
    /// [`ImageError::Damaged`].
    pub fn restore(mut rules: Rules, image: PlaneImage) -> Result<Self, ImageError> {
        let Origin { served, reloaded, seed } = image.origin;
        if let Some(served) = &served {
            rules = served.rules(rules.secret)?;
        }
        rules.seed = seed;
        if let Some(text) = &reloaded {
            rules = rules.reloaded(text)?;
        }
        let chance = Stream::new(rules.seed, 0, "dispatcher");
        let dispatcher = Dispatcher::restore(rules.system.clone(), chance, image.dispatcher)?;
        let rest = image.rest;
        let mut jobs = Jobs::default();
        let count = rest.jobs.len();
        for job in rest.jobs {
            if !dispatcher.holds(job.id) || jobs.at(job.id.slot).is_some() {
                return Err(ImageError::Damaged(format!("{} is not in the dispatcher", job.number)));
            }
            jobs.insert(Box::new(job));
        }
        if count != dispatcher.jobs_in_system() {
            return Err(ImageError::Damaged(format!(
                "{count} jobs, {} in the dispatcher",
                dispatcher.jobs_in_system()
            )));
        }
        let money = rest.money;
        if money.pools() != rules.system.pools.len() {
            return Err(ImageError::Damaged("it has prices for other pools".to_owned()));
        }
        Ok(Self {
            rules,
            served,
            reloaded,
            dispatcher,
            jobs,
            machines: rest.machines,
            keys: Keys::from_entries(rest.keys),
            money,
            tenants: rest.tenants,
            webhooks: rest.webhooks,
            hold: rest.hold,
            sequence: rest.sequence,
            launches: rest.launches,
            epoch: rest.epoch,
            wall: rest.wall,
            last: rest.last,
            inputs: VecDeque::new(),
            outputs: Vec::new(),
            arriving: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_another_layout_is_refused_by_its_number_and_a_damaged_one_by_its_checksum() {
        let of_layout = |layout: u8| {
            let digest = Sha256::digest([layout]);
            [&digest[..DIGEST_BYTES], &[layout]].concat()
        };
        for layout in [1, 3] {
            let error = PlaneImage::decode(&of_layout(layout)).err().expect("another layout");
            assert!(matches!(error, ImageError::Layout { found } if found == u32::from(layout)), "{error}");
        }
        let cut_short = PlaneImage::decode(&of_layout(LAYOUT as u8));
        assert!(matches!(cut_short.err(), Some(ImageError::Unreadable(_))));
        let mut turned = of_layout(LAYOUT as u8);
        turned[0] ^= 1;
        assert!(matches!(PlaneImage::decode(&turned).err(), Some(ImageError::Damaged(_))));
        assert!(matches!(PlaneImage::decode(&[]).err(), Some(ImageError::Damaged(_))));
    }
}
