//! An HTTP client by hand: it can break off, stall and repeat itself wherever a test wants.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::house::SOON;

/// Anything to talk over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// One connection.
pub(crate) struct Client {
    wire: BufReader<Box<dyn Wire>>,
    pub(crate) token: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A server-sent event.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<u32>,
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks that this is a problem of some status and kind, with a detail and a remedy.
    pub(crate) fn is_problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:headroom:problem:{kind}"));
        assert_eq!(problem["status"], status);
        for member in ["title", "detail", "remedy"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        problem
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        Self::over(Box::new(stream))
    }

    pub(crate) fn over(wire: Box<dyn Wire>) -> Self {
        Self { wire: BufReader::new(wire), token: None }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.ask("GET", path, &[], "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Reply {
        self.ask("POST", path, &[], body).await
    }

    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        self.send(method, path, headers, body).await;
        self.reply(method).await
    }

    pub(crate) async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        if let Some(token) = &self.token {
            text.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if method != "GET" && method != "HEAD" {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.raw(format!("{text}\r\n{body}").as_bytes()).await;
    }

    /// Says whatever a test wants; a server that hangs up meanwhile is no error yet.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.wire.get_mut().write_all(bytes).await;
        let _ = self.wire.get_mut().flush().await;
    }

    /// Says no more.
    pub(crate) async fn hang_up(&mut self) {
        let _ = self.wire.get_mut().shutdown().await;
    }

    pub(crate) async fn reply(&mut self, method: &str) -> Reply {
        let read = async {
            let (status, headers) = self.head().await.expect("an answer");
            let mut reply = Reply { status, headers, body: Vec::new() };
            if method == "HEAD" || status == 204 {
            } else if reply.header("transfer-encoding") == Some("chunked") {
                while let Some(chunk) = self.chunk().await {
                    reply.body.extend_from_slice(&chunk);
                }
            } else if let Some(length) = reply.header("content-length") {
                let length = length.parse().expect("a length");
                reply.body.resize(length, 0);
                self.wire.read_exact(&mut reply.body).await.expect("a whole body");
            }
            reply
        };
        timeout(SOON, read).await.expect("an answer in time")
    }

    /// Whether the server has hung up; what it said before is given back.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        let _ = timeout(SOON, self.wire.read_to_end(&mut said)).await.expect("the server hangs up in time");
        said
    }

    /// Begins a stream of events.
    pub(crate) async fn stream(&mut self, path: &str, last: Option<u32>) {
        let last = last.map(|id| id.to_string());
        let headers: Vec<(&str, &str)> = last.iter().map(|id| ("last-event-id", id.as_str())).collect();
        self.send("GET", path, &headers, "").await;
        let head = timeout(SOON, self.head()).await.expect("an answer in time");
        let (status, headers) = head.expect("an answer");
        assert_eq!(status, 200);
        assert!(headers.contains(&("content-type".to_owned(), "text/event-stream".to_owned())));
    }

    /// The next event; `None` at the end of the stream. Events come one to a chunk.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            let chunk = timeout(SOON, self.chunk()).await.expect("an event in time")?;
            let text = String::from_utf8(chunk).expect("text");
            let mut event = Event::default();
            for line in text.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => event.id = id.parse().ok(),
                    Some(("event", name)) => event.name = name.to_owned(),
                    Some(("data", data)) => event.data.push_str(data),
                    _ => {}
                }
            }
            if !event.name.is_empty() {
                return Some(event);
            }
        }
    }

    async fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some((status, headers));
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line().await?, 16).ok()?;
        let mut chunk = vec![0; length + 2];
        self.wire.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.wire.read_line(&mut line).await {
            Ok(count) if count > 0 => Some(line.trim_end_matches("\r\n").to_owned()),
            _ => None,
        }
    }
}
