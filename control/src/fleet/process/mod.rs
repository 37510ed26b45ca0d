//! Workers as processes of this machine. They outlive the plane, and the next one adopts them; each is known by a file in the
//! data folder, which is written before the process is begun. Linux only: it reads `/proc`.

mod table;

pub use table::LAUNCH_VARIABLE;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use policy::model::PoolId;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::{Answered, LaunchError, News, Own, Provider, ProviderError};
use crate::command::{LaunchRefusal, LaunchToken};
use table::{ProcessId, find};

/// Time between two looks at adopted processes, and at ones that are ending.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A process that ends sooner and in failure is not begun again at once.
const SETTLED: Duration = Duration::from_secs(10);

/// Longest pause before a machine that fails at once is reported gone.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Logs of ended workers that are kept.
const LOGS_MAX: usize = 100;

/// How worker processes are begun.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// Folder for their files and logs.
    pub folder: PathBuf,
    /// Program, usually this one.
    pub program: PathBuf,
    /// Arguments by pool; pools without any cannot be launched.
    pub arguments: BTreeMap<u16, Vec<String>>,
    /// Further variables, such as the join token.
    pub variables: Vec<(String, String)>,
    /// From the polite signal to the other one.
    pub grace: Duration,
}

/// Begins and ends worker processes.
pub struct ProcessProvider {
    shared: Arc<Shared>,
}

struct Shared {
    settings: ProcessSettings,
    news: News,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    processes: BTreeMap<LaunchToken, ProcessId>,
    /// Processes of a pool that failed at once, in a row.
    failures: BTreeMap<u16, u32>,
}

/// What is kept of a process on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pool: u16,
    /// Not there between the decision and the beginning.
    process: Option<ProcessId>,
}

impl ProcessProvider {
    /// A provider that adopts the processes of the plane before. Must be called within a runtime.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(settings: ProcessSettings, news: News) -> io::Result<Self> {
        fs::create_dir_all(&settings.folder)?;
        let shared = Arc::new(Shared { settings, news, book: Mutex::default() });
        for entry in fs::read_dir(&shared.settings.folder)?.flatten() {
            let path = entry.path();
            let token = path.file_stem().and_then(|stem| stem.to_str()?.parse::<LaunchToken>().ok());
            let Some(token) = token.filter(|_| path.extension().is_some_and(|kind| kind == "json")) else {
                continue;
            };
            let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            let process = match record {
                Some(Record { process: Some(process), .. }) => Some(process).filter(ProcessId::is_alive),
                _ => find(token), // the plane ended between the two writes
            };
            match process {
                Some(process) => {
                    tracing::info!(number = process.number, "adopted a worker process");
                    shared.book().processes.insert(token, process.clone());
                    tokio::spawn(shared.clone().watch_adopted(token, process));
                }
                None => fs::remove_file(&path)?,
            }
        }
        shared.prune_logs();
        Ok(Self { shared })
    }

    /// Ends all processes, as where the plane ends for good.
    pub async fn end_all(&self) {
        let all: Vec<ProcessId> = self.shared.book().processes.values().cloned().collect();
        let ends = all.into_iter().map(|process| {
            let grace = self.shared.settings.grace;
            tokio::spawn(async move { end(&process, grace).await })
        });
        for end in ends.collect::<Vec<_>>() {
            let _ = end.await;
        }
    }
}

