//! Recorded inputs of a scenario, read once and shared by all replications.

use std::sync::Arc;

use scenarios::scenario::{Arrivals, Scenario};
use scenarios::trace::{ImportOptions, SpotAvailability, Trace, TraceError};

/// Recorded inputs of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The trace of each source that has one, by source.
    pub traces: Vec<Option<Arc<Trace>>>,
    /// The availability of each pool that has one, by pool.
    pub availability: Vec<Option<Arc<SpotAvailability>>>,
}

impl Inputs {
    /// Reads what the scenario names.
    ///
    /// # Errors
    /// [`TraceError`] naming the file, the line and the remedy.
    pub fn load(scenario: &Scenario) -> Result<Self, TraceError> {
        let mut inputs = Self::default();
        for source in &scenario.workload {
            inputs.traces.push(match &source.arrivals {
                Arrivals::Generator(_) => None,
                Arrivals::Trace(trace) => {
                    Some(Arc::new(Trace::import(&trace.path, &ImportOptions::default())?))
                }
            });
        }
        for pool in &scenario.pools {
            inputs.availability.push(match &pool.interruption.trace {
                None => None,
                Some(trace) => Some(Arc::new(SpotAvailability::read(&trace.path)?)),
            });
        }
        Ok(inputs)
    }
}
