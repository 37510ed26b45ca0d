//! What a plane that stands by answers: that it lives, that it is not ready, and where the leader is. It holds nothing
//! and decides nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::Directory;
use super::seat::elsewhere;
use super::tail::Fit;
use crate::api::{Problem, health, route::Route};
use crate::number::JobNumber;

/// Connections at once; each has one request and is gone.
const CONNECTIONS_MAX: usize = 4096;

/// Time for a request and its answer.
const REQUEST_FOR: Duration = Duration::from_secs(10);

/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(50);

/// What the answers are made of.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) directory: Directory,
    /// The shard that requests without a job's id are sent to.
    pub(super) shard: u16,
    /// Shards in all.
    pub(super) shards: u16,
    /// This plane's own address.
    pub(super) url: String,
    /// How its scenario goes with the leader's.
    pub(super) fit: watch::Receiver<Fit>,
}

impl Door {
    /// Answers until it is aborted.
    pub(super) async fn run(self, listener: Arc<TcpListener>, tls: Option<TlsAcceptor>) {
        let (door, places) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        loop {
            let accepted: io::Result<(TcpStream, SocketAddr)> = listener.accept().await;
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (door, tls) = (door.clone(), tls.clone());
            tokio::spawn(async move {
                let serve = async {
                    match tls {
                        None => door.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                door.serve(stream).await;
                            }
                        }
                    }
                };
                let _ = tokio::time::timeout(REQUEST_FOR, serve).await;
                drop(place);
            });
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self: &Arc<Self>, stream: S) {
        let service = service_fn(|request: Request<Incoming>| {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let response = self.answer(request.uri().path(), path);
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        // One request a connection: the next one may find this plane leading.
        let mut settings = http1::Builder::new();
        settings.timer(TokioTimer::new()).header_read_timeout(REQUEST_FOR).keep_alive(false);
        let _ = settings.serve_connection(TokioIo::new(stream), service).await;
    }

    fn answer(&self, path: &str, path_and_query: &str) -> Response<Body> {
        let (route, id) = Route::of(path);
        match route {
            Route::Live => health::live(),
            Route::Ready => self.ready(),
            Route::Metrics | Route::Nothing => {
                let detail = "this plane stands by: it has no such thing";
                let remedy = "ask the leader, which /readyz names";
                let kind = if route == Route::Nothing { "no-such-path" } else { "stands-by" };
                let status = if route == Route::Nothing {
                    StatusCode::NOT_FOUND
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                Problem::new(status, kind, detail, remedy).into_response()
            }
            _ => {
                let job = id.parse::<JobNumber>().ok().map(JobNumber::shard);
                let shard = job.filter(|shard| *shard < self.shards).unwrap_or(self.shard);
                elsewhere(&self.directory, shard, path_and_query, &self.url).into_response()
            }
        }
    }

    fn ready(&self) -> Response<Body> {
        let mut text = match self.directory.leader(self.shard) {
            Some(leader) if leader.url == self.url => "not ready: about to lead\n".to_owned(),
            Some(leader) => {
                let Self { shard, .. } = self;
                format!("not ready: standing by; {} leads shard {shard} at {}\n", leader.holder, leader.url)
            }
            None => format!("not ready: standing by; nobody leads shard {}\n", self.shard),
        };
        if let Fit::Differs(how) = &*self.fit.borrow() {
            text += how;
            text.push('\n');
        }
        health::plain(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}
