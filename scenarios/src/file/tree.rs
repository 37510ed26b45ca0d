//! A TOML document as a tree in which every value knows its place in its text. Knows nothing about scenarios.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table};

use crate::diagnostics::{ErrorKind, Key, Place, ScenarioError, Source};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Option<Place>,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table with its value, in the order of the text.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Option<Place>,
    pub(crate) node: Node,
}

impl Node {
    /// Reads a document.
    pub(crate) fn parse(source: &Arc<Source>) -> Result<Self, Vec<ScenarioError>> {
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        if !errors.is_empty() {
            return Err(errors.iter().map(|error| syntax_error(source, error)).collect());
        }
        let mut wrong = Vec::new();
        let range = document.span();
        let value = Self::table(source, &Key::root(), document.into_inner(), &mut wrong);
        if wrong.is_empty() { Ok(Self { value, place: Some(Place::new(source, range)) }) } else { Err(wrong) }
    }

    /// Reads a single value, as an override gives it.
    pub(crate) fn parse_value(source: &Arc<Source>, start: usize) -> Option<Self> {
        let text = source.text.get(start..)?;
        let parsed = DeValue::parse(text).ok()?;
        let mut wrong = Vec::new();
        let mut node = Self::from_toml(source, &Key::root(), parsed, &mut wrong);
        node.move_to(&Place::new(source, start..source.text.len()));
        wrong.is_empty().then_some(node)
    }

    fn move_to(&mut self, place: &Place) {
        self.place = Some(place.clone());
        match &mut self.value {
            Value::Array(items) => items.iter_mut().for_each(|item| item.move_to(place)),
            Value::Table(entries) => entries.iter_mut().for_each(|entry| {
                entry.key_place = Some(place.clone());
                entry.node.move_to(place);
            }),
            Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {}
        }
    }

    fn table(source: &Arc<Source>, at: &Key, table: DeTable<'_>, wrong: &mut Vec<ScenarioError>) -> Value {
        let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'_>>)| {
            let key_place = Some(Place::new(source, key.span()));
            let key = std::borrow::Cow::<str>::into_owned(key.into_inner());
            let node = Self::from_toml(source, &at.at(&key), value, wrong);
            Entry { key, key_place, node }
        };
        Value::Table(table.into_iter().map(entry).collect())
    }

    fn from_toml(
        source: &Arc<Source>,
        at: &Key,
        value: Spanned<DeValue<'_>>,
        wrong: &mut Vec<ScenarioError>,
    ) -> Self {
        let place = Place::new(source, value.span());
        let mut refuse = |kind, message: String| {
            let mut error = ScenarioError::new(kind, message);
            error.key = at.to_string();
            error.place = Some(place.clone());
            wrong.push(error);
            Value::Boolean(false)
        };
        let value = match value.into_inner() {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => refuse(ErrorKind::Overflow, format!("`{digits}` is too large for a whole number")),
            },
            DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
                Ok(float) if float.is_finite() => Value::Float(float),
                _ => refuse(ErrorKind::Value, format!("`{digits}` is not a finite number")),
            },
            DeValue::Boolean(truth) => Value::Boolean(truth),
            DeValue::Datetime(date) => {
                refuse(ErrorKind::Value, format!("`{date}` is a date; a run counts its time from its start"))
            }
            DeValue::Array(items) => {
                let items = items.into_iter().enumerate();
                Value::Array(
                    items.map(|(index, item)| Self::from_toml(source, &at.at(index), item, wrong)).collect(),
                )
            }
            DeValue::Table(table) => Self::table(source, at, table, wrong),
        };
        Self { value, place: Some(place) }
    }

    /// The value of `key`, when this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text, when this is one.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// What kind of value this is, for messages.
    pub(crate) fn kind_name(&self) -> &'static str {
        match &self.value {
            Value::String(_) => "a text",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// Position of an array's item that `step` names, by its index or by its `name`.
    pub(crate) fn position(items: &[Self], step: &str) -> Option<usize> {
        let named = items.iter().position(|item| item.get("name").and_then(Self::as_str) == Some(step));
        named.or_else(|| step.parse().ok().filter(|index| *index < items.len()))
    }

    /// One step inwards: a key of a table, or an item of an array by index or `name`.
    pub(crate) fn child(&self, step: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(_) => self.get(step),
            Value::Array(items) => Self::position(items, step).map(|index| &items[index]),
            _ => None,
        }
    }

    pub(crate) fn child_mut(&mut self, step: &str) -> Option<&mut Self> {
        match &mut self.value {
            Value::Table(entries) => {
                entries.iter_mut().find(|entry| entry.key == step).map(|entry| &mut entry.node)
            }
            Value::Array(items) => Self::position(items, step).map(|index| &mut items[index]),
            _ => None,
        }
    }

    /// The place of the value at `key`, or of the innermost value around it that exists.
    pub(crate) fn place_of(&self, key: &Key) -> Option<Place> {
        let mut node = self;
        let mut place = None;
        for step in key.steps() {
            let Some(next) = node.child(step) else { break };
            place = next.place.clone().or(place);
            node = next;
        }
        place.or_else(|| self.place.as_ref().map(|whole| Place::new(&whole.source, 0..0)))
    }

    /// The path in words: items of arrays by their name, where they have one that no earlier item has.
    pub(crate) fn shown(&self, key: &Key) -> String {
        let mut node = Some(self);
        let mut shown = Key::root();
        for step in key.steps() {
            let next = node.and_then(|node| node.child(step));
            let is_item = node.is_some_and(|node| matches!(node.value, Value::Array(_)));
            let name = next.filter(|_| is_item).and_then(|item| item.get("name")).and_then(Self::as_str);
            let same = |name: &&str| {
                let found = node.and_then(|node| node.child(name));
                found.zip(next).is_some_and(|(found, next)| std::ptr::eq(found, next))
            };
            shown = shown.at(name.filter(same).unwrap_or(step));
            node = next;
        }
        shown.to_string()
    }

    /// Takes the value at `key` out of its table; for an item of an array, the whole array. Gives the path taken out.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Key> {
        let parent_key = key.parent();
        let mut parent = &mut *self;
        for step in parent_key.steps() {
            parent = parent.child_mut(step)?;
        }
        match &mut parent.value {
            Value::Table(entries) => {
                let last = key.steps().last()?;
                let position = entries.iter().position(|entry| entry.key == *last)?;
                entries.remove(position);
                Some(key.clone())
            }
            Value::Array(_) => self.remove(&parent_key),
            _ => None,
        }
    }

    /// The tree without places.
    pub(crate) fn to_toml(&self) -> toml::Value {
        match &self.value {
            Value::String(text) => toml::Value::String(text.clone()),
            Value::Integer(integer) => toml::Value::Integer(*integer),
            Value::Float(float) => toml::Value::Float(*float),
            Value::Boolean(truth) => toml::Value::Boolean(*truth),
            Value::Array(items) => toml::Value::Array(items.iter().map(Self::to_toml).collect()),
            Value::Table(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.node.to_toml()));
                toml::Value::Table(pairs.collect::<Table>())
            }
        }
    }
}

fn syntax_error(source: &Arc<Source>, error: &toml::de::Error) -> ScenarioError {
    let message = error.message().trim().replace('\n', "; ");
    let mut found = ScenarioError::new(ErrorKind::Syntax, message);
    found.place = Some(Place::new(source, error.span().unwrap_or(0..0)));
    found
}
