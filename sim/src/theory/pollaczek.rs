//! Mean waits for general service times: exact for one server, approximate for several.
//!
//! Variability enters as a squared coefficient of variation (variance over squared mean): 0 for a constant,
//! 1 for an exponential. Approximations say so, with their source; only the mean is known, not quantiles.

use super::{Mmc, Station, TheoryError, check_not_negative};

/// How much arrivals and service vary: squared coefficients of variation, each at least 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variability {
    /// `ca²` of the times between arrivals; 1 for a Poisson process.
    pub arrival_scv: f64,
    /// `cs²` of the service times.
    pub service_scv: f64,
}

impl Variability {
    fn check(&self) -> Result<(), TheoryError> {
        check_not_negative("squared variation of arrivals", self.arrival_scv)?;
        check_not_negative("squared variation of service", self.service_scv)
    }
}

/// Mean wait of an M/G/1 queue in seconds, exact (Pollaczek 1930, Khinchine 1932):
/// `E[W] = λ S² (1 + cs²)/(2(1 − ρ))`.
///
/// # Errors
/// Arguments out of range, or an unstable load.
pub fn mg1_wait_mean_s(
    arrival_rate_per_s: f64,
    service_mean_s: f64,
    service_scv: f64,
) -> Result<f64, TheoryError> {
    let station = Station { arrival_rate_per_s, service_mean_s, servers: 1 };
    station.check_stable()?;
    check_not_negative("squared variation of service", service_scv)?;
    let load = station.utilization();
    Ok(load * service_mean_s * (1.0 + service_scv) / (2.0 * (1.0 - load)))
}

/// Mean wait of an M/G/n queue in seconds, approximate: [`ggc_wait_mean_s`] with `ca² = 1`
/// (Lee and Longton 1959).
///
/// # Errors
/// As [`ggc_wait_mean_s`].
pub fn mgc_wait_mean_s(station: Station, service_scv: f64) -> Result<f64, TheoryError> {
    ggc_wait_mean_s(station, Variability { arrival_scv: 1.0, service_scv })
}

/// Mean wait of a G/G/n queue in seconds, approximate (Allen and Cunneen; A. O. Allen, *Probability,
/// Statistics, and Queueing Theory*, 1990): `E[W] ≈ E[W of M/M/n] (ca² + cs²)/2`.
///
/// Exact for M/M/n and M/G/1; good at high load, too high at low load with regular arrivals.
///
/// # Errors
/// Arguments out of range, or an unstable load.
pub fn ggc_wait_mean_s(station: Station, variability: Variability) -> Result<f64, TheoryError> {
    variability.check()?;
    let exponential = Mmc::new(station)?.wait_mean_s();
    Ok(exponential * (variability.arrival_scv + variability.service_scv) / 2.0)
}

/// Upper bound on the mean wait of a GI/G/1 queue in seconds (J. F. C. Kingman, 1962):
/// `E[W] ≤ λ(σa² + σs²)/(2(1 − ρ))`, with `σa² = ca²/λ²` and `σs² = cs² S²`.
///
/// The bound becomes exact as `ρ → 1`.
///
/// # Errors
/// Arguments out of range, no arrivals, or an unstable load.
pub fn kingman_bound_s(
    arrival_rate_per_s: f64,
    service_mean_s: f64,
    variability: Variability,
) -> Result<f64, TheoryError> {
    super::check_positive("arrival rate", arrival_rate_per_s)?;
    let station = Station { arrival_rate_per_s, service_mean_s, servers: 1 };
    station.check_stable()?;
    variability.check()?;
    let arrival_variance = variability.arrival_scv / (arrival_rate_per_s * arrival_rate_per_s);
    let service_variance = variability.service_scv * service_mean_s * service_mean_s;
    Ok(arrival_rate_per_s * (arrival_variance + service_variance) / (2.0 * (1.0 - station.utilization())))
}

#[cfg(test)]
mod tests {
    use super::super::near;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exponential_service_is_mm1_and_constant_service_waits_half() {
        // M/M/1: ρ S/(1 − ρ); M/D/1: half of it.
        near::check(mg1_wait_mean_s(0.8, 1.0, 1.0).unwrap(), 4.0, 1e-12);
        near::check(mg1_wait_mean_s(0.8, 1.0, 0.0).unwrap(), 2.0, 1e-12);
    }

    #[test]
    fn uniform_service_matches_a_direct_second_moment() {
        // Service uniform on [0, 2]: E[S²] = 4/3; E[W] = λ E[S²]/(2(1 − ρ)) with λ = 0.5.
        near::check(mg1_wait_mean_s(0.5, 1.0, 1.0 / 3.0).unwrap(), 0.5 * (4.0 / 3.0) / (2.0 * 0.5), 1e-12);
    }

    #[test]
    fn approximation_is_exact_where_theory_is() {
        let station = Station { arrival_rate_per_s: 90.0, service_mean_s: 1.0, servers: 100 };
        near::check(mgc_wait_mean_s(station, 1.0).unwrap(), 0.021694, 5e-7);
        let single = Station { arrival_rate_per_s: 0.7, service_mean_s: 1.0, servers: 1 };
        near::check(mgc_wait_mean_s(single, 2.5).unwrap(), mg1_wait_mean_s(0.7, 1.0, 2.5).unwrap(), 1e-12);
    }

    #[test]
    fn no_variability_is_no_wait() {
        let station = Station { arrival_rate_per_s: 9.0, service_mean_s: 8.0, servers: 80 };
        let clockwork = Variability { arrival_scv: 0.0, service_scv: 0.0 };
        assert_eq!(ggc_wait_mean_s(station, clockwork), Ok(0.0));
    }

    #[test]
    fn bad_arguments_are_named() {
        assert_eq!(
            mg1_wait_mean_s(0.5, 1.0, -1.0).unwrap_err().to_string(),
            "squared variation of service is -1; give a finite number of at least zero"
        );
        assert!(matches!(mg1_wait_mean_s(1.0, 1.0, 1.0), Err(TheoryError::Unstable { .. })));
        let exponential = Variability { arrival_scv: 1.0, service_scv: 1.0 };
        assert!(matches!(kingman_bound_s(0.0, 1.0, exponential), Err(TheoryError::NotPositive { .. })));
    }

    proptest! {
        #[test]
        fn kingman_bounds_the_exact_wait(load in 0.001f64..0.999, service_scv in 0.0f64..20.0) {
            let exact = mg1_wait_mean_s(load, 1.0, service_scv).unwrap();
            let bound = kingman_bound_s(load, 1.0, Variability { arrival_scv: 1.0, service_scv }).unwrap();
            prop_assert!(exact <= bound * (1.0 + 1e-12), "{exact} above {bound}");
            // For Poisson arrivals the gap is 1/(2λ)·(1 − ρ²)/(1 − ρ) = (1 + ρ)/(2λ).
            prop_assert!((bound - exact - (1.0 + load) / (2.0 * load)).abs() < 1e-9 * bound);
        }
    }
}
