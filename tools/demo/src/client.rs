//! The HTTP side of a buyer: sends a call, times it, and makes it again as long as it is not settled.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::tally::{Call, Happening, Tally};
use super::wire::Problem;

/// Calls under way at once, over all buyers.
const AT_ONCE: usize = 64;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a call that is not settled (202) or not accepted (429, 503) is made again.
const REPEATS: u32 = 8;
/// The pause before that, unless the answer names one.
const PAUSE: Duration = Duration::from_millis(300);

/// An answer that the contract does not foresee at this point: the buyer stops and the demo fails.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Surprise(pub String);

/// What came of a call.
pub(super) enum Reply<T> {
    /// 2xx.
    Good(T),
    /// 4xx: the service refused the call by a rule.
    Refused(Problem),
}

/// One request, to be sent as often as it takes.
pub(super) struct Request<'a> {
    call: Call,
    method: Method,
    path: &'a str,
    bearer: Option<&'a str>,
    queue_token: Option<&'a str>,
    idempotency_key: Option<String>,
    body: Option<Value>,
}

impl<'a> Request<'a> {
    /// A read.
    pub(super) fn get(call: Call, path: &'a str) -> Self {
        Self::new(call, Method::GET, path)
    }

    /// A change, safe to repeat: it carries a key of its own. A body of `null` is none.
    pub(super) fn post(call: Call, path: &'a str, body: Value) -> Self {
        let key = boxoffice::ids::new().to_string();
        Self {
            idempotency_key: Some(key),
            body: (!body.is_null()).then_some(body),
            ..Self::new(call, Method::POST, path)
        }
    }

    /// An end.
    pub(super) fn delete(call: Call, path: &'a str) -> Self {
        Self::new(call, Method::DELETE, path)
    }

    /// Who is calling.
    pub(super) fn by(self, bearer: &'a str) -> Self {
        Self { bearer: Some(bearer), ..self }
    }

    /// The place in line that allows the call.
    pub(super) fn with_place(self, token: &'a str) -> Self {
        Self { queue_token: Some(token), ..self }
    }

    fn new(call: Call, method: Method, path: &'a str) -> Self {
        Self { call, method, path, bearer: None, queue_token: None, idempotency_key: None, body: None }
    }
}

/// Shared by all buyers of a scenario.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    gate: Arc<Semaphore>,
    tally: Arc<Tally>,
}

impl Client {
    /// A client of the service at `base`, for instance `http://127.0.0.1:8080`.
    pub(super) fn new(base: &str, tally: Arc<Tally>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .pool_max_idle_per_host(AT_ONCE)
            .user_agent("boxoffice-demo")
            .build()?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { http, base, gate: Arc::new(Semaphore::new(AT_ONCE)), tally })
    }

    /// Sends the request until the answer is final. A 202, a 429, a 503 and a `request_in_progress` are not:
    /// the same call with the same key is made again after the pause that the answer asks for.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        request: &Request<'_>,
    ) -> Result<Reply<T>, Surprise> {
        let mut last = StatusCode::ACCEPTED;
        for _ in 0..REPEATS {
            let (status, pause, body) = self.once(request).await?;
            last = status;
            match status.as_u16() {
                202 => self.tally.count(Happening::Delayed),
                429 | 503 => self.tally.count(Happening::Busy),
                200..=299 => return good(request, status, &body),
                400..=499 => {
                    let problem = refused(request, status, &body)?;
                    if problem.code != "request_in_progress" {
                        return Ok(Reply::Refused(problem));
                    }
                }
                _ => return Err(request.surprise(status, &body)),
            }
            tokio::time::sleep(pause).await;
        }
        Err(Surprise(format!("{} {}: still {last} after {REPEATS} calls", request.method, request.path)))
    }

    async fn once(&self, request: &Request<'_>) -> Result<(StatusCode, Duration, Vec<u8>), Surprise> {
        let failed = |error: reqwest::Error| {
            Surprise(format!("{} {}: {}", request.method, request.path, root_cause(&error)))
        };
        let _place = self.gate.acquire().await.map_err(|error| Surprise(error.to_string()))?;
        let begun = Instant::now();
        let response = self.build(request).send().await.map_err(failed)?;
        let status = response.status();
        let pause = retry_after(&response);
        let body = response.bytes().await.map_err(failed)?;
        self.tally.time(request.call, begun.elapsed());
        Ok((status, pause, body.into()))
    }

    fn build(&self, request: &Request<'_>) -> RequestBuilder {
        let mut builder = self.http.request(request.method.clone(), format!("{}{}", self.base, request.path));
        if let Some(bearer) = request.bearer {
            builder = builder.bearer_auth(bearer);
        }
        if let Some(token) = request.queue_token {
            builder = builder.header("Queue-Token", token);
        }
        if let Some(key) = &request.idempotency_key {
            builder = builder.header("Idempotency-Key", key);
        }
        match &request.body {
            Some(body) => builder.json(body),
            None => builder,
        }
    }
}

impl Request<'_> {
    fn surprise(&self, status: StatusCode, body: &[u8]) -> Surprise {
        let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
        Surprise(format!("{} {}: {status} {text}", self.method, self.path))
    }
}

fn good<T: DeserializeOwned>(
    request: &Request<'_>,
    status: StatusCode,
    body: &[u8],
) -> Result<Reply<T>, Surprise> {
    let body = if body.is_empty() { b"null" } else { body };
    let parsed = serde_json::from_slice(body).map_err(|_| request.surprise(status, body))?;
    Ok(Reply::Good(parsed))
}

fn refused(request: &Request<'_>, status: StatusCode, body: &[u8]) -> Result<Problem, Surprise> {
    let mut problem: Problem = serde_json::from_slice(body).map_err(|_| request.surprise(status, body))?;
    problem.status = status.as_u16();
    Ok(problem)
}

/// The pause that an answer asks for. It is whole seconds on the wire, so a buyer in a hurry asks a little sooner.
fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    seconds.and_then(|text| text.parse().ok()).map_or(PAUSE, Duration::from_secs)
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_keeps_its_code_and_details() {
        let request = Request::get(Call::Pay, "/v1/x");
        let body =
            br#"{"type":"about:blank","title":"Too few points","status":402,"code":"insufficient_points",
                        "detail":"d","balance":5,"required":9}"#;
        let problem = refused(&request, StatusCode::PAYMENT_REQUIRED, body).unwrap();
        assert_eq!((problem.status, problem.code.as_str()), (402, "insufficient_points"));
        assert_eq!(problem.more["required"], 9);
    }

    #[test]
    fn unexpected_answer_is_described() {
        let request = Request::get(Call::Own, "/v1/points");
        let Err(surprise) = good::<super::super::wire::Points>(&request, StatusCode::OK, b"[]") else {
            panic!("an empty list is no balance");
        };
        assert_eq!(surprise.to_string(), "GET /v1/points: 200 OK []");
    }
}
