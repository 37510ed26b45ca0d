//! One plane on its own disk, as a process: this test program, which begins again as the plane.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::fleet::{ManualProvider, Provider};
use control::service::{Crew, End, MakeCrew, Service, ServiceSettings};
use control::store::{SqliteStore, Store};
use scenarios::scenario::Scenario;

use crate::client::{Answer, Crowd, Promises, ask};
use crate::fleet::{self, again, asked_to_end, service, told};
use crate::judge::{Verdict, judge, kept};

/// Nothing here takes as long, unless it is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// More jobs than any test has.
const ENDED_MAX: usize = 1 << 30;

/// Exit code of a plane whose journal failed.
pub(crate) const FAILED: i32 = 4;

/// What a plane process is told.
pub(crate) struct Wish {
    /// Which of this program's lives it leads.
    pub(crate) role: &'static str,
    pub(crate) address: SocketAddr,
    /// Journal and more.
    pub(crate) data: PathBuf,
    /// Where its log goes, which is not on the disk in trouble.
    pub(crate) log: PathBuf,
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// A plane process.
pub(crate) struct Plane {
    wish: Wish,
    child: Child,
}

impl Plane {
    pub(crate) fn start(wish: Wish) -> Self {
        let child = Self::spawn(&wish);
        Self { wish, child }
    }

    fn spawn(wish: &Wish) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(&wish.log).expect("a log");
        again(&[], wish.role)
            .env("HEADROOM_TEST_LISTEN", wish.address.to_string())
            .env("HEADROOM_TEST_FOLDER", &wish.data)
            .envs(wish.variables.iter().map(|(name, value)| (name, value)))
            .stderr(log)
            .spawn()
            .expect("a process")
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it anew once it has ended.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.try_wait().expect("a child").is_some(), "it has ended");
        self.child = Self::spawn(&self.wish);
    }

    /// Asks it to end.
    pub(crate) fn ask_to_end(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits until it ends; its exit code.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        let until = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < until, "the plane does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.wish.log).unwrap_or_default()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.wish.address
    }

    pub(crate) fn data(&self) -> &Path {
        &self.wish.data
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, String> {
        ask(self.wish.address, "GET", path, "", &[]).await
    }

    /// Waits until it takes jobs.
    pub(crate) async fn until_ready(&self) {
        self.until("the plane is ready", async || {
            self.get("/readyz").await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// Waits until it answers; false if it ends instead.
    pub(crate) async fn serves(&mut self) -> bool {
        let until = Instant::now() + SOON;
        loop {
            if self.get("/livez").await.is_ok() {
                return true;
            }
            if !self.is_running() {
                return false;
            }
            assert!(Instant::now() < until, "it neither serves nor ends");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let until = Instant::now() + SOON;
        while !holds().await {
            assert!(Instant::now() < until, "not so: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A number of its metrics page; the sum where there are several of the name.
    pub(crate) async fn figure(&self, name: &str) -> Option<f64> {
        let page = self.get("/metrics").await.ok().filter(|answer| answer.status == 200)?.body;
        let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        let values: Vec<f64> = page.lines().filter(is_it).filter_map(value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Waits until so many workers are connected.
    pub(crate) async fn until_workers(&self, count: usize) {
        self.until("workers are connected", async || {
            self.figure("headroom_workers").await == Some(count as f64)
        })
        .await;
    }

    /// Ends the clients, waits for all jobs, ends the plane, and reads the journal.
    pub(crate) async fn close(&mut self, crowd: Crowd) -> Verdict {
        let promises = crowd.stop().await;
        let promised = promises.jobs.lock().expect("no panic").len();
        let ended = async || {
            let store = SqliteStore::read(&self.wish.data).expect("a journal");
            store.archive().latest(None, ENDED_MAX).expect("the ended jobs").len() >= promised
        };
        self.until("all jobs have ended", ended).await;
        self.ask_to_end();
        assert_eq!(self.end().await, Some(0), "it ends in order");
        let store = SqliteStore::read(&self.wish.data).expect("a journal");
        tokio::task::spawn_blocking(move || judge(store, &promises)).await.expect("kept")
    }

    /// Reads the journal of the plane that was killed, from a copy: this promises nothing new, and needs no room there.
    pub(crate) fn keeps(&self, promises: &Promises) -> usize {
        let copy = tempfile::tempdir().expect("a folder");
        for name in ["journal.sqlite", "journal.sqlite-wal"] {
            std::fs::copy(self.wish.data.join(name), copy.path().join(name)).expect("a copy");
        }
        let store = SqliteStore::open(copy.path()).expect("a journal");
        kept(store, promises)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("== log of the plane\n{}", self.log());
        }
    }
}

/// The life of a plane process whose workers join by themselves.
pub(crate) fn serve() -> ! {
    let (mut settings, scenario) = settings();
    if let Ok(text) = std::env::var("HEADROOM_TEST_JOBS_MAX") {
        settings.patience.jobs_max = text.parse().expect("a number");
    }
    let manual: Arc<dyn Provider> = Arc::new(ManualProvider);
    live(settings, &scenario, Box::new(|_| Crew::of(vec![manual])))
}

/// How this plane process is set up, and what it serves.
pub(crate) fn settings() -> (ServiceSettings, Scenario) {
    service(told("HEADROOM_TEST_LISTEN").parse().expect("an address"))
}

/// Serves until it is asked to end, or cannot go on.
pub(crate) fn live(settings: ServiceSettings, scenario: &Scenario, crew: Box<MakeCrew<'_>>) -> ! {
    let end = fleet::live(2, async {
        let asked = asked_to_end();
        let service = Service::start(settings, scenario, crew).await?;
        Ok::<_, control::service::ServiceError>(service.run(asked).await)
    });
    let code = match &end {
        Ok(End::Asked) => 0,
        Ok(End::Failed(_)) => FAILED,
        Ok(End::Panicked) => 5,
        Err(_) => 6,
    };
    match end {
        Ok(End::Failed(error)) => eprintln!("the plane ends: {error}"),
        Ok(end) => eprintln!("the plane ends: {end:?}"),
        Err(error) => eprintln!("the plane does not start: {error}"),
    }
    std::process::exit(code)
}
