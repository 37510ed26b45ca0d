//! What the plane's numbers are called: classes, regions, stages and levels of quality, and its clock in calendar time.

use jiff::Timestamp;
use policy::units::Instant;

use crate::clock::{Clock, unix_ms};
use crate::plane::Rules;

/// Names of a system's parts, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Classes of jobs; at least one, the first is the default.
    pub classes: Vec<String>,
    /// Regions of clients; at least one, the first is the default.
    pub regions: Vec<String>,
    /// Stages of the pipeline.
    pub stages: Vec<String>,
    /// Levels of quality.
    pub qualities: Vec<String>,
}

impl Names {
    /// The names in a plane's rules.
    pub fn of(rules: &Rules) -> Self {
        let system = &rules.system;
        Self {
            classes: system.classes.iter().map(|class| class.name.clone()).collect(),
            regions: system.regions.iter().map(|region| region.name.clone()).collect(),
            stages: system.stages.iter().map(|stage| stage.name.clone()).collect(),
            qualities: system.qualities.iter().map(|quality| quality.name.clone()).collect(),
        }
    }

    /// A name; the empty one for a number that no longer has any.
    pub(crate) fn name(list: &[String], number: u16) -> &str {
        list.get(usize::from(number)).map_or("", String::as_str)
    }
}

/// Calendar time of the plane's instants.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// Unix time of the plane's start, milliseconds.
    start_ms: i64,
}

impl Calendar {
    /// The calendar of a clock.
    pub fn new(clock: Clock) -> Self {
        let now_ms = clock.now().as_nanos() / 1_000_000;
        Self { start_ms: unix_ms() as i64 - now_ms as i64 }
    }

    /// To the millisecond.
    pub fn at(self, instant: Instant) -> Timestamp {
        let ms = self.start_ms.saturating_add((instant.as_nanos() / 1_000_000) as i64);
        Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
    }
}
