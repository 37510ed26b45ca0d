//! Who may ask for what: API keys in memory, looked up by their public part, compared by digest in constant time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::key_file::{self, KeyEntry, KeyFile, KeyFileError, digest_of};
use super::problem::Problem;
use super::rate::{Bucket, Rate};
use crate::clock::unix_ms;
use crate::submission::TenantId;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Submit jobs and cancel own ones.
    Submit,
    /// Read own jobs.
    Read,
    /// Read the fleet, the decisions and the metrics.
    Observe,
    /// Everything that `read` and `observe` may, for all tenants; cancel any job, hold launches, reload the scenario.
    Operate,
    /// Join as a worker.
    Join,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] = [Self::Submit, Self::Read, Self::Observe, Self::Operate, Self::Join];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Observe => "observe",
            Self::Operate => "operate",
            Self::Join => "join",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| format!("`{text}` is no scope; use submit, read, observe, operate or join"))
    }
}

/// Who asks, and what they may.
#[derive(Clone, Debug)]
pub struct Caller {
    key: Arc<Key>,
}

#[derive(Debug)]
struct Key {
    id: String,
    name: String,
    digest: [u8; 32],
    scopes: u8,
    tenant: TenantId,
    jobs_max: u32,
    rate: Option<Rate>,
    expires_ms: u64,
    is_revoked: bool,
    /// Kept over reloads of the file.
    bucket: Arc<Bucket>,
}

impl Caller {
    /// Whose jobs it submits.
    pub fn tenant(&self) -> TenantId {
        self.key.tenant
    }

    /// Jobs that the tenant may have in the system.
    pub fn jobs_max(&self) -> u32 {
        self.key.jobs_max
    }

    /// Public part of the key; empty where there are no keys.
    pub fn id(&self) -> &str {
        &self.key.id
    }

    /// What the owner calls the key.
    pub fn name(&self) -> &str {
        &self.key.name
    }

    /// Whether the key has a scope, or one that holds it.
    pub fn has(&self, scope: Scope) -> bool {
        let held = match scope {
            Scope::Read | Scope::Observe => Scope::Operate.bit() | scope.bit(),
            Scope::Submit | Scope::Operate | Scope::Join => scope.bit(),
        };
        self.key.scopes & held != 0
    }

    /// Asks for a scope.
    ///
    /// # Errors
    /// 403, naming the scope.
    pub fn needs(&self, scope: Scope) -> Result<(), Problem> {
        if self.has(scope) {
            return Ok(());
        }
        let detail = format!("this key has not the scope `{}`", scope.name());
        let remedy = format!("use a key made with `headroom keys create --scope {}`", scope.name());
        Err(Problem::new(StatusCode::FORBIDDEN, "scope", detail, remedy))
    }

    /// The tenant whose jobs are listed and cancelled: all for an operator.
    pub(crate) fn only(&self) -> Option<TenantId> {
        (!self.has(Scope::Operate)).then_some(self.key.tenant)
    }

    /// Takes tokens that more than one request is worth, if need be as a debt.
    pub(crate) fn owe(&self, requests: u32) {
        if let Some(rate) = self.key.rate {
            self.key.bucket.owe(rate, requests);
        }
    }

    /// Takes a token of the key's rate.
    ///
    /// # Errors
    /// 429 with the time until there is one.
    fn spend(&self) -> Result<(), Problem> {
        let Some(rate) = self.key.rate else { return Ok(()) };
        self.key.bucket.take(rate).map_err(Problem::too_fast)
    }
}

/// All keys of a data folder, read again when the file changes.
pub struct KeyRing {
    folder: PathBuf,
    keys: RwLock<Arc<HashMap<String, Arc<Key>>>>,
    /// While there was never a key, everything is open to everybody who can connect.
    open: RwLock<Option<Caller>>,
    /// Time and length of the file as it was read last.
    seen: Mutex<Option<(SystemTime, u64)>>,
}

impl KeyRing {
    /// The keys of a data folder.
    ///
    /// # Errors
    /// [`KeyFileError`] when there is a file and it cannot be used.
    pub fn open(folder: &Path) -> Result<Self, KeyFileError> {
        let seen = modified(folder);
        let file = key_file::read(folder)?;
        let is_open = file.as_ref().is_none_or(|file| file.keys.is_empty());
        let keys = file.map(|file| gather(&file, &HashMap::new())).unwrap_or_default();
        Ok(Self {
            folder: folder.to_owned(),
            keys: RwLock::new(Arc::new(keys)),
            open: RwLock::new(is_open.then(anybody)),
            seen: Mutex::new(seen),
        })
    }

