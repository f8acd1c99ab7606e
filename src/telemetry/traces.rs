//! Traces by OpenTelemetry: spans go to a collector over OTLP (HTTP, protobuf), as the standard variables `OTEL_*` say.
//!
//! A request never waits for the collector: spans are put into a bounded queue, which a task empties in batches. A span that finds
//! the queue full, or whose batch the collector did not take, is dropped and counted.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use opentelemetry::trace::{Link, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, trace};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    Config, SamplingDecision, ShouldSample, SpanData, SpanEvents, SpanExporter, SpanLinks,
};
use saga_protocol::spans::{self, Span, SpanContext, SpanKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The name of this service in traces, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` names another.
const SERVICE: &str = "boxoffice";
/// How long a stop waits for spans of work under way.
const STOP_GRACE: Duration = Duration::from_millis(300);
/// How long the spans that are left at a stop may take on their way.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Spans that the collector does not have yet, and the way to it.
#[derive(Debug)]
pub struct Traces {
    queue: mpsc::Receiver<SpanData>,
    exporter: opentelemetry_otlp::SpanExporter,
    limits: Limits,
}

/// The bounds of the queue, by their standard variables.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Most spans that wait.
    queue: usize,
    /// Most spans of one request to the collector.
    batch: usize,
    /// The longest time that a span waits for others.
    delay: Duration,
    /// How long one batch may take, its repeats included.
    timeout: Duration,
}

impl Limits {
    fn of_environment() -> anyhow::Result<Self> {
        let timeout = match number("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", 0)? {
            0 => number("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000)?,
            given => given,
        };
        let queue = usize::try_from(number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)?)?.clamp(1, 1_000_000);
        Ok(Self {
            queue,
            batch: usize::try_from(number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?)?.clamp(1, queue),
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5_000)?.max(10)),
            timeout: Duration::from_millis(timeout.clamp(1, 600_000)),
        })
    }
}

/// Starts making spans, once per process, if the environment names a collector; `None` if it does not, and then nothing is
/// made. The returned traces must be run.
///
/// # Errors
/// If a variable has a value that cannot be meant.
pub fn start_traces() -> anyhow::Result<Option<Traces>> {
    let is_set = |name| variable(name).is_some();
    let has_collector = is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_ENDPOINT");
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if is_disabled || !has_collector {
        return Ok(None);
    }
    match variable("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => bail!("OTEL_TRACES_EXPORTER is {other}; only otlp and none are supported"),
    }
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        match variable(name).as_deref() {
            None => {}
            Some("http/protobuf") => break,
            Some(other) => bail!("{name} is {other}; only http/protobuf is supported"),
        }
    }
    let limits = Limits::of_environment()?;
    // An error says that there is a provider already, which is what is wanted.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .timeout(limits.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("the client of the trace collector")?;
    let builder = opentelemetry_otlp::SpanExporter::builder().with_http().with_http_client(client);
    let mut exporter =
        builder.with_timeout(limits.timeout).build().context("the OTEL_EXPORTER_OTLP_* settings")?;
    exporter.set_resource(&resource());
    let (spans, queue) = mpsc::channel(limits.queue);
    let scope = InstrumentationScope::builder(SERVICE).with_version(env!("CARGO_PKG_VERSION")).build();
    let installed = spans::install(Box::new(Recorder { spans, sampler: Config::default().sampler, scope }));
    Ok(installed.then_some(Traces { queue, exporter, limits }))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    variable(name).map_or(Ok(default), |value| {
        u64::from_str(value.trim()).with_context(|| format!("{name} must be a whole number, not {value}"))
    })
}

fn resource() -> Resource {
    let resource = Resource::builder();
    let names = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || names.split(',').any(|pair| pair.trim_start().starts_with("service.name="));
    let resource = if is_named { resource } else { resource.with_service_name(SERVICE) };
    let instance = saga_engine::ids::process();
    resource
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .build()
}

impl Traces {
    /// Sends spans to the collector until the stop, and then those that are left.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut is_reached = true;
        loop {
            let batch = self.collect(&stop).await;
            let is_last = stop.is_cancelled();
            if is_last {
                break self.flush(batch).await;
            }
            if !batch.is_empty() {
                let exported = self.export(batch).await;
                if let (true, Err(error)) = (is_reached, &exported) {
                    tracing::warn!(%error, "the trace collector did not take spans; they are dropped until it does");
                }
                is_reached = exported.is_ok();
            }
        }
    }

    /// The next batch: full, or as many spans as have come within the delay; what there is at a stop.
    async fn collect(&mut self, stop: &CancellationToken) -> Vec<SpanData> {
        let Limits { batch: most, delay, .. } = self.limits;
        let mut batch = Vec::new();
        let until = Instant::now() + delay;
        while batch.len() < most {
            let room = most - batch.len();
            tokio::select! {
                _count = self.queue.recv_many(&mut batch, room) => {}
                () = tokio::time::sleep_until(until) => break,
                () = stop.cancelled() => break,
            }
        }
        batch
    }

    async fn flush(&mut self, mut batch: Vec<SpanData>) {
        tokio::time::sleep(STOP_GRACE).await;
        while let Ok(span) = self.queue.try_recv() {
            batch.push(span);
        }
        let until = Instant::now() + FLUSH_TIMEOUT;
        while !batch.is_empty() && Instant::now() < until {
            let later = batch.split_off(batch.len().min(self.limits.batch));
            let _exported = self.export(std::mem::replace(&mut batch, later)).await;
        }
        drop_spans("export_failed", batch.len());
    }

    async fn export(&self, batch: Vec<SpanData>) -> Result<(), String> {
        let count = batch.len();
        let exported = match timeout(self.limits.timeout, self.exporter.export(batch)).await {
            Ok(exported) => exported.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} ms", self.limits.timeout.as_millis())),
        };
        match &exported {
            Ok(()) => metrics::counter!("boxoffice_trace_spans_exported_total").increment(count as u64),
            Err(_) => drop_spans("export_failed", count),
        }
        exported
    }
}

fn drop_spans(reason: &'static str, count: usize) {
    metrics::counter!("boxoffice_trace_spans_dropped_total", "reason" => reason).increment(count as u64);
}

/// Makes spans of this process for the collector.
#[derive(Debug)]
struct Recorder {
    spans: mpsc::Sender<SpanData>,
    sampler: Box<dyn ShouldSample>,
    scope: InstrumentationScope,
}

impl spans::SpanExporter for Recorder {
    fn is_sampled(&self, trace: Uuid, parent: Option<bool>) -> bool {
        let caller = parent.map(|is_sampled| {
            let context = SpanContext { trace, span: 1 };
            opentelemetry::Context::new().with_remote_span_context(context_of(context, is_sampled))
        });
        let kind = trace::SpanKind::Internal;
        let trace = TraceId::from_bytes(trace.into_bytes());
        let result = self.sampler.should_sample(caller.as_ref(), trace, "", &kind, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    fn export(&self, span: Span) {
        if self.spans.try_send(self.data(span)).is_err() {
            drop_spans("queue_full", 1);
        }
    }
}

impl Recorder {
    fn data(&self, span: Span) -> SpanData {
        let Span { context, parent, link, kind, name, begun, ended, attributes, error } = span;
        let mut links = SpanLinks::default();
        links.links.extend(link.map(|link| Link::new(context_of(link, true), Vec::new(), 0)));
        SpanData {
            span_context: context_of(context, true),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.to_be_bytes())),
            parent_span_is_remote: false,
            span_kind: match kind {
                SpanKind::Server => trace::SpanKind::Server,
                SpanKind::Internal => trace::SpanKind::Internal,
                SpanKind::Producer => trace::SpanKind::Producer,
                SpanKind::Consumer => trace::SpanKind::Consumer,
            },
            name: name.into(),
            start_time: begun,
            end_time: ended.max(begun),
            attributes: attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        }
    }
}

fn context_of(SpanContext { trace, span }: SpanContext, is_sampled: bool) -> trace::SpanContext {
    let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, span) = (TraceId::from_bytes(trace.into_bytes()), SpanId::from_bytes(span.to_be_bytes()));
    trace::SpanContext::new(trace, span, flags, true, TraceState::default())
}
