//! How the rest of the process talks to the plane.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policy::model::Lease;
use tokio::sync::{mpsc, oneshot};

use super::outlets::Shared;
use crate::command::{Command, SessionId};
use crate::effect::{Answer, JobEvent, JobRecord, JobView};
use crate::engine::decode_record;
use crate::number::JobNumber;
use crate::plane::{Figures, Listing, Plane};
use crate::protocol::ToWorker;
use crate::store::{Archive, Doing, StoreError};
use crate::submission::{Submission, TenantId};

/// Who wants to know a job's end.
pub(crate) type EndSender = oneshot::Sender<Arc<JobRecord>>;

/// A question to the durable state.
pub(crate) type Look = Box<dyn FnOnce(&Plane) + Send>;

/// Pause before a full channel is tried again by those who must get through.
const FULL_PAUSE: Duration = Duration::from_millis(2);

pub(crate) enum Message {
    Submit {
        submission: Box<Submission>,
        sender: oneshot::Sender<Answer>,
        end: Option<EndSender>,
    },
    #[expect(clippy::vec_box, reason = "a command takes each box as it is")]
    SubmitMany {
        submissions: Vec<Box<Submission>>,
        sender: oneshot::Sender<Vec<Answer>>,
    },
    Ask {
        command: Command,
        sender: oneshot::Sender<Answer>,
    },
    Tell(Command),
    Look(Look),
    Attach {
        session: SessionId,
        sender: mpsc::UnboundedSender<ToWorker>,
    },
    Watch {
        job: JobNumber,
        sender: mpsc::UnboundedSender<News>,
    },
    Progress {
        session: SessionId,
        lease: Lease,
        job: JobNumber,
        done: u32,
        of: u32,
    },
    Stop(oneshot::Sender<()>),
}

/// The plane takes no more for now, or has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Too much waits for it already.
    #[error("the plane is overloaded; ask again in a second")]
    Full,
    /// It has stopped.
    #[error("the plane has stopped")]
    Stopped,
}

/// What those who watch a job hear.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It changed.
    Changed(JobEvent),
    /// Its worker is at `done` of `of` parts.
    Progress { done: u32, of: u32 },
    /// It ended; nothing follows.
    Ended(Arc<JobRecord>),
}

/// A submission's answer, and its end where that was wished.
#[derive(Debug)]
pub struct Submitted {
    /// Durable by now.
    pub answer: Answer,
    /// Comes when the job has ended; only for [`Answer::Accepted`].
    pub end: Option<oneshot::Receiver<Arc<JobRecord>>>,
}

