//! Announcements of ended jobs, by Standard Webhooks 1.0.0: each is made at least once, or given up after some days.
//!
//! What is to be announced is kept by the plane, which gives all that is not settled again after a restart. Here is only what
//! waits in memory: when there is no room for more, the rest is asked for later.

mod address;
mod caller;
mod message;
mod queue;
pub(crate) mod route;
mod schedule;
mod secrets;
mod signature;

pub use queue::Bounds;
pub use route::{SECRET_PATH, router};
pub use schedule::PAUSES;
pub use secrets::{Held, Secrets, SecretsError};
pub use signature::Secret;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::command::Command;
use crate::effect::WebhookTask;
use crate::number::JobNumber;
use crate::shell::{Busy, Handle};
use caller::{Caller, Outcome, system_lookup};
use queue::Queue;

/// Announcements asked for at once, after there was no room.
const PAGE: usize = 1000;

/// Pause between two pages.
const PAGE_EVERY: Duration = Duration::from_millis(200);

/// How announcements are made.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Receivers may be on this machine and in private networks: for tests and demonstrations.
    pub allow_private: bool,
    /// Pauses before the first, second, ... attempt; a last one that fails is the end.
    pub pauses: Vec<Duration>,
    /// Time of one call, from the name's lookup to the answer.
    pub timeout: Duration,
    /// Calls at once, and announcements in memory.
    pub bounds: Bounds,
    /// A PEM file of certificate authorities that are trusted besides the public ones.
    pub authorities: Option<PathBuf>,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            allow_private: false,
            pauses: PAUSES.to_vec(),
            timeout: Duration::from_secs(20),
            bounds: Bounds::default(),
            authorities: None,
        }
    }
}

/// Makes announcements.
pub struct Announcer {
    handle: Handle,
    secrets: Arc<Secrets>,
    public_url: Arc<OnceLock<String>>,
    pauses: Vec<Duration>,
    caller: Caller,
    queue: Queue,
    calls: JoinSet<(JobNumber, Outcome)>,
    under_way: HashMap<Id, JobNumber>,
    page: Option<Page>,
}

/// Where the search for announcements is that had no room.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    after: Option<JobNumber>,
    /// Since the search began anew, there was no room for some.
    has_missed: bool,
}

impl Announcer {
    /// An announcer that has not begun. Receivers find jobs and results below `public_url`, which is set once it is
    /// known.
    ///
    /// # Errors
    /// When the file of authorities cannot be used.
    pub fn new(
        handle: Handle,
        secrets: Arc<Secrets>,
        public_url: Arc<OnceLock<String>>,
        settings: &WebhookSettings,
    ) -> std::io::Result<Self> {
        let authorities = settings.authorities.as_deref();
        let caller = Caller::new(system_lookup(), settings.allow_private, settings.timeout, authorities)?;
        Ok(Self {
            handle,
            secrets,
            public_url,
            pauses: settings.pauses.clone(),
            caller,
            queue: Queue::new(settings.bounds),
            calls: JoinSet::new(),
            under_way: HashMap::new(),
            page: None,
        })
    }

    /// Announces until the plane stops.
    pub async fn run(mut self, mut tasks: mpsc::UnboundedReceiver<WebhookTask>) {
        loop {
            self.begin_calls();
            let wake_at = self.queue.wake_at();
            let went_on = tokio::select! {
                task = tasks.recv() => match task {
                    Some(task) => self.take(task).await,
                    None => return,
                },
                Some(ended) = self.calls.join_next_with_id() => self.ended(ended).await,
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => Ok(()),
                () = sleep(PAGE_EVERY), if self.page.is_some() => self.search().await,
            };
            if went_on.is_err() {
                return;
            }
        }
    }

    /// Takes a task, or notes that there was no room for it.
    async fn take(&mut self, task: WebhookTask) -> Result<(), Busy> {
        let Some(host) = host_of(&task.url) else {
            tracing::warn!("the end of {} is not announced: `{}` is no address", task.job, task.url);
            return self.settle(task.job, false).await;
        };
        if !self.queue.offer(task, &host) {
            self.page.get_or_insert_default().has_missed = true;
        }
        Ok(())
    }

