//! The file of API keys: `keys.json` in the data folder, readable by its owner only. It holds digests, never secrets.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keys::Scope;
use crate::submission::TenantId;

/// Name of the file in the data folder.
pub const FILE_NAME: &str = "keys.json";

/// Format of the file.
const FORMAT: u32 = 1;

/// Jobs that a key may have in the system where nothing else is said.
const JOBS_MAX: u32 = 100_000;

/// Requests that may come at once, as seconds of a key's rate, where nothing else is said.
const BURST_S: f64 = 2.0;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system refused.
    #[error("could not {what} `{path}`: {why}")]
    Io { what: &'static str, path: PathBuf, why: String },
    /// Others may read it.
    #[error("`{path}` may be read by others (mode {mode:o}); run `chmod 600 {path}`")]
    Open { path: PathBuf, mode: u32 },
    /// It is no key file.
    #[error("`{path}` is no key file: {why}; restore it from a backup, or move it away and make new keys")]
    Damaged { path: PathBuf, why: String },
    /// A wish that makes no key.
    #[error("{0}")]
    Wish(String),
    /// There is no such key.
    #[error("there is no key `{0}`; `headroom keys list` shows all")]
    Unknown(String),
}

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    format: u32,
    /// All keys ever made, revoked ones too: tenant numbers are never given twice.
    pub keys: Vec<KeyEntry>,
}

/// A key, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// The public part of the key.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// SHA-256 of the secret part, hexadecimal.
    pub sha256: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Whose jobs it submits and sees.
    pub tenant: TenantId,
    /// Jobs that the tenant may have in the system at once.
    pub jobs_max: u32,
    /// Requests per second; no limit where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Requests at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

/// A key to make.
#[derive(Clone, Debug, Default)]
pub struct KeyWish {
    /// What its owner calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The tenant of an older key, to change keys without losing sight of jobs; a new one where there is none.
    pub tenant: Option<TenantId>,
    /// Jobs that the tenant may have in the system at once.
    pub jobs_max: Option<u32>,
    /// Requests per second.
    pub rate: Option<f64>,
    /// Requests at once.
    pub burst: Option<u32>,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
}

/// Path of the key file of a data folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE_NAME)
}

/// All keys of a data folder, or none where there is no file.
///
/// # Errors
/// [`KeyFileError`] when the file cannot be read, may be read by others, or is damaged.
pub fn read(folder: &Path) -> Result<Option<KeyFile>, KeyFileError> {
    let path = path(folder);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", &path, &error)),
    };
    check_mode(&path)?;
    let damaged = |why: String| KeyFileError::Damaged { path: path.clone(), why };
    let file: KeyFile = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if file.format != FORMAT {
        return Err(damaged(format!("it has format {}, this release knows {FORMAT}", file.format)));
    }
    if let Some(entry) = file.keys.iter().find(|entry| digest_of(entry).is_none()) {
        return Err(damaged(format!("key `{}` has no digest of 64 hexadecimal digits", entry.id)));
    }
    if let Some(entry) = file.keys.iter().find(|entry| !entry.rate.is_none_or(is_rate)) {
        return Err(damaged(format!("key `{}` has a rate that is no positive number", entry.id)));
    }
    Ok(Some(file))
}

/// Makes a key; the text is all that will ever be seen of its secret.
///
/// # Errors
/// [`KeyFileError`].
pub fn create(folder: &Path, wish: KeyWish) -> Result<(String, KeyEntry), KeyFileError> {
    if wish.scopes.is_empty() {
        return Err(KeyFileError::Wish("a key without a scope may do nothing; give --scope".to_owned()));
    }
    if wish.name.is_empty() || wish.name.len() > 128 || wish.name.chars().any(char::is_control) {
        return Err(KeyFileError::Wish("a key's name has 1 to 128 printable characters".to_owned()));
    }
    if let Some(rate) = wish.rate.filter(|rate| !is_rate(*rate)) {
        return Err(KeyFileError::Wish(format!("a rate of {rate} requests per second is none; use > 0")));
    }
    let (id, secret) = (random_hex::<4>()?, random_hex::<32>()?);
    let entry = edit(folder, |file| {
        let next = file.keys.iter().map(|entry| entry.tenant).max().unwrap_or(0) + 1;
        if let Some(tenant) = wish.tenant.filter(|tenant| *tenant == 0 || *tenant >= next) {
            return Err(KeyFileError::Wish(format!(
                "there is no tenant {tenant}; `headroom keys list` shows all"
            )));
        }
        let entry = KeyEntry {
            id: id.clone(),
            name: wish.name,
            sha256: hex(&Sha256::digest(secret.as_bytes())),
            scopes: wish.scopes,
            tenant: wish.tenant.unwrap_or(next),
            jobs_max: wish.jobs_max.unwrap_or(JOBS_MAX),
            rate: wish.rate,
            burst: wish.rate.map(|rate| wish.burst.unwrap_or((rate * BURST_S).ceil() as u32).max(1)),
            created: Timestamp::now(),
            expires: wish.expires,
            revoked: None,
        };
        file.keys.push(entry.clone());
        Ok(entry)
    })?;
    Ok((format!("hr_{id}_{secret}"), entry))
}

