//! One scenario laid over another: sections key by key, arrays of named sections by name, everything else replaced.

use super::tree::{Node, Value};

/// `base` with `change` laid over it. An inline table (`{ ... }`) is one value, like a number: it replaces.
pub(crate) fn merge(base: &mut Node, change: Node) {
    if change.place.as_ref().is_some_and(|place| place.text().starts_with('{')) {
        *base = change;
        return;
    }
    match (&mut base.value, change.value) {
        (Value::Table(old), Value::Table(new)) if is_same_kind(old, &new) => {
            for entry in new {
                match old.iter_mut().find(|known| known.key == entry.key) {
                    Some(known) => {
                        known.key_place = entry.key_place;
                        merge(&mut known.node, entry.node);
                    }
                    None => old.push(entry),
                }
            }
            base.place = change.place;
        }
        (Value::Array(old), Value::Array(new)) if are_named(old) && are_named(&new) => {
            for item in new {
                match old.iter_mut().find(|known| name(known) == name(&item)) {
                    Some(known) => merge(known, item),
                    None => old.push(item),
                }
            }
            base.place = change.place;
        }
        (_, value) => *base = Node { value, place: change.place },
    }
}

/// Tables that state a `kind` are merged only when both state the same one: parameters of another kind do not fit.
fn is_same_kind(old: &[super::Entry], new: &[super::Entry]) -> bool {
    let kind = |entries: &[super::Entry]| {
        let entry = entries.iter().find(|entry| entry.key == "kind");
        entry.and_then(|entry| entry.node.as_str().map(str::to_owned))
    };
    match (kind(old), kind(new)) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    }
}

fn name(item: &Node) -> Option<&str> {
    item.get("name").and_then(Node::as_str)
}

fn are_named(items: &[Node]) -> bool {
    items.iter().all(|item| name(item).is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostics::Source;

    fn check(base: &str, change: &str, expected: &str) {
        let parse = |text: &str| {
            let source = Source { name: "a.toml".into(), text: text.into(), dir: None };
            Node::parse(&Arc::new(source)).expect("a valid document")
        };
        let mut merged = parse(base);
        merge(&mut merged, parse(change));
        assert_eq!(merged.to_toml().to_string(), expected, "{base} + {change}");
    }

    #[test]
    fn sections_merge_and_values_are_replaced() {
        check("[a]\nx = 1\ny = 2", "[a]\ny = 3", "{ a = { x = 1, y = 3 } }");
        check("[a]\nx = 1", "a = { y = 3 }", "{ a = { y = 3 } }");
        check("a = [1, 2]", "a = [3]", "{ a = [3] }");
    }

    #[test]
    fn arrays_of_named_sections_merge_by_name() {
        let base = "[[s]]\nname = \"p\"\nt = 1\n[[s]]\nname = \"q\"\nt = 2";
        let change = "[[s]]\nname = \"q\"\nu = 5\n[[s]]\nname = \"r\"";
        let expected = r#"{ s = [{ name = "p", t = 1 }, { name = "q", t = 2, u = 5 }, { name = "r" }] }"#;
        check(base, change, expected);
    }

    #[test]
    fn another_kind_starts_from_nothing() {
        let base = "[p]\nkind = \"a\"\nx = 1";
        check(base, "[p]\nkind = \"b\"\ny = 1", r#"{ p = { kind = "b", y = 1 } }"#);
        check(base, "[p]\nkind = \"a\"\ny = 1", r#"{ p = { kind = "a", x = 1, y = 1 } }"#);
    }
}