    /// Looks among all that is not settled for what had no room before.
    async fn search(&mut self) -> Result<(), Busy> {
        let Some(mut page) = self.page else { return Ok(()) };
        let found = match self.handle.look(move |plane| plane.unsettled(page.after, PAGE)).await {
            Ok(found) => found,
            Err(Busy::Full) => return Ok(()),
            Err(Busy::Stopped) => return Err(Busy::Stopped),
        };
        page.after = if found.len() < PAGE { None } else { found.last().map(|task| task.job) };
        self.page = Some(page);
        for task in found {
            self.take(task).await?;
        }
        if page.after.is_none() {
            // One round is over: another follows if this one, or what came meanwhile, left something behind.
            let has_missed = self.page.is_some_and(|page| page.has_missed);
            self.page = has_missed.then(Page::default);
        }
        Ok(())
    }

    fn begin_calls(&mut self) {
        while let Some((task, attempts)) = self.queue.next(Instant::now()) {
            let (job, caller, secrets) = (task.job, self.caller.clone(), self.secrets.clone());
            let ended =
                Timestamp::from_millisecond(i64::try_from(task.unix_ms).unwrap_or(0)).unwrap_or_default();
            let (public_url, traces) = (self.public_url.clone(), self.handle.shared().traces().cloned());
            let call = self.calls.spawn(async move {
                let began = SystemTime::now();
                let id = secrets.id(job);
                let base = public_url.get().map_or("", String::as_str);
                let body = message::body(&task, &id, ended, base);
                let now = Timestamp::now();
                let signing = secrets.of(task.tenant, now).signing();
                let signature = signature::header(&signing, &id, now.as_second(), &body);
                let headers = [
                    ("webhook-id", id),
                    ("webhook-timestamp", now.as_second().to_string()),
                    ("webhook-signature", signature),
                ];
                let outcome = caller.post(&task.url, headers, body).await;
                tracing::debug!(%job, attempts, ?outcome, "an announcement was tried");
                if let Some(traces) = traces {
                    traces.called(job, attempts as u64 + 1, began, outcome.fault());
                }
                (job, outcome)
            });
            self.under_way.insert(call.id(), job);
        }
    }

    async fn ended(&mut self, ended: Result<(Id, (JobNumber, Outcome)), JoinError>) -> Result<(), Busy> {
        let (id, outcome) = match ended {
            Ok((id, (_, outcome))) => (id, outcome),
            Err(error) => (error.id(), Outcome::Failed { why: error.to_string(), retry_after: None }),
        };
        let Some(job) = self.under_way.remove(&id) else { return Ok(()) };
        let (why, asked) = match outcome {
            Outcome::Delivered => {
                self.queue.done(job);
                return self.settle(job, true).await;
            }
            Outcome::Hopeless(why) => {
                self.queue.done(job);
                tracing::warn!("the end of {job} is not announced: {why}");
                return self.settle(job, false).await;
            }
            Outcome::Failed { why, retry_after } => (why, retry_after),
        };
        let attempts = self.queue.attempts(job) + 1;
        match schedule::pause(&self.pauses, attempts, asked, schedule::chance()) {
            Some(pause) => {
                tracing::info!("the end of {job} is announced again in {pause:.0?}: {why}");
                self.queue.again(job, Instant::now(), pause);
                Ok(())
            }
            None => {
                self.queue.done(job);
                tracing::warn!("the end of {job} is not announced, after {attempts} attempts: {why}");
                self.settle(job, false).await
            }
        }
    }

    async fn settle(&self, job: JobNumber, delivered: bool) -> Result<(), Busy> {
        self.handle.tell(Command::WebhookSettled { job, delivered }).await
    }
}

/// The receiver that an address belongs to: host and port.
fn host_of(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_told_apart_by_host_and_port() {
        for (url, host) in [
            ("https://example.com/hook?a=1", Some("example.com:443")),
            ("https://EXAMPLE.com:443/", Some("example.com:443")),
            ("http://example.com:8080/", Some("example.com:8080")),
            ("http://2130706433/", Some("127.0.0.1:80")),
            ("nonsense", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }
}
