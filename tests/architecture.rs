//! The house rules that a compiler cannot check: who may import whom, which library belongs to which crate, and how
//! files are named and begun. A new edge is a design change: a page in `docs/decisions/` first, then a row here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every crate of ours and what it may import of ours.
const EDGES: &[(&str, &[&str])] = &[
    ("policy", &[]),
    ("scenarios", &["policy"]),
    ("sim", &["policy", "scenarios"]),
    ("gpu-runtime", &[]),
    ("control", &["policy", "scenarios", "gpu-runtime"]),
    ("reports", &["policy"]),
    ("headroom", &["policy", "scenarios", "sim", "gpu-runtime", "control", "reports"]),
];

/// Libraries that belong to some crates only, by name or by the start of it (`aws-*`). An empty list is nobody.
const OWNERS: &[(&str, &[&str])] = &[
    ("polars*", &["reports"]),
    ("plotters*", &["reports"]),
    ("rust_xlsxwriter", &["reports"]),
    ("tokio*", &["headroom", "control"]),
    ("axum*", &["control"]),
    ("reqwest", &["headroom", "control"]),
    ("tracing*", &["headroom", "control"]),
    ("opentelemetry*", &["control"]),
    ("aws-*", &["control"]),
    ("object_store", &["control"]),
    ("cudarc", &["gpu-runtime"]),
    ("statrs", &["sim"]),
    ("highs", &["sim"]),
    ("clap*", &["headroom"]),
    ("miette", &["headroom"]),
    ("anyhow", &["headroom"]),
    ("indicatif", &["headroom"]),
    ("ratatui*", &["headroom"]),
    ("crossterm", &["headroom"]),
    // `control` writes price rows as the catalog reads them, and keeps the text of the scenario that it serves.
    ("toml*", &["scenarios", "control", "headroom"]),
    // Chance comes from `policy::units::random` alone.
    ("rand*", &[]),
    ("fastrand", &[]),
    ("getrandom", &[]),
    // Other ways to run a diffusion model, which `gpu-runtime` replaces.
    ("candle*", &[]),
    ("tch", &[]),
    ("ort", &[]),
];

/// `policy` is pure: these and no others.
const POLICY_NEEDS: &[&str] = &["libm", "thiserror"];

/// What `policy` may import behind a feature that is off by default: derives, without which it is the same.
const POLICY_MAY_NEED: &[&str] = &["serde"];

/// Lines of one file; beyond, there is a seam to be found.
const LINES_MAX: usize = 600;

/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "misc", "helpers", "manager"];

