//! The journal in SQLite: write-ahead log, synced at each commit. One row per batch, so that the cost of a commit does
//! not grow with the jobs in it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use policy::units::Instant;
use ring::rand::{SecureRandom, SystemRandom};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use super::checkpoint::{Checkpointer, LOG_PAGES_MAX, reserve_log};
use super::{Archive, Batch, Doing, Forgotten, Mark, Portion, Recovered, Store, StoreError, Visit};
use crate::number::JobNumber;

/// Format of the tables; each step of [`MIGRATIONS`] leads to the next.
const FORMAT: i64 = MIGRATIONS.len() as i64;

/// From each format to the next, beginning with an empty file.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE journal (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE image (upto INTEGER NOT NULL, part INTEGER NOT NULL, parts INTEGER NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (upto, part));
    CREATE TABLE ended (job INTEGER PRIMARY KEY, body BLOB NOT NULL);
",
    "
    CREATE TABLE mark (upto INTEGER PRIMARY KEY, at INTEGER NOT NULL, ended_below INTEGER NOT NULL);
",
];

/// How long one connection waits for another.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(5);

/// An image is kept in parts of this size, bytes.
const PART_BYTES: usize = 16 << 20;

/// A journal in a folder.
pub struct SqliteStore {
    /// Before the lock, which nobody else may have while it works. None where the journal is only read.
    checkpointer: Option<Checkpointer>,
    connection: Connection,
    file: PathBuf,
    secret: [u8; 32],
    portion: Portion,
    /// Held as long as the plane lives: one plane per folder. None where the journal is only read.
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the journal in `folder`, making both if need be, and bringing older formats up to date.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another plane holds it, [`StoreError::Format`] for a later release's,
    /// [`StoreError::Damaged`] or [`StoreError::Failed`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let place = folder.display().to_string();
        let doing = Doing::Opening;
        let failed = |what: String| StoreError::Failed { doing, place: place.clone(), what };
        std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
            .map_err(|error| failed(error.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { place }),
            Err(TryLockError::Error(error)) => return Err(failed(error.to_string())),
        }
        let file = folder.join("journal.sqlite");
        let connection = Connection::open(&file).map_err(|error| refused(Doing::Opening, &file, &error))?;
        let tune = format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = {LOG_PAGES_MAX}; PRAGMA cache_size = -16384;"
        );
        connection.busy_timeout(BUSY_MAX).map_err(|error| failed(error.to_string()))?;
        connection.execute_batch(&tune).map_err(|error| refused(Doing::Opening, &file, &error))?;
        let mut store = Self {
            checkpointer: None,
            connection,
            file,
            secret: [0; 32],
            portion: Portion::FIRST,
            _lock: Some(lock),
        };
        store.migrate()?;
        store.secret = store.read_secret()?;
        let log = store.file.with_extension("sqlite-wal");
        if let Err(error) = reserve_log(&store.connection, &log) {
            // It costs time, no more; if the disk is full, the first commit says so.
            tracing::warn!("reserving room for the journal's log: {error}");
        }
        store.checkpointer = Some(Checkpointer::start(&store.file).map_err(failed)?);
        Ok(store)
    }

    /// Opens the journal in `folder`, or the file itself, to be read beside a plane that may be writing it. What it gives
    /// is the journal at one moment; nothing can be appended.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where there is none, [`StoreError::Format`] for another release's, or
    /// [`StoreError::Damaged`].
    pub fn read(folder: &Path) -> Result<Self, StoreError> {
        let file = if folder.is_dir() { folder.join("journal.sqlite") } else { folder.to_owned() };
        let place = file.display().to_string();
        if !file.is_file() {
            let what = "there is no such file".to_owned();
            return Err(StoreError::Failed { doing: Doing::Opening, place, what });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&file, flags)
            .map_err(|error| refused(Doing::Opening, &file, &error))?;
        connection.busy_timeout(BUSY_MAX).map_err(|error| refused(Doing::Opening, &file, &error))?;
        let found: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|error| refused(Doing::Opening, &file, &error))?;
        // What is read here is the same in every format.
        if !(1..=FORMAT).contains(&found) {
            return Err(StoreError::Format { place, found, known: FORMAT });
        }
        let secret: Vec<u8> = connection
            .query_row("SELECT value FROM meta WHERE name = 'secret'", [], |row| row.get(0))
            .map_err(|error| refused(Doing::Opening, &file, &error))?;
        let damaged = StoreError::Damaged { place, what: "its secret has a wrong length".to_owned() };
        let secret = secret.try_into().map_err(|_| damaged)?;
        Ok(Self { checkpointer: None, connection, file, secret, portion: Portion::FIRST, _lock: None })
    }

    fn migrate(&mut self) -> Result<(), StoreError> {
        let file = self.file.clone();
        let found: i64 = self
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|error| refused(Doing::Opening, &file, &error))?;
        if !(0..=FORMAT).contains(&found) {
            return Err(StoreError::Format { place: file.display().to_string(), found, known: FORMAT });
        }
        for (step, sql) in MIGRATIONS.iter().enumerate().skip(found as usize) {
            let whole = || -> rusqlite::Result<()> {
                let transaction = self.connection.unchecked_transaction()?;
                transaction.execute_batch(sql)?;
                transaction.pragma_update(None, "user_version", step as i64 + 1)?;
                transaction.commit()
            };
            whole().map_err(|error| refused(Doing::Opening, &file, &error))?;
        }
        Ok(())
    }

    fn read_secret(&self) -> Result<[u8; 32], StoreError> {
        let found: Option<Vec<u8>> = self
            .connection
            .query_row("SELECT value FROM meta WHERE name = 'secret'", [], |row| row.get(0))
            .optional()
            .map_err(|error| refused(Doing::Opening, &self.file, &error))?;
        if let Some(found) = found {
            return found.try_into().map_err(|_| self.damaged("its secret has a wrong length"));
        }
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| StoreError::Failed {
            doing: Doing::Opening,
            place: self.file.display().to_string(),
            what: "the system gives no random bytes".to_owned(),
        })?;
        self.connection
            .execute("INSERT INTO meta (name, value) VALUES ('secret', ?1)", params![&secret[..]])
            .map_err(|error| refused(Doing::Opening, &self.file, &error))?;
        Ok(secret)
    }

    /// Tells the thread that empties the log.
    fn wrote(&mut self, bytes: u64) {
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.wrote(bytes, &self.connection);
        }
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { place: self.file.display().to_string(), what: what.to_owned() }
    }

    fn image(&self, upto: i64, parts: i64, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut image = Vec::new();
        for part in 0..parts {
            let body: Vec<u8> = self
                .connection
                .query_row(
                    "SELECT body FROM image WHERE upto = ?1 AND part = ?2",
                    params![upto, part],
                    |row| row.get(0),
                )
                .optional()
                .map_err(|error| refused(Doing::Reading, &self.file, &error))?
                .ok_or_else(|| self.damaged(&format!("part {part} of image {upto} is missing")))?;
            image.extend_from_slice(&body);
        }
        visit(Recovered::Image { upto: upto as u64, image })
    }

    fn batches(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let err = |error: rusqlite::Error| refused(Doing::Reading, &self.file, &error);
        let mut query = self
            .connection
            .prepare("SELECT first, count, body FROM journal WHERE first >= ?1 ORDER BY first")
            .map_err(err)?;
        let mut rows = query.query(params![from as i64]).map_err(err)?;
        let mut expected = None;
        while let Some(row) = rows.next().map_err(err)? {
            let (first, count): (i64, i64) = (row.get(0).map_err(err)?, row.get(1).map_err(err)?);
            let (first, count) = (first as u64, count as u64);
            if expected.is_some_and(|expected| expected != first) {
                return Err(self.damaged(&format!("commands before number {first} are missing")));
            }
            expected = Some(first + count);
            visit(Recovered::Batch { first, count, body: row.get(2).map_err(err)? })?;
        }
        Ok(())
    }
}

