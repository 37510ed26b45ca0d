//! `headroom serve`: the live control plane of a scenario, on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use control::api::{Limits, TlsFiles};
use control::fleet::{
    FleetSettings, ManualProvider, News, ProcessProvider, ProcessSettings, Provider, SpendLimits,
};
use control::journal::ScenarioText;
use control::objects::{ObjectSettings, Place};
use control::plane::{Patience, Rules};
use control::service::{End, Service, ServiceError, ServiceSettings, join_token};
use control::webhook::WebhookSettings;
use policy::units::Usd;
use tokio::sync::watch;

use super::inputs::load_scenario;
use super::run_args::OverrideArgs;
use super::serve_several::{self, SeveralArgs};
use super::serve_traces::TraceArgs;
use super::simulate::with_whole_paths;
use crate::failure::{Failure, Status};
use crate::interrupt;
use crate::screen::Screen;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom serve quickstart.toml                            worker processes on this machine, tiny model
  headroom serve launch.toml --provider manual              workers join by themselves
  headroom serve launch.toml --data /var/lib/headroom --listen 0.0.0.0:8443 \\
      --tls-cert cert.pem --tls-key key.pem --spend-per-hour 200 --spend-total 5000
  headroom serve launch.toml --postgres postgresql://headroom@db/headroom --url http://10.0.0.5:8080 --listen 0.0.0.0:8080
                                                            one of several planes: leads, or stands by

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
    /// Models of worker processes, in the diffusers layout. Default: a tiny one with random weights, made in the data folder.
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// Worker processes take time and make nothing: for tests, load and rehearsals.
    #[arg(long, conflicts_with = "model")]
    simulate: bool,
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
    /// Address of the job API as clients and receivers of webhooks know it.
    #[arg(long, value_name = "URL", value_parser = web_address)]
    public_url: Option<String>,
    /// Webhooks may call this machine and private networks: for tests and demonstrations.
    #[arg(long)]
    webhook_private: bool,
    /// Where objects are kept: a folder, or s3://bucket/prefix. Default: `objects` in the data folder.
    #[arg(long, value_name = "PLACE")]
    objects: Option<String>,
    /// Largest object, bytes.
    #[arg(long, value_name = "N", default_value_t = ObjectSettings::default().bytes_max)]
    object_bytes_max: u64,
    /// Outputs are removed after so many days; 0 keeps them for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(..=36_500))]
    outputs_keep_days: u32,
    /// Inputs are removed after so many days; 0 keeps them for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 31, value_parser = clap::value_parser!(u32).range(..=36_500))]
    inputs_keep_days: u32,
    #[command(flatten)]
    several: SeveralArgs,
    #[command(flatten)]
    traces: TraceArgs,
    /// Form of the log on stderr.
    #[arg(long, value_enum, default_value = "text")]
    log: LogForm,
}

