//! `headroom rehearse`: the planned day against a live plane, with played machines, beside the plan.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use control::fleet::{FleetSettings, Rehearsal};
use control::journal::ScenarioText;
use control::objects::{ObjectSettings, Place};
use control::plane::Patience;
use control::service::{Crew, End, Making, Opening, Service, ServiceError, ServiceSettings, join_token};
use control::shell::Handle;
use control::submission::Submission;
use control::worker::Address;
use scenarios::scenario::{Scenario, compressed};
use sim::world::arrivals::{Arrival, ArrivalFeed};
use tokio::sync::watch;
use tokio::time::Instant;

use super::day::Day;
use super::fidelity::{Fidelity, compare};
use super::inputs::{load_inputs, load_scenario};
use super::market::{Market, shocks};
use super::overrides;
use super::rehearse_cloud::Cloud;
use super::rehearse_remote;
use super::replay::REPLICATIONS;
use super::run_args::{OverrideArgs, duration_ns};
use super::simulate::with_whole_paths;
use crate::failure::{Failure, Status};
use crate::interrupt;
use crate::screen::Screen;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom rehearse launch.toml --compress 60 --duration 2min      an hour of the plan takes a minute
  headroom rehearse quickstart.toml --workers 40 --duration 10min --data rehearsal
  headroom rehearse launch.toml --ec2 ec2.toml --compress 60       its machines are instances of EC2 too (docs/aws.md)
  headroom rehearse launch.toml --against https://plane.example --key hr_...

Without --against a plane is started in this process, with workers that only take the scenario's time; machines boot, are
refused and are taken away as in the simulation. With it, jobs are sent to a plane that runs elsewhere, which has workers of
its own. Keep the journal with --data, and look at it with `headroom fidelity` and `headroom replay`.";

/// Initial machines have so long to be ready.
const READY_FOR: Duration = Duration::from_secs(60);

/// After the last arrival, jobs have so long to end, and as long again as the rehearsal took.
const DRAIN_FOR: Duration = Duration::from_secs(60);

/// Most workers of one rehearsal: each is a connection and a few threads of this process.
const MACHINES_MAX: u32 = 2_000;

/// What goes on at its own pace however a scenario is compressed, for people.
const NOT_COMPRESSED: &str = "not compressed are the network, commits and timers of this machine; the plane's beats and patience \
     with workers; the clock of fixed and scheduled fleets (10 s), pauses after refused launches, and minute rows; warnings of \
     interruptions come in whole seconds";

/// `headroom rehearse`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RehearseArgs {
    /// The scenario.
    #[arg(value_name = "SCENARIO")]
    file: PathBuf,
    #[command(flatten)]
    overrides: OverrideArgs,
    /// Send the jobs to the plane at this address.
    #[arg(long, value_name = "URL", conflicts_with_all = ["workers", "data"])]
    against: Option<String>,
    /// Key for that plane, with the scopes submit, read and observe; from HEADROOM_KEY where it is not given.
    #[arg(long, value_name = "KEY", requires = "against")]
    key: Option<String>,
    /// Payload of every job, JSON.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    payload: String,
    /// Go through the scenario so many times as fast.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = factor)]
    compress: f64,
    /// Machines of the scenario's only pool, from the start.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    workers: Option<u32>,
    /// How long jobs are sent, on the wall clock; the scenario's horizon at most.
    #[arg(long, value_name = "DURATION", value_parser = duration_ns)]
    duration: Option<u64>,
    /// Launch the machines of the pools in this file on EC2 too, and end them; their workers are played all the same. They cost
    /// money unless AWS_ENDPOINT_URL names a stand-in.
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    ec2: Option<PathBuf>,
    /// Keep the plane's journal in this folder, which must be new.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse::<f64>().ok().filter(|factor| (1.0..=10_000.0).contains(factor));
    factor.ok_or_else(|| "it must be a number from 1 to 10000".to_owned())
}

