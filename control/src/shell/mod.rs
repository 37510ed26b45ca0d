//! The shell of a plane: one thread that owns the engine. Everything comes to it by one channel and leaves it, once
//! durable, by others. While it syncs, what comes in gathers: the next commit takes it all (group commit).

mod handle;
mod outlets;

pub use handle::{Busy, Handle, News, Submitted};
pub use outlets::{FleetOrder, Outlets, Row};

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration as StdDuration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::command::Command;
use crate::effect::{Answer, Effect};
use crate::engine::Engine;
use crate::number::JobNumber;
use crate::retention::Forgetting;
use crate::store::{Forgotten, Store, StoreError};
use crate::trace::TraceContext;
use handle::Message;

/// Messages that may wait for the plane; beyond, callers are told to come back.
const WAITING_MAX: usize = 65_536;

/// Commands of one commit at most.
const BATCH_MAX: u64 = 8192;

/// Bytes of one commit at most, about.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Longest sleep: figures are renewed as often.
const SLEEP_MAX: StdDuration = StdDuration::from_millis(500);

/// Longest sleep while there is something to forget.
const FORGETTING_PAUSE: StdDuration = StdDuration::from_nanos(crate::retention::PAUSE.as_nanos());

/// Pause before a commit is tried again for which there was no room.
const FULL_PAUSE: StdDuration = StdDuration::from_millis(500);

/// How a plane's thread ended.
#[derive(Debug)]
pub enum Stopped {
    /// Asked to; everything is durable.
    Asked,
    /// The store failed; the process must end, and the next recovers.
    Store(StoreError),
}

/// Starts the plane's thread. It ends when [`Handle::stop`] is called or the store fails.
///
/// # Errors
/// When the system gives no thread.
pub fn start<S: Store + 'static>(
    engine: Engine<S>,
    clock: Clock,
    outlets: Outlets,
) -> std::io::Result<(Handle, std::thread::JoinHandle<Stopped>)> {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let archive = engine.store().archive();
    let handle = Handle::new(sender, archive, outlets.shared());
    let run = move || {
        let (askers, looks, watches, effects) = (VecDeque::new(), Vec::new(), Vec::new(), Vec::new());
        Shell {
            engine,
            clock,
            outlets,
            receiver,
            askers,
            looks,
            watches,
            effects,
            stop: None,
            is_forgetting: false,
        }
        .run()
    };
    let thread = std::thread::Builder::new().name("plane".to_owned()).spawn(run)?;
    Ok((handle, thread))
}

/// Who asked for the next answer.
pub(crate) enum Asker {
    /// One submission, who wants to know its end, and its client's span.
    One(oneshot::Sender<Answer>, Option<handle::EndSender>, Option<TraceContext>),
    /// One of several.
    Many(std::rc::Rc<std::cell::RefCell<Gathered>>, Option<TraceContext>),
}

/// Answers to several submissions that came together.
pub(crate) struct Gathered {
    answers: Vec<Answer>,
    wanted: usize,
    sender: Option<oneshot::Sender<Vec<Answer>>>,
}

struct Shell<S> {
    engine: Engine<S>,
    clock: Clock,
    outlets: Outlets,
    receiver: Receiver<Message>,
    /// In the order of their commands.
    askers: VecDeque<Asker>,
    /// Questions to the state, answered after the commit.
    looks: Vec<handle::Look>,
    /// Those who begin to watch a job, after the commit too.
    watches: Vec<(JobNumber, mpsc::UnboundedSender<News>)>,
    effects: Vec<Effect>,
    stop: Option<oneshot::Sender<()>>,
    /// There is more to forget.
    is_forgetting: bool,
}

impl<S: Store> Shell<S> {
    fn run(mut self) -> Stopped {
        loop {
            if let Err(error) = self.turn() {
                self.outlets.fail(&error);
                return Stopped::Store(error);
            }
            if let Some(sender) = self.stop.take() {
                let _ = sender.send(());
                return Stopped::Asked;
            }
        }
    }

