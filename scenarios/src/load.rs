//! Loads a scenario: reads the file and those it extends, applies overrides, resolves. The only door to `file` and
//! `resolve`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::diagnostics::{ErrorKind, Key, Place, ScenarioError, Source};
use crate::file::{Node, ScenarioFile, Value, merge, read};
use crate::overrides;
use crate::resolve::{Input, resolve};
use crate::scenario::Scenario;

/// Scenarios that may stand on one another.
const EXTENDS_MAX: usize = 16;

/// Largest scenario file: far above any that a person writes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A scenario and the text it was made from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The scenario.
    pub scenario: Scenario,
    /// TOML that gives the same scenario alone: what it extends and the overrides are merged in.
    pub resolved_toml: String,
}

/// Loads the scenario at `path`, with `overrides` like `run.horizon=2h` applied in order.
///
/// # Errors
/// Everything that is wrong with the file, the files it extends, or the overrides.
pub fn load(path: &Path, overrides: &[String]) -> Result<Loaded, Vec<ScenarioError>> {
    let text = read_text(path, None).map_err(|error| vec![error])?;
    let base_dir = folder(path);
    let identity = path.canonicalize().ok();
    finish(&path.display().to_string(), text, &base_dir, identity, overrides)
}

/// Loads a scenario from `text`; `name` is shown in messages, and paths are relative to `base_dir`.
///
/// # Errors
/// Everything that is wrong with the text, the files it extends, or the overrides.
pub fn load_str(
    name: &str,
    text: &str,
    base_dir: &Path,
    overrides: &[String],
) -> Result<Loaded, Vec<ScenarioError>> {
    finish(name, text.to_owned(), base_dir, None, overrides)
}

fn finish(
    name: &str,
    text: String,
    base_dir: &Path,
    identity: Option<PathBuf>,
    overrides: &[String],
) -> Result<Loaded, Vec<ScenarioError>> {
    let source = Arc::new(Source { name: name.to_owned(), text, dir: None });
    let tree = Node::parse(&source)?;
    let mut seen: Vec<PathBuf> = identity.into_iter().collect();
    let mut tree = extend(tree, base_dir, &mut seen)?;
    let wrong: Vec<ScenarioError> =
        overrides.iter().filter_map(|text| overrides::apply(&mut tree, text).err()).collect();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let file: ScenarioFile = read(&tree)?;
    let resolved_toml = toml::to_string(&tree.to_toml()).map_err(|error| {
        vec![ScenarioError::new(ErrorKind::Syntax, format!("the scenario cannot be written back: {error}"))]
    })?;
    let digest = hex(&Sha256::digest(resolved_toml.as_bytes()));
    let stem =
        Path::new(name).file_stem().map_or_else(|| name.to_owned(), |s| s.to_string_lossy().into_owned());
    let scenario = resolve(Input { file: &file, tree: &tree, stem: &stem, base_dir, digest })?;
    Ok(Loaded { scenario, resolved_toml })
}

/// `tree` laid over the scenario that it extends, and that over the one it extends in turn.
fn extend(mut tree: Node, dir: &Path, seen: &mut Vec<PathBuf>) -> Result<Node, Vec<ScenarioError>> {
    let Some(Node { value: Value::String(base), place }) = tree.get("extends").cloned() else {
        return Ok(tree);
    };
    let fail = |kind, message: String| {
        let mut error = ScenarioError::new(kind, message);
        error.key = "extends".to_owned();
        error.place = place.clone();
        vec![error]
    };
    let path = dir.join(&base);
    if let Ok(identity) = path.canonicalize() {
        if seen.contains(&identity) {
            return Err(fail(ErrorKind::Cycle, format!("`{base}` leads back to a scenario that extends it")));
        }
        seen.push(identity);
    }
    if seen.len() > EXTENDS_MAX {
        return Err(fail(
            ErrorKind::Overflow,
            format!("more than {EXTENDS_MAX} scenarios stand on one another"),
        ));
    }
    let text = read_text(&path, Some((base.as_str(), place.clone()))).map_err(|error| vec![error])?;
    let base_dir = folder(&path);
    let source = Arc::new(Source { name: path.display().to_string(), text, dir: Some(base_dir.clone()) });
    let mut base = extend(Node::parse(&source)?, &base_dir, seen)?;
    tree.remove(&Key::of("extends"));
    merge(&mut base, tree);
    Ok(base)
}

fn folder(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The text of the scenario at `path`; `named_by` is the place of an `extends` that asks for it.
fn read_text(path: &Path, named_by: Option<(&str, Option<Place>)>) -> Result<String, ScenarioError> {
    let fail = |why: String| {
        let shown =
            named_by.as_ref().map_or_else(|| path.display().to_string(), |(name, _)| (*name).to_owned());
        let mut error =
            ScenarioError::new(ErrorKind::Read, format!("could not read scenario `{shown}`: {why}"));
        if let Some((_, place)) = &named_by {
            error.key = "extends".to_owned();
            error.help = Some(format!("paths are relative to the scenario; looked for `{}`", path.display()));
            error.place.clone_from(place);
        }
        error
    };
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(fail("there is no such file".to_owned()));
        }
        Err(error) => return Err(fail(error.to_string())),
    };
    if size > FILE_BYTES_MAX {
        return Err(fail(format!("{size} bytes are too many; at most {FILE_BYTES_MAX}")));
    }
    let bytes = fs::read(path).map_err(|error| fail(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8 text".to_owned()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
