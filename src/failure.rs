//! How a command ends when it does not succeed: the exit code, and each mistake with its place and its remedy.
//! The only place where the errors of the libraries become messages.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

use miette::{LabeledSpan, MietteDiagnostic, NamedSource, Report};
use serde::Serialize;

use crate::interrupt;
use crate::screen::Screen;
use crate::whole_file::WholeFileError;

/// Why a command did not succeed; each has an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It failed while it ran.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// A scenario, a trace or a name is wrong.
    InvalidInput,
    /// It ran, and what was asked for is not met.
    ObjectiveNotMet,
    /// A device does not work any more: only a new process helps.
    #[cfg(feature = "live")]
    DeviceFailed,
    /// It was stopped on request.
    Interrupted,
    /// Whoever read stdout has seen enough (`| head`): no mistake at all.
    ReaderGone,
}

impl Status {
    /// The exit code, as the documentation states it.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::InvalidInput => 3,
            Self::ObjectiveNotMet => 4,
            #[cfg(feature = "live")]
            Self::DeviceFailed => 5,
            Self::Interrupted => interrupt::EXIT_CODE,
        }
    }
}

/// Why a command did not succeed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    status: Status,
    mistakes: Vec<Mistake>,
}

/// One mistake.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mistake {
    /// Stable name, e.g. `scenario::unknown-key`.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
    #[serde(flatten)]
    pub(crate) place: Option<Box<TextPlace>>,
}

/// A place in a text.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TextPlace {
    /// Name of the text, as it was given.
    pub(crate) file: String,
    /// Counted from 1.
    pub(crate) line: usize,
    /// In characters, counted from 1.
    pub(crate) column: usize,
    #[serde(skip)]
    text: String,
    #[serde(skip)]
    bytes: Range<usize>,
}

impl Failure {
    /// A failure with one mistake.
    pub(crate) fn new(status: Status, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, mistakes: vec![Mistake { code, message: message.into(), help: None, place: None }] }
    }

    /// The same with a remedy; one that is there stays.
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        if let Some(first) = self.mistakes.first_mut().filter(|mistake| mistake.help.is_none()) {
            first.help = Some(help.into());
        }
        self
    }

    /// All mistakes of several failures; the gravest exit code stands for all.
    pub(crate) fn all(failures: Vec<Self>) -> Result<(), Self> {
        let status = failures.iter().map(|failure| failure.status).max_by_key(|status| status.exit_code());
        let Some(status) = status else { return Ok(()) };
        Err(Self { status, mistakes: failures.into_iter().flat_map(|failure| failure.mistakes).collect() })
    }

    /// What stdout did.
    pub(crate) fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { status: Status::ReaderGone, mistakes: Vec::new() },
            _ => Self::new(Status::Failed, "output::stdout", format!("could not write to stdout: {error}")),
        }
    }

    /// A result that cannot be JSON.
    pub(crate) fn json(error: serde_json::Error) -> Self {
        Self::new(Status::Failed, "output::json", format!("the result cannot be written as JSON: {error}"))
    }

    pub(crate) fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status.exit_code())
    }

    /// Tells every mistake on stderr.
    pub(crate) fn show(&self, screen: &Screen) {
        if self.mistakes.is_empty() {
            return;
        }
        if screen.json {
            let errors = serde_json::json!({ "errors": self.mistakes });
            screen.complain(&errors.to_string());
            return;
        }
        self.mistakes.iter().for_each(|mistake| screen.complain(mistake.drawn(screen).trim_end()));
    }
}

impl Mistake {
    fn drawn(&self, screen: &Screen) -> String {
        let mut diagnostic = MietteDiagnostic::new(self.message.clone()).with_code(self.code);
        if let Some(help) = &self.help {
            diagnostic = diagnostic.with_help(help.clone());
        }
        let report = match &self.place {
            None => Report::new(diagnostic),
            Some(place) => {
                let label = LabeledSpan::new_with_span(Some("here".to_owned()), place.bytes.clone());
                Report::new(diagnostic.with_label(label))
                    .with_source_code(NamedSource::new(&place.file, place.text.clone()))
            }
        };
        let mut text = String::new();
        match screen.report_handler().render_report(&mut text, report.as_ref()) {
            Ok(()) => text,
            Err(_) => format!("{} ({})", self.message, self.code),
        }
    }
}

