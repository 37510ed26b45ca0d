//! `headroom keys`: made, shown, revoked, and never shown again.
#![cfg(feature = "live")]

mod ran;

use std::path::Path;

use ran::{Ran, headroom};
use serde_json::Value;

fn keys(folder: &Path, args: &[&str]) -> Ran {
    Ran::of(headroom(folder, &["keys"]).args(args))
}

#[test]
fn a_key_is_shown_once_and_revoked_for_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let made =
        keys(at, &["create", "--name", "app", "--scope", "submit,read", "--jobs-max", "7", "--json"]).json();
    let (id, key) = (made["id"].as_str().expect("an id"), made["key"].as_str().expect("a key"));
    assert!(key.starts_with(&format!("hr_{id}_")), "{made}");
    let secret = key.rsplit('_').next().expect("a secret");
    assert!(secret.len() >= 22, "at least 128 bits: {secret}");
    keys(at, &["create", "--name", "app-2", "--scope", "read", "--tenant", &made["tenant"].to_string()])
        .ends(0, &["it is shown this once"]);

    for entry in std::fs::read_dir(at.join("headroom-data")).expect("the data folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read(&path).expect("a file");
        let found = text.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!found, "{} has the secret", path.display());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).expect("its rights").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is for nobody else", path.display());
        }
    }

    let listed = keys(at, &["list", "--json"]).json();
    let listed = listed.as_array().expect("keys");
    let names: Vec<&str> = listed.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["app", "app-2"]);
    assert!(
        listed.iter().all(|one| one.get("key").is_none() && one["tenant"] == made["tenant"]),
        "{listed:?}"
    );
    assert_eq!((&listed[0]["jobs_max"], &listed[0]["revoked"]), (&Value::from(7), &Value::Null));

    keys(at, &["revoke", id]).ends(0, &["is revoked"]);
    let listed = keys(at, &["list", "--json"]).json();
    assert!(listed[0]["revoked"].is_string() && listed[1]["revoked"].is_null(), "{listed}");
    let shown = keys(at, &["list"]).ends(0, &[]).stdout();
    assert!(shown.contains("revoked 2") && shown.contains("valid"), "{shown}");

    let log = std::fs::read_to_string(at.join("headroom-data/audit.jsonl")).expect("the audit log");
    let actions: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let actions: Vec<&str> = actions.iter().filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(actions, ["create-key", "create-key", "revoke-key"]);
}

#[test]
fn mistakes_make_no_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    keys(at, &["create", "--name", "app", "--scope", "fly"]).ends(2, &["fly"]);
    keys(at, &["create", "--name", "app"]).ends(2, &["--scope"]);
    keys(at, &["create", "--name", "app", "--scope", "read", "--expires-in", "soon"]).ends(2, &["30d"]);
    keys(at, &["create", "--name", "app", "--scope", "read", "--rate", "0"]).ends(3, &["rate"]);
    keys(at, &["create", "--name", "app", "--scope", "read", "--tenant", "9"]).ends(3, &["tenant"]);
    keys(at, &["revoke", "nobody"]).ends(3, &["nobody"]);
    keys(at, &["list"]).ends(0, &["has no keys"]);
    std::fs::create_dir_all(at.join("headroom-data")).expect("a folder");
    std::fs::write(at.join("headroom-data/keys.json"), "{\"keys\": 3}").expect("a file");
    keys(at, &["list"]).ends(3, &["keys.json"]);
    keys(at, &["create", "--name", "app", "--scope", "read"]).ends(3, &["keys.json"]);
    let kept = std::fs::read_to_string(at.join("headroom-data/keys.json")).expect("the file");
    assert_eq!(kept, "{\"keys\": 3}", "what cannot be read is not overwritten");
}
