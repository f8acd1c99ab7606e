//! Traces across messages, as W3C Trace Context writes them in the header `traceparent`.

use uuid::Uuid;

use crate::spans::{self, SpanContext};

/// A message's place in a trace: its span is derived from its id, so that a repeat is the same span. The last digit says
/// whether the trace is recorded: 1 unless this process exports spans and leaves this trace out.
pub fn traceparent(trace: Uuid, id: &str) -> String {
    let SpanContext { span, .. } = SpanContext::of_id(trace, id);
    let is_sampled = spans::exporter().is_none_or(|exporter| exporter.is_sampled(trace, None));
    format!("00-{}-{span:016x}-0{}", trace.simple(), u8::from(is_sampled))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::trace_of;

    #[test]
    fn trace_continues_and_repeats_share_a_span() {
        let trace = Uuid::from_u128(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        let first = traceparent(trace, "a:print:do:1:0");
        assert!(
            first.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && first.ends_with("-01"),
            "{first}"
        );
        assert_eq!((first.len(), &first), (55, &traceparent(trace, "a:print:do:1:0")));
        assert_ne!(first, traceparent(trace, "a:print:do:1:1"));
        assert_eq!(trace_of(&first), Some(trace));
        for wrong in ["", "00-x-y-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_eq!(trace_of(wrong), None, "{wrong}");
        }
    }
}
