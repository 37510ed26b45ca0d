//! The journal in PostgreSQL: an append-only table behind one leader. Each append carries the leader's epoch and takes
//! effect only while it is in force; whoever takes over first waits for an append that is under way, then ends the
//! epoch. So a leader that was cut off, or slept, can never write again, and its successor misses nothing.
//!
//! Every change is one statement in one message: no lock outlives a connection, and no half of a change is ever seen.
//! The plane's thread is not asynchronous; this store has a small runtime of its own.

mod election;
mod place;
mod tls;

pub use election::{Election, Leader};
pub use place::PostgresPlace;

use std::time::Duration;

use policy::units::Instant;
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::{Archive, Batch, Doing, Forgotten, Mark, Portion, Recovered, Store, StoreError, Visit};
use crate::number::JobNumber;

/// The leader's row is locked against a successor until the append is committed.
const APPEND: &str = "
    WITH fence AS (SELECT epoch FROM headroom_leader WHERE shard = $1 AND epoch = $2 FOR SHARE)
    INSERT INTO headroom_journal (shard, first, count, epoch, body) SELECT $1, $3, $4, epoch, $5 FROM fence";

/// The same with jobs that ended, in one statement: one round trip, one commit.
const APPEND_ENDED: &str = "
    WITH fence AS (SELECT epoch FROM headroom_leader WHERE shard = $1 AND epoch = $2 FOR SHARE),
    ended AS (INSERT INTO headroom_ended (job, body)
        SELECT job, body FROM fence, UNNEST($6::BIGINT[], $7::BYTEA[]) AS both_(job, body))
    INSERT INTO headroom_journal (shard, first, count, epoch, body) SELECT $1, $3, $4, epoch, $5 FROM fence";

/// A part of an image. An image counts once all its parts are there.
const KEEP_PART: &str = "
    WITH fence AS (SELECT epoch FROM headroom_leader WHERE shard = $1 AND epoch = $2 FOR SHARE)
    INSERT INTO headroom_image (shard, upto, part, parts, body) SELECT $1, $3, $4, $5, $6 FROM fence
    ON CONFLICT (shard, upto, part) DO UPDATE SET parts = EXCLUDED.parts, body = EXCLUDED.body";

/// Drops all images but the one of `$3` and those that stay.
const DROP_OLDER: &str = "
    WITH fence AS (SELECT epoch FROM headroom_leader WHERE shard = $1 AND epoch = $2 FOR SHARE)
    DELETE FROM headroom_image USING fence WHERE shard = $1 AND upto <> $3
        AND upto NOT IN (SELECT upto FROM headroom_mark WHERE shard = $1)";

/// Has the image of `$3` stay.
const MARK: &str = "
    WITH fence AS (SELECT epoch FROM headroom_leader WHERE shard = $1 AND epoch = $2 FOR SHARE)
    INSERT INTO headroom_mark (shard, upto, at, ended_below) SELECT $1, $3, $4, $5 FROM fence
    ON CONFLICT (shard, upto) DO UPDATE SET at = EXCLUDED.at, ended_below = EXCLUDED.ended_below";

/// Forgets up to `$6` batches up to command `$3`, but never the last, by which a plane that slept sees what it missed; as many jobs from `$4` to below `$5`, and all earlier images.
const FORGET: &str = "
    WITH fence AS (SELECT epoch FROM headroom_leader WHERE shard = $1 AND epoch = $2 FOR SHARE),
    batches AS (DELETE FROM headroom_journal USING fence WHERE shard = $1 AND first IN
        (SELECT first FROM headroom_journal WHERE shard = $1 AND first <= $3
            AND first < (SELECT MAX(first) FROM headroom_journal WHERE shard = $1)
        ORDER BY first LIMIT $6) RETURNING first),
    jobs AS (DELETE FROM headroom_ended USING fence WHERE job IN
        (SELECT job FROM headroom_ended WHERE job >= $4 AND job < $5 ORDER BY job LIMIT $6) RETURNING job),
    images AS (DELETE FROM headroom_image USING fence WHERE shard = $1 AND upto < $3),
    marks AS (DELETE FROM headroom_mark USING fence WHERE shard = $1 AND upto < $3)
    SELECT (SELECT COUNT(*) FROM fence), (SELECT COUNT(*) FROM batches), (SELECT COUNT(*) FROM jobs)";

