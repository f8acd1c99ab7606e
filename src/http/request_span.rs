//! The span of a request to the API: the server's part of the caller's trace, or the first of a new one.

use std::time::SystemTime;

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use saga_protocol::spans::{self, Span, SpanContext, SpanKind};
use uuid::Uuid;

use super::observe::trace_parent;

/// Where the paths of the API begin. Probes, scrapes and pages have no span.
const API: &str = "/v1/";

/// The span of a request that is not answered yet.
#[derive(Debug)]
pub struct RequestSpan {
    context: SpanContext,
    parent: Option<u64>,
    is_sampled: bool,
    method: String,
    route: String,
    begun: SystemTime,
}

impl RequestSpan {
    /// Begins the span; none if this process exports no traces.
    pub fn begin(request: &Request) -> Option<Self> {
        let exporter = spans::exporter()?;
        if !request.uri().path().starts_with(API) {
            return None;
        }
        let caller = trace_parent(request.headers()).and_then(|parent| {
            let trace = Uuid::try_parse(parent.trace).ok()?;
            let span = u64::from_str_radix(parent.span, 16).ok()?;
            Some((SpanContext { trace, span }, parent.is_sampled()))
        });
        let trace = caller.map_or_else(Uuid::new_v4, |(caller, _)| caller.trace);
        let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
        Some(Self {
            context: SpanContext { trace, span: rand::random::<u64>().max(1) },
            parent: caller.map(|(caller, _)| caller.span),
            is_sampled: exporter.is_sampled(trace, caller.map(|(_, is_sampled)| is_sampled)),
            method: request.method().to_string(),
            route: route.to_owned(),
            begun: SystemTime::now(),
        })
    }

    /// The span that what the request starts belongs to.
    pub fn context(&self) -> SpanContext {
        self.context
    }

    /// Ends the span. Refusals are the caller's; only faults of the service are errors.
    pub fn end(self, status: StatusCode) {
        let Some(exporter) = spans::exporter().filter(|_| self.is_sampled) else { return };
        exporter.export(Span {
            context: self.context,
            parent: self.parent,
            link: None,
            kind: SpanKind::Server,
            name: format!("{} {}", self.method, self.route),
            begun: self.begun,
            ended: SystemTime::now(),
            error: status.is_server_error().then(|| status.to_string()),
            attributes: vec![
                ("http.request.method", self.method),
                ("http.route", self.route),
                ("http.response.status_code", status.as_str().to_owned()),
            ],
        });
    }
}
