//! Square-root staffing: how many servers beyond the offered load buy a given chance of waiting.
//!
//! Source: S. Halfin, W. Whitt, "Heavy-traffic limits for queues with many exponential servers",
//! Operations Research 29 (1981). Limits for large `n`; [`super::servers_for_wait`] is exact.

use super::{SERVERS_LIMIT, TheoryError, check_not_negative, check_positive, check_probability};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Beyond this `β` the chance of waiting is below 10⁻¹⁷⁰⁰⁰ and prints as 0.
const BETA_LIMIT: f64 = 40.0;

/// Servers by the square-root rule: `n = ⌈a + β√a⌉`, at least 1, for `a = offered` erlang.
///
/// # Errors
/// A load that is negative or not finite, a `β` that is not above 0, or more servers than [`SERVERS_LIMIT`].
pub fn square_root_servers(offered: f64, beta: f64) -> Result<u64, TheoryError> {
    check_not_negative("offered load", offered)?;
    check_positive("beta", beta)?;
    let servers = (offered + beta * offered.sqrt()).ceil().max(1.0);
    let limit = SERVERS_LIMIT as f64;
    if servers > limit {
        return Err(TheoryError::TooLarge { name: "number of servers", value: servers, limit });
    }
    Ok(servers as u64)
}

/// Chance of waiting in the limit `n → ∞` with `n = a + β√a`:
/// `P(W > 0) = [1 + βΦ(β)/φ(β)]⁻¹`, `Φ` and `φ` the standard normal distribution and density.
///
/// # Errors
/// A `β` that is not above 0 (the queue would be unstable) or not finite.
pub fn halfin_whitt_wait_probability(beta: f64) -> Result<f64, TheoryError> {
    check_positive("beta", beta)?;
    Ok(wait_probability(beta))
}

/// The `β` at which the chance of waiting is `probability`: inverse of [`halfin_whitt_wait_probability`].
///
/// Accurate to 1e-12 in `β`.
///
/// # Errors
/// A `probability` that is not strictly between 0 and 1, or so small that `β` would exceed 40.
pub fn beta_for_wait_probability(probability: f64) -> Result<f64, TheoryError> {
    check_probability("chance of waiting", probability)?;
    let (mut low, mut high) = (0.0, BETA_LIMIT);
    if wait_probability(high) > probability {
        return Err(TheoryError::NotProbability { name: "chance of waiting", value: probability });
    }
    // The chance falls with β; 46 halvings bring 40 below 1e-12.
    for _ in 0..46 {
        let middle = 0.5 * (low + high);
        if wait_probability(middle) > probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(0.5 * (low + high))
}

fn wait_probability(beta: f64) -> f64 {
    let density = libm::exp(-0.5 * beta * beta) / (2.0 * PI).sqrt();
    let distribution = 0.5 * libm::erfc(-beta * FRAC_1_SQRT_2);
    density / (density + beta * distribution)
}

#[cfg(test)]
mod tests {
    use super::super::{erlang_c, near};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn chance_of_waiting_matches_reference_values() {
        let cases = [(0.25, 0.721), (0.5, 0.504), (0.8, 0.315), (1.0, 0.223), (1.5, 0.085), (2.0, 0.027)];
        for (beta, expected) in cases {
            near::check(halfin_whitt_wait_probability(beta).unwrap(), expected, 6e-4);
        }
    }

    #[test]
    fn rule_rounds_up() {
        assert_eq!(square_root_servers(100.0, 1.0), Ok(110));
        assert_eq!(square_root_servers(100.5, 1.0), Ok(111));
        assert_eq!(square_root_servers(0.0, 1.0), Ok(1));
    }

    #[test]
    fn large_queues_reach_the_limit() {
        for beta in [0.25, 1.0, 2.0] {
            let servers = square_root_servers(250_000.0, beta).unwrap();
            let exact = erlang_c(250_000.0, servers).unwrap();
            near::check(exact, halfin_whitt_wait_probability(beta).unwrap(), 2e-3);
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        assert_eq!(
            halfin_whitt_wait_probability(0.0).unwrap_err().to_string(),
            "beta is 0; give a finite number above zero"
        );
        assert!(matches!(square_root_servers(1e12, 1.0), Err(TheoryError::TooLarge { .. })));
        assert!(matches!(beta_for_wait_probability(1.0), Err(TheoryError::NotProbability { .. })));
    }

    proptest! {
        #[test]
        fn inverse_returns_the_beta(beta in 0.001f64..8.0) {
            let probability = halfin_whitt_wait_probability(beta).unwrap();
            let back = beta_for_wait_probability(probability).unwrap();
            prop_assert!((back - beta).abs() < 1e-9, "{beta} became {back}");
        }
    }
}
