//! The HTTP client of the generator. It never retries: a failed call is part of the measurement.
//!
//! The generator shares the machine with what it measures, so a call costs as little as HTTP/1.1 allows: connections
//! are kept and used one call after the other, with nothing between the caller and the connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use boxoffice::ids;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

type Connection = SendRequest<Full<Bytes>>;

/// A client of one process of the service. Clones share its connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    authority: Arc<str>,
    idle: Arc<Mutex<Vec<Connection>>>,
    /// The client of the process's admin listener.
    admin: Option<Arc<Client>>,
}

/// Paths that the admin listener serves.
const ADMIN_PATHS: [&str; 4] = ["/metrics", "/v1/ops/", "/v1/admin/", "/v1/workflows/"];

/// Who calls: an access token or a key, and the place in line.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    pub bearer: String,
    pub queue_token: String,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// Its version, if it has one.
    pub etag: Option<String>,
    pub bytes: Bytes,
}

/// The fields of a queue token's answer that the generator uses.
#[derive(Debug, Deserialize)]
pub(super) struct Look {
    pub token: String,
    pub eta_seconds: Option<i64>,
    pub eta_known: bool,
    pub poll_after_ms: u64,
    pub activated_at: Option<DateTime<Utc>>,
}

/// An order for seats. An order at the counter names the buyer, and is paid at once.
#[derive(Serialize)]
pub(super) struct Wish {
    pub performance_id: Uuid,
    pub seats: [u32; 1],
}

impl Answer {
    /// The body, null if it is no JSON.
    pub(super) fn body(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// The body of an answer that says yes.
    pub(super) fn yes<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        if !(200..300).contains(&self.status) {
            bail!("the service answered {} {}", self.status, String::from_utf8_lossy(&self.bytes));
        }
        Ok(serde_json::from_slice(&self.bytes)?)
    }

    /// The id in the body of an answer that says yes.
    pub(super) fn id(&self) -> anyhow::Result<Uuid> {
        #[derive(Deserialize)]
        struct Named {
            id: Uuid,
        }
        Ok(self.yes::<Named>()?.id)
    }
}

impl Client {
    /// A client of the process that answers buyers at `base` and operators at `admin`.
    pub(super) fn new(base: &str, admin: &str) -> anyhow::Result<Self> {
        Ok(Self { admin: Some(Arc::new(Self::of_one(admin)?)), ..Self::of_one(base)? })
    }

    fn of_one(base: &str) -> anyhow::Result<Self> {
        let authority = base.strip_prefix("http://").context("the service answers over plain HTTP")?;
        Ok(Self { authority: authority.trim_end_matches('/').into(), idle: Arc::default(), admin: None })
    }

    /// A client of the same process that shares nothing with this one: its connections live where it is used.
    pub(super) fn apart(&self) -> Self {
        Self { authority: Arc::clone(&self.authority), idle: Arc::default(), admin: self.admin.clone() }
    }

    /// Host and port of the service.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// A read.
    pub(super) async fn get(&self, path: &str, caller: &Caller) -> anyhow::Result<Answer> {
        self.send(request(Method::GET, path, caller), Bytes::new()).await
    }

    /// A read by a caller that may have a version of it.
    pub(super) async fn read(
        &self,
        path: &str,
        caller: &Caller,
        known: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let mut request = request(Method::GET, path, caller);
        if let Some(known) = known {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        self.send(request, Bytes::new()).await
    }

    /// The text of a page, read without credentials.
    pub(super) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.get(path, &Caller::default()).await?;
        Ok(String::from_utf8_lossy(&answer.bytes).into_owned())
    }

    /// A change, under a key of its own.
    pub(super) async fn post(&self, path: &str, caller: &Caller, body: Value) -> anyhow::Result<Answer> {
        let request = request(Method::POST, path, caller).header("idempotency-key", ids::new().to_string());
        self.send(request, serde_json::to_vec(&body)?.into()).await
    }

    /// A change without an idempotency key: the caller does not retry.
    pub(super) async fn post_once(
        &self,
        path: &str,
        caller: &Caller,
        body: &impl Serialize,
    ) -> anyhow::Result<Answer> {
        self.send(request(Method::POST, path, caller), serde_json::to_vec(body)?.into()).await
    }

    /// A change of settings.
    pub(super) async fn patch(&self, path: &str, caller: &Caller, body: Value) -> anyhow::Result<Answer> {
        self.send(request(Method::PATCH, path, caller), serde_json::to_vec(&body)?.into()).await
    }

    /// Takes a place in line. Asking again gives the same place, so there is no key that would have to be kept.
    pub(super) async fn join(&self, concert: Uuid, caller: &Caller) -> anyhow::Result<(u16, Look)> {
        let path = format!("/v1/concerts/{concert}/queue-tokens");
        let answer = self.send(request(Method::POST, &path, caller), Bytes::new()).await?;
        Ok((answer.status, answer.yes()?))
    }

    /// Asks for a place in line.
    pub(super) async fn look(&self, caller: &Caller) -> anyhow::Result<Look> {
        self.get("/v1/queue-tokens/current", caller).await?.yes()
    }

    /// Holds a seat; the answer is the reservation.
    pub(super) async fn reserve(
        &self,
        caller: &Caller,
        performance: Uuid,
        seat: u32,
    ) -> anyhow::Result<Answer> {
        self.post("/v1/reservations", caller, json!(Wish { performance_id: performance, seats: [seat] }))
            .await
    }

    /// Pays for a reservation.
    pub(super) async fn pay(&self, caller: &Caller, reservation: Uuid) -> anyhow::Result<Answer> {
        self.post(&format!("/v1/reservations/{reservation}/payment"), caller, json!({})).await
    }

    /// Takes a hold back.
    pub(super) async fn cancel(&self, caller: &Caller, reservation: Uuid) -> anyhow::Result<Answer> {
        self.post(&format!("/v1/reservations/{reservation}/cancellation"), caller, json!({})).await
    }

    async fn send(&self, request: hyper::http::request::Builder, body: Bytes) -> anyhow::Result<Answer> {
        let path = request.uri_ref().map_or("", |uri| uri.path());
        let is_admin = ADMIN_PATHS.iter().any(|prefix| path.starts_with(prefix));
        let listener = self.admin.as_deref().filter(|_| is_admin).unwrap_or(self);
        let request = request.header(header::HOST, &*listener.authority).body(Full::new(body))?;
        timeout(PATIENCE, listener.exchange(request)).await.context("the service did not answer in time")?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let mut connection = self.connection().await?;
        let response = connection.send_request(request).await?;
        let status = response.status().as_u16();
        let etag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let bytes = response.into_body().collect().await?.to_bytes();
        self.idle().push(connection);
        Ok(Answer { status, etag, bytes })
    }

    /// The connection that was used last, if the service has not closed it; else a new one.
    async fn connection(&self) -> anyhow::Result<Connection> {
        loop {
            let Some(mut connection) = self.idle().pop() else {
                break;
            };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(&*self.authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // A call on this connection gets its error itself.
            let _ended = connection.await;
        });
        Ok(sender)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request(method: Method, path: &str, caller: &Caller) -> hyper::http::request::Builder {
    let changes = method != Method::GET;
    let mut request = Request::builder().method(method).uri(path);
    if !caller.bearer.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", caller.bearer));
    }
    if !caller.queue_token.is_empty() {
        request = request.header("queue-token", &caller.queue_token);
    }
    if changes {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request
}
