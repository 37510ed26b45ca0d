//! M/M/n/K: `n` servers and room for `K` customers in all; who finds the room full is lost.
//!
//! Source: D. Gross et al., *Fundamentals of Queueing Theory* (2008), §2.5.

use super::{SERVERS_LIMIT, Station, TheoryError, erlang::inverse_b};

/// An M/M/n/K queue in steady state; limited room makes it stable at every load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FiniteQueue {
    station: Station,
    places: u64,
    blocking: f64,
    wait_probability: f64,
    queue_mean: f64,
}

impl FiniteQueue {
    /// Solves a station with `places = K` places, those of the servers included.
    ///
    /// `π_{n+k} = π_n ρ^k` for `k = 0..=K − n`, `Σ_{j≤n} π_j = π_n/B(a, n)`; the powers are taken relative
    /// to the largest one, so that overload does not overflow.
    ///
    /// # Errors
    /// Arguments out of range, fewer places than servers, or more than [`SERVERS_LIMIT`] places.
    pub fn new(station: Station, places: u64) -> Result<Self, TheoryError> {
        station.check()?;
        if places < station.servers {
            return Err(TheoryError::FewerPlacesThanServers { places, servers: station.servers });
        }
        if places > SERVERS_LIMIT {
            let (value, limit) = (places as f64, SERVERS_LIMIT as f64);
            return Err(TheoryError::TooLarge { name: "number of places", value, limit });
        }
        let sums = QueueSums::new(station.utilization(), places - station.servers);
        let below = if sums.first == 0.0 {
            0.0
        } else {
            sums.first * (inverse_b(station.offered(), station.servers) - 1.0)
        };
        if below == f64::INFINITY {
            return Ok(Self { station, places, blocking: 0.0, wait_probability: 0.0, queue_mean: 0.0 });
        }
        let total = below + sums.weight;
        let blocking = sums.last / total;
        // Of the accepted customers, those wait who find at least n and fewer than K present.
        let full = sums.weight - sums.last;
        let accepted = below + full;
        let wait_probability = if accepted > 0.0 { full / accepted } else { 1.0 };
        Ok(Self { station, places, blocking, wait_probability, queue_mean: sums.queue / total })
    }

    /// Room for customers, those in service included.
    pub fn places(&self) -> u64 {
        self.places
    }

    /// The share of arrivals that finds no place.
    pub fn blocking(&self) -> f64 {
        self.blocking
    }

    /// The share of accepted customers who have to wait.
    pub fn wait_probability(&self) -> f64 {
        self.wait_probability
    }

    /// Mean number of waiting customers.
    pub fn queue_mean(&self) -> f64 {
        self.queue_mean
    }

    /// Customers accepted per second, `λ(1 − P(blocked))`.
    pub fn accepted_rate_per_s(&self) -> f64 {
        self.station.arrival_rate_per_s * (1.0 - self.blocking)
    }

    /// Mean wait of accepted customers in seconds (Little); 0 where none are accepted.
    pub fn wait_mean_s(&self) -> f64 {
        let rate = self.accepted_rate_per_s();
        if rate > 0.0 { self.queue_mean / rate } else { 0.0 }
    }

    /// Mean time in the station of accepted customers, in seconds.
    pub fn sojourn_mean_s(&self) -> f64 {
        self.wait_mean_s() + self.station.service_mean_s
    }
}

/// Sums over the states with all servers busy, relative to their largest term.
struct QueueSums {
    /// The term of an empty queue.
    first: f64,
    /// The term of a full queue.
    last: f64,
    /// `Σ ρ^k`.
    weight: f64,
    /// `Σ k ρ^k`.
    queue: f64,
}

