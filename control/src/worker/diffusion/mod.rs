//! Work with diffusion models: payload in, picture out, as an object of the job.

mod studio;
mod wish;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use gpu_runtime::RuntimeError;
use gpu_runtime::device::Choice;
use gpu_runtime::generate::CancelToken;
use gpu_runtime::model::ModelSource;
use gpu_runtime::picture::{Format, Picture, ReadLimits};
use gpu_runtime::residency::{Bytes, Eviction, Loaded, Loader, Source, Store};

use super::objects::{ObjectError, Objects};
use super::runner::{JobControl, Runner, Skills};
use crate::protocol::{Report, Start};
use crate::trace::WorkPart;
use studio::{Made, Order, Studio};
use wish::Wish;

/// Pause before a model is asked for again that others leave no room for.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// Memory of a model as a multiple of its files: tensors, and workspace of kernels.
const MEMORY_PER_FILE: f64 = 1.6;

/// On the CPU numbers are twice as long as in files of 16 bits.
const MEMORY_ON_CPU: f64 = 2.0;

/// Which models a worker holds.
#[derive(Clone, Debug)]
pub struct DiffusionSettings {
    /// Models in the diffusers layout, named by their folders; the first serves jobs that name none.
    pub models: Vec<ModelSource>,
    /// Where they run.
    pub device: Choice,
    /// Memory for models, bytes; without one all are kept.
    pub memory: Option<u64>,
}

/// Models that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiffusionError {
    /// None was named.
    #[error("a worker needs a model: name a folder with --model, or work without a model by --simulate")]
    None,
    /// Two folders of one name.
    #[error("two models are called `{name}`; rename one of the folders")]
    Twice { name: String },
    /// A folder without a name.
    #[error("`{folder}` names no model; give the folder itself")]
    Name { folder: String },
}

/// Serves diffusion models.
pub struct DiffusionRunner {
    first: String,
    skills: Skills,
    store: Store<Studios>,
    objects: Objects,
}

/// Loads models for the store.
struct Studios {
    sources: BTreeMap<String, ModelSource>,
    device: Choice,
}

impl Loader for Studios {
    type Device = Studio;
    type Host = ();

    fn load(&self, model: &str, _: Option<&()>) -> Result<Loaded<Studio>, RuntimeError> {
        let unknown = || RuntimeError::BadRequest { why: format!("there is no model `{model}` here") };
        let source = self.sources.get(model).ok_or_else(unknown)?;
        Ok(Loaded { value: Studio::open(source, self.device)?, source: Source::Disk })
    }

    fn evict(&self, _: &str, device: Studio, _: bool) -> Result<Option<()>, RuntimeError> {
        drop(device);
        Ok(None)
    }
}

impl DiffusionRunner {
    /// A runner; nothing is loaded yet.
    ///
    /// # Errors
    /// [`DiffusionError`].
    pub fn new(settings: DiffusionSettings, objects: Objects) -> Result<Self, DiffusionError> {
        let mut sources = BTreeMap::new();
        let mut names = Vec::new();
        for source in settings.models {
            let folder = source.folder.display().to_string();
            let name = source.folder.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            let name = name.ok_or(DiffusionError::Name { folder })?;
            if sources.insert(name.clone(), source).is_some() {
                return Err(DiffusionError::Twice { name });
            }
            names.push(name);
        }
        let first = names.first().cloned().ok_or(DiffusionError::None)?;
        let sizes: Vec<(String, u64)> = sources
            .iter()
            .map(|(name, source)| {
                let per_file = if settings.device == Choice::Cpu { MEMORY_ON_CPU } else { 1.0 };
                (name.clone(), (weight_bytes(&source.folder, 4) as f64 * MEMORY_PER_FILE * per_file) as u64)
            })
            .collect();
        let budget = Bytes { device: settings.memory.unwrap_or(u64::MAX), host: 0 };
        let began = Instant::now();
        let device = match settings.device {
            Choice::Auto => "auto",
            Choice::Cpu => "cpu",
            Choice::Cuda => "cuda",
        };
        let loader = Studios { sources, device: settings.device };
        let store = Store::new(loader, budget, Eviction::default(), move || began.elapsed());
        for (name, device) in sizes {
            let added = store.add(&name, Bytes { device, host: 0 });
            debug_assert!(added.is_ok(), "names are unique");
        }
        Ok(Self { first, skills: Skills { models: names, device: device.to_owned() }, store, objects })
    }

