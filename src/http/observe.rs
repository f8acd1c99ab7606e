//! What surrounds every request: its id, its span, how long it took, and a net for panics.

use std::any::Any;
use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;
use tracing::field::Empty;
use uuid::Uuid;

use super::error::Code;
use super::problem::Problem;
use super::request_span::{RequestSpan, TraceParent, trace_parent};
use crate::{ids, trace_context};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_CHARS_MAX: usize = 128;
/// Where the paths of the API begin.
const API: &str = "/v1/";

/// Wraps every route, known or not.
pub fn surround(router: Router) -> Router {
    let trace = TraceLayer::new_for_http();
    let trace = trace.make_span_with(span).on_request(()).on_failure(()).on_response(answered);
    // In one piece: of layers that are put on one by one, each is copied anew for every request with all that it surrounds.
    let layers = ServiceBuilder::new()
        .layer(middleware::from_fn(attend))
        .layer(trace)
        .layer(CatchPanicLayer::custom(panicked));
    router.layer(layers)
}

/// Names, counts and times each request.
async fn attend(mut request: Request, next: Next) -> Response {
    let id = identify(&mut request);
    let measure = Measure::begin(&request);
    let _in_flight = InFlight::begin();
    let is_api = request.uri().path().starts_with(API);
    // Probes, scrapes and pages have no span.
    let span = is_api.then(|| RequestSpan::begin(&request)).flatten();
    let cause = span.as_ref().map(RequestSpan::context);
    let mut response = trace_context::within(cause, next.run(request)).await;
    measure.end(&response);
    if let Some(span) = span {
        span.end(response.status());
    }
    if is_api {
        // Tokens, tickets and balances are for the caller alone; reads that may be kept say so themselves.
        let headers = response.headers_mut();
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A request without an answer; it counts until it is dropped.
struct InFlight;

impl InFlight {
    fn begin() -> Self {
        metrics::gauge!("boxoffice_http_requests_in_flight").increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("boxoffice_http_requests_in_flight").decrement(1.0);
    }
}

/// Takes over a sane request id, else makes one; every answer carries it.
fn identify(request: &mut Request) -> HeaderValue {
    let id = request.headers().get(REQUEST_ID).filter(|id| is_sane(id)).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&ids::new().to_string()).unwrap_or(HeaderValue::from_static("-"))
    });
    request.headers_mut().insert(REQUEST_ID, id.clone());
    id
}

fn is_sane(id: &HeaderValue) -> bool {
    (1..=REQUEST_ID_CHARS_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn span(request: &Request) -> Span {
    let headers = request.headers();
    let span = tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()),
        trace_id = Empty,
        parent_id = Empty,
        status = Empty,
    );
    if let Some(TraceParent { trace, span: parent, .. }) = trace_parent(headers) {
        span.record("trace_id", trace).record("parent_id", parent);
    } else if let Some(own) = trace_context::current() {
        span.record("trace_id", own.trace.simple().to_string());
    }
    span
}

fn answered<B>(response: &axum::http::Response<B>, latency: Duration, span: &Span) {
    span.record("status", response.status().as_u16());
    tracing::debug!(?latency, "answered");
}

/// The trace of the request: the one that the caller names, else a new one where traces are exported.
#[derive(Clone, Copy, Debug)]
pub struct TraceId(pub Option<Uuid>);

impl<S: Send + Sync> FromRequestParts<S> for TraceId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let named = trace_parent(&parts.headers).and_then(|parent| parent.trace.parse().ok());
        Ok(Self(named.or_else(|| Some(trace_context::current()?.trace))))
    }
}

/// Counts and times requests by route, never by path: a path has ids in it.
struct Measure {
    started: Instant,
    route: String,
    method: &'static str,
}

impl Measure {
    fn begin(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
        // An unknown method must not get a time series of its own.
        let method = match *request.method() {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "other",
        };
        Self { started: Instant::now(), route: route.to_owned(), method }
    }

    fn end(self, response: &Response) {
        let Self { started, route, method } = self;
        let status = response.status().as_str().to_owned();
        metrics::histogram!("boxoffice_http_request_seconds", "method" => method, "route" => route, "status" => status)
            .record(started.elapsed().as_secs_f64());
    }
}

/// A panic is our defect: it goes to the log, and the caller gets a problem like any other.
#[allow(clippy::needless_pass_by_value, reason = "the layer hands the panic over")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    Problem::new(Code::Internal, "This should not have happened. Quote the X-Request-Id when you report it.")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    async fn send(request_id: Option<&str>, path: &str) -> Response {
        #[allow(clippy::unused_async, reason = "a handler is async")]
        async fn panics() {
            panic!("on purpose");
        }
        let router = surround(Router::new().route("/good", get(async || "good")).route("/bad", get(panics)));
        let mut request = Request::get(path);
        if let Some(id) = request_id {
            request = request.header(REQUEST_ID, id);
        }
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn every_answer_carries_an_id() {
        let made = send(None, "/good").await;
        assert_eq!(made.headers()[REQUEST_ID].len(), 36);
        let taken = send(Some("order-7"), "/nowhere").await;
        assert_eq!(taken.headers()[REQUEST_ID], "order-7");
        let long = "x".repeat(129);
        for strange in [long.as_str(), "with space", ""] {
            let replaced = send(Some(strange), "/good").await;
            assert_eq!(replaced.headers()[REQUEST_ID].len(), 36, "{strange:?}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_with_an_id() {
        let response = send(None, "/bad").await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(response.headers().contains_key(REQUEST_ID));
    }
}