pub(crate) fn web_address(text: &str) -> Result<String, String> {
    let is_web = text.starts_with("https://") || text.starts_with("http://");
    if is_web && text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['?', '#', '"', '\\']) {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(format!("`{text}` is no address like https://plane.example"))
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
    let settings = settings(args, &loaded, &kinds);
    let (asked, mut wants_end) = watch::channel(false);
    interrupt::ask_instead(move || {
        let _ = asked.send_replace(true);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Status::Failed, "serve::runtime", error.to_string()))?;
    if let Some(wish) = args.several.settings(args.listen, args.tls_cert.is_some())? {
        let providers = |rules: &Rules, address, news| providers(args, &kinds, rules, address, news);
        let end = serve_several::run(
            &runtime,
            wish,
            settings,
            &loaded.scenario,
            Box::new(providers),
            wants_end,
            screen,
        );
        // Whatever still runs must not outlive the lease.
        runtime.shutdown_background();
        return end;
    }
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

fn settings(args: &ServeArgs, loaded: &scenarios::Loaded, kinds: &[ProviderKind]) -> ServiceSettings {
    let system = &loaded.scenario.system;
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let joined = system.pools.iter().zip(kinds).filter(|(_, kind)| **kind == ProviderKind::Manual);
    ServiceSettings {
        folder: args.data.clone(),
        listen: args.listen,
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        limits: Limits::default(),
        patience: Patience { jobs_max: args.jobs_max, ..Patience::default() },
        shard: 0,
        joined: joined.map(|(pool, _)| pool.name.clone()).collect(),
        fleet: FleetSettings {
            is_dry_run: args.dry_run,
            limits: SpendLimits { per_hour_max: args.spend_per_hour, total_max: args.spend_total },
            ..FleetSettings::default()
        },
        public_url: args.public_url.clone(),
        webhooks: WebhookSettings { allow_private: args.webhook_private, ..WebhookSettings::default() },
        objects: objects(args),
        text: Some(ScenarioText { toml: with_whole_paths(&loaded.resolved_toml, &args.file), compress: 1.0 }),
        traces: args.traces.settings(),
    }
}

fn objects(args: &ServeArgs) -> ObjectSettings {
    let days =
        |count: u32| (count > 0).then(|| std::time::Duration::from_secs(24 * 3600).saturating_mul(count));
    let place = match &args.objects {
        None => Place::Folder(args.data.join("objects")),
        Some(text) if text.starts_with("s3://") => Place::S3(text.clone()),
        Some(text) => Place::Folder(PathBuf::from(text)),
    };
    ObjectSettings {
        place,
        bytes_max: args.object_bytes_max,
        outputs_keep: days(args.outputs_keep_days),
        inputs_keep: days(args.inputs_keep_days),
        ..ObjectSettings::default()
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
    if !kinds.contains(&ProviderKind::Process) {
        return Ok(kinds.iter().map(|_| manual.clone()).collect());
    }
    let io = |what: &str| {
        let what = what.to_owned();
        move |error| ServiceError::Io { what, error }
    };
    let work = work_arguments(args).map_err(io("making the tiny model"))?;
    let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    let arguments = rules.system.pools.iter().enumerate().map(|(index, pool)| {
        let slots: u16 = pool.slots.iter().sum();
        let mut words: Vec<String> =
            ["worker", "--join", &url, "--pool", &pool.name].map(str::to_owned).into();
        words.extend(["--slots".to_owned(), slots.to_string()]);
        words.extend(work.iter().cloned());
        words.extend(args.traces.words());
        if let Some(certificate) = &args.tls_cert {
            words.extend(["--authority".to_owned(), certificate.display().to_string()]);
        }
        (index as u16, words)
    });
    let settings = ProcessSettings {
        folder: args.data.join("workers"),
        program: std::env::current_exe().map_err(io("finding this program"))?,
        arguments: arguments.collect(),
        variables: vec![("HEADROOM_JOIN".to_owned(), join_token(rules))],
        grace: std::time::Duration::from_secs(20),
    };
    let process = ProcessProvider::open(settings, news).map_err(io("opening the folder of workers"))?;
    let process: Arc<dyn Provider> = Arc::new(process);
    let of = |kind: &ProviderKind| match kind {
        ProviderKind::Process => process.clone(),
        ProviderKind::Manual => manual.clone(),
    };
    Ok(kinds.iter().map(of).collect())
}

/// What worker processes work with.
fn work_arguments(args: &ServeArgs) -> std::io::Result<Vec<String>> {
    if args.simulate {
        let file = std::path::absolute(&args.file)?;
        return Ok(vec!["--simulate".to_owned(), "--scenario".to_owned(), file.display().to_string()]);
    }
    let mut models = args.model.clone();
    if models.is_empty() {
        let tiny = args.data.join("tiny");
        if !tiny.exists() {
            gpu_runtime::generate::make_tiny(&tiny, 1).map_err(std::io::Error::other)?;
        }
        models.push(tiny);
    }
    let mut words = Vec::new();
    for model in models {
        words.extend(["--model".to_owned(), std::path::absolute(model)?.display().to_string()]);
    }
    Ok(words)
}

fn failure(error: ServiceError) -> Failure {
    let status = match &error {
        ServiceError::Rules(_)
        | ServiceError::NoPool(..)
        | ServiceError::Keys(_)
        | ServiceError::Objects(_)
        | ServiceError::Traces(_) => Status::InvalidInput,
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
