//! A day read out of a journal as a scenario: its arrivals instead of the written ones, and where asked its measured times
//! instead of the written laws. Pure: reads no file.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::replay::{Arrival, Traffic};
use policy::model::{ClassId, JobClass, RegionId, System};
use policy::units::Duration;
use scenarios::scenario::{Arrivals, Law, Scenario, Source, Startup, Step, StepKind, TraceSource};
use scenarios::trace::{self, Timestamps, Trace, TraceData, TraceFormat};
use sim::inputs::Inputs;

/// Points that an empirical law is kept by.
const POINTS_MAX: usize = 4096;

/// Job classes that a system may have.
const CLASSES_MAX: usize = 64;

/// Deadlines of one request each are joined from this ratio on, when there are too many of them.
const RATIO_FIRST: f64 = 1.02;

/// A scenario that plays a recorded day.
pub(crate) struct Played {
    pub(crate) scenario: Scenario,
    pub(crate) inputs: Inputs,
    /// What the simulation leaves out or has to simplify, for people.
    pub(crate) notes: Vec<String>,
}

/// Classes and regions of the journal's numbers, by name.
pub(crate) struct Names<'a> {
    pub(crate) recorded: &'a System,
}

/// `scenario` with the arrivals of `traffic` until its end, and with its measured times where `measured` is set.
///
/// # Errors
/// A class or region of the journal that the scenario does not have.
pub(crate) fn played(
    mut scenario: Scenario,
    traffic: &Traffic,
    names: &Names<'_>,
    is_measured: bool,
) -> Result<Played, String> {
    let mut notes = Vec::new();
    let traces = replace_arrivals(&mut scenario, traffic, names, &mut notes)?;
    // Who asks again and who leaves is in the journal already.
    scenario.clients.patience = None;
    scenario.clients.reask = None;
    scenario.run.warmup = Duration::ZERO;
    scenario.run.horizon = Duration::from_nanos(traffic.last.as_nanos() + 1);
    scenario.run.precision = None;
    scenario.windows.clear();
    if is_measured {
        measure(&mut scenario, traffic, names, &mut notes);
    }
    let counts = &traffic.counts;
    let mut leave_out = |count: u64, what: &str| {
        if count > 0 {
            notes.push(format!("{count} {what}"));
        }
    };
    leave_out(counts.cancellations, "cancellations are not simulated: those jobs are served");
    leave_out(traffic.carried, "jobs that were there when the kept journal begins are left out");
    leave_out(counts.unfinished, "jobs had not ended when the journal did; simulated jobs all end");
    leave_out(counts.over_quota, "submissions beyond a tenant's quota are left out");
    leave_out(
        counts.reloads,
        "changes of parameters at work are not simulated: the scenario's hold throughout",
    );
    let mut inputs = Inputs { traces, ..Inputs::default() };
    for pool in &mut scenario.pools {
        if pool.interruption.trace.take().is_some() {
            notes.push("recorded spot availability is not played".to_owned());
        }
        inputs.availability.push(None);
    }
    Ok(Played { scenario, inputs, notes })
}

/// What jobs of one source have in common.
type Kind = (u16, Option<u8>, Option<u64>);

