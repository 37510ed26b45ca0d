//! Watches the plane's durable effects and makes spans of them. It sits on the plane's thread, so it must be quick: jobs that are
//! not traced cost it one look into a table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::SpanKind;
use policy::model::Lease;
use policy::records::JobOutcome;
use policy::units::Instant;

use super::context::TraceContext;
use super::ids::{Ids, Part, Sampler};
use super::open::{Attempt, How, Member, Open, Stand, Wait};
use super::outbox::Outbox;
use super::settings::TraceSettings;
use super::span::{Span, attribute, text};
use super::{PLANE, TraceError, Traces};
use crate::api::Names;
use crate::clock::Clock;
use crate::command::{Command, SessionId};
use crate::effect::{JobEvent, JobRecord, JobState};
use crate::number::JobNumber;
use crate::plane::Plane;
use crate::protocol::{Hello, ToWorker};
use crate::submission::Submission;

/// Traced jobs in the system at most; with about 300 bytes each, 20 MB. Others are not traced, and counted.
const JOBS_MAX: usize = 65_536;

/// Workers that are known by name at most.
const MEMBERS_MAX: usize = 65_536;

/// Longest name of a worker that is kept, characters.
const NAME_CHARS_MAX: usize = 64;

/// Watches one plane.
#[derive(Debug)]
pub struct Observer {
    traces: Arc<Traces>,
    sampler: Sampler,
    /// When the plane's clock showed 0.
    start: SystemTime,
    names: Names,
    /// The plane was given other rules.
    are_names_old: bool,
    jobs: HashMap<JobNumber, Open>,
    /// Leases of traced jobs, and what their workers said of the end.
    leases: HashMap<Lease, (JobNumber, Option<How>)>,
    members: HashMap<SessionId, Arc<Member>>,
}

