//! Where a plane's journal is kept. A store knows bytes and their order; what they mean is the engine's matter.
//!
//! A batch is all or nothing: after a crash it is there whole, or not at all. Batches follow each other without a gap.

mod checkpoint;
mod disk;
mod postgres;
mod sqlite;

pub use disk::{Disk, DiskFault, DiskStore};
pub use postgres::{Election, Leader, PostgresPlace, PostgresStore};
pub use sqlite::SqliteStore;

use policy::units::Instant;

use crate::number::JobNumber;

/// Commands that become durable together, and the jobs that ended by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Number of its first command; the first of a journal is 1.
    pub first: u64,
    /// How many commands.
    pub count: u64,
    /// The commands, one after the other, as the engine encodes them.
    pub body: Vec<u8>,
    /// Jobs that ended, encoded: kept for those who ask later.
    pub ended: Vec<(JobNumber, Vec<u8>)>,
}

/// What a store gives back at the start of a plane.
#[derive(Debug)]
pub enum Recovered {
    /// The state after command `upto`; comes first, if at all.
    Image { upto: u64, image: Vec<u8> },
    /// A batch behind it.
    Batch { first: u64, count: u64, body: Vec<u8> },
}

/// A place in a journal of which an image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Number of the last command before it.
    pub upto: u64,
    /// Time of that command.
    pub at: Instant,
    /// Jobs with smaller numbers had ended by then.
    pub ended_below: JobNumber,
}

/// What a store forgot in one go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Batches.
    pub batches: u64,
    /// Ended jobs.
    pub jobs: u64,
    /// Nothing is left to forget.
    pub is_all: bool,
}

/// A store that cannot do what it must.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another plane writes here.
    #[error("{place} is in use by another plane; stop that one, or give this one another --data folder")]
    InUse { place: String },
    /// Another plane took over: this one must stop at once, and nothing of the batch is in the journal.
    #[error("epoch {mine} is over: a plane with epoch {current} took over")]
    Fenced { mine: u64, current: u64 },
    /// No room: nothing of the batch is in the journal, and a plane at work goes on once there is.
    #[error("no room is left at {place}; free some")]
    Full { place: String },
    /// What was read cannot have been written by this program.
    #[error(
        "the journal at {place} is damaged: {what}. Restore it from a backup, or move it away to begin anew"
    )]
    Damaged { place: String, what: String },
    /// The journal was written by a later release.
    #[error(
        "the journal at {place} has format {found}, this release knows {known}: use a later release of headroom"
    )]
    Format { place: String, found: i64, known: i64 },
    /// The system refused. Whether a batch that was being written is in the journal is not known: the plane must stop and
    /// start again.
    #[error("{doing} at {place} failed: {what}")]
    Failed { doing: Doing, place: String, what: String },
}

/// What a store was doing when the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Making it ready, its tables and connections.
    Opening,
    /// Reading commands or images.
    Reading,
    /// Making commands or an image durable.
    Writing,
    /// Reading ended jobs.
    Asking,
    /// Asking who leads, taking over, or saying that it lives.
    Electing,
}

impl std::fmt::Display for Doing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening the journal",
            Self::Reading => "reading the journal",
            Self::Writing => "writing the journal",
            Self::Asking => "reading the ended jobs",
            Self::Electing => "asking who leads",
        })
    }
}

/// Visits what a store recovers, in order.
pub type Visit<'a> = dyn FnMut(Recovered) -> Result<(), StoreError> + 'a;

/// A journal with images of its fold.
pub trait Store: Send {
    /// Gives back the latest image and every batch behind it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what `visit` returned.
    fn recover(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Gives back all that is kept: every batch, and before them, where earlier ones were forgotten, the image from which
    /// they go on.
    ///
    /// # Errors
    /// As [`Store::recover`].
    fn history(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Appends a batch; it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; after [`StoreError::Full`] the same batch may be tried again, after any other the plane stops.
    fn append(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// Keeps an image of the state at `mark`. Older ones go, but for those that were to stay; this one does where `stays` is
    /// set, until [`Store::forget`] passes it.
    ///
    /// # Errors
    /// As [`Store::append`].
    fn keep_image(&mut self, mark: Mark, image: &[u8], stays: bool) -> Result<(), StoreError>;

    /// The marks whose images stay, by number.
    ///
    /// # Errors
    /// As [`Store::recover`].
    fn marks(&mut self) -> Result<Vec<Mark>, StoreError>;

    /// Forgets what lies before `mark`, which is one of [`Store::marks`]: at most `limit` batches and as many ended jobs at
    /// a time, the oldest first, and all earlier images. A store whose last part took long takes fewer.
    ///
    /// # Errors
    /// As [`Store::append`].
    fn forget(&mut self, mark: Mark, limit: usize) -> Result<Forgotten, StoreError>;

    /// A reader of ended jobs, for other threads.
    fn archive(&self) -> Box<dyn Archive>;

    /// 32 bytes that were drawn when the store was made, and never change.
    fn secret(&self) -> [u8; 32];
}

/// Reads ended jobs.
pub trait Archive: Send {
    /// The job as the engine encoded it.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    fn ended(&mut self, job: JobNumber) -> Result<Option<Vec<u8>>, StoreError>;

    /// Up to `limit` ended jobs below `before`, latest first.
    ///
    /// # Errors
    /// As [`Archive::ended`].
    fn latest(&mut self, before: Option<JobNumber>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError>;
}

/// How many rows go at a time, by how long the last ones took: rows of different journals differ in size a thousandfold.
#[derive(Clone, Copy, Debug)]
struct Portion(usize);

/// A part should not take longer: others wait for the plane, and for its row in the database.
const PORTION_TAKES: std::time::Duration = std::time::Duration::from_millis(100);

impl Portion {
    const FIRST: Self = Self(64);

    fn within(self, limit: usize) -> usize {
        self.0.min(limit)
    }

    fn took(&mut self, time: std::time::Duration) {
        if time > PORTION_TAKES {
            self.0 = (self.0 / 4).max(1);
        } else if time < PORTION_TAKES / 4 {
            self.0 = (self.0 * 2).min(1 << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_shrink_at_once_when_they_take_long() {
        let ms = std::time::Duration::from_millis;
        let mut portion = Portion::FIRST;
        for _ in 0..3 {
            portion.took(ms(3));
        }
        assert_eq!((portion.within(2000), portion.within(100)), (512, 100));
        portion.took(ms(60));
        assert_eq!(portion.within(2000), 512);
        portion.took(ms(1500));
        assert_eq!(portion.within(2000), 128);
        for _ in 0..9 {
            portion.took(ms(1500));
        }
        assert_eq!(portion.within(2000), 1);
    }
}