/// Talks to the plane; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    sender: SyncSender<Message>,
    archive: Arc<Mutex<Box<dyn Archive>>>,
    shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn new(sender: SyncSender<Message>, archive: Box<dyn Archive>, shared: Arc<Shared>) -> Self {
        Self { sender, archive: Arc::new(Mutex::new(archive)), shared }
    }

    /// Submits a job; returns once the answer is durable. With `wants_end`, its end is announced too.
    ///
    /// # Errors
    /// [`Busy`]: then the job was not accepted, unless the plane stopped meanwhile, which nobody can know.
    pub async fn submit(&self, submission: Box<Submission>, wants_end: bool) -> Result<Submitted, Busy> {
        let (sender, answer) = oneshot::channel();
        let (end_sender, end) = oneshot::channel();
        let wanted = wants_end.then_some(end_sender);
        self.try_send(Message::Submit { submission, sender, end: wanted })?;
        let answer = answer.await.map_err(|_| Busy::Stopped)?;
        Ok(Submitted { answer, end: wants_end.then_some(end) })
    }

    /// Submits several jobs at once; returns their answers in order once all are durable.
    ///
    /// # Errors
    /// As [`Handle::submit`].
    pub async fn submit_many(&self, submissions: Vec<Box<Submission>>) -> Result<Vec<Answer>, Busy> {
        if submissions.is_empty() {
            return Ok(Vec::new());
        }
        let (sender, answers) = oneshot::channel();
        self.try_send(Message::SubmitMany { submissions, sender })?;
        answers.await.map_err(|_| Busy::Stopped)
    }

    /// Gives a command that has an answer ([`Command::Cancel`], [`Command::Reload`]).
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn ask(&self, command: Command) -> Result<Answer, Busy> {
        let (sender, answer) = oneshot::channel();
        self.try_send(Message::Ask { command, sender })?;
        answer.await.map_err(|_| Busy::Stopped)
    }

    /// Gives a command that has no answer; waits while the plane is full, since what happened must be told.
    ///
    /// # Errors
    /// [`Busy::Stopped`].
    pub async fn tell(&self, command: Command) -> Result<(), Busy> {
        self.send(Message::Tell(command)).await
    }

    /// What a job in the system looks like; what has ended is in [`Handle::ended`].
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn job(&self, job: JobNumber) -> Result<Option<JobView>, Busy> {
        self.look(move |plane| plane.job(job)).await
    }

    /// A page of jobs in the system.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn list(
        &self,
        tenant: Option<TenantId>,
        after: Option<JobNumber>,
        limit: usize,
    ) -> Result<Listing, Busy> {
        self.look(move |plane| plane.list(tenant, after, limit)).await
    }

    /// Asks the durable state.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Plane) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (sender, answer) = oneshot::channel();
        let look: Look = Box::new(move |plane| {
            let _ = sender.send(question(plane));
        });
        self.try_send(Message::Look(look))?;
        answer.await.map_err(|_| Busy::Stopped)
    }

    /// A job that has ended: of the latest from memory, of others from the store.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn ended(&self, job: JobNumber) -> Result<Option<Arc<JobRecord>>, StoreError> {
        if let Some(record) = self.shared.recent(job) {
            return Ok(Some(record));
        }
        let archive = self.archive.clone();
        let found = tokio::task::spawn_blocking(move || {
            archive.lock().unwrap_or_else(PoisonError::into_inner).ended(job)
        });
        match found.await {
            Ok(Ok(Some(bytes))) => Ok(Some(Arc::new(decode_record(job, &bytes)?))),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(not_read(&error)),
        }
    }

    /// Up to `limit` ended jobs below `before`, latest first, from the store.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub async fn latest_ended(
        &self,
        before: Option<JobNumber>,
        limit: usize,
    ) -> Result<Vec<Arc<JobRecord>>, StoreError> {
        let archive = self.archive.clone();
        let page = tokio::task::spawn_blocking(move || {
            let page = archive.lock().unwrap_or_else(PoisonError::into_inner).latest(before, limit)?;
            let nobody = JobNumber::new(0, 0);
            page.iter().map(|bytes| decode_record(before.unwrap_or(nobody), bytes).map(Arc::new)).collect()
        });
        page.await.unwrap_or_else(|error| Err(not_read(&error)))
    }

    /// Connects a worker's session: what the plane tells it comes by the receiver. The channel closes when the plane
    /// ends the session.
    ///
    /// # Errors
    /// [`Busy::Stopped`].
    pub async fn attach(&self) -> Result<(SessionId, mpsc::UnboundedReceiver<ToWorker>), Busy> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let session = self.shared.next_session();
        self.send(Message::Attach { session, sender }).await?;
        Ok((session, receiver))
    }

    /// Watches a job: first how it stands, then every change, last its end. Nothing comes for a job that is not in the
    /// system: the channel closes at once.
    ///
    /// # Errors
    /// [`Busy::Stopped`].
    pub async fn watch(&self, job: JobNumber) -> Result<mpsc::UnboundedReceiver<News>, Busy> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.send(Message::Watch { job, sender }).await?;
        Ok(receiver)
    }

    /// Passes on how far a worker is; lost when the plane is busy.
    pub fn progress(&self, session: SessionId, lease: Lease, job: JobNumber, done: u32, of: u32) {
        let _ = self.sender.try_send(Message::Progress { session, lease, job, done, of });
    }

    /// Counts for metrics and health, at most half a second old.
    pub fn figures(&self) -> Arc<Figures> {
        self.shared.figures()
    }

    /// What is shared with the plane's thread: counters and the state of health.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Has the plane make everything durable and stop; without room for it, it stops as after a failure.
    pub async fn stop(&self) {
        self.shared.ask_to_stop();
        let (sender, stopped) = oneshot::channel();
        if self.send(Message::Stop(sender)).await.is_ok() {
            let _ = stopped.await;
        }
    }

    fn try_send(&self, message: Message) -> Result<(), Busy> {
        self.sender.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => Busy::Full,
            TrySendError::Disconnected(_) => Busy::Stopped,
        })
    }

    async fn send(&self, message: Message) -> Result<(), Busy> {
        let mut message = message;
        loop {
            match self.sender.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Busy::Stopped),
                Err(TrySendError::Full(back)) => message = back,
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }
}

/// Ended jobs whose reader panicked or was cancelled.
fn not_read(error: &tokio::task::JoinError) -> StoreError {
    StoreError::Failed { doing: Doing::Asking, place: "this plane".to_owned(), what: error.to_string() }
}
