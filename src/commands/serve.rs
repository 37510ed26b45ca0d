//! `headroom serve`: the live control plane of a scenario, on this machine.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use control::api::{Limits, TlsFiles};
use control::fleet::{
    FleetSettings, ManualProvider, News, ProcessProvider, ProcessSettings, Provider, SpendLimits,
};
use control::plane::{Patience, Rules};
use control::service::{End, Service, ServiceError, ServiceSettings, own_join_token};
use policy::units::Usd;
use tokio::sync::watch;

use super::inputs::load_scenario;
use super::run_args::OverrideArgs;
use crate::failure::{Failure, Status};
use crate::interrupt;
use crate::screen::Screen;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom serve quickstart.toml                            worker processes on this machine, tiny model
  headroom serve launch.toml --provider manual              workers join by themselves
  headroom serve launch.toml --data /var/lib/headroom --listen 0.0.0.0:8443 \\
      --tls-cert cert.pem --tls-key key.pem --spend-per-hour 200 --spend-total 5000

Without keys (`headroom keys create`) the plane listens to this machine alone, and every program on it may do everything.
SIGTERM and Ctrl-C end it in order: no new jobs, answers in flight are given, everything is on disk. Workers wait for the
next plane. Whatever kills it otherwise, the next one goes on where it was.";

/// Where machines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProviderKind {
    /// Worker processes on this machine.
    Process,
    /// Workers that join by themselves.
    Manual,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogForm {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `headroom serve`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// Scenario file.
    file: PathBuf,
    #[command(flatten)]
    overrides: OverrideArgs,
    /// Folder of the journal, keys and logs; made if need be.
    #[arg(long, value_name = "DIR", default_value = "headroom-data")]
    data: PathBuf,
    /// Address of the job API.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Certificate chain (PEM); it is read again when the file changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where machines come from: for all pools, or POOL=PROVIDER for one; may be repeated.
    #[arg(long, value_name = "[POOL=]PROVIDER", default_value = "process")]
    provider: Vec<String>,
    /// Folder of a model that worker processes hold; may be repeated. Default: a tiny model that makes noise, in the data
    /// folder.
    #[arg(long, value_name = "DIR", conflicts_with = "simulate")]
    model: Vec<PathBuf>,
    /// Worker processes take the scenario's times and make nothing.
    #[arg(long)]
    simulate: bool,
    /// Address under which worker processes reach the plane. Default: where it listens.
    #[arg(long, value_name = "URL")]
    join_url: Option<String>,
    /// Most that all machines together may cost per hour, dollars.
    #[arg(long, value_name = "USD", value_parser = dollars)]
    spend_per_hour: Option<Usd>,
    /// Most that may be spent in the life of the data folder, dollars.
    #[arg(long, value_name = "USD", value_parser = dollars)]
    spend_total: Option<Usd>,
    /// Log what would be launched; launch nothing.
    #[arg(long)]
    dry_run: bool,
    /// Jobs in the system at most; beyond, clients are told to come back.
    #[arg(long, value_name = "N", default_value_t = Patience::default().jobs_max)]
    jobs_max: u32,
    /// Number of this plane's shard.
    #[arg(long, value_name = "N", default_value_t = 0)]
    shard: u16,
    /// Form of the log on stderr.
    #[arg(long, value_enum, default_value = "text")]
    log: LogForm,
}

fn dollars(text: &str) -> Result<Usd, String> {
    let amount: f64 = text.parse().map_err(|_| format!("`{text}` is no amount of dollars, like 12.5"))?;
    if !amount.is_finite() || !(0.0..=1e9).contains(&amount) {
        return Err(format!("{text} is out of range: 0 to a billion dollars"));
    }
    Ok(Usd::from_nanos((amount * 1e9).round() as i64))
}

/// Runs `headroom serve`.
pub(crate) fn run(args: &ServeArgs, screen: &Screen) -> Result<(), Failure> {
    let loaded = load_scenario(&args.file, &args.overrides, screen)?;
    let kinds = kinds(args, &loaded.scenario.system)?;
    start_log(args.log);
    let settings = settings(args, &loaded.scenario.system, &kinds);
    let (asked, mut wants_end) = watch::channel(false);
    interrupt::ask_instead(move || {
        let _ = asked.send_replace(true);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Status::Failed, "serve::runtime", error.to_string()))?;
    let end = runtime.block_on(async {
        let providers = |rules: &Rules, address, news| providers(args, &kinds, rules, address, news);
        let service =
            Service::start(settings, &loaded.scenario, Box::new(providers)).await.map_err(failure)?;
        let recovery = service.recovery;
        let address = service.address;
        let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
        screen.note(&format!(
            "{} serves {} at {scheme}://{address} after {:.1} s ({} commands of the journal)",
            env!("CARGO_PKG_NAME"),
            loaded.scenario.name,
            service.started_in.as_secs_f64(),
            recovery.commands,
        ));
        let end = service.run(async move {
            let _ = wants_end.wait_for(|end| *end).await;
        });
        Ok::<_, Failure>(end.await)
    })?;
    match end {
        End::Asked => Ok(()),
        End::Failed(error) => Err(Failure::new(Status::Failed, "serve::journal", error.to_string())
            .with_help("start it again: it goes on from what is on disk")),
        End::Panicked => Err(Failure::new(Status::Failed, "serve::bug", "the plane's thread ended by a bug")
            .with_help("start it again: it goes on from what is on disk; please report the panic above")),
    }
}