    /// Makes what was asked for, and gives the report of it.
    fn serve(&self, start: &Start, control: &JobControl) -> Result<Report, Fault> {
        let wish = Wish::read(start).map_err(Fault::hopeless)?;
        let ending = wish.format.clone().unwrap_or_else(|| "png".to_owned());
        let format = Format::of(Path::new(&format!("output.{ending}")));
        let format = format
            .ok_or_else(|| Fault::hopeless(format!("`{ending}` is no format; use png, gif or webp")))?;
        let image = match start.inputs.first() {
            Some(key) => {
                let bytes = control.during(WorkPart::Fetch, || self.objects.get(key))?;
                Some(Picture::read(&bytes, ReadLimits::default())?)
            }
            None => None,
        };
        let name = wish.model.clone().unwrap_or_else(|| self.first.clone());
        let cancel = CancelToken::new();
        let (told, token) = (control.clone(), cancel.clone());
        let order = Order {
            steps: wish.steps(&start.quality),
            wish,
            image,
            cancel,
            progress: Box::new(move |done, of| {
                told.progress(done, of);
                if told.is_cancelled() {
                    token.cancel();
                }
            }),
        };
        let made =
            control.during(WorkPart::Run, || Ok::<_, Fault>(self.acquired(&name, control)?.make(order)?))?;
        self.keep(start, made, format, &ending, control)
    }

    /// The model, once others leave room for it.
    fn acquired(
        &self,
        name: &str,
        control: &JobControl,
    ) -> Result<gpu_runtime::residency::Guard<'_, Studios>, Fault> {
        loop {
            match self.store.acquire(name) {
                Err(RuntimeError::OutOfMemory { .. }) if !control.is_cancelled() && self.is_crowded() => {
                    control.moved();
                    std::thread::sleep(ROOM_PAUSE);
                }
                acquired => return Ok(acquired?),
            }
        }
    }

    /// Whether waiting for room makes sense: somebody holds some.
    fn is_crowded(&self) -> bool {
        self.store.usage().used.device > 0
    }

    fn keep(
        &self,
        start: &Start,
        made: Made,
        format: Format,
        ending: &str,
        control: &JobControl,
    ) -> Result<Report, Fault> {
        let mut bytes = Vec::new();
        made.animation
            .write(format, &made.provenance, &mut bytes)
            .map_err(|error| Fault::hopeless(format!("the picture cannot be written: {error}")))?;
        let key = Objects::output_key(start.job, &format!("{}.{ending}", start.stage));
        let length = bytes.len();
        control.during(WorkPart::Upload, || self.objects.put(&key, format.media_type(), bytes))?;
        let frames = made.animation.frames();
        let result = serde_json::json!({
            "object": key,
            "media_type": format.media_type(),
            "bytes": length,
            "model": made.provenance.model,
            "device": made.device,
            "seed": made.provenance.seed,
            "steps": made.provenance.steps,
            "frames": frames.len(),
            "width": frames[0].width(),
            "height": frames[0].height(),
            "tokens_cut": made.tokens_cut,
        });
        Ok(Report::Done { result: result.to_string().into_bytes().into(), objects: vec![key] })
    }
}

impl Runner for DiffusionRunner {
    fn skills(&self) -> Skills {
        self.skills.clone()
    }

    fn prepare(&self) -> Result<(), String> {
        self.store.acquire(&self.first).map(drop).map_err(|error| error.to_string())
    }

    fn run(&self, start: Start, control: JobControl) -> Report {
        match self.serve(&start, &control) {
            Ok(report) => report,
            Err(fault) => {
                if fault.is_sticky {
                    self.store.poison(&fault.message);
                    control.device_failed(fault.message.clone());
                }
                Report::Failed { message: fault.message, again: fault.again }
            }
        }
    }
}

/// Why there is no picture, and what follows from it.
struct Fault {
    message: String,
    again: bool,
    is_sticky: bool,
}

impl Fault {
    fn hopeless(message: String) -> Self {
        Self { message, again: false, is_sticky: false }
    }
}

impl From<RuntimeError> for Fault {
    fn from(error: RuntimeError) -> Self {
        let (again, is_sticky) = match &error {
            RuntimeError::BadRequest { .. } | RuntimeError::BadModel { .. } => (false, false),
            RuntimeError::Unavailable { .. }
            | RuntimeError::OutOfMemory { .. }
            | RuntimeError::Cancelled { .. } => (true, false),
            RuntimeError::Sticky { .. } => (true, true),
        };
        Self { message: error.to_string(), again, is_sticky }
    }
}

impl From<ObjectError> for Fault {
    fn from(error: ObjectError) -> Self {
        Self { message: error.to_string(), again: error.again, is_sticky: false }
    }
}

/// Bytes of the weights in a folder and those below, to a depth.
fn weight_bytes(folder: &Path, depth: u32) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return if depth > 0 { weight_bytes(&path, depth - 1) } else { 0 };
        }
        let is_weights = path.extension().is_some_and(|ending| ending == "safetensors");
        if is_weights { entry.metadata().map_or(0, |data| data.len()) } else { 0 }
    });
    sizes.sum()
}
