//! A worker's connection to its plane: TCP or TLS, then a WebSocket. It carries frames and knows nothing of what they say.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, HeaderValue, LOCATION};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::connect::PATH;
use crate::protocol::{MESSAGE_BYTES_MAX, READ_BYTES};

/// From the first packet to the open WebSocket.
const CONNECT_FOR: Duration = Duration::from_secs(10);

/// A connection that carries frames.
pub(super) type Link = WebSocketStream<Wire>;

/// Where a plane is, or several of which one leads, and the right to join it. Copies share which of them is meant now.
#[derive(Clone)]
pub struct Address {
    planes: Arc<Planes>,
    tls: Option<Arc<rustls::ClientConfig>>,
    join_token: String,
}

/// Planes of which one leads.
struct Planes {
    listed: Vec<Plane>,
    /// The one to try now, and the place in the list of the one to try next.
    current: Mutex<(Plane, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Plane {
    host: String,
    port: u16,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url())
    }
}

/// An address that names no plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL of a plane.
    #[error("`{url}` is no plane's address; give one like http://127.0.0.1:8080 or https://plane.example")]
    Url { url: String },
    /// Not a token.
    #[error("the join token has characters that no token has; copy it again from `headroom keys create`")]
    Token,
    /// The certificates cannot be used.
    #[error("the certificates of `{file}` cannot be used: {why}")]
    Certificates { file: String, why: String },
}

impl Address {
    /// The plane at `url`, or several separated by commas, all with TLS or all without. A TLS connection trusts the public
    /// authorities, or those in the PEM file `authority` alone.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn new(
        url: &str,
        join_token: &str,
        authority: Option<&std::path::Path>,
    ) -> Result<Self, AddressError> {
        let wrong = |url: &str| AddressError::Url { url: url.to_owned() };
        let parse = |url: &str| parse(url).ok_or_else(|| wrong(url));
        let listed: Vec<(bool, Plane)> =
            url.split(',').map(str::trim).map(parse).collect::<Result<_, _>>()?;
        let is_tls = listed[0].0;
        if listed.iter().any(|other| other.0 != is_tls) {
            return Err(wrong(url));
        }
        HeaderValue::from_str(join_token).map_err(|_| AddressError::Token)?;
        let tls = if is_tls { Some(Arc::new(tls_config(authority)?)) } else { None };
        let listed: Vec<Plane> = listed.into_iter().map(|(_, plane)| plane).collect();
        let current = Mutex::new((listed[0].clone(), 1));
        Ok(Self { planes: Arc::new(Planes { listed, current }), tls, join_token: join_token.to_owned() })
    }

    /// URL of the plane that is meant now, without a slash at the end.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let Plane { host, port } = self.plane();
        format!("{scheme}://{host}:{port}")
    }

    fn plane(&self) -> Plane {
        self.planes.current.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Means the next plane of the list from now on.
    pub(super) fn turn(&self) {
        let mut current = self.planes.current.lock().unwrap_or_else(PoisonError::into_inner);
        let next = current.1 % self.planes.listed.len();
        *current = (self.planes.listed[next].clone(), next + 1);
    }

    /// Means the plane that a redirect names, if that is as safe as the list; false if not.
    fn follow(&self, location: &str) -> bool {
        let Some((is_tls, plane)) = parse(location.strip_suffix(PATH).unwrap_or(location)) else {
            return false;
        };
        if is_tls != self.tls.is_some() {
            return false;
        }
        self.planes.current.lock().unwrap_or_else(PoisonError::into_inner).0 = plane;
        true
    }

    /// Whether there are several planes to try.
    pub(super) fn is_several(&self) -> bool {
        self.planes.listed.len() > 1
    }

    /// What secures connections to it.
    pub fn tls(&self) -> Option<&Arc<rustls::ClientConfig>> {
        self.tls.as_ref()
    }

    /// A client for the plane's other routes, that trusts what this address trusts.
    ///
    /// # Errors
    /// When the system gives none.
    pub(super) fn client(&self) -> Result<reqwest::Client, reqwest::Error> {
        match &self.tls {
            Some(tls) => client(tls.as_ref().clone()),
            None => plain_client(),
        }
    }

    /// The right to join.
    pub fn join_token(&self) -> &str {
        &self.join_token
    }
}

/// Whether a plane's URL has TLS, and where it is; none if it names no plane.
fn parse(url: &str) -> Option<(bool, Plane)> {
    let uri: Uri = url.trim_end_matches('/').parse().ok()?;
    let is_tls = match uri.scheme_str() {
        Some("http" | "ws") => false,
        Some("https" | "wss") => true,
        _ => return None,
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return None;
    }
    let host = uri.host().filter(|host| !host.is_empty())?.to_owned();
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    Some((is_tls, Plane { host, port }))
}

