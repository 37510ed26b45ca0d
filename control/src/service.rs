//! A plane with all its parts, put together: journal, thread, API, workers' door, fleet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use hmac::{Hmac, Mac};
use scenarios::scenario::Scenario;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::api::{ApiSettings, KeyFileError, KeyRing, Limits, Names, Scope, Server, TlsFiles};
use crate::clock::{Clock, unix_ms};
use crate::connect::{self, ConnectSettings};
use crate::engine::{Engine, OpenError, Recovery};
use crate::fleet::ec2::SettingsError;
use crate::fleet::{Fleet, FleetSettings, News, Provider};
use crate::ha::Seat;
use crate::journal::{ScenarioText, Start, StartsError, note_start, read_starts};
use crate::objects::{ObjectSettings, Objects, PlaceError};
use crate::plane::{LaunchView, Patience, Rules, RulesError};
use crate::shell::{self, Handle, Outlets, Stopped};
use crate::store::{SqliteStore, Store, StoreError};
use crate::trace::{self, Observer, TraceError, TraceSettings};
use crate::webhook::{self, Announcer, Secrets, SecretsError, WebhookSettings};

/// How a plane is set up.
#[derive(Clone)]
pub struct ServiceSettings {
    /// Journal, keys, logs.
    pub folder: PathBuf,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Bounds on what clients may do.
    pub limits: Limits,
    /// Limits and times of the plane.
    pub patience: Patience,
    /// Which shard's jobs this plane takes.
    pub shard: u16,
    /// Pools whose workers join by themselves, by name.
    pub joined: Vec<String>,
    /// How the fleet is driven.
    pub fleet: FleetSettings,
    /// Address of the API as clients and receivers of webhooks know it, without a slash at the end; the own address where
    /// there is none.
    pub public_url: Option<String>,
    /// How ends of jobs are announced.
    pub webhooks: WebhookSettings,
    /// How objects are kept.
    pub objects: ObjectSettings,
    /// The scenario as text, kept beside the journal so that it can be replayed; without it nothing is kept.
    pub text: Option<ScenarioText>,
    /// Ended jobs, and the journal, are kept for so long; for ever without.
    pub keep: Option<policy::units::Duration>,
    /// How jobs are traced; not at all without.
    pub traces: Option<TraceSettings>,
}