impl QueueSums {
    fn new(utilization: f64, room: u64) -> Self {
        // Walk from the larger end towards the smaller one.
        let shrinking = utilization <= 1.0;
        let ratio = if shrinking { utilization } else { 1.0 / utilization };
        let (mut term, mut weight, mut queue) = (1.0, 0.0, 0.0);
        let mut end = 0.0;
        for step in 0..=room {
            let k = if shrinking { step } else { room - step };
            weight += term;
            queue += term * k as f64;
            end = term;
            if term < f64::MIN_POSITIVE {
                end = 0.0; // so near 0 products stop shrinking
                break;
            }
            term *= ratio;
        }
        let (first, last) = if shrinking { (1.0, end) } else { (end, 1.0) };
        Self { first, last, weight, queue }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mmc, erlang_b, near};
    use super::*;
    use proptest::prelude::*;

    fn solve(arrival_rate_per_s: f64, service_mean_s: f64, servers: u64, places: u64) -> FiniteQueue {
        FiniteQueue::new(Station { arrival_rate_per_s, service_mean_s, servers }, places).unwrap()
    }

    #[test]
    fn car_inspection_matches_the_textbook() {
        // Gross et al. 2008, §2.5, the example of a car inspection: 1 car/min, 3 stalls of 6 min, 4 waiting places (K = 7):
        // L_q = 3.09, L = 6.06, 30.3 cars turned away per hour.
        let queue = solve(1.0 / 60.0, 360.0, 3, 7);
        near::check(queue.queue_mean(), 3.09, 5e-3);
        near::check(queue.accepted_rate_per_s() * queue.sojourn_mean_s(), 6.06, 5e-3);
        near::check(queue.blocking() * 60.0, 30.3, 0.05);
    }

    #[test]
    fn no_waiting_room_is_erlang_b() {
        let queue = solve(9.0, 8.0, 80, 80);
        near::check(queue.blocking(), erlang_b(72.0, 80).unwrap(), 1e-15);
        assert_eq!((queue.wait_mean_s(), queue.wait_probability()), (0.0, 0.0));
    }

    #[test]
    fn endless_room_is_erlang_c() {
        let station = Station { arrival_rate_per_s: 9.0, service_mean_s: 8.0, servers: 80 };
        let (endless, finite) = (Mmc::new(station).unwrap(), FiniteQueue::new(station, 100_000).unwrap());
        near::check(finite.wait_mean_s(), endless.wait_mean_s(), 1e-12);
        near::check(finite.wait_probability(), endless.wait_probability(), 1e-12);
        assert_eq!(finite.blocking(), 0.0);
    }

    #[test]
    fn load_of_one_has_equal_terms() {
        // M/M/1/K at ρ = 1: all K + 1 states are equally likely.
        let queue = solve(1.0, 1.0, 1, 9);
        near::check(queue.blocking(), 0.1, 1e-15);
        near::check(queue.queue_mean(), (1..9).sum::<u64>() as f64 * 0.1, 1e-12);
    }

    #[test]
    fn heavy_overload_blocks_what_cannot_be_served() {
        let queue = solve(1000.0, 8.0, 800, 1_000_000);
        near::check(queue.blocking(), 0.9, 1e-9);
        near::check(queue.wait_mean_s(), (1_000_000.0 - 800.0) / 100.0, 0.01);
    }

    #[test]
    fn bad_arguments_are_named() {
        let station = Station { arrival_rate_per_s: 1.0, service_mean_s: 1.0, servers: 3 };
        assert_eq!(
            FiniteQueue::new(station, 2).unwrap_err().to_string(),
            "2 places are fewer than the 3 servers in them; give at least 3"
        );
        assert!(matches!(FiniteQueue::new(station, u64::MAX), Err(TheoryError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn flow_is_conserved(rate in 0.0f64..200.0, servers in 1u64..200, room in 0u64..500) {
            let queue = solve(rate, 8.0, servers, servers + room);
            let busy = queue.accepted_rate_per_s() * 8.0;
            prop_assert!((0.0..=1.0).contains(&queue.blocking()));
            prop_assert!((0.0..=1.0).contains(&queue.wait_probability()));
            prop_assert!(busy <= servers as f64 * (1.0 + 1e-12), "{busy} busy of {servers}");
            prop_assert!(queue.queue_mean() <= room as f64 * (1.0 + 1e-12));
        }
    }
}
