//! Open Jackson networks: Poisson arrivals from outside, exponential service, random routing.
//!
//! Every node behaves as an M/M/n queue of its total arrival rate. Source: J. R. Jackson, "Networks of
//! waiting lines", Operations Research 5 (1957).

use super::{Mmc, Station, TheoryError, check_not_negative};

/// Shares of a routing row may exceed 1 by this much: rounding of decimal fractions.
const SHARE_TOLERANCE: f64 = 1e-9;

/// Pivots below this count as zero: less than a billionth of the jobs ever leaves.
const PIVOT_MIN: f64 = 1e-9;

/// One node: what arrives from outside, and its servers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JacksonNode {
    /// `γ`, arrivals per second from outside the network.
    pub external_rate_per_s: f64,
    /// Mean service time in seconds.
    pub service_mean_s: f64,
    /// Servers.
    pub servers: u64,
}

/// An open network: nodes, and where jobs go next.
#[derive(Debug, Clone, PartialEq)]
pub struct JacksonNetwork {
    nodes: Vec<JacksonNode>,
    routing: Vec<Vec<f64>>,
}

impl JacksonNetwork {
    /// A network in which a job that leaves node `i` goes to node `j` with probability `routing[i][j]`,
    /// and out of the network with the rest.
    ///
    /// # Errors
    /// A table that is not square, or shares that are negative or add up to more than 1.
    pub fn new(nodes: Vec<JacksonNode>, routing: Vec<Vec<f64>>) -> Result<Self, TheoryError> {
        if routing.len() != nodes.len() || routing.iter().any(|row| row.len() != nodes.len()) {
            return Err(TheoryError::RoutingShape { nodes: nodes.len(), rows: routing.len() });
        }
        for node in &nodes {
            check_not_negative("arrival rate from outside", node.external_rate_per_s)?;
        }
        for (node, row) in routing.iter().enumerate() {
            if let Some(&value) = row.iter().find(|share| !(share.is_finite() && **share >= 0.0)) {
                return Err(TheoryError::RoutingShare { node, value });
            }
            let value: f64 = row.iter().sum();
            if value > 1.0 + SHARE_TOLERANCE {
                return Err(TheoryError::RoutingShare { node, value });
            }
        }
        Ok(Self { nodes, routing })
    }

    /// Total arrival rates `λ_j = γ_j + Σ_i λ_i p_ij`, per second and node.
    ///
    /// # Errors
    /// [`TheoryError::Closed`] where jobs can reach nodes that they can never leave.
    pub fn arrival_rates_per_s(&self) -> Result<Vec<f64>, TheoryError> {
        let count = self.nodes.len();
        // (I − Pᵀ) λ = γ, the right-hand side as the last column.
        let mut system: Vec<Vec<f64>> = (0..count)
            .map(|j| {
                let row = (0..count).map(|i| f64::from(u8::from(i == j)) - self.routing[i][j]);
                row.chain([self.nodes[j].external_rate_per_s]).collect()
            })
            .collect();
        eliminate(&mut system)?;
        let mut rates = vec![0.0; count];
        for j in (0..count).rev() {
            let known: f64 = (j + 1..count).map(|i| system[j][i] * rates[i]).sum();
            rates[j] = ((system[j][count] - known) / system[j][j]).max(0.0);
        }
        Ok(rates)
    }

    /// Solves every node.
    ///
    /// # Errors
    /// As [`Self::arrival_rates_per_s`]; and the first node that is unstable or out of range.
    pub fn solve(&self) -> Result<JacksonSolution, TheoryError> {
        let rates = self.arrival_rates_per_s()?;
        let nodes = self.nodes.iter().zip(rates).map(|(node, arrival_rate_per_s)| {
            Mmc::new(Station {
                arrival_rate_per_s,
                service_mean_s: node.service_mean_s,
                servers: node.servers,
            })
        });
        let external_rate_per_s = self.nodes.iter().map(|node| node.external_rate_per_s).sum();
        Ok(JacksonSolution { nodes: nodes.collect::<Result<_, _>>()?, external_rate_per_s })
    }
}

/// Gaussian elimination with row pivoting of an augmented system, to upper triangular form.
fn eliminate(system: &mut [Vec<f64>]) -> Result<(), TheoryError> {
    let count = system.len();
    for column in 0..count {
        let pivot = (column..count)
            .max_by(|&x, &y| system[x][column].abs().total_cmp(&system[y][column].abs()))
            .expect("the range holds at least `column`");
        if system[pivot][column].abs() < PIVOT_MIN {
            return Err(TheoryError::Closed { node: column });
        }
        system.swap(column, pivot);
        let (above, below) = system.split_at_mut(column + 1);
        let pivot_row = &above[column];
        for row in below {
            let factor = row[column] / pivot_row[column];
            for (value, pivot_value) in row.iter_mut().zip(pivot_row).skip(column) {
                *value -= factor * pivot_value;
            }
        }
    }
    Ok(())
}

/// A solved network.
#[derive(Debug, Clone, PartialEq)]
pub struct JacksonSolution {
    nodes: Vec<Mmc>,
    external_rate_per_s: f64,
}

