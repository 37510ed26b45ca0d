//! Several jobs in one request: accepted with one commit, answered in order, each with a status of its own.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::Serialize;

use super::body;
use super::jobs::refusal;
use super::keys::Scope;
use super::problem::{Problem, ProblemBody};
use super::route::Ask;
use super::submission::{BATCH_BYTES_MAX, dress, parse_batch};
use super::view::{self, JobBody};
use crate::effect::Answer;

/// Answers to a batch, in the order of its jobs.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = BatchAnswer)]
pub(crate) struct BatchBody<'a> {
    /// One for each job.
    jobs: Vec<ItemBody<'a>>,
}

/// Answer to one job of a batch.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = BatchItem)]
pub(crate) struct ItemBody<'a> {
    /// The status that the job would have got alone: 202, 413, 422 or 429.
    status: u16,
    /// Whether the job was accepted before, under the same idempotency key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    /// The job, if it is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<JobBody<'a>>,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ProblemBody<'a>>,
}

/// `POST /v1/jobs/batch`
#[utoipa::path(
    post, path = "/v1/jobs/batch", tag = "jobs",
    request_body = Vec<super::submission::SubmissionBody>,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Counts for each job of the batch by its place: a repeated batch is the same jobs")),
    responses(
        (status = 200, description = "An answer to each job, in order; accepted ones are durable", body = BatchBody),
        (status = 400, description = "No array of 1 to 256 jobs", body = ProblemBody),
        (status = 413, description = "More than 4 MiB", body = ProblemBody),
        (status = 503, description = "Not now; see Retry-After", body = ProblemBody)),
)]
pub(crate) async fn submit(ask: Ask<'_>) -> Result<Response<Body>, Problem> {
    let Ask { api, caller, mut parts, body, .. } = ask;
    caller.needs(Scope::Submit)?;
    api.takes_jobs()?;
    let bytes = body::read(&parts.headers, body, BATCH_BYTES_MAX, api.limits.body_patience).await?;
    let names = api.names();
    let items = parse_batch(&bytes, &names)?;
    // One request was paid for with the key; the others follow, as a debt if need be.
    caller.owe(items.len() as u32 - 1);
    let key = parts.headers.remove("idempotency-key");
    let tenant = (caller.tenant(), caller.jobs_max());
    let mut submissions = Vec::with_capacity(items.len());
    let mut parsed = Vec::with_capacity(items.len());
    for (place, (text, item)) in items.into_iter().enumerate() {
        if let Some(key) = &key {
            let mut own = key.as_bytes().to_vec();
            own.extend_from_slice(format!("#{place}").as_bytes());
            let own =
                own.try_into().map_err(|_| Problem::invalid("an unusable Idempotency-Key", "use ASCII"))?;
            parts.headers.insert("idempotency-key", own);
        }
        let mut dressed = item.and_then(|mut submission| {
            dress(&mut submission, tenant, &parts.headers, text.as_bytes()).map(|()| submission)
        });
        if let Ok(submission) = &dressed
            && let Err(problem) = super::inputs::check(api, submission).await
        {
            dressed = Err(problem);
        }
        parsed.push(dressed.map(|submission| {
            let class = submission.class;
            submissions.push(submission);
            class
        }));
    }
    let answers = api.patiently(api.handle.submit_many(submissions)).await?;
    let mut answers = answers.into_iter();
    let outcomes = parsed.into_iter().map(|parsed| {
        parsed.and_then(|class| {
            let answer = answers.next().ok_or_else(Problem::silent)?;
            api.counters.submitted(class, &answer);
            match answer {
                Answer::Accepted(job) => Ok((job, class, false)),
                Answer::Known(job) => Ok((job, class, true)),
                other => Err(refusal(&other)),
            }
        })
    });
    let outcomes: Vec<_> = outcomes.collect();
    let jobs = outcomes.iter().map(|outcome| match outcome {
        Ok((job, class, replayed)) => {
            let class = names.classes.get(class.index()).map_or("", String::as_str);
            let job = Some(view::accepted(*job, class));
            ItemBody { status: StatusCode::ACCEPTED.as_u16(), replayed: *replayed, job, problem: None }
        }
        Err(problem) => {
            let status = problem.status.as_u16();
            ItemBody { status, replayed: false, job: None, problem: Some(problem.body()) }
        }
    });
    Ok(body::json(StatusCode::OK, &BatchBody { jobs: jobs.collect() }))
}
