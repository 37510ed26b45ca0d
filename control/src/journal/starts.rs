//! Under which scenario and settings each plane of a journal ran: `starts.jsonl` in the data folder, one line per start.
//! A journal holds what happened; this says to what.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plane::{Rules, Served, ServedError};

/// Name of the file.
const FILE: &str = "starts.jsonl";

/// One start of a plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Which plane's turn it was.
    pub epoch: u64,
    /// Unix time, milliseconds.
    pub unix_ms: u64,
    /// Digest of the scenario's text.
    pub scenario_sha256: String,
    /// What it was started with.
    #[serde(flatten)]
    pub served: Served,
    /// Whether the journal says it too, as [`crate::command::Command::Served`]. Planes of earlier releases did not, and
    /// folded all of the journal under their own rules.
    #[serde(default)]
    pub in_journal: bool,
}

/// Starts that cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum StartsError {
    /// The file.
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    /// A line is none of this program's.
    #[error("{path} line {line} cannot be read: {why}")]
    Line { path: PathBuf, line: usize, why: String },
    /// What was served cannot be used any more.
    #[error("what plane {epoch} served cannot be used: {error}")]
    Served { epoch: u64, error: ServedError },
}

impl Start {
    /// The start of a plane under `rules`; `None` where they have no text.
    pub fn of(epoch: u64, unix_ms: u64, rules: &Rules) -> Option<Self> {
        let served = Served::of(rules)?;
        Some(Self { epoch, unix_ms, scenario_sha256: rules.digest.clone(), served, in_journal: true })
    }

    /// The rules that the plane had; the secret is the store's.
    ///
    /// # Errors
    /// [`StartsError::Served`].
    pub fn rules(&self, secret: [u8; 32]) -> Result<Rules, StartsError> {
        self.served.rules(secret).map_err(|error| StartsError::Served { epoch: self.epoch, error })
    }
}

/// Adds a start to the data folder, durably, before the plane does anything. A line that a plane left torn, in a crash or
/// for want of room, goes: that plane never began, and what is written behind it could not be told from it.
///
/// # Errors
/// [`StartsError::Io`].
pub fn note_start(folder: &Path, start: &Start) -> Result<(), StartsError> {
    let path = folder.join(FILE);
    let write = || {
        let mut line = serde_json::to_vec(start).map_err(std::io::Error::other)?;
        line.push(b'\n');
        let mut file = std::fs::File::options().create(true).read(true).append(true).open(&path)?;
        let mut known = Vec::new();
        file.read_to_end(&mut known)?;
        let whole = known.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        match &known[whole..] {
            [] => {}
            last if serde_json::from_slice::<Start>(last).is_ok() => line.insert(0, b'\n'),
            _ => file.set_len(whole as u64)?,
        }
        file.write_all(&line)?;
        file.sync_data()
    };
    write().map_err(|error| {
        let error = match error.kind() {
            std::io::ErrorKind::StorageFull => {
                std::io::Error::new(error.kind(), "no room is left; free some and start the plane again")
            }
            _ => error,
        };
        StartsError::Io { path: path.clone(), error }
    })
}

/// The starts of the journal in `folder`, by epoch; none where they were not noted. Of two with one epoch the later
/// counts: the first plane died before its first commit.
///
/// # Errors
/// [`StartsError::Io`] or [`StartsError::Line`].
pub fn read_starts(folder: &Path) -> Result<Vec<Start>, StartsError> {
    let path = folder.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StartsError::Io { path, error }),
    };
    let mut starts: Vec<Start> = Vec::new();
    let count = text.lines().count();
    for (index, line) in text.lines().enumerate() {
        match serde_json::from_str::<Start>(line) {
            Ok(start) => {
                starts.retain(|known| known.epoch < start.epoch);
                starts.push(start);
            }
            // A crash may leave the last line torn; that plane never began.
            Err(_) if index + 1 == count && !text.ends_with('\n') => {}
            Err(error) => {
                return Err(StartsError::Line { path, line: index + 1, why: error.to_string() });
            }
        }
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use scenarios::scenario::compressed;

    use super::*;
    use crate::plane::{Patience, ScenarioText};
    use crate::specimen::specimen;

    fn start(epoch: u64) -> Start {
        let loaded = specimen(2);
        let scenario = compressed(loaded.scenario, 4.0);
        let mut rules = Rules::new(&scenario, 3, [1; 32], Patience::default()).unwrap();
        rules.joined.insert(rules.pool("own").unwrap());
        rules.text = Some(ScenarioText { toml: loaded.resolved_toml, compress: 4.0 });
        let start = Start::of(epoch, 99, &rules).unwrap();
        assert_eq!(start.rules([1; 32]).unwrap(), rules, "a start gives its rules back");
        start
    }

    #[test]
    fn starts_are_read_as_they_were_noted_and_a_torn_last_line_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_starts(folder.path()).unwrap().is_empty());
        for epoch in [1, 2, 2, 5] {
            note_start(folder.path(), &start(epoch)).unwrap();
        }
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap() + "{\"epoch\": 6, \"unix";
        std::fs::write(&path, &text).unwrap();
        let epochs: Vec<u64> = read_starts(folder.path()).unwrap().iter().map(|start| start.epoch).collect();
        assert_eq!(epochs, [1, 2, 5]);
        note_start(folder.path(), &start(7)).unwrap();
        let epochs: Vec<u64> = read_starts(folder.path()).unwrap().iter().map(|start| start.epoch).collect();
        assert_eq!(epochs, [1, 2, 5, 7], "a plane starts after one that was torn off");
        std::fs::write(&path, text.replace("}\n", "\n")).unwrap();
        assert!(matches!(read_starts(folder.path()), Err(StartsError::Line { line: 1, .. })));
    }
}
