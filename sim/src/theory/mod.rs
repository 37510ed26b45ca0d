//! Closed forms of queueing theory: what a simulated queue is checked against, and where a search starts.
//!
//! Pure functions of rates, times and counts; every symbol is named and every formula has its source.
//! Nothing here simulates, draws a random number or knows a price.
//!
//! Symbols used throughout: `λ` arrival rate (per second), `S = 1/μ` mean service time (seconds),
//! `n` servers, `a = λS` offered load (erlang), `ρ = a/n` utilization.

pub mod erlang;
pub mod erlang_a;
pub mod finite_queue;
pub mod jackson;
pub mod pollaczek;
pub mod staffing;

pub use erlang::{Mmc, erlang_b, erlang_c, servers_for_wait};
pub use erlang_a::ErlangA;
pub use finite_queue::FiniteQueue;
pub use jackson::{JacksonNetwork, JacksonNode, JacksonSolution};
pub use pollaczek::{Variability, ggc_wait_mean_s, kingman_bound_s, mg1_wait_mean_s, mgc_wait_mean_s};
pub use staffing::{beta_for_wait_probability, halfin_whitt_wait_probability, square_root_servers};

/// Largest number of servers or places that a closed form accepts: its sums run once over each of them.
pub const SERVERS_LIMIT: u64 = 10_000_000;

/// An argument outside the range of a closed form.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TheoryError {
    #[error("{name} is {value}; give a finite number above zero")]
    NotPositive { name: &'static str, value: f64 },
    #[error("{name} is {value}; give a finite number of at least zero")]
    Negative { name: &'static str, value: f64 },
    #[error("{name} is {value}; give a probability above 0 and below 1")]
    NotProbability { name: &'static str, value: f64 },
    #[error("{name} is {value}; at most {limit} can be computed")]
    TooLarge { name: &'static str, value: f64, limit: f64 },
    #[error("the station has no servers; give at least one")]
    NoServers,
    #[error(
        "{servers} servers cannot carry {offered} erlang: the queue grows for ever; give more than {offered}"
    )]
    Unstable { offered: f64, servers: u64 },
    #[error("{places} places are fewer than the {servers} servers in them; give at least {servers}")]
    FewerPlacesThanServers { places: u64, servers: u64 },
    #[error("the routing has {rows} rows for {nodes} nodes, or a row of another length; give a square table")]
    RoutingShape { nodes: usize, rows: usize },
    #[error("routing out of node {node} is {value}; give shares of at least 0 that add up to at most 1")]
    RoutingShare { node: usize, value: f64 },
    #[error("jobs that reach node {node} can never leave; let some share of them leave the network")]
    Closed { node: usize },
}

/// One queueing station: who arrives, how long service takes, how many servers there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Station {
    /// `λ`, mean arrivals per second, at least 0.
    pub arrival_rate_per_s: f64,
    /// `S = 1/μ`, mean service time in seconds, above 0.
    pub service_mean_s: f64,
    /// `n`, servers, from 1 to [`SERVERS_LIMIT`].
    pub servers: u64,
}

impl Station {
    /// Offered load `a = λS` in erlang: the mean number of busy servers if there were always one free.
    pub fn offered(&self) -> f64 {
        self.arrival_rate_per_s * self.service_mean_s
    }

    /// Utilization `ρ = a/n`; above 1 the station is overloaded.
    pub fn utilization(&self) -> f64 {
        self.offered() / self.servers as f64
    }

    /// Checks ranges; stability is checked by the formulas that need it.
    fn check(&self) -> Result<(), TheoryError> {
        check_not_negative("arrival rate", self.arrival_rate_per_s)?;
        check_positive("mean service time", self.service_mean_s)?;
        check_not_negative("offered load", self.offered())?;
        check_servers(self.servers)
    }

    /// Checks ranges and that `ρ < 1`.
    fn check_stable(&self) -> Result<(), TheoryError> {
        self.check()?;
        check_stable(self.offered(), self.servers)
    }
}

fn check_positive(name: &'static str, value: f64) -> Result<(), TheoryError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(TheoryError::NotPositive { name, value }) }
}

fn check_not_negative(name: &'static str, value: f64) -> Result<(), TheoryError> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(TheoryError::Negative { name, value }) }
}

fn check_probability(name: &'static str, value: f64) -> Result<(), TheoryError> {
    if value > 0.0 && value < 1.0 { Ok(()) } else { Err(TheoryError::NotProbability { name, value }) }
}

fn check_servers(servers: u64) -> Result<(), TheoryError> {
    match servers {
        0 => Err(TheoryError::NoServers),
        1..=SERVERS_LIMIT => Ok(()),
        _ => Err(TheoryError::TooLarge {
            name: "number of servers",
            value: servers as f64,
            limit: SERVERS_LIMIT as f64,
        }),
    }
}

fn check_stable(offered: f64, servers: u64) -> Result<(), TheoryError> {
    if offered < servers as f64 { Ok(()) } else { Err(TheoryError::Unstable { offered, servers }) }
}

#[cfg(test)]
pub(crate) mod near {
    /// Asserts that `actual` is within `tolerance` of `expected`.
    #[track_caller]
    pub(crate) fn check(actual: f64, expected: f64, tolerance: f64) {
        assert!((actual - expected).abs() <= tolerance, "{actual} is not {expected} ± {tolerance}");
    }
}
