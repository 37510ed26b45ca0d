//! Each file in `valid` resolves; each in `invalid` fails with the message in its first comment line.

use std::fs;
use std::path::{Path, PathBuf};

use scenarios::ScenarioError;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).expect("the folder is part of the repository");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    paths.sort();
    paths
}

fn shown(errors: &[ScenarioError]) -> String {
    let line = |error: &ScenarioError| {
        let at =
            error.line_column().map_or_else(String::new, |(line, column)| format!(" at {line}:{column}"));
        format!("  {error} [{}]{at}; help: {}\n", error.code(), error.help().unwrap_or("none"))
    };
    errors.iter().map(line).collect()
}

#[test]
fn valid_files_resolve_and_their_resolved_text_resolves_to_the_same() {
    let paths = files("valid");
    assert!(paths.len() >= 5, "{paths:?}");
    for path in paths {
        let loaded = scenarios::load(&path, &[])
            .unwrap_or_else(|errors| panic!("{}:\n{}", path.display(), shown(&errors)));
        let base_dir = path.parent().expect("a file lies in a folder");
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let again = scenarios::load_str(&name, &loaded.resolved_toml, base_dir, &[])
            .unwrap_or_else(|errors| panic!("{} resolved:\n{}", path.display(), shown(&errors)));
        assert_eq!(again.scenario.digest, loaded.scenario.digest, "{}", path.display());
        assert_eq!(format!("{:?}", again.scenario), format!("{:?}", loaded.scenario), "{}", path.display());
    }
}

#[test]
fn invalid_files_fail_with_the_message_in_their_first_line() {
    let paths = files("invalid");
    assert!(paths.len() >= 30, "only {} files", paths.len());
    for path in paths {
        let text = fs::read_to_string(&path).expect("a test file is text");
        let first = text.lines().next().unwrap_or_default();
        let expected = first.strip_prefix("# ").unwrap_or_else(|| panic!("{}: no message", path.display()));
        let errors = match scenarios::load(&path, &[]) {
            Ok(_) => panic!("{} resolves, and must fail with: {expected}", path.display()),
            Err(errors) => errors,
        };
        let found = errors.iter().any(|error| error.to_string() == expected);
        assert!(found, "{}:\n  {expected}\nis not among\n{}", path.display(), shown(&errors));
        let placed = errors.iter().all(|error| error.span().is_some());
        assert!(placed, "{}: every mistake has a place:\n{}", path.display(), shown(&errors));
    }
}