impl Provider for ProcessProvider {
    fn name(&self) -> &'static str {
        "process"
    }

    fn launch(&self, token: LaunchToken, pool: PoolId) -> Answered<'_, Result<Option<String>, LaunchError>> {
        Box::pin(async move { self.shared.clone().launch(token, pool).map(Some) })
    }

    fn terminate(&self, token: LaunchToken, _: Option<String>) -> Answered<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            let known = self.shared.book().processes.get(&token).cloned();
            if let Some(process) = known {
                end(&process, self.shared.settings.grace).await.map_err(|error| failed(&error))?;
                self.shared.forget(token);
            }
            Ok(())
        })
    }

    fn list(&self) -> Answered<'_, Result<Vec<Own>, ProviderError>> {
        Box::pin(async move {
            let book = self.shared.book();
            let own =
                book.processes.iter().map(|(token, process)| Own { token: *token, handle: handle(process) });
            Ok(own.collect())
        })
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, token: LaunchToken) -> PathBuf {
        self.settings.folder.join(format!("{token}.json"))
    }

    fn launch(self: Arc<Self>, token: LaunchToken, pool: PoolId) -> Result<String, LaunchError> {
        if let Some(process) = self.book().processes.get(&token) {
            return Ok(handle(process));
        }
        let Some(arguments) = self.settings.arguments.get(&pool.0) else {
            let why = "the pool is not served by local processes".to_owned();
            return Err(LaunchError::Refused(LaunchRefusal::Other(why)));
        };
        let again = |error: io::Error| LaunchError::Again(failed(&error));
        write(&self.file(token), &Record { pool: pool.0, process: None }).map_err(again)?;
        let log = self.settings.folder.join(format!("{token}.log"));
        let out = File::options().create(true).append(true).open(&log).map_err(again)?;
        let begun = Command::new(&self.settings.program)
            .args(arguments)
            .envs(self.settings.variables.iter().cloned())
            .env(LAUNCH_VARIABLE, token.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::from(out.try_clone().map_err(again)?))
            .stderr(Stdio::from(out))
            .process_group(0)
            .kill_on_drop(false)
            .spawn();
        let child = match begun {
            Ok(child) => child,
            Err(error) => {
                let _ = fs::remove_file(self.file(token));
                let why = format!("`{}` cannot be begun: {error}", self.settings.program.display());
                return Err(LaunchError::Refused(LaunchRefusal::Other(why)));
            }
        };
        let process = child.id().and_then(|number| ProcessId::of(number as i32));
        let name = match process {
            Some(process) => {
                let name = handle(&process);
                if let Err(error) =
                    write(&self.file(token), &Record { pool: pool.0, process: Some(process.clone()) })
                {
                    tracing::warn!("{error}; a later plane finds the process by its environment");
                }
                self.book().processes.insert(token, process);
                name
            }
            None => "a process that ended at once".to_owned(),
        };
        tokio::spawn(self.watch(token, pool, child, log));
        Ok(name)
    }

    /// Waits for the end of a child. One that fails at once is reported after a pause, so that it is not begun again and again.
    async fn watch(self: Arc<Self>, token: LaunchToken, pool: PoolId, mut child: Child, log: PathBuf) {
        let began = Instant::now();
        let status = child.wait().await;
        let succeeded = status.as_ref().is_ok_and(std::process::ExitStatus::success);
        let pause = self.book().pause_after(pool, succeeded || began.elapsed() >= SETTLED);
        match &status {
            _ if succeeded => tracing::info!("a worker process left"),
            Ok(status) => tracing::warn!("a worker process ended with {status}; see {}", log.display()),
            Err(error) => tracing::error!("a worker process cannot be waited for: {error}"),
        }
        tokio::time::sleep(pause).await; // still listed, so that nobody reports it before
        self.forget(token);
        self.news.gone(token);
    }

    /// Looks after a process that another plane began.
    async fn watch_adopted(self: Arc<Self>, token: LaunchToken, process: ProcessId) {
        while process.is_alive() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.forget(token);
        self.news.gone(token);
    }

    fn forget(&self, token: LaunchToken) {
        self.book().processes.remove(&token);
        let _ = fs::remove_file(self.file(token));
    }

    fn prune_logs(&self) {
        let Ok(entries) = fs::read_dir(&self.settings.folder) else { return };
        let mut logs: Vec<_> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
            .filter(|path| !path.with_extension("json").exists())
            .map(|path| (fs::metadata(&path).and_then(|data| data.modified()).ok(), path))
            .collect();
        logs.sort();
        for (_, path) in logs.iter().rev().skip(LOGS_MAX) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Book {
    /// How long to keep an end to oneself: longer with every process of the pool that fails at once.
    fn pause_after(&mut self, pool: PoolId, was_well: bool) -> Duration {
        let failures = self.failures.entry(pool.0).or_insert(0);
        *failures = if was_well { 0 } else { *failures + 1 };
        match *failures {
            0 => Duration::ZERO,
            count => Duration::from_millis(500).saturating_mul(1 << (count - 1).min(10)).min(PAUSE_MAX),
        }
    }
}

/// Asks a process to end, insists after `grace`, and returns once it is gone.
async fn end(process: &ProcessId, grace: Duration) -> io::Result<()> {
    process.signal(Signal::TERM)?;
    let until = tokio::time::Instant::now() + grace;
    while process.is_alive() {
        if tokio::time::Instant::now() >= until {
            process.signal(Signal::KILL)?;
        }
        tokio::time::sleep(LOOK_EVERY / 4).await;
    }
    Ok(())
}

fn handle(process: &ProcessId) -> String {
    format!("process-{}", process.number)
}

fn failed(error: &io::Error) -> ProviderError {
    ProviderError { provider: "process", what: error.to_string() }
}

/// Writes a record, whole or not at all.
fn write(path: &Path, record: &Record) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, serde_json::to_vec(record)?)?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_fail_at_once_are_begun_again_ever_later() {
        let mut book = Book::default();
        let mut pause = |was_well| book.pause_after(PoolId(1), was_well).as_secs_f64();
        let pauses: Vec<f64> = [false, false, false, true, false].map(&mut pause).to_vec();
        assert_eq!(pauses, [0.5, 1.0, 2.0, 0.0, 0.5]);
        assert!((0..40).all(|_| pause(false) <= 60.0));
    }
}
