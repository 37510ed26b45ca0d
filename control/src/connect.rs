//! The plane's side of a worker's connection: a WebSocket at `GET /v1/workers/connect`. It carries messages and watches that
//! both sides listen; what they mean is the plane's matter.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::command::{Command, SessionId};
use crate::protocol::{
    FromWorker, Hello, MESSAGE_BYTES_MAX, READ_BYTES, ToWorker, decode_from_worker, frames,
};
use crate::shell::Handle;

/// Path of the route.
pub const PATH: &str = "/v1/workers/connect";

/// Whether a join token opens the door; the empty one stands for none given.
pub type JoinCheck = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Messages taken from the plane's channel at once.
const TAKE_MAX: usize = 4096;

/// Times and limits of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectSettings {
    /// Time between two pings.
    pub ping: Duration,
    /// A connection on which nothing came for so long is dead; pings are answered by every worker that lives.
    pub silence: Duration,
    /// A worker has so long to say hello, and after the plane has ended its session to go.
    pub manners: Duration,
    /// A worker that takes nothing for so long is cut off.
    pub stuck: Duration,
    /// Messages that may wait for one worker; it is cut off beyond.
    pub waiting_max: usize,
    /// Connections at once.
    pub connections_max: usize,
}

impl Default for ConnectSettings {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(3),
            silence: Duration::from_secs(15),
            manners: Duration::from_secs(5),
            stuck: Duration::from_secs(10),
            waiting_max: 100_000,
            connections_max: 20_000,
        }
    }
}

#[derive(Clone)]
struct Door {
    handle: Handle,
    check: JoinCheck,
    settings: ConnectSettings,
    room: Arc<Semaphore>,
}

/// The route. The server that carries it should set `TCP_NODELAY`: messages are small, and gathered here.
pub fn router(handle: Handle, check: JoinCheck, settings: ConnectSettings) -> Router {
    let room = Arc::new(Semaphore::new(settings.connections_max));
    Router::new().route(PATH, get(connect)).with_state(Door { handle, check, settings, room })
}

async fn connect(State(door): State<Door>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("").trim();
    if !(door.check)(token) {
        let detail = "the join token is missing, wrong or revoked; \
                      make one with `headroom keys create --scope join` and give it as HEADROOM_JOIN";
        return problem(StatusCode::UNAUTHORIZED, "unauthorized", detail);
    }
    let Ok(permit) = door.room.clone().try_acquire_owned() else {
        let detail = "this plane has as many workers connected as it may";
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many workers", detail);
    };
    upgrade
        .read_buffer_size(READ_BYTES)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| converse(socket, door.handle, door.settings, permit))
}

fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
    let body = serde_json::json!({ "title": title, "status": status.as_u16(), "detail": detail });
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    let mut response = (status, kind, body.to_string()).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

/// Why a conversation ends, told in the closing frame.
enum End {
    /// The plane ended the session; all that it said was sent.
    Session,
    /// The worker went, or the network did.
    Gone,
    /// The worker broke the rules, or does not listen.
    Fault(&'static str, String),
    /// The plane has stopped.
    Stopped,
}

async fn converse(
    socket: WebSocket,
    handle: Handle,
    settings: ConnectSettings,
    permit: OwnedSemaphorePermit,
) {
    let (mut sink, mut stream) = socket.split();
    let end = match greeting(&mut stream, settings).await {
        Ok((hello, rest)) => match handle.attach().await {
            Ok((session, receiver)) => {
                let told = Told { handle: handle.clone(), session };
                let end = tokio::select! {
                    end = listen(&mut stream, &told, hello, rest, settings) => end,
                    end = speak(&mut sink, receiver, settings) => end,
                };
                let _ = handle.tell(Command::Disconnected { session }).await;
                end
            }
            Err(_) => End::Stopped,
        },
        Err(end) => end,
    };
    part(sink, stream, end, settings).await;
    drop(permit);
}

/// The first frame, which must begin with a hello.
async fn greeting(
    stream: &mut SplitStream<WebSocket>,
    settings: ConnectSettings,
) -> Result<(Box<Hello>, Vec<FromWorker>), End> {
    let first = async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Err(End::Fault("protocol", "text instead of binary".into()));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
            }
        }
    };
    let bytes = timeout(settings.manners, first)
        .await
        .map_err(|_| End::Fault("protocol", "no hello came in time".to_owned()))??;
    let mut messages =
        decode_from_worker(&bytes).map_err(|error| End::Fault("protocol", error.to_string()))?.into_iter();
    match messages.next() {
        Some(FromWorker::Hello(hello)) => Ok((hello, messages.collect())),
        _ => Err(End::Fault("protocol", "the first message must be a hello".to_owned())),
    }
}

