//! What seeds came to.

/// What a seed came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) accepted: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) expired: u64,
    pub(crate) cancelled: u64,
    pub(crate) stale_results: u64,
    pub(crate) crashes: u64,
    /// Starts with another scenario than before.
    pub(crate) changes: u64,
    pub(crate) torn_writes: u64,
    pub(crate) worker_deaths: u64,
    pub(crate) launches: u64,
    pub(crate) interruptions: u64,
    pub(crate) images: u64,
    /// Ended jobs that were forgotten.
    pub(crate) forgotten: u64,
    /// Commands that were applied again from a mark on, and gave the same.
    pub(crate) replayed: u64,
    pub(crate) commands: u64,
    pub(crate) appends: u64,
}

impl Outcome {
    /// Adds another seed's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.done += other.done;
        self.failed += other.failed;
        self.expired += other.expired;
        self.cancelled += other.cancelled;
        self.stale_results += other.stale_results;
        self.crashes += other.crashes;
        self.changes += other.changes;
        self.torn_writes += other.torn_writes;
        self.worker_deaths += other.worker_deaths;
        self.launches += other.launches;
        self.interruptions += other.interruptions;
        self.images += other.images;
        self.forgotten += other.forgotten;
        self.replayed += other.replayed;
        self.commands += other.commands;
        self.appends += other.appends;
    }
}
