//! A worker that says whatever a test wants: frames by hand.

use control::connect::PATH;
use control::protocol::{FromWorker, Hello, PROTOCOL_VERSION, ToWorker, decode_to_worker, encode};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::house::{House, JOIN, SOON};

/// A connection by hand.
pub(crate) struct Raw(WebSocketStream<MaybeTlsStream<TcpStream>>, Vec<ToWorker>);

pub(crate) fn hello(name: &str) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        name: name.to_owned(),
        pool: "gpu".to_owned(),
        launch: None,
        slots: 4,
        models: Vec::new(),
        device: "a test".to_owned(),
        leases: Vec::new(),
    }
}

impl Raw {
    /// Opens the WebSocket, with a join token or without.
    pub(crate) async fn open(house: &House, token: Option<&str>) -> Result<Self, Error> {
        let mut request = format!("ws://{}{PATH}", house.address).into_client_request()?;
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a header");
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        connect_async(request).await.map(|(socket, _)| Self(socket, Vec::new()))
    }

    /// Joins and is ready.
    pub(crate) async fn join(house: &House, hello: Hello) -> Self {
        let mut raw = Self::open(house, Some(JOIN)).await.expect("the door opens");
        raw.say(&[FromWorker::Hello(Box::new(hello)), FromWorker::Ready]).await;
        raw
    }

    pub(crate) async fn say(&mut self, messages: &[FromWorker]) {
        self.send(Message::Binary(encode(messages).into())).await;
    }

    /// Sends; a door that is closing may refuse.
    pub(crate) async fn send(&mut self, message: Message) {
        let _ = self.0.send(message).await;
    }

    /// The next message of the plane that `pick` takes; `None` when the connection ends before.
    pub(crate) async fn hear<T>(&mut self, mut pick: impl FnMut(&ToWorker) -> Option<T>) -> Option<T> {
        let listen = async {
            loop {
                while !self.1.is_empty() {
                    if let Some(found) = pick(&self.1.remove(0)) {
                        return Some(found);
                    }
                }
                match self.0.next().await {
                    Some(Ok(Message::Binary(bytes))) => self.1 = decode_to_worker(&bytes).expect("a list"),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout(SOON, listen).await.expect("the plane speaks or closes")
    }

    /// Waits for the end of the connection; gives the reason.
    pub(crate) async fn reason(&mut self) -> String {
        let listen = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(frame))) => {
                        return frame.map_or_else(String::new, |frame| frame.reason.to_string());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error.to_string(),
                    None => return String::new(),
                }
            }
        };
        tokio::time::timeout(SOON, listen).await.expect("the connection ends")
    }
}