/// Whose words these are.
struct Told {
    handle: Handle,
    session: SessionId,
}

impl Told {
    /// Hands a message to the plane.
    async fn tell(&self, message: FromWorker) -> Result<(), End> {
        let session = self.session;
        let command = match message {
            FromWorker::Hello(_) => {
                return Err(End::Fault("protocol", "a second hello on one connection".to_owned()));
            }
            FromWorker::Ready => Command::Ready { session },
            FromWorker::Beat { alive } => Command::Beat { session, alive },
            FromWorker::Progress { lease, job, done, of } => {
                self.handle.progress(session, lease, job, done, of);
                return Ok(());
            }
            FromWorker::Finished { lease, job, report } => Command::Finished { session, lease, job, report },
            FromWorker::Notice { seconds } => Command::Notice { session, seconds },
            FromWorker::Leaving => Command::Leaving { session },
        };
        self.handle.tell(command).await.map_err(|_| End::Stopped)
    }
}

/// Brings what the worker says to the plane, until it goes.
async fn listen(
    stream: &mut SplitStream<WebSocket>,
    told: &Told,
    hello: Box<Hello>,
    rest: Vec<FromWorker>,
    settings: ConnectSettings,
) -> End {
    let hello = Command::Hello { session: told.session, hello };
    if told.handle.tell(hello).await.is_err() {
        return End::Stopped;
    }
    let mut messages = rest;
    loop {
        for message in messages.drain(..) {
            if let Err(end) = told.tell(message).await {
                return end;
            }
        }
        match timeout(settings.silence, stream.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => match decode_from_worker(&bytes) {
                Ok(decoded) => messages = decoded,
                Err(error) => return End::Fault("protocol", error.to_string()),
            },
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Ok(Message::Text(_)))) => {
                return End::Fault("protocol", "text instead of binary".to_owned());
            }
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return End::Gone,
            Err(_) => return End::Fault("silence", "nothing was heard for too long".to_owned()),
        }
    }
}

/// Brings what the plane says to the worker, until the plane ends the session.
async fn speak(
    sink: &mut SplitSink<WebSocket, Message>,
    mut receiver: mpsc::UnboundedReceiver<ToWorker>,
    settings: ConnectSettings,
) -> End {
    let mut waiting = Vec::new();
    let mut ping = tokio::time::interval(settings.ping);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        waiting.clear();
        let frames = tokio::select! {
            biased;
            count = receiver.recv_many(&mut waiting, TAKE_MAX) => {
                if count == 0 {
                    return End::Session;
                }
                // The plane says what it has to say in one go: let it come to the end.
                tokio::task::yield_now().await;
                while waiting.len() < TAKE_MAX
                    && let Ok(message) = receiver.try_recv()
                {
                    waiting.push(message);
                }
                frames(&waiting).into_iter().map(|frame| Message::Binary(frame.into())).collect()
            }
            _ = ping.tick() => vec![Message::Ping(Default::default())],
        };
        let send = async {
            for frame in frames {
                sink.feed(frame).await?;
            }
            sink.flush().await
        };
        match timeout(settings.stuck, send).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Gone,
            Err(_) => return End::Fault("stuck", "the worker takes nothing".to_owned()),
        }
        if receiver.len() > settings.waiting_max {
            return End::Fault("stuck", "too much waits for the worker".to_owned());
        }
    }
}

/// Says why, and waits a moment for the worker to go: what was sent to it must not be lost in a reset.
async fn part(
    mut sink: SplitSink<WebSocket, Message>,
    mut stream: SplitStream<WebSocket>,
    end: End,
    settings: ConnectSettings,
) {
    let (code, reason) = match end {
        End::Gone => return,
        End::Session => (close_code::NORMAL, "the session is over".to_owned()),
        End::Stopped => (close_code::AWAY, "the plane has stopped".to_owned()),
        End::Fault(kind, why) => {
            tracing::warn!(kind, "a worker was cut off: {why}");
            (close_code::POLICY, why)
        }
    };
    let reason: String = reason.chars().take(60).collect();
    let leave = async {
        let frame = CloseFrame { code, reason: reason.into() };
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _ = timeout(settings.manners, leave).await;
}