/// The message of an error and of all that caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// Least likeness (Jaro–Winkler, 0..=1) at which another name is offered as the one meant.
const LIKENESS_MIN: f64 = 0.8;

/// The one of `known` that was probably meant by `given`.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let like = |name: &str| strsim::jaro_winkler(&given, &name.to_lowercase());
    let ranked = known.into_iter().map(|name| (like(name), name)).filter(|(like, _)| *like >= LIKENESS_MIN);
    ranked.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// Another file of the same folder that was probably meant by the absent `path`.
pub(crate) fn nearest_file(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wanted = path.file_name()?.to_string_lossy().into_owned();
    let entries = std::fs::read_dir(folder).ok()?;
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let name = nearest(&wanted, names.iter().map(String::as_str))?;
    Some(path.with_file_name(name).display().to_string())
}

/// What to do about a file that could not be read.
fn reading_help(path: &Path, error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::NotFound => nearest_file(path).map(|near| format!("did you mean `{near}`?")),
        _ => None,
    }
}

impl From<Vec<scenarios::ScenarioError>> for Failure {
    fn from(errors: Vec<scenarios::ScenarioError>) -> Self {
        Self { status: Status::InvalidInput, mistakes: errors.iter().map(Mistake::from).collect() }
    }
}

impl From<&scenarios::ScenarioError> for Mistake {
    fn from(error: &scenarios::ScenarioError) -> Self {
        let place = || {
            let (line, column) = error.line_column()?;
            Some(Box::new(TextPlace {
                file: error.source_name()?.to_owned(),
                line,
                column,
                text: error.source_text()?.to_owned(),
                bytes: error.span()?,
            }))
        };
        Self {
            code: error.code(),
            message: error.to_string(),
            help: error.help().map(str::to_owned),
            place: place(),
        }
    }
}

impl From<scenarios::trace::TraceError> for Failure {
    fn from(error: scenarios::trace::TraceError) -> Self {
        use scenarios::trace::TraceError as E;
        let (status, code) = match &error {
            E::Read { .. } => (Status::InvalidInput, "trace::read"),
            E::Truncated { .. } => (Status::InvalidInput, "trace::truncated"),
            E::UnknownFormat { .. } => (Status::InvalidInput, "trace::unknown-format"),
            E::WrongKind { .. } => (Status::InvalidInput, "trace::wrong-kind"),
            E::MissingColumn { .. } => (Status::InvalidInput, "trace::missing-column"),
            E::BadValue { .. } => (Status::InvalidInput, "trace::bad-value"),
            E::Malformed { .. } => (Status::InvalidInput, "trace::malformed"),
            E::Unsorted { .. } => (Status::InvalidInput, "trace::unsorted"),
            E::Empty { .. } => (Status::InvalidInput, "trace::empty"),
            E::NoRequests { .. } => (Status::InvalidInput, "trace::no-requests"),
            E::TooManyRows { .. } => (Status::InvalidInput, "trace::too-many-rows"),
            E::TooManyBins { .. } => (Status::InvalidInput, "trace::too-many-bins"),
            E::TooManyLabels { .. } => (Status::InvalidInput, "trace::too-many-labels"),
            E::BinUnknown { .. } => (Status::InvalidInput, "trace::bin-unknown"),
            E::BinMisfit { .. } => (Status::InvalidInput, "trace::bin-misfit"),
            E::BadOption { .. } => (Status::Usage, "trace::bad-option"),
            E::Json { .. } => (Status::InvalidInput, "trace::json"),
            E::EmptyFolder { .. } => (Status::InvalidInput, "trace::empty-folder"),
        };
        let help = match &error {
            E::Read { path, source } => reading_help(Path::new(path), source),
            _ => None,
        };
        with_optional_help(Self::new(status, code, chain(&error)), help)
    }
}

impl From<reports::trace::TraceError> for Failure {
    fn from(error: reports::trace::TraceError) -> Self {
        use reports::trace::TraceError as E;
        let code = match &error {
            E::Read { .. } => "trace::read",
            E::NotParquet { .. } => "trace::not-parquet",
            E::Truncated { .. } => "trace::truncated",
            E::Corrupt { .. } => "trace::damaged",
            E::MissingColumn { .. } => "trace::missing-column",
            E::WrongType { .. } => "trace::wrong-type",
            E::BadValue { .. } => "trace::bad-value",
            E::Unsorted { .. } => "trace::unsorted",
            E::Empty { .. } => "trace::empty",
        };
        let help = match &error {
            E::Read { path, source } => reading_help(Path::new(path), source),
            _ => None,
        };
        with_optional_help(Self::new(Status::InvalidInput, code, chain(&error)), help)
    }
}

