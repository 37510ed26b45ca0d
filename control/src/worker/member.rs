//! A worker from its start to its end: connections one after the other, and between them the same desk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, SinkExt, StreamExt};
use policy::model::Lease;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::bells::Bells;
use super::desk::{Act, Desk, Standing};
use super::link::{Link, LinkError, connect};
use super::pause::{Pauses, fresh_name, random_u64};
use super::runner::{Event, JobControl, Runner};
use super::{Exit, Stop, WorkerSettings};
use crate::protocol::{
    FromWorker, Hello, PROTOCOL_VERSION, Report, Start, TEXT_BYTES_MAX, decode_to_worker, frames,
};
use crate::submission::{OBJECTS_MAX, RESULT_BYTES_MAX};
use crate::trace::{WorkTrace, WorkTraces};

/// A plane that is not heard for so long is taken for gone; it pings every few seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// A plane that takes nothing for so long is taken for gone.
const STUCK: Duration = Duration::from_secs(10);

/// Before it goes, a worker waits so long for its last reports to be acknowledged.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Longest pause while one of several planes takes over.
const PAUSE_AMONG_SEVERAL: Duration = Duration::from_secs(1);

/// Redirects that are followed without a pause.
const HOPS_MAX: u32 = 3;

/// How long a farewell may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Frames read before what follows from them is said.
const FRAMES_MAX: usize = 64;

/// Events taken at once.
const EVENTS_MAX: usize = 4096;

/// A worker.
pub struct Worker {
    settings: WorkerSettings,
    runner: Arc<dyn Runner>,
    stop: watch::Receiver<Stop>,
    desk: Desk,
    name: String,
    bells: Bells,
    sender: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
    outbox: Vec<FromWorker>,
    acts: Vec<Act>,
    is_prepared: bool,
    /// The plane has welcomed the present name.
    was_in: bool,
    /// When it goes whatever it holds, and why.
    leaving: Option<(Instant, Exit)>,
    traces: Option<WorkTraces>,
    /// Of timed work that is traced.
    timed: HashMap<Lease, WorkTrace>,
}

/// How a connection ended.
enum End {
    /// Without being wished: the next may be tried at once.
    Lost(String),
    /// The plane drained this worker, which then stands by again under another name.
    Anew,
    /// The worker ends.
    Exit(Exit),
}