/// A TLS configuration with ring, whatever else the process uses.
fn tls_config(authority: Option<&std::path::Path>) -> Result<rustls::ClientConfig, AddressError> {
    let wrong = |why: String| {
        let file = authority.map_or_else(String::new, |path| path.display().to_string());
        AddressError::Certificates { file, why }
    };
    let mut roots = rustls::RootCertStore::empty();
    match authority {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("there is none in it".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// An HTTP client that trusts the public authorities.
pub(crate) fn plain_client() -> Result<reqwest::Client, reqwest::Error> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions");
    client(config.with_root_certificates(roots).with_no_client_auth())
}

fn client(tls: rustls::ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().use_preconfigured_tls(tls).connect_timeout(CONNECT_FOR).no_proxy().build()
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum LinkError {
    /// The plane was reached and does not let this worker in.
    Denied(String),
    /// It may be different in a moment.
    Later(String),
    /// Another plane leads, which the address means from now on.
    Elsewhere(String),
}

/// Connects once.
pub(super) async fn connect(address: &Address) -> Result<Link, LinkError> {
    match tokio::time::timeout(CONNECT_FOR, try_connect(address)).await {
        Ok(result) => result,
        Err(_) => Err(LinkError::Later(format!("no answer within {CONNECT_FOR:?}"))),
    }
}

async fn try_connect(address: &Address) -> Result<Link, LinkError> {
    let later = |error: io::Error| LinkError::Later(error.to_string());
    let Plane { host, port } = address.plane();
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(later)?;
    stream.set_nodelay(true).map_err(later)?;
    let wire = match &address.tls {
        None => Wire::Plain(stream),
        Some(config) => {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|error| LinkError::Denied(error.to_string()))?;
            let connector = TlsConnector::from(config.clone());
            Wire::Tls(Box::new(connector.connect(name, stream).await.map_err(later)?))
        }
    };
    let url = format!("ws://{host}:{port}{PATH}");
    let mut request = url.into_client_request().map_err(|error| LinkError::Denied(error.to_string()))?;
    if !address.join_token.is_empty() {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", address.join_token));
        request
            .headers_mut()
            .insert(AUTHORIZATION, bearer.map_err(|error| LinkError::Denied(error.to_string()))?);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    match client_async_with_config(request, wire, Some(config)).await {
        Ok((link, _)) => Ok(link),
        Err(WsError::Http(response)) => {
            let status = response.status();
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            if let Some(location) = location.filter(|_| status.as_u16() == 307)
                && address.follow(location)
            {
                return Err(LinkError::Elsewhere(address.url()));
            }
            let body = response.body().as_deref().unwrap_or_default();
            let detail = serde_json::from_slice::<serde_json::Value>(body).ok();
            let detail = detail.and_then(|body| body.get("detail")?.as_str().map(str::to_owned));
            let why = detail.unwrap_or_else(|| format!("it answered {status}"));
            Err(if matches!(status.as_u16(), 401 | 403) {
                LinkError::Denied(why)
            } else {
                LinkError::Later(why)
            })
        }
        Err(error) => Err(LinkError::Later(error.to_string())),
    }
}

/// TCP, or TLS over it.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_of_planes() {
        let check = |url: &str, expected: Option<&str>| {
            let address = Address::new(url, "token", None);
            assert_eq!(address.as_ref().map(Address::url).ok().as_deref(), expected, "{url}: {address:?}");
        };
        check("http://127.0.0.1:8080", Some("http://127.0.0.1:8080"));
        check("http://127.0.0.1:8080/", Some("http://127.0.0.1:8080"));
        check("ws://plane", Some("http://plane:80"));
        check("https://plane.example", Some("https://plane.example:443"));
        check("http://[::1]:9", Some("http://[::1]:9"));
        for wrong in ["127.0.0.1:8080", "plane", "ftp://plane", "http://plane/v1", "http://plane?x=1", ""] {
            check(wrong, None);
        }
        assert_eq!(Address::new("http://plane", "a\nb", None).err(), Some(AddressError::Token));
    }

    #[test]
    fn several_planes_are_tried_in_turn_and_redirects_are_followed() {
        let address = Address::new("http://a:1, http://b:2/,http://c:3", "", None).expect("an address");
        let turned = || {
            address.turn();
            address.url()
        };
        assert_eq!(address.url(), "http://a:1");
        assert_eq!([turned(), turned(), turned()], ["http://b:2", "http://c:3", "http://a:1"]);
        assert!(address.follow("http://d:4/v1/workers/connect"));
        assert_eq!(address.url(), "http://d:4");
        assert_eq!(turned(), "http://b:2", "then the list goes on");
        for wrong in ["https://d:4/v1/workers/connect", "/v1/workers/connect", "http://d:4/elsewhere", "d"] {
            assert!(!address.follow(wrong), "{wrong}");
        }
        assert_eq!(address.url(), "http://b:2");
        assert!(Address::new("http://a,https://b", "", None).is_err(), "a token must not leave TLS");
        assert!(Address::new("http://a,", "", None).is_err());
    }
}