/// A plane that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The scenario needs what only the simulator has.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// A pool is named that the scenario does not have.
    #[error("the scenario has no pool `{0}`; it has {1}")]
    NoPool(String, String),
    /// The journal.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of starts.
    #[error(transparent)]
    Starts(#[from] StartsError),
    /// The file of keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The signing secrets of webhooks.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The store of objects.
    #[error(transparent)]
    Objects(#[from] PlaceError),
    /// The trace collector.
    #[error(transparent)]
    Traces(#[from] TraceError),
    /// The settings of machines on EC2.
    #[error(transparent)]
    Ec2(#[from] SettingsError),
    /// A socket or a file.
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
}

/// What is known of a plane when its fleet is opened.
pub struct Opening {
    /// What it plays by.
    pub rules: Rules,
    /// Where its API listens.
    pub address: SocketAddr,
    /// Talks to it.
    pub handle: Handle,
    /// Takes what providers tell without being asked.
    pub news: News,
    /// Machines that its journal knows.
    pub launches: Vec<LaunchView>,
    /// Its count of starts: 1 is the first, before which nothing can have been launched.
    pub epoch: u64,
    /// Becomes true when the plane is asked to end.
    pub stop: watch::Receiver<bool>,
}

/// What works for a plane beside its thread.
pub struct Crew {
    /// One per pool.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Run beside it until they end or the plane does: warnings, prices, queues.
    pub tasks: Vec<Task>,
}

/// Work that runs beside a plane.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Crew {
    /// Providers that are there already, and nothing else.
    pub fn of(providers: Vec<Arc<dyn Provider>>) -> Making<'static> {
        Box::pin(std::future::ready(Ok(Self { providers, tasks: Vec::new() })))
    }
}

/// A crew in the making.
pub type Making<'a> = Pin<Box<dyn Future<Output = Result<Crew, ServiceError>> + 'a>>;

/// Makes the crew of a plane once it runs.
pub type MakeCrew<'a> = dyn FnOnce(Opening) -> Making<'a> + 'a;

/// A plane that runs.
pub struct Service {
    /// Talks to it.
    pub handle: Handle,
    /// Where the API listens.
    pub address: SocketAddr,
    /// What the start had to do.
    pub recovery: Recovery,
    /// How long the start took.
    pub started_in: Duration,
    stopped: oneshot::Receiver<Stopped>,
    shutdown: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
    tasks: JoinSet<()>,
}

/// How a plane ended.
#[derive(Debug)]
pub enum End {
    /// Asked to.
    Asked,
    /// Its journal failed: the process must end, and the next one recovers.
    Failed(StoreError),
    /// Its thread panicked: our bug. The process must end, and the next one recovers.
    Panicked,
}

impl Service {
    /// Starts the plane of `scenario` on the journal in the data folder.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn start(
        settings: ServiceSettings,
        scenario: &Scenario,
        crew: Box<MakeCrew<'_>>,
    ) -> Result<Self, ServiceError> {
        let folder = settings.folder.clone();
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&folder)).await;
        let store = opened.map_err(|error| ServiceError::Io {
            what: "opening the journal".to_owned(),
            error: std::io::Error::other(error),
        })??;
        Self::start_on(store, settings, scenario, crew).await
    }

    /// The same on another store.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub async fn start_on<S: Store + 'static>(
        store: S,
        settings: ServiceSettings,
        scenario: &Scenario,
        crew: Box<MakeCrew<'_>>,
    ) -> Result<Self, ServiceError> {
        let rules = rules_of(&settings, scenario)?;
        let recovering = rules.clone();
        // Earlier releases said beside the journal what they served, and not in it.
        let noted = read_starts(&settings.folder)?.into_iter().rfind(|start| !start.in_journal);
        let open = move || {
            let noted = noted.as_ref().map(|start| &start.served);
            Engine::open_noted(store, recovering, noted, unix_ms())
        };
        Self::start_seated(open, rules, settings, None, crew).await
    }

    /// The same on an engine that `open` makes, among other planes in a leader's seat, with the socket that listens.
    pub(crate) async fn start_seated<S: Store + 'static>(
        open: impl FnOnce() -> Result<Engine<S>, OpenError> + Send + 'static,
        rules: Rules,
        settings: ServiceSettings,
        seat: Option<(Seat, Arc<TcpListener>)>,
        crew: Box<MakeCrew<'_>>,
    ) -> Result<Self, ServiceError> {
        let started = std::time::Instant::now();
        let keys = Arc::new(KeyRing::open(&settings.folder)?);
        let keep = settings.keep;
        let open = move || {
            let mut engine = open()?;
            if let Some(keep) = keep {
                engine.retain(keep)?;
            }
            Ok::<_, OpenError>(engine)
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let engine = opened.map_err(|error| ServiceError::Io {
            what: "folding the journal".to_owned(),
            error: std::io::Error::other(error),
        })??;
        let recovery = engine.recovery();
        if let Some(start) = Start::of(engine.plane().epoch(), unix_ms(), &rules) {
            note_start(&settings.folder, &start)?;
        }
        if engine.plane().is_reloaded() {
            tracing::info!(
                "the scenario that was reloaded at work stays in force: the one at the start is as before"
            );
        }
        let rules = engine.plane().rules().clone();
        let names = Names::of(&rules);
        let own_token = join_token(&rules);
        let root = rules.secret;
        let secrets = Arc::new(Secrets::open(&settings.folder, root)?);
        let (launches, epoch) = (engine.plane().launches(), engine.plane().epoch());
        let clock = Clock::starting(engine.plane().last());
        let (mut outlets, orders, webhooks) = Outlets::new(engine.plane().epoch());
        if let Some(wish) = &settings.traces {
            outlets = outlets.observed(Observer::open(wish, engine.plane(), clock)?);
        }
        let io = |what: &str| {
            let what = what.to_owned();
            move |error| ServiceError::Io { what, error }
        };
        let (handle, thread) =
            shell::start(engine, clock, outlets).map_err(io("starting the plane's thread"))?;
        let checked = keys.clone();
        let check: connect::JoinCheck = Arc::new(move |token: &str| {
            let own = bool::from(token.as_bytes().ct_eq(own_token.as_bytes()));
            own || checked.allows(token, Scope::Join)
        });
        let workers = connect::router(handle.clone(), check.clone(), ConnectSettings::default());
        let public_url = Arc::new(OnceLock::new());
        let objects = Objects::open(
            handle.clone(),
            keys.clone(),
            check,
            &root,
            public_url.clone(),
            settings.objects.clone(),
        )?;
        let announcer =
            Announcer::new(handle.clone(), secrets.clone(), public_url.clone(), &settings.webhooks);
        let announcer = announcer.map_err(io("setting up the webhooks' client"))?;
        let objects_and_secret = objects.router().merge(webhook::router(keys.clone(), secrets));
        let api = ApiSettings {
            listen: settings.listen,
            folder: settings.folder.clone(),
            keys,
            tls: settings.tls.clone(),
            clock,
            limits: settings.limits,
        };
        let (seat, listener) = seat.unzip();
        let routers = [Some(workers), Some(objects_and_secret)];
        let bound = match listener {
            Some(listener) => Server::on(listener, seat, api, handle.clone(), names, routers),
            None => {
                let [workers, objects] = routers;
                Server::bind(api, handle.clone(), names, workers, objects).await
            }
        };
        let server = bound.map_err(io(&format!("listening at {}", settings.listen)))?;
        let address = server.address().map_err(io("asking for the own address"))?;
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let own = || format!("{scheme}://{address}");
        // Whoever looks does so for a request or a job: later.
        let _ = public_url.set(settings.public_url.clone().unwrap_or_else(own));
        let (shutdown, mut wants_end) = watch::channel(false);
        let server = tokio::spawn(server.run(async move {
            let _ = wants_end.wait_for(|end| *end).await;
        }));
        let mut tasks = JoinSet::new();
        let (news, told) = News::channel();
        let (handle_of_crew, stop) = (handle.clone(), shutdown.subscribe());
        let opening = Opening { rules, address, handle: handle_of_crew, news, launches, epoch, stop };
        let crew = crew(opening).await?;
        let fleet = Fleet::new(handle.clone(), crew.providers, settings.fleet.clone());
        tasks.spawn(fleet.run(orders, told));
        for task in crew.tasks {
            tasks.spawn(task);
        }
        tasks.spawn(announcer.run(webhooks));
        tasks.spawn(objects.sweep());
        let (sender, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            if let Ok(how) = thread.join() {
                let _ = sender.send(how);
            }
        });
        let started_in = started.elapsed();
        Ok(Self { handle, address, recovery, started_in, stopped, shutdown, server, tasks })
    }

    /// Runs until `asked` completes or the journal fails; then ends in order: no new requests, those in flight answered,
    /// everything durable.
    pub async fn run(mut self, asked: impl Future<Output = ()>) -> End {
        tokio::select! {
            how = &mut self.stopped => return ended(how.ok()),
            () = asked => {}
        }
        self.shutdown.send_replace(true);
        let _ = self.server.await;
        self.handle.stop().await;
        if let Some(traces) = self.handle.shared().traces() {
            traces.outbox().flush(trace::FLUSH_FOR).await;
        }
        self.tasks.shutdown().await;
        ended(self.stopped.await.ok())
    }
}

fn ended(how: Option<Stopped>) -> End {
    match how {
        Some(Stopped::Asked) => End::Asked,
        Some(Stopped::Store(error)) => End::Failed(error),
        None => End::Panicked,
    }
}

pub(crate) fn rules_of(settings: &ServiceSettings, scenario: &Scenario) -> Result<Rules, ServiceError> {
    let mut rules = Rules::new(scenario, settings.shard, [0; 32], settings.patience.clone())?;
    for name in &settings.joined {
        let Some(pool) = rules.pool(name) else {
            let known: Vec<_> = rules.system.pools.iter().map(|pool| pool.name.as_str()).collect();
            return Err(ServiceError::NoPool(name.clone(), known.join(", ")));
        };
        rules.joined.insert(pool);
    }
    rules.text.clone_from(&settings.text);
    Ok(rules)
}

/// The right to join that the plane gives to the workers which it launches itself; the same after a restart.
pub fn join_token(rules: &Rules) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&rules.secret).expect("any length is a key");
    mac.update(b"join");
    format!("hrj_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
