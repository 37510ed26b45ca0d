//! A plane whose machines are processes of this computer with a tiny diffusion model, and their life.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::fleet::{ProcessProvider, ProcessSettings, Provider};
use control::objects::{ObjectSettings, Place};
use control::service::{Crew, Opening, ServiceError, join_token};
use control::worker::{
    Address, DiffusionRunner, DiffusionSettings, Exit, Objects, Stop, Worker, WorkerSettings,
};
use gpu_runtime::device::Choice;
use gpu_runtime::model::ModelSource;

use crate::fleet::{self, asked_to_end, told};
use crate::house::{live, settings};
use crate::scene::Scene;

/// Workers.
pub(crate) const COUNT: usize = 8;

pub(crate) const SCENE: Scene =
    Scene { lease: "20s", deliveries_max: 1000, slots: 1, machines: COUNT, deadline: "1h" };

/// The life of such a plane process.
pub(crate) fn serve() -> ! {
    let (mut settings, scenario) = settings();
    settings.joined.clear();
    let folder = settings.folder.clone();
    settings.objects =
        ObjectSettings { place: Place::Folder(folder.join("objects")), reserve: 0, ..Default::default() };
    let crew = move |opening: Opening| -> control::service::Making<'static> {
        Box::pin(async move {
            let provider = provider(&folder, &opening)?;
            Ok(Crew { providers: vec![Arc::new(provider) as Arc<dyn Provider>], tasks: Vec::new() })
        })
    };
    live(settings, &scenario, Box::new(crew))
}

fn provider(folder: &Path, opening: &Opening) -> Result<ProcessProvider, ServiceError> {
    let words = ["process_that_paints", "--exact", "--ignored", "--nocapture"].map(str::to_owned);
    let settings = ProcessSettings {
        folder: folder.join("workers"),
        program: std::env::current_exe().expect("this program"),
        arguments: [(0, words.to_vec())].into(),
        variables: vec![
            ("HEADROOM_JOIN".to_owned(), join_token(&opening.rules)),
            ("HEADROOM_TEST_PLANES".to_owned(), format!("http://{}", opening.address)),
        ],
        grace: Duration::from_secs(5),
    };
    ProcessProvider::open(settings, opening.news.clone())
        .map_err(|error| ServiceError::Io { what: "the folder of workers".to_owned(), error })
}

/// The life of a worker process with the model.
pub(crate) fn paint() -> ! {
    let exit = fleet::live(1, async {
        let address = Address::new(&told("HEADROOM_TEST_PLANES"), &told("HEADROOM_JOIN"), None);
        let address = address.expect("an address");
        let objects = Objects::new(address.clone(), tokio::runtime::Handle::current()).expect("a client");
        let model = ModelSource::folder(Path::new(&told("HEADROOM_TEST_MODEL")));
        let models = DiffusionSettings { models: vec![model], device: Choice::Cpu, memory: None };
        let runner = DiffusionRunner::new(models, objects).expect("a runner");
        let settings = WorkerSettings {
            address,
            pool: "gpu".to_owned(),
            launch: std::env::var("HEADROOM_LAUNCH").ok(),
            slots: 1,
            hang_after: Duration::from_secs(120),
            alone_for: Some(Duration::from_secs(60)),
        };
        let (stop, stopping) = tokio::sync::watch::channel(Stop::No);
        tokio::spawn(async move {
            asked_to_end().await;
            stop.send_replace(Stop::Now);
            std::future::pending::<()>().await;
        });
        Worker::new(settings, Arc::new(runner), stopping).expect("a thread").run().await
    });
    std::process::exit(i32::from(exit != Exit::Left))
}
