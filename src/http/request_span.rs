//! The span of a request to the API: the server's part of the caller's trace, or the first of a new one.

use std::time::SystemTime;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode};
use saga_protocol::spans::{self, Span, SpanContext, SpanKind};
use uuid::Uuid;

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
        let caller = trace_parent(request.headers()).and_then(|parent| {
            let trace = Uuid::try_parse(parent.trace).ok()?;
            let span = u64::from_str_radix(parent.span, 16).ok()?;
            Some((SpanContext { trace, span }, parent.is_sampled()))
        });
        let trace =
            caller.map_or_else(|| Uuid::from_u128(rand::random::<u128>().max(1)), |(caller, _)| caller.trace);
        let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
        Some(Self {
            context: SpanContext { trace, span: rand::random::<u64>().max(1) },
            parent: caller.map(|(caller, _)| caller.span),
            is_sampled: exporter.is_sampled(trace, caller.map(|(_, is_sampled)| is_sampled)),
            method: request.method().to_string(),
            route: route.to_owned(),
            begun: spans::now(),
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
            ended: spans::now(),
            error: status.is_server_error().then(|| status.to_string()),
            attributes: vec![
                ("http.request.method", self.method),
                ("http.route", self.route),
                ("http.response.status_code", status.as_str().to_owned()),
            ],
        });
    }
}

/// What a `traceparent` header says, in hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct TraceParent<'a> {
    pub trace: &'a str,
    pub span: &'a str,
    flags: &'a str,
}

impl TraceParent<'_> {
    /// Whether the caller records the trace.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(self.flags, 16).is_ok_and(|flags| flags & 1 == 1)
    }
}

/// Reads the header `traceparent` (W3C Trace Context, version 00 or later).
pub fn trace_parent(headers: &HeaderMap) -> Option<TraceParent<'_>> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = value.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let nonzero = |text: &str| text.bytes().any(|byte| byte != b'0');
    let good = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16);
    (good && nonzero(trace) && nonzero(span)).then_some(TraceParent { trace, span, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_parents_are_read_by_the_letter() {
        let check = |value: &str, good: bool| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", value.parse().unwrap());
            assert_eq!(trace_parent(&headers).is_some(), good, "{value}");
        };
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false);
        check("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false);
        check("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false);
        check("rubbish", false);
    }
}
