//! A service in a folder of its own, clients, and a worker that does what the test says.

use std::path::Path;
use std::time::Duration;

use control::api::{KeyWish, Limits, Scope, create};
use control::command::{Command, SessionId};
use control::fleet::{FleetSettings, ManualProvider, Provider};
use control::journal::ScenarioText;
use control::number::JobNumber;
use control::objects::ObjectSettings;
use control::plane::Patience;
use control::protocol::{Hello, PROTOCOL_VERSION, Report, Start, ToWorker};
use control::service::{Crew, Service, ServiceSettings};
use control::webhook::WebhookSettings;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::scene::Scene;

/// Nothing here takes as long, unless it is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(60);

const SCENE: Scene = Scene { lease: "60s", deliveries_max: 20, slots: 64, machines: 1, deadline: "50min" };

/// Keys of two tenants, of a worker and of an operator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    pub(crate) one: String,
    pub(crate) two: String,
    pub(crate) worker: String,
    pub(crate) operator: String,
}

/// A service that runs.
pub(crate) struct House {
    pub(crate) folder: TempDir,
    pub(crate) service: Service,
    pub(crate) keys: Keys,
    pub(crate) client: Client,
}

/// How a house is built.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) webhooks: WebhookSettings,
    /// In memory where nothing is said; a relative folder is below the data folder.
    pub(crate) objects: ObjectSettings,
    pub(crate) keep: Option<policy::units::Duration>,
}

impl House {
    /// Builds a house with keys: tenants 1 and 2, the worker and the operator.
    pub(crate) async fn open(plan: &Plan) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |name: &str, scopes: &[Scope]| {
            let wish = KeyWish { name: name.to_owned(), scopes: scopes.to_vec(), ..KeyWish::default() };
            create(folder.path(), wish).expect("a key").0
        };
        let keys = Keys {
            one: key("one", &[Scope::Submit, Scope::Read]),
            two: key("two", &[Scope::Submit, Scope::Read]),
            worker: key("worker", &[Scope::Join]),
            operator: key("operator", &[Scope::Operate]),
        };
        Self::open_in(folder, keys, plan).await
    }

    /// Builds a house in a folder that is there.
    pub(crate) async fn open_in(folder: TempDir, keys: Keys, plan: &Plan) -> Self {
        let loaded = scenarios::load_str("test", &SCENE.toml(), Path::new("."), &[]).expect("the scenario");
        let mut objects = plan.objects.clone();
        if let control::objects::Place::Folder(place) = &mut objects.place {
            *place = folder.path().join(&place);
        }
        let settings = ServiceSettings {
            folder: folder.path().to_owned(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            tls: None,
            limits: Limits::default(),
            patience: Patience::default(),
            shard: 0,
            joined: vec!["gpu".to_owned()],
            fleet: FleetSettings::default(),
            public_url: None,
            webhooks: plan.webhooks.clone(),
            objects,
            text: Some(ScenarioText { toml: loaded.resolved_toml, compress: 1.0 }),
            keep: plan.keep,
            traces: None,
        };
        let manual: std::sync::Arc<dyn Provider> = std::sync::Arc::new(ManualProvider);
        let service = Service::start(settings, &loaded.scenario, Box::new(|_| Crew::of(vec![manual])))
            .await
            .expect("a service");
        Self { folder, service, keys, client: Client::builder().no_proxy().build().expect("a client") }
    }

    /// Stops the service in order; the folder stays.
    pub(crate) async fn close(self) -> (TempDir, Keys) {
        self.service.run(std::future::ready(())).await;
        (self.folder, self.keys)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.service.address)
    }

    pub(crate) fn ask(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(key)
    }

    pub(crate) async fn put(&self, path: &str, key: &str, body: impl Into<reqwest::Body>) -> Response {
        self.ask(Method::PUT, path, key).body(body).send().await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Response {
        self.ask(Method::GET, path, key).send().await.expect("an answer")
    }

    /// Submits a job and gives the answer's status and body.
    pub(crate) async fn try_submit(&self, key: &str, body: Value) -> (u16, Value) {
        let request = self.ask(Method::POST, "/v1/jobs", key).body(body.to_string());
        json_of(request.send().await.expect("an answer")).await
    }

    /// Submits a job of tenant 1.
    pub(crate) async fn submit(&self, webhook: Option<&str>) -> JobNumber {
        let mut body = json!({ "payload": {} });
        if let Some(webhook) = webhook {
            body["webhook"] = webhook.into();
        }
        let (status, body) = self.try_submit(&self.keys.one, body).await;
        assert_eq!(status, 202, "{body}");
        body["id"].as_str().expect("an id").parse().expect("a job")
    }

    /// Cancels a job of tenant 1: the quickest way to its end.
    pub(crate) async fn cancel(&self, job: JobNumber) {
        let path = format!("/v1/jobs/{job}/cancel");
        let answer = self.ask(Method::POST, &path, &self.keys.one).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }

    /// Waits until nothing is left to announce.
    pub(crate) async fn until_settled(&self) {
        let until = tokio::time::Instant::now() + SOON;
        while self.unsettled().await > 0 {
            assert!(tokio::time::Instant::now() < until, "some announcements are not settled");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn unsettled(&self) -> usize {
        let look = self.service.handle.look(|plane| plane.unsettled(None, usize::MAX).len());
        look.await.expect("the plane lives")
    }

    /// A worker that is ready.
    pub(crate) async fn worker(&self) -> TestWorker<'_> {
        let (session, told) = self.service.handle.attach().await.expect("a session");
        let hello = Hello {
            version: PROTOCOL_VERSION,
            name: "00000000000000000000000000000001".to_owned(),
            pool: "gpu".to_owned(),
            launch: None,
            slots: 64,
            models: Vec::new(),
            device: "test".to_owned(),
            leases: Vec::new(),
        };
        let worker = TestWorker { house: self, session, told };
        worker.tell(Command::Hello { session, hello: Box::new(hello) }).await;
        worker.tell(Command::Ready { session }).await;
        worker
    }
}

/// A worker that does what the test says.
pub(crate) struct TestWorker<'a> {
    house: &'a House,
    session: SessionId,
    told: UnboundedReceiver<ToWorker>,
}

impl TestWorker<'_> {
    async fn tell(&self, command: Command) {
        self.house.service.handle.tell(command).await.expect("the plane lives");
    }

    /// The next work.
    pub(crate) async fn work(&mut self) -> Box<Start> {
        loop {
            match tokio::time::timeout(SOON, self.told.recv()).await.expect("work comes") {
                Some(ToWorker::Start(start)) => return start,
                Some(_) => {}
                None => panic!("the session is over"),
            }
        }
    }

    /// Ends work as done, and waits until the job has ended.
    pub(crate) async fn finish(&self, start: &Start, objects: Vec<String>) {
        let (sender, ended) = oneshot::channel();
        let mut news = self.house.service.handle.watch(start.job).await.expect("the plane lives");
        tokio::spawn(async move {
            while news.recv().await.is_some() {}
            let _ = sender.send(());
        });
        let report = Report::Done { result: b"{}"[..].into(), objects };
        let (session, lease, job) = (self.session, start.lease, start.job);
        self.tell(Command::Finished { session, lease, job, report }).await;
        tokio::time::timeout(SOON, ended).await.expect("the job ends").expect("it is told");
    }
}

/// Status and JSON of an answer.
pub(crate) async fn json_of(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    let bytes = answer.bytes().await.expect("a body");
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}
