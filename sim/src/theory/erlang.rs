//! Erlang B and C: Poisson arrivals, exponential service, `n` servers, patient customers.
//!
//! Sources: A. K. Erlang 1917; R. B. Cooper, *Introduction to Queueing Theory* (1981), ch. 3;
//! D. Gross et al., *Fundamentals of Queueing Theory* (2008), §2.3.
//! Impatient customers are in [`super::erlang_a`], limited room in [`super::finite_queue`].

use super::{
    SERVERS_LIMIT, Station, TheoryError, check_not_negative, check_positive, check_probability,
    check_servers, check_stable,
};

/// Blocking probability `B(a, n)` of a station without a queue (M/G/n/n) offered `a` erlang.
///
/// Exact to rounding for every load, overload too: see `inverse_b`.
///
/// # Errors
/// A load that is negative or not finite; no servers, or more than [`SERVERS_LIMIT`].
pub fn erlang_b(offered: f64, servers: u64) -> Result<f64, TheoryError> {
    check_not_negative("offered load", offered)?;
    check_servers(servers)?;
    Ok(1.0 / inverse_b(offered, servers))
}

/// Probability `C(a, n)` that an arrival has to wait (M/M/n) at `a` erlang.
///
/// `C = B/(1 − ρ(1 − B))` with `ρ = a/n`, evaluated as `1/(ρ + (1 − ρ)/B)`, which has no cancellation.
///
/// # Errors
/// As [`erlang_b`]; and [`TheoryError::Unstable`] where `a ≥ n`.
pub fn erlang_c(offered: f64, servers: u64) -> Result<f64, TheoryError> {
    check_not_negative("offered load", offered)?;
    check_servers(servers)?;
    check_stable(offered, servers)?;
    Ok(wait_probability(offered, servers, inverse_b(offered, servers)))
}

/// Smallest `n` with `P(W > wait_s) ≤ probability` in an M/M/n queue of `arrival_rate_per_s` arrivals per
/// second and `service_mean_s` seconds of mean service.
///
/// # Errors
/// A rate, time or probability out of range; [`TheoryError::TooLarge`] where more than [`SERVERS_LIMIT`]
/// servers would be needed.
pub fn servers_for_wait(
    arrival_rate_per_s: f64,
    service_mean_s: f64,
    wait_s: f64,
    probability: f64,
) -> Result<u64, TheoryError> {
    check_not_negative("arrival rate", arrival_rate_per_s)?;
    check_positive("mean service time", service_mean_s)?;
    check_not_negative("wait", wait_s)?;
    check_probability("probability of a longer wait", probability)?;
    let offered = arrival_rate_per_s * service_mean_s;
    let limit = SERVERS_LIMIT as f64;
    let too_large = TheoryError::TooLarge { name: "offered load", value: offered, limit };
    if !offered.is_finite() || offered >= limit {
        return Err(too_large);
    }
    let mut servers = offered as u64 + 1; // the smallest stable number
    let mut inverse = inverse_b(offered, servers);
    while servers <= SERVERS_LIMIT {
        let waiting = wait_probability(offered, servers, inverse);
        let decay = libm::exp(-(servers as f64 - offered) * wait_s / service_mean_s);
        if waiting * decay <= probability {
            return Ok(servers);
        }
        servers += 1;
        inverse = next_inverse_b(offered, servers, inverse);
    }
    Err(too_large)
}

/// `1/B(a, n)` by `1/B(a, k) = 1 + (k/a)/B(a, k − 1)`, from `1/B(a, 0) = 1`.
///
/// All terms are positive, so rounding errors never grow relative to the result; where `B` is below the
/// smallest `f64`, the inverse is infinite and `B` becomes 0, which is right.
pub(super) fn inverse_b(offered: f64, servers: u64) -> f64 {
    if offered == 0.0 {
        return if servers == 0 { 1.0 } else { f64::INFINITY };
    }
    let mut inverse = 1.0;
    for k in 1..=servers {
        inverse = next_inverse_b(offered, k, inverse);
        if inverse == f64::INFINITY {
            // Past k = a it only grows; before that the factor is below 1 and it is at most `k`.
            break;
        }
    }
    inverse
}

fn next_inverse_b(offered: f64, k: u64, inverse: f64) -> f64 {
    1.0 + k as f64 / offered * inverse
}

fn wait_probability(offered: f64, servers: u64, inverse_b: f64) -> f64 {
    if inverse_b == f64::INFINITY {
        return 0.0;
    }
    let utilization = offered / servers as f64;
    1.0 / (utilization + (1.0 - utilization) * inverse_b)
}