impl Store for SqliteStore {
    fn recover(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let err = |error: rusqlite::Error| refused(Doing::Reading, &self.file, &error);
        let latest: Option<(i64, i64)> = self
            .connection
            .query_row("SELECT upto, parts FROM image ORDER BY upto DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .map_err(err)?;
        let Some((upto, parts)) = latest else { return self.batches(0, visit) };
        self.image(upto, parts, visit)?;
        self.batches(upto as u64 + 1, visit)
    }

    fn history(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let err = |error: rusqlite::Error| refused(Doing::Reading, &self.file, &error);
        // A plane that forgets meanwhile must not be seen to.
        let moment = self.connection.unchecked_transaction().map_err(err)?;
        let first: Option<i64> =
            moment.query_row("SELECT MIN(first) FROM journal", [], |row| row.get(0)).map_err(err)?;
        let base: Option<(i64, i64)> = match first {
            Some(1) => None,
            first => moment
                .query_row(
                    "SELECT upto, parts FROM image WHERE upto + 1 >= ?1 ORDER BY upto LIMIT 1",
                    params![first.unwrap_or(0)],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()
                .map_err(err)?,
        };
        let Some((upto, parts)) = base else { return self.batches(0, visit) };
        self.image(upto, parts, visit)?;
        self.batches(upto as u64 + 1, visit)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let connection = &self.connection;
        let rows = || -> rusqlite::Result<()> {
            connection
                .prepare_cached("INSERT INTO journal (first, count, body) VALUES (?1, ?2, ?3)")?
                .execute(params![batch.first as i64, batch.count as i64, batch.body])?;
            if !batch.ended.is_empty() {
                let mut keep = connection.prepare_cached("INSERT INTO ended (job, body) VALUES (?1, ?2)")?;
                for (job, body) in &batch.ended {
                    keep.execute(params![job.0 as i64, body])?;
                }
            }
            Ok(())
        };
        transact(connection, rows).map_err(|error| refused(Doing::Writing, &self.file, &error))?;
        let ended: usize = batch.ended.iter().map(|(_, body)| body.len()).sum();
        self.wrote((batch.body.len() + ended) as u64);
        Ok(())
    }

    fn keep_image(&mut self, mark: Mark, image: &[u8], stays: bool) -> Result<(), StoreError> {
        let upto = mark.upto as i64;
        let whole = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            let older = "DELETE FROM image WHERE upto = ?1 OR upto NOT IN (SELECT upto FROM mark)";
            transaction.execute(older, params![upto])?;
            let parts = image.len().div_ceil(PART_BYTES).max(1);
            let mut keep = transaction
                .prepare_cached("INSERT INTO image (upto, part, parts, body) VALUES (?1, ?2, ?3, ?4)")?;
            for part in 0..parts {
                let end = ((part + 1) * PART_BYTES).min(image.len());
                let body = &image[part * PART_BYTES..end];
                keep.execute(params![upto, part as i64, parts as i64, body])?;
            }
            drop(keep);
            if stays {
                let sql = "INSERT OR REPLACE INTO mark (upto, at, ended_below) VALUES (?1, ?2, ?3)";
                let (at, below) = (mark.at.as_nanos() as i64, mark.ended_below.0 as i64);
                transaction.execute(sql, params![upto, at, below])?;
            }
            transaction.commit()
        };
        whole().map_err(|error| refused(Doing::Writing, &self.file, &error))?;
        self.wrote(image.len() as u64);
        Ok(())
    }

    fn marks(&mut self) -> Result<Vec<Mark>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Mark>> {
            let sql = "SELECT upto, at, ended_below FROM mark ORDER BY upto";
            let mut query = self.connection.prepare(sql)?;
            let rows = query.query_map([], |row| {
                let (upto, at, below): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let at = Instant::from_nanos(at as u64);
                Ok(Mark { upto: upto as u64, at, ended_below: JobNumber(below as u64) })
            })?;
            rows.collect()
        };
        read().map_err(|error| refused(Doing::Reading, &self.file, &error))
    }