/// Runs `headroom rehearse`.
pub(crate) fn run(args: &RehearseArgs, screen: &Screen) -> Result<(), Failure> {
    let mut overrides = args.overrides.clone();
    if let Some(workers) = args.workers {
        let scenario = load_scenario(&args.file, &overrides, screen)?.scenario;
        overrides.set.extend(only_pool(&scenario, workers)?);
    }
    let loaded = load_scenario(&args.file, &overrides, screen)?;
    let toml = with_whole_paths(&loaded.resolved_toml, &args.file);
    let text = ScenarioText { toml, compress: args.compress };
    let scenario = prepared(loaded.scenario, args, screen);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("rehearse::runtime", error.to_string()))?;
    let found = match &args.against {
        Some(url) => {
            let key = args.key.clone().or_else(|| std::env::var("HEADROOM_KEY").ok()).unwrap_or_default();
            runtime.block_on(rehearse_remote::run(url, &key, scenario, &args.payload, screen))?
        }
        None => locally(args, scenario, text, &runtime, screen)?,
    };
    // Played workers may still sleep on their threads.
    runtime.shutdown_background();
    if args.compress > 1.0 {
        screen.note(&format!("times are {} times shorter than the plan's; {NOT_COMPRESSED}", args.compress));
    }
    found.show(["live", "planned"], screen)
}

/// The scenario as it is rehearsed: compressed, cut, and without what only a simulation has.
fn prepared(scenario: Scenario, args: &RehearseArgs, screen: &Screen) -> Scenario {
    let mut scenario = compressed(scenario, args.compress);
    let run = &mut scenario.run;
    if let Some(wall) = args.duration {
        run.horizon = run.horizon.min(policy::units::Duration::from_nanos(wall));
    }
    run.replications = args.overrides.replications.unwrap_or(REPLICATIONS);
    run.precision = None;
    if scenario.clients.patience.take().is_some() | scenario.clients.reask.take().is_some() {
        screen.note("clients neither leave nor ask again in a rehearsal");
    }
    let mut dropped = false;
    for pool in &mut scenario.pools {
        dropped |= pool.interruption.trace.take().is_some();
    }
    if dropped {
        screen.note("recorded spot availability is not played in a rehearsal");
    }
    let machines: u32 = scenario.system.pools.iter().map(|pool| pool.count_max).fold(0, u32::saturating_add);
    if args.against.is_none() && machines > MACHINES_MAX {
        screen.warn(&format!(
            "the pools may hold {machines} machines; more than {MACHINES_MAX} at once are more than one process can play"
        ));
    }
    scenario
}

/// What gives the only pool of a scenario so many machines.
fn only_pool(scenario: &Scenario, workers: u32) -> Result<Vec<String>, Failure> {
    let [pool] = scenario.system.pools.as_slice() else {
        let message = format!("the scenario has {} pools", scenario.system.pools.len());
        return Err(Failure::new(Status::Usage, "rehearse::workers", message)
            .with_help("--workers is for scenarios with one pool; use --set fleet.pool.NAME.count=N"));
    };
    let key = overrides::pool_key(&pool.name);
    let mut set = vec![format!("{key}.count={workers}")];
    if pool.count_max < workers {
        set.push(format!("{key}.count_max={workers}"));
    }
    Ok(set)
}

fn locally(
    args: &RehearseArgs,
    scenario: Scenario,
    text: ScenarioText,
    runtime: &tokio::runtime::Runtime,
    screen: &Screen,
) -> Result<Fidelity, Failure> {
    if args.data.as_ref().is_some_and(|folder| folder.join("journal.sqlite").exists()) {
        return Err(Failure::new(
            Status::InvalidInput,
            "rehearse::data",
            "that folder holds a journal already",
        )
        .with_help("name a new folder: a rehearsal begins with an empty journal"));
    }
    let cloud = Cloud::wished(args.ec2.as_deref(), &scenario.system)?;
    let (temporary, unfinished) = interrupt::Unfinished::make(tempfile::tempdir, tempfile::TempDir::path)
        .map_err(|error| failed("rehearse::folder", error.to_string()))?;
    let folder = args.data.clone().unwrap_or_else(|| temporary.path().to_owned());
    runtime.block_on(play(&folder, scenario.clone(), text, args, &cloud, screen))?;
    let mut day = Day::open(&folder, None, screen)?;
    let found = compare(&day.traffic()?, day.recorded(), scenario, false, None)?;
    drop(unfinished);
    Ok(found)
}

