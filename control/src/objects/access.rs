//! Who may do what with an object.

use axum::http::{HeaderMap, StatusCode, header};

use super::Objects;
use super::key::{Key, Owner};
use crate::api::{Caller, Problem, Scope};
use crate::number::JobNumber;
use crate::submission::TenantId;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Who {
    /// Who has a key.
    Key(Caller),
    /// A worker that the plane launched.
    Worker,
}

/// What somebody wants to do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Read,
    Write,
    Remove,
}

impl Objects {
    /// Who sends a request with these headers.
    pub(super) fn who(&self, headers: &HeaderMap) -> Result<Who, Problem> {
        match self.0.keys.caller(headers) {
            Ok(caller) => Ok(Who::Key(caller)),
            Err(problem) if problem.status == StatusCode::UNAUTHORIZED => {
                let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
                let token = value.and_then(|value| value.strip_prefix("Bearer ")).map_or("", str::trim);
                if (self.0.join)(token) { Ok(Who::Worker) } else { Err(problem) }
            }
            Err(problem) => Err(problem),
        }
    }

    /// Whether `who` may have its wish. Tenants upload, read and remove inputs of their own, and read and remove
    /// outputs of their own jobs; workers read everything and write outputs; operators read everything.
    pub(super) async fn allow(&self, who: &Who, key: &Key, wish: Wish) -> Result<(), Problem> {
        let caller = match (who, wish, key.owner()) {
            (Who::Key(caller), ..) => caller,
            (Who::Worker, Wish::Read, _) | (Who::Worker, Wish::Write, Owner::Job(_)) => return Ok(()),
            (Who::Worker, ..) => {
                let detail = format!("workers write outputs only, and `{key}` is none");
                let remedy = "write to `outputs/<job>/...`";
                return Err(Problem::new(StatusCode::FORBIDDEN, "scope", detail, remedy));
            }
        };
        let is_worker = caller.has(Scope::Join);
        match (wish, key.owner()) {
            (Wish::Read, _) if is_worker || caller.has(Scope::Operate) => Ok(()),
            (Wish::Write, Owner::Job(_)) if is_worker => Ok(()),
            (Wish::Write, Owner::Job(_)) => {
                let detail = format!("only workers write outputs, and `{key}` is one");
                let remedy = "upload inputs to `inputs/<tenant>/...`; workers use a key of scope `join`";
                Err(Problem::new(StatusCode::FORBIDDEN, "scope", detail, remedy))
            }
            (Wish::Write, Owner::Tenant(tenant)) => {
                caller.needs(Scope::Submit)?;
                if tenant == caller.tenant() {
                    return Ok(());
                }
                let detail = format!("`{key}` belongs to tenant {tenant}, this key to {}", caller.tenant());
                let remedy = format!("upload to `inputs/{}/...`", caller.tenant());
                Err(Problem::new(StatusCode::FORBIDDEN, "other-tenant", detail, remedy))
            }
            (Wish::Read | Wish::Remove, owner) => {
                if wish == Wish::Remove || !caller.has(Scope::Read) {
                    caller.needs(Scope::Submit)?;
                }
                let tenant = match owner {
                    Owner::Tenant(tenant) => Some(tenant),
                    Owner::Job(job) => self.tenant_of(job).await?,
                };
                // Whether somebody else has such an object is nobody's business.
                if tenant == Some(caller.tenant()) { Ok(()) } else { Err(no_object(key)) }
            }
        }
    }

    /// Whose a job is, in the system or ended.
    pub(super) async fn tenant_of(&self, job: JobNumber) -> Result<Option<TenantId>, Problem> {
        if let Some(view) = self.0.handle.job(job).await? {
            return Ok(Some(view.tenant));
        }
        Ok(self.0.handle.ended(job).await?.map(|record| record.tenant))
    }

    /// Whether an object may be written now, whoever may: outputs only while their job is in the system, so that what a
    /// job has given never changes.
    pub(super) async fn is_open(&self, key: &Key) -> Result<(), Problem> {
        let Owner::Job(job) = key.owner() else { return Ok(()) };
        if self.0.handle.job(job).await?.is_some() {
            return Ok(());
        }
        let detail = format!("{job} is not in the system: its outputs are what they are");
        let remedy = "drop the work; the job has ended, or never was";
        Err(Problem::new(StatusCode::CONFLICT, "job-ended", detail, remedy))
    }
}

/// There is no such object, or none for this key.
pub(super) fn no_object(key: &Key) -> Problem {
    let detail = format!("there is no object `{key}` for this key");
    let remedy =
        "check the name; outputs are there once the worker has written them, and are not kept for ever";
    Problem::new(StatusCode::NOT_FOUND, "no-such-object", detail, remedy)
}