    fn forget(&mut self, mark: Mark, limit: usize) -> Result<Forgotten, StoreError> {
        let (began, limit) = (std::time::Instant::now(), self.portion.within(limit) as i64);
        let (upto, below) = (mark.upto as i64, mark.ended_below.0 as i64);
        let whole = || -> rusqlite::Result<(Forgotten, u64)> {
            let transaction = self.connection.unchecked_transaction()?;
            let drop_rows = |sql: &str, bound: i64| -> rusqlite::Result<(u64, u64)> {
                let mut query = transaction.prepare_cached(sql)?;
                let mut rows = query.query(params![bound, limit])?;
                let (mut count, mut bytes) = (0, 0);
                while let Some(row) = rows.next()? {
                    count += 1;
                    bytes += row.get::<_, i64>(0)? as u64;
                }
                Ok((count, bytes))
            };
            let batches = drop_rows(
                "DELETE FROM journal WHERE first IN
                    (SELECT first FROM journal WHERE first <= ?1 ORDER BY first LIMIT ?2) RETURNING LENGTH(body)",
                upto,
            )?;
            let jobs = drop_rows(
                "DELETE FROM ended WHERE job IN (SELECT job FROM ended WHERE job < ?1 ORDER BY job LIMIT ?2)
                    RETURNING LENGTH(body)",
                below,
            )?;
            transaction.execute("DELETE FROM image WHERE upto < ?1", params![upto])?;
            transaction.execute("DELETE FROM mark WHERE upto < ?1", params![upto])?;
            transaction.commit()?;
            let is_all = batches.0 < limit as u64 && jobs.0 < limit as u64;
            Ok((Forgotten { batches: batches.0, jobs: jobs.0, is_all }, batches.1 + jobs.1))
        };
        let (forgotten, bytes) = whole().map_err(|error| refused(Doing::Writing, &self.file, &error))?;
        self.portion.took(began.elapsed());
        self.wrote(bytes);
        Ok(forgotten)
    }

