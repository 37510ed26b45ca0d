//! The journal in PostgreSQL: an append-only table behind one leader. Each append carries the leader's epoch and takes
//! effect only while it is in force; whoever takes over first waits for an append that is under way, then ends the
//! epoch. So a leader that was cut off, or slept, can never write again, and its successor misses nothing.
//!
//! The plane's thread is not asynchronous; this store has a small runtime of its own.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, Statement};

use super::{Archive, Batch, Recovered, Store, StoreError, Visit};
use crate::number::JobNumber;

/// Tables, made if they are not there. The number of a batch's first command is unique in its shard.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS headroom_leader (
        shard INTEGER PRIMARY KEY, epoch BIGINT NOT NULL, holder TEXT NOT NULL, url TEXT NOT NULL,
        renewed TIMESTAMPTZ NOT NULL, secret BYTEA NOT NULL, format INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS headroom_journal (
        shard INTEGER NOT NULL, first BIGINT NOT NULL, count BIGINT NOT NULL, epoch BIGINT NOT NULL, body BYTEA NOT NULL,
        PRIMARY KEY (shard, first));
    CREATE TABLE IF NOT EXISTS headroom_image (
        shard INTEGER NOT NULL, upto BIGINT NOT NULL, part INTEGER NOT NULL, parts INTEGER NOT NULL,
        body BYTEA NOT NULL, PRIMARY KEY (shard, upto, part));
    CREATE TABLE IF NOT EXISTS headroom_ended (job BIGINT PRIMARY KEY, body BYTEA NOT NULL);
";

/// Layout of the tables.
const FORMAT: i32 = 1;

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

/// An image is kept in parts of this size, bytes.
const PART_BYTES: usize = 16 << 20;

/// Batches fetched at a time.
const FETCH: i64 = 256;

/// Who leads a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Grows with every change of leader.
    pub epoch: u64,
    /// Name of the plane.
    pub holder: String,
    /// Where its API answers.
    pub url: String,
    /// Since it last said that it lives, by the database's clock.
    pub silent: Duration,
}

/// Where the database is, and which shard of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresPlace {
    /// `host=... port=... user=... dbname=...` or a `postgresql://` URL.
    pub connection: String,
    /// Shard.
    pub shard: u16,
}

impl PostgresPlace {
    async fn connect(&self) -> Result<Client, StoreError> {
        let (client, connection) =
            tokio_postgres::connect(&self.connection, NoTls).await.map_err(|error| self.failed(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!("the connection to PostgreSQL ended: {error}");
            }
        });
        Ok(client)
    }

    fn failed(&self, error: &tokio_postgres::Error) -> StoreError {
        let detail = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
        StoreError::Failed { place: self.name(), what: detail }
    }

    /// For messages: without a password.
    fn name(&self) -> String {
        format!("PostgreSQL, shard {}", self.shard)
    }

    /// Makes the tables and the shard's row where they are missing.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; [`StoreError::Format`] when a later release made the tables.
    pub async fn prepare(&self, client: &Client) -> Result<(), StoreError> {
        // Two planes that start at once would both create: one at a time.
        client.batch_execute("SELECT pg_advisory_lock(727201)").await.map_err(|error| self.failed(&error))?;
        let made = self.make_tables(client).await;
        client
            .batch_execute("SELECT pg_advisory_unlock(727201)")
            .await
            .map_err(|error| self.failed(&error))?;
        made
    }

    async fn make_tables(&self, client: &Client) -> Result<(), StoreError> {
        client.batch_execute(TABLES).await.map_err(|error| self.failed(&error))?;
        let mut secret = [0_u8; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| StoreError::Failed {
            place: self.name(),
            what: "the system gives no random bytes".to_owned(),
        })?;
        let sql = "INSERT INTO headroom_leader (shard, epoch, holder, url, renewed, secret, format)
            VALUES ($1, 0, '', '', 'epoch', $2, $3) ON CONFLICT DO NOTHING";
        let shard = i32::from(self.shard);
        client.execute(sql, &[&shard, &&secret[..], &FORMAT]).await.map_err(|error| self.failed(&error))?;
        let row = client
            .query_one("SELECT format FROM headroom_leader WHERE shard = $1", &[&shard])
            .await
            .map_err(|error| self.failed(&error))?;
        let found: i32 = row.get(0);
        if found > FORMAT {
            let (found, known) = (i64::from(found), i64::from(FORMAT));
            return Err(StoreError::Format { place: self.name(), found, known });
        }
        Ok(())
    }
}

/// Watches and takes the leadership of a shard.
pub struct Election {
    place: PostgresPlace,
    client: Client,
}