/// The marks whose images are whole.
const MARKS: &str = "
    SELECT upto, at, ended_below FROM headroom_mark WHERE shard = $1 AND upto IN
        (SELECT upto FROM headroom_image WHERE shard = $1 GROUP BY upto, parts HAVING COUNT(*) = parts)
    ORDER BY upto";

/// The earliest whole image from which the batches that are kept go on; none is needed where they begin with the first.
const BASE: &str = "
    WITH kept AS (SELECT COALESCE(MIN(first), 0) AS first FROM headroom_journal WHERE shard = $1)
    SELECT upto, parts FROM headroom_image, kept WHERE shard = $1 AND kept.first <> 1 AND upto + 1 >= kept.first
    GROUP BY upto, parts HAVING COUNT(*) = parts ORDER BY upto LIMIT 1";

/// The latest image that is whole.
const LATEST: &str = "
    SELECT upto, parts FROM headroom_image WHERE shard = $1
    GROUP BY upto, parts HAVING COUNT(*) = parts ORDER BY upto DESC LIMIT 1";

/// An image is kept in parts of this size, bytes.
const PART_BYTES: usize = 16 << 20;

/// Batches fetched at first; then as many as make [`FETCH_BYTES`].
const FETCH_FIRST: i64 = 64;

/// Batches fetched at a time at most.
const FETCH_MAX: i64 = 4096;

/// Bytes fetched at a time, about.
const FETCH_BYTES: usize = 16 << 20;

/// Time for a commit; a database that takes longer is as good as gone.
const APPEND_FOR: Duration = Duration::from_secs(10);

/// Time for a part of a recovery or of an image.
const PART_FOR: Duration = Duration::from_secs(60);

/// Time for a question about ended jobs.
const ARCHIVE_FOR: Duration = Duration::from_secs(10);

/// The journal of one shard, as the leader of one epoch, or as one who only reads.
pub struct PostgresStore {
    place: PostgresPlace,
    epoch: u64,
    client: Client,
    append: Statement,
    append_ended: Statement,
    secret: [u8; 32],
    portion: Portion,
    runtime: Reactor,
}

