//! A journal that a command reads: the data folder of a plane, running or not, and the scenario that it ran.

use std::path::{Path, PathBuf};

use control::journal::{Start, StartsError, read_starts};
use control::plane::{Patience, Rules};
use control::replay::{Origin, ReplayError, Traffic, live_outcomes};
use control::store::{SqliteStore, Store};
use scenarios::Loaded;
use scenarios::scenario::{Scenario, compressed};

use super::run_args::OverrideArgs;
use super::simulate::with_whole_paths;
use crate::failure::{Failure, Status};
use crate::screen::Screen;

/// A journal, open to be read.
pub(crate) struct Day {
    pub(crate) store: SqliteStore,
    /// The rules of each stretch of which the journal does not say them itself.
    pub(crate) origins: Vec<Origin>,
    /// What the last plane was started with.
    recorded: Rules,
    /// The last scenario that was served.
    pub(crate) served: Served,
    /// Starts that were noted, or 0 where the scenario was named.
    pub(crate) starts: usize,
}

/// A scenario as it was served.
pub(crate) struct Served {
    pub(crate) name: String,
    /// Whole TOML.
    text: String,
    /// So many times as fast it ran.
    compress: f64,
}

impl Served {
    /// The scenario with `overrides`, and beneath `overlay`'s text where there is one.
    ///
    /// # Errors
    /// All mistakes of the text and the overrides.
    pub(crate) fn load(&self, overlay: Option<&Path>, overrides: &[String]) -> Result<Scenario, Failure> {
        Ok(compressed(self.read(overlay, overrides)?.scenario, self.compress))
    }

    fn read(&self, overlay: Option<&Path>, overrides: &[String]) -> Result<Loaded, Failure> {
        let here = std::env::current_dir().unwrap_or_default();
        let Some(overlay) = overlay else {
            return Ok(scenarios::load_str(&self.name, &self.text, &here, overrides)?);
        };
        let unreadable = |error: std::io::Error| {
            let message = format!("{}: {error}", overlay.display());
            Failure::new(Status::InvalidInput, "replay::policy-file", message)
        };
        let text = std::fs::read_to_string(overlay).map_err(unreadable)?;
        let base = tempfile::Builder::new().suffix(".toml").tempfile().map_err(unreadable)?;
        std::fs::write(base.path(), &self.text).map_err(unreadable)?;
        let path = serde_json::Value::from(base.path().display().to_string());
        let whole = format!("extends = {path}\n{text}");
        Ok(scenarios::load_str(&overlay.display().to_string(), &whole, &here, overrides)?)
    }
}

impl Day {
    /// Opens the journal at `path`, a data folder or the file in it. `scenario` is needed for journals whose plane did not
    /// note what it served.
    ///
    /// # Errors
    /// There is no journal, it cannot be read, or its scenario is not known.
    pub(crate) fn open(path: &Path, scenario: Option<&Path>, screen: &Screen) -> Result<Self, Failure> {
        let folder = if path.is_dir() {
            path.to_owned()
        } else {
            path.parent().map_or_else(PathBuf::new, Path::to_owned)
        };
        let store = SqliteStore::read(path).map_err(|error| {
            Failure::new(Status::InvalidInput, "journal::read", error.to_string())
                .with_help("name the data folder of a plane (`headroom serve --data DIR`)")
        })?;
        let starts = read_starts(&folder).map_err(starts_failure)?;
        let secret = store.secret();
        let (origins, recorded, served) = match (starts.last(), scenario) {
            (Some(last), _) => {
                let text = last.served.scenario.clone();
                let served = Served { name: last.served.name.clone(), text, compress: last.served.compress };
                let origin = |start: &Start| {
                    Ok(Origin { epoch: start.epoch, rules: start.rules(secret).map_err(starts_failure)? })
                };
                let unsaid = starts.iter().filter(|start| !start.in_journal);
                let recorded = last.rules(secret).map_err(starts_failure)?;
                (unsaid.map(origin).collect::<Result<_, Failure>>()?, recorded, served)
            }
            (None, Some(file)) => {
                let loaded = super::inputs::load_scenario(file, &OverrideArgs::default(), screen)?;
                screen.warn("the journal does not say how it was served: default settings are taken");
                let rules =
                    Rules::new(&loaded.scenario, 0, secret, Patience::default()).map_err(|error| {
                        Failure::new(Status::InvalidInput, "journal::rules", error.to_string())
                    })?;
                let text = with_whole_paths(&loaded.resolved_toml, file);
                let served = Served { name: loaded.scenario.name, text, compress: 1.0 };
                (vec![Origin { epoch: 1, rules: rules.clone() }], rules, served)
            }
            (None, None) => {
                let message = "under which scenario the journal was written is not noted";
                return Err(Failure::new(Status::InvalidInput, "journal::scenario", message)
                    .with_help("name it: --scenario FILE"));
            }
        };
        Ok(Self { store, origins, recorded, served, starts: starts.len() })
    }

    /// Reads the traffic.
    ///
    /// # Errors
    /// The journal cannot be folded, or nobody came.
    pub(crate) fn traffic(&mut self) -> Result<Traffic, Failure> {
        let traffic = live_outcomes(&mut self.store, &self.origins).map_err(replay_failure)?;
        if traffic.arrivals.is_empty() {
            let message = "no job arrived in this journal";
            return Err(Failure::new(Status::InvalidInput, "journal::empty", message));
        }
        Ok(traffic)
    }

    /// What the numbers of the journal mean: the system of its last plane.
    pub(crate) fn recorded(&self) -> &policy::model::System {
        &self.recorded.system
    }
}

fn starts_failure(error: StartsError) -> Failure {
    Failure::new(Status::InvalidInput, "journal::starts", error.to_string())
}

pub(crate) fn replay_failure(error: ReplayError) -> Failure {
    Failure::new(Status::Failed, "journal::replay", error.to_string())
}
