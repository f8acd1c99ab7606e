//! Spans of requests, sagas and messages. A process that exports traces installs an exporter, once; without one no span is made.
//!
//! The ids of most spans are derived: of a message from its id, of a saga's start from the saga's id. So each process can name
//! the parent of its span, and a repeat is the same span.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::headers::{TRACE, header};

/// A span, and the trace it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    pub trace: Uuid,
    pub span: u64,
}

impl SpanContext {
    /// The span of the message with this id, or of anything else with an id of its own.
    pub fn of_id(trace: Uuid, id: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(id.as_bytes()));
        Self { trace, span: u64::from_be_bytes([a, b, c, d, e, f, g, h]) }
    }

    /// The span of a saga's start: the parent of the saga's other spans.
    pub fn of_start(trace: Uuid, saga: Uuid) -> Self {
        Self::of_id(trace, &format!("{saga}:start"))
    }

    /// The span that a `traceparent` names.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let span = traceparent.split('-').nth(2).filter(|span| span.len() == 16)?;
        let is_hex = span.bytes().all(|digit| digit.is_ascii_hexdigit());
        let span = u64::from_str_radix(span, 16).ok().filter(|span| is_hex && *span != 0)?;
        Some(Self { trace: trace_of(traceparent)?, span })
    }

    /// The span that the header `traceparent` of a message names.
    pub fn of_message(message: &async_nats::Message) -> Option<Self> {
        header(message, TRACE).and_then(Self::parse)
    }
}

/// The trace that a `traceparent` names.
pub fn trace_of(traceparent: &str) -> Option<Uuid> {
    let trace = traceparent.split('-').nth(1).filter(|trace| trace.len() == 32)?;
    Uuid::try_parse(trace).ok().filter(|trace| !trace.is_nil())
}

/// What a span is to its trace, as OpenTelemetry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that was answered.
    Server,
    Internal,
    /// A message that was sent.
    Producer,
    /// A message that was handled.
    Consumer,
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    pub context: SpanContext,
    /// The id of its parent in the same trace.
    pub parent: Option<u64>,
    /// A span of another trace that caused it.
    pub link: Option<SpanContext>,
    pub kind: SpanKind,
    pub name: String,
    pub begun: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Takes spans out of the process.
pub trait SpanExporter: Debug + Send + Sync {
    /// Whether the spans of this trace are wanted. `parent`: whether the caller says that it records the trace, if it says
    /// anything. All processes decide alike about the same trace.
    fn is_sampled(&self, trace: Uuid, parent: Option<bool>) -> bool;

    /// Takes a span. It must not wait: a span that cannot be taken is dropped.
    fn export(&self, span: Span);
}

static EXPORTER: OnceLock<Box<dyn SpanExporter>> = OnceLock::new();

/// Installs the exporter of this process; `false` if it has one already.
pub fn install(exporter: Box<dyn SpanExporter>) -> bool {
    EXPORTER.set(exporter).is_ok()
}

/// The exporter of this process, if there is one.
pub fn exporter() -> Option<&'static dyn SpanExporter> {
    EXPORTER.get().map(|exporter| &**exporter)
}

/// The exporter, if there is one and it wants the spans of this trace.
pub fn exporter_of(trace: Uuid) -> Option<&'static dyn SpanExporter> {
    exporter().filter(|exporter| exporter.is_sampled(trace, None))
}

/// The time at which a span begins; `None` if no spans are made in this process.
pub fn begin() -> Option<SystemTime> {
    exporter().map(|_| now())
}

/// The machine's clock. Spans are timed by it; it decides nothing.
pub fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_it_is_written() {
        let trace = Uuid::from_u128(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        let written = crate::trace::traceparent(trace, "a:print:do:1:0");
        assert_eq!(SpanContext::parse(&written), Some(SpanContext::of_id(trace, "a:print:do:1:0")));
        for wrong in [
            "",
            "00-x-y-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-+000000000000001-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01",
        ] {
            assert_eq!(SpanContext::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_span_is_begun_without_an_exporter() {
        assert!(exporter().is_none() && begin().is_none());
    }
}
