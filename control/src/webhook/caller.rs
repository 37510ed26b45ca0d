//! One call of a receiver: over TLS that is verified, to an address that was checked, without redirects and proxies.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};

use super::address::is_allowed;
use super::schedule::retry_after;

/// Time to connect, within the time of the call.
const CONNECT_FOR: Duration = Duration::from_secs(10);

/// Idle connections are kept so long.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// Of an answer's body so much is read, to use the connection again; beyond, it is closed.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It may work another time, at the earliest after what the receiver asked for.
    Failed { why: String, retry_after: Option<Duration> },
    /// It will never work.
    Hopeless(String),
}

impl Outcome {
    /// Why the receiver does not have it, if it does not.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Self::Delivered => None,
            Self::Failed { why, .. } | Self::Hopeless(why) => Some(why.clone()),
        }
    }
}

/// Finds the addresses of a name.
pub(super) type Lookup =
    Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync>;

/// The system's resolver.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// Calls receivers.
#[derive(Clone)]
pub(super) struct Caller {
    client: Client,
    allow_private: bool,
}

/// Checks every address that a name has, each time a connection is made: what was checked is what is connected to.
struct Checked {
    lookup: Lookup,
    allow_private: bool,
}

/// An address that must not be called.
#[derive(Debug, thiserror::Error)]
#[error("{0} is an address that webhooks may not call")]
struct Forbidden(IpAddr);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, allow_private) = ((self.lookup)(name.as_str().to_owned()), self.allow_private);
        Box::pin(async move {
            let found = found.await?;
            if let Some(wrong) = found.iter().find(|address| !is_allowed(**address, allow_private)) {
                return Err(Forbidden(*wrong).into());
            }
            // Port 0 stands for the port of the URL.
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

impl Caller {
    /// A caller that gives up after `timeout`. `authorities` is a PEM file of certificates that are trusted besides the
    /// public ones.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub(super) fn new(
        lookup: Lookup,
        allow_private: bool,
        timeout: Duration,
        authorities: Option<&Path>,
    ) -> io::Result<Self> {
        let client = Client::builder()
            .use_preconfigured_tls(tls(authorities)?)
            .dns_resolver(Arc::new(Checked { lookup, allow_private }))
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_FOR)
            .timeout(timeout)
            .pool_idle_timeout(IDLE_FOR)
            .user_agent(concat!("headroom/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { client, allow_private })
    }

    /// Posts a body with the headers of Standard Webhooks.
    pub(super) async fn post(&self, url: &str, headers: [(&str, String); 3], body: Vec<u8>) -> Outcome {
        let Ok(url) = Url::parse(url) else {
            return Outcome::Hopeless("it is no URL".to_owned());
        };
        // A literal address asks no resolver; the URL's parser has made plain what it was written as.
        if let Some(address) = literal(&url)
            && !is_allowed(address, self.allow_private)
        {
            return Outcome::Hopeless(Forbidden(address).to_string());
        }
        let mut request = self.client.post(url).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let failed = |why| Outcome::Failed { why, retry_after: None };
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return failed(causes(&error.without_url())),
        };
        let (status, asked) = (response.status(), asked(&response));
        let mut read = 0;
        while read <= ANSWER_BYTES_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            read += chunk.len();
        }
        match status {
            _ if status.is_success() => Outcome::Delivered,
            StatusCode::GONE => Outcome::Hopeless("the receiver answered 410 Gone".to_owned()),
            _ => Outcome::Failed { why: format!("the receiver answered {status}"), retry_after: asked },
        }
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

fn asked(response: &reqwest::Response) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    retry_after(value, Timestamp::now())
}

/// An error with what caused it; the innermost says most.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn tls(authorities: Option<&Path>) -> io::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = authorities {
        let mut file = io::BufReader::new(std::fs::File::open(path)?);
        for certificate in rustls_pemfile::certs(&mut file) {
            roots.add(certificate?).map_err(io::Error::other)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(versions.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// A receiver that gives one answer to everybody, and counts connections.
    async fn receiver(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        (address, count)
    }

    fn caller(lookup: Lookup, allow_private: bool) -> Caller {
        Caller::new(lookup, allow_private, TIMEOUT, None).expect("a caller")
    }

    async fn call(caller: &Caller, url: &str) -> Outcome {
        let headers = [("webhook-id", "msg".to_owned()), ("webhook-timestamp", "1".to_owned())];
        let [one, two] = headers;
        caller.post(url, [one, two, ("webhook-signature", "v1,".to_owned())], b"{}".to_vec()).await
    }

    #[tokio::test]
    async fn only_2xx_is_success() {
        let private = caller(system_lookup(), true);
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some(Outcome::Delivered)),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some(Outcome::Delivered)),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", None),
            ("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", None),
            ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", None),
            ("nonsense", None),
        ] {
            let (address, _) = receiver(answer).await;
            let outcome = call(&private, &format!("http://{address}/")).await;
            match expected {
                Some(expected) => assert_eq!(outcome, expected, "{answer}"),
                None => assert!(matches!(outcome, Outcome::Failed { .. }), "{answer}: {outcome:?}"),
            }
        }
        let (gone, _) = receiver("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(call(&private, &format!("http://{gone}/")).await, Outcome::Hopeless(_)));
        let (busy, _) = receiver("HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n").await;
        let Outcome::Failed { retry_after, .. } = call(&private, &format!("http://{busy}/")).await else {
            panic!("429 is no success");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let (target, count) = receiver("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let answer = format!("HTTP/1.1 307 Go\r\nlocation: http://{target}/\r\ncontent-length: 0\r\n\r\n");
        let (address, _) = receiver(answer.leak()).await;
        let outcome = call(&caller(system_lookup(), true), &format!("http://{address}/")).await;
        assert!(matches!(outcome, Outcome::Failed { .. }));
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn silent_receivers_are_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let hasty = Caller::new(system_lookup(), true, Duration::from_millis(200), None).expect("a caller");
        let outcome = call(&hasty, &format!("http://{address}/")).await;
        assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    }

    /// However a private address is written, no connection is made to it.
    #[tokio::test]
    async fn private_addresses_are_never_called() {
        let (address, count) = receiver("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let port = address.port();
        let public = caller(system_lookup(), false);
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "127.0.0.1%2e",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[::127.0.0.1]",
            "0.0.0.0",
            "0",
            "[::]",
            "169.254.169.254",
            "[::ffff:169.254.169.254]",
            "[fd00:ec2::254]",
            "10.0.0.1",
            "[fe80::1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
        ] {
            let outcome = call(&public, &format!("http://{host}:{port}/")).await;
            assert_ne!(outcome, Outcome::Delivered, "{host}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 0, "somebody got through");
        for url in ["file:///etc/passwd", "ftp://127.0.0.1/", "nonsense", ""] {
            assert_ne!(call(&public, url).await, Outcome::Delivered, "{url}");
        }
        let metadata = call(&caller(system_lookup(), true), "http://169.254.169.254/latest/meta-data").await;
        assert!(matches!(metadata, Outcome::Hopeless(_)), "not even where private addresses are allowed");
    }

    /// A name that turns from a public address to a private one is checked at each connection, and one private address
    /// among public ones is enough to refuse.
    #[tokio::test]
    async fn names_that_turn_are_caught() {
        let (address, count) = receiver("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let lookups = Arc::new(AtomicUsize::new(0));
        let counted = lookups.clone();
        let turning: Lookup = Arc::new(move |_| {
            let turn = counted.fetch_add(1, Ordering::SeqCst);
            // The first answer is in a network for documentation's neighbour: public by number, but nobody is there.
            let found: Vec<IpAddr> = match turn {
                0 => vec![IpAddr::from([127, 0, 0, 1])],
                _ => vec![IpAddr::from([93, 184, 215, 14]), IpAddr::from([127, 0, 0, 1])],
            };
            Box::pin(async move { Ok(found) })
        });
        let public = caller(turning, false);
        for _ in 0..2 {
            let url = format!("http://turning.example:{}/", address.port());
            let Outcome::Failed { why, .. } = call(&public, &url).await else { panic!("it was called") };
            assert!(why.contains("may not call"), "{why}");
        }
        assert_eq!((lookups.load(Ordering::SeqCst), count.load(Ordering::SeqCst)), (2, 0));
    }

    /// The address that was checked is the one that is called: nobody resolves a second time.
    #[tokio::test]
    async fn checked_address_is_the_called_one() {
        let (address, count) =
            receiver("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        let lookups = Arc::new(AtomicUsize::new(0));
        let counted = lookups.clone();
        let fixed: Lookup = Arc::new(move |name| {
            assert_eq!(name, "receiver.example");
            counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
        });
        let private = caller(fixed, true);
        let outcome = call(&private, &format!("http://receiver.example:{}/", address.port())).await;
        assert_eq!(outcome, Outcome::Delivered);
        assert_eq!((lookups.load(Ordering::SeqCst), count.load(Ordering::SeqCst)), (1, 1));
    }
}
