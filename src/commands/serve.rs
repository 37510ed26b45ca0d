//! `headroom serve`: the live control plane of a scenario, on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use control::api::{Limits, TlsFiles};
use control::fleet::{FleetSettings, SpendLimits};
use control::journal::ScenarioText;
use control::objects::{ObjectSettings, Place};
use control::plane::Patience;
use control::service::{End, Making, Service, ServiceError, ServiceSettings};
use control::webhook::WebhookSettings;
use policy::units::{Duration, Usd};
use tokio::sync::watch;

use super::inputs::load_scenario;
use super::log::{self, LogForm};
use super::run_args::OverrideArgs;
use super::serve_crew::{CrewArgs, Surroundings};
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
  headroom serve launch.toml --provider gpu-spot=ec2 --ec2 ec2.toml --sqs https://sqs.us-east-1.amazonaws.com/1234/jobs
                                                            machines of EC2, jobs from a queue too (docs/aws.md)
  headroom serve launch.toml --postgres postgresql://headroom@db/headroom --url http://10.0.0.5:8080 --listen 0.0.0.0:8080
                                                            one of several planes: leads, or stands by

Without keys (`headroom keys create`) the plane listens to this machine alone, and every program on it may do everything.
SIGTERM and Ctrl-C end it in order: no new jobs, answers in flight are given, everything is on disk. Workers wait for the
next plane. Whatever kills it otherwise, the next one goes on where it was.";

const DAY_S: u64 = 24 * 3600;

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
    #[command(flatten)]
    crew: CrewArgs,
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
    /// Ended jobs, and the journal, are forgotten after so many days; 0 keeps them for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=36_500))]
    jobs_keep_days: u32,
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
    let text = with_whole_paths(&loaded.resolved_toml, &args.file);
    let tls_cert = args.tls_cert.as_deref();
    let around = Surroundings { scenario: &text, data: &args.data, tls_cert, traces: &args.traces };
    let plan = args.crew.plan(around, &loaded.scenario.system)?;
    log::start(args.log);
    let settings = settings(args, &loaded, plan.joined(&loaded.scenario.system));
    let (asked, mut wants_end) = watch::channel(false);
    interrupt::ask_instead(move || {
        let _ = asked.send_replace(true);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Status::Failed, "serve::runtime", error.to_string()))?;
    if let Some(wish) = args.several.settings(args.listen, args.tls_cert.is_some())? {
        let crew = |opening| -> Making<'_> { Box::pin(plan.open(opening)) };
        let end =
            serve_several::run(&runtime, wish, settings, &loaded.scenario, Box::new(crew), wants_end, screen);
        // Whatever still runs must not outlive the lease.
        runtime.shutdown_background();
        return end;
    }
    let end = runtime.block_on(async {
        let crew = |opening| -> Making<'_> { Box::pin(plan.open(opening)) };
        let service = Service::start(settings, &loaded.scenario, Box::new(crew)).await.map_err(failure)?;
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

fn settings(args: &ServeArgs, loaded: &scenarios::Loaded, joined: Vec<String>) -> ServiceSettings {
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    ServiceSettings {
        folder: args.data.clone(),
        listen: args.listen,
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        limits: Limits::default(),
        patience: Patience { jobs_max: args.jobs_max, ..Patience::default() },
        shard: 0,
        joined,
        fleet: FleetSettings {
            is_dry_run: args.dry_run,
            limits: SpendLimits { per_hour_max: args.spend_per_hour, total_max: args.spend_total },
            ..FleetSettings::default()
        },
        public_url: args.public_url.clone(),
        webhooks: WebhookSettings { allow_private: args.webhook_private, ..WebhookSettings::default() },
        objects: objects(args),
        text: Some(ScenarioText { toml: with_whole_paths(&loaded.resolved_toml, &args.file), compress: 1.0 }),
        keep: (args.jobs_keep_days > 0).then(|| Duration::from_secs(DAY_S * u64::from(args.jobs_keep_days))),
        traces: args.traces.settings(),
    }
}

fn objects(args: &ServeArgs) -> ObjectSettings {
    let days = |count: u32| (count > 0).then(|| std::time::Duration::from_secs(DAY_S).saturating_mul(count));
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

fn failure(error: ServiceError) -> Failure {
    let status = match &error {
        ServiceError::Rules(_)
        | ServiceError::NoPool(..)
        | ServiceError::Keys(_)
        | ServiceError::Ec2(_)
        | ServiceError::Objects(_)
        | ServiceError::Traces(_) => Status::InvalidInput,
        _ => Status::Failed,
    };
    Failure::new(status, "serve::start", error.to_string())
}
