//! What a simulation measures and how sure it is: accumulators, intervals, warm-up, ranking and selection.
//!
//! Accumulators have bounded memory, merge, and are deterministic: the same values in the same order give the
//! same bits. Chance is handed in. Nothing here knows jobs, pools or policies.

pub mod batch;
pub mod control_variate;
pub mod histogram;
pub mod interval;
pub mod moments;
pub mod reservoir;
pub mod select;
mod tape;
pub mod warmup;

pub use batch::BatchMeans;
pub use control_variate::ControlVariate;
pub use histogram::Histogram;
pub use interval::{Confidence, Interval};
pub use moments::Moments;
pub use reservoir::Reservoir;
pub use select::{Goal, Promise, Selection};
pub(crate) use tape::Tape;
pub use warmup::{Truncation, moving_average, mser, mser5};

/// A statistic that cannot be computed from what was given.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StatsError {
    #[error("{count} values are too few for {what}; give at least {needed}")]
    TooFew { what: &'static str, count: usize, needed: usize },
    #[error("{left} and {right} values cannot be paired; give as many of each")]
    Unpaired { left: usize, right: usize },
    #[error("confidence level {0} is outside 0.5..=0.999999; 0.95 is usual")]
    Confidence(f64),
    #[error("{successes} successes in {trials} trials are not a proportion")]
    Proportion { successes: u64, trials: u64 },
    #[error("value {value} of candidate {candidate} in replication {replication} is not finite")]
    NotFinite { candidate: usize, replication: usize, value: f64 },
    #[error("value {value} at position {index} is not finite")]
    NotFiniteAt { index: usize, value: f64 },
    #[error("candidate {candidate} is unknown; there are {count}")]
    UnknownCandidate { candidate: usize, count: usize },
    #[error("candidate {candidate} already has a value in replication {replication}")]
    Duplicate { candidate: usize, replication: usize },
    #[error("replication {replication} is beyond the limit of {limit}")]
    ReplicationLimit { replication: usize, limit: usize },
    #[error("no candidates to select from; give at least one")]
    NoCandidates,
    #[error("smallest difference of interest {0} is not a finite number above zero")]
    Difference(f64),
    #[error("error probability {alpha} is outside 0..{limit} for this number of candidates; 0.05 is usual")]
    Alpha { alpha: f64, limit: f64 },
}

#[cfg(test)]
pub(crate) mod draws {
    //! Random numbers for the tests of this module: splitmix64.

    pub(crate) struct Draws(pub(crate) u64);

    impl Draws {
        pub(crate) fn word(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }

        /// Uniform above 0, up to 1.
        pub(crate) fn uniform(&mut self) -> f64 {
            ((self.word() >> 11) + 1) as f64 / (1u64 << 53) as f64
        }

        /// Standard normal (Box and Muller).
        pub(crate) fn normal(&mut self) -> f64 {
            let radius = (-2.0 * libm::log(self.uniform())).sqrt();
            radius * libm::cos(2.0 * std::f64::consts::PI * self.uniform())
        }
    }
}
