//! Erlang A (M/M/n+M): waiting customers give up after an exponential patience.
//!
//! Sources: C. Palm 1943; O. Garnett, A. Mandelbaum, M. Reiman, "Designing a call center with impatient
//! customers", M&SOM 4 (2002); A. Mandelbaum, S. Zeltyn, "The Palm/Erlang-A queue" (2004).

use super::{Station, TheoryError, check_positive, erlang::inverse_b};

/// Largest `λ/θ` (arrivals during one mean patience): the sums run over a few times its square root.
const PATIENCE_LIMIT: f64 = 1e12;

/// Terms below this share of the running sum end it: the rest is below the rounding of the sum.
const NEGLIGIBLE: f64 = 1e-18;

/// An M/M/n+M queue in steady state; patience makes it stable at every load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErlangA {
    station: Station,
    patience_mean_s: f64,
    wait_probability: f64,
    queue_mean: f64,
}

impl ErlangA {
    /// Solves a station whose customers leave the queue after an exponential time of mean `patience_mean_s`.
    ///
    /// With `π_j` the probability of `j` customers, `θ = 1/patience` and `t_k = Π_{i=1..k} λ/(nμ + iθ)`:
    /// `π_{n+k} = π_n t_k`, `Σ_{j≤n} π_j = π_n/B(a, n)`. The sums are taken outwards from the largest
    /// term, so that neither overload nor a thousand servers overflow.
    ///
    /// # Errors
    /// Arguments out of range, or more than 10¹² arrivals in one mean patience (Erlang C is then exact enough).
    pub fn new(station: Station, patience_mean_s: f64) -> Result<Self, TheoryError> {
        station.check()?;
        check_positive("mean patience", patience_mean_s)?;
        let arrivals = station.arrival_rate_per_s * patience_mean_s;
        if arrivals > PATIENCE_LIMIT {
            let name = "number of arrivals in one mean patience";
            return Err(TheoryError::TooLarge { name, value: arrivals, limit: PATIENCE_LIMIT });
        }
        let sums = QueueSums::new(station, patience_mean_s);
        // States below n weigh π_n (1/B − 1); the term π_n itself is the first of the sums above.
        let below = if sums.first == 0.0 {
            0.0
        } else {
            sums.first * (inverse_b(station.offered(), station.servers) - 1.0)
        };
        let (wait_probability, queue_mean) = if below == f64::INFINITY {
            (0.0, 0.0)
        } else {
            (sums.weight / (below + sums.weight), sums.queue / (below + sums.weight))
        };
        Ok(Self { station, patience_mean_s, wait_probability, queue_mean })
    }

    /// The probability that an arrival finds all servers busy.
    pub fn wait_probability(&self) -> f64 {
        self.wait_probability
    }

    /// Mean number of waiting customers.
    pub fn queue_mean(&self) -> f64 {
        self.queue_mean
    }

    /// The share of customers who give up: `θ E[Q]/λ` (every waiting customer leaves at rate `θ`).
    pub fn abandon_probability(&self) -> f64 {
        self.wait_mean_s() / self.patience_mean_s
    }

    /// Mean time in the queue in seconds over all customers, served or not: `E[Q]/λ` (Little).
    pub fn wait_mean_s(&self) -> f64 {
        if self.station.arrival_rate_per_s == 0.0 {
            return 0.0;
        }
        self.queue_mean / self.station.arrival_rate_per_s
    }

    /// Share of the servers that is busy: `a (1 − P(abandon))/n`.
    pub fn utilization(&self) -> f64 {
        self.station.utilization() * (1.0 - self.abandon_probability())
    }
}

/// Sums over the states with all servers busy, relative to their largest term.
struct QueueSums {
    /// `t_0`.
    first: f64,
    /// `Σ t_k`.
    weight: f64,
    /// `Σ k t_k`.
    queue: f64,
}

impl QueueSums {
    fn new(station: Station, patience_mean_s: f64) -> Self {
        let rate = station.arrival_rate_per_s;
        let full_rate = station.servers as f64 / station.service_mean_s;
        // t_k grows while λ > nμ + kθ.
        let peak = ((rate - full_rate) * patience_mean_s).max(0.0).floor();
        let ratio = |k: f64| rate / (full_rate + k / patience_mean_s); // t_k / t_{k−1}
        let (mut weight, mut queue) = (1.0, peak);
        let (mut k, mut term) = (peak, 1.0);
        while term > NEGLIGIBLE * weight {
            k += 1.0;
            term *= ratio(k);
            weight += term;
            queue += term * k;
        }
        let (mut k, mut term) = (peak, 1.0);
        // The states below n weigh at most n times the first term here, which is the smallest on this side.
        let negligible = NEGLIGIBLE / station.servers as f64;
        while k > 0.0 && term > negligible * weight {
            term /= ratio(k);
            k -= 1.0;
            weight += term;
            queue += term * k;
        }
        let first = if k > 0.0 { 0.0 } else { term };
        Self { first, weight, queue }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mmc, near};
    use super::*;
    use proptest::prelude::*;

