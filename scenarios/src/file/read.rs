//! Reads serde types from a [`Node`] tree so that every mistake knows its key path and its place. Enums with fields are
//! tables with a `kind` (or the bare kind, when nothing else is to be said).

use std::fmt::Display;

use serde::de::{self, DeserializeSeed, Expected, Unexpected, Visitor, value::StrDeserializer};
use serde::forward_to_deserialize_any;

use super::tree::{Entry, Node, Value};
use crate::diagnostics::{ErrorKind, Key, Place, ScenarioError, nearest_name};

/// Mistakes collected from one file at most.
const MISTAKES_MAX: usize = 50;

/// Reads `T` from `tree`, collecting every mistake instead of only the first.
///
/// A value that cannot be read is noted and taken out, and the rest is read again; what then is missing because it
/// was taken out is not noted.
pub(crate) fn read<T: de::DeserializeOwned>(tree: &Node) -> Result<T, Vec<ScenarioError>> {
    let mut rest = tree.clone();
    let mut removed: Vec<Key> = Vec::new();
    let mut mistakes = Vec::new();
    loop {
        let error = match T::deserialize(&rest) {
            Ok(value) if mistakes.is_empty() => return Ok(value),
            Ok(_) => return Err(mistakes),
            Err(error) => error,
        };
        let key = error.key.clone();
        if !removed.iter().any(|gone| key.contains(gone)) {
            mistakes.push(error.into_scenario_error(tree));
        }
        match rest.remove(&key) {
            Some(gone) if mistakes.len() < MISTAKES_MAX => removed.push(gone),
            _ => return Err(mistakes),
        }
    }
}

/// A mistake on its way out of the tree.
#[derive(Clone, Debug)]
pub(crate) struct ReadError {
    kind: ErrorKind,
    message: String,
    help: Option<String>,
    key: Key,
    place: Option<Place>,
}