impl PostgresStore {
    /// Opens the journal as the leader of `epoch`, which [`Election::take`] gave; with epoch 0 to read only. Must not be
    /// called from within an asynchronous task.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(place: PostgresPlace, epoch: u64) -> Result<Self, StoreError> {
        let runtime = Reactor::start("postgres", &place)?;
        let opened = runtime.block_on(async {
            let client = place.connect().await?;
            let shard = i32::from(place.shard);
            let sql = "SELECT secret FROM headroom_leader WHERE shard = $1";
            let row = place.within(Doing::Opening, APPEND_FOR, client.query_one(sql, &[&shard])).await?;
            let secret: Vec<u8> = row.get(0);
            let append = place.within(Doing::Opening, APPEND_FOR, client.prepare(APPEND)).await?;
            let append_ended = place.within(Doing::Opening, APPEND_FOR, client.prepare(APPEND_ENDED)).await?;
            let what = "its secret has a wrong length".to_owned();
            let secret = secret.try_into().map_err(|_| StoreError::Damaged { place: place.name(), what })?;
            Ok::<_, StoreError>((client, append, append_ended, secret))
        });
        let (client, append, append_ended, secret) = opened?;
        let portion = Portion::FIRST;
        Ok(Self { place, epoch, client, append, append_ended, secret, portion, runtime })
    }

    /// Goes on as the leader of `epoch`, which [`Election::take`] gave.
    pub fn lead(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Gives every batch from command `from` on that is there by now.
    ///
    /// # Errors
    /// As [`Store::recover`].
    pub fn tail(&mut self, from: u64, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let sql = "SELECT first, count, body FROM headroom_journal WHERE shard = $1 AND first >= $2
            ORDER BY first LIMIT $3";
        let (mut from, mut fetch) = (from, FETCH_FIRST);
        loop {
            let rows = self.query(PART_FOR, sql, &[&self.shard(), &(from as i64), &fetch])?;
            let (count, mut bytes) = (rows.len(), 0);
            for row in rows {
                let (first, commands): (i64, i64) = (row.get(0), row.get(1));
                let (first, commands) = (first as u64, commands as u64);
                if from != first {
                    let what = format!("commands {from} to {} are missing", first - 1);
                    return Err(StoreError::Damaged { place: self.place.name(), what });
                }
                from = first + commands;
                let body: Vec<u8> = row.get(2);
                bytes += body.len();
                visit(Recovered::Batch { first, count: commands, body })?;
            }
            if (count as i64) < fetch {
                return Ok(());
            }
            fetch = (fetch * FETCH_BYTES as i64 / bytes.max(1) as i64).clamp(1, FETCH_MAX);
        }
    }

    /// Gives the image that `sql` finds, and every batch behind it; all of them where there is none.
    fn read_behind(&mut self, sql: &str, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let found = self.query(PART_FOR, sql, &[&self.shard()])?;
        let Some(found) = found.first() else { return self.tail(1, visit) };
        let (upto, parts): (i64, i32) = (found.get(0), found.get(1));
        let mut image = Vec::new();
        for part in 0..parts {
            let body = "SELECT body FROM headroom_image WHERE shard = $1 AND upto = $2 AND part = $3";
            let rows = self.query(PART_FOR, body, &[&self.shard(), &upto, &part])?;
            let Some(row) = rows.first() else {
                // A leader has just replaced it by a later one.
                return self.read_behind(sql, visit);
            };
            image.extend_from_slice(row.get(0));
        }
        visit(Recovered::Image { upto: upto as u64, image })?;
        self.tail(upto as u64 + 1, visit)
    }

    fn shard(&self) -> i32 {
        i32::from(self.place.shard)
    }

    fn query(
        &self,
        time: Duration,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        self.runtime
            .block_on(async { self.place.within(Doing::Reading, time, self.client.query(sql, values)).await })
    }

    /// Runs a fenced statement; how many rows it changed.
    fn execute(&self, time: Duration, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError> {
        self.runtime.block_on(async {
            self.place.within(Doing::Writing, time, self.client.execute(sql, values)).await
        })
    }

    /// Runs a fenced statement that writes one row.
    fn put(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<(), StoreError> {
        match self.execute(PART_FOR, sql, values)? {
            1 => Ok(()),
            _ => Err(self.fenced()),
        }
    }

    fn fenced(&self) -> StoreError {
        let sql = "SELECT epoch FROM headroom_leader WHERE shard = $1";
        match self.query(APPEND_FOR, sql, &[&self.shard()]).map(|rows| rows.first().map(|row| row.get(0))) {
            Ok(Some::<i64>(current)) => StoreError::Fenced { mine: self.epoch, current: current as u64 },
            Ok(None) => {
                let what = "the shard's row is gone from headroom_leader".to_owned();
                StoreError::Damaged { place: self.place.name(), what }
            }
            Err(error) => error,
        }
    }
}

/// Drives a connection on a thread of its own while the caller's waits. May be dropped anywhere.
struct Reactor(Option<Runtime>);

impl Reactor {
    fn start(name: &str, place: &PostgresPlace) -> Result<Self, StoreError> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| StoreError::Failed {
                doing: Doing::Opening,
                place: place.name(),
                what: error.to_string(),
            })
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("it is there until it is dropped").block_on(future)
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // A runtime that is dropped among asynchronous tasks would panic: it waits for its threads.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store for PostgresStore {
    fn recover(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.read_behind(LATEST, visit)
    }

    fn history(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.read_behind(BASE, visit)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let (shard, epoch) = (self.shard(), self.epoch as i64);
        let (first, count) = (batch.first as i64, batch.count as i64);
        let jobs: Vec<i64> = batch.ended.iter().map(|(job, _)| job.0 as i64).collect();
        let bodies: Vec<&[u8]> = batch.ended.iter().map(|(_, body)| &body[..]).collect();
        let values: [&(dyn ToSql + Sync); 7] = [&shard, &epoch, &first, &count, &batch.body, &jobs, &bodies];
        let (statement, values) =
            if jobs.is_empty() { (&self.append, &values[..5]) } else { (&self.append_ended, &values[..]) };
        let append = async {
            self.place.within(Doing::Writing, APPEND_FOR, self.client.execute(statement, values)).await
        };
        match self.runtime.block_on(append)? {
            1 => Ok(()),
            _ => Err(self.fenced()),
        }
    }

    fn keep_image(&mut self, mark: Mark, image: &[u8], stays: bool) -> Result<(), StoreError> {
        let (shard, epoch, upto) = (self.shard(), self.epoch as i64, mark.upto as i64);
        let parts: Vec<&[u8]> =
            if image.is_empty() { vec![image] } else { image.chunks(PART_BYTES).collect() };
        let count = parts.len() as i32;
        for (part, body) in parts.iter().enumerate() {
            let part = part as i32;
            self.put(KEEP_PART, &[&shard, &epoch, &upto, &part, &count, body])?;
        }
        if stays {
            let (at, below) = (mark.at.as_nanos() as i64, mark.ended_below.0 as i64);
            self.put(MARK, &[&shard, &epoch, &upto, &at, &below])?;
        }
        self.execute(PART_FOR, DROP_OLDER, &[&shard, &epoch, &upto]).map(drop)
    }

    fn marks(&mut self) -> Result<Vec<Mark>, StoreError> {
        let rows = self.query(PART_FOR, MARKS, &[&self.shard()])?;
        let number = |row: &tokio_postgres::Row, at: usize| row.get::<_, i64>(at) as u64;
        let mark = |row: &tokio_postgres::Row| Mark {
            upto: number(row, 0),
            at: Instant::from_nanos(number(row, 1)),
            ended_below: JobNumber(number(row, 2)),
        };
        Ok(rows.iter().map(mark).collect())
    }

    fn forget(&mut self, mark: Mark, limit: usize) -> Result<Forgotten, StoreError> {
        let (shard, epoch, upto) = (self.shard(), self.epoch as i64, mark.upto as i64);
        let (low, below) = (JobNumber::new(self.place.shard, 0).0 as i64, mark.ended_below.0 as i64);
        let (began, limit) = (std::time::Instant::now(), self.portion.within(limit) as i64);
        let values: [&(dyn ToSql + Sync); 6] = [&shard, &epoch, &upto, &low, &below, &limit];
        let forget =
            async { self.place.within(Doing::Writing, PART_FOR, self.client.query(FORGET, &values)).await };
        let rows = self.runtime.block_on(forget)?;
        let count = |at: usize| rows.first().map_or(0, |row| row.get::<_, i64>(at) as u64);
        self.portion.took(began.elapsed());
        let (batches, jobs) = (count(1), count(2));
        let is_all = batches < limit as u64 && jobs < limit as u64;
        match count(0) {
            1 => Ok(Forgotten { batches, jobs, is_all }),
            _ => Err(self.fenced()),
        }
    }

    fn archive(&self) -> Box<dyn Archive> {
        Box::new(PostgresArchive { place: self.place.clone(), open: None })
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }
}

/// Reads ended jobs of its shard.
struct PostgresArchive {
    place: PostgresPlace,
    open: Option<(Reactor, Client)>,
}

impl PostgresArchive {
    fn query(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Vec<u8>>, StoreError> {
        if self.open.as_ref().is_none_or(|(_, client)| client.is_closed()) {
            self.open = None;
            let runtime = Reactor::start("archive", &self.place)?;
            let client = runtime.block_on(self.place.connect())?;
            self.open = Some((runtime, client));
        }
        let Some((runtime, client)) = &self.open else { return Ok(Vec::new()) };
        let query = async { self.place.within(Doing::Asking, ARCHIVE_FOR, client.query(sql, values)).await };
        let rows = runtime.block_on(query).inspect_err(|_| self.open = None)?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

impl Archive for PostgresArchive {
    fn ended(&mut self, job: JobNumber) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.query("SELECT body FROM headroom_ended WHERE job = $1", &[&(job.0 as i64)])?;
        Ok(rows.into_iter().next())
    }

    fn latest(&mut self, before: Option<JobNumber>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let (low, high) = (JobNumber::new(self.place.shard, 0), JobNumber::new(self.place.shard, u64::MAX));
        let high = before.map_or(high, |before| before.min(high));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.query(
            "SELECT body FROM headroom_ended WHERE job >= $1 AND job < $2 ORDER BY job DESC LIMIT $3",
            &[&(low.0 as i64), &(high.0 as i64), &limit],
        )
    }
}