impl JacksonSolution {
    /// The nodes as M/M/n queues of their total arrival rates, in the order given.
    pub fn nodes(&self) -> &[Mmc] {
        &self.nodes
    }

    /// Mean number of visits of one job to `node`: `λ_node/Σγ`; 0 where nothing arrives.
    pub fn visits_mean(&self, node: usize) -> f64 {
        if self.external_rate_per_s == 0.0 {
            return 0.0;
        }
        self.nodes[node].station().arrival_rate_per_s / self.external_rate_per_s
    }

    /// Mean number of jobs in the network.
    pub fn present_mean(&self) -> f64 {
        self.nodes.iter().map(Mmc::present_mean).sum()
    }

    /// Mean time of a job in the network in seconds (Little: jobs present over `Σγ`); 0 where nothing arrives.
    pub fn sojourn_mean_s(&self) -> f64 {
        if self.external_rate_per_s == 0.0 {
            return 0.0;
        }
        self.present_mean() / self.external_rate_per_s
    }
}

#[cfg(test)]
mod tests {
    use super::super::near;
    use super::*;
    use proptest::prelude::*;

    fn node(external_rate_per_s: f64, service_mean_s: f64, servers: u64) -> JacksonNode {
        JacksonNode { external_rate_per_s, service_mean_s, servers }
    }

    #[test]
    fn tandem_sojourns_add_up() {
        let nodes = vec![node(0.5, 1.0, 1), node(0.0, 1.5, 1)];
        let network = JacksonNetwork::new(nodes, vec![vec![0.0, 1.0], vec![0.0, 0.0]]).unwrap();
        let solution = network.solve().unwrap();
        // M/M/1 sojourns 1/(μ − λ): 1/(1 − .5) + 1/(2/3 − .5).
        near::check(solution.sojourn_mean_s(), 2.0 + 6.0, 1e-9);
    }

    #[test]
    fn feedback_multiplies_visits() {
        // A quarter of the jobs fails and is tried again: 1/(1 − 1/4) visits.
        let network = JacksonNetwork::new(vec![node(3.0, 0.2, 1)], vec![vec![0.25]]).unwrap();
        let solution = network.solve().unwrap();
        near::check(solution.visits_mean(0), 4.0 / 3.0, 1e-12);
        // λ = 4, μ = 5: one visit takes 1 s, a job 4/3 s.
        near::check(solution.sojourn_mean_s(), 4.0 / 3.0, 1e-9);
    }

    #[test]
    fn three_nodes_with_cross_traffic_match_hand_solution() {
        // λ0 = 10; λ1 = .55·10 + .01 λ2; λ2 = .45·10 + .02 λ1.
        let routing = vec![vec![0.0, 0.55, 0.45], vec![0.0, 0.0, 0.02], vec![0.0, 0.01, 0.0]];
        let nodes = vec![node(10.0, 0.01, 1), node(0.0, 0.3, 3), node(0.0, 1.0, 7)];
        let rates = JacksonNetwork::new(nodes, routing).unwrap().arrival_rates_per_s().unwrap();
        let second = (5.5 + 0.01 * 4.5) / (1.0 - 0.0002);
        for (rate, expected) in rates.iter().zip([10.0, second, 4.5 + 0.02 * second]) {
            near::check(*rate, expected, 1e-12);
        }
    }

    #[test]
    fn bad_networks_are_named() {
        let pair = || vec![node(1.0, 0.1, 1), node(0.0, 0.1, 1)];
        let check = |routing: Vec<Vec<f64>>, expected: TheoryError| {
            let solved = JacksonNetwork::new(pair(), routing).and_then(|network| network.solve());
            assert_eq!(solved.unwrap_err(), expected);
        };
        check(vec![vec![0.0, 1.0]], TheoryError::RoutingShape { nodes: 2, rows: 1 });
        check(vec![vec![0.0, 1.5], vec![0.0, 0.0]], TheoryError::RoutingShare { node: 0, value: 1.5 });
        check(vec![vec![0.0, 0.0], vec![-0.5, 0.0]], TheoryError::RoutingShare { node: 1, value: -0.5 });
        check(vec![vec![0.0, 1.0], vec![1.0, 0.0]], TheoryError::Closed { node: 1 });
        let error =
            JacksonNetwork::new(vec![node(20.0, 0.1, 1)], vec![vec![0.0]]).unwrap().solve().unwrap_err();
        assert_eq!(error, TheoryError::Unstable { offered: 2.0, servers: 1 });
    }

    proptest! {
        #[test]
        fn rates_satisfy_the_traffic_equations(
            shares in prop::collection::vec(0.0f64..0.24, 16),
            external in prop::collection::vec(0.0f64..10.0, 4),
        ) {
            let routing: Vec<Vec<f64>> = shares.chunks(4).map(<[f64]>::to_vec).collect();
            let nodes = external.iter().map(|rate| node(*rate, 1e-3, 1)).collect();
            let rates = JacksonNetwork::new(nodes, routing.clone()).unwrap().arrival_rates_per_s().unwrap();
            for j in 0..4 {
                let inflow: f64 = (0..4).map(|i| rates[i] * routing[i][j]).sum();
                prop_assert!((rates[j] - external[j] - inflow).abs() < 1e-9 * (1.0 + rates[j]));
            }
        }
    }
}