/// Revokes a key, by its id. Running servers take notice within seconds.
///
/// # Errors
/// [`KeyFileError::Unknown`] and others.
pub fn revoke(folder: &Path, id: &str) -> Result<KeyEntry, KeyFileError> {
    edit(folder, |file| {
        let entry = file.keys.iter_mut().find(|entry| entry.id == id);
        let entry = entry.ok_or_else(|| KeyFileError::Unknown(id.to_owned()))?;
        entry.revoked.get_or_insert_with(Timestamp::now);
        Ok(entry.clone())
    })
}

/// The digest of an entry; `None` when it is none.
pub(crate) fn digest_of(entry: &KeyEntry) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if entry.sha256.len() != 64 || !entry.sha256.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&entry.sha256[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

fn is_rate(rate: f64) -> bool {
    rate.is_finite() && rate > 0.0
}

/// Changes the file whole or not at all; one writer at a time.
fn edit<T>(
    folder: &Path,
    change: impl FnOnce(&mut KeyFile) -> Result<T, KeyFileError>,
) -> Result<T, KeyFileError> {
    std::fs::create_dir_all(folder).map_err(|error| io("make", folder, &error))?;
    let lock_path = folder.join("keys.lock");
    let lock = private(&lock_path).map_err(|error| io("open", &lock_path, &error))?;
    lock.lock().map_err(|error| io("lock", &lock_path, &error))?;
    let mut file = read(folder)?.unwrap_or(KeyFile { format: FORMAT, keys: Vec::new() });
    let value = change(&mut file)?;
    let (path, fresh) = (path(folder), folder.join("keys.json.new"));
    let write = || -> std::io::Result<()> {
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut out = private(&fresh)?;
        out.write_all(&serde_json::to_vec_pretty(&file)?)?;
        out.write_all(b"\n")?;
        out.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| io("write", &path, &error))?;
    Ok(value)
}

/// A file that only its owner may read and write.
pub(crate) fn private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

fn check_mode(path: &Path) -> Result<(), KeyFileError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let mode = std::fs::metadata(path).map_err(|error| io("read", path, &error))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Open { path: path.to_owned(), mode });
        }
    }
    Ok(())
}

fn random_hex<const N: usize>() -> Result<String, KeyFileError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| KeyFileError::Wish("the system gives no random bytes".to_owned()))?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn io(what: &'static str, path: &Path, error: &std::io::Error) -> KeyFileError {
    KeyFileError::Io { what, path: path.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(name: &str) -> KeyWish {
        KeyWish { name: name.to_owned(), scopes: vec![Scope::Submit], ..KeyWish::default() }
    }

    #[test]
    fn the_file_holds_digests_only_and_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let (text, entry) = create(folder.path(), wish("app")).expect("a key");
        let secret = text.rsplit_once('_').expect("three parts").1;
        let kept = std::fs::read_to_string(path(folder.path())).expect("the file");
        assert!(kept.contains(&entry.id) && !kept.contains(secret));
        assert_eq!(entry.sha256, hex(&Sha256::digest(secret.as_bytes())));
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, PermissionsExt};
            let mode = std::fs::metadata(path(folder.path())).expect("the file").mode();
            assert_eq!(mode & 0o777, 0o600);
            std::fs::set_permissions(path(folder.path()), PermissionsExt::from_mode(0o640)).expect("chmod");
            assert!(matches!(read(folder.path()), Err(KeyFileError::Open { mode: 0o640, .. })));
        }
    }

    #[test]
    fn tenants_are_never_given_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = |wish| create(folder.path(), wish).map(|(_, entry)| entry);
        let first = made(wish("a")).expect("a key");
        let revoked = revoke(folder.path(), &first.id).expect("revoked");
        assert!(revoked.revoked.is_some());
        let second = made(wish("b")).expect("a key");
        assert_eq!((first.tenant, second.tenant), (1, 2));
        let turned = made(KeyWish { tenant: Some(1), ..wish("a again") }).expect("a key");
        assert_eq!(turned.tenant, 1);
        for tenant in [0, 3] {
            assert!(made(KeyWish { tenant: Some(tenant), ..wish("c") }).is_err(), "{tenant}");
        }
        assert!(matches!(revoke(folder.path(), "nobody"), Err(KeyFileError::Unknown(_))));
        assert_eq!(read(folder.path()).expect("readable").expect("there").keys.len(), 3);
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        create(folder.path(), wish("a")).expect("a key");
        let good = std::fs::read_to_string(path(folder.path())).expect("the file");
        for bad in [
            String::new(),
            good.replace("\"format\": 1", "\"format\": 2"),
            good.replace("sha256\": \"", "sha256\": \"z"),
        ] {
            std::fs::write(path(folder.path()), &bad).expect("written");
            assert!(matches!(read(folder.path()), Err(KeyFileError::Damaged { .. })), "{bad}");
        }
    }
}