impl Worker {
    /// A worker that has not begun.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(
        settings: WorkerSettings,
        runner: Arc<dyn Runner>,
        stop: watch::Receiver<Stop>,
    ) -> std::io::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        Ok(Self {
            desk: Desk::new(settings.hang_after),
            settings,
            runner,
            stop,
            name: fresh_name(),
            bells: Bells::start(sender.clone())?,
            sender,
            events,
            outbox: Vec::new(),
            acts: Vec::new(),
            is_prepared: false,
            was_in: false,
            leaving: None,
            traces: None,
            timed: HashMap::new(),
        })
    }

    /// The same, which makes spans of the work on traced jobs.
    pub fn traced(mut self, traces: Option<WorkTraces>) -> Self {
        self.traces = traces;
        self
    }

    /// Tells the worker what its machine's provider says: an interruption `seconds` ahead.
    pub fn notices(&self) -> impl Fn(u32) + Send + Sync + 'static {
        let sender = self.sender.clone();
        move |seconds| {
            let _ = sender.send(Event::Notice(seconds));
        }
    }

    /// Works until there is a reason to end. Work that hangs may be left on its thread.
    pub async fn run(mut self) -> Exit {
        let (runner, sender) = (self.runner.clone(), self.sender.clone());
        tokio::task::spawn_blocking(move || {
            let _ = sender.send(Event::Prepared(runner.prepare()));
        });
        let mut pauses = Pauses::default();
        let mut alone_since = Instant::now();
        loop {
            let link = match self.reach(&mut pauses, alone_since).await {
                Ok(link) => link,
                Err(exit) => return exit,
            };
            let end = self.converse(link, &mut pauses).await;
            self.desk.disconnected();
            alone_since = Instant::now();
            match end {
                End::Exit(exit) => return exit,
                End::Anew => self.begin_anew(),
                End::Lost(why) => {
                    tracing::warn!("the connection ended: {why}");
                    if self.desk.is_draining && self.leaving.is_none() {
                        if self.settings.launch.is_none() {
                            self.begin_anew();
                        } else if self.desk.is_clear() {
                            return Exit::Left;
                        }
                    }
                }
            }
        }
    }

    /// Stands by again, as a worker that nobody knows.
    fn begin_anew(&mut self) {
        self.desk.begin_anew(Instant::now());
        self.name = fresh_name();
        self.was_in = false;
    }

    /// Connects, however long it takes; work goes on meanwhile.
    async fn reach(&mut self, pauses: &mut Pauses, alone_since: Instant) -> Result<Link, Exit> {
        let address = self.settings.address.clone();
        let mut hops = 0;
        loop {
            let mut pause = pauses.next(random_u64());
            if address.is_several() {
                pause = pause.min(PAUSE_AMONG_SEVERAL);
            }
            let attempt = async {
                tokio::time::sleep(pause).await;
                connect(&address).await
            };
            tokio::pin!(attempt);
            let result = loop {
                tokio::select! {
                    result = &mut attempt => break result,
                    Some(event) = self.events.recv() => self.happen(event)?,
                    Ok(()) = self.stop.changed() => self.stop_if_asked(),
                }
                if let Some(exit) = self.may_leave() {
                    return Err(exit);
                }
            };
            match result {
                Ok(link) => return Ok(link),
                Err(LinkError::Denied(why)) => return Err(Exit::Refused(why)),
                Err(LinkError::Later(why)) => {
                    tracing::warn!("{address:?}: {why}");
                    address.turn();
                }
                Err(LinkError::Elsewhere(leader)) => {
                    tracing::info!("{leader} leads");
                    if hops < HOPS_MAX {
                        hops += 1;
                        pauses.hurry();
                    }
                }
            }
            if let Some(limit) = self.settings.alone_for
                && alone_since.elapsed() >= limit
            {
                return Err(Exit::Alone(limit));
            }
            if let Some(exit) = self.may_leave() {
                return Err(exit);
            }
        }
    }

    /// Talks to the plane until the connection or the worker ends.
    async fn converse(&mut self, link: Link, pauses: &mut Pauses) -> End {
        let (mut sink, mut stream) = link.split();
        self.greet();
        let mut beat_every = self.desk.beat_every;
        let mut beat = ticks(beat_every);
        let mut batch = Vec::new();
        let mut heard = Instant::now();
        loop {
            if !self.outbox.is_empty() {
                let ready = frames(&self.outbox);
                self.outbox.clear();
                let send = async {
                    for frame in ready {
                        sink.feed(Message::Binary(frame.into())).await?;
                    }
                    sink.flush().await
                };
                match timeout(STUCK, send).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return End::Lost(error.to_string()),
                    Err(_) => return End::Lost("the plane takes nothing".to_owned()),
                }
            }
            let is_drained = self.desk.is_draining && self.desk.is_clear();
            let parting = match self.may_leave() {
                Some(exit) => Some(End::Exit(exit)),
                None if is_drained && self.settings.launch.is_some() => Some(End::Exit(Exit::Left)),
                None => is_drained.then_some(End::Anew),
            };
            if let Some(end) = parting {
                let goodbye = async {
                    for frame in frames(&[FromWorker::Leaving]) {
                        sink.send(Message::Binary(frame.into())).await?;
                    }
                    sink.close().await?;
                    while let Some(message) = stream.next().await {
                        message?;
                    }
                    Ok::<(), WsError>(())
                };
                let _ = timeout(GOODBYE, goodbye).await;
                return end;
            }
            tokio::select! {
                message = stream.next() => {
                    heard = Instant::now();
                    let mut next = Some(message);
                    let mut count = 0;
                    while let Some(message) = next {
                        match self.hear(message) {
                            Ok(()) => {}
                            Err(end) => return end,
                        }
                        count += 1;
                        next = if count < FRAMES_MAX { stream.next().now_or_never() } else { None };
                    }
                }
                count = self.events.recv_many(&mut batch, EVENTS_MAX) => {
                    debug_assert!(count > 0, "the worker holds a sender");
                    for event in batch.drain(..) {
                        if let Err(exit) = self.happen(event) {
                            return End::Exit(exit);
                        }
                    }
                }
                _ = beat.tick() => {
                    let now = Instant::now();
                    if now.duration_since(heard) > SILENCE {
                        return End::Lost("the plane is silent".to_owned());
                    }
                    if self.desk.is_hung(now) {
                        let why = "cancelled work does not stop".to_owned();
                        return End::Exit(Exit::DeviceFailed(why));
                    }
                    if self.desk.standing != Standing::Out {
                        self.outbox.extend(self.desk.beats(now));
                    }
                }
                Ok(()) = self.stop.changed() => self.stop_if_asked(),
            }
            if self.desk.standing != Standing::Out {
                pauses.reset();
                self.was_in |= self.desk.standing == Standing::In;
            }
            if self.desk.beat_every != beat_every {
                beat_every = self.desk.beat_every;
                beat = ticks(beat_every);
            }
        }
    }

    /// First words on a new connection.
    fn greet(&mut self) {
        let skills = self.runner.skills();
        let hello = Hello {
            version: PROTOCOL_VERSION,
            name: self.name.clone(),
            pool: self.settings.pool.clone(),
            launch: self.settings.launch.clone(),
            slots: self.settings.slots,
            models: skills.models,
            device: skills.device,
            leases: self.desk.leases(),
        };
        self.outbox.clear();
        self.outbox.push(FromWorker::Hello(Box::new(hello)));
        if self.is_prepared {
            self.outbox.push(FromWorker::Ready);
        }
        if let Some((until, _)) = &self.leaving {
            let left = until.saturating_duration_since(Instant::now());
            self.outbox.push(FromWorker::Notice { seconds: whole_seconds(left) });
        }
    }

    /// Takes what the plane sent.
    fn hear(&mut self, message: Option<Result<Message, WsError>>) -> Result<(), End> {
        let lost = |why: &str| Err(End::Lost(why.to_owned()));
        let bytes = match message {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            Some(Ok(Message::Text(_))) => return lost("the plane sent text; is it one?"),
            Some(Ok(Message::Close(frame))) => {
                let reason = frame.map_or_else(String::new, |frame| frame.reason.to_string());
                return lost(if reason.is_empty() { "the plane closed it" } else { &reason });
            }
            Some(Err(error)) => return Err(End::Lost(error.to_string())),
            None => return lost("the plane is gone"),
        };
        let messages = decode_to_worker(&bytes).map_err(|error| End::Lost(error.to_string()))?;
        let mut acts = std::mem::take(&mut self.acts);
        let now = Instant::now();
        for message in messages {
            self.desk.take(message, now, &mut acts);
            for act in acts.drain(..) {
                match act {
                    Act::Say(message) => self.outbox.push(message),
                    Act::Begin(start) => self.begin(start),
                    Act::Refused(why) => return Err(self.refused(why)),
                }
            }
        }
        self.acts = acts;
        Ok(())
    }

    /// What a refusal means to this worker.
    fn refused(&self, why: String) -> End {
        let rejoins = self.settings.launch.is_none();
        match &self.leaving {
            Some((_, exit)) => End::Exit(exit.clone()),
            None if rejoins && (self.was_in || self.desk.is_draining) => End::Anew,
            None if self.desk.is_draining => End::Exit(Exit::Left),
            None => End::Exit(Exit::Refused(why)),
        }
    }

    fn begin(&mut self, start: Box<Start>) {
        let (lease, job) = (start.lease, start.job);
        let trace = self.traces.as_ref().and_then(|traces| traces.of(&start));
        if let Some(timed) = self.runner.timed(&start) {
            let report = within_limits(timed.report);
            if timed.after.is_zero() {
                if let Some(trace) = &trace {
                    trace.over(&report);
                }
                self.outbox.extend(self.desk.finished(lease, job, report));
            } else {
                if let Some(trace) = trace {
                    self.timed.insert(lease, trace);
                }
                self.bells.set(Instant::now() + timed.after, lease, job, report);
            }
            return;
        }
        let control = JobControl::new(lease, job, self.sender.clone(), trace.clone());
        self.desk.set_control(lease, control.clone());
        let (runner, sender) = (self.runner.clone(), self.sender.clone());
        tokio::task::spawn_blocking(move || {
            let run = || runner.run(*start, control);
            let report = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(report) => within_limits(report),
                Err(_) => Report::Failed { message: "the worker's code panicked".to_owned(), again: true },
            };
            if let Some(trace) = trace {
                trace.over(&report);
            }
            let _ = sender.send(Event::Finished { lease, job, report });
        });
    }

    /// Takes what happened beside the connection.
    fn happen(&mut self, event: Event) -> Result<(), Exit> {
        match event {
            Event::Prepared(Ok(())) => {
                self.is_prepared = true;
                self.outbox.push(FromWorker::Ready);
            }
            Event::Prepared(Err(why)) => return Err(Exit::NotPrepared(why)),
            Event::Finished { lease, job, report } => {
                if let Some(trace) = self.timed.remove(&lease) {
                    trace.over(&report);
                }
                self.outbox.extend(self.desk.finished(lease, job, report));
            }
            Event::Progress { lease, job, done, of } => {
                if self.desk.is_working(lease, job) {
                    self.outbox.push(FromWorker::Progress { lease, job, done, of });
                }
            }
            Event::DeviceFailed(why) => {
                tracing::error!("the device failed: {why}");
                self.leave_within(LAST_WORDS, Exit::DeviceFailed(why));
            }
            Event::Notice(seconds) => {
                tracing::warn!(seconds, "the machine will be taken away");
                self.outbox.push(FromWorker::Notice { seconds });
                self.leave_within(Duration::from_secs(seconds.into()), Exit::Left);
            }
        }
        Ok(())
    }

    fn stop_if_asked(&mut self) {
        let asked = *self.stop.borrow_and_update();
        match asked {
            Stop::No => {}
            Stop::Within(grace) => {
                tracing::info!(busy = self.desk.busy(), "finishing what is begun, within {grace:?}");
                self.outbox.push(FromWorker::Notice { seconds: whole_seconds(grace) });
                self.leave_within(grace, Exit::Left);
            }
            Stop::Now => {
                self.desk.cancel_all(Instant::now());
                self.leave_within(Duration::ZERO, Exit::Left);
            }
        }
    }

    /// Takes nothing new, and goes once idle or when `within` is over. The first exit is the one that counts.
    fn leave_within(&mut self, within: Duration, exit: Exit) {
        let until = Instant::now() + within;
        self.desk.is_draining = true;
        self.leaving = match self.leaving.take() {
            Some((before, exit)) => Some((before.min(until), exit)),
            None => Some((until, exit)),
        };
    }

    /// Why it goes now, if it does.
    fn may_leave(&mut self) -> Option<Exit> {
        let (until, exit) = self.leaving.as_ref()?;
        let now = Instant::now();
        let is_over = *until <= now;
        let exit = (self.desk.is_clear() || is_over).then(|| exit.clone())?;
        self.desk.cancel_all(now);
        Some(exit)
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX)
}

/// A report that the plane takes: long messages are cut, and a result that is too long is a failure.
fn within_limits(report: Report) -> Report {
    let hopeless = |message: String| Report::Failed { message, again: false };
    match report {
        Report::Done { result, .. } if result.len() > RESULT_BYTES_MAX => {
            hopeless(format!("the result has {} bytes, at most {RESULT_BYTES_MAX} go inline", result.len()))
        }
        Report::Done { objects, .. } if objects.len() > OBJECTS_MAX => {
            hopeless(format!("there are {} output objects, at most {OBJECTS_MAX} are kept", objects.len()))
        }
        Report::Failed { mut message, again } => {
            if message.len() > TEXT_BYTES_MAX {
                let end = (0..=TEXT_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end));
                message.truncate(end.unwrap_or(0));
            }
            Report::Failed { message, again }
        }
        done @ Report::Done { .. } => done,
    }
}
