//! The files that a command reads: scenarios with their flags, and traces in every format that headroom knows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use policy::model::CapacityType;
use scenarios::scenario::{Arrivals, Scenario};
use scenarios::trace::{ImportOptions, Mapping, SpotAvailability, TimeUnit, Trace, TraceError};
use scenarios::{ErrorKind, Loaded};
use sim::inputs::Inputs;

use super::overrides;
use super::parquet_rows;
use super::run_args::OverrideArgs;
use super::spot_zones::{Choice, SpotPool, assign};
use crate::failure::{Failure, Status, nearest_file};
use crate::screen::Screen;

/// Columns that hold the time where nobody named one. Those without a unit hold calendar times or seconds.
pub(crate) const TIME_COLUMNS: [(&str, Option<TimeUnit>); 6] = [
    ("time", None),
    ("timestamp", None),
    ("time_s", Some(TimeUnit::Seconds)),
    ("time_ms", Some(TimeUnit::Millis)),
    ("time_us", Some(TimeUnit::Micros)),
    ("time_ns", Some(TimeUnit::Nanos)),
];

/// Loads a scenario as its file and the flags say, and tells which recorded zone drives which spot pool.
///
/// # Errors
/// All mistakes of the scenario, the flags and the spot traces.
pub(crate) fn load_scenario(path: &Path, args: &OverrideArgs, screen: &Screen) -> Result<Loaded, Failure> {
    Ok(scenarios::load(path, &scenario_overrides(path, args, screen)?)?)
}

/// Everything that the flags change, as overrides.
///
/// # Errors
/// A trace or a folder that cannot be read.
pub(crate) fn scenario_overrides(
    path: &Path,
    args: &OverrideArgs,
    screen: &Screen,
) -> Result<Vec<String>, Failure> {
    if let Some(near) = nearest_file(path).filter(|_| !path.exists()) {
        let read = scenarios::load(path, &[]).map_err(Failure::from);
        return read
            .map(|_| Vec::new())
            .map_err(|failure| failure.with_help(format!("did you mean `{near}`?")));
    }
    let mut changes = overrides::of_flags(args);
    for text in &args.trace {
        let (source, file) = overrides::split_source(text, Path::new(text).exists());
        changes.push(overrides::of_trace(source, &from_here(Path::new(file))?));
    }
    if let Some(folder) = &args.spot_trace {
        changes.extend(spot_overrides(path, folder, &changes, screen)?);
    }
    Ok(changes)
}

/// A path that holds wherever the scenario lies; the file must be there.
fn from_here(path: &Path) -> Result<PathBuf, Failure> {
    let read = |source| TraceError::Read { path: path.display().to_string(), source };
    std::fs::metadata(path).map_err(read)?;
    Ok(std::path::absolute(path).map_err(read)?)
}

/// The overrides that give each spot pool of the scenario a recorded zone of `folder`.
fn spot_overrides(
    path: &Path,
    folder: &Path,
    changes: &[String],
    screen: &Screen,
) -> Result<Vec<String>, Failure> {
    let zones = SpotAvailability::read_folder(&from_here(folder)?)?;
    let pools = spot_pools(path, changes)?;
    if pools.is_empty() {
        let message =
            format!("`{}` has no spot pool for the traces of `{}`", path.display(), folder.display());
        return Err(Failure::new(Status::InvalidInput, "scenario::no-spot-pool", message)
            .with_help("give a pool `capacity_type = \"spot\"`, or leave --spot-trace out"));
    }
    let names: Vec<&str> = zones.iter().map(|zone| zone.zone.as_str()).collect();
    let mut found = Vec::new();
    for (pool, choice) in pools.iter().zip(assign(&pools, &names)) {
        let (index, choice) = choice.expect("a folder that was read holds a zone");
        let zone = &zones[index];
        let why = match choice {
            Choice::SameZone => "the same zone".to_owned(),
            Choice::NextFree => format!("no file for {}; the next free one", pool.place()),
            Choice::Shared => format!("no file for {}; shared with another pool", pool.place()),
        };
        screen.note(&format!("spot trace: pool `{}` follows {} ({why})", pool.name, zone.source.name));
        let key = overrides::pool_key(&pool.name);
        found.push(overrides::of_availability(&key, Path::new(&zone.source.name), zone.nodes_max));
    }
    Ok(found)
}

impl SpotPool {
    fn place(&self) -> &str {
        if self.zone.is_empty() { &self.region } else { &self.zone }
    }
}

/// The spot pools of a scenario, which need not say yet how they are interrupted.
fn spot_pools(path: &Path, changes: &[String]) -> Result<Vec<SpotPool>, Failure> {
    let loaded = scenarios::load(path, changes).or_else(|errors| {
        let silent = |key: &str| key.starts_with("fleet.pool.");
        let missing = errors.iter().filter(|error| error.kind() == ErrorKind::Missing && silent(error.key()));
        let stand_ins = missing.map(|error| format!("{}.interruption.hazard_per_hour=0", error.key()));
        let changes: Vec<String> = changes.iter().cloned().chain(stand_ins).collect();
        scenarios::load(path, &changes).map_err(|_| errors)
    })?;
    let pools = loaded.scenario.system.pools.iter();
    let spot = pools.filter(|pool| pool.offering.capacity_type == CapacityType::Spot);
    Ok(spot
        .map(|pool| SpotPool {
            name: pool.name.clone(),
            region: pool.offering.region.clone(),
            zone: pool.offering.zone.clone(),
        })
        .collect())
}

