//! What the dispatcher's outputs become: effects, and notes about jobs and machines.

use policy::dispatch::{Ended, Input, Output, Rejection, StageResult, Started};
use policy::model::{InstanceId, JobId, Lease, PoolId};
use policy::records::{InstanceLife, JobOutcome};
use policy::units::{Duration, Instant};

use super::Plane;
use super::jobs::Job;
use super::machines::{Contact, Ending, Machine};
use crate::effect::{Answer, Effect, JobEvent, JobRecord, JobState, Refusal, WebhookTask};
use crate::number::JobNumber;
use crate::protocol::{Start, ToWorker};

impl Plane {
    pub(super) fn perform(&mut self, now: Instant, output: Output, out: &mut Vec<Effect>) {
        match output {
            Output::Accepted { job, tag } => self.accepted(now, job, JobNumber(tag), out),
            Output::Rejected { why, retry_after, .. } => {
                let why = match why {
                    Rejection::WouldBeLate => Refusal::WouldBeLate,
                    Rejection::QueueFull => Refusal::QueueFull,
                };
                let retry_after = retry_after.max(Duration::from_secs(1));
                out.push(Effect::Answer(Answer::Rejected { why, retry_after }));
            }
            Output::Started(started) => self.started(now, started, out),
            Output::Revoked { lease, instance } => self.revoked(now, lease, instance, out),
            Output::ProbeRefused { .. } => {}
            Output::Ended(ended) => self.ended(now, ended, out),
            Output::Launch { instance, pool } => self.launch(now, instance, pool, out),
            Output::Terminate { instance, .. } => self.terminate(now, instance, out),
            Output::InstanceEnded(life) => self.bill(&life, out),
            Output::Decided(row) => out.push(Effect::Decided(row)),
            Output::Minute(row) => out.push(Effect::Minute(row)),
        }
    }

    fn accepted(&mut self, now: Instant, id: JobId, number: JobNumber, out: &mut Vec<Effect>) {
        let Some(submission) = self.arriving.take() else { return };
        *self.tenants.entry(submission.tenant).or_insert(0) += 1;
        if let Some(key) = submission.idempotency {
            self.keys.insert(now, key, number, self.rules.patience.idempotency_max);
        }
        out.push(Effect::Answer(Answer::Accepted(number)));
        let event =
            JobEvent { job: number, version: 1, at: now, state: JobState::Queued, stage: 0, deliveries: 0 };
        out.push(Effect::Changed(event));
        self.jobs.insert(Box::new(Job::new(number, id, submission, now)));
    }

    fn started(&mut self, now: Instant, started: Started, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.at_mut(started.lease.slot) else { return };
        job.stage = started.stage.0;
        job.quality = started.quality.0;
        job.delivery = started.delivery;
        let Some(instance) = started.instance else {
            // Stages outside are the client's and the network's: here they have happened already.
            self.inputs.push_back(Input::StageFinished { lease: started.lease, result: StageResult::Done });
            return;
        };
        job.deliveries = job.deliveries.saturating_add(1);
        job.held = Some((started.lease, instance));
        out.push(Effect::Changed(job.change(now, JobState::Running)));
        if let Some(machine) = self.machines.get_mut(instance) {
            machine.work.push(started.lease.slot);
        }
        self.tell_start(now, started.lease.slot, out);
    }

    /// Tells the worker that holds a job to begin, if it is connected; it is told again when it reconnects.
    pub(super) fn tell_start(&self, now: Instant, slot: u32, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.at(slot) else { return };
        let Some((lease, instance)) = job.held else { return };
        let Some(session) = self.session_of(instance) else { return };
        let system = &self.rules.system;
        let allowed = job.submission.deadline.or(system.classes[job.submission.class.index()].deadline);
        let left = allowed.map(|allowed| allowed - now.since(job.arrived));
        let start = Start {
            lease,
            job: job.number,
            stage: system.stages[job.stage as usize].name.clone(),
            delivery: job.delivery,
            quality: system.qualities[job.quality as usize].name.clone(),
            deadline_ms: left.map(|left| left.as_nanos() / 1_000_000),
            payload: job.submission.payload.clone(),
            inputs: job.submission.inputs.clone(),
            carry: job.result.clone(),
            traceparent: job.submission.traceparent.clone(),
        };
        out.push(Effect::Tell { session, message: ToWorker::Start(Box::new(start)) });
    }

