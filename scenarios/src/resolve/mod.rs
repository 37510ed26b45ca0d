//! Makes the typed [`Scenario`] from its file: fills in defaults, finds what names refer to, checks what values say
//! together. Every mistake is noted; a value that stands in for a mistaken one never leaves this module.

mod fleet;
mod law;
mod limits;
mod names;
mod network;
mod pipeline;
mod policies;
mod run;
mod storage;
mod workload;

use std::path::{Path, PathBuf};

use policy::model::{System, SystemError};
use policy::units::{Duration, Ratio};

use crate::diagnostics::{ErrorKind, Key, Problems, ScenarioError};
use crate::file::{Node, ScenarioFile};
use crate::scenario::Scenario;
use names::Names;

/// What a scenario is made from.
pub(crate) struct Input<'a> {
    /// The file, read.
    pub(crate) file: &'a ScenarioFile,
    /// The same as a tree, for places.
    pub(crate) tree: &'a Node,
    /// Name of a scenario that states none.
    pub(crate) stem: &'a str,
    /// Folder that paths are relative to, unless they stand in a file that this one extends.
    pub(crate) base_dir: &'a Path,
    /// SHA-256 of the resolved text.
    pub(crate) digest: String,
}

/// What every part of the resolution needs.
struct Resolver<'a> {
    file: &'a ScenarioFile,
    tree: &'a Node,
    base_dir: &'a Path,
    names: Names,
    problems: Problems<'a>,
}

/// Makes the scenario, or tells everything that is wrong.
pub(crate) fn resolve(input: Input<'_>) -> Result<Scenario, Vec<ScenarioError>> {
    let Input { file, tree, stem, base_dir, digest } = input;
    let mut problems = Problems::new(tree);
    let names = Names::gather(file, &mut problems);
    let mut resolver = Resolver { file, tree, base_dir, names, problems };

    let tiers = resolver.tiers();
    let (pools, worlds) = resolver.pools();
    let (stages, works) = resolver.stages(&tiers, &pools);
    let run = resolver.run();
    let objective = resolver.objective();
    let plan = resolver.plan();
    let system = System {
        regions: resolver.regions(),
        classes: resolver.classes(),
        slot_kinds: resolver.names.slot_kinds.clone(),
        pool_classes: resolver.names.pool_classes.clone(),
        stages,
        pools,
        qualities: resolver.qualities(),
        queue_order: resolver.queue_order(),
        queue_per_slot_max: resolver.queue_per_slot_max(),
        policies: resolver.policies(),
    };
    let scenario = Scenario {
        name: file.name.clone().unwrap_or_else(|| stem.to_owned()),
        description: file.description.clone().unwrap_or_default(),
        spans: resolver.spans(&works),
        stages: works,
        pools: worlds,
        tiers,
        workload: resolver.sources(),
        clients: resolver.clients(),
        network: resolver.network(),
        queue: resolver.queue_prices(),
        objective,
        windows: resolver.windows(run.horizon),
        run,
        plan,
        system,
        digest,
    };
    if resolver.problems.is_empty() {
        if let Err(error) = scenario.system.check() {
            resolver.note_system_error(&scenario.system, &error);
        } else {
            limits::check(&scenario, &mut resolver.problems);
        }
    }
    if resolver.problems.is_empty() { Ok(scenario) } else { Err(resolver.problems.into_errors()) }
}

impl Resolver<'_> {
    /// Notes what the types of the system cannot express, at the table it is about.
    fn note_system_error(&mut self, system: &System, error: &SystemError) {
        let (kind, key) = match error {
            SystemError::Empty { .. } => (ErrorKind::Missing, Key::root()),
            SystemError::NoServingRegion => (ErrorKind::Capacity, Key::of("policy.routing")),
            SystemError::TooMany { .. } => (ErrorKind::Overflow, Key::root()),
            SystemError::NoPool { stage, .. } | SystemError::NoCapacity { stage, .. } => {
                let index = system.stages.iter().position(|known| known.name == *stage);
                (ErrorKind::Capacity, Key::of("pipeline.stage").at(index.unwrap_or(0)))
            }
            SystemError::Counts { pool, .. } => (ErrorKind::Conflict, Key::of("fleet.pool").at(pool)),
        };
        self.problems.add(kind, &key, error.to_string());
    }

    /// `value` if it is a number above 0 (and finite), else notes that it is not.
    fn positive(&mut self, key: &Key, value: f64) -> f64 {
        if !(value.is_finite() && value > 0.0) {
            self.problems.add(ErrorKind::Value, key, format!("`{value}` must be a number above 0"));
        }
        value
    }

    /// `value` if it is a number from 0 up (and finite), else notes that it is not.
    fn not_negative(&mut self, key: &Key, value: f64) -> f64 {
        if !(value.is_finite() && value >= 0.0) {
            self.problems.add(ErrorKind::Value, key, format!("`{value}` must not be negative"));
        }
        value
    }

    /// `value` if it lasts, else notes that it must.
    fn lasting(&mut self, key: &Key, value: Duration) -> Duration {
        if value == Duration::ZERO {
            self.problems.add(ErrorKind::Value, key, "the duration must be above 0 s");
        }
        value
    }

    /// `value` if it is at least 1, else notes that it is not.
    fn at_least_one(&mut self, key: &Key, value: u32) -> u32 {
        if value == 0 {
            self.problems.add(ErrorKind::Value, key, "`0` must be at least 1");
        }
        value
    }

    /// The path of a file that the text at `key` names, if there is such a file.
    fn existing_file(&mut self, key: &Key, text: &str) -> PathBuf {
        let place = self.tree.place_of(key);
        let dir = place.as_ref().and_then(|place| place.source.dir.as_deref()).unwrap_or(self.base_dir);
        let path = dir.join(text);
        if !path.is_file() {
            let help = format!("paths are relative to the scenario; looked for `{}`", path.display());
            self.problems.add_with_help(ErrorKind::Read, key, format!("there is no file `{text}`"), help);
        }
        path
    }
}

/// The share that a default states.
fn share(value: f64) -> Ratio {
    Ratio::new(value).expect("defaults are shares between 0 and 1")
}