fn replace_arrivals(
    scenario: &mut Scenario,
    traffic: &Traffic,
    names: &Names<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<Option<Arc<Trace>>>, String> {
    let classes = by_name(&names.recorded.classes, &scenario.system.classes, "class", |class| &class.name)?;
    let regions =
        by_name(&names.recorded.regions, &scenario.system.regions, "region", |region| &region.name)?;
    let room = CLASSES_MAX - scenario.system.classes.len();
    let (kinds, ratio) = kinds(&traffic.arrivals, room);
    if ratio > 1.0 {
        notes.push(format!("deadlines within {:.0} % of each other are taken as one", (ratio - 1.0) * 100.0));
    }
    // A job with a priority or a deadline of its own is one of a class of its own.
    let mut class_of: BTreeMap<Kind, u16> = BTreeMap::new();
    for kind in kinds.iter().copied() {
        let base = classes[usize::from(kind.0)];
        let class = &scenario.system.classes[usize::from(base)];
        let (priority, deadline) = (kind.1.unwrap_or(class.priority), kind.2.map(Duration::from_nanos));
        let own = JobClass {
            name: format!("{} ({})", class.name, scenario.system.classes.len()),
            priority,
            deadline: deadline.or(class.deadline),
            expires: class.expires || deadline.is_some(),
        };
        let same =
            own.priority == class.priority && own.deadline == class.deadline && own.expires == class.expires;
        class_of.entry(kind).or_insert_with(|| {
            if same {
                return base;
            }
            scenario.system.classes.push(own);
            (scenario.system.classes.len() - 1) as u16
        });
    }
    let mut times: BTreeMap<(u16, u16), Vec<u64>> = BTreeMap::new();
    for arrival in &traffic.arrivals {
        let class = class_of[&kind(arrival, ratio)];
        times.entry((class, regions[arrival.region.index()])).or_default().push(arrival.at.as_nanos());
    }
    scenario.workload.clear();
    let mut traces = Vec::new();
    for ((class, region), at_ns) in times {
        let name = format!("recorded {class}/{region}");
        let mut shares = vec![0.0; scenario.system.regions.len()];
        shares[RegionId(region).index()] = 1.0;
        scenario.workload.push(Source {
            name: name.clone(),
            arrivals: Arrivals::Trace(TraceSource {
                path: name.clone().into(),
                start: Duration::ZERO,
                time_factor: 1.0,
                repeat: false,
                jobs_total: None,
            }),
            class: ClassId(class),
            region_share: shares,
            rate_factor: 1.0,
        });
        // Times stay those of the journal: the sources keep step with each other.
        let stamps = Timestamps { at_ns, resolution_ns: 1, ..Timestamps::default() };
        let source = trace::Source { name, format: TraceFormat::Rows, sha256: None };
        traces.push(Some(Arc::new(Trace { source, start: None, data: TraceData::Timestamps(stamps) })));
    }
    Ok(traces)
}

/// For each of `recorded`, the place of its name in `known`.
fn by_name<T>(
    recorded: &[T],
    known: &[T],
    what: &str,
    name: impl Fn(&T) -> &String,
) -> Result<Vec<u16>, String> {
    let place = |item: &T| {
        let at = known.iter().position(|other| name(other) == name(item));
        at.map(|at| at as u16).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|item| name(item).as_str()).collect();
            format!("the journal's {what} `{}` is none of the scenario's: {}", name(item), names.join(", "))
        })
    };
    recorded.iter().map(place).collect()
}

/// The kinds of jobs, at most `room` of them with something of their own, and the ratio within which deadlines are joined.
fn kinds(arrivals: &[Arrival], room: usize) -> (Vec<Kind>, f64) {
    let mut ratio = 1.0;
    loop {
        let mut found: Vec<Kind> = arrivals.iter().map(|arrival| kind(arrival, ratio)).collect();
        found.sort_unstable();
        found.dedup();
        let own = found.iter().filter(|kind| kind.1.is_some() || kind.2.is_some()).count();
        if own <= room {
            return (found, ratio);
        }
        ratio = if ratio == 1.0 { RATIO_FIRST } else { ratio * ratio };
    }
}

fn kind(arrival: &Arrival, ratio: f64) -> Kind {
    let deadline = arrival.deadline.map(|deadline| {
        let nanos = deadline.as_nanos().max(1);
        if ratio == 1.0 {
            return nanos;
        }
        ratio.powf(((nanos as f64).ln() / ratio.ln()).round()) as u64
    });
    (arrival.class.0, arrival.priority, deadline)
}