    /// Whether there was never a key, so that everything is open.
    pub fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Reads the file again if it changed. A file that cannot be used leaves the keys as they are.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn refresh(&self) -> Result<bool, KeyFileError> {
        let now = modified(&self.folder);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_none() || *seen == now {
            return Ok(false);
        }
        // A file that cannot be used is looked at again: its mode may change without its time.
        let Some(file) = key_file::read(&self.folder)? else { return Ok(false) };
        *seen = now;
        drop(seen);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *keys = Arc::new(gather(&file, &keys));
        if !file.keys.is_empty() {
            *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(true)
    }

    /// Whether a bearer token is a valid key with the scope. Where there are no keys, it always is.
    pub fn allows(&self, token: &str, scope: Scope) -> bool {
        self.open_caller().or_else(|| self.find(token).ok()).is_some_and(|caller| caller.has(scope))
    }

    /// Who sends a request with these headers.
    ///
    /// # Errors
    /// 401 without a valid key, 429 when the key is used too fast.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if let Some(anybody) = self.open_caller() {
            return Ok(anybody);
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(Problem::unauthorized("there is no Authorization header"));
        };
        let token = bearer(value.as_bytes());
        let token =
            token.ok_or_else(|| Problem::unauthorized("the Authorization header has no Bearer key"))?;
        let caller = self.find(token)?;
        caller.spend()?;
        Ok(caller)
    }

    fn open_caller(&self) -> Option<Caller> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, token: &str) -> Result<Caller, Problem> {
        let parts = token.strip_prefix("hr_").and_then(|rest| rest.split_once('_'));
        let (id, secret) = parts.ok_or_else(|| Problem::unauthorized("this is no headroom key"))?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let key = keys.get(id);
        // An unknown id costs as much time as a wrong secret.
        let digest = Sha256::digest(secret.as_bytes());
        let is_right = digest.ct_eq(key.map_or(&[0; 32], |key| &key.digest)).into();
        match key {
            Some(key) if is_right => {
                if key.is_revoked {
                    return Err(Problem::unauthorized("this key was revoked"));
                }
                if key.expires_ms <= unix_ms() {
                    return Err(Problem::unauthorized("this key has expired"));
                }
                Ok(Caller { key: key.clone() })
            }
            _ => Err(Problem::unauthorized("this key is not known here")),
        }
    }
}

/// The token of an `Authorization: Bearer` header; the scheme in any case.
fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, token) = value.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    std::str::from_utf8(token).ok().map(str::trim)
}

fn modified(folder: &Path) -> Option<(SystemTime, u64)> {
    let file = std::fs::metadata(key_file::path(folder)).ok()?;
    Some((file.modified().ok()?, file.len()))
}

fn anybody() -> Caller {
    let key = Key {
        id: String::new(),
        name: "anybody".to_owned(),
        digest: [0; 32],
        scopes: u8::MAX,
        tenant: 0,
        jobs_max: u32::MAX,
        rate: None,
        expires_ms: u64::MAX,
        is_revoked: false,
        bucket: Arc::new(Bucket::new()),
    };
    Caller { key: Arc::new(key) }
}

fn gather(file: &KeyFile, old: &HashMap<String, Arc<Key>>) -> HashMap<String, Arc<Key>> {
    let key = |entry: &KeyEntry| {
        let bucket = old.get(&entry.id).map_or_else(|| Arc::new(Bucket::new()), |key| key.bucket.clone());
        let expires = entry.expires.map(|at| u64::try_from(at.as_millisecond()).unwrap_or(0));
        Key {
            id: entry.id.clone(),
            name: entry.name.clone(),
            // A digest that cannot be read was refused with the file; all zeros fits no secret.
            digest: digest_of(entry).unwrap_or([0; 32]),
            scopes: entry.scopes.iter().fold(0, |bits, scope| bits | scope.bit()),
            tenant: entry.tenant,
            jobs_max: entry.jobs_max,
            rate: entry.rate.map(|rate| Rate::new(rate, entry.burst.unwrap_or(1))),
            expires_ms: expires.unwrap_or(u64::MAX),
            is_revoked: entry.revoked.is_some(),
            bucket,
        }
    };
    file.keys.iter().map(|entry| (entry.id.clone(), Arc::new(key(entry)))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::key_file::{KeyWish, create, revoke};
    use super::*;

    fn wish(scopes: &[Scope]) -> KeyWish {
        KeyWish { name: "test".to_owned(), scopes: scopes.to_vec(), ..KeyWish::default() }
    }

    #[test]
    fn keys_are_open_until_the_first_and_never_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let ring = KeyRing::open(folder.path()).expect("no file is fine");
        assert!(ring.is_open() && ring.allows("", Scope::Operate));
        let (token, entry) = create(folder.path(), wish(&[Scope::Submit])).expect("a key");
        assert!(ring.refresh().expect("readable"));
        assert!(!ring.is_open() && !ring.allows("", Scope::Submit));
        assert!(ring.allows(&token, Scope::Submit) && !ring.allows(&token, Scope::Read));
        revoke(folder.path(), &entry.id).expect("revoked");
        assert!(ring.refresh().expect("readable"));
        assert!(!ring.allows(&token, Scope::Submit));
        std::fs::remove_file(key_file::path(folder.path())).expect("removed");
        assert!(!ring.refresh().expect("nothing there"), "keys stay as they were");
        assert!(!ring.is_open());
    }

    #[test]
    fn near_misses_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (token, entry) = create(folder.path(), wish(&[Scope::Operate])).expect("a key");
        let ring = KeyRing::open(folder.path()).expect("readable");
        assert!(ring.find(&token).is_ok_and(|caller| caller.has(Scope::Read) && !caller.has(Scope::Submit)));
        let mut last = token.clone();
        let flipped = if last.pop() == Some('0') { '1' } else { '0' };
        last.push(flipped);
        for wrong in
            ["", "hr_", "hr__", &last, &token[3..], &format!("hr_{}_", entry.id), &format!("{token}0")]
        {
            assert!(ring.find(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_expire() {
        let folder = tempfile::tempdir().expect("a folder");
        let past = jiff::Timestamp::from_second(1_000).expect("a time");
        let (token, _) =
            create(folder.path(), KeyWish { expires: Some(past), ..wish(&[Scope::Read]) }).expect("a key");
        let ring = KeyRing::open(folder.path()).expect("readable");
        assert!(ring.find(&token).is_err_and(|problem| problem.detail.contains("expired")));
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        for (value, token) in
            [("Bearer a", Some("a")), ("bearer  b", Some("b")), ("Basic a", None), ("Bearer", None)]
        {
            assert_eq!(bearer(value.as_bytes()), token, "{value}");
        }
    }
}
