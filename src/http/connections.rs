//! The connections: how many there are, how long a client may take, and how they end with the service.
//!
//! A connection over a bound is answered once, with the name of the bound, and closed; beyond a hundred of those at a time
//! they are closed without an answer. `open_connections.rs` says which connections close to make room first.
//!
//! A connection that sends nothing takes no buffers: hyper gets it with its first byte, and it ends after ten seconds without
//! one. A request's head must be complete within the client's time from its first byte, else the connection is closed without
//! an answer; its body has the same time again. Between two requests a connection may be idle for the keep-alive time. A client
//! that takes nothing of an answer for the client's time is cut off as well.
//!
//! A request that changes something goes on to its end when its client hangs up, so that its answer is saved for the next
//! request under the same `Idempotency-Key`.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use axum::serve::{Listener, ListenerExt};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::connection_io::Noted;
use super::error::Code;
use super::observe;
use super::open_connections::{Bound, Busy, Connection, OpenConnections, Opened, Patience};
use super::open_files::{ADMIN_CONNECTIONS_MAX, within_open_files};
use super::origin::{self, AddressRequests, OpenRequest};
use super::passing_body::PassingBody;
use super::problem::Problem;
use crate::config;

/// The most bytes of a request's head; beyond that, and beyond a hundred fields, hyper answers 431.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How long a connection may stay without a first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections the system keeps until they are accepted; Linux cuts it to net.core.somaxconn.
const BACKLOG: u32 = 4_096;
/// How many connections over a bound may be answered at a time.
const REFUSED_AT_ONCE: usize = 100;
/// What they may take to send a head.
const REFUSED_IN: Duration = Duration::from_secs(2);

/// What the clients of one instance may take together and each.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at once.
    pub connections: u32,
    /// Most of them of one address, and most requests under way of one address behind trusted proxies; 0 for no limit.
    pub per_address: u32,
    /// What a client may take to send a head, and then a body.
    pub patience: Duration,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
}

impl Limits {
    /// Those of the admin listener. Its connections are counted apart, so that a crowd of buyers keeps no operator out.
    pub fn of_admin(settings: &config::Http) -> Self {
        let all = Self::of(settings);
        Self { connections: all.connections.min(ADMIN_CONNECTIONS_MAX), ..all }
    }

    /// Those of the settings.
    pub fn of(settings: &config::Http) -> Self {
        Self {
            connections: settings.max_connections,
            per_address: settings.max_connections_per_address,
            patience: Duration::from_secs(settings.client_seconds.into()),
            keep_alive: Duration::from_secs(settings.keep_alive_seconds.into()),
        }
    }

    fn times(self) -> Patience {
        let first_byte = FIRST_BYTE_TIMEOUT.min(self.patience);
        Patience { first_byte, head: self.patience, keep_alive: self.keep_alive }
    }
}

/// How long a client may take with the body of a request.
#[derive(Clone, Copy, Debug)]
pub struct BodyTime {
    /// Until when it must be whole.
    pub until: Instant,
    /// How long that was when the head had come.
    pub whole: Duration,
}

/// Listens on this address; to be called in a runtime.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers requests until `stop` is cancelled, and those under way to their end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    proxies: Vec<IpNet>,
    stop: CancellationToken,
) {
    let limits = Limits { connections: within_open_files(limits.connections), ..limits };
    let mut listener = listener.tap_io(move |stream| {
        if let Err(error) = prepare(stream, limits.patience) {
            tracing::debug!(%error, "a connection does without some of its settings");
        }
    });
    let entrance = Arc::new(Entrance::new(router, limits, proxies, stop.clone()));
    let open = GracefulShutdown::new();
    while let Some((stream, peer)) = stop.run_until_cancelled(listener.accept()).await {
        match entrance.all.admit(entrance.counted(peer.ip())) {
            Ok(opened) => {
                tokio::spawn(attend(Arc::clone(&entrance), stream, peer, opened, open.watcher()));
            }
            Err(bound) => entrance.refuse(bound, stream, open.watcher()),
        }
    }
    // Nothing new is let in.
    drop(listener);
    open.shutdown().await;
    entrance.changes.close();
    entrance.changes.wait().await;
}