/// Reads the traces and the spot availability that a scenario names, in every format that [`load_trace`] knows.
///
/// # Errors
/// The first file that cannot be read.
pub(crate) fn load_inputs(scenario: &Scenario) -> Result<Inputs, Failure> {
    let mut inputs = Inputs::default();
    for source in &scenario.workload {
        inputs.traces.push(match &source.arrivals {
            Arrivals::Generator(_) => None,
            Arrivals::Trace(trace) => Some(Arc::new(load_trace(&trace.path)?)),
        });
    }
    for pool in &scenario.pools {
        inputs.availability.push(match &pool.interruption.trace {
            None => None,
            Some(trace) => Some(Arc::new(SpotAvailability::read(&trace.path)?)),
        });
    }
    Ok(inputs)
}

/// Reads a trace as a scenario names it: a public format, a file of `headroom trace import`, or Parquet.
///
/// # Errors
/// Any mistake of the file.
pub(crate) fn load_trace(path: &Path) -> Result<Trace, Failure> {
    read_trace(path, &ImportOptions::default()).map_err(|failure| {
        let name = path.display();
        match failure.mistakes() {
            [mistake] if mistake.code == "trace::unknown-format" => failure.with_help(format!(
                "make a file that scenarios can name: headroom trace import {name} --time COLUMN --out trace.csv"
            )),
            _ => failure,
        }
    })
}

/// Reads a trace. Without a mapping, a plain file is read when its columns have the names of [`TIME_COLUMNS`] and
/// `count`, `exec_s`, `size`, `region` and `class`.
///
/// # Errors
/// Any mistake of the file.
pub(crate) fn read_trace(path: &Path, options: &ImportOptions) -> Result<Trace, Failure> {
    if parquet_rows::is_parquet(path) {
        return parquet_rows::read(path, options);
    }
    match Trace::import(path, options) {
        Err(TraceError::UnknownFormat { path: name, found, remedy }) if options.mapping.is_none() => {
            let Some((mapping, unit_known)) = guessed_mapping(&found) else {
                return Err(TraceError::UnknownFormat { path: name, found, remedy }.into());
            };
            Ok(import_guessed(path, options, mapping, unit_known)?)
        }
        imported => Ok(imported?),
    }
}

fn import_guessed(
    path: &Path,
    options: &ImportOptions,
    mapping: Mapping,
    unit_known: bool,
) -> Result<Trace, TraceError> {
    let with = |time_unit| {
        let mapping = Mapping { time_unit, ..mapping.clone() };
        Trace::import(path, &ImportOptions { mapping: Some(mapping), ..options.clone() })
    };
    match with(mapping.time_unit) {
        Err(TraceError::BadValue { column, line, .. })
            if !unit_known && column == mapping.time && line <= 2 =>
        {
            with(TimeUnit::Seconds)
        }
        imported => imported,
    }
}

/// The mapping that the start of a plain file speaks for, and whether the time column's name states its unit.
fn guessed_mapping(start: &str) -> Option<(Mapping, bool)> {
    let start = start.trim_start_matches('\u{feff}').trim();
    let names: Vec<&str> = if start.starts_with('{') {
        start
            .trim_start_matches('{')
            .split(',')
            .filter_map(|pair| pair.split_once(':'))
            .map(|pair| pair.0)
            .collect()
    } else {
        start.split(',').collect()
    };
    let names: Vec<&str> = names.iter().map(|name| name.trim().trim_matches('"')).collect();
    let optional = |name: &str| names.contains(&name).then(|| name.to_owned());
    let (time, unit) = TIME_COLUMNS.iter().find(|(name, _)| names.contains(name))?;
    // The keys of JSON lines beyond the start are not seen; one that no line has is no mistake there.
    let always = |name: &str| if start.starts_with('{') { Some(name.to_owned()) } else { optional(name) };
    let mapping = Mapping {
        time: (*time).to_owned(),
        time_unit: unit.unwrap_or_default(),
        count: optional("count"),
        exec_s: always("exec_s"),
        region: always("region"),
        class: always("class"),
        size: always("size"),
    };
    Some((mapping, unit.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_files_speak_for_themselves() {
        let check = |start: &str, expected: Option<(&str, TimeUnit, bool)>| {
            let guessed = guessed_mapping(start);
            let found = guessed.as_ref().map(|(m, _)| (m.time.as_str(), m.time_unit, m.count.is_some()));
            assert_eq!(found, expected, "{start}");
        };
        check("time,count", Some(("time", TimeUnit::Datetime, true)));
        check("time_ms,exec_s", Some(("time_ms", TimeUnit::Millis, false)));
        check("\"class\",\"timestamp\"", Some(("timestamp", TimeUnit::Datetime, false)));
        check("{\"time_s\":0.5,\"count\":3}", Some(("time_s", TimeUnit::Seconds, true)));
        check("{\"at\":1}", None);
        check("when,count", None);
    }

    #[test]
    fn times_without_a_unit_are_calendar_times_or_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let check = |text: &str, span_s: f64| {
            let path = folder.path().join("t.csv");
            std::fs::write(&path, text).unwrap();
            let trace = load_trace(&path).unwrap_or_else(|failure| panic!("{text}: {failure:?}"));
            assert_eq!(trace.span_ns() as f64 / 1e9, span_s, "{text}");
        };
        check("timestamp\n0\n1.5\n7\n", 7.0);
        check("time\n2026-01-01T00:00:00Z\n2026-01-01T00:01:00Z\n", 60.0);
        check("{\"time\":3}\n{\"time\":5}\n", 2.0);
        check("time_ms,count\n0,2\n500,1\n", 1.0);
    }

    #[test]
    fn unknown_formats_name_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, "when,who\n1,2\n").unwrap();
        let failure = load_trace(&path).unwrap_err();
        let help = failure.mistakes()[0].help.clone().unwrap_or_default();
        assert!(help.contains("headroom trace import") && help.contains("--time"), "{help}");
    }
}