/// Marks of unfinished work, split so that this file has none.
const UNFINISHED: &[&str] = &[concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME")];

struct Dependency {
    of: String,
    on: String,
    /// A path dependency: one of ours.
    ours: bool,
    /// Only for tests and benchmarks.
    dev: bool,
    /// Only with a feature.
    optional: bool,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn dependencies() -> Vec<Dependency> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs, since it runs this test");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let text = |value: &Value| value.as_str().expect("a name is a string").to_owned();
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().expect("cargo metadata lists packages") {
        for dependency in package["dependencies"].as_array().expect("a package lists its dependencies") {
            found.push(Dependency {
                of: text(&package["name"]),
                on: text(&dependency["name"]),
                ours: !dependency["path"].is_null(),
                dev: dependency["kind"] == "dev",
                optional: dependency["optional"] == true,
            });
        }
    }
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

/// What is wrong with one dependency, if anything.
fn objection(dependency: &Dependency) -> Option<String> {
    let Dependency { of, on, ours, dev, optional } = dependency;
    if *ours {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| name == of) else {
            return Some(format!("crate `{of}` has no row in EDGES"));
        };
        return (!allowed.contains(&on.as_str())).then(|| format!("`{of}` must not import `{on}`"));
    }
    let is_needed = POLICY_NEEDS.contains(&on.as_str());
    let may_be_needed = *optional && POLICY_MAY_NEED.contains(&on.as_str());
    if of == "policy" && !dev && !is_needed && !may_be_needed {
        return Some(format!("`policy` is pure and must not import `{on}`"));
    }
    let (_, owners) = OWNERS.iter().find(|(pattern, _)| matches(pattern, on))?;
    (!owners.contains(&of.as_str())).then(|| format!("`{on}` belongs to {owners:?}, not to `{of}`"))
}

#[test]
fn crates_import_only_what_the_design_allows() {
    let dependencies = dependencies();
    assert!(
        dependencies.iter().any(|d| d.of == "sim" && d.on == "policy"),
        "cargo metadata was not understood"
    );
    let objections: Vec<String> = dependencies.iter().filter_map(objection).collect();
    assert!(objections.is_empty(), "{}", objections.join("\n"));
}

#[test]
fn forbidden_imports_are_noticed() {
    let check = |of: &str, on: &str, ours: bool, dev: bool, forbidden: bool| {
        let dependency = Dependency { of: of.into(), on: on.into(), ours, dev, optional: false };
        assert_eq!(objection(&dependency).is_some(), forbidden, "{of} -> {on}");
    };
    let optional =
        |on: &str| Dependency { of: "policy".into(), on: on.into(), ours: false, dev: false, optional: true };
    assert_eq!(objection(&optional("serde")), None);
    assert!(objection(&optional("serde_json")).is_some());
    check("policy", "sim", true, false, true);
    check("policy", "serde", false, false, true);
    check("policy", "proptest", false, true, false);
    check("policy", "rand", false, true, true);
    check("reports", "sim", true, true, true);
    check("sim", "polars-core", false, false, true);
    check("reports", "polars-core", false, false, false);
    check("sim", "tokio", false, false, true);
    check("scenarios", "statrs", false, false, true);
    check("control", "sim", true, false, true);
    check("control", "gpu-runtime", true, false, false);
    check("newcomer", "policy", true, false, true);
}

fn source_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (name, _) in EDGES {
        let home = if *name == "headroom" { root() } else { root().join(name) };
        gather(&home.join("src"), &mut found);
    }
    assert!(found.len() > 50, "only {} source files were found", found.len());
    found
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return }; // a planned crate has no folder yet
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder can be read").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn untidy(path: &Path, text: &str) -> Vec<String> {
    let shown = path.strip_prefix(root()).unwrap_or(path).display();
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{shown}: {lines} lines are more than {LINES_MAX}; find a seam"));
    }
    if !text.starts_with("//!") {
        faults.push(format!("{shown}: does not start with `//!` saying what it holds"));
    }
    for mark in UNFINISHED {
        if text.contains(mark) {
            faults.push(format!("{shown}: holds `{mark}`"));
        }
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    for name in [stem, folder] {
        if EMPTY_NAMES.contains(&name) {
            faults.push(format!("{shown}: `{name}` says nothing; name it after the noun it holds"));
        }
    }
    faults
}

#[test]
fn source_files_are_tidy() {
    let mut faults = Vec::new();
    for path in source_files() {
        let text = fs::read_to_string(&path).expect("a source file is UTF-8 text");
        faults.extend(untidy(&path, &text));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn untidy_files_are_noticed() {
    let check = |name: &str, text: &str, count: usize| {
        let faults = untidy(Path::new(name), text);
        assert_eq!(faults.len(), count, "{faults:?}");
    };
    check("sim/src/kernel/draw.rs", "//! Draws.\n", 0);
    check("sim/src/utils.rs", "//! Things.\n", 1);
    check("sim/src/common/draw.rs", "//! Draws.\n", 1);
    check("sim/src/draw.rs", "use std::fs;\n", 1);
    check("sim/src/draw.rs", &format!("//! Draws.\n// {}\n", UNFINISHED[2]), 1);
    check("sim/src/draw.rs", &format!("//! Draws.\n{}", "\n".repeat(LINES_MAX)), 1);
}
