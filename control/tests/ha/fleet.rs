//! Planes and workers as processes of their own: this test program, which begins again as one of them.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::api::Limits;
use control::fleet::{FleetSettings, ManualProvider, Provider};
use control::ha::{HaEnd, HaSettings, Standby};
use control::journal::ScenarioText;
use control::plane::Patience;
use control::service::{Crew, ServiceSettings};
use control::worker::{Address, SleepRunner, Stop, Worker, WorkerSettings};
use scenarios::scenario::Scenario;

use crate::client::ask;
use crate::scene::Scene;

/// Exit code of a plane that may lead no more.
pub(crate) const DEPOSED: i32 = 3;

/// Within this time another plane answers: what is promised.
pub(crate) const TAKEOVER: Duration = Duration::from_secs(10);

pub(crate) const SCENE: Scene =
    Scene { lease: "10s", deliveries_max: 100, slots: 16, machines: 2, deadline: "1h" };

fn patience() -> Patience {
    use policy::units::Duration as Time;
    Patience {
        beat: Time::from_millis(500),
        silence: Time::from_secs(4),
        rejoin: Time::from_secs(10),
        ..Patience::default()
    }
}

/// What a plane process is told.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) connection: String,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) folder: PathBuf,
    pub(crate) shards: u16,
    pub(crate) shard: u16,
    /// Begins the command, to run it in a network namespace.
    pub(crate) prefix: Vec<String>,
}

/// A plane process.
pub(crate) struct Plane {
    pub(crate) wish: Wish,
    child: Child,
}

