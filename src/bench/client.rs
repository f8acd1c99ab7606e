//! The HTTP side of the generator. A call is made one time only: what it comes to is part of what is measured.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
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