/// Runs the plane, its machines and its clients until every job has ended.
async fn play(
    folder: &std::path::Path,
    scenario: Scenario,
    text: ScenarioText,
    args: &RehearseArgs,
    cloud: &Cloud,
    screen: &Screen,
) -> Result<(), Failure> {
    let settings = ServiceSettings {
        folder: folder.to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: None,
        limits: control::api::Limits::default(),
        patience: Patience::default(),
        shard: 0,
        joined: Vec::new(),
        fleet: FleetSettings::default(),
        public_url: None,
        webhooks: control::webhook::WebhookSettings::default(),
        objects: ObjectSettings { place: Place::Folder(folder.join("objects")), ..ObjectSettings::default() },
        text: Some(text),
        keep: None,
        traces: None,
    };
    let inputs = load_inputs(&scenario)?;
    let feed = ArrivalFeed::new(&scenario, &inputs, 0)
        .map_err(|error| Failure::new(Status::InvalidInput, "rehearse::trace", error.to_string()))?;
    let played = Arc::new(Mutex::new(None));
    let slot = played.clone();
    let (of_providers, of_cloud) = (scenario.clone(), cloud.clone());
    let crew = move |opening: Opening| -> Making<'static> {
        let url = format!("http://{}", opening.address);
        let made = Address::new(&url, &join_token(&opening.rules), None).map_err(|error| ServiceError::Io {
            what: "joining".into(),
            error: std::io::Error::other(error),
        });
        let address = match made {
            Ok(address) => address,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let fates = Box::new(Market::new(&of_providers));
        let rehearsal = Rehearsal::new(address, of_providers.clone(), opening.news.clone(), fates);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(rehearsal.clone());
        let cloud = of_cloud.clone();
        Box::pin(async move {
            Ok(Crew { providers: cloud.providers(opening, rehearsal).await?, tasks: Vec::new() })
        })
    };
    let service = Service::start(settings, &scenario, Box::new(crew))
        .await
        .map_err(|error| failed("rehearse::start", error.to_string()))?;
    let handle = service.handle.clone();
    let rehearsal = played.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (asked, mut wants_end) = watch::channel(false);
    let plane = tokio::spawn(service.run(async move {
        let _ = wants_end.wait_for(|end| *end).await;
    }));
    let shocks = rehearsal.map(|rehearsal| tokio::spawn(shocks(rehearsal)));
    let mut interrupted = cloud.interrupted();
    let day = tokio::select! {
        day = whole_day(&handle, &scenario, feed, &args.payload, screen) => day,
        Ok(_) = interrupted.wait_for(|asked| *asked) => {
            Err(Failure::new(Status::Interrupted, "rehearse::interrupted", "the rehearsal was interrupted"))
        }
    };
    if let Some(shocks) = shocks {
        shocks.abort();
    }
    asked.send_replace(true);
    let end = match plane.await {
        Ok(End::Asked) => Ok(()),
        Ok(End::Failed(error)) => Err(failed("rehearse::journal", error.to_string())),
        Ok(End::Panicked) | Err(_) => Err(failed("rehearse::bug", "the plane ended by a bug".to_owned())),
    };
    // Whatever happened, nothing must go on costing money.
    cloud.close(screen).await.and(day).and(end)
}

