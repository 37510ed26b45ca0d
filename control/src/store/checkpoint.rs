//! Moves what SQLite's write-ahead log holds to the database file, in a thread of its own: a commit that did it would
//! stand still for as long as the disk takes to write some megabytes. The little that comes in meanwhile is the writer's,
//! who then begins the log anew: nobody else would find a moment without a writer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

/// Bytes of the log after which it begins again at its start.
pub(super) const LOG_BYTES: u64 = 16 << 20;

/// Pages after which commits move the log themselves, should the thread be stuck: 256 MiB.
pub(super) const LOG_PAGES_MAX: u32 = 65_536;

/// How long the writer waits for readers of the log before it begins anew; those that hold it up longer get another round.
const READERS_MAX: Duration = Duration::from_millis(20);

/// What a commit costs in the log beside its bytes: parts of pages at both ends, and the tables' own pages.
const COMMIT_OVERHEAD: u64 = 4 * 4096;

/// The thread, as the writer sees it.
pub(super) struct Checkpointer {
    due: Option<SyncSender<()>>,
    /// All but the latest commits are moved.
    moved: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// About how much the log holds since the thread was last woken, bytes.
    written: u64,
}

impl Checkpointer {
    /// Starts the thread for the database `file`.
    ///
    /// # Errors
    /// SQLite's, or the system's where it gives no thread.
    pub(super) fn start(file: &Path) -> Result<Self, String> {
        let connection = Connection::open(file).map_err(|error| error.to_string())?;
        let (due, receiver) = sync_channel(1);
        let (moved, name) = (Arc::new(AtomicBool::new(false)), "checkpoints".to_owned());
        let says = moved.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || run(&connection, &receiver, &says));
        let thread = Some(thread.map_err(|error| error.to_string())?);
        Ok(Self { due: Some(due), moved, thread, written: 0 })
    }

    /// Notes a commit of so many bytes through the writer's connection, and begins the log anew when it is time.
    pub(super) fn wrote(&mut self, bytes: u64, writer: &Connection) {
        if self.moved.swap(false, Ordering::AcqRel) {
            let begin_anew = || {
                writer.busy_timeout(READERS_MAX)?;
                let moved = checkpoint(writer, "RESTART");
                writer.busy_timeout(super::sqlite::BUSY_MAX)?;
                moved
            };
            told(begin_anew());
        }
        self.written += bytes + COMMIT_OVERHEAD;
        if self.written >= LOG_BYTES
            && let Some(due) = &self.due
            && due.try_send(()).is_ok()
        {
            self.written = 0;
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.due = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, due: &Receiver<()>, moved: &AtomicBool) {
    while due.recv().is_ok() {
        told(checkpoint(connection, "PASSIVE"));
        moved.store(true, Ordering::Release);
    }
}

/// Whether somebody was in the way, the pages of the log, and how many of them are moved.
type Moved = (i64, i64, i64);

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Moved> {
    let ask = format!("PRAGMA wal_checkpoint({mode})");
    connection.query_row(&ask, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}

fn told(moved: rusqlite::Result<Moved>) {
    match moved {
        Ok((busy, pages, moved)) => tracing::debug!(busy, pages, moved, "moved the journal's log"),
        Err(error) => tracing::warn!("moving the journal's log: {error}; it is tried again"),
    }
}

/// Makes the log as long as it gets, so that commits overwrite what is there: one that makes the file longer waits for the
/// file system's own journal too.
///
/// # Errors
/// SQLite's.
pub(super) fn reserve_log(connection: &Connection, log: &Path) -> rusqlite::Result<()> {
    if std::fs::metadata(log).is_ok_and(|known| known.len() >= LOG_BYTES) {
        return Ok(());
    }
    connection.execute_batch(&format!(
        "DROP TABLE IF EXISTS filler;
         BEGIN;
         CREATE TABLE filler (body BLOB NOT NULL);
         INSERT INTO filler VALUES (zeroblob({LOG_BYTES}));
         COMMIT;
         DROP TABLE filler;"
    ))?;
    checkpoint(connection, "RESTART").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, Recovered, SqliteStore, Store};
    use super::*;

    #[test]
    fn the_log_is_as_long_at_the_start_as_after_much_work_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("journal.sqlite-wal");
        let length = || std::fs::metadata(&log).unwrap().len();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let reserved = length();
        assert!(reserved >= LOG_BYTES, "{reserved} bytes");
        let count = 800;
        for first in 1..=count {
            let body = vec![first as u8; 128 << 10];
            store.append(&Batch { first, count: 1, body, ended: Vec::new() }).unwrap();
        }
        // 100 MiB went through it.
        assert!(length() < 4 * LOG_BYTES, "{} bytes", length());
        drop(store);
        let mut read = 0;
        let mut visit = |recovered: Recovered| {
            let Recovered::Batch { first, body, .. } = recovered else { panic!("there is no image") };
            read += 1;
            assert_eq!((first, body.len(), body[0]), (read, 128 << 10, first as u8));
            Ok(())
        };
        SqliteStore::open(folder.path()).unwrap().recover(&mut visit).unwrap();
        assert_eq!(read, count);
    }

    #[test]
    fn a_log_that_was_kept_is_not_filled_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let log = folder.path().join("journal.sqlite-wal");
        let before = std::fs::metadata(&log).unwrap().modified().unwrap();
        let beside = Connection::open(folder.path().join("journal.sqlite")).unwrap();
        reserve_log(&beside, &log).unwrap();
        assert_eq!(std::fs::metadata(&log).unwrap().modified().unwrap(), before);
        drop(store);
    }
}
