//! Logs and metrics: how they are set up, once per process.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

/// Starts logging to standard error, filtered by `RUST_LOG`, else by `default_filter`.
/// A second call changes nothing.
pub fn start_logging(default_filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(is_without_secrets));
    let colour = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    // An error says that logging was started before, which is what was asked for.
    let _started = match format {
        LogFormat::Json => registry.with(lines.json()).try_init(),
        LogFormat::Lines => registry.with(lines).try_init(),
    };
}

/// Below info the NATS client prints what it sends to connect, password included, the addresses of servers with what stands
/// before the `@`, and the bodies of requests. No filter of `RUST_LOG` makes that visible.
fn is_without_secrets(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    *metadata.level() <= Level::INFO || !(target == "async_nats" || target.starts_with("async_nats::"))
}

/// Installs the metrics recorder; what it has counted is rendered by the handle, for `/metrics`.
/// In a process that has one already (several instances in one test) the second handle renders nothing.
pub fn start_metrics() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0])
        .expect("the buckets are not empty")
        .build_recorder();
    let handle = recorder.handle();
    let _installed = metrics::set_global_recorder(recorder);
    handle
}
