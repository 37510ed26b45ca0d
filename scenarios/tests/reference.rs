//! `docs/scenarios.md` is true to the code: it names every key, and its example resolves.

use std::path::Path;

use serde_json::Value;

fn reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scenarios.md");
    std::fs::read_to_string(path).expect("the reference is part of the repository")
}

/// Names of all properties, and of all kinds, below `schema`.
fn words(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
                found.extend(properties.keys().cloned());
            }
            if let Some(kind) = fields.get("const").and_then(Value::as_str) {
                found.push(kind.to_owned());
            }
            fields.values().for_each(|value| words(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| words(item, found)),
        _ => {}
    }
}

#[test]
fn reference_names_every_key_and_kind_of_the_schema() {
    let text = reference();
    let known: Vec<&str> =
        text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'))).collect();
    let mut found = Vec::new();
    words(&scenarios::json_schema(), &mut found);
    assert!(found.len() > 150, "the schema has {} words", found.len());
    let missing: Vec<&String> = found.iter().filter(|word| !known.contains(&word.as_str())).collect();
    assert!(missing.is_empty(), "docs/scenarios.md does not name {missing:?}");
}

#[test]
fn example_of_the_reference_resolves() {
    let text = reference();
    let example = text.split("```").nth(1).and_then(|block| block.strip_prefix("toml\n"));
    let example = example.expect("the reference begins with an example");
    let loaded = scenarios::load_str("example.toml", example, Path::new("."), &["run.horizon=2h".to_owned()])
        .unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(loaded.scenario.name, "example");
    assert_eq!(loaded.scenario.run.horizon.as_secs_f64(), 7200.0);
    assert!(loaded.resolved_toml.contains("horizon = \"2h\""), "{}", loaded.resolved_toml);
}
