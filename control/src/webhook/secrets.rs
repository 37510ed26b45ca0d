//! Every tenant's signing secret. Secrets are derived from the journal's own; only how often each was changed is kept, in
//! the data folder.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::signature::Secret;
use crate::api::key_file::private;
use crate::number::JobNumber;
use crate::submission::TenantId;

/// Name of the file in the data folder.
const FILE_NAME: &str = "webhook-secrets.json";

/// Format of the file.
const FORMAT: u32 = 1;

/// After a change both secrets sign for so long, so that receivers have time to follow.
const OVERLAP: SignedDuration = SignedDuration::from_hours(24);

/// A file of changes that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("could not use `{path}`: {why}")]
pub struct SecretsError {
    path: PathBuf,
    why: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    format: u32,
    tenants: BTreeMap<TenantId, Change>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// How often the secret was changed.
    count: u32,
    /// When it was changed last.
    at: Timestamp,
}

/// A tenant's secrets at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Signs from now on.
    pub current: Secret,
    /// Signs too, until the time beside it.
    pub previous: Option<(Secret, Timestamp)>,
}

impl Held {
    /// The secrets that sign.
    pub fn signing(self) -> Vec<Secret> {
        let previous = self.previous.map(|(secret, _)| secret);
        std::iter::once(self.current).chain(previous).collect()
    }
}

/// All tenants' secrets.
#[derive(Debug)]
pub struct Secrets {
    root: Secret32,
    path: PathBuf,
    changes: Mutex<Changes>,
}

struct Secret32([u8; 32]);

impl std::fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

impl Secrets {
    /// The secrets that follow from `root`, the journal's own, and from the changes noted in the data folder.
    ///
    /// # Errors
    /// [`SecretsError`] when the file of changes cannot be read.
    pub fn open(folder: &Path, root: [u8; 32]) -> Result<Self, SecretsError> {
        let path = folder.join(FILE_NAME);
        let failed = |why: String| SecretsError { path: path.clone(), why };
        let changes = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Changes { format: FORMAT, ..Changes::default() }
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        if changes.format != FORMAT {
            return Err(failed(format!("it has format {}, this release knows {FORMAT}", changes.format)));
        }
        Ok(Self { root: Secret32(root), path, changes: Mutex::new(changes) })
    }

    /// A tenant's secrets now.
    pub fn of(&self, tenant: TenantId, now: Timestamp) -> Held {
        let change = self.changes().tenants.get(&tenant).copied();
        self.held(tenant, change, now)
    }

    /// Changes a tenant's secret. The one before signs beside it for a day; the one before that is void at once.
    ///
    /// # Errors
    /// [`SecretsError`] when the change cannot be noted; then there is none.
    pub fn change(&self, tenant: TenantId, now: Timestamp) -> Result<Held, SecretsError> {
        let mut changes = self.changes();
        let before = changes.tenants.get(&tenant).copied();
        let change = Change { count: before.map_or(0, |change| change.count) + 1, at: now };
        changes.tenants.insert(tenant, change);
        let text = serde_json::to_vec_pretty(&*changes).expect("changes encode");
        if let Err(error) = write_whole(&self.path, &text) {
            match before {
                Some(before) => changes.tenants.insert(tenant, before),
                None => changes.tenants.remove(&tenant),
            };
            return Err(SecretsError { path: self.path.clone(), why: error.to_string() });
        }
        Ok(self.held(tenant, Some(change), now))
    }

    /// The id of a job's announcement, the same over retries and restarts, and not that of another installation.
    pub fn id(&self, job: JobNumber) -> String {
        let installation = Secret::derived(&self.root.0, b"webhook id", &[]).fingerprint();
        format!("msg_{installation:08x}_{job}")
    }

    fn held(&self, tenant: TenantId, change: Option<Change>, now: Timestamp) -> Held {
        let secret = |count| Secret::derived(&self.root.0, b"webhook secret", &[tenant, count]);
        let Some(Change { count, at }) = change else {
            return Held { current: secret(0), previous: None };
        };
        let until = at.checked_add(OVERLAP).unwrap_or(Timestamp::MAX);
        let previous = (now < until).then(|| (secret(count.saturating_sub(1)), until));
        Held { current: secret(count), previous }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = private(&fresh)?;
    out.write_all(text)?;
    out.sync_all()?;
    std::fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_lets_both_sign_for_a_day() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Secrets::open(folder.path(), [7; 32]).expect("usable");
        let at = |hours: i64| Timestamp::from_second(1_700_000_000 + hours * 3600).expect("a time");
        let secrets = open();
        let first = secrets.of(1, at(0)).current;
        assert_ne!(first, secrets.of(2, at(0)).current);
        let changed = secrets.change(1, at(0)).expect("written");
        assert_ne!(changed.current, first);
        assert_eq!(changed.previous, Some((first.clone(), at(24))));
        let again = open();
        assert_eq!(again.of(1, at(23)).signing(), [changed.current.clone(), first.clone()]);
        assert_eq!(again.of(1, at(24)).signing(), std::slice::from_ref(&changed.current));
        let twice = again.change(1, at(1)).expect("written").signing();
        assert!(twice.len() == 2 && !twice.contains(&first), "a leaked secret is void after two changes");
        assert_eq!(again.of(2, at(0)), secrets.of(2, at(0)));
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for text in ["", "{}", r#"{"format":2,"tenants":{}}"#] {
            std::fs::write(folder.path().join(FILE_NAME), text).expect("written");
            assert!(Secrets::open(folder.path(), [7; 32]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_change_that_cannot_be_noted_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let secrets = Secrets::open(folder.path(), [7; 32]).expect("usable");
        let now = Timestamp::UNIX_EPOCH;
        let first = secrets.of(1, now);
        drop(folder);
        assert!(secrets.change(1, now).is_err());
        assert_eq!(secrets.of(1, now), first);
    }

    #[test]
    fn ids_tell_jobs_and_installations_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let [here, there] = [7, 8].map(|root| Secrets::open(folder.path(), [root; 32]).expect("usable"));
        let job = JobNumber::new(0, 42);
        assert_eq!(here.id(job), Secrets::open(folder.path(), [7; 32]).expect("usable").id(job));
        assert!(here.id(job).ends_with("_job-0-42") && here.id(job) != there.id(job));
    }
}
