//! A plane in this process with the workers' door on loopback, a disk that outlives it, and workers as processes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use control::clock::{Clock, unix_ms};
use control::command::Command;
use control::connect::{ConnectSettings, router};
use control::effect::{Answer, JobRecord};
use control::engine::Engine;
use control::number::JobNumber;
use control::plane::{Patience, Rules};
use control::shell::{FleetOrder, Handle, Outlets, Stopped, start};
use control::store::{Disk, DiskStore, Store};
use control::submission::Submission;
use policy::model::{ClassId, PoolId, RegionId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::scene::Scene;

/// Nothing here takes as long, unless it is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The right to join the house.
pub(crate) const JOIN: &str = "let-me-in";

/// A scenario of one pool with `count` machines of `slots` slots.
pub(crate) fn scenario(count: u32, slots: u16) -> String {
    let machines = count as usize;
    Scene { lease: "4s", deliveries_max: 20, slots, machines, deadline: "5min" }.toml()
}

/// Times short enough for tests, and long enough for a busy machine.
pub(crate) fn patience() -> Patience {
    use policy::units::Duration as Time;
    Patience {
        beat: Time::from_millis(200),
        silence: Time::from_secs(2),
        reconnect: Time::from_millis(500),
        rejoin: Time::from_secs(10),
        lost: Time::from_secs(60),
        join: Time::from_secs(60),
        ..Patience::default()
    }
}

/// What a house is built by.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) scenario: String,
    pub(crate) patience: Patience,
    /// Workers join without a launch.
    pub(crate) joined: bool,
}

impl Plan {
    pub(crate) fn joined(count: u32, slots: u16) -> Self {
        Self { scenario: scenario(count, slots), patience: patience(), joined: true }
    }
}

/// A plane that runs.
pub(crate) struct House {
    pub(crate) handle: Handle,
    pub(crate) address: SocketAddr,
    pub(crate) orders: mpsc::UnboundedReceiver<FleetOrder>,
    thread: std::thread::JoinHandle<Stopped>,
    server: tokio::task::JoinHandle<()>,
}

impl House {
    /// Opens the plane on `disk`, at `address` where it is to be where it was.
    pub(crate) async fn open(plan: &Plan, disk: &Disk, address: Option<SocketAddr>) -> Self {
        Self::open_with(plan, DiskStore::open(disk), address).await
    }

    pub(crate) async fn open_with(
        plan: &Plan,
        store: impl Store + 'static,
        address: Option<SocketAddr>,
    ) -> Self {
        let loaded = scenarios::load_str("test", &plan.scenario, Path::new("."), &[]).expect("the scenario");
        let mut rules = Rules::new(&loaded.scenario, 0, [7; 32], plan.patience.clone()).expect("the rules");
        if plan.joined {
            rules.joined.insert(PoolId(0));
        }
        let engine = Engine::open(store, rules, unix_ms()).expect("the engine");
        let clock = Clock::starting(engine.plane().last());
        let (outlets, orders, _webhooks) = Outlets::new(engine.plane().epoch());
        let (handle, thread) = start(engine, clock, outlets).expect("a thread");
        let bound = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(bound).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let settings = ConnectSettings { ping: Duration::from_millis(500), ..ConnectSettings::default() };
        let door = router(handle.clone(), Arc::new(|token| token == JOIN), settings);
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, door).await;
        });
        Self { handle, address, orders, thread, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops the plane. Its connections end with the runtime or when workers notice.
    pub(crate) async fn close(self) -> SocketAddr {
        self.server.abort();
        self.handle.stop().await;
        assert!(matches!(self.thread.join(), Ok(Stopped::Asked)));
        self.address
    }

    /// Submits a job; its end comes by the receiver.
    pub(crate) async fn submit(&self, payload: &str) -> (JobNumber, oneshot::Receiver<Arc<JobRecord>>) {
        let submitted = self.handle.submit(submission(payload), true).await.expect("the plane takes it");
        let Answer::Accepted(job) = submitted.answer else { panic!("{:?}", submitted.answer) };
        (job, submitted.end.expect("an end was wished"))
    }

    /// Waits until `workers` are connected and `ready` instances are.
    pub(crate) async fn until(&self, workers: usize, ready: u32) {
        let reached = || {
            let figures = self.handle.figures();
            figures.workers == workers && figures.pools.iter().map(|pool| pool.1).sum::<u32>() == ready
        };
        wait("the fleet", reached).await;
    }

    /// Waits until a worker works on `job`.
    pub(crate) async fn until_running(&self, job: JobNumber) {
        let until = tokio::time::Instant::now() + SOON;
        loop {
            let view = self.handle.job(job).await.expect("the plane lives");
            if view.is_some_and(|view| view.state == control::effect::JobState::Running) {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{job} does not run");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn tell(&self, command: Command) {
        self.handle.tell(command).await.expect("the plane lives");
    }
}

pub(crate) fn submission(payload: &str) -> Box<Submission> {
    Box::new(Submission {
        tenant: 1,
        tenant_jobs_max: u32::MAX,
        class: ClassId(0),
        region: RegionId(0),
        priority: None,
        deadline: None,
        payload: payload.as_bytes().into(),
        inputs: Vec::new(),
        idempotency: None,
        webhook: None,
        traceparent: None,
    })
}

/// Waits until something holds.
pub(crate) async fn wait(what: &str, reached: impl Fn() -> bool) {
    let until = tokio::time::Instant::now() + SOON;
    while !reached() {
        assert!(tokio::time::Instant::now() < until, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The end of a job.
pub(crate) async fn end(receiver: oneshot::Receiver<Arc<JobRecord>>) -> Arc<JobRecord> {
    tokio::time::timeout(SOON, receiver).await.expect("the job ends").expect("the plane lives")
}

/// A worker in a process of its own: this test program, which begins again as a worker.
pub(crate) struct WorkerProcess(Child);

impl WorkerProcess {
    pub(crate) fn start(url: &str, more: &[(&str, &str)]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let child = Process::new(program)
            .args(["process_that_works", "--exact", "--ignored", "--nocapture"])
            .env("HEADROOM_TEST_PLANE", url)
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("a process");
        Self(child)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let done = Process::new("kill").args([&format!("-{signal}"), &id]).status().expect("kill");
        assert!(done.success());
    }

    /// Its exit code.
    pub(crate) async fn end(mut self) -> Option<i32> {
        let until = tokio::time::Instant::now() + SOON;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.code();
            }
            assert!(tokio::time::Instant::now() < until, "the worker does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