/// Replaces the laws of stages and start-ups by what was measured, where enough was.
fn measure(scenario: &mut Scenario, traffic: &Traffic, names: &Names<'_>, notes: &mut Vec<String>) {
    let measured = &traffic.measured;
    // What a pool's speed does is in the measured times.
    for pool in &mut scenario.system.pools {
        pool.speed_factor = 1.0;
    }
    for stage in 0..scenario.system.stages.len() {
        let name = &scenario.system.stages[stage].name;
        let Some(then) = names.recorded.stages.iter().position(|known| known.name == *name) else { continue };
        if let Some((ended, failed)) = measured.attempts.get(&(then as u16)) {
            scenario.stages[stage].failure = *failed as f64 / (*ended).max(1) as f64;
        }
        let of_stage = measured.services.iter().filter(|(key, _)| key.0 == then as u16);
        let has_quality = names.recorded.stages[then].has_quality;
        // Each time at the best quality, by pool.
        let mut by_pool: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for ((_, pool, quality), times) in of_stage {
            let level = names.recorded.qualities.get(usize::from(*quality)).filter(|_| has_quality);
            let factor = level.map_or(1.0, |level| level.service_factor);
            let pool = names.recorded.pools[usize::from(*pool)].name.as_str();
            by_pool.entry(pool).or_default().extend(times.iter().map(|time| *time as f64 / factor));
        }
        let count: usize = by_pool.values().map(Vec::len).sum();
        if count < 2 {
            if scenario.system.stages[stage].place != policy::model::Place::Outside {
                notes.push(format!("stage `{name}` keeps its written times: {count} were measured"));
            }
            continue;
        }
        let sum: f64 = by_pool.values().flatten().sum();
        let mean = sum / count as f64;
        let ratio = |pool: &policy::model::Pool| {
            let times = by_pool.get(pool.name.as_str());
            times.map_or(1.0, |times| times.iter().sum::<f64>() / times.len() as f64 / mean)
        };
        let factor: Vec<f64> = scenario.system.pools.iter().map(ratio).collect();
        let mut times: Vec<f64> = Vec::with_capacity(count);
        for own in by_pool.values() {
            let own_mean = own.iter().sum::<f64>() / own.len() as f64;
            times.extend(own.iter().map(|time| time * mean / own_mean.max(1.0)));
        }
        let work = &mut scenario.stages[stage];
        let kind = StepKind::Compute { time: empirical(times), factor };
        work.steps = vec![Step { name: scenario.system.stages[stage].name.clone(), kind }];
        // Neighbours slowed what was measured already.
        work.slowdown.clear();
    }
    scenario.spans.clear();
    for (pool, world) in scenario.system.pools.iter().zip(&mut scenario.pools) {
        let then = names.recorded.pools.iter().position(|known| known.name == pool.name);
        let times = then.and_then(|then| measured.startups.get(&(then as u16)));
        if let Some(times) = times.filter(|times| times.len() >= 2) {
            world.startup = Startup {
                boot: empirical(times.iter().map(|time| *time as f64).collect()),
                image: Law::Constant(Duration::ZERO),
                weights: Law::Constant(Duration::ZERO),
                warm_count: 0,
                ..world.startup.clone()
            };
        }
    }
}

