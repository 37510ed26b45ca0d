//! A cable that somebody pulls: TCP passed on, until chance cuts or stalls it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use policy::units::random::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It lives.
    Whole,
    /// Cut after so many bytes to the plane.
    CutThere { after: u64 },
    /// Cut after so many bytes from the plane.
    CutBack { after: u64 },
    /// Cut after a time.
    CutAt { after: Duration },
    /// Nothing passes any more after a time, and only later is it cut: as if the cable were pulled.
    Stalls { after: Duration, until: Duration },
}

/// Draws the fate of a connection by its number.
pub(crate) type Draw = fn(Stream, u64) -> Fate;

/// A way to the plane.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listening: tokio::task::JoinHandle<()>,
}

struct Shared {
    plane: SocketAddr,
    draw: Draw,
    chance: Stream,
    is_calm: AtomicBool,
    connections: AtomicU64,
    /// Cut before the client's words were through, before the plane's were, at a time, after a stall.
    cuts: [AtomicU64; 4],
}

impl Proxy {
    /// Listens. `name` sets its chance apart from others'.
    pub(crate) async fn start(plane: SocketAddr, name: &'static str, draw: Draw) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            plane,
            draw,
            chance: Stream::new(11, 0, name),
            is_calm: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            cuts: Default::default(),
        });
        let shares = shared.clone();
        let listening = tokio::spawn(async move {
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(shares.clone(), client));
                }
            }
        });
        Self { address, shared, listening }
    }

    /// From now on new connections live.
    pub(crate) fn calm_down(&self) {
        self.shared.is_calm.store(true, Ordering::Relaxed);
    }

    pub(crate) fn cuts(&self) -> [u64; 4] {
        std::array::from_fn(|kind| self.shared.cuts[kind].load(Ordering::Relaxed))
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn pass(shared: Arc<Shared>, client: TcpStream) {
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    let fate = match shared.is_calm.load(Ordering::Relaxed) {
        true => Fate::Whole,
        false => (shared.draw)(shared.chance, number),
    };
    let Ok(plane) = TcpStream::connect(shared.plane).await else { return };
    let _ = (client.set_nodelay(true), plane.set_nodelay(true));
    // Half of the cuts are resets.
    let is_reset = number.is_multiple_of(2) && !matches!(fate, Fate::Whole);
    if is_reset {
        let _ = (client.set_zero_linger(), plane.set_zero_linger());
    }
    let ((from_client, to_client), (from_plane, to_plane)) = (client.into_split(), plane.into_split());
    let (there, back) = match fate {
        Fate::CutThere { after } => (after, u64::MAX),
        Fate::CutBack { after } => (u64::MAX, after),
        Fate::Whole | Fate::CutAt { .. } | Fate::Stalls { .. } => (u64::MAX, u64::MAX),
    };
    // The streams are dropped at the end, all four halves at once.
    let (mut there, mut back) = (
        Half { from: from_client, to: to_plane, left: there },
        Half { from: from_plane, to: to_client, left: back },
    );
    let copied = async {
        tokio::select! {
            is_cut = there.copy() => is_cut.then_some(0),
            is_cut = back.copy() => is_cut.then_some(1),
        }
    };
    let cut = match fate {
        Fate::CutAt { after } => tokio::time::timeout(after, copied).await.unwrap_or(Some(2)),
        Fate::Stalls { after, until } => match tokio::time::timeout(after, copied).await {
            Ok(cut) => cut,
            Err(_) => {
                tokio::time::sleep(until.saturating_sub(after)).await;
                Some(3)
            }
        },
        Fate::Whole | Fate::CutThere { .. } | Fate::CutBack { .. } => copied.await,
    };
    if let Some(kind) = cut {
        shared.cuts[kind].fetch_add(1, Ordering::Relaxed);
    }
}

/// One direction.
struct Half {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// Bytes that may still pass.
    left: u64,
}

impl Half {
    /// Passes on what comes, until an end closes or nothing more may pass: then true.
    async fn copy(&mut self) -> bool {
        let mut buffer = vec![0; 16 << 10];
        while self.left > 0 {
            let Ok(count @ 1..) = self.from.read(&mut buffer).await else { return false };
            let count = (count as u64).min(self.left) as usize;
            self.left -= count as u64;
            if self.to.write_all(&buffer[..count]).await.is_err() {
                return false;
            }
        }
        true
    }
}