    fn revoked(&mut self, now: Instant, lease: Lease, instance: Option<InstanceId>, out: &mut Vec<Effect>) {
        if self.jobs.at(lease.slot).and_then(|job| job.held).is_some_and(|(held, _)| held == lease) {
            self.release(lease.slot);
            self.note_queued(now, lease.slot, out);
        }
        if let Some(session) = instance.and_then(|instance| self.session_of(instance)) {
            out.push(Effect::Tell { session, message: ToWorker::Revoke { lease } });
        }
    }

    /// The lease on a job is over, whoever had it.
    pub(super) fn release(&mut self, slot: u32) {
        let Some((_, instance)) = self.jobs.at_mut(slot).and_then(|job| job.held.take()) else { return };
        if let Some(machine) = self.machines.get_mut(instance) {
            machine.work.retain(|held| *held != slot);
        }
    }

    /// A job that nobody works on any more waits.
    pub(super) fn note_queued(&mut self, now: Instant, slot: u32, out: &mut Vec<Effect>) {
        if let Some(job) = self.jobs.at_mut(slot)
            && job.held.is_none()
            && job.state == JobState::Running
        {
            out.push(Effect::Changed(job.change(now, JobState::Queued)));
        }
    }

    fn ended(&mut self, now: Instant, ended: Ended, out: &mut Vec<Effect>) {
        self.release(ended.job.slot);
        let Some(mut job) = self.jobs.remove(ended.job.slot) else { return };
        if let Some(count) = self.tenants.get_mut(&job.submission.tenant) {
            *count -= 1;
            if *count == 0 {
                self.tenants.remove(&job.submission.tenant);
            }
        }
        let event = job.change(now, JobState::Ended(ended.outcome));
        let is_kept = matches!(ended.outcome, JobOutcome::Done | JobOutcome::Failed);
        let submission = &job.submission;
        if let Some(url) = &submission.webhook {
            let task = WebhookTask {
                job: job.number,
                tenant: submission.tenant,
                url: url.clone(),
                outcome: ended.outcome,
                ended: now,
                unix_ms: self.last_unix_ms().unwrap_or(0),
            };
            self.webhooks.insert(job.number, task.clone());
            out.push(Effect::Webhook(Box::new(task)));
        }
        out.push(Effect::Ended(Box::new(JobRecord {
            job: job.number,
            tenant: submission.tenant,
            class: ended.class.0,
            region: ended.region.0,
            arrived: ended.arrived,
            ended: now,
            outcome: ended.outcome,
            waited: ended.waited,
            served: ended.served,
            deliveries: job.deliveries,
            quality: ended.quality.0,
            version: job.version,
            result: if is_kept { std::mem::take(&mut job.result) } else { Box::default() },
            objects: std::mem::take(&mut job.objects),
        })));
        out.push(Effect::Changed(event));
    }

    fn launch(&mut self, now: Instant, instance: InstanceId, pool: PoolId, out: &mut Vec<Effect>) {
        let (order, token) = (self.launches, self.next_token());
        self.machines.insert(instance, Machine::new(pool, token, order, now));
        if self.hold.is_some() {
            self.machines.remove(instance);
            self.inputs.push_back(Input::LaunchFailed { instance });
            return;
        }
        if self.rules.joined.contains(&pool) {
            self.admit_standby(now, instance, pool, out);
        } else {
            self.machines.set_alarm(instance, now + self.rules.patience.join);
        }
        out.push(Effect::Launch { token, pool });
    }

    fn terminate(&mut self, now: Instant, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some(machine) = self.machines.get(instance) else { return };
        let (token, pool, handle) = (machine.token, machine.pool, machine.handle.clone());
        self.machines.set_alarm(instance, Instant::NEVER);
        if let Some(session) = self.machines.set_contact(instance, now, Contact::Ending) {
            out.push(Effect::Tell { session, message: ToWorker::Drain });
            out.push(Effect::Close { session });
        }
        self.machines.endings.insert(token, Ending { pool, handle: handle.clone() });
        out.push(Effect::Terminate { token, pool, handle });
    }

    fn bill(&mut self, life: &InstanceLife, out: &mut Vec<Effect>) {
        if let Some(machine) = self.machines.get_mut(life.instance) {
            machine.costs = None;
        }
        out.push(Effect::InstanceEnded(Box::new(self.money.bill(life, &self.rules))));
    }
}