impl Observer {
    /// Watches `plane` from now on. Spans go out by a task of the present runtime.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn open(settings: &TraceSettings, plane: &Plane, clock: Clock) -> Result<Self, TraceError> {
        let outbox = Outbox::open(settings, PLANE)?;
        let mut observer = Self::new(outbox, settings.sampler(), plane, clock);
        observer.adopt(plane, clock.now());
        Ok(observer)
    }

    fn new(outbox: Outbox, sampler: Sampler, plane: &Plane, clock: Clock) -> Self {
        let since = Duration::from_nanos(clock.now().as_nanos());
        Self {
            traces: Arc::new(Traces::new(outbox, Ids::new(&plane.rules().secret))),
            sampler,
            start: SystemTime::now().checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH),
            names: Names::of(plane.rules()),
            are_names_old: false,
            jobs: HashMap::new(),
            leases: HashMap::new(),
            members: HashMap::new(),
        }
    }

    /// What the rest of the process needs of it.
    pub fn traces(&self) -> &Arc<Traces> {
        &self.traces
    }

    /// Goes on with the jobs that a plane before has left. Their ids are the same; of what is under way the beginning is not
    /// known, but for a first wait.
    fn adopt(&mut self, plane: &Plane, now: Instant) {
        plane.each_job(|view, lease, traceparent| {
            let Some(mut open) = self.begun(view.job, traceparent.and_then(|text| text.parse().ok())) else {
                return;
            };
            open.arrived = view.arrived;
            open.stand = match view.state {
                JobState::Running => {
                    let attempt = self.attempt(view.job, now, view.deliveries, view.stage);
                    Stand::Running(Box::new(Attempt { is_resumed: true, lease, ..attempt }))
                }
                _ if view.deliveries == 0 => {
                    Stand::Queued(Wait { since: view.arrived, version: 1, is_resumed: false })
                }
                _ => Stand::Queued(Wait { since: now, version: view.version, is_resumed: true }),
            };
            if let Some(lease) = lease {
                self.leases.insert(lease, (view.job, None));
            }
            self.jobs.insert(view.job, open);
        });
    }

    /// The client's span of a submission, for [`Observer::accepted`].
    pub(crate) fn client(submission: &Submission) -> Option<TraceContext> {
        submission.traceparent.as_deref().and_then(|text| text.parse().ok())
    }

    /// A job is in.
    pub(crate) fn accepted(&mut self, job: JobNumber, client: Option<TraceContext>) {
        if let Some(open) = self.begun(job, client) {
            self.jobs.insert(job, open);
        }
    }

    /// A job that is to be traced, if it is; its times are not known yet.
    fn begun(&self, job: JobNumber, client: Option<TraceContext>) -> Option<Open> {
        if !self.sampler.chooses(job, client) {
            return None;
        }
        if self.jobs.len() >= JOBS_MAX {
            self.traces.outbox.skip();
            return None;
        }
        let ids = &self.traces.ids;
        let trace = client.map_or_else(|| ids.trace(job), |client| client.trace);
        let wait = Wait { since: Instant::START, version: 1, is_resumed: false };
        Some(Open {
            root: TraceContext { trace, span: ids.span(job, Part::Job), is_sampled: true },
            client,
            arrived: Instant::START,
            stand: Stand::Queued(wait),
            over: None,
        })
    }

    fn attempt(&self, job: JobNumber, since: Instant, delivery: u16, stage: u16) -> Attempt {
        Attempt {
            since,
            delivery,
            stage,
            span: self.traces.ids.span(job, Part::Attempt { delivery }),
            is_resumed: false,
            how: None,
            lease: None,
            worker: None,
            quality: String::new(),
        }
    }

    /// Somebody says something to the plane; what comes of it is seen later.
    pub(crate) fn heard(&mut self, command: &Command) {
        match command {
            Command::Hello { session, hello } => self.hello(*session, hello),
            Command::Finished { lease, report, .. } => {
                if let Some((_, said)) = self.leases.get_mut(lease) {
                    *said = Some(How::of(report));
                }
            }
            Command::WebhookSettled { job, .. } => self.traces.settled(*job),
            _ => {}
        }
    }

    fn hello(&mut self, session: SessionId, hello: &Hello) {
        if self.members.len() < MEMBERS_MAX {
            let short = |name: &str| name.chars().take(NAME_CHARS_MAX).collect();
            let member = Member { pool: short(&hello.pool), name: short(&hello.name) };
            self.members.insert(session, Arc::new(member));
        }
    }

    /// A session is over.
    pub(crate) fn closed(&mut self, session: SessionId) {
        self.members.remove(&session);
    }

    /// A worker is told something. Of a traced job it also learns the span that its own hang at.
    pub(crate) fn told(&mut self, session: SessionId, message: &mut ToWorker) {
        if self.jobs.is_empty() {
            return;
        }
        match message {
            ToWorker::Start(start) => {
                let Some(open) = self.jobs.get_mut(&start.job) else { return };
                let Stand::Running(attempt) = &mut open.stand else { return };
                attempt.lease = Some(start.lease);
                attempt.quality.clone_from(&start.quality);
                attempt.worker = self.members.get(&session).map(|member| (session, member.clone()));
                start.traceparent = Some(TraceContext { span: attempt.span, ..open.root }.to_string());
                self.leases.insert(start.lease, (start.job, None));
            }
            ToWorker::Ack { lease, accepted: true } => {
                let Some((job, Some(said))) = self.leases.get(lease).copied() else { return };
                if let Some(attempt) = self.jobs.get_mut(&job).and_then(|open| open.under(*lease)) {
                    attempt.how = Some(said);
                }
            }
            ToWorker::Revoke { lease } => {
                let Some((job, _)) = self.leases.get(lease).copied() else { return };
                if let Some(attempt) = self.jobs.get_mut(&job).and_then(|open| open.under(*lease)) {
                    attempt.how = attempt.how.or(Some(How::Revoked));
                }
            }
            ToWorker::Ack { accepted: false, .. }
            | ToWorker::Welcome { .. }
            | ToWorker::Standby
            | ToWorker::Refused { .. }
            | ToWorker::Drain => {}
        }
    }

    /// A job changed.
    pub(crate) fn changed(&mut self, event: &JobEvent) {
        if !self.jobs.contains_key(&event.job) {
            return;
        }
        let Some(mut open) = self.jobs.remove(&event.job) else { return };
        self.report_over(event.job, &mut open);
        match event.state {
            JobState::Queued => {
                let wait = Wait { since: event.at, version: event.version, is_resumed: false };
                match &open.stand {
                    // Its arrival; or a change that was in the state already when this plane began.
                    Stand::Queued(known) if known.version == wait.version => {
                        if wait.version == 1 {
                            open.arrived = event.at;
                        }
                        open.stand = Stand::Queued(wait);
                    }
                    _ => {
                        let before = std::mem::replace(&mut open.stand, Stand::Queued(wait));
                        self.leave(event.job, &mut open, before, event.at);
                    }
                }
            }
            JobState::Running => match &mut open.stand {
                Stand::Running(attempt) if attempt.delivery == event.deliveries => {
                    (attempt.since, attempt.is_resumed) = (event.at, false);
                }
                _ => {
                    let attempt = self.attempt(event.job, event.at, event.deliveries, event.stage);
                    let before = std::mem::replace(&mut open.stand, Stand::Running(Box::new(attempt)));
                    self.leave(event.job, &mut open, before, event.at);
                    if matches!(open.over, Some((_, at)) if at == event.at) {
                        // The next stage began: nobody takes the lease of the one before back.
                        self.report_over(event.job, &mut open);
                    }
                }
            },
            JobState::Ended(_) => {}
        }
        self.jobs.insert(event.job, open);
    }

    /// A job ended.
    pub(crate) fn ended(&mut self, record: &JobRecord) {
        if !self.jobs.contains_key(&record.job) {
            return;
        }
        let Some(mut open) = self.jobs.remove(&record.job) else { return };
        self.report_over(record.job, &mut open);
        let nothing = Wait { since: record.ended, version: 0, is_resumed: false };
        let stand = std::mem::replace(&mut open.stand, Stand::Queued(nothing));
        self.leave(record.job, &mut open, stand, record.ended);
        self.report_over(record.job, &mut open);
        let error = (record.outcome != JobOutcome::Done).then(|| record.outcome.name().to_owned());
        let name = |list: &[String], number| Names::name(list, number).to_owned();
        self.traces.outbox.put(Span {
            own: open.root,
            parent: open.client.map_or(0, |client| client.span),
            is_parent_remote: open.client.is_some(),
            name: "job",
            kind: SpanKind::Server,
            began: self.wall(record.arrived),
            ended: self.wall(record.ended),
            error,
            attributes: vec![
                text("headroom.job", &record.job.to_string()),
                text("headroom.class", &name(&self.names.classes, record.class)),
                text("headroom.region", &name(&self.names.regions, record.region)),
                attribute("headroom.tenant", i64::from(record.tenant)),
                attribute("headroom.outcome", record.outcome.name()),
                attribute("headroom.deliveries", i64::from(record.deliveries)),
                text("headroom.quality", &name(&self.names.qualities, record.quality)),
            ],
        });
    }

    /// The end of a job is to be announced.
    pub(crate) fn announced(&mut self, job: JobNumber) {
        if let Some(open) = self.jobs.get(&job) {
            self.traces.announce(job, open.root);
        }
    }

    /// The plane was given other rules, or may have been.
    pub(crate) fn reloaded(&mut self) {
        self.are_names_old = true;
    }

    /// Looks at the plane's rules again, if need be.
    pub(crate) fn renew(&mut self, plane: &Plane) {
        if std::mem::take(&mut self.are_names_old) {
            self.names = Names::of(plane.rules());
        }
    }

    fn wall(&self, at: Instant) -> SystemTime {
        self.start + Duration::from_nanos(at.as_nanos())
    }

    /// What a job did before is over.
    fn leave(&mut self, job: JobNumber, open: &mut Open, before: Stand, at: Instant) {
        let wait = match before {
            Stand::Running(attempt) => {
                open.over = Some((attempt, at));
                return;
            }
            Stand::Queued(wait) => wait,
        };
        if wait.since == at && wait.version > 1 {
            return; // between two stages, or between a lease taken back and the job's end
        }
        let mut attributes = Vec::new();
        if wait.is_resumed {
            attributes.push(attribute("headroom.resumed", true));
        }
        let span = self.traces.ids.span(job, Part::Queue { version: wait.version });
        self.traces.outbox.put(Span {
            own: TraceContext { span, ..open.root },
            parent: open.root.span,
            is_parent_remote: false,
            name: "queue",
            kind: SpanKind::Internal,
            began: self.wall(wait.since),
            ended: self.wall(at),
            error: None,
            attributes,
        });
    }

    /// Nothing more will be said of the attempt that is over.
    fn report_over(&mut self, job: JobNumber, open: &mut Open) {
        let Some((attempt, at)) = open.over.take() else { return };
        if let Some(lease) = attempt.lease {
            self.leases.remove(&lease);
        }
        let how = attempt.how.unwrap_or(How::Lost);
        let mut attributes = vec![
            text("headroom.job", &job.to_string()),
            attribute("headroom.delivery", i64::from(attempt.delivery)),
            text("headroom.stage", Names::name(&self.names.stages, attempt.stage)),
            attribute("headroom.end", how.name()),
        ];
        if !attempt.quality.is_empty() {
            attributes.push(text("headroom.quality", &attempt.quality));
        }
        if let Some((session, member)) = &attempt.worker {
            attributes.push(text("headroom.pool", &member.pool));
            attributes.push(text("headroom.worker", &member.name));
            attributes.push(attribute("headroom.session", i64::try_from(session.0).unwrap_or(i64::MAX)));
        }
        if attempt.is_resumed {
            attributes.push(attribute("headroom.resumed", true));
        }
        self.traces.outbox.put(Span {
            own: TraceContext { span: attempt.span, ..open.root },
            parent: open.root.span,
            is_parent_remote: false,
            name: "attempt",
            kind: SpanKind::Client,
            began: self.wall(attempt.since),
            ended: self.wall(at),
            error: (how != How::Done).then(|| how.name().to_owned()),
            attributes,
        });
    }
}
