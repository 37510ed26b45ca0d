//! `headroom worker --join`: works for a plane until it is told to end. The rest is `control::worker`'s.

use std::path::PathBuf;

use clap::Args;
use policy::units::{Bytes, Duration};

use super::worker::WorkerArgs;
use crate::failure::{Failure, Status};
use crate::screen::Screen;

/// Flags of a worker that joins a plane.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Joining a plane")]
pub(crate) struct JoinArgs {
    /// Pool to serve, as the plane's scenario names it.
    #[arg(long, value_name = "NAME", requires = "join")]
    pub(super) pool: Option<String>,
    /// Jobs at once; at least as many as an instance of the pool has slots.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), requires = "join")]
    pub(super) slots: u16,
    /// Work takes time and makes nothing: for tests, load and rehearsals.
    #[arg(long, requires = "join", conflicts_with = "model")]
    pub(super) simulate: bool,
    /// Simulated work takes the service times of this scenario; without it, the `service_s` of each payload, or none.
    #[arg(long, value_name = "FILE", requires = "simulate")]
    pub(super) scenario: Option<PathBuf>,
    /// Memory for models, such as `20GiB`; models that are not used make room. Default: all are kept.
    #[arg(long, value_name = "SIZE", value_parser = bytes, requires = "join")]
    pub(super) memory: Option<Bytes>,
    /// After a signal to end, finish what is begun within this time.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s", requires = "join")]
    pub(super) grace: Duration,
    /// Work without progress for so long goes elsewhere.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "120s", requires = "join")]
    pub(super) hang_after: Duration,
    /// End after so long without a plane. Default: 15 minutes for a launched worker, else never.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "join")]
    pub(super) alone_for: Option<Duration>,
    /// Watch a metadata service for spot interruptions: its URL, or `auto` for that of EC2.
    #[arg(long, value_name = "URL|auto", requires = "join")]
    pub(super) imds: Option<String>,
    /// Trust the authorities in this file (PEM) alone when connecting by TLS.
    #[arg(long, value_name = "FILE", requires = "join")]
    pub(super) authority: Option<PathBuf>,
    /// Send spans of the work on traced jobs to this OpenTelemetry collector (OTLP over HTTP). Default: as
    /// OTEL_EXPORTER_OTLP_ENDPOINT says; none where it says nothing.
    #[arg(long, value_name = "URL", requires = "join")]
    pub(super) otlp: Option<String>,
}

