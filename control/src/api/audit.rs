//! The audit log: who did what, from where, and how it ended, as JSON lines in the data folder. Never a secret.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jiff::Timestamp;
use serde::Serialize;

use super::key_file::private;
use super::keys::Caller;

/// Name of the file in the data folder.
const FILE_NAME: &str = "audit.jsonl";

/// Entries that may wait for the disk; beyond, they are counted as lost, and said to be in the log.
const WAITING_MAX: usize = 4096;

/// One action.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// When.
    at: Timestamp,
    /// Public part of the key, empty where there are no keys.
    key: String,
    /// Name of the key.
    name: String,
    /// Tenant of the key.
    tenant: u32,
    /// Address of the client; empty for a command on this machine.
    from: String,
    /// What was asked: hold, lift, reload, cancel, create-key, revoke-key.
    action: &'static str,
    /// On what, or why.
    subject: String,
    /// How it ended.
    outcome: &'static str,
}

impl Entry {
    /// An action by the API.
    pub(crate) fn new(
        caller: &Caller,
        peer: SocketAddr,
        action: &'static str,
        subject: String,
        outcome: &'static str,
    ) -> Self {
        Self {
            at: Timestamp::now(),
            key: caller.id().to_owned(),
            name: caller.name().to_owned(),
            tenant: caller.tenant(),
            from: peer.to_string(),
            action,
            subject,
            outcome,
        }
    }

    /// An action by a command on this machine, on the key `id`.
    pub fn on_key(action: &'static str, id: &str, name: &str, tenant: u32) -> Self {
        Self {
            at: Timestamp::now(),
            key: id.to_owned(),
            name: name.to_owned(),
            tenant,
            from: String::new(),
            action,
            subject: id.to_owned(),
            outcome: "done",
        }
    }
}

/// Writes one entry at once.
///
/// # Errors
/// When the file cannot be written.
pub fn write(folder: &Path, entry: &Entry) -> std::io::Result<()> {
    let mut file = private(&folder.join(FILE_NAME))?;
    file.write_all(&line(entry))?;
    file.sync_data()
}

/// Writes entries behind the back of those who note them.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    sender: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

impl Audit {
    /// Begins; the thread ends with the last sender.
    pub(crate) fn start(folder: &Path) -> std::io::Result<Self> {
        let mut file = private(&folder.join(FILE_NAME))?;
        let (sender, receiver): (_, Receiver<Entry>) = sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            while let Ok(first) = receiver.recv() {
                let mut lines = line(&first);
                let mut count = 1;
                while let Ok(next) = receiver.try_recv() {
                    lines.extend_from_slice(&line(&next));
                    count += 1;
                }
                if let Err(error) = file.write_all(&lines).and_then(|()| file.sync_data()) {
                    counted.fetch_add(count, Ordering::Relaxed);
                    tracing::error!("{count} entries of the audit log are lost: {error}");
                }
            }
        })?;
        Ok(Self { sender, lost })
    }

    /// Notes an action.
    pub(crate) fn note(&self, entry: Entry) {
        if let Err(error) = self.sender.try_send(entry) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!("an entry of the audit log is lost: {error}");
        }
    }

    /// Entries that are not in the file.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

fn line(entry: &Entry) -> Vec<u8> {
    let mut line = serde_json::to_vec(entry).expect("entries encode");
    line.push(b'\n');
    line
}