/// The clients' day: from the first machines until every job has ended.
async fn whole_day(
    handle: &Handle,
    scenario: &Scenario,
    feed: ArrivalFeed,
    payload: &str,
    screen: &Screen,
) -> Result<(), Failure> {
    wait_ready(handle, scenario).await?;
    let horizon = Duration::from_nanos(scenario.run.horizon.as_nanos());
    screen.note(&format!("jobs are sent for {:.1} s", horizon.as_secs_f64()));
    let began = Instant::now();
    let late = send(handle, feed, payload).await?;
    tokio::time::sleep_until(began + horizon).await;
    drain(handle, began.elapsed(), screen).await;
    if late > Duration::from_millis(50) {
        screen.warn(&format!(
            "this machine was too busy: a job was sent {:.0} ms late",
            late.as_secs_f64() * 1e3
        ));
    }
    Ok(())
}

fn failed(code: &'static str, message: String) -> Failure {
    Failure::new(Status::Failed, code, message)
}

/// Waits until the machines that are there from the start are.
async fn wait_ready(handle: &Handle, scenario: &Scenario) -> Result<(), Failure> {
    let wanted: u32 = scenario.system.pools.iter().map(|pool| pool.count_initial).sum();
    let until = Instant::now() + READY_FOR;
    loop {
        let ready: u32 = handle.figures().pools.iter().map(|pool| pool.1).sum();
        if ready >= wanted {
            return Ok(());
        }
        if Instant::now() > until {
            let message = format!("only {ready} of {wanted} machines were ready in time");
            return Err(failed("rehearse::ready", message)
                .with_help("use fewer machines, or a machine with more cores"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends every job at its time, whatever became of those before; returns how late the latest was.
async fn send(handle: &Handle, mut feed: ArrivalFeed, payload: &str) -> Result<Duration, Failure> {
    let began = Instant::now();
    let payload: Box<[u8]> = payload.as_bytes().into();
    let mut late = Duration::ZERO;
    let mut answers = tokio::task::JoinSet::new();
    while feed.next_at != u64::MAX {
        let due = began + Duration::from_nanos(feed.next_at);
        tokio::time::sleep_until(due).await;
        let now = Instant::now();
        let mut batch = Vec::new();
        while began + Duration::from_nanos(feed.next_at.min(u64::MAX / 4)) <= now {
            late = late.max(now - (began + Duration::from_nanos(feed.next_at)));
            let Some(arrival) = feed.take() else { break };
            batch.push(submission(&arrival, &payload));
        }
        let handle = handle.clone();
        answers.spawn(async move { handle.submit_many(batch).await.map(|_| ()) });
        while let Some(answered) = answers.try_join_next() {
            check(answered)?;
        }
    }
    while let Some(answered) = answers.join_next().await {
        check(answered)?;
    }
    Ok(late)
}

fn check(answered: Result<Result<(), control::shell::Busy>, tokio::task::JoinError>) -> Result<(), Failure> {
    match answered {
        Ok(Ok(())) => Ok(()),
        Ok(Err(busy)) => Err(failed("rehearse::busy", format!("the plane takes no jobs: {busy:?}"))),
        Err(error) => Err(failed("rehearse::bug", error.to_string())),
    }
}

fn submission(arrival: &Arrival, payload: &[u8]) -> Box<Submission> {
    Box::new(Submission {
        tenant: 0,
        tenant_jobs_max: u32::MAX,
        class: arrival.class,
        region: arrival.region,
        priority: None,
        deadline: None,
        payload: payload.into(),
        inputs: Vec::new(),
        idempotency: None,
        webhook: None,
        traceparent: None,
    })
}

/// Waits until every job has ended.
async fn drain(handle: &Handle, took: Duration, screen: &Screen) {
    let until = Instant::now() + DRAIN_FOR + took;
    loop {
        match handle.look(|plane| plane.jobs_in_system()).await {
            Ok(0) | Err(_) => return,
            Ok(left) if Instant::now() > until => {
                return screen.warn(&format!("{left} jobs did not end in time"));
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
