//! Logs, metrics and traces: how they are set up, once per process.

mod recorder;
mod process;
mod metric_table;
mod traces;

use std::io::{IsTerminal, Write};

use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::text::{escape_json, escape_line};

pub use metric_table::{Kind, METRICS, Metric};
pub use recorder::{CONCERT_LABELS, render, run_upkeep, start_metrics};
pub use traces::{Traces, start_traces};

/// Starts logging to standard error, filtered by `RUST_LOG`, else by `default_filter`.
/// A second call changes nothing.
pub fn start_logging(default_filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(is_without_secrets));
    let colour = std::io::stderr().is_terminal();
    // An error says that logging was started before, which is what was asked for.
    let _started = match format {
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer().json();
            registry.with(lines.with_writer(|| JsonLines(std::io::stderr()))).try_init()
        }
        LogFormat::Lines => {
            let lines = tracing_subscriber::fmt::layer().with_ansi(colour).fmt_fields(Fields);
            registry.with(lines.with_writer(std::io::stderr)).try_init()
        }
    };
}

/// Below info the NATS client prints what it sends to connect, password included, the addresses of servers with what stands
/// before the `@`, and the bodies of requests; the client of the trace collector prints its address. No filter of `RUST_LOG` makes that visible.
fn is_without_secrets(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of =
        |name: &str| target == name || target.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"));
    *metadata.level() <= Level::INFO || !(is_of("async_nats") || target.starts_with("opentelemetry"))
}

/// Writes the fields of events and spans, `message` by itself and the others as `name=value`, so that no value can break
/// out of its line or command a terminal.
#[derive(Debug)]
struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        let mut line = Line { writer, begun: false, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    begun: bool,
    result: std::fmt::Result,
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}");
        let space = if std::mem::replace(&mut self.begun, true) { " " } else { "" };
        let value = escape_line(&value);
        self.result = self.result.and_then(|()| match field.name() {
            "message" => write!(self.writer, "{space}{value}"),
            name => write!(self.writer, "{space}{name}={value}"),
        });
    }
}

/// Takes lines of JSON and writes them as the same JSON without any character that a terminal takes as a command.
struct JsonLines<W>(W);

impl<W: Write> Write for JsonLines<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(escape_json(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged about a text that comes from outside, in lines and in JSON.
    fn logged(text: &str) -> [String; 2] {
        let (lines, json) = (Kept::default(), Kept::default());
        let (to_lines, to_json) = (lines.clone(), json.clone());
        let log = || {
            let span = tracing::info_span!("request", path = text);
            span.in_scope(|| tracing::warn!(reason = text, error = %text, "refused: {text}"));
        };
        let plain = tracing_subscriber::fmt::layer().with_ansi(false).fmt_fields(Fields);
        let plain = plain.with_writer(move || to_lines.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(plain), log);
        let structured = tracing_subscriber::fmt::layer().json();
        let structured = structured.with_writer(move || JsonLines(to_json.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(structured), log);
        [lines, json].map(|kept| String::from_utf8(kept.0.lock().unwrap().clone()).unwrap())
    }

    #[test]
    fn logged_texts_stay_on_their_line() {
        let [plain, json] = logged("a\u{1b}[2J\nb\u{9b}1m\u{202e}c");
        for log in [&plain, &json] {
            assert_eq!(log.matches('\n').count(), 1, "{log:?}");
            assert!(
                !log.trim_end().chars().any(|letter| letter.is_control() || letter == '\u{202e}'),
                "{log:?}"
            );
        }
        assert!(plain.contains(r"refused: a\u{1b}[2J\nb\u{9b}1m\u{202e}c"), "{plain}");
        let fields = serde_json::from_str::<serde_json::Value>(&json).unwrap()["fields"].clone();
        assert_eq!(fields["reason"], "a\u{1b}[2J\nb\u{9b}1m\u{202e}c");
    }
}
