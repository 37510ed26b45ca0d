//! Collects mistakes while a scenario is resolved, so that one look shows them all.

use std::fmt::Display;

use super::{ErrorKind, ScenarioError};
use crate::file::Node;

/// Most mistakes reported at once.
const PROBLEMS_MAX: usize = 50;

/// Where a value stands in a scenario: names of tables, keys and positions in arrays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key(Vec<String>);

impl Key {
    /// The path of the whole file.
    pub(crate) fn root() -> Self {
        Self::default()
    }

    /// The path `dotted`, whose steps hold no dots themselves.
    pub(crate) fn of(dotted: &str) -> Self {
        Self(dotted.split('.').map(str::to_owned).collect())
    }

    /// The path one step further in.
    pub(crate) fn at(&self, step: impl Display) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.to_string());
        Self(steps)
    }

    /// The path one step further out.
    pub(crate) fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// The path with `step` in front.
    pub(crate) fn prepend(&mut self, step: impl Display) {
        self.0.insert(0, step.to_string());
    }

    /// Whether `other` lies at or below this path.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The steps from the outside in.
    pub(crate) fn steps(&self) -> &[String] {
        &self.0
    }
}

impl Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            let bare = step.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
            let dot = if place > 0 { "." } else { "" };
            if bare { write!(out, "{dot}{step}")? } else { write!(out, "{dot}\"{step}\"")? }
        }
        Ok(())
    }
}

/// Mistakes found so far, and the tree in which their places are looked up.
pub(crate) struct Problems<'t> {
    tree: &'t Node,
    found: Vec<ScenarioError>,
}

impl<'t> Problems<'t> {
    pub(crate) fn new(tree: &'t Node) -> Self {
        Self { tree, found: Vec::new() }
    }

    /// Notes a mistake at `key`; the place is the value there, or the innermost table around it that exists.
    pub(crate) fn add(&mut self, kind: ErrorKind, key: &Key, message: impl Into<String>) {
        self.push(kind, key, message.into(), None);
    }

    /// Notes a mistake together with its remedy.
    pub(crate) fn add_with_help(
        &mut self,
        kind: ErrorKind,
        key: &Key,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(kind, key, message.into(), Some(help.into()));
    }

    fn push(&mut self, kind: ErrorKind, key: &Key, message: String, help: Option<String>) {
        if self.found.len() < PROBLEMS_MAX {
            let place = self.tree.place_of(key);
            self.found.push(ScenarioError { kind, message, key: self.tree.shown(key), help, place });
        }
    }

    /// Notes `error` at `key` and gives nothing, or gives the value.
    pub(crate) fn check<T, E: Display>(
        &mut self,
        kind: ErrorKind,
        key: &Key,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.add(kind, key, error.to_string())).ok()
    }

    /// Looks `name` up among `known`, and notes an unknown name with the nearest known one.
    pub(crate) fn find<S: AsRef<str>>(
        &mut self,
        key: &Key,
        what: &str,
        name: &str,
        known: &[S],
    ) -> Option<usize> {
        let position = known.iter().position(|candidate| candidate.as_ref() == name);
        if position.is_none() {
            let names: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
            let help = match nearest_name(name, &names) {
                Some(near) => format!("did you mean `{near}`?"),
                None if names.is_empty() => format!("this scenario has no {what} at all"),
                None => format!("there are: {}", names.join(", ")),
            };
            self.add_with_help(ErrorKind::Reference, key, format!("there is no {what} `{name}`"), help);
        }
        position
    }

    /// Whether nothing was found wrong so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Everything found wrong.
    pub(crate) fn into_errors(self) -> Vec<ScenarioError> {
        self.found
    }
}

/// The one of `known` that `name` most likely meant; `None` when nothing is near.
pub(crate) fn nearest_name<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let scored = known.iter().map(|candidate| {
        let closeness = strsim::jaro_winkler(name, candidate);
        (closeness, *candidate)
    });
    let best = scored.fold(
        (0.0, None),
        |best: (f64, Option<&str>), (closeness, candidate)| {
            if closeness > best.0 { (closeness, Some(candidate)) } else { best }
        },
    );
    best.1.filter(|_| best.0 >= 0.75)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest_name("horzion", &["seed", "horizon", "warmup"]), Some("horizon"));
        assert_eq!(nearest_name("zzz", &["seed", "horizon"]), None);
    }

    #[test]
    fn key_paths_quote_what_needs_quotes() {
        let key = Key::root().at("network").at("round_trip").at("us-east-1/eu-west-1");
        assert_eq!(key.to_string(), "network.round_trip.\"us-east-1/eu-west-1\"");
        assert!(key.parent().contains(&key) && !key.contains(&key.parent()));
    }
}
