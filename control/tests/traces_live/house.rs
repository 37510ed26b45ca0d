//! A whole service that traces, without keys on loopback, and workers in this process that trace too.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::api::Limits;
use control::effect::{JobRecord, JobState};
use control::fleet::{FleetSettings, ManualProvider, Provider};
use control::number::JobNumber;
use control::objects::ObjectSettings;
use control::plane::Patience;
use control::service::{Crew, Service, ServiceSettings};
use control::trace::{TraceSettings, WorkTraces};
use control::webhook::WebhookSettings;
use control::worker::{
    Address, DiffusionRunner, DiffusionSettings, Exit, Objects, Runner, SleepRunner, Stop, Worker,
    WorkerSettings,
};
use gpu_runtime::device::Choice;
use gpu_runtime::model::ModelSource;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::scene::Scene;

/// Nothing here takes as long, unless it is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(60);

const SCENE: Scene = Scene { lease: "20s", deliveries_max: 20, slots: 4, machines: 1, deadline: "50min" };

/// A service that runs.
pub(crate) struct House {
    pub(crate) folder: TempDir,
    pub(crate) service: Service,
    client: Client,
}

/// A collector and a share of the jobs.
pub(crate) fn traces(collector: &str, ratio: f64) -> Option<TraceSettings> {
    Some(TraceSettings { collector: Some(collector.to_owned()), ratio })
}

impl House {
    pub(crate) async fn open(traces: Option<TraceSettings>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::open_in(folder, SocketAddr::from(([127, 0, 0, 1], 0)), traces).await
    }

    /// On a folder that is there, at an address.
    pub(crate) async fn open_in(folder: TempDir, listen: SocketAddr, traces: Option<TraceSettings>) -> Self {
        use policy::units::Duration as Time;
        let scenario =
            scenarios::load_str("test", &SCENE.toml(), Path::new("."), &[]).expect("the scenario").scenario;
        let patience = Patience {
            beat: Time::from_millis(200),
            silence: Time::from_secs(2),
            reconnect: Time::from_millis(300),
            rejoin: Time::from_secs(20),
            lost: Time::from_secs(60),
            join: Time::from_secs(60),
            ..Patience::default()
        };
        let settings = ServiceSettings {
            folder: folder.path().to_owned(),
            listen,
            tls: None,
            limits: Limits::default(),
            patience,
            shard: 0,
            joined: vec!["gpu".to_owned()],
            fleet: FleetSettings::default(),
            public_url: None,
            webhooks: WebhookSettings {
                allow_private: true,
                pauses: vec![Duration::ZERO, Duration::from_millis(50)],
                ..WebhookSettings::default()
            },
            objects: ObjectSettings::default(),
            text: None,
            keep: None,
            traces,
        };
        let manual: Arc<dyn Provider> = Arc::new(ManualProvider);
        let service = Service::start(settings, &scenario, Box::new(|_| Crew::of(vec![manual])))
            .await
            .expect("a service");
        Self { folder, service, client: Client::builder().no_proxy().build().expect("a client") }
    }

    /// Stops the service in order; the folder stays, and the address.
    pub(crate) async fn close(self) -> (TempDir, SocketAddr) {
        let address = self.service.address;
        self.service.run(std::future::ready(())).await;
        (self.folder, address)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.service.address)
    }

    /// Submits a job as a client that traces by `traceparent`.
    pub(crate) async fn submit(
        &self,
        payload: Value,
        traceparent: Option<&str>,
        webhook: Option<&str>,
    ) -> JobNumber {
        self.submit_body(json!({ "payload": payload }), traceparent, webhook).await
    }

    /// Submits a job by its whole body.
    pub(crate) async fn submit_body(
        &self,
        mut body: Value,
        traceparent: Option<&str>,
        webhook: Option<&str>,
    ) -> JobNumber {
        if let Some(webhook) = webhook {
            body["webhook"] = webhook.into();
        }
        let mut request = self.client.post(self.url("/v1/jobs")).body(body.to_string());
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 202);
        let body: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
        body["id"].as_str().expect("an id").parse().expect("a job")
    }

    pub(crate) async fn cancel(&self, job: JobNumber) {
        let request = self.client.post(self.url(&format!("/v1/jobs/{job}/cancel")));
        assert_eq!(request.send().await.expect("an answer").status(), 200);
    }

    pub(crate) async fn until(&self, state: JobState, job: JobNumber) {
        let until = tokio::time::Instant::now() + SOON;
        loop {
            let view = self.service.handle.job(job).await.expect("the plane lives");
            if view.is_some_and(|view| view.state == state) {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{job} is not {}", state.name());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn end(&self, job: JobNumber) -> Arc<JobRecord> {
        let until = tokio::time::Instant::now() + SOON;
        loop {
            if let Some(record) = self.service.handle.ended(job).await.expect("the store reads") {
                return record;
            }
            assert!(tokio::time::Instant::now() < until, "{job} does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A value on the metrics page.
    pub(crate) async fn metric(&self, line_begin: &str) -> Option<f64> {
        let answer = self.client.get(self.url("/metrics")).send().await.expect("an answer");
        let page = answer.text().await.expect("text");
        let line = page.lines().find(|line| line.starts_with(line_begin))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// A worker in this process whose work only takes time.
    pub(crate) fn employ(&self, collector: &str) -> Employed {
        self.employ_as(collector, Arc::new(SleepRunner::new()))
    }

    /// A worker in this process with a diffusion model.
    pub(crate) fn employ_with(&self, collector: &str, model: &Path) -> Employed {
        let address = Address::new(&self.url(""), "", None).expect("an address");
        let objects = Objects::new(address, tokio::runtime::Handle::current()).expect("a client");
        let models = vec![ModelSource::folder(model)];
        let settings = DiffusionSettings { models, device: Choice::Cpu, memory: None };
        self.employ_as(collector, Arc::new(DiffusionRunner::new(settings, objects).expect("a runner")))
    }

    fn employ_as(&self, collector: &str, runner: Arc<dyn Runner>) -> Employed {
        let settings = WorkerSettings {
            address: Address::new(&self.url(""), "", None).expect("an address"),
            pool: "gpu".to_owned(),
            launch: None,
            slots: 4,
            hang_after: Duration::from_secs(120),
            alone_for: None,
        };
        let traces = traces(collector, 0.0).map(|wish| WorkTraces::open(&wish).expect("a collector"));
        let (stop, stopped) = watch::channel(Stop::No);
        let worker = Worker::new(settings, runner, stopped).expect("a thread");
        let worker = worker.traced(traces);
        Employed { task: tokio::spawn(worker.run()), stop }
    }
}

/// A worker in this process, and the way to stop it.
pub(crate) struct Employed {
    task: tokio::task::JoinHandle<Exit>,
    stop: watch::Sender<Stop>,
}

impl Employed {
    /// Its process dies, so to say: nothing is said, its connection breaks off.
    pub(crate) async fn die(self) {
        self.task.abort();
        assert!(self.task.await.expect_err("it was aborted").is_cancelled());
    }

    pub(crate) async fn dismiss(self) {
        self.stop.send_replace(Stop::Now);
        assert_eq!(self.task.await.expect("no panic"), Exit::Left);
    }
}
