//! Jobs from an SQS queue. Messages are received by long poll, kept invisible while the plane has not answered, and
//! deleted once their job is durable. What is no job stays for the queue's redrive policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message};
use base64::Engine as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Parse, Tenant, Verdict, submission};
use crate::aws::failure;
use crate::effect::{Answer, JobRecord, JobState};
use crate::shell::{Busy, Handle};
use crate::submission::Submission;

/// Messages of one receive, which is as many as SQS gives.
const RECEIVE_MAX: i32 = 10;

/// A long poll, seconds, which is as long as SQS waits.
const POLL_S: i32 = 20;

/// Longest time for which SQS hides a message, seconds.
const HIDDEN_MAX_S: u64 = 12 * 3600;

/// Pause after a failed call; it doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Longest pause of a poller whose messages were all turned away.
const TURNED_AWAY_MAX: Duration = Duration::from_secs(20);

/// Ends of jobs that are waited for at once; beyond, polling waits.
const ENDS_MAX: usize = 100_000;

/// Where jobs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqsSettings {
    /// URL of the queue.
    pub queue: String,
    /// URL of the queue that gets the jobs' ends.
    pub results: Option<String>,
    /// Whose jobs they are.
    pub tenant: Tenant,
    /// Long polls at once.
    pub pollers: usize,
    /// How long a received message stays hidden before it is renewed at a third of it, or comes again.
    pub hidden: Duration,
}

/// Counts of an ingress.
#[derive(Debug, Default)]
pub struct SqsCounts {
    /// Messages received.
    pub received: AtomicU64,
    /// Jobs accepted, or known already.
    pub accepted: AtomicU64,
    /// Turned away; they come again.
    pub rejected: AtomicU64,
    /// No jobs; left to the redrive policy.
    pub malformed: AtomicU64,
    /// Results sent.
    pub results: AtomicU64,
    /// Calls to SQS that failed.
    pub failures: AtomicU64,
}

/// Jobs from an SQS queue.
pub struct SqsIngress {
    client: Client,
    settings: SqsSettings,
    handle: Handle,
    parse: Parse,
    counts: Arc<SqsCounts>,
}

impl SqsIngress {
    /// An ingress; [`SqsIngress::run`] starts it.
    pub fn new(client: Client, settings: SqsSettings, handle: Handle, parse: Parse) -> Self {
        Self { client, settings, handle, parse, counts: Arc::default() }
    }

    /// Counts, for metrics.
    pub fn counts(&self) -> Arc<SqsCounts> {
        self.counts.clone()
    }