/// This program, to begin again as `role`.
pub(crate) fn again(prefix: &[String], role: &str) -> Command {
    let program = std::env::current_exe().expect("this program");
    let mut command = match prefix {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.args([role, "--exact", "--ignored", "--nocapture"]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl Plane {
    pub(crate) fn start(wish: Wish) -> Self {
        let child = Self::spawn(&wish);
        Self { wish, child }
    }

    fn spawn(wish: &Wish) -> Child {
        let (shard, shards) = (wish.shard.to_string(), wish.shards.to_string());
        std::fs::create_dir_all(&wish.folder).expect("a folder");
        let log = std::fs::File::options().create(true).append(true).open(wish.folder.join("log"));
        again(&wish.prefix, "process_that_leads")
            .env("HEADROOM_TEST_DATABASE", &wish.connection)
            .env("HEADROOM_TEST_NAME", &wish.name)
            .env("HEADROOM_TEST_LISTEN", wish.address.to_string())
            .env("HEADROOM_TEST_FOLDER", &wish.folder)
            .env("HEADROOM_TEST_SHARDS", shards)
            .env("HEADROOM_TEST_SHARD", shard)
            .stderr(log.expect("a log"))
            .spawn()
            .expect("a process")
    }

    /// Freezes it: when this returns none of its threads runs. One may go on for a while after the signal, until the thread
    /// that takes it has its turn.
    pub(crate) async fn freeze(&self) {
        self.signal("STOP");
        let until = Instant::now() + Duration::from_secs(10);
        while !self.is_frozen() {
            assert!(Instant::now() < until, "{} does not stop", self.wish.name);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn is_frozen(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads");
        tasks.flatten().all(|task| {
            // The state follows the name, which is in brackets; a thread that has just ended has none.
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().expect("kill").success());
    }

    /// Kills it, and starts it anew.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = Self::spawn(&self.wish);
    }

    /// What a supervisor does: starts it anew if it has ended; the code with which it had.
    pub(crate) fn tend(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("a child")?;
        self.child = Self::spawn(&self.wish);
        Some(status.code().unwrap_or(-1))
    }

    /// Waits until it ends; its exit code.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < until, "{} does not end", self.wish.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.wish.folder.join("log")).unwrap_or_default()
    }

    /// Whether it leads and takes jobs.
    pub(crate) async fn is_ready(&self) -> bool {
        ask(self.wish.address, "GET", "/readyz", "", &[]).await.is_ok_and(|answer| answer.status == 200)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-CONT", &self.child.id().to_string()]).output();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("== log of {}\n{}", self.wish.name, self.log());
        }
    }
}

/// Addresses on which nobody listens now.
pub(crate) fn addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

/// Which of the planes leads; waits until one does.
pub(crate) async fn leader(planes: &[Plane]) -> usize {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        for (at, plane) in planes.iter().enumerate() {
            if plane.is_ready().await {
                return at;
            }
        }
        assert!(Instant::now() < until, "nobody leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A worker process.
pub(crate) struct WorkerProcess(Child);

impl WorkerProcess {
    pub(crate) fn start(prefix: &[String], planes: &[SocketAddr], token: &str) -> Self {
        let urls: Vec<String> = planes.iter().map(|address| format!("http://{address}")).collect();
        let mut command = again(prefix, "process_that_works");
        command.env("HEADROOM_TEST_PLANES", urls.join(",")).env("HEADROOM_TEST_TOKEN", token);
        if std::env::var_os("HEADROOM_TEST_LOUD").is_none() {
            command.stderr(Stdio::null());
        }
        Self(command.spawn().expect("a process"))
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the test that starts this"))
}

/// How a plane process is set up that listens there, and what it serves.
pub(crate) fn service(listen: SocketAddr) -> (ServiceSettings, Scenario) {
    let toml = std::env::var("HEADROOM_TEST_SCENARIO").unwrap_or_else(|_| SCENE.toml());
    let loaded = scenarios::load_str("test", &toml, Path::new("."), &[]).expect("the scenario");
    let settings = ServiceSettings {
        folder: told("HEADROOM_TEST_FOLDER").into(),
        listen,
        tls: None,
        limits: Limits::default(),
        patience: patience(),
        shard: 0,
        joined: vec!["gpu".to_owned()],
        fleet: FleetSettings::default(),
        text: Some(ScenarioText { toml: loaded.resolved_toml, compress: 1.0 }),
        keep: None,
        traces: None,
        public_url: None,
        webhooks: control::webhook::WebhookSettings::default(),
        objects: control::objects::ObjectSettings {
            place: control::objects::Place::Memory,
            ..control::objects::ObjectSettings::default()
        },
    };
    (settings, loaded.scenario)
}

/// Lives a life in a process of its own, which logs to stderr.
pub(crate) fn live<T>(threads: usize, life: impl Future<Output = T>) -> T {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(threads).enable_all().build().expect("a runtime").block_on(life)
}

/// Waits for SIGTERM, also for one that comes before anybody waits.
pub(crate) fn asked_to_end() -> impl Future<Output = ()> {
    let kind = tokio::signal::unix::SignalKind::terminate();
    let mut asked = tokio::signal::unix::signal(kind).expect("a signal");
    async move {
        asked.recv().await;
    }
}

/// The life of a plane process.
pub(crate) fn lead() -> ! {
    let end = live(2, async {
        let listen: SocketAddr = told("HEADROOM_TEST_LISTEN").parse().expect("an address");
        let (connection, name) = (told("HEADROOM_TEST_DATABASE"), told("HEADROOM_TEST_NAME"));
        let settings = HaSettings {
            shards: told("HEADROOM_TEST_SHARDS").parse().expect("a number"),
            candidates: vec![told("HEADROOM_TEST_SHARD").parse().expect("a number")],
            ..HaSettings::new(&connection, &name, &format!("http://{listen}"))
        };
        let (service, scenario) = service(listen);
        let (asked, wants_end) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            asked_to_end().await;
            asked.send_replace(true);
        });
        let manual: Arc<dyn Provider> = Arc::new(ManualProvider);
        let standby = Standby::start(settings, service, &scenario).await?;
        standby.run(&scenario, Box::new(|_| Crew::of(vec![manual])), wants_end).await
    });
    tracing::info!("ends: {end:?}");
    std::process::exit(match end {
        Ok(HaEnd::Asked) => 0,
        Ok(HaEnd::Deposed(_)) => DEPOSED,
        Ok(HaEnd::Failed(_)) => 4,
        Ok(HaEnd::Panicked) => 5,
        Err(_) => 6,
    })
}

/// The life of a worker process.
pub(crate) fn work() -> ! {
    let exit = live(1, async {
        let address = Address::new(&told("HEADROOM_TEST_PLANES"), &told("HEADROOM_TEST_TOKEN"), None);
        let settings = WorkerSettings {
            address: address.expect("an address"),
            pool: "gpu".to_owned(),
            launch: None,
            slots: 16,
            hang_after: Duration::from_secs(60),
            alone_for: None,
        };
        let (_stop, stopping) = tokio::sync::watch::channel(Stop::No);
        Worker::new(settings, Arc::new(SleepRunner::new()), stopping).expect("a thread").run().await
    });
    panic!("{exit:?}")
}