/// The law of measured times (at least one), nanoseconds: their quantiles, joined by straight lines.
pub(crate) fn empirical(mut times: Vec<f64>) -> Law {
    times.sort_by(f64::total_cmp);
    let points = times.len().clamp(2, POINTS_MAX);
    let quantile = |point: usize| {
        let place = point as f64 / (points - 1) as f64 * (times.len() - 1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        let time = times[below] + (times[above] - times[below]) * (place - below as f64);
        Duration::from_nanos(time.round() as u64)
    };
    Law::Quantiles((0..points).map(quantile).collect())
}

#[cfg(test)]
mod tests {
    use policy::units::Instant;
    use policy::units::random::Stream;
    use sim::experiment::{RunOptions, Unwatched, run};
    use sim::kernel::Sampler;
    use sim::replication::Keep;

    use super::*;

    const SCENARIO: &str = r#"
[network]
regions = ["here"]
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "100/s" }
[[pipeline.stage]]
name = "render"
pool = "gpu"
time = "1s"
[fleet.pool.main]
class = "gpu"
price = "3.6 USD/h"
count = 4
[objective]
deadline = "5s"
[run]
horizon = "1h"
"#;

    fn scenario() -> Scenario {
        let text = SCENARIO.replace("[network]\nregions = [\"here\"]\n", "");
        let loaded = scenarios::load_str("t", &text, std::path::Path::new("/"), &[]);
        loaded.unwrap_or_else(|errors| panic!("{errors:?}")).scenario
    }

    fn arrival(at_ms: u64, deadline_ms: Option<u64>) -> Arrival {
        Arrival {
            at: Instant::START + Duration::from_millis(at_ms),
            class: ClassId(0),
            region: RegionId(0),
            priority: None,
            deadline: deadline_ms.map(Duration::from_millis),
        }
    }

    fn simulate(played: &Played) -> sim::outcome::Outcome {
        let options = RunOptions { threads: 1, keep: Keep::Statistics };
        run(&played.scenario, &played.inputs, options, &Unwatched).unwrap().outcomes.remove(0)
    }

    #[test]
    fn recorded_arrivals_are_played_at_their_times() {
        let scenario = scenario();
        let names = Names { recorded: &scenario.system.clone() };
        // Eight at once on four machines: four wait for a second. Two more come to an idle fleet.
        let mut arrivals: Vec<Arrival> = (0..8).map(|_| arrival(10_000, None)).collect();
        arrivals.extend([arrival(20_000, None), arrival(30_500, None)]);
        let last = Instant::START + Duration::from_secs(119);
        let traffic = Traffic { arrivals, last, ..Traffic::default() };
        let played = played(scenario, &traffic, &names, false).unwrap();
        let outcome = simulate(&played);
        assert_eq!((outcome.jobs.arrived, outcome.jobs.done), (10, 10));
        assert_eq!(outcome.latency.max_ns(), Some(2_000_000_000));
        assert!((outcome.latency.mean_ns().unwrap() - 1.4e9).abs() < 1e6);
        // Four machines at 3.6 dollars an hour; the 120th second has begun.
        assert!((outcome.cost() - 0.48).abs() < 1e-3, "{}", outcome.cost());
    }

    #[test]
    fn jobs_with_a_deadline_of_their_own_expire_alone() {
        let scenario = scenario();
        let names = Names { recorded: &scenario.system.clone() };
        let mut arrivals: Vec<Arrival> = (0..12).map(|_| arrival(0, None)).collect();
        arrivals.push(arrival(1, Some(500)));
        let traffic =
            Traffic { arrivals, last: Instant::START + Duration::from_secs(9), ..Traffic::default() };
        let outcome = simulate(&played(scenario, &traffic, &names, false).unwrap());
        assert_eq!((outcome.jobs.done, outcome.jobs.expired), (12, 1));
    }

    #[test]
    fn too_many_deadlines_are_joined_and_said() {
        let scenario = scenario();
        let names = Names { recorded: &scenario.system.clone() };
        let arrivals: Vec<Arrival> = (0..500).map(|job| arrival(job, Some(1_000 + 37 * job))).collect();
        let traffic = Traffic { arrivals, last: Instant::from_nanos(1), ..Traffic::default() };
        let played = played(scenario, &traffic, &names, false).unwrap();
        assert!(played.scenario.system.classes.len() <= CLASSES_MAX);
        assert!(played.notes.iter().any(|note| note.contains("taken as one")), "{:?}", played.notes);
        assert!(played.scenario.system.check().is_ok());
    }

    #[test]
    fn unknown_classes_are_refused_by_name() {
        let mut other = scenario().system;
        other.classes[0].name = "guests".to_owned();
        let refused = played(scenario(), &Traffic::default(), &Names { recorded: &other }, false);
        let message = refused.err().expect("there are no guests");
        assert!(message.contains("`guests`"), "{message}");
    }

    #[test]
    fn measured_times_replace_the_written_ones() {
        let scenario = scenario();
        let names = Names { recorded: &scenario.system.clone() };
        let mut traffic = Traffic {
            arrivals: (0..100).map(|job| arrival(5_000 * job, None)).collect(),
            last: Instant::START + Duration::from_secs(600),
            ..Traffic::default()
        };
        traffic
            .measured
            .services
            .insert((0, 0, 0), (0..101).map(|k| 2_000_000_000 + k * 10_000_000).collect());
        traffic.measured.attempts.insert(0, (101, 0));
        let outcome = simulate(&played(scenario, &traffic, &names, true).unwrap());
        // Evenly between 2 s and 3 s, and no job waits.
        let mean = outcome.latency.mean_ns().unwrap() * 1e-9;
        assert!((mean - 2.5).abs() < 0.15, "{mean}");
        let (min, max) = (outcome.latency.quantile(0.0).unwrap(), outcome.latency.max_ns().unwrap());
        assert!(min >= 1_980_000_000 && max <= 3_020_000_000, "{min} {max}");
    }

    #[test]
    fn an_empirical_law_has_the_quantiles_of_its_sample() {
        // Two humps, which no law with a formula has.
        let sample: Vec<f64> =
            (0..10_000).map(|k| if k % 4 == 0 { 9e9 } else { 1e9 } + f64::from(k)).collect();
        let law = empirical(sample.clone());
        assert!(law.check().is_ok());
        assert!((law.mean().as_secs_f64() - 3.0).abs() < 0.01, "{}", law.mean());
        let mut sampler = Sampler::new(&law, Stream::new(1, 0, "t"));
        let n = 20_000;
        let high = (0..n).filter(|index| sampler.at(*index) > 5_000_000_000).count() as f64 / n as f64;
        assert!((high - 0.25).abs() < 0.0125, "{high} is four standard errors from a quarter");
        assert_eq!(empirical(vec![7.0]), Law::Quantiles(vec![Duration::from_nanos(7); 2]));
    }
}