    /// Works until `stop` becomes true or the plane stops. Messages in hand are finished; others come again.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let count = self.settings.pollers.max(1);
        let ingress = Arc::new(self);
        let mut pollers = JoinSet::new();
        for _ in 0..count {
            pollers.spawn(ingress.clone().poll(stop.clone()));
        }
        while pollers.join_next().await.is_some() {}
    }

    async fn poll(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut pause = PAUSE.0;
        let mut ends = JoinSet::new();
        loop {
            while ends.try_join_next().is_some() {}
            if ends.len() >= ENDS_MAX {
                ends.join_next().await;
            }
            let received = tokio::select! {
                received = self.receive() => received,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let wait = match received {
                Ok(messages) => {
                    pause = PAUSE.0;
                    match self.take(messages, &mut ends).await {
                        Ok(wait) => wait,
                        Err(Busy::Stopped | Busy::Full) => return,
                    }
                }
                Err(what) => {
                    self.counts.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("receiving from {}: {what}; again in {pause:?}", self.settings.queue);
                    let wait = pause;
                    pause = (pause * 2).min(PAUSE.1);
                    Some(wait)
                }
            };
            if let Some(wait) = wait {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        }
    }

    async fn receive(&self) -> Result<Vec<Message>, String> {
        let request = self
            .client
            .receive_message()
            .queue_url(&self.settings.queue)
            .max_number_of_messages(RECEIVE_MAX)
            .wait_time_seconds(POLL_S)
            .visibility_timeout(seconds(self.settings.hidden));
        let output = request.send().await.map_err(|error| failure(&error).to_string())?;
        Ok(output.messages.unwrap_or_default())
    }

    /// Hands messages to the plane and does with each what its answer asks for. Gives a time to wait when all were turned
    /// away.
    async fn take(&self, messages: Vec<Message>, ends: &mut JoinSet<()>) -> Result<Option<Duration>, Busy> {
        let mut jobs: Vec<(Message, Box<Submission>)> = Vec::with_capacity(messages.len());
        self.counts.received.fetch_add(messages.len() as u64, Ordering::Relaxed);
        for message in messages {
            let id = message.message_id().unwrap_or_default();
            let body = message.body().unwrap_or_default().as_bytes();
            match submission(&self.parse, self.settings.tenant, &self.settings.queue, id, body) {
                Ok(submission) => jobs.push((message, submission)),
                Err(what) => {
                    self.counts.malformed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(message = id, "no job, left to the redrive policy: {what}");
                }
            }
        }
        if jobs.is_empty() {
            return Ok(None);
        }
        let answers = self.submit(&jobs, ends).await?;
        Ok(self.settle(jobs.iter().map(|(message, _)| message), &answers).await)
    }

    /// Submits until the plane answers; the messages stay hidden meanwhile.
    async fn submit(
        &self,
        jobs: &[(Message, Box<Submission>)],
        ends: &mut JoinSet<()>,
    ) -> Result<Vec<Answer>, Busy> {
        let mut renewal = tokio::time::interval(self.settings.hidden / 3);
        renewal.tick().await;
        let mut pause = Duration::from_millis(20);
        loop {
            let answering = self.answers(jobs, ends);
            tokio::pin!(answering);
            let result = loop {
                tokio::select! {
                    result = &mut answering => break result,
                    _ = renewal.tick() => self.hide(jobs).await,
                }
            };
            match result {
                Ok(answers) => return Ok(answers),
                Err(Busy::Stopped) => return Err(Busy::Stopped),
                Err(Busy::Full) => tokio::time::sleep(pause).await,
            }
            // It may be full for long: the next renewal is due on the way.
            pause = (pause * 2).min(self.settings.hidden / 4);
        }
    }

    async fn answers(
        &self,
        jobs: &[(Message, Box<Submission>)],
        ends: &mut JoinSet<()>,
    ) -> Result<Vec<Answer>, Busy> {
        let submissions = jobs.iter().map(|(_, submission)| submission.clone());
        let Some(results) = &self.settings.results else {
            return self.handle.submit_many(submissions.collect()).await;
        };
        let submitted = futures_util::future::join_all(submissions.map(|one| self.handle.submit(one, true)));
        let mut answers = Vec::with_capacity(jobs.len());
        for (submitted, (message, _)) in submitted.await.into_iter().zip(jobs) {
            let submitted = submitted?;
            if let (Answer::Accepted(_), Some(end)) = (&submitted.answer, submitted.end) {
                let (client, queue, counts) = (self.client.clone(), results.clone(), self.counts.clone());
                let id = message.message_id().unwrap_or_default().to_owned();
                ends.spawn(async move {
                    if let Ok(record) = end.await {
                        send_result(&client, &queue, &id, &record, &counts).await;
                    }
                });
            }
            answers.push(submitted.answer);
        }
        Ok(answers)
    }

    /// Deletes what is durable, hides what was turned away for as long as it was told.
    async fn settle<'a>(
        &self,
        messages: impl Iterator<Item = &'a Message>,
        answers: &[Answer],
    ) -> Option<Duration> {
        let (mut deletions, mut delays) = (Vec::new(), Vec::new());
        let mut wait: Option<Duration> = None;
        for (number, (message, answer)) in messages.zip(answers).enumerate() {
            let (id, receipt) = (number.to_string(), message.receipt_handle().unwrap_or_default());
            match Verdict::of(answer) {
                Verdict::Delete => {
                    let entry = DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(receipt);
                    deletions.extend(entry.build());
                }
                Verdict::Later(after) => {
                    let after = Duration::from_nanos(after.as_nanos());
                    wait = Some(wait.map_or(after, |wait| wait.min(after)).min(TURNED_AWAY_MAX));
                    let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                        .id(id)
                        .receipt_handle(receipt)
                        .visibility_timeout(seconds(after));
                    delays.extend(entry.build());
                }
                Verdict::Leave => {
                    self.counts.malformed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        self.counts.accepted.fetch_add(deletions.len() as u64, Ordering::Relaxed);
        self.counts.rejected.fetch_add(delays.len() as u64, Ordering::Relaxed);
        let is_all_turned_away = deletions.is_empty() && !delays.is_empty();
        // Where either fails the message comes again: its job is known then, or it is turned away once more.
        if !deletions.is_empty() {
            let request = self.client.delete_message_batch().queue_url(&self.settings.queue);
            if let Err(error) = request.set_entries(Some(deletions)).send().await {
                self.failed("deleting messages", &failure(&error).to_string());
            }
        }
        if !delays.is_empty() {
            self.set_hidden(delays).await;
        }
        wait.filter(|_| is_all_turned_away)
    }

    async fn hide(&self, jobs: &[(Message, Box<Submission>)]) {
        let entries = jobs.iter().enumerate().flat_map(|(number, (message, _))| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(message.receipt_handle().unwrap_or_default())
                .visibility_timeout(seconds(self.settings.hidden))
                .build()
        });
        self.set_hidden(entries.collect()).await;
    }

    async fn set_hidden(&self, entries: Vec<ChangeMessageVisibilityBatchRequestEntry>) {
        let request = self.client.change_message_visibility_batch().queue_url(&self.settings.queue);
        if let Err(error) = request.set_entries(Some(entries)).send().await {
            self.failed("hiding messages", &failure(&error).to_string());
        }
    }

    fn failed(&self, doing: &str, what: &str) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("{doing} of {}: {what}; they come again", self.settings.queue);
    }
}

fn seconds(time: Duration) -> i32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i32::try_from(seconds.min(HIDDEN_MAX_S)).unwrap_or(i32::MAX)
}

/// Tells the end of a job; given up after some tries, since the job's record is kept here anyway.
async fn send_result(client: &Client, queue: &str, message: &str, record: &JobRecord, counts: &SqsCounts) {
    let body = result_body(message, record).to_string();
    let mut pause = PAUSE.0;
    for _ in 0..8 {
        match client.send_message().queue_url(queue).message_body(&body).send().await {
            Ok(_) => {
                counts.results.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(error) => {
                counts.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("sending a result to {queue}: {}", failure(&error));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
    tracing::error!(job = %record.job, "the result was not sent to {queue}; it is in the plane's archive");
}

/// A result as JSON; one that is no JSON itself goes as base64.
fn result_body(message: &str, record: &JobRecord) -> serde_json::Value {
    let mut body = serde_json::json!({
        "message_id": message,
        "job": record.job.to_string(),
        "state": JobState::Ended(record.outcome).name(),
        "objects": record.objects,
    });
    let result = match serde_json::from_slice::<serde_json::Value>(&record.result) {
        Ok(result) => ("result", result),
        Err(_) if record.result.is_empty() => ("result", serde_json::Value::Null),
        Err(_) => ("result_base64", base64::engine::general_purpose::STANDARD.encode(&record.result).into()),
    };
    body[result.0] = result.1;
    body
}
