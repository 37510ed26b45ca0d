//! A plane in this process with the API on loopback, on a disk in memory.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::api::{ApiSettings, KeyRing, KeyWish, Limits, Names, Scope, Server, TlsFiles, create};
use control::clock::{Clock, unix_ms};
use control::engine::Engine;
use control::plane::{Patience, Rules};
use control::shell::{Handle, Outlets, start};
use control::store::{Disk, DiskStore};
use policy::model::PoolId;
use policy::units::Duration as Time;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::client::Client;
use crate::worker::Bench;

/// Nothing here takes as long, unless it is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Two classes, one pool of one machine with four slots.
pub(crate) const SCENARIO: &str = r#"
[[workload.source]]
name = "users"
arrivals = { kind = "constant", rate = "1/s" }
class = "dance"
[[workload.source]]
name = "others"
arrivals = { kind = "constant", rate = "1/s" }
class = "bulk"
[[workload.class]]
name = "dance"
[[workload.class]]
name = "bulk"
priority = 5
[[pipeline.stage]]
name = "generate"
pool = "gpu"
time = "1s"
lease = "4s"
[fleet.pool.gpu]
provider = "aws"
region = "us-east-1"
instance_type = "g6.xlarge"
slots = 4
count = 1
count_max = 1
[policy]
scaling = "static"
[objective]
deadline = "5min"
[run]
horizon = "1h"
"#;

/// What a house is built by.
pub(crate) struct Plan {
    pub(crate) limits: Limits,
    pub(crate) jobs_max: u32,
    pub(crate) has_worker: bool,
    pub(crate) tls: Option<TlsFiles>,
    /// Keys to make before the start: scopes of each.
    pub(crate) keys: Vec<KeyWish>,
    pub(crate) listen: SocketAddr,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            jobs_max: 1000,
            has_worker: true,
            tls: None,
            keys: Vec::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }
}

/// A plane with its API.
pub(crate) struct House {
    pub(crate) handle: Handle,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    pub(crate) disk: Disk,
    pub(crate) bench: Option<Bench>,
    /// Tokens of the keys of the plan.
    pub(crate) tokens: Vec<String>,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

/// A key with these scopes.
pub(crate) fn wish(scopes: &[Scope]) -> KeyWish {
    KeyWish { name: "test".to_owned(), scopes: scopes.to_vec(), ..KeyWish::default() }
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::build(Plan::default()).await.expect("a server")
    }

    pub(crate) async fn with(plan: Plan) -> Self {
        Self::build(plan).await.expect("a server")
    }

    pub(crate) async fn build(plan: Plan) -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let tokens =
            plan.keys.into_iter().map(|wish| create(folder.path(), wish).expect("a key").0).collect();
        let disk = Disk::default();
        let loaded = scenarios::load_str("test", SCENARIO, Path::new("."), &[]).expect("the scenario");
        let patience = Patience {
            jobs_max: plan.jobs_max,
            beat: Time::from_millis(200),
            silence: Time::from_secs(20),
            ..Patience::default()
        };
        let mut rules = Rules::new(&loaded.scenario, 0, [7; 32], patience).expect("the rules");
        rules.joined.insert(PoolId(0));
        let names = Names::of(&rules);
        let engine = Engine::open(DiskStore::open(&disk), rules, unix_ms()).expect("the engine");
        let clock = Clock::starting(engine.plane().last());
        let (outlets, _orders, _webhooks) = Outlets::new(engine.plane().epoch());
        let (handle, _thread) = start(engine, clock, outlets)?;
        let settings = ApiSettings {
            listen: plan.listen,
            folder: folder.path().to_owned(),
            keys: Arc::new(KeyRing::open(folder.path()).expect("the keys")),
            tls: plan.tls,
            clock,
            limits: plan.limits,
        };
        let server = Server::bind(settings, handle.clone(), names, None, None).await?;
        let address = server.address()?;
        let (stop, mut stopped) = watch::channel(false);
        let server = tokio::spawn(server.run(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }));
        let bench = if plan.has_worker { Some(Bench::join(&handle, 4).await) } else { None };
        Ok(Self { handle, address, folder, disk, bench, tokens, stop, server })
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// A client with the key of this number in the plan.
    pub(crate) async fn client_with(&self, key: usize) -> Client {
        let mut client = self.client().await;
        client.token = Some(self.tokens[key].clone());
        client
    }

    pub(crate) fn bench(&self) -> &Bench {
        self.bench.as_ref().expect("the plan has a worker")
    }

    /// Waits until the worker holds `count` jobs.
    pub(crate) async fn until_held(&self, count: usize) {
        until("the worker holds them", || self.bench().held().len() == count).await;
    }

    /// Begins to stop the server.
    pub(crate) fn begin_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the server has stopped.
    pub(crate) async fn stopped(self) {
        tokio::time::timeout(SOON, self.server).await.expect("it stops in time").expect("it does not panic");
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