/// Every pool's provider, by pool.
fn kinds(args: &ServeArgs, system: &policy::model::System) -> Result<Vec<ProviderKind>, Failure> {
    let mut kinds = vec![ProviderKind::Process; system.pools.len()];
    for text in &args.provider {
        let (pool, kind) = match text.split_once('=') {
            Some((pool, kind)) => (Some(pool), kind),
            None => (None, text.as_str()),
        };
        let kind = ProviderKind::from_str(kind, false).map_err(|_| {
            Failure::new(Status::Usage, "serve::provider", format!("`{kind}` is no provider"))
                .with_help("use process or manual")
        })?;
        match pool {
            None => kinds.fill(kind),
            Some(name) => {
                let at = system.pools.iter().position(|pool| pool.name == name).ok_or_else(|| {
                    let known: Vec<_> = system.pools.iter().map(|pool| pool.name.as_str()).collect();
                    Failure::new(Status::InvalidInput, "serve::pool", format!("there is no pool `{name}`"))
                        .with_help(format!("the scenario has {}", known.join(", ")))
                })?;
                kinds[at] = kind;
            }
        }
    }
    Ok(kinds)
}

fn settings(args: &ServeArgs, system: &policy::model::System, kinds: &[ProviderKind]) -> ServiceSettings {
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let joined = system.pools.iter().zip(kinds).filter(|(_, kind)| **kind == ProviderKind::Manual);
    ServiceSettings {
        folder: args.data.clone(),
        listen: args.listen,
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        limits: Limits::default(),
        patience: Patience { jobs_max: args.jobs_max, ..Patience::default() },
        shard: args.shard,
        joined: joined.map(|(pool, _)| pool.name.clone()).collect(),
        fleet: FleetSettings {
            is_dry_run: args.dry_run,
            limits: SpendLimits { per_hour_max: args.spend_per_hour, total_max: args.spend_total },
            ..FleetSettings::default()
        },
    }
}

fn providers(
    args: &ServeArgs,
    kinds: &[ProviderKind],
    rules: &Rules,
    address: SocketAddr,
    news: News,
) -> Result<Vec<Arc<dyn Provider>>, ServiceError> {
    let manual: Arc<dyn Provider> = Arc::new(ManualProvider);
    let processes: Arc<dyn Provider> = if kinds.contains(&ProviderKind::Process) {
        let settings = processes(args, rules, address)?;
        let folder = settings.folder.display().to_string();
        let io = |error| ServiceError::Io { what: format!("worker processes in {folder}"), error };
        Arc::new(ProcessProvider::open(settings, news).map_err(io)?)
    } else {
        manual.clone()
    };
    let provider = |kind: &ProviderKind| match kind {
        ProviderKind::Process => processes.clone(),
        ProviderKind::Manual => manual.clone(),
    };
    Ok(kinds.iter().map(provider).collect())
}

/// How worker processes of this machine are begun.
fn processes(args: &ServeArgs, rules: &Rules, address: SocketAddr) -> Result<ProcessSettings, ServiceError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |error| ServiceError::Io { what, error }
    };
    let program = std::env::current_exe().map_err(io("finding this program"))?;
    let data = std::path::absolute(&args.data).map_err(io("finding the data folder"))?;
    let mut work: Vec<String> = Vec::new();
    if args.simulate {
        let file = std::path::absolute(&args.file).map_err(io("finding the scenario"))?;
        work.extend(["--simulate".to_owned(), "--scenario".to_owned(), file.display().to_string()]);
    } else {
        let models = if args.model.is_empty() { vec![tiny_model(&data)?] } else { args.model.clone() };
        for folder in models {
            let folder = std::path::absolute(folder).map_err(io("finding a model"))?;
            work.extend(["--model".to_owned(), folder.display().to_string()]);
        }
    }
    let url = args.join_url.clone().unwrap_or_else(|| {
        let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
        let mut reached = address;
        if address.ip().is_unspecified() {
            reached.set_ip(if address.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            });
        }
        format!("{scheme}://{reached}")
    });
    let arguments = (0..).zip(&rules.system.pools).map(|(index, pool)| {
        let slots: u16 = pool.slots.iter().sum();
        let joining = ["worker", "--join", &url, "--pool", &pool.name, "--slots", &slots.max(1).to_string()];
        (index, joining.iter().map(|text| (*text).to_owned()).chain(work.iter().cloned()).collect())
    });
    Ok(ProcessSettings {
        folder: data.join("workers"),
        program,
        arguments: arguments.collect(),
        variables: vec![("HEADROOM_JOIN".to_owned(), own_join_token(rules))],
        grace: std::time::Duration::from_secs(10),
    })
}

/// The tiny model in the data folder, made if need be.
fn tiny_model(data: &Path) -> Result<PathBuf, ServiceError> {
    let folder = data.join("tiny");
    if !folder.exists() {
        let part = data.join("tiny.part");
        let _ = std::fs::remove_dir_all(&part);
        let what = format!("making the tiny model {}", folder.display());
        let io = |error| ServiceError::Io { what: what.clone(), error };
        gpu_runtime::generate::make_tiny(&part, 1).map_err(|error| io(std::io::Error::other(error)))?;
        std::fs::rename(&part, &folder).map_err(io)?;
    }
    Ok(folder)
}

fn failure(error: ServiceError) -> Failure {
    let status = match &error {
        ServiceError::Rules(_) | ServiceError::NoPool(..) | ServiceError::Keys(_) => Status::InvalidInput,
        _ => Status::Failed,
    };
    Failure::new(status, "serve::start", error.to_string())
}

fn start_log(form: LogForm) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // A second subscriber in one process is no mistake worth dying for.
    let _ = match form {
        LogForm::Text => builder.with_target(false).try_init(),
        LogForm::Json => builder.json().try_init(),
    };
}