/// What all connections of one listener share.
struct Entrance {
    router: Router,
    limits: Limits,
    proxies: Vec<IpNet>,
    all: OpenConnections,
    /// Requests under way of each address behind a trusted proxy.
    requests: AddressRequests,
    /// Requests that change something.
    changes: TaskTracker,
    http: http1::Builder,
    refused: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Entrance {
    fn new(router: Router, limits: Limits, proxies: Vec<IpNet>, stop: CancellationToken) -> Self {
        let mut http = http1::Builder::new();
        // The times are kept by `Connection`, which distinguishes a slow head from a connection that is idle.
        http.header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX);
        Self {
            router,
            limits,
            proxies,
            all: OpenConnections::new(limits.connections as usize, limits.per_address),
            requests: AddressRequests::new(limits.per_address),
            changes: TaskTracker::new(),
            http,
            refused: Arc::new(Semaphore::new(REFUSED_AT_ONCE)),
            stop,
        }
    }

    /// Who is counted for a connection: its peer, unless that is a trusted proxy.
    fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        (!origin::is_trusted(&self.proxies, peer)).then(|| origin::network(peer))
    }

    /// Answers once that the connection is over a bound.
    fn refuse(&self, bound: Bound, stream: TcpStream, watcher: Watcher) {
        metrics::counter!("boxoffice_http_connections_refused_total").increment(1);
        let Ok(place) = Arc::clone(&self.refused).try_acquire_owned() else { return };
        let limits = self.limits;
        let refusal = observe::surround(Router::new().fallback(async move || too_many(bound, limits)));
        let mut http = self.http.clone();
        http.keep_alive(false);
        let wait = REFUSED_IN.min(limits.patience);
        let times = Patience { first_byte: wait, head: wait, keep_alive: wait };
        tokio::spawn(async move {
            let _place = place;
            let connection = Connection::uncounted();
            let service = service_fn(move |request: Request<Incoming>| refusal.clone().oneshot(request));
            let io = TokioIo::new(Noted { stream, connection: Arc::clone(&connection) });
            until_too_late(watcher.watch(http.serve_connection(io, service)), &connection, times).await;
        });
    }
}

fn too_many(bound: Bound, limits: Limits) -> Problem {
    let (most, code, whose, name) = match bound {
        Bound::All => {
            (limits.connections, Code::Unavailable, "to this instance", "BOXOFFICE_MAX_CONNECTIONS")
        }
        Bound::Address => (
            limits.per_address,
            Code::RateLimited,
            "of this address",
            "BOXOFFICE_MAX_CONNECTIONS_PER_ADDRESS",
        ),
    };
    let detail = format!(
        "{most} connections {whose} are open, and no more are allowed ({name}). \
         Try again soon, or ask another instance."
    );
    Problem::new(code, detail).with("limit", most)
}

/// Waits for the first byte of a connection, then serves it to its end. What serving needs is on the heap from then on: a
/// connection that sends nothing takes about a kilobyte.
async fn attend(
    entrance: Arc<Entrance>,
    stream: TcpStream,
    peer: SocketAddr,
    opened: Opened,
    watcher: Watcher,
) {
    let connection = Arc::clone(&opened.connection);
    let times = entrance.limits.times();
    // A socket may be said to be readable although nothing has come.
    let mut first = [0];
    tokio::select! {
        peeked = timeout(times.first_byte, stream.peek(&mut first)) => match peeked {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => return,
        },
        () = connection.evicted() => return,
        () = entrance.stop.cancelled() => return,
    }
    Box::pin(serve_one(entrance, stream, peer, connection, watcher)).await;
}

async fn serve_one(
    entrance: Arc<Entrance>,
    stream: TcpStream,
    peer: SocketAddr,
    connection: Arc<Connection>,
    watcher: Watcher,
) {
    let times = entrance.limits.times();
    let (shared, serving) = (Arc::clone(&entrance), Arc::clone(&connection));
    let service = service_fn(move |request| answer(Arc::clone(&shared), Arc::clone(&serving), request, peer));
    let io = TokioIo::new(Noted { stream, connection: Arc::clone(&connection) });
    let served = watcher.watch(entrance.http.serve_connection(io, service));
    tokio::select! {
        () = until_too_late(served, &connection, times) => {}
        () = connection.evicted() => tracing::debug!(%peer, "a connection closed to make room"),
    }
}