impl Election {
    /// Connects, and makes the tables where they are missing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connect(place: PostgresPlace) -> Result<Self, StoreError> {
        let client = place.connect().await?;
        place.prepare(&client).await?;
        Ok(Self { place, client })
    }

    /// Who leads now; epoch 0 is nobody.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn leader(&self) -> Result<Leader, StoreError> {
        let sql = "SELECT epoch, holder, url, EXTRACT(EPOCH FROM clock_timestamp() - renewed)::FLOAT8
            FROM headroom_leader WHERE shard = $1";
        let row = self
            .client
            .query_one(sql, &[&i32::from(self.place.shard)])
            .await
            .map_err(|error| self.place.failed(&error))?;
        let (epoch, silent): (i64, f64) = (row.get(0), row.get(3));
        Ok(Leader {
            epoch: epoch as u64,
            holder: row.get(1),
            url: row.get(2),
            silent: Duration::from_secs_f64(silent.max(0.0)),
        })
    }

    /// Ends epoch `seen` and begins the next as `holder`; `None` when another was faster.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn take(&self, seen: u64, holder: &str, url: &str) -> Result<Option<u64>, StoreError> {
        let sql =
            "UPDATE headroom_leader SET epoch = epoch + 1, holder = $3, url = $4, renewed = clock_timestamp()
            WHERE shard = $1 AND epoch = $2 RETURNING epoch";
        let rows = self
            .client
            .query(sql, &[&i32::from(self.place.shard), &(seen as i64), &holder, &url])
            .await
            .map_err(|error| self.place.failed(&error))?;
        Ok(rows.first().map(|row| row.get::<_, i64>(0) as u64))
    }

    /// Says that the leader of `epoch` lives; false when the epoch is over.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn renew(&self, epoch: u64) -> Result<bool, StoreError> {
        let sql = "UPDATE headroom_leader SET renewed = clock_timestamp() WHERE shard = $1 AND epoch = $2";
        let renewed = self
            .client
            .execute(sql, &[&i32::from(self.place.shard), &(epoch as i64)])
            .await
            .map_err(|error| self.place.failed(&error))?;
        Ok(renewed == 1)
    }

    /// Gives the leadership up, so that a standby takes over at once.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn resign(&self, epoch: u64) -> Result<(), StoreError> {
        let sql = "UPDATE headroom_leader SET renewed = 'epoch' WHERE shard = $1 AND epoch = $2";
        self.client
            .execute(sql, &[&i32::from(self.place.shard), &(epoch as i64)])
            .await
            .map_err(|error| self.place.failed(&error))?;
        Ok(())
    }
}

/// The journal of one shard, as the leader of one epoch.
pub struct PostgresStore {
    place: PostgresPlace,
    epoch: u64,
    client: Client,
    append: Statement,
    append_ended: Statement,
    secret: [u8; 32],
    runtime: Runtime,
}

impl PostgresStore {
    /// Opens the journal as the leader of `epoch`, which [`Election::take`] gave. Must not be called from within an
    /// asynchronous task.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(place: PostgresPlace, epoch: u64) -> Result<Self, StoreError> {
        // Two threads: one drives the connection while the plane's thread waits on the other.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(|error| StoreError::Failed { place: place.name(), what: error.to_string() })?;
        let opened = runtime.block_on(async {
            let client = place.connect().await?;
            let row = client
                .query_one("SELECT secret FROM headroom_leader WHERE shard = $1", &[&i32::from(place.shard)])
                .await
                .map_err(|error| place.failed(&error))?;
            let secret: Vec<u8> = row.get(0);
            let append = client.prepare(APPEND).await.map_err(|error| place.failed(&error))?;
            let append_ended = client.prepare(APPEND_ENDED).await.map_err(|error| place.failed(&error))?;
            let damaged = |_| StoreError::Damaged {
                place: place.name(),
                what: "its secret has a wrong length".to_owned(),
            };
            Ok::<_, StoreError>((client, append, append_ended, secret.try_into().map_err(damaged)?))
        });
        let (client, append, append_ended, secret) = opened?;
        Ok(Self { place, epoch, client, append, append_ended, secret, runtime })
    }

    fn batches(&mut self, from: u64, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let sql = "SELECT first, count, body FROM headroom_journal WHERE shard = $1 AND first >= $2
            ORDER BY first LIMIT $3";
        let (mut from, mut expected) = (from, None);
        loop {
            let shard = i32::from(self.place.shard);
            let rows = self
                .runtime
                .block_on(self.client.query(sql, &[&shard, &(from as i64), &FETCH]))
                .map_err(|error| self.place.failed(&error))?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                let (first, count): (i64, i64) = (row.get(0), row.get(1));
                let (first, count) = (first as u64, count as u64);
                if expected.is_some_and(|expected| expected != first) {
                    let what = format!("commands before number {first} are missing");
                    return Err(StoreError::Damaged { place: self.place.name(), what });
                }
                expected = Some(first + count);
                from = first + count;
                visit(Recovered::Batch { first, count, body: row.get(2) })?;
            }
        }
    }

    fn fenced(&self) -> StoreError {
        let sql = "SELECT epoch FROM headroom_leader WHERE shard = $1";
        let row = self.runtime.block_on(self.client.query_one(sql, &[&i32::from(self.place.shard)]));
        match row {
            Ok(row) => StoreError::Fenced { mine: self.epoch, current: row.get::<_, i64>(0) as u64 },
            Err(error) => self.place.failed(&error),
        }
    }
}

