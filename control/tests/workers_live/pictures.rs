//! A worker with a tiny diffusion model: payload in, picture out, as an object.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use control::store::Disk;
use control::worker::{Address, DiffusionRunner, DiffusionSettings, Exit, Objects, Runner, Stop, Worker};
use gpu_runtime::device::Choice;
use gpu_runtime::generate::make_tiny;
use gpu_runtime::model::ModelSource;
use gpu_runtime::picture::{Picture, ReadLimits};
use policy::records::JobOutcome;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::house::{House, JOIN, Plan, end};
use super::settings;

type Kept = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A store of objects that wants the join token.
async fn store() -> (String, Kept) {
    async fn write(
        State(kept): State<Kept>,
        Path(key): Path<String>,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        if headers.get("authorization").is_none_or(|value| value != &format!("Bearer {JOIN}")) {
            return StatusCode::UNAUTHORIZED;
        }
        kept.lock().expect("the store").insert(key, body.to_vec());
        StatusCode::CREATED
    }
    async fn read(State(kept): State<Kept>, Path(key): Path<String>) -> Result<Vec<u8>, StatusCode> {
        kept.lock().expect("the store").get(&key).cloned().ok_or(StatusCode::NOT_FOUND)
    }
    let kept = Kept::default();
    let app = Router::new().route("/v1/objects/{*key}", get(read).put(write)).with_state(kept.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_become_pictures_that_are_objects_of_their_jobs() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, seed) in [("first", 1), ("second", 2)] {
        make_tiny(&folder.path().join(name), seed).expect("a tiny model");
    }
    let (url, kept) = store().await;
    let objects =
        Objects::new(Address::new(&url, JOIN, None).expect("an address"), tokio::runtime::Handle::current());
    let models = ["first", "second"].map(|name| ModelSource::folder(&folder.path().join(name))).to_vec();
    let settings_of_models = DiffusionSettings { models, device: Choice::Cpu, memory: None };
    let runner: Arc<dyn Runner> =
        Arc::new(DiffusionRunner::new(settings_of_models, objects.expect("a client")).expect("a runner"));
    let house = House::open(&Plan::joined(1, 2), &Disk::default(), None).await;
    let (stop, stopped) = watch::channel(Stop::No);
    let worker = Worker::new(settings(&house.url(), 2), runner, stopped).expect("a thread");
    let worker = tokio::spawn(worker.run());
    house.until(1, 1).await;
    let payload = |model: &str| {
        format!(
            r#"{{"prompt": "the cat", "seed": 3, "frames": 1, "steps": 2, "format": "webp", "model": "{model}"}}"#
        )
    };
    for model in ["first", "second", "first"] {
        let (job, done) = house.submit(&payload(model)).await;
        let record = end(done).await;
        assert_eq!(record.outcome, JobOutcome::Done, "{}", String::from_utf8_lossy(&record.result));
        let key = format!("outputs/{job}/generate.webp");
        assert_eq!(record.objects, std::slice::from_ref(&key));
        let result: serde_json::Value = serde_json::from_slice(&record.result).expect("JSON");
        assert_eq!((result["object"].as_str(), result["steps"].as_u64()), (Some(key.as_str()), Some(2)));
        let bytes = kept.lock().expect("the store")[&key].clone();
        let picture = Picture::read(&bytes, ReadLimits::default()).expect("a picture");
        assert_eq!(Some(u64::from(picture.width())), result["width"].as_u64());
    }
    for (payload, expected) in [
        (r#"{"seed": 1}"#, "prompt"),
        (r#"{"prompt": "x", "model": "third"}"#, "third"),
        (r#"{"prompt": "x", "format": "mp4"}"#, "mp4"),
        (r#"{"prompt": 5}"#, "payload"),
        (r#"{"prompt": "x", "width": 7}"#, "width 7"),
    ] {
        let (_, done) = house.submit(payload).await;
        let record = end(done).await;
        let message = String::from_utf8_lossy(&record.result).into_owned();
        assert_eq!((record.outcome, record.deliveries), (JobOutcome::Failed, 1), "{message}");
        assert!(message.contains(expected), "`{message}` does not name `{expected}`");
    }
    stop.send_replace(Stop::Now);
    assert_eq!(worker.await.expect("no panic"), Exit::Left);
    house.close().await;
}
