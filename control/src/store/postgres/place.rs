//! Where the database is, how to connect to it, and the tables in it.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, NoTls};

use super::tls::Secure;
use crate::store::{Doing, StoreError};

/// Tables, made if they are not there. The number of a batch's first command is unique in its shard.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS headroom_setup (
        one BOOLEAN PRIMARY KEY CHECK (one), shards INTEGER NOT NULL, format INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS headroom_leader (
        shard INTEGER PRIMARY KEY, epoch BIGINT NOT NULL, holder TEXT NOT NULL, url TEXT NOT NULL,
        renewed TIMESTAMPTZ NOT NULL, secret BYTEA NOT NULL);
    CREATE TABLE IF NOT EXISTS headroom_journal (
        shard INTEGER NOT NULL, first BIGINT NOT NULL, count BIGINT NOT NULL, epoch BIGINT NOT NULL, body BYTEA NOT NULL,
        PRIMARY KEY (shard, first));
    CREATE TABLE IF NOT EXISTS headroom_image (
        shard INTEGER NOT NULL, upto BIGINT NOT NULL, part INTEGER NOT NULL, parts INTEGER NOT NULL,
        body BYTEA NOT NULL, PRIMARY KEY (shard, upto, part));
    CREATE TABLE IF NOT EXISTS headroom_mark (
        shard INTEGER NOT NULL, upto BIGINT NOT NULL, at BIGINT NOT NULL, ended_below BIGINT NOT NULL,
        PRIMARY KEY (shard, upto));
    CREATE TABLE IF NOT EXISTS headroom_ended (job BIGINT PRIMARY KEY, body BYTEA NOT NULL);
";

/// What every session relies on: commits are on disk when they are answered, and a statement that waited for a row sees
/// it as it has become.
const SESSION: &str = "
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
    SET default_transaction_isolation = 'read committed';
    SET idle_in_transaction_session_timeout = '3s';
";

/// Layout of the tables.
const FORMAT: i32 = 1;

/// Time for a connection to be there.
const CONNECT_FOR: Duration = Duration::from_secs(3);

/// A connection whose packets nobody acknowledges for so long is gone.
const UNHEARD_FOR: Duration = Duration::from_secs(5);

/// Where the database is, and which shard of it is meant.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresPlace {
    /// `host=... port=... user=... dbname=...` or a `postgresql://` URL; several hosts are tried in turn. A password that
    /// it does not hold is taken from `PGPASSWORD`.
    pub connection: String,
    /// Shard.
    pub shard: u16,
    /// Shards in all; the same in every plane, and for ever.
    pub shards: u16,
}

impl std::fmt::Debug for PostgresPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connection may hold a password.
        f.write_str(&self.name())
    }
}

impl PostgresPlace {
    /// A connection that does not hang: a database that is not heard makes an error within seconds.
    pub(super) async fn connect(&self) -> Result<Client, StoreError> {
        let mut config: tokio_postgres::Config =
            self.connection.parse().map_err(|error| self.failed(Doing::Opening, &error))?;
        config.connect_timeout(CONNECT_FOR).tcp_user_timeout(UNHEARD_FOR);
        config.keepalives_idle(Duration::from_secs(2)).keepalives_interval(Duration::from_secs(1));
        config.keepalives_retries(3);
        if config.get_password().is_none()
            && let Some(password) = std::env::var_os("PGPASSWORD")
        {
            config.password(password.as_encoded_bytes());
        }
        // Behind a list of hosts only the one that takes writes will do.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("headroom");
        }
        // Verified or not at all: what cannot be trusted is no better than plain.
        let secure = match config.get_ssl_mode() {
            SslMode::Require => Some(Secure::new().map_err(|what| {
                let (doing, place) = (Doing::Opening, self.name());
                StoreError::Failed { doing, place, what }
            })?),
            _ => {
                config.ssl_mode(SslMode::Disable);
                None
            }
        };
        let connect = async {
            let client = match secure {
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    tokio::spawn(drive(connection));
                    client
                }
                Some(secure) => {
                    let (client, connection) = config.connect(secure).await?;
                    tokio::spawn(drive(connection));
                    client
                }
            };
            client.batch_execute(SESSION).await?;
            Ok(client)
        };
        self.within(Doing::Opening, CONNECT_FOR * 2, connect).await
    }

    /// What the database answers, if it does in time.
    pub(super) async fn within<T>(
        &self,
        doing: Doing,
        time: Duration,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(time, answer).await {
            Ok(answer) => answer.map_err(|error| self.failed(doing, &error)),
            Err(_) => {
                let what = format!("no answer within {time:?}");
                Err(StoreError::Failed { doing, place: self.name(), what })
            }
        }
    }

    pub(super) fn failed(&self, doing: Doing, error: &tokio_postgres::Error) -> StoreError {
        use std::error::Error as _;
        if error.code() == Some(&tokio_postgres::error::SqlState::DISK_FULL) {
            return StoreError::Full { place: self.name() };
        }
        let detail = match error.as_db_error() {
            Some(detail) => detail.to_string(),
            None => error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
        };
        StoreError::Failed { doing, place: self.name(), what: detail }
    }

    /// For messages: without a password.
    pub(super) fn name(&self) -> String {
        format!("PostgreSQL, shard {} of {}", self.shard, self.shards)
    }

    /// Makes the tables and the shard's row where they are missing.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; [`StoreError::Format`] when a later release made the tables.
    pub(super) async fn prepare(&self, client: &Client) -> Result<(), StoreError> {
        let doing = Doing::Opening;
        let failed = |what: String| StoreError::Failed { doing, place: self.name(), what };
        if self.shard >= self.shards {
            let what = format!("there is no shard {}: shards count from 0", self.shard);
            return Err(failed(what));
        }
        let mut secret = [0_u8; 32];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| failed("the system gives no random bytes".to_owned()))?;
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let (shard, shards) = (self.shard, self.shards);
        // One message is one transaction, whatever becomes of this side: planes that start at once go one by one, and
        // none holds the lock while the network is away.
        let make = format!(
            "SELECT pg_advisory_xact_lock(727201); {TABLES}
             INSERT INTO headroom_setup VALUES (TRUE, {shards}, {FORMAT}) ON CONFLICT DO NOTHING;
             INSERT INTO headroom_leader (shard, epoch, holder, url, renewed, secret)
                VALUES ({shard}, 0, '', '', 'epoch', decode('{secret}', 'hex')) ON CONFLICT DO NOTHING;"
        );
        let prepare = async {
            client.batch_execute("SET client_min_messages = 'warning'").await?;
            client.batch_execute(&make).await?;
            client.query_one("SELECT shards, format FROM headroom_setup", &[]).await
        };
        let row = self.within(Doing::Opening, CONNECT_FOR * 4, prepare).await?;
        let (made_for, found): (i32, i32) = (row.get(0), row.get(1));
        if found > FORMAT {
            let (found, known) = (i64::from(found), i64::from(FORMAT));
            return Err(StoreError::Format { place: self.name(), found, known });
        }
        if made_for != i32::from(shards) {
            let what = format!("this database was made for {made_for} shards; give --shards {made_for}");
            return Err(failed(what));
        }
        Ok(())
    }
}

/// Carries a connection's bytes until it ends.
async fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::warn!("the connection to PostgreSQL ended: {error}");
    }
}