impl Store for PostgresStore {
    fn recover(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let sql = "SELECT upto, body FROM headroom_image WHERE shard = $1 AND upto =
            (SELECT MAX(upto) FROM headroom_image WHERE shard = $1) ORDER BY part";
        let rows = self
            .runtime
            .block_on(self.client.query(sql, &[&i32::from(self.place.shard)]))
            .map_err(|error| self.place.failed(&error))?;
        let mut from = 0;
        if let Some(first) = rows.first() {
            let upto = first.get::<_, i64>(0) as u64;
            let image = rows.iter().flat_map(|row| row.get::<_, &[u8]>(1)).copied().collect();
            visit(Recovered::Image { upto, image })?;
            from = upto + 1;
        }
        self.batches(from, visit)
    }

    fn history(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.batches(0, visit)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let shard = i32::from(self.place.shard);
        let (epoch, first, count) = (self.epoch as i64, batch.first as i64, batch.count as i64);
        let appended = if batch.ended.is_empty() {
            self.runtime
                .block_on(self.client.execute(&self.append, &[&shard, &epoch, &first, &count, &batch.body]))
        } else {
            let jobs: Vec<i64> = batch.ended.iter().map(|(job, _)| job.0 as i64).collect();
            let bodies: Vec<&[u8]> = batch.ended.iter().map(|(_, body)| &body[..]).collect();
            self.runtime.block_on(
                self.client.execute(
                    &self.append_ended,
                    &[&shard, &epoch, &first, &count, &batch.body, &jobs, &bodies],
                ),
            )
        };
        match appended {
            Ok(1) => Ok(()),
            Ok(_) => Err(self.fenced()),
            Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::DISK_FULL) => {
                Err(StoreError::Full { place: self.place.name() })
            }
            Err(error) => Err(self.place.failed(&error)),
        }
    }

    fn keep_image(&mut self, upto: u64, image: &[u8]) -> Result<(), StoreError> {
        let shard = i32::from(self.place.shard);
        let (epoch, upto) = (self.epoch as i64, upto as i64);
        let parts: Vec<&[u8]> =
            if image.is_empty() { vec![image] } else { image.chunks(PART_BYTES).collect() };
        let count = parts.len() as i32;
        let kept = self.runtime.block_on(async {
            let whole = self.client.transaction().await?;
            let sql = "SELECT epoch FROM headroom_leader WHERE shard = $1 AND epoch = $2 FOR SHARE";
            if whole.query(sql, &[&shard, &epoch]).await?.is_empty() {
                return Ok(false);
            }
            whole.execute("DELETE FROM headroom_image WHERE shard = $1", &[&shard]).await?;
            let sql =
                "INSERT INTO headroom_image (shard, upto, part, parts, body) VALUES ($1, $2, $3, $4, $5)";
            for (part, body) in parts.iter().enumerate() {
                whole.execute(sql, &[&shard, &upto, &(part as i32), &count, body]).await?;
            }
            whole.commit().await?;
            Ok::<_, tokio_postgres::Error>(true)
        });
        match kept {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.fenced()),
            Err(error) => Err(self.place.failed(&error)),
        }
    }

    fn archive(&self) -> Box<dyn Archive> {
        Box::new(PostgresArchive { place: self.place.clone(), open: None })
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }
}

/// Reads ended jobs of any shard.
struct PostgresArchive {
    place: PostgresPlace,
    open: Option<(Runtime, Client)>,
}

impl PostgresArchive {
    fn query(
        &mut self,
        sql: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        if self.open.as_ref().is_none_or(|(_, client)| client.is_closed()) {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("archive")
                .enable_all()
                .build()
                .map_err(|error| StoreError::Failed { place: self.place.name(), what: error.to_string() })?;
            let client = runtime.block_on(self.place.connect())?;
            self.open = Some((runtime, client));
        }
        let Some((runtime, client)) = &self.open else { return Ok(Vec::new()) };
        let rows = runtime.block_on(client.query(sql, values)).map_err(|error| self.place.failed(&error))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

impl Archive for PostgresArchive {
    fn ended(&mut self, job: JobNumber) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.query("SELECT body FROM headroom_ended WHERE job = $1", &[&(job.0 as i64)])?;
        Ok(rows.into_iter().next())
    }

    fn latest(&mut self, before: Option<JobNumber>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let below = before.map_or(i64::MAX, |job| job.0 as i64);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.query(
            "SELECT body FROM headroom_ended WHERE job < $1 ORDER BY job DESC LIMIT $2",
            &[&below, &limit],
        )
    }
}