    /// Takes what has come, makes it durable, and lets everybody know.
    fn turn(&mut self) -> Result<(), StoreError> {
        if self.engine.pending() == 0 {
            let longest = if self.is_forgetting { FORGETTING_PAUSE } else { SLEEP_MAX };
            let wait = self.clock.until(self.engine.plane().poll_timeout()).min(longest);
            match self.receiver.recv_timeout(wait) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stop = Some(oneshot::channel().0),
            }
        }
        while self.engine.pending() < BATCH_MAX && self.engine.pending_bytes() < BATCH_BYTES_MAX {
            match self.receiver.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => break,
            }
        }
        let now = self.clock.now();
        if self.engine.plane().poll_timeout() <= now {
            self.engine.apply(now, Command::Tick);
        }
        self.commit()?;
        self.outlets.perform(&mut self.effects, &mut self.askers);
        // After the effects: who finds no job in the state finds it among the ended ones.
        for look in self.looks.drain(..) {
            look(self.engine.plane());
        }
        for (job, sender) in self.watches.drain(..) {
            if let Some(view) = self.engine.plane().job(job) {
                self.outlets.watch(job, view, sender);
            }
        }
        self.outlets.renew_figures(self.clock.now(), self.engine.plane());
        match self.engine.keep_image_if_due() {
            Ok(false) => {}
            Ok(true) => tracing::info!(upto = self.engine.next() - 1, "kept an image of the journal"),
            // The journal is whole without it: the next start takes longer.
            Err(error @ StoreError::Full { .. }) => {
                tracing::warn!("no image of the journal is kept now: {error}")
            }
            Err(error) => return Err(error),
        }
        self.forget()
    }

    /// Forgets a part of what has been over for too long.
    fn forget(&mut self) -> Result<(), StoreError> {
        self.is_forgetting = match self.engine.forget_if_due(self.clock.now()) {
            Ok(Forgetting::Idle) => false,
            Ok(Forgetting::UnderWay) => true,
            Ok(Forgetting::Over { mark, total }) => {
                self.outlets.forget(mark.ended_below);
                let Forgotten { batches, jobs, .. } = total;
                if batches + jobs > 0 {
                    tracing::info!(upto = mark.upto, batches, jobs, "forgot what was over for too long");
                }
                false
            }
            // Room that is needed to make room: later.
            Err(error @ StoreError::Full { .. }) => {
                tracing::warn!("nothing is forgotten now: {error}");
                false
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Commits; where there is no room, waits for some. Nothing is lost, and nobody is answered, in the meantime; so a
    /// plane that is asked to stop need not wait, and breaks no promise.
    fn commit(&mut self) -> Result<(), StoreError> {
        if self.engine.pending() == 0 {
            return Ok(());
        }
        let started = std::time::Instant::now();
        let count = self.engine.pending();
        loop {
            match self.engine.commit(&mut self.effects) {
                Ok(()) => break,
                Err(error @ StoreError::Full { .. }) => {
                    self.outlets.full(&error);
                    if self.outlets.wants_stop() {
                        return Err(error);
                    }
                    std::thread::sleep(FULL_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        self.outlets.committed(count, started.elapsed());
        Ok(())
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Submit { submission, sender, end } => {
                let client = self.outlets.client(&submission);
                self.engine.apply(now, Command::Submit(submission));
                self.askers.push_back(Asker::One(sender, end, client));
            }
            Message::SubmitMany { submissions, sender } => {
                let gathered =
                    Gathered { answers: Vec::new(), wanted: submissions.len(), sender: Some(sender) };
                let gathered = std::rc::Rc::new(std::cell::RefCell::new(gathered));
                for submission in submissions {
                    let client = self.outlets.client(&submission);
                    self.engine.apply(now, Command::Submit(submission));
                    self.askers.push_back(Asker::Many(gathered.clone(), client));
                }
            }
            Message::Ask { command, sender } => {
                self.engine.apply(now, command);
                self.askers.push_back(Asker::One(sender, None, None));
            }
            Message::Tell(command) => {
                self.outlets.heard(&command);
                self.engine.apply(now, command);
            }
            Message::Look(look) => self.looks.push(look),
            Message::Attach { session, sender } => self.outlets.attach(session, sender),
            Message::Watch { job, sender } => self.watches.push((job, sender)),
            Message::Progress { session, lease, job, done, of } => {
                if self.engine.plane().session_holds(session, lease, job) {
                    self.outlets.progress(job, done, of);
                }
            }
            Message::Stop(sender) => self.stop = Some(sender),
        }
    }
}
