//! The HTTP side of the generator. A call is made one time only: what it comes to is part of what is measured.

use std::time::Duration;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::ids;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of one process of the service.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
}

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
    pub body: Value,
}

/// A place in line as its owner is told of it: what the generator goes by.
#[derive(Debug, Deserialize)]
pub(super) struct Look {
    pub token: String,
    pub eta_seconds: Option<i64>,
    pub eta_known: bool,
    pub poll_after_ms: u64,
    pub activated_at: Option<DateTime<Utc>>,
}

impl Answer {
    /// The id in the body of an answer that says yes.
    pub(super) fn id(&self) -> anyhow::Result<Uuid> {
        if !(200..300).contains(&self.status) {
            bail!("the service answered {} {}", self.status, self.body);
        }
        let id = self.body["id"].as_str().context("the answer has no id")?;
        Ok(id.parse()?)
    }
}

impl Client {
    /// A client of the process that answers at `base`.
    pub(super) fn new(base: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PATIENCE).user_agent("boxoffice-bench").build()?;
        Ok(Self { http, base: base.to_owned() })
    }

    /// A read.
    pub(super) async fn get(&self, path: &str, caller: &Caller) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, caller, None).await
    }

    /// The text of a page that needs nobody to ask for it.
    pub(super) async fn text(&self, path: &str) -> anyhow::Result<String> {
        Ok(self.http.get(format!("{}{path}", self.base)).send().await?.text().await?)
    }

    /// A change.
    pub(super) async fn post(&self, path: &str, caller: &Caller, body: Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, caller, Some(body)).await
    }

    /// A change of settings.
    pub(super) async fn patch(&self, path: &str, caller: &Caller, body: Value) -> anyhow::Result<Answer> {
        self.send(Method::PATCH, path, caller, Some(body)).await
    }

    /// Takes a place in line. Asking again gives the same place, so there is no key that would have to be kept.
    pub(super) async fn join(&self, concert: Uuid, caller: &Caller) -> anyhow::Result<(u16, Look)> {
        self.place(self.http.post(format!("{}/v1/concerts/{concert}/queue-tokens", self.base)), caller).await
    }

    /// Asks for a place in line.
    pub(super) async fn look(&self, caller: &Caller) -> anyhow::Result<Look> {
        let request = self.http.get(format!("{}/v1/queue-tokens/current", self.base));
        let (_, look) = self.place(request.header("Queue-Token", &caller.queue_token), caller).await?;
        Ok(look)
    }

    async fn place(&self, request: RequestBuilder, caller: &Caller) -> anyhow::Result<(u16, Look)> {
        let response = request.bearer_auth(&caller.bearer).send().await?;
        let status = response.status();
        let bytes = response.bytes().await?;
        if !status.is_success() {
            bail!("the service answered {status} {}", String::from_utf8_lossy(&bytes));
        }
        Ok((status.as_u16(), serde_json::from_slice(&bytes)?))
    }

    /// Holds a seat; the answer is the reservation.
    pub(super) async fn reserve(
        &self,
        caller: &Caller,
        performance: Uuid,
        seat: u32,
    ) -> anyhow::Result<Answer> {
        let body = json!({ "performance_id": performance, "seats": [seat] });
        self.post("/v1/reservations", caller, body).await
    }

    /// Pays for a reservation.
    pub(super) async fn pay(&self, caller: &Caller, reservation: Uuid) -> anyhow::Result<Answer> {
        self.post(&format!("/v1/reservations/{reservation}/payment"), caller, json!({})).await
    }

    /// Takes a hold back.
    pub(super) async fn cancel(&self, caller: &Caller, reservation: Uuid) -> anyhow::Result<Answer> {
        self.post(&format!("/v1/reservations/{reservation}/cancellation"), caller, json!({})).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        caller: &Caller,
        body: Option<Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        request = request.bearer_auth(&caller.bearer);
        if !caller.queue_token.is_empty() {
            request = request.header("Queue-Token", &caller.queue_token);
        }
        if method == Method::POST {
            request = request.header("Idempotency-Key", ids::new().to_string());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await?;
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }
}
