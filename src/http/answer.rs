//! A good answer on its way out, in a form that can also be saved and given again.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

/// Status, JSON and headers of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Value,
    headers: HeaderMap,
}

impl Answer {
    /// An answer with this status.
    pub fn new(status: StatusCode, body: &impl Serialize) -> Self {
        // Bodies are plain structs, which always have a JSON form.
        Self { status, body: serde_json::json!(body), headers: HeaderMap::new() }
    }

    /// 200.
    pub fn ok(body: &impl Serialize) -> Self {
        Self::new(StatusCode::OK, body)
    }

    /// 201.
    pub fn created(body: &impl Serialize) -> Self {
        Self::new(StatusCode::CREATED, body)
    }

    /// 202: not settled yet; look at the location in a second.
    pub fn accepted(location: &str, body: &impl Serialize) -> Self {
        let second = HeaderValue::from_static("1");
        Self::new(StatusCode::ACCEPTED, body)
            .with(header::LOCATION, location)
            .header(header::RETRY_AFTER, second)
    }

    /// The same answer with one more header; a value that no header may have is left out.
    pub fn with(self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => self.header(name, value),
            Err(_) => self,
        }
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let is_problem = self.status.is_client_error() || self.status.is_server_error();
        let content_type = if is_problem { "application/problem+json" } else { "application/json" };
        let content_type = [(header::CONTENT_TYPE, content_type)];
        (self.status, content_type, self.headers, self.body.to_string()).into_response()
    }
}