/// Drives a connection to its end, or until it takes too long between two requests.
async fn until_too_late<E: std::fmt::Display>(
    served: impl Future<Output = Result<(), E>>,
    connection: &Connection,
    times: Patience,
) {
    let mut served = pin!(served);
    let mut timer = pin!(sleep_until(Instant::now() + times.first_byte));
    poll_fn(|context| {
        if let Poll::Ready(result) = served.as_mut().poll(context) {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection ended early");
            }
            return Poll::Ready(());
        }
        // All that moves this time happens while the connection is polled.
        let Some(closes_at) = connection.closes_at(times) else { return Poll::Pending };
        if timer.deadline() != closes_at {
            timer.as_mut().reset(closes_at);
        }
        timer.as_mut().poll(context)
    })
    .await;
}

/// The body of an answer; its request is under way until the last of it is sent.
type Answered = PassingBody<(Busy, Option<OpenRequest>)>;

async fn answer(
    entrance: Arc<Entrance>,
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
) -> io::Result<Response<Answered>> {
    let closed = || io::Error::other("the connection closes to make room");
    let busy = entrance.all.begin(&connection).ok_or_else(closed)?;
    let patience = entrance.limits.patience;
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(BodyTime { until: Instant::now() + patience, whole: patience });
    let from = origin::forwarded(peer.ip(), request.headers(), &entrance.proxies);
    let (open, response) = match from.map(|from| entrance.requests.begin(from)).transpose() {
        Ok(open) => (open, respond(&entrance, request).await?),
        Err(most) => {
            let refusal = observe::surround(Router::new().fallback(async move || too_many_requests(most)));
            (None, refusal.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
        }
    };
    Ok(response.map(|body| PassingBody { body, kept: (busy, open), note: |_, _| () }))
}

/// A request that changes something runs in a task of its own, which goes on when the client hangs up.
async fn respond(entrance: &Entrance, request: Request<Incoming>) -> io::Result<Response> {
    let changes = !request.method().is_safe();
    let answering = entrance.router.clone().oneshot(request.map(Body::new));
    let answered = match changes {
        true => entrance.changes.spawn(answering).await.map_err(io::Error::other)?,
        false => answering.await,
    };
    Ok(answered.unwrap_or_else(|never| match never {}))
}

fn too_many_requests(most: u32) -> Problem {
    let detail = format!(
        "{most} requests of this address are under way, and no more are allowed \
         (BOXOFFICE_MAX_CONNECTIONS_PER_ADDRESS). Wait for their answers."
    );
    Problem::new(Code::RateLimited, detail).with("limit", most)
}

#[cfg_attr(not(target_os = "linux"), allow(unused_variables, reason = "the setting is Linux's own"))]
fn prepare(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    // Answers are small and whole: waiting to fill a packet would only add to the latency.
    stream.set_nodelay(true)?;
    // Else a client that takes no answer, or is gone without a word, would keep the connection for many minutes.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(patience))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silent_connection_takes_little_memory() {
        let limits = Limits {
            connections: 10,
            per_address: 0,
            patience: Duration::from_secs(40),
            keep_alive: Duration::from_secs(75),
        };
        let entrance = Arc::new(Entrance::new(Router::new(), limits, Vec::new(), CancellationToken::new()));
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let opened = entrance.all.admit(None).unwrap();
        let open = GracefulShutdown::new();
        let attending = attend(Arc::clone(&entrance), stream, peer, opened, open.watcher());
        let bytes = size_of_val(&attending);
        assert!(bytes < 2_048, "{bytes}");
        let attended = tokio::spawn(attending);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(Arc::strong_count(&entrance), 2, "nothing serves a connection without a first byte");
        client.writable().await.unwrap();
        client.try_write(b"G").unwrap();
        while Arc::strong_count(&entrance) == 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        attended.await.unwrap();
    }
}