    fn solve(arrival_rate_per_s: f64, service_mean_s: f64, servers: u64, patience_mean_s: f64) -> ErlangA {
        ErlangA::new(Station { arrival_rate_per_s, service_mean_s, servers }, patience_mean_s).unwrap()
    }

    #[test]
    fn call_centre_of_fifty_agents_matches_published_values() {
        // Mandelbaum and Zeltyn 2004: 48 calls/min, 1 min service, 2 min patience, 50 agents:
        // 3.1 % abandon, mean wait 3.7 s, mean queue 3, utilization 93 %.
        let queue = solve(48.0 / 60.0, 60.0, 50, 120.0);
        near::check(queue.abandon_probability(), 0.031, 5e-4);
        near::check(queue.wait_mean_s(), 3.7, 0.05);
        near::check(queue.queue_mean(), 3.0, 0.05);
        near::check(queue.utilization(), 0.93, 5e-3);
    }

    #[test]
    fn patience_equal_to_service_is_a_poisson_number_of_customers() {
        // θ = μ makes the death rate jμ in every state, as in M/M/∞.
        let (offered, servers) = (20.0, 18u64);
        let queue = solve(offered, 1.0, servers, 1.0);
        let (mut term, mut tail, mut waiting) = (libm::exp(-offered), 0.0, 0.0);
        for j in 0..200u64 {
            if j >= servers {
                tail += term;
                waiting += term * (j - servers) as f64;
            }
            term *= offered / (j + 1) as f64;
        }
        near::check(queue.wait_probability(), tail, 1e-12);
        near::check(queue.queue_mean(), waiting, 1e-12);
    }

    #[test]
    fn endless_patience_is_erlang_c() {
        let station = Station { arrival_rate_per_s: 9.0, service_mean_s: 8.0, servers: 80 };
        let (patient, impatient) = (Mmc::new(station).unwrap(), ErlangA::new(station, 1e9).unwrap());
        near::check(impatient.wait_probability(), patient.wait_probability(), 1e-6);
        near::check(impatient.wait_mean_s(), patient.wait_mean_s(), 1e-6);
    }

    #[test]
    fn heavy_overload_abandons_what_cannot_be_served() {
        // Fluid limit: with λ ≫ nμ, P(abandon) = 1 − nμ/λ; a sum from k = 0 would overflow here.
        let queue = solve(1000.0, 8.0, 800, 3600.0);
        near::check(queue.abandon_probability(), 0.9, 1e-9);
        near::check(queue.wait_probability(), 1.0, 1e-12);
        let largest = solve(1e6, 8.0, 7_000_000, 1e6);
        near::check(largest.abandon_probability(), 0.125, 1e-9);
    }

    #[test]
    fn no_arrivals_do_not_wait() {
        let queue = solve(0.0, 8.0, 3, 60.0);
        assert_eq!((queue.wait_probability(), queue.wait_mean_s()), (0.0, 0.0));
        assert_eq!(solve(1e-9, 8.0, 1000, 60.0).wait_probability(), 0.0);
    }

    #[test]
    fn bad_arguments_are_named() {
        let station = Station { arrival_rate_per_s: 9.0, service_mean_s: 8.0, servers: 80 };
        let error = ErlangA::new(station, 0.0).unwrap_err();
        assert_eq!(error.to_string(), "mean patience is 0; give a finite number above zero");
        assert!(matches!(ErlangA::new(station, 1e15), Err(TheoryError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn flow_is_conserved(rate in 0.01f64..200.0, servers in 1u64..400, patience_s in 0.1f64..1e4) {
            let queue = solve(rate, 8.0, servers, patience_s);
            let (wait, abandon) = (queue.wait_probability(), queue.abandon_probability());
            prop_assert!((0.0..=1.0).contains(&wait) && abandon >= 0.0 && abandon <= wait + 1e-12);
            prop_assert!(queue.utilization() <= 1.0 + 1e-9, "busier than its servers: {queue:?}");
            let more = solve(rate, 8.0, servers + 1, patience_s);
            prop_assert!(more.abandon_probability() <= abandon + 1e-12);
        }
    }
}