/// A stable M/M/n queue, first come first served, in steady state.
///
/// The wait `W` (in the queue, without service) is 0 with probability `1 − C`, else exponential with rate
/// `(n − a)/S`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mmc {
    station: Station,
    wait_probability: f64,
}

impl Mmc {
    /// Solves the station.
    ///
    /// # Errors
    /// Arguments out of range, or [`TheoryError::Unstable`] where `a ≥ n`.
    pub fn new(station: Station) -> Result<Self, TheoryError> {
        station.check_stable()?;
        let wait_probability = erlang_c(station.offered(), station.servers)?;
        Ok(Self { station, wait_probability })
    }

    /// The station that was solved.
    pub fn station(&self) -> Station {
        self.station
    }

    /// `P(W > 0) = C(a, n)`.
    pub fn wait_probability(&self) -> f64 {
        self.wait_probability
    }

    /// `P(W > t) = C e^{−(n − a)t/S}` for `t = wait_s` seconds; 1 for a negative time.
    pub fn wait_tail(&self, wait_s: f64) -> f64 {
        if wait_s < 0.0 {
            return 1.0;
        }
        self.wait_probability * libm::exp(-wait_s / self.conditional_wait_mean_s())
    }

    /// Mean wait `E[W] = C S/(n − a)` in seconds, over all customers.
    pub fn wait_mean_s(&self) -> f64 {
        self.wait_probability * self.conditional_wait_mean_s()
    }

    /// The wait in seconds that a share `quantile` of the customers does not exceed.
    ///
    /// 0 where that share does not wait at all; else `S/(n − a) · ln(C/(1 − quantile))`.
    ///
    /// # Errors
    /// A `quantile` that is not strictly between 0 and 1.
    pub fn wait_quantile_s(&self, quantile: f64) -> Result<f64, TheoryError> {
        check_probability("quantile", quantile)?;
        let tail = 1.0 - quantile;
        if self.wait_probability <= tail {
            return Ok(0.0);
        }
        Ok(self.conditional_wait_mean_s() * libm::log(self.wait_probability / tail))
    }

    /// Mean number of waiting customers, `λ E[W]` (Little).
    pub fn queue_mean(&self) -> f64 {
        self.station.arrival_rate_per_s * self.wait_mean_s()
    }

    /// Mean time in the station, waiting and service, in seconds.
    pub fn sojourn_mean_s(&self) -> f64 {
        self.wait_mean_s() + self.station.service_mean_s
    }

    /// Mean number of customers in the station, waiting and in service.
    pub fn present_mean(&self) -> f64 {
        self.queue_mean() + self.station.offered()
    }

    /// Mean wait of those who wait, `S/(n − a)`, in seconds.
    fn conditional_wait_mean_s(&self) -> f64 {
        self.station.service_mean_s / (self.station.servers as f64 - self.station.offered())
    }
}

#[cfg(test)]
mod tests {
    use super::super::near;
    use super::*;
    use proptest::prelude::*;

    fn queue(arrival_rate_per_s: f64, service_mean_s: f64, servers: u64) -> Mmc {
        Mmc::new(Station { arrival_rate_per_s, service_mean_s, servers }).unwrap()
    }

    #[test]
    fn blocking_matches_published_tables() {
        // Erlang B traffic tables, 1 % grade of service; loads are printed to four digits.
        for (offered, servers, expected) in [(4.461, 10, 0.01), (12.03, 20, 0.01), (84.06, 100, 0.01)] {
            near::check(erlang_b(offered, servers).unwrap(), expected, 3e-5);
        }
    }

    #[test]
    fn blocking_matches_direct_sum() {
        // B = (a^n/n!) / Σ a^k/k!: a = 2, n = 3 gives (8/6)/(1 + 2 + 2 + 8/6).
        near::check(erlang_b(2.0, 3).unwrap(), (8.0 / 6.0) / (5.0 + 8.0 / 6.0), 1e-15);
    }

    #[test]
    fn wait_probability_matches_reference_values() {
        let cases = [(2.0, 3, 0.444444), (10.0, 12, 0.449388), (80.0, 90, 0.195137), (480.0, 500, 0.266513)];
        for (offered, servers, expected) in cases {
            near::check(erlang_c(offered, servers).unwrap(), expected, 5e-7);
        }
    }

