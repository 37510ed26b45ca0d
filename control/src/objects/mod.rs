//! Input and output objects of jobs over HTTP: `/v1/objects/inputs/<tenant>/...`, which a tenant uploads for its jobs, and
//! `/v1/objects/outputs/<job>/...`, which workers make.
//!
//! Objects are no part of a plane's state: whose an output is, is asked of the plane.

mod access;
mod depot;
mod folder;
mod key;
mod kind;
mod range;
pub(crate) mod read;
pub(crate) mod route;
mod signing;
mod sweep;
pub(crate) mod write;

pub use depot::{Place, PlaceError};
pub use key::{KEY_BYTES_MAX, Key, KeyError, Owner};

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::api::KeyRing;
use crate::connect::JoinCheck;
use crate::shell::Handle;
use depot::Depot;
use signing::UrlSigner;

/// How objects are kept.
#[derive(Clone, Debug)]
pub struct ObjectSettings {
    /// Where.
    pub place: Place,
    /// Largest object, bytes.
    pub bytes_max: u64,
    /// Age at which outputs go; `None` keeps them for ever. Those of jobs in the system stay.
    pub outputs_keep: Option<Duration>,
    /// Age at which inputs go; `None` keeps them for ever. It should be longer than the longest deadline, 30 days.
    pub inputs_keep: Option<Duration>,
    /// Time between two looks at what is too old.
    pub sweep_every: Duration,
    /// Bytes that stay free on the disk of a folder, for the journal.
    pub reserve: u64,
    /// Uploads and deletions at once; more wait.
    pub writes_max: usize,
    /// Time for which a client may send nothing of an upload.
    pub patience: Duration,
}

impl Default for ObjectSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            place: Place::Memory,
            bytes_max: 256 << 20,
            outputs_keep: Some(7 * DAY),
            inputs_keep: Some(31 * DAY),
            sweep_every: Duration::from_secs(3600),
            reserve: 512 << 20,
            writes_max: 64,
            patience: Duration::from_secs(30),
        }
    }
}

/// The objects of a plane; cheap to clone.
#[derive(Clone)]
pub struct Objects(Arc<Shared>);

struct Shared {
    handle: Handle,
    keys: Arc<KeyRing>,
    join: JoinCheck,
    depot: Depot,
    signer: UrlSigner,
    public_url: Arc<OnceLock<String>>,
    settings: ObjectSettings,
    writes: Semaphore,
}

impl Objects {
    /// Opens the store. Workers come with keys of the scope `join`, or with what `join` knows. URLs are signed by a secret that follows from `root`, the journal's own, and are below
    /// `public_url`, which is set once it is known.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn open(
        handle: Handle,
        keys: Arc<KeyRing>,
        join: JoinCheck,
        root: &[u8; 32],
        public_url: Arc<OnceLock<String>>,
        settings: ObjectSettings,
    ) -> Result<Self, PlaceError> {
        let depot = Depot::open(&settings.place, settings.reserve)?;
        let shared = Shared {
            handle,
            keys,
            join,
            depot,
            signer: UrlSigner::new(root),
            public_url,
            writes: Semaphore::new(settings.writes_max),
            settings,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// The routes.
    pub fn router(&self) -> axum::Router {
        route::router(self.clone())
    }

    /// Removes what is too old, now and then, for ever.
    pub async fn sweep(self) {
        sweep::run(&self).await;
    }
}
