//! A plane and one worker process for measurements: `bench_plane serve FOLDER ADDRESS` and `bench_plane work URL SLOTS`.
//! The plane is the real one, with journal, API, limits and metrics; the worker does nothing, as fast as it can.
//! `HEADROOM_KEEP_S` has the plane forget what has been over for so many seconds. It traces `HEADROOM_TRACE_SAMPLE` of the jobs
//! (0 to 1, 0.01 where nothing is said) if `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector.

use std::sync::Arc;

use control::api::Limits;
use control::command::LaunchToken;
use control::fleet::{Answered, FleetSettings, LaunchError, Own, Provider, ProviderError};
use control::plane::Patience;
use control::service::{Crew, Service, ServiceSettings};
use control::trace::{RATIO, TraceSettings};
use control::worker::{Address, SleepRunner, Stop, Worker, WorkerSettings};
use policy::model::PoolId;

const SCENARIO: &str = r#"
description = "one worker of many slots"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }
[[pipeline.stage]]
name = "render"
pool = "own"
time = "1ms"
lease = "30s"
deliveries_max = 1000
[fleet.pool.own]
provider = "aws"
region = "us-east-1"
instance_type = "g6.xlarge"
slots = { gpu = 256 }
count = 1
count_max = 1
[objective]
deadline = "1h"
[run]
horizon = "1h"
"#;

/// Its machines are there already.
struct Manual;

impl Provider for Manual {
    fn name(&self) -> &'static str {
        "manual"
    }

    fn launch(&self, _: LaunchToken, _: PoolId) -> Answered<'_, Result<Option<String>, LaunchError>> {
        Box::pin(async { Ok(None) })
    }

    fn terminate(&self, _: LaunchToken, _: Option<String>) -> Answered<'_, Result<(), ProviderError>> {
        Box::pin(async { Ok(()) })
    }

    fn list(&self) -> Answered<'_, Result<Vec<Own>, ProviderError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let arguments: Vec<String> = std::env::args().collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let threads = std::env::var("HEADROOM_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match texts[1..] {
            ["serve", folder, address] => serve(folder, address, SCENARIO).await,
            ["serve", folder, address, file] => {
                let text = std::fs::read_to_string(file).expect("the scenario");
                serve(folder, address, &text).await;
            }
            ["work", url, slots] => work(url, slots.parse().expect("slots")).await,
            _ => eprintln!("usage: bench_plane serve FOLDER ADDRESS [SCENARIO] | work URL SLOTS"),
        }
    });
}

async fn serve(folder: &str, address: &str, scenario: &str) {
    let loaded = scenarios::load_str("bench", scenario, std::path::Path::new("."), &[]).expect("a scenario");
    let keep = std::env::var("HEADROOM_KEEP_S").ok();
    let keep = keep.map(|text| policy::units::Duration::from_secs(text.parse().expect("seconds")));
    let share = std::env::var("HEADROOM_TRACE_SAMPLE").ok();
    let share = share.map_or(RATIO, |text| text.parse().expect("a share"));
    let settings = ServiceSettings {
        public_url: None,
        webhooks: control::webhook::WebhookSettings::default(),
        objects: control::objects::ObjectSettings::default(),
        folder: folder.into(),
        listen: address.parse().expect("an address"),
        tls: None,
        limits: Limits::default(),
        patience: Patience::default(),
        shard: 0,
        joined: vec!["own".to_owned()],
        fleet: FleetSettings::default(),
        text: None,
        keep,
        traces: TraceSettings::wished(None, share),
    };
    let manual: Arc<dyn Provider> = Arc::new(Manual);
    let service = Service::start(settings, &loaded.scenario, Box::new(|_| Crew::of(vec![manual])))
        .await
        .expect("a plane");
    eprintln!("ready at {} in {:?}, {:?}", service.address, service.started_in, service.recovery);
    let _ = service
        .run(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await;
}

async fn work(url: &str, slots: u16) {
    let settings = WorkerSettings {
        address: Address::new(url, "", None).expect("an address"),
        pool: "own".to_owned(),
        launch: None,
        slots,
        hang_after: std::time::Duration::from_secs(120),
        alone_for: None,
    };
    let (_stop, stopping) = tokio::sync::watch::channel(Stop::No);
    let worker = Worker::new(settings, Arc::new(SleepRunner::new()), stopping).expect("a thread");
    println!("{:?}", tokio::spawn(worker.run()).await);
}
