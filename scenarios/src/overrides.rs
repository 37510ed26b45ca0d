//! `--set key=value`: changes one value of a scenario before it is read.

use std::sync::Arc;

use crate::diagnostics::{ErrorKind, Key, Place, ScenarioError, Source, nearest_name};
use crate::file::{Entry, Node, Value};

/// Steps that one path may have.
const STEPS_MAX: usize = 16;

/// Applies `text`, e.g. `run.horizon=2h`, `fleet.pool.main.count=8` or `pipeline.stage.infer.time="9s"`.
///
/// The path goes through tables by key and through arrays by position or by `name`. The value is TOML, or a text when
/// it is not. A key that the table does not have yet is added; whether a scenario knows it is seen when it is read.
pub(crate) fn apply(tree: &mut Node, text: &str) -> Result<(), ScenarioError> {
    let source = Arc::new(Source { name: "--set".to_owned(), text: text.to_owned(), dir: None });
    let fail = |message: String, help: String, range| ScenarioError {
        kind: ErrorKind::Override,
        message,
        key: String::new(),
        help: Some(help),
        place: Some(Place::new(&source, range)),
    };
    let Some(equals) = text.find('=') else {
        let message = format!("`{text}` sets nothing");
        return Err(fail(message, "write it like run.horizon=2h".to_owned(), 0..text.len()));
    };
    let (path, value_start) = (text[..equals].trim(), equals + 1);
    let steps = split_path(path)
        .filter(|steps| !steps.is_empty() && steps.len() <= STEPS_MAX && steps.iter().all(|s| !s.is_empty()));
    let Some(steps) = steps else {
        let message = format!("`{path}` is not a path");
        let help = "write keys with dots between them; quote a key that holds a dot".to_owned();
        return Err(fail(message, help, 0..equals));
    };
    let raw = text[value_start..].trim();
    let start = value_start + (text[value_start..].len() - text[value_start..].trim_start().len());
    let value = Node::parse_value(&source, start).unwrap_or_else(|| Node {
        value: Value::String(raw.to_owned()),
        place: Some(Place::new(&source, start..text.len())),
    });
    let key_place = Place::new(&source, 0..equals);
    put(tree, &steps, value, &key_place).map_err(|(message, help)| {
        let mut error = fail(message, help, 0..equals);
        let key = steps.iter().fold(Key::root(), |key, step| key.at(step));
        error.key = key.to_string();
        error
    })
}

/// Splits at dots outside double quotes; `None` when a quote stays open.
fn split_path(path: &str) -> Option<Vec<String>> {
    let mut steps = vec![String::new()];
    let mut quoted = false;
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => steps.push(String::new()),
            c => steps.last_mut()?.push(c),
        }
    }
    (!quoted).then(|| steps.into_iter().map(|step| step.trim().to_owned()).collect())
}

/// Puts `value` at `steps`; on failure gives the message and the help.
fn put(tree: &mut Node, steps: &[String], value: Node, key_place: &Place) -> Result<(), (String, String)> {
    let Some((step, rest)) = steps.split_first() else {
        *tree = value;
        return Ok(());
    };
    if let Value::Array(items) = &tree.value {
        let Some(index) = Node::position(items, step) else {
            return Err(no_item(items, step));
        };
        let Value::Array(items) = &mut tree.value else { return Ok(()) };
        return put(&mut items[index], rest, value, key_place);
    }
    let kind_name = tree.kind_name();
    let Value::Table(entries) = &mut tree.value else {
        return Err((format!("`{step}` is looked for in {kind_name}"), "the path goes too deep".to_owned()));
    };
    let position = entries.iter().position(|entry| entry.key == *step).unwrap_or_else(|| {
        let node = Node { value: Value::Table(Vec::new()), place: Some(key_place.clone()) };
        entries.push(Entry { key: step.clone(), key_place: Some(key_place.clone()), node });
        entries.len() - 1
    });
    put(&mut entries[position].node, rest, value, key_place)
}

fn no_item(items: &[Node], step: &str) -> (String, String) {
    let names: Vec<&str> = items.iter().filter_map(|item| item.get("name").and_then(Node::as_str)).collect();
    let help = match nearest_name(step, &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => format!("use a position from 0 to {}", items.len().saturating_sub(1)),
        None => format!("there are: {}", names.join(", ")),
    };
    (format!("the array has no item `{step}`"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, set: &str, expected: &str) {
        let source = Arc::new(Source { name: "a.toml".into(), text: document.into(), dir: None });
        let mut tree = Node::parse(&source).expect("a valid document");
        let result = apply(&mut tree, set);
        let shown = match result {
            Ok(()) => tree.to_toml().to_string(),
            Err(error) => format!("{error}; {}", error.help().unwrap_or("")),
        };
        assert_eq!(shown, expected, "{set}");
    }

    #[test]
    fn values_are_toml_or_text() {
        check("a = 1", "a=2", "{ a = 2 }");
        check("a = 1", "a=2h", "{ a = \"2h\" }");
        check("a = 1", "a = \"2h\"", "{ a = \"2h\" }");
        check("a = 1", "b.c={ d = 1 }", "{ a = 1, b = { c = { d = 1 } } }");
        check("x = { \"g5.xlarge\" = 1 }", "x.\"g5.xlarge\"=3", "{ x = { \"g5.xlarge\" = 3 } }");
    }

    #[test]
    fn arrays_are_addressed_by_position_or_name() {
        let document = "s = [{ name = \"pre\", t = 1 }, { name = \"infer\", t = 2 }]";
        let both = |t| format!("{{ s = [{{ name = \"pre\", t = 1 }}, {{ name = \"infer\", t = {t} }}] }}");
        check(document, "s.infer.t=9", &both(9));
        check(document, "s.1.t=9", &both(9));
        check(document, "s.inver.t=9", "s.inver.t: the array has no item `inver`; did you mean `infer`?");
        check(document, "s.7.t=9", "s.7.t: the array has no item `7`; there are: pre, infer");
    }

    #[test]
    fn texts_without_a_path_or_value_are_refused() {
        check("a = 1", "a", "`a` sets nothing; write it like run.horizon=2h");
        check(
            "a = 1",
            "=2",
            "`` is not a path; write keys with dots between them; quote a key that holds a dot",
        );
        check("a = 1", "a.b=2", "a.b: `b` is looked for in a whole number; the path goes too deep");
    }
}
