//! Plans as points of cost against latency, and which of them no other plan beats. Draws nothing.

/// One plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanPoint {
    /// Short name, shown beside the point.
    pub label: String,
    /// Cost of a thousand finished jobs, dollars.
    pub usd_per_1000_jobs: f64,
    /// Latency at the objective's percentile, seconds.
    pub latency_s: f64,
    /// Whether the plan meets the whole objective (success share and budget, too).
    pub standing: Standing,
}

/// What the planner says about a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Misses the objective.
    Misses,
    /// Meets the objective.
    Meets,
    /// The plan that is recommended.
    Chosen,
}

/// What a chart of plans shows.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanChart {
    /// Heading.
    pub title: String,
    /// What `latency_s` is, e.g. `p95 latency`.
    pub latency_name: String,
    /// Latest acceptable latency, seconds.
    pub latency_objective_s: Option<f64>,
    /// Plans in any order.
    pub points: Vec<PlanPoint>,
}

/// Why there is nothing to draw.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanChartError {
    /// No points.
    #[error("there is no plan to draw; run the planner with at least one candidate")]
    NoPlans,
    /// A value that no axis can hold.
    #[error("plan `{label}`: {what} {value} is not a finite number of at least 0; leave the plan out")]
    BadValue { label: String, what: &'static str, value: f64 },
}

impl PlanChart {
    /// Checks that the points can be drawn.
    ///
    /// # Errors
    /// No points, or one that is negative or not finite.
    pub(crate) fn check(&self) -> Result<(), PlanChartError> {
        if self.points.is_empty() {
            return Err(PlanChartError::NoPlans);
        }
        let objective = self.latency_objective_s.map(|value| ("objective", "latency", value));
        let values = self.points.iter().flat_map(|point| {
            let label = point.label.as_str();
            [(label, "cost", point.usd_per_1000_jobs), (label, "latency", point.latency_s)]
        });
        match values.chain(objective).find(|(_, _, value)| !(value.is_finite() && *value >= 0.0)) {
            Some((label, what, value)) => {
                Err(PlanChartError::BadValue { label: label.to_owned(), what, value })
            }
            None => Ok(()),
        }
    }

    /// Indices of the plans that no other plan beats in one of cost and latency without losing in the other, by rising
    /// latency. Of equal plans the first stands for all.
    pub fn front(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.points.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&self.points[*a], &self.points[*b]);
            a.latency_s.total_cmp(&b.latency_s).then(a.usd_per_1000_jobs.total_cmp(&b.usd_per_1000_jobs))
        });
        let mut cheapest = f64::INFINITY;
        order.retain(|index| {
            let cost = self.points[*index].usd_per_1000_jobs;
            let on_front = cost < cheapest;
            cheapest = cheapest.min(cost);
            on_front
        });
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> PlanChart {
        let points = points.iter().enumerate().map(|(index, (latency_s, usd_per_1000_jobs))| PlanPoint {
            label: format!("plan {index}"),
            usd_per_1000_jobs: *usd_per_1000_jobs,
            latency_s: *latency_s,
            standing: Standing::Meets,
        });
        PlanChart {
            title: String::new(),
            latency_name: "p95 latency".to_owned(),
            latency_objective_s: None,
            points: points.collect(),
        }
    }

    #[test]
    fn front_holds_the_plans_that_nothing_beats() {
        for (points, front) in [
            (vec![(1.0, 9.0), (2.0, 5.0), (3.0, 6.0), (4.0, 1.0)], vec![0, 1, 3]),
            (vec![(4.0, 1.0), (1.0, 1.0)], vec![1]),
            (vec![(1.0, 1.0), (1.0, 1.0)], vec![0]),
            (vec![(1.0, 2.0), (1.0, 1.0), (0.5, 3.0)], vec![2, 1]),
            (vec![], vec![]),
        ] {
            assert_eq!(chart(&points).front(), front, "{points:?}");
        }
    }

    #[test]
    fn a_plan_without_a_number_is_named() {
        assert_eq!(chart(&[]).check(), Err(PlanChartError::NoPlans));
        let message = chart(&[(1.0, 1.0), (f64::NAN, 2.0)]).check().expect_err("not a number").to_string();
        assert!(message.starts_with("plan `plan 1`: latency NaN"), "{message}");
        let mut objective = chart(&[(1.0, 1.0)]);
        objective.latency_objective_s = Some(-1.0);
        assert!(objective.check().is_err());
    }
}