fn bytes(text: &str) -> Result<Bytes, String> {
    Bytes::parse(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Duration, String> {
    Duration::parse(text).map_err(|error| error.to_string())
}

/// Runs `headroom worker --join`.
#[cfg(not(feature = "live"))]
pub(super) fn run(_: &str, args: &WorkerArgs, _: &Screen) -> Result<(), Failure> {
    let JoinArgs { pool, slots, simulate, scenario, memory, grace, hang_after, alone_for, imds, .. } =
        &args.joining;
    let _ = (pool, slots, simulate, scenario, memory, grace, hang_after, alone_for, imds);
    let _ = (&args.joining.authority, &args.joining.otlp);
    let message = "this program was built without the live control plane";
    Err(Failure::new(Status::Usage, "worker::not-live", message)
        .with_help("build it with `cargo build --release --features live`"))
}

#[cfg(feature = "live")]
pub(super) use live::run;

#[cfg(feature = "live")]
mod live {
    use std::path::Path;
    use std::sync::{Arc, Mutex};
    use std::time::Duration as StdDuration;

    use control::fleet::LAUNCH_VARIABLE;
    use control::trace::{self, RATIO, TraceSettings, WorkTraces};
    use control::worker::{
        Address, AddressError, DiffusionRunner, DiffusionSettings, Exit, IMDS_URL, Objects, Runner,
        SleepRunner, Stop, Worker, WorkerSettings, watch_interruption,
    };
    use tokio::runtime::Runtime;
    use tokio::sync::watch;

    use super::{Duration, Failure, JoinArgs, Screen, Status, WorkerArgs};
    use crate::commands::log;
    use crate::interrupt;

    /// Variable with the right to join.
    const JOIN_VARIABLE: &str = "HEADROOM_JOIN";

    /// A launched worker without a plane ends after so long: its machine costs.
    const ALONE_LAUNCHED: StdDuration = StdDuration::from_secs(900);

    /// Runs `headroom worker --join`.
    pub(in crate::commands) fn run(url: &str, args: &WorkerArgs, screen: &Screen) -> Result<(), Failure> {
        let joining = &args.joining;
        let token = std::env::var(JOIN_VARIABLE).unwrap_or_default();
        let address = Address::new(url, &token, joining.authority.as_deref()).map_err(|error| {
            let status = match error {
                AddressError::Url { .. } => Status::Usage,
                AddressError::Token | AddressError::Certificates { .. } => Status::InvalidInput,
            };
            Failure::new(status, "worker::address", error.to_string())
        })?;
        let pool = joining.pool.clone().unwrap_or_default();
        let launch = std::env::var(LAUNCH_VARIABLE).ok().filter(|token| !token.is_empty());
        let alone_for = joining.alone_for.map(std_time).or(launch.is_some().then_some(ALONE_LAUNCHED));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Status::Failed, "worker::runtime", error.to_string()))?;
        log::start(log::LogForm::Text);
        let runner = runner(args, &address, &runtime)?;
        let settings = WorkerSettings {
            address,
            pool,
            launch,
            slots: joining.slots,
            hang_after: std_time(joining.hang_after),
            alone_for,
        };
        let exit = work(settings, runner, joining, &runtime)?;
        // Work that hangs stays on its thread; nobody waits for it.
        runtime.shutdown_background();
        ended(exit, screen)
    }

    fn std_time(time: Duration) -> StdDuration {
        StdDuration::from_nanos(time.as_nanos())
    }

    /// Who does the work.
    fn runner(args: &WorkerArgs, address: &Address, runtime: &Runtime) -> Result<Arc<dyn Runner>, Failure> {
        let joining = &args.joining;
        if joining.simulate {
            let Some(file) = &joining.scenario else { return Ok(Arc::new(SleepRunner::new())) };
            return simulated(file, joining.pool.as_deref().unwrap_or_default());
        }
        if args.parts.sampler.is_some() || args.parts.guidance.is_some() {
            let message = "a worker that joins takes sampler and guidance from each job";
            let help = "leave out --sampler and --guidance; payloads have them as `sampler` and `guidance`";
            return Err(Failure::new(Status::Usage, "worker::flags", message).with_help(help));
        }
        let objects = Objects::new(address.clone(), runtime.handle().clone())
            .map_err(|error| Failure::new(Status::Failed, "worker::http", error.to_string()))?;
        let settings = DiffusionSettings {
            models: args.model.iter().map(|folder| args.parts.source(folder)).collect(),
            device: args.parts.device.choice(),
            memory: joining.memory.map(|memory| memory.get()),
        };
        let runner = DiffusionRunner::new(settings, objects)
            .map_err(|error| Failure::new(Status::Usage, "worker::model", error.to_string()))?;
        Ok(Arc::new(runner))
    }

    /// Work that takes the times of a scenario.
    fn simulated(file: &Path, pool: &str) -> Result<Arc<dyn Runner>, Failure> {
        let scenario = scenarios::load(file, &[])?.scenario;
        let pools = &scenario.system.pools;
        let Some(index) = pools.iter().position(|known| known.name == pool) else {
            let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
            let message = format!("{} has no pool `{pool}`", file.display());
            return Err(Failure::new(Status::InvalidInput, "worker::pool", message)
                .with_help(format!("its pools are {}", known.join(", "))));
        };
        Ok(Arc::new(SleepRunner::of(scenario, policy::model::PoolId(index as u16))))
    }

    /// Works until there is a reason to end.
    fn work(
        settings: WorkerSettings,
        runner: Arc<dyn Runner>,
        joining: &JoinArgs,
        runtime: &Runtime,
    ) -> Result<Exit, Failure> {
        let (stop, stopped) = watch::channel(Stop::No);
        let traces = traces(joining, runtime)?;
        let worker = Worker::new(settings, runner, stopped)
            .map_err(|error| Failure::new(Status::Failed, "worker::thread", error.to_string()))?;
        let worker = worker.traced(traces.clone());
        let grace = std_time(joining.grace);
        let asked = Mutex::new(Stop::No);
        interrupt::ask_instead(move || {
            let mut asked = asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *asked = if *asked == Stop::No { Stop::Within(grace) } else { Stop::Now };
            stop.send_replace(*asked);
        });
        if let Some(url) = joining.imds.clone() {
            let url = if url == "auto" { IMDS_URL.to_owned() } else { url };
            let notice = worker.notices();
            runtime.spawn(async move { watch_interruption(url.trim_end_matches('/'), notice).await });
        }
        // On one of the runtime's threads: on this one, each message would come by way of another.
        let worked = runtime.spawn(async move {
            let exit = worker.run().await;
            if let Some(traces) = traces {
                traces.flush(trace::FLUSH_FOR).await;
            }
            exit
        });
        match runtime.block_on(worked) {
            Ok(exit) => Ok(exit),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The way to the trace collector, if there is one.
    fn traces(joining: &JoinArgs, runtime: &Runtime) -> Result<Option<WorkTraces>, Failure> {
        let Some(wish) = TraceSettings::wished(joining.otlp.as_deref(), RATIO) else { return Ok(None) };
        let opened = runtime.block_on(async { WorkTraces::open(&wish) });
        opened
            .map(Some)
            .map_err(|error| Failure::new(Status::InvalidInput, "worker::traces", error.to_string()))
    }

    fn ended(exit: Exit, screen: &Screen) -> Result<(), Failure> {
        let (status, code, message, help) = match exit {
            Exit::Left => {
                screen.note("the worker left; it held no work");
                return Ok(());
            }
            Exit::Refused(why) => (Status::Failed, "worker::refused", why, None),
            Exit::NotPrepared(why) => (Status::Failed, "worker::model", why, None),
            Exit::DeviceFailed(why) => (
                Status::DeviceFailed,
                "worker::device",
                why,
                Some("start a new process; its jobs run elsewhere"),
            ),
            Exit::Alone(limit) => {
                let message = format!("no plane was reached for {} s", limit.as_secs());
                (Status::Failed, "worker::alone", message, Some("is the plane up, and its address right?"))
            }
        };
        let failure = Failure::new(status, code, message);
        Err(match help {
            Some(help) => failure.with_help(help),
            None => failure,
        })
    }
}
