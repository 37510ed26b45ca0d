//! Connections: accepted, secured, bounded, and ended in good order. What they ask is answered by [`super::route`].

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::audit::Audit;
use super::counters::Counters;
use super::guarded::Guarded;
use super::keys::KeyRing;
use super::names::{Calendar, Names};
use super::tls::Certificate;
use super::{Api, ApiSettings, drained, exporter, route};
use crate::ha::Seat;
use crate::shell::Handle;

/// Longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Headers of a request at most.
const HEADERS_MAX: usize = 64;

/// Time between two looks at the files of keys and certificates.
const FILES_EVERY: Duration = Duration::from_secs(1);

/// Time between two rounds of counting what ended. Looking now and then spares a wake-up per job.
const COUNT_EVERY: Duration = Duration::from_millis(50);

/// Pause after a failed accept: mostly there are too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Said to a connection above the limit.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/problem+json\r\ncontent-length: 154\r\n\r\n\
    {\"type\":\"urn:headroom:problem:connections\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"too many connections\",\"remedy\":\"use fewer, and keep them\"}";

/// A server that listens, and answers nothing yet.
pub struct Server {
    listener: Arc<TcpListener>,
    certificate: Option<Arc<Certificate>>,
    api: Api,
    draining: watch::Sender<bool>,
}

/// Binds and serves until `shutdown` completes and the requests in flight are answered.
///
/// # Errors
/// As [`Server::bind`].
pub async fn serve(
    settings: ApiSettings,
    handle: Handle,
    names: Names,
    workers: Option<axum::Router>,
    objects: Option<axum::Router>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let server = Server::bind(settings, handle, names, workers, objects).await?;
    server.run(shutdown).await;
    Ok(())
}

impl Server {
    /// Listens. Requests under `/v1/workers/` and `/v1/objects/` go to the two routers, which check keys themselves
    /// ([`super::KeyRing::allows`], [`super::KeyRing::caller`]).
    ///
    /// # Errors
    /// When the address cannot be bound, is not of this machine alone although there are no keys, or when files of
    /// certificates or of the audit log cannot be opened.
    pub async fn bind(
        settings: ApiSettings,
        handle: Handle,
        names: Names,
        workers: Option<axum::Router>,
        objects: Option<axum::Router>,
    ) -> io::Result<Self> {
        check_openness(&settings.keys, settings.listen)?;
        let listener = TcpListener::bind(settings.listen).await?;
        Self::on(Arc::new(listener), None, settings, handle, names, [workers, objects])
    }

    /// The same on a socket that listens already, in a leader's seat.
    pub(crate) fn on(
        listener: Arc<TcpListener>,
        seat: Option<Seat>,
        settings: ApiSettings,
        handle: Handle,
        names: Names,
        [workers, objects]: [Option<axum::Router>; 2],
    ) -> io::Result<Self> {
        check_openness(&settings.keys, settings.listen)?;
        if settings.keys.is_open() {
            tracing::warn!("there are no keys: every program on this machine may do everything");
        }
        let certificate = settings.tls.map(Certificate::open).transpose().map_err(io::Error::other)?;
        let (draining, is_draining) = watch::channel(false);
        let (names, counters) = (Arc::new(RwLock::new(Arc::new(names))), Arc::new(Counters::default()));
        let audit = Audit::start(&settings.folder)?;
        let exporter = exporter::registry(handle.clone(), counters.clone(), names.clone(), audit.clone());
        let api = Api {
            handle,
            names,
            keys: settings.keys,
            counters,
            exporter,
            audit,
            calendar: Calendar::new(settings.clock),
            limits: settings.limits,
            draining: is_draining,
            seat,
            workers,
            objects,
        };
        Ok(Self { listener, certificate, api, draining })
    }

    /// Where it listens; tells the port where 0 was asked for.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes; then says that it is not ready, accepts no more, ends streams and long polls,
    /// and gives requests in flight their time.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, certificate, api, draining } = self;
        let api = Arc::new(api);
        let limits = api.limits;
        let places = Arc::new(Semaphore::new(limits.connections_max));
        let tls = certificate.as_ref().map(|certificate| TlsAcceptor::from(certificate.config()));
        let background =
            [tokio::spawn(watch_files(api.clone(), certificate)), tokio::spawn(count_rows(api.clone()))];
        {
            let stop = async {
                shutdown.await;
                let _ = draining.send(true);
                tokio::time::sleep(limits.lame_duck).await;
            };
            tokio::pin!(stop);
            loop {
                tokio::select! {
                    () = &mut stop => break,
                    accepted = listener.accept() => accept(accepted, &api, tls.as_ref(), &places).await,
                }
            }
        }
        drop(listener);
        let all = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
        if tokio::time::timeout(limits.grace, places.acquire_many(all)).await.is_err() {
            let left = limits.connections_max - places.available_permits();
            tracing::warn!("{left} connections did not end in time and are cut off");
        }
        for task in background {
            task.abort();
        }
    }
}

