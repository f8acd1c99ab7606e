//! Which web pages may call the public API from a browser, and what their scripts may send and see.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember the answer to a preflight request.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

const fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

/// The layer for these origins; none if there are none. Cookies are allowed, for the stream of a place takes one.
pub fn layer(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    // The settings hold plain origins, which are header values.
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            name("queue-token"),
            name("idempotency-key"),
            name("last-event-id"),
            name("x-request-id"),
            name("traceparent"),
        ])
        .expose_headers([
            header::RETRY_AFTER,
            header::ETAG,
            header::LOCATION,
            name("x-request-id"),
            name("idempotent-replayed"),
        ])
        .max_age(PREFLIGHT_MAX_AGE);
    Some(layer)
}
