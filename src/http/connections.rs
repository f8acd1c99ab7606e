//! The connections: how many there are, what a client may send at most and how slowly, and how they end with the service.
//!
//! One too many is answered once, that it is one too many, and closed; beyond a hundred of those at a time they are closed
//! without a word. Else whoever opens many would take the memory and the files that all others need.
//!
//! A request's head must come whole within the client's time, which also bounds how long a connection may stay idle; hyper
//! closes it without an answer. Its body has the same time again, from the end of the head. And who takes nothing of an
//! answer for so long is cut off as well.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Response;
use axum::serve::{Listener, ListenerExt};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::error::Code;
use super::observe;
use super::problem::Problem;
use crate::config;

/// The most bytes of a request's head; beyond that, and beyond a hundred fields, hyper answers 431.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// How many may be told at a time that they are one too many.
const REFUSED_AT_ONCE: usize = 100;
/// What they may take to send a head.
const REFUSED_IN: Duration = Duration::from_secs(2);

/// What the clients of one instance may take together and each.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at once.
    pub connections: u32,
    /// What a client may take to send a head, and then a body.
    pub patience: Duration,
}

impl Limits {
    /// Those of the settings.
    pub fn of(settings: &config::Http) -> Self {
        let patience = Duration::from_secs(settings.client_seconds.into());
        Self { connections: settings.max_connections, patience }
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

/// Answers requests until `stop` is cancelled, and those under way to their end.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let Limits { connections, patience } = limits;
    let mut listener = listener.tap_io(move |stream| {
        if let Err(error) = prepare(stream, patience) {
            tracing::debug!(%error, "a connection does without some of its settings");
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(HEAD_BYTES_MAX);
    let mut refusing = http.clone();
    refusing.keep_alive(false).header_read_timeout(REFUSED_IN.min(patience));
    let refusal = observe::surround(Router::new().fallback(async move || one_too_many(connections)));
    let seats = Arc::new(Semaphore::new(connections as usize));
    let refused = Arc::new(Semaphore::new(REFUSED_AT_ONCE));
    let open = GracefulShutdown::new();
    while let Some((stream, peer)) = stop.run_until_cancelled(listener.accept()).await {
        let (seat, http, router) = match Arc::clone(&seats).try_acquire_owned() {
            Ok(seat) => (seat, &http, router.clone()),
            Err(_) => {
                metrics::counter!("boxoffice_http_connections_refused_total").increment(1);
                let Ok(seat) = Arc::clone(&refused).try_acquire_owned() else { continue };
                (seat, &refusing, refusal.clone())
            }
        };
        let service = service_fn(move |request| answer(router.clone(), request, peer, patience));
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            let _seat = seat;
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "a connection ended early");
            }
        });
    }
    // Nobody is let in any more.
    drop(listener);
    open.shutdown().await;
}

fn one_too_many(most: u32) -> Problem {
    let detail = format!(
        "{most} connections to this instance are open, and no more are allowed (BOXOFFICE_MAX_CONNECTIONS). \
         Try again soon, or ask another instance."
    );
    Problem::new(Code::Unavailable, detail)
}

#[cfg_attr(not(target_os = "linux"), allow(unused_variables, reason = "the setting is Linux's own"))]
fn prepare(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    // Answers are small and whole: waiting to fill a packet would only add to the latency.
    stream.set_nodelay(true)?;
    // Else whoever takes no answer, or is gone without a word, would keep the connection for many minutes.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(patience))?;
    Ok(())
}

async fn answer(
    router: Router,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    patience: Duration,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(BodyTime { until: Instant::now() + patience, whole: patience });
    router.oneshot(request).await
}