    fn archive(&self) -> Box<dyn Archive> {
        Box::new(SqliteArchive { file: self.file.clone(), connection: None })
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }
}

/// Reads ended jobs beside the plane that writes them.
struct SqliteArchive {
    file: PathBuf,
    connection: Option<Connection>,
}

impl SqliteArchive {
    fn connection(&mut self) -> rusqlite::Result<&Connection> {
        if self.connection.is_none() {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.file, flags)?;
            connection.busy_timeout(BUSY_MAX)?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_ref().expect("it was just opened"))
    }
}

impl Archive for SqliteArchive {
    fn ended(&mut self, job: JobNumber) -> Result<Option<Vec<u8>>, StoreError> {
        let file = self.file.clone();
        let mut find = || {
            self.connection()?
                .prepare_cached("SELECT body FROM ended WHERE job = ?1")?
                .query_row(params![job.0 as i64], |row| row.get(0))
                .optional()
        };
        find().map_err(|error| refused(Doing::Asking, &file, &error))
    }

    fn latest(&mut self, before: Option<JobNumber>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let file = self.file.clone();
        let below = before.map_or(i64::MAX, |job| job.0 as i64);
        let mut find = || {
            let mut query = self
                .connection()?
                .prepare_cached("SELECT body FROM ended WHERE job < ?1 ORDER BY job DESC LIMIT ?2")?;
            let rows = query.query_map(params![below, limit as i64], |row| row.get(0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        find().map_err(|error| refused(Doing::Asking, &file, &error))
    }
}

/// Runs `rows` in a transaction. SQLite parses its beginning and end once, not for each commit as
/// [`Connection::unchecked_transaction`] has it do.
fn transact(connection: &Connection, rows: impl FnOnce() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let done = rows().and_then(|()| connection.prepare_cached("COMMIT")?.execute([]));
    if done.is_err() && !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    done.map(drop)
}

fn refused(doing: Doing, file: &Path, error: &rusqlite::Error) -> StoreError {
    let (place, what) = (file.display().to_string(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged { place, what },
        // What only reads needs no room.
        Some(ErrorCode::DiskFull) if matches!(doing, Doing::Opening | Doing::Writing) => {
            StoreError::Full { place }
        }
        _ => StoreError::Failed { doing, place, what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_was_being_done() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let mut archive = store.archive();
        let text = |error: StoreError| error.to_string();
        // Somebody takes the tables away beneath it.
        store.connection.execute_batch("DROP TABLE journal; DROP TABLE image; DROP TABLE ended;").unwrap();
        let batch = Batch { first: 1, count: 1, body: vec![1], ended: Vec::new() };
        let mark = Mark { upto: 1, at: Instant::START, ended_below: JobNumber(1) };
        for (said, doing) in [
            (text(store.append(&batch).unwrap_err()), "writing the journal"),
            (text(store.keep_image(mark, b"image", true).unwrap_err()), "writing the journal"),
            (text(store.forget(mark, 1).unwrap_err()), "writing the journal"),
            (text(store.recover(&mut |_| Ok(())).unwrap_err()), "reading the journal"),
            (text(store.history(&mut |_| Ok(())).unwrap_err()), "reading the journal"),
            (text(archive.ended(JobNumber(1)).unwrap_err()), "reading the ended jobs"),
            (text(archive.latest(None, 1).unwrap_err()), "reading the ended jobs"),
            (text(SqliteStore::read(&folder.path().join("none")).err().unwrap()), "opening the journal"),
        ] {
            assert!(said.starts_with(&format!("{doing} at {}", folder.path().display())), "{said}");
        }
    }

    #[test]
    fn a_journal_of_the_format_before_is_read_as_it_is_and_brought_up_by_a_plane() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        store.append(&Batch { first: 1, count: 1, body: vec![1], ended: Vec::new() }).unwrap();
        store.connection.execute_batch("DROP TABLE mark; PRAGMA user_version = 1").unwrap();
        drop(store);
        let batches = |store: &mut SqliteStore| {
            let mut count = 0;
            let counted = store.history(&mut |_| {
                count += 1;
                Ok(())
            });
            counted.map(|()| count)
        };
        let mut read = SqliteStore::read(folder.path()).unwrap();
        assert_eq!(batches(&mut read).unwrap(), 1);
        assert!(read.marks().is_err(), "nothing was changed");
        drop(read);
        let mut store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!((batches(&mut store).unwrap(), store.marks().unwrap()), (1, Vec::new()));
    }
}