    #[test]
    fn hundred_servers_at_ninety_percent_match_exact_values() {
        let queue = queue(90.0, 1.0, 100);
        near::check(queue.wait_probability(), 0.2169, 5e-5);
        near::check(queue.wait_mean_s(), 0.021694, 5e-7);
        near::check(queue.wait_quantile_s(0.99).unwrap(), 0.30770, 5e-6);
        near::check(queue.wait_tail(queue.wait_quantile_s(0.99).unwrap()), 0.01, 1e-12);
        near::check(queue.queue_mean(), 90.0 * 0.021694, 5e-5);
    }

    #[test]
    fn call_centre_of_fifty_agents_waits_21_seconds() {
        // Mandelbaum and Zeltyn, "The Palm/Erlang-A queue" (2004): 48 calls/min, 1 min, 50 agents: 20.8 s.
        near::check(queue(48.0 / 60.0, 60.0, 50).wait_mean_s(), 20.8, 0.05);
    }

    #[test]
    fn one_server_is_mm1() {
        let queue = queue(0.8, 1.0, 1);
        near::check(queue.wait_probability(), 0.8, 1e-15);
        near::check(queue.sojourn_mean_s(), 5.0, 1e-12);
        near::check(queue.present_mean(), 4.0, 1e-12);
    }

    #[test]
    fn median_is_zero_when_most_do_not_wait() {
        assert_eq!(queue(90.0, 1.0, 100).wait_quantile_s(0.5), Ok(0.0));
    }

    #[test]
    fn servers_for_a_target_match_reference_values() {
        let cases = [(1.0, 12, 10), (3.0, 30, 26), (10.0, 90, 82), (60.0, 504, 482)];
        for (rate, no_wait, slow) in cases {
            assert_eq!(servers_for_wait(rate, 8.0, 0.0, 0.2), Ok(no_wait));
            assert_eq!(servers_for_wait(rate, 8.0, 22.0, 0.01), Ok(slow));
        }
    }

    #[test]
    fn a_million_servers_agree_with_halfin_whitt() {
        // n = a + √a (β = 1): the limit is 0.2234; the error is of order 1/√a.
        near::check(erlang_c(1e6, 1_001_000).unwrap(), 0.2234, 5e-4);
    }

    #[test]
    fn blocking_below_the_smallest_number_is_zero() {
        assert_eq!(erlang_b(1e-3, 1000), Ok(0.0));
        assert_eq!(erlang_c(1e-3, 1000), Ok(0.0));
        assert_eq!(erlang_b(0.0, 5), Ok(0.0));
        assert_eq!(queue(0.0, 8.0, 1).wait_mean_s(), 0.0);
    }

    #[test]
    fn bad_arguments_are_named() {
        let check = |error: TheoryError, text: &str| assert_eq!(error.to_string(), text);
        check(erlang_b(-1.0, 5).unwrap_err(), "offered load is -1; give a finite number of at least zero");
        check(erlang_b(1.0, 0).unwrap_err(), "the station has no servers; give at least one");
        check(
            erlang_c(5.0, 5).unwrap_err(),
            "5 servers cannot carry 5 erlang: the queue grows for ever; give more than 5",
        );
        check(
            servers_for_wait(1.0, 8.0, 0.0, 0.0).unwrap_err(),
            "probability of a longer wait is 0; give a probability above 0 and below 1",
        );
        assert!(matches!(servers_for_wait(1e9, 1.0, 0.0, 0.1), Err(TheoryError::TooLarge { .. })));
        assert!(matches!(erlang_b(f64::NAN, 5), Err(TheoryError::Negative { .. })));
    }

    proptest! {
        #[test]
        fn blocking_and_waiting_are_ordered(offered in 0.01f64..2000.0, spare in 1u64..500) {
            let servers = offered as u64 + spare;
            let (b, c) = (erlang_b(offered, servers).unwrap(), erlang_c(offered, servers).unwrap());
            prop_assert!((0.0..=1.0).contains(&b) && b <= c && c <= 1.0, "B {b} C {c}");
            prop_assert!(erlang_b(offered, servers + 1).unwrap() <= b);
            prop_assert!(erlang_c(offered, servers + 1).unwrap() <= c);
        }

        #[test]
        fn staffing_is_the_smallest(rate in 0.1f64..50.0, wait_s in 0.0f64..30.0, p in 0.001f64..0.5) {
            let servers = servers_for_wait(rate, 8.0, wait_s, p).unwrap();
            prop_assert!(queue(rate, 8.0, servers).wait_tail(wait_s) <= p * (1.0 + 1e-9));
            let fewer = Station { arrival_rate_per_s: rate, service_mean_s: 8.0, servers: servers - 1 };
            if let Ok(queue) = Mmc::new(fewer) {
                prop_assert!(queue.wait_tail(wait_s) > p * (1.0 - 1e-9));
            }
        }
    }
}