impl ReadError {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None, key: Key::root(), place: None }
    }

    fn with_names(mut self, name: &str, known: &'static [&'static str]) -> Self {
        self.help = Some(match nearest_name(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.join(", ")),
        });
        self
    }

    fn below(mut self, step: impl Display, place: Option<&Place>) -> Self {
        self.key.prepend(step);
        self.place = self.place.or_else(|| place.cloned());
        self
    }

    fn into_scenario_error(self, tree: &Node) -> ScenarioError {
        let Self { kind, message, help, key, place } = self;
        ScenarioError { kind, message, key: tree.shown(&key), help, place }
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(ErrorKind::Value, message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(ErrorKind::Value, format!("{} stands where {expected} is needed", found(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let needed = match expected.as_str() {
            "u8" => "a whole number from 0 to 255",
            "u16" => "a whole number from 0 to 65535",
            "u32" => "a whole number from 0 to 4294967295",
            "u64" | "usize" => "a whole number from 0 up",
            other => other,
        };
        Self::new(ErrorKind::Value, format!("{} stands where {needed} is needed", found(unexpected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(ErrorKind::Value, format!("`{variant}` is not a kind known here"))
            .with_names(variant, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(ErrorKind::UnknownKey, format!("unknown key `{field}`")).with_names(field, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(ErrorKind::Missing, format!("`{field}` is missing; it has no default"))
    }
}

fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Signed(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("`{value}`"),
        Unexpected::Float(value) => format!("`{value}`"),
        Unexpected::Str(value) => format!("the text `{value}`"),
        Unexpected::Map => "a table".to_owned(),
        Unexpected::Seq => "an array".to_owned(),
        other => other.to_string(),
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Integer(integer) => visitor.visit_i64(*integer),
            Value::Float(float) => visitor.visit_f64(*float),
            Value::Boolean(truth) => visitor.visit_bool(*truth),
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Table(entries) => visitor.visit_map(Entries::new(entries, None)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_enum(Kind { node: self })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// Walks an array.
struct Items<'de> {
    items: &'de [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some(item) = self.items.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(item).map(Some).map_err(|error| error.below(self.next - 1, item.place.as_ref()))
    }
}

/// Walks a table, leaving out one key.
struct Entries<'de> {
    entries: &'de [Entry],
    left_out: Option<&'static str>,
    next: usize,
}

impl<'de> Entries<'de> {
    fn new(entries: &'de [Entry], left_out: Option<&'static str>) -> Self {
        Self { entries, left_out, next: 0 }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        while self.entries.get(self.next).is_some_and(|entry| Some(entry.key.as_str()) == self.left_out) {
            self.next += 1;
        }
        let Some(entry) = self.entries.get(self.next) else { return Ok(None) };
        let key = StrDeserializer::<ReadError>::new(&entry.key);
        seed.deserialize(key).map(Some).map_err(|error| error.below(&entry.key, entry.key_place.as_ref()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let entry = &self.entries[self.next];
        self.next += 1;
        seed.deserialize(&entry.node).map_err(|error| error.below(&entry.key, entry.node.place.as_ref()))
    }
}

const KIND: &str = "kind";

/// An enum: the text is its kind, or the table's `kind` is.
struct Kind<'de> {
    node: &'de Node,
}

impl<'de> de::EnumAccess<'de> for Kind<'de> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        let name = match &self.node.value {
            Value::String(text) => text,
            Value::Table(_) => match self.node.get(KIND) {
                Some(Node { value: Value::String(text), .. }) => text,
                Some(other) => {
                    let message = format!("{} stands where the name of a kind is needed", other.kind_name());
                    return Err(ReadError::new(ErrorKind::Value, message).below(KIND, other.place.as_ref()));
                }
                None => return Err(de::Error::missing_field(KIND)),
            },
            _ => {
                let message = format!("{} stands where a kind is needed", self.node.kind_name());
                return Err(ReadError::new(ErrorKind::Value, message));
            }
        };
        let place = self.node.get(KIND).and_then(|kind| kind.place.as_ref());
        let below_kind = |error: ReadError| match place {
            Some(place) => error.below(KIND, Some(place)),
            None => error,
        };
        let variant = seed.deserialize(StrDeserializer::<ReadError>::new(name)).map_err(below_kind)?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for Kind<'de> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        let Value::Table(entries) = &self.node.value else { return Ok(()) };
        match entries.iter().find(|entry| entry.key != KIND) {
            None => Ok(()),
            Some(entry) => {
                let error: ReadError = de::Error::unknown_field(&entry.key, &[KIND]);
                Err(error.below(&entry.key, entry.key_place.as_ref()))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(Fields { node: self.node })
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, ReadError> {
        de::Deserializer::deserialize_any(self.node, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        de::Deserializer::deserialize_any(Fields { node: self.node }, visitor)
    }
}

/// The fields of an enum's table beside its `kind`; none when only the kind was written.
struct Fields<'de> {
    node: &'de Node,
}

impl<'de> de::Deserializer<'de> for Fields<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let entries: &[Entry] = match &self.node.value {
            Value::Table(entries) => entries,
            _ => &[],
        };
        visitor.visit_map(Entries::new(entries, Some(KIND)))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostics::Source;
    use crate::file::ScenarioFile;

    fn mistakes(text: &str) -> Vec<String> {
        let source = Arc::new(Source { name: "a.toml".into(), text: text.into(), dir: None });
        let tree = Node::parse(&source).expect("a valid document");
        let errors = read::<ScenarioFile>(&tree).expect_err("the text has mistakes");
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_told_once() {
        let text =
            "nmae = 1\n[run]\nhorizon = 5\nseed = -1\n[[pipeline.stage]]\nname = \"a\"\ntime = \"4\"\n";
        let expected = [
            "nmae: unknown key `nmae`",
            "run.horizon: `5` has no unit; write a duration as text, like \"90s\"",
            "run.seed: `-1` stands where a whole number from 0 up is needed",
            "pipeline.stage.a.time: `4` has no unit; write a duration like \"90s\" (units: ns, us, ms, s, min, h, d)",
        ];
        let mut found = mistakes(text);
        found.sort_by_key(|line| expected.iter().position(|known| known == line));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_a_mistake_takes_with_it_is_not_told() {
        // Without its wrong rate the source has none, which is no second mistake.
        let text = "[[workload.source]]\narrivals = { kind = \"constant\", rate = 2 }\n";
        let expected =
            "workload.source.0.arrivals.rate: `2` has no unit; write a rate as text, like \"300/s\"";
        assert_eq!(mistakes(text), [expected]);
    }

    #[test]
    fn a_kind_without_parameters_may_stand_alone() {
        let source = Arc::new(Source {
            name: "a.toml".into(),
            text: "policy.scaling = \"keda\"\nplan.scaling = [{ kind = \"keda\" }]".into(),
            dir: None,
        });
        let tree = Node::parse(&source).expect("a valid document");
        let file: ScenarioFile = read(&tree).expect("both forms are right");
        assert_eq!(file.policy.scaling, file.plan.scaling.first().cloned());
    }
}
