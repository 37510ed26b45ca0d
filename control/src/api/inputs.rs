//! Whose the inputs of a job are: nobody has a worker read what belongs to others.

use axum::http::StatusCode;

use super::Api;
use super::problem::Problem;
use super::view::Found;
use crate::objects::{Key, Owner};
use crate::submission::Submission;

/// Asks that every input is one that the job's tenant uploaded, or an output of one of its jobs.
///
/// # Errors
/// 422 that names the input.
pub(crate) async fn check(api: &Api, submission: &Submission) -> Result<(), Problem> {
    for text in &submission.inputs {
        let key = Key::parse(text).map_err(|error| wrong(error.to_string(), submission))?;
        let tenant = match key.owner() {
            Owner::Tenant(tenant) => Some(tenant),
            Owner::Job(job) => match api.find(job, Some(submission.tenant)).await {
                Ok(Found::Live(view)) => Some(view.tenant),
                Ok(Found::Ended(record)) => Some(record.tenant),
                Err(problem) if problem.status == StatusCode::NOT_FOUND => None,
                Err(problem) => return Err(problem),
            },
        };
        if tenant != Some(submission.tenant) {
            return Err(wrong(format!("the input `{key}` is not this key's"), submission));
        }
    }
    Ok(())
}

fn wrong(detail: String, submission: &Submission) -> Problem {
    let remedy = format!(
        "name objects uploaded to `inputs/{}/...`, or outputs of own jobs, `outputs/<job>/...`",
        submission.tenant
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-submission", detail, remedy)
}
