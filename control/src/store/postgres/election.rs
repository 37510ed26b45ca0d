//! Who leads a shard: one row per shard with an epoch that grows with every change of leader. Whoever takes over waits
//! for an append that is under way; after that no append of an earlier epoch can come.

use std::time::Duration;

use tokio_postgres::Client;

use super::place::PostgresPlace;
use crate::store::{Doing, StoreError};

/// Time for an answer; beyond, the connection is given up.
const ANSWER_FOR: Duration = Duration::from_secs(2);

/// Time for taking over: an append may be under way.
const TAKE_FOR: Duration = Duration::from_secs(8);

/// Who leads a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The shard.
    pub shard: u16,
    /// Grows with every change of leader; 0 before the first.
    pub epoch: u64,
    /// Name of the plane.
    pub holder: String,
    /// Where its API answers.
    pub url: String,
    /// Since it last said that it lives, by the database's clock; ages after it resigned.
    pub silent: Duration,
}

/// Watches and takes the leadership of shards.
pub struct Election {
    place: PostgresPlace,
    client: Client,
}

impl Election {
    /// Connects, and makes the tables and the row of the place's shard where they are missing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connect(place: PostgresPlace) -> Result<Self, StoreError> {
        let election = Self::reconnect(place).await?;
        election.place.prepare(&election.client).await?;
        Ok(election)
    }

    /// Connects where the tables are known to be there.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn reconnect(place: PostgresPlace) -> Result<Self, StoreError> {
        let client = place.connect().await?;
        Ok(Self { place, client })
    }

    /// Who leads which shard now, by shard; a shard that no plane ever stood by for is missing.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn leaders(&self) -> Result<Vec<Leader>, StoreError> {
        let sql = "SELECT shard, epoch, holder, url, EXTRACT(EPOCH FROM clock_timestamp() - renewed)::FLOAT8
            FROM headroom_leader ORDER BY shard";
        let rows = self.place.within(Doing::Electing, ANSWER_FOR, self.client.query(sql, &[])).await?;
        let leader = |row: &tokio_postgres::Row| {
            let (shard, epoch, silent): (i32, i64, f64) = (row.get(0), row.get(1), row.get(4));
            let silent = Duration::from_secs_f64(silent.clamp(0.0, 1e12));
            Leader { shard: shard as u16, epoch: epoch as u64, holder: row.get(2), url: row.get(3), silent }
        };
        Ok(rows.iter().map(leader).collect())
    }

    /// Who leads the place's shard now; epoch 0 is nobody.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn leader(&self) -> Result<Leader, StoreError> {
        let found = self.leaders().await?.into_iter().find(|leader| leader.shard == self.place.shard);
        found.ok_or_else(|| {
            let what = "the shard's row is gone from headroom_leader".to_owned();
            StoreError::Damaged { place: self.place.name(), what }
        })
    }

    /// Ends epoch `seen` of `shard` and begins the next as `holder`, if its leader was silent for `lease` by the
    /// database's clock; `None` when it was not, or another was faster.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; then the epoch may have begun all the same.
    pub async fn take(
        &self,
        shard: u16,
        seen: u64,
        lease: Duration,
        holder: &str,
        url: &str,
    ) -> Result<Option<u64>, StoreError> {
        let sql = "UPDATE headroom_leader
            SET epoch = epoch + 1, holder = $3, url = $4, renewed = clock_timestamp()
            WHERE shard = $1 AND epoch = $2 AND clock_timestamp() - renewed > make_interval(secs => $5)
            RETURNING epoch";
        let (shard, seen, lease) = (i32::from(shard), seen as i64, lease.as_secs_f64());
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] = [&shard, &seen, &holder, &url, &lease];
        let rows = self.place.within(Doing::Electing, TAKE_FOR, self.client.query(sql, &values)).await?;
        Ok(rows.first().map(|row| row.get::<_, i64>(0) as u64))
    }

    /// Says that the leader of `epoch` lives; false when the epoch is over.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn renew(&self, epoch: u64) -> Result<bool, StoreError> {
        let sql = "UPDATE headroom_leader SET renewed = clock_timestamp() WHERE shard = $1 AND epoch = $2";
        self.set(sql, epoch).await
    }

    /// Gives the leadership up, so that a standby takes over at once.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub async fn resign(&self, epoch: u64) -> Result<(), StoreError> {
        let sql = "UPDATE headroom_leader SET renewed = 'epoch' WHERE shard = $1 AND epoch = $2";
        self.set(sql, epoch).await.map(drop)
    }

    async fn set(&self, sql: &str, epoch: u64) -> Result<bool, StoreError> {
        let (shard, epoch) = (i32::from(self.place.shard), epoch as i64);
        Ok(self
            .place
            .within(Doing::Electing, ANSWER_FOR, self.client.execute(sql, &[&shard, &epoch]))
            .await?
            == 1)
    }
}
