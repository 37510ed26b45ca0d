//! The job API over HTTP: what clients, operators and monitoring ask of a plane.
//!
//! Read [`route`] first: every request goes through its one function. Nothing here decides or keeps anything: questions
//! and orders go to the plane by its [`Handle`], and an answer that promises something is sent after the commit.

mod audit;
mod batch;
mod body;
mod counters;
mod events;
mod exporter;
mod guarded;
pub(crate) mod health;
mod histogram;
mod inputs;
mod jobs;
pub mod key_file;
pub mod keys;
mod listing;
mod machines;
mod names;
pub mod openapi;
mod operate;
mod problem;
mod rate;
pub(crate) mod route;
mod server;
pub mod submission;
pub(crate) mod tls;
mod view;
mod wait;

pub use audit::{Entry as AuditEntry, write as write_audit};
pub use key_file::{KeyEntry, KeyFileError, KeyWish, create, revoke};
pub use keys::{Caller, KeyRing, Scope};
pub use names::{Calendar, Names};
pub use problem::Problem;
pub(crate) use problem::ProblemBody;
pub(crate) use server::check_openness;
pub use server::{Server, serve};
pub use tls::TlsFiles;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::ha::Seat;
use crate::shell::{Busy, Handle};

/// How a server is set up.
#[derive(Clone)]
pub struct ApiSettings {
    /// Where to listen. Without keys it must be an address of this machine alone.
    pub listen: SocketAddr,
    /// The data folder: the audit log is written here.
    pub folder: PathBuf,
    /// Keys; shared with those who check workers' tokens.
    pub keys: Arc<KeyRing>,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// The plane's clock.
    pub clock: Clock,
    /// Bounds on what clients may do.
    pub limits: Limits,
}

/// Bounds on what clients may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// Time for the head of a request, and for which a connection may be idle.
    pub head_patience: Duration,
    /// Time for the body of a request.
    pub body_patience: Duration,
    /// Time for which a client may take nothing of an answer.
    pub write_patience: Duration,
    /// Time for a TLS handshake.
    pub handshake_patience: Duration,
    /// Time for an answer of the plane.
    pub plane_patience: Duration,
    /// Time between the shutdown's begin, when the server says that it is not ready, and the end of accepting.
    pub lame_duck: Duration,
    /// Time for requests in flight at shutdown.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 8192,
            head_patience: Duration::from_secs(30),
            body_patience: Duration::from_secs(20),
            write_patience: Duration::from_secs(30),
            handshake_patience: Duration::from_secs(10),
            plane_patience: Duration::from_secs(30),
            lame_duck: Duration::ZERO,
            grace: Duration::from_secs(10),
        }
    }
}

/// What all requests share.
pub(crate) struct Api {
    handle: Handle,
    names: Arc<RwLock<Arc<Names>>>,
    keys: Arc<KeyRing>,
    counters: Arc<counters::Counters>,
    exporter: prometheus_client::registry::Registry,
    audit: audit::Audit,
    calendar: names::Calendar,
    limits: Limits,
    draining: watch::Receiver<bool>,
    /// Where this plane is one of several.
    seat: Option<Seat>,
    workers: Option<axum::Router>,
    objects: Option<axum::Router>,
}

/// Returns when the server begins to stop.
async fn drained(draining: &mut watch::Receiver<bool>) {
    // An error is a server that is gone: that is an end, too.
    let _ = draining.wait_for(|is_draining| *is_draining).await;
}

impl Api {
    fn names(&self) -> Arc<Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn rename(&self, names: Names) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        self.keys.caller(headers).inspect_err(|problem| self.counters.turned_away(problem.status))
    }

    /// Whether this plane may answer at all.
    fn leads(&self) -> Result<(), Problem> {
        self.seat.as_ref().map_or(Ok(()), Seat::leads)
    }

    /// Whether requests for a tenant's or a job's shard are answered here.
    fn answers_for(
        &self,
        shard: impl FnOnce(&Seat) -> Option<u16>,
        uri: &axum::http::Uri,
    ) -> Result<(), Problem> {
        let Some(seat) = &self.seat else { return Ok(()) };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        shard(seat).map_or(Ok(()), |shard| seat.answers_for(shard, path))
    }

    /// Whether jobs can be accepted now.
    fn takes_jobs(&self) -> Result<(), Problem> {
        if *self.draining.borrow() {
            return Err(Problem::draining());
        }
        self.commits()
    }

    /// Whether the journal takes commits. While it does not, the plane looks up nothing either: its state is ahead of what
    /// is durable.
    fn commits(&self) -> Result<(), Problem> {
        if self.handle.shared().is_writable.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(Problem::not_writable())
        }
    }

    /// What the plane answers, if it does in time.
    async fn patiently<T>(&self, answer: impl Future<Output = Result<T, Busy>>) -> Result<T, Problem> {
        match tokio::time::timeout(self.limits.plane_patience, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Problem::silent()),
        }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.exporter);
        text
    }
}