/// Whether a server with these keys may listen there: without any, for this machine alone.
pub(crate) fn check_openness(keys: &KeyRing, listen: SocketAddr) -> io::Result<()> {
    if !keys.is_open() || listen.ip().is_loopback() {
        return Ok(());
    }
    let what = format!(
        "without keys everything is open, so `{listen}` must be an address of this machine alone, like \
         127.0.0.1:{}; make a key with `headroom keys create` to listen to others",
        listen.port()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

async fn accept(
    accepted: io::Result<(TcpStream, SocketAddr)>,
    api: &Arc<Api>,
    tls: Option<&TlsAcceptor>,
    places: &Arc<Semaphore>,
) {
    let (stream, peer) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!("a connection was not accepted: {error}");
            return tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    };
    let Ok(place) = places.clone().try_acquire_owned() else {
        api.counters.connections_refused.fetch_add(1, Relaxed);
        if tls.is_none() {
            refuse(stream);
        }
        return;
    };
    let _ = stream.set_nodelay(true);
    let (api, tls) = (api.clone(), tls.cloned());
    tokio::spawn(async move {
        api.counters.connections.fetch_add(1, Relaxed);
        let stream = Guarded::new(stream, api.limits.write_patience);
        match tls {
            None => connection(&api, stream, peer).await,
            Some(tls) => {
                match tokio::time::timeout(api.limits.handshake_patience, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(&api, stream, peer).await,
                    Ok(Err(_)) | Err(_) => {
                        api.counters.handshakes_failed.fetch_add(1, Relaxed);
                    }
                }
            }
        }
        api.counters.connections.fetch_sub(1, Relaxed);
        drop(place);
    });
}

/// Says no to a connection, if it can be said at once.
fn refuse(mut stream: TcpStream) {
    tokio::spawn(async move {
        let say = async {
            let _ = stream.write_all(TOO_MANY).await;
            let _ = stream.shutdown().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), say).await;
    });
}

async fn connection<S>(api: &Arc<Api>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let api = api.clone();
        async move { Ok::<_, std::convert::Infallible>(route::answer(api, peer, request).await) }
    });
    let mut settings = http1::Builder::new();
    settings
        .timer(TokioTimer::new())
        .header_read_timeout(api.limits.head_patience)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .pipeline_flush(true);
    let connection = settings.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let mut draining = api.draining.clone();
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = drained(&mut draining) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // A kept connection may be told for as long as the lame duck lives that this server is not ready.
            let _ = tokio::time::timeout(api.limits.lame_duck, connection.as_mut()).await;
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(api.limits.grace, connection.as_mut()).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, "a connection ended: {error}");
    }
}

/// Reads keys and certificates again when their files change.
async fn watch_files(api: Arc<Api>, certificate: Option<Arc<Certificate>>) {
    let mut said = [String::new(), String::new()];
    loop {
        tokio::time::sleep(FILES_EVERY).await;
        let (keys, certificate) = (api.keys.clone(), certificate.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let keys = keys.refresh().map_err(|error| error.to_string());
            let certificate =
                certificate.map_or(Ok(false), |one| one.refresh().map_err(|error| error.to_string()));
            [keys, certificate]
        });
        let Ok(results) = looked.await else { continue };
        for ((what, result), said) in ["keys", "certificates"].into_iter().zip(results).zip(&mut said) {
            match result {
                Ok(true) => {
                    said.clear();
                    tracing::info!("{what} were read again");
                }
                Ok(false) => {}
                Err(error) if *said == error => {}
                Err(error) => {
                    tracing::error!("{what} stay as they were: {error}");
                    *said = error;
                }
            }
        }
    }
}

/// Counts what ended.
async fn count_rows(api: Arc<Api>) {
    let mut rows = api.handle.shared().rows();
    loop {
        match rows.try_recv() {
            Ok(row) => api.counters.row(&row),
            Err(TryRecvError::Lagged(count)) => {
                api.counters.rows_lost.fetch_add(count, Relaxed);
            }
            Err(TryRecvError::Empty) => tokio::time::sleep(COUNT_EVERY).await,
            Err(TryRecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_states_its_own_length() {
        let text = std::str::from_utf8(TOO_MANY).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let stated = format!("content-length: {}", body.len());
        assert!(head.lines().any(|line| line == stated), "{stated}");
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
