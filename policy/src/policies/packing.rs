//! Packing: which of several free instances takes a job.

/// Which of several free instances takes a job; pools are tried in the order of the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// The fullest instance that still has a slot, the oldest first: whole instances fall idle and can be given back
    /// (first fit; at most 1.7 times the optimum, Johnson 1973).
    Pack,
    /// The emptiest instance, the oldest first: least interference between jobs.
    Spread,
}
