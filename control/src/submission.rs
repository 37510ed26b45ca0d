//! What a client hands in, as it is kept until the job ends.

use policy::model::{ClassId, RegionId};
use policy::units::Duration;
use serde::{Deserialize, Serialize};

/// Longest payload, bytes; larger inputs are objects.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Longest result given back inline, bytes; larger results are objects.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;

/// Input or output objects that one job may name.
pub const OBJECTS_MAX: usize = 32;

/// Number of the key that submitted; jobs are seen by their own tenant and by operators.
pub type TenantId = u32;

/// A job as submitted. Everything that a decision depends on is in it, so that replay decides alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// Who submitted.
    pub tenant: TenantId,
    /// Jobs that the tenant may have in the system at once, this one included.
    pub tenant_jobs_max: u32,
    /// Class, which gives priority and deadline where the two below are `None`.
    pub class: ClassId,
    /// Region of the client.
    pub region: RegionId,
    /// 0 is served first; at most 7.
    pub priority: Option<u8>,
    /// Time in the system after which the job is worth nothing.
    pub deadline: Option<Duration>,
    /// What the worker gets: JSON as text, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: Box<[u8]>,
    /// Keys of input objects, at most [`OBJECTS_MAX`].
    pub inputs: Vec<String>,
    /// Makes repeated submissions one job.
    pub idempotency: Option<Idempotency>,
    /// Where the end is announced.
    pub webhook: Option<String>,
    /// W3C trace context of the submitter.
    pub traceparent: Option<String>,
}

/// The same key with the same body is the same job; with another body it is a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// First 128 bits of SHA-256 over tenant and key.
    pub key: u128,
    /// First 64 bits of SHA-256 over the body.
    pub body: u64,
}
