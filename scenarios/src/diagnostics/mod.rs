//! What is wrong with a scenario, where, and what to do about it. Holds no rule about scenarios and prints nothing.

mod problems;
mod source;

use std::ops::Range;

pub(crate) use problems::{Key, Problems, nearest_name};
pub use source::{Place, Source};

/// Which kind of mistake it is; [`ErrorKind::code`] is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// A file could not be read.
    Read,
    /// The text is not TOML.
    Syntax,
    /// A key that no scenario has.
    UnknownKey,
    /// A value of the wrong type, without its unit, or out of range by itself.
    Value,
    /// Something that must be said is not.
    Missing,
    /// A name that refers to nothing.
    Reference,
    /// Values that contradict each other.
    Conflict,
    /// A name that is used twice.
    Duplicate,
    /// Something that leads back to itself.
    Cycle,
    /// A number that does not fit.
    Overflow,
    /// A price that is not known.
    Price,
    /// A system that can never do its work.
    Capacity,
    /// An override that cannot be applied.
    Override,
}

impl ErrorKind {
    /// The name used in messages and in JSON, e.g. `scenario::unknown-key`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Read => "scenario::read",
            Self::Syntax => "scenario::syntax",
            Self::UnknownKey => "scenario::unknown-key",
            Self::Value => "scenario::value",
            Self::Missing => "scenario::missing",
            Self::Reference => "scenario::reference",
            Self::Conflict => "scenario::conflict",
            Self::Duplicate => "scenario::duplicate",
            Self::Cycle => "scenario::cycle",
            Self::Overflow => "scenario::overflow",
            Self::Price => "scenario::price",
            Self::Capacity => "scenario::capacity",
            Self::Override => "scenario::override",
        }
    }
}

/// One mistake in a scenario.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{message}", key_prefix(.key))]
pub struct ScenarioError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    pub(crate) key: String,
    pub(crate) help: Option<String>,
    pub(crate) place: Option<Place>,
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

impl ScenarioError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), key: String::new(), help: None, place: None }
    }

    /// Which kind of mistake it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Stable name of the kind, e.g. `scenario::unknown-key`.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// What is wrong, without the key path that [`std::fmt::Display`] puts before it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Dotted path of the key at fault, e.g. `fleet.pool.main.price`; empty for the whole file.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Name of the file (or override) at fault, as it was given; `None` when no text is at fault.
    pub fn source_name(&self) -> Option<&str> {
        self.place.as_ref().map(|place| place.source.name.as_str())
    }

    /// Whole text of that file.
    pub fn source_text(&self) -> Option<&str> {
        self.place.as_ref().map(|place| place.source.text.as_str())
    }

    /// Bytes of [`ScenarioError::source_text`] at fault.
    pub fn span(&self) -> Option<Range<usize>> {
        self.place.as_ref().map(|place| place.range.clone())
    }

    /// Line and column at fault, counted from 1, columns in characters.
    pub fn line_column(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(Place::line_column)
    }
}