fn with_optional_help(failure: Failure, help: Option<String>) -> Failure {
    match help {
        Some(help) => failure.with_help(help),
        None => failure,
    }
}

impl From<sim::replication::SimError> for Failure {
    fn from(error: sim::replication::SimError) -> Self {
        use sim::replication::SimError as E;
        match error {
            E::System(error) => Self::new(Status::InvalidInput, "scenario::system", chain(&error)),
            E::Trace(error) => error.into(),
            E::Violation(error) => Self::new(Status::Failed, "simulation::violation", chain(&error))
                .with_help("this is a mistake of headroom; please report it with the scenario and its seed"),
        }
    }
}

impl From<sim::plan::PlanError> for Failure {
    fn from(error: sim::plan::PlanError) -> Self {
        match error {
            sim::plan::PlanError::Sim(error) => error.into(),
            sim::plan::PlanError::Cancelled => {
                Self::new(Status::Interrupted, "plan::stopped", error.to_string())
            }
            sim::plan::PlanError::Variant { .. } => {
                Self::new(Status::Failed, "plan::variant", error.to_string())
            }
        }
    }
}

impl From<sim::stats::StatsError> for Failure {
    fn from(error: sim::stats::StatsError) -> Self {
        Self::new(Status::Failed, "simulation::statistics", chain(&error))
    }
}

impl From<reports::parquet::WriteError> for Failure {
    fn from(error: reports::parquet::WriteError) -> Self {
        Self::new(Status::Failed, "output::parquet", chain(&error))
    }
}

impl From<gpu_runtime::RuntimeError> for Failure {
    fn from(error: gpu_runtime::RuntimeError) -> Self {
        use gpu_runtime::RuntimeError as E;
        let (status, code) = match &error {
            E::Unavailable { .. } => (Status::Failed, "runtime::unavailable"),
            E::OutOfMemory { .. } => (Status::Failed, "runtime::out-of-memory"),
            E::Sticky { .. } => (Status::Failed, "runtime::device"),
            E::BadModel { .. } => (Status::InvalidInput, "runtime::bad-model"),
            E::BadRequest { .. } => (Status::InvalidInput, "runtime::bad-request"),
            E::Cancelled { .. } => (Status::Interrupted, "runtime::cancelled"),
        };
        let help = match &error {
            E::Unavailable { .. } => Some("`--device cpu` needs no GPU".to_owned()),
            _ => None,
        };
        with_optional_help(Self::new(status, code, chain(&error)), help)
    }
}

impl From<WholeFileError> for Failure {
    fn from(error: WholeFileError) -> Self {
        Self::new(Status::Failed, "output::file", chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [
            Status::ReaderGone,
            Status::Failed,
            Status::Usage,
            Status::InvalidInput,
            Status::ObjectiveNotMet,
        ]
        .map(Status::exit_code);
        assert_eq!(codes, [0, 1, 2, 3, 4]);
        assert_eq!(Status::Interrupted.exit_code(), 130);
    }

    #[test]
    fn several_failures_end_with_the_gravest_code() {
        let failure = |status| Failure::new(status, "a::b", "text");
        assert!(Failure::all(Vec::new()).is_ok());
        let all = Failure::all(vec![failure(Status::InvalidInput), failure(Status::Failed)]).unwrap_err();
        assert_eq!((all.status, all.mistakes.len()), (Status::InvalidInput, 2));
    }

    #[test]
    fn causes_are_told_once() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = scenarios::trace::TraceError::Read { path: "absent-folder/a.csv".into(), source };
        let failure = Failure::from(error);
        assert_eq!(failure.mistakes()[0].message, "could not read trace `absent-folder/a.csv`: no such file");
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = reports::trace::TraceError::Read { path: "absent-folder/a.csv".into(), source };
        assert_eq!(Failure::from(error).mistakes()[0].message, failure.mistakes()[0].message);
    }

    #[test]
    fn near_names_are_offered() {
        assert_eq!(nearest("us-eats-1", ["eu-west-1", "us-east-1"]), Some("us-east-1"));
        assert_eq!(nearest("mars", ["eu-west-1", "us-east-1"]), None);
    }
}
