//! Dense integer ids: each is an index into the table that its name says.

macro_rules! id {
    ($(#[$doc:meta] $name:ident($inner:ty);)*) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub $inner);

        impl $name {
            /// The position in its table.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

id! {
    /// A class of jobs (priority, deadline), in [`super::System::classes`].
    ClassId(u16);
    /// A region that users or pools are in, in [`super::System::regions`].
    RegionId(u16);
    /// A stage of the pipeline, in [`super::System::stages`].
    StageId(u16);
    /// A kind of slot (`gpu`, `cpu`), in [`super::System::slot_kinds`].
    KindId(u16);
    /// A pool, in [`super::System::pools`].
    PoolId(u16);
    /// The pools that serve one queue: one pool class in one routing cell.
    GroupId(u16);
    /// A level of the quality ladder, best first, in [`super::System::qualities`].
    QualityId(u16);
    /// An instance; the number is reused once the instance has terminated.
    InstanceId(u32);
}

/// A job: its slot and how often that slot was used before, so that a late report never meets another job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct JobId {
    /// Slot in the table of jobs; reused.
    pub slot: u32,
    /// How many jobs held the slot before.
    pub generation: u32,
}

/// The right to work on one stage of one job, once. A report under an older lease is stale and changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "image", derive(serde::Serialize, serde::Deserialize))]
pub struct Lease {
    /// Slot of the job.
    pub slot: u32,
    /// Grows with every lease that the slot gives out.
    pub token: u32,
}
