//! The names that a scenario introduces, gathered before anything refers to them.

use crate::defaults;
use crate::diagnostics::{ErrorKind, Key, Problems};
use crate::file::ScenarioFile;
use crate::file::fleet::SlotsFile;

/// Names of everything that can be referred to; positions are ids.
pub(super) struct Names {
    pub(super) regions: Vec<String>,
    pub(super) classes: Vec<String>,
    pub(super) slot_kinds: Vec<String>,
    pub(super) pool_classes: Vec<String>,
    pub(super) tiers: Vec<String>,
    pub(super) qualities: Vec<String>,
}

impl Names {
    pub(super) fn gather(file: &ScenarioFile, problems: &mut Problems<'_>) -> Self {
        let mut classes: Vec<String> = file.workload.class.iter().map(|class| class.name.clone()).collect();
        if classes.is_empty() {
            classes.push(defaults::CLASS_NAME.to_owned());
        }
        let mut qualities: Vec<String> =
            file.policy.quality_level.iter().map(|level| level.name.clone()).collect();
        if qualities.is_empty() {
            qualities.push(defaults::QUALITY_NAME.to_owned());
        }
        let names = Self {
            regions: regions(file),
            classes,
            slot_kinds: slot_kinds(file),
            pool_classes: pool_classes(file),
            tiers: file.storage.tier.names().into_iter().map(str::to_owned).collect(),
            qualities,
        };
        unique(problems, &Key::of("network.regions"), "region", &names.regions, None);
        unique(problems, &Key::of("fleet.slot_kinds"), "slot kind", &names.slot_kinds, None);
        unique(problems, &Key::of("workload.class"), "job class", &names.classes, Some("name"));
        unique(problems, &Key::of("policy.quality_level"), "quality level", &names.qualities, Some("name"));
        names
    }
}

/// Notes every name that stood before, and empty ones; `field` is where an item of the array at `key` has its name.
pub(super) fn unique<S: AsRef<str>>(
    problems: &mut Problems<'_>,
    key: &Key,
    what: &str,
    names: &[S],
    field: Option<&str>,
) {
    for (index, name) in names.iter().map(AsRef::as_ref).enumerate() {
        let item = key.at(index);
        let place = field.map_or_else(|| item.clone(), |field| item.at(field));
        if name.is_empty() {
            problems.add(ErrorKind::Value, &place, format!("the name of a {what} is empty"));
        }
        if names[..index].iter().any(|earlier| earlier.as_ref() == name) {
            let message = format!("there are two {what}s called `{name}`; names are unique");
            problems.add(ErrorKind::Duplicate, &place, message);
        }
    }
}

fn regions(file: &ScenarioFile) -> Vec<String> {
    if let Some(listed) = file.network.regions.as_ref().filter(|listed| !listed.is_empty()) {
        return listed.clone();
    }
    let of_pools = file.fleet.pool.iter().filter_map(|(_, pool)| pool.region.clone());
    distinct(of_pools, defaults::REGION)
}

fn slot_kinds(file: &ScenarioFile) -> Vec<String> {
    if let Some(listed) = file.fleet.slot_kinds.as_ref().filter(|listed| !listed.is_empty()) {
        return listed.clone();
    }
    let of_pools = file.fleet.pool.iter().flat_map(|(_, pool)| match &pool.slots {
        Some(SlotsFile::ByKind(kinds)) => kinds.names(),
        _ => Vec::new(),
    });
    distinct(of_pools.map(str::to_owned), defaults::SLOT_KIND)
}

fn pool_classes(file: &ScenarioFile) -> Vec<String> {
    let classes = file.fleet.pool.iter().map(|(name, pool)| pool.class.as_deref().unwrap_or(name));
    let mut seen: Vec<String> = Vec::new();
    for class in classes {
        if !seen.iter().any(|known| known == class) {
            seen.push(class.to_owned());
        }
    }
    seen
}

/// The different ones of `names` in order, or `otherwise` alone when there are none.
fn distinct(names: impl Iterator<Item = String>, otherwise: &str) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    if seen.is_empty() {
        seen.push(otherwise.to_owned());
    }
    seen
}
