//! Jobs that come from queues. A queue is a way in, not the book: a message is deleted once its job is durable here, and
//! its id is the idempotency key, so that a message delivered twice is one job.

#[cfg(feature = "aws")]
pub mod sqs;

use std::sync::Arc;

use policy::units::Duration;
use sha2::{Digest, Sha256};

use crate::api::{self, Names};
use crate::effect::Answer;
use crate::submission::{Idempotency, Submission, TenantId};

/// Reads the body of a message as the API reads that of `POST /v1/jobs`; the error says what is wrong with it.
pub type Parse = Arc<dyn Fn(&[u8]) -> Result<Box<Submission>, String> + Send + Sync>;

/// Reads bodies as the API does, by the plane's names.
pub fn parse_by(names: Names) -> Parse {
    Arc::new(move |body| {
        api::submission::parse(body, &names)
            .map_err(|problem| format!("{}; {}", problem.detail, problem.remedy))
    })
}

/// Whose jobs they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Number of the key that the jobs are booked to.
    pub id: TenantId,
    /// Jobs that it may have in the system at once.
    pub jobs_max: u32,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its job is durable: it is deleted.
    Delete,
    /// It comes again after this time.
    Later(Duration),
    /// It is left to the queue's redrive policy.
    Leave,
}

impl Verdict {
    /// What an answer makes of the message.
    pub fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Accepted(_) | Answer::Known(_) => Self::Delete,
            Answer::Rejected { retry_after, .. } => Self::Later(*retry_after),
            Answer::OtherBody(_)
            | Answer::Cancelled
            | Answer::NotRunning
            | Answer::Reloaded
            | Answer::NotReloaded(_) => Self::Leave,
        }
    }
}

/// Reads a message as a job of `tenant`, named by the message's id in its queue.
///
/// # Errors
/// What is wrong with the body.
pub fn submission(
    parse: &Parse,
    tenant: Tenant,
    queue: &str,
    id: &str,
    body: &[u8],
) -> Result<Box<Submission>, String> {
    let mut submission = parse(body)?;
    submission.tenant = tenant.id;
    submission.tenant_jobs_max = tenant.jobs_max;
    submission.idempotency = Some(idempotency(tenant.id, queue, id, body));
    Ok(submission)
}

fn idempotency(tenant: TenantId, queue: &str, id: &str, body: &[u8]) -> Idempotency {
    let mut name = Sha256::new();
    // Lengths keep the parts apart, and the first word keeps these keys apart from those that clients choose.
    for part in [b"queue".as_slice(), &tenant.to_be_bytes(), queue.as_bytes(), id.as_bytes()] {
        name.update((part.len() as u64).to_be_bytes());
        name.update(part);
    }
    let (name, body) = (name.finalize(), Sha256::digest(body));
    let mut key = [0_u8; 16];
    key.copy_from_slice(&name[..16]);
    let mut digest = [0_u8; 8];
    digest.copy_from_slice(&body[..8]);
    Idempotency { key: u128::from_be_bytes(key), body: u64::from_be_bytes(digest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Refusal;
    use crate::number::JobNumber;

    #[test]
    fn message_id_names_the_job() {
        let key = |queue: &str, id: &str, body: &str| idempotency(1, queue, id, body.as_bytes());
        assert_eq!(key("q", "a", "{}"), key("q", "a", "{}"));
        assert_eq!(key("q", "a", "{}").key, key("q", "a", "{ }").key);
        assert_ne!(key("q", "a", "{}").body, key("q", "a", "{ }").body);
        assert_ne!(key("q", "ab", "{}").key, key("qa", "b", "{}").key);
    }

    #[test]
    fn only_durable_jobs_are_deleted_from_the_queue() {
        let job = JobNumber::new(0, 1);
        let retry_after = Duration::from_secs(7);
        let rejected = Answer::Rejected { why: Refusal::QueueFull, retry_after };
        for (answer, expected) in [
            (Answer::Accepted(job), Verdict::Delete),
            (Answer::Known(job), Verdict::Delete),
            (rejected, Verdict::Later(retry_after)),
            (Answer::OtherBody(job), Verdict::Leave),
        ] {
            assert_eq!(Verdict::of(&answer), expected);
        }
    }
}
