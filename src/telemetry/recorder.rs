//! The recorder of metrics: one per process, whatever its roles.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics::Label;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::metric_table::{Kind, METRICS, Metric};
use super::process;

/// How often measurements are merged into histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Buckets of durations in seconds, unless a metric names its own.
const LATENCY_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];
/// Concerts with a label of their own in one process; all others share the label `other`.
const CONCERTS_MAX: usize = 1_000;

/// Starts counting, once per process: describes every metric, and shows at 0 what is counted from the start.
pub fn start_metrics() -> PrometheusHandle {
    static RECORDED: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = RECORDED.get_or_init(|| {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        let _installed = metrics::set_global_recorder(recorder);
        METRICS.iter().for_each(describe);
        metrics::gauge!("boxoffice_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        handle
    });
    handle.clone()
}

fn builder() -> PrometheusBuilder {
    let builder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS).expect("there are buckets");
    let own = METRICS.iter().filter(|metric| !metric.buckets.is_empty());
    own.fold(builder, |builder, metric| {
        let name = Matcher::Full(metric.name.to_owned());
        builder.set_buckets_for_metric(name, metric.buckets).expect("there are buckets")
    })
}

fn describe(metric: &Metric) {
    let Metric { name, kind, unit, help, initial, .. } = *metric;
    match kind {
        Kind::Counter => metrics::describe_counter!(name, unit, help),
        Kind::Gauge => metrics::describe_gauge!(name, unit, help),
        Kind::Histogram => metrics::describe_histogram!(name, unit, help),
    }
    for labels in initial {
        let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, *value)).collect();
        match kind {
            Kind::Counter => metrics::counter!(name, labels).increment(0),
            Kind::Gauge => metrics::gauge!(name, labels).increment(0.0),
            Kind::Histogram => {}
        }
    }
}

/// All metrics in Prometheus's text format, those of the process as they are now.
pub fn render(metrics: &PrometheusHandle) -> String {
    let used = process::measure();
    let mut text = metrics.render();
    let cpu = METRICS.iter().find(|metric| metric.name == "process_cpu_seconds_total");
    if let (Some(used), Some(Metric { name, help, kind, .. })) = (used, cpu) {
        let kind = kind.name();
        let _written = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {used}\n");
    }
    text
}

/// Merges measurements into histograms until the stop: without it they would pile up in memory until a scrape.
pub async fn run_upkeep(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}

/// The label `concert` of all metrics of lines.
pub static CONCERT_LABELS: ConcertLabels = ConcertLabels::new();

/// The values of the label `concert`: the first [`CONCERTS_MAX`] concerts of the process, and `other` for the rest, so that
/// the number of time series is bounded.
#[derive(Debug, Default)]
pub struct ConcertLabels(OnceLock<Mutex<HashSet<Uuid>>>);

impl ConcertLabels {
    /// The label of the concerts that have none of their own.
    const OTHER: &str = "other";

    const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The label of a concert.
    pub fn of(&self, concert: Uuid) -> String {
        let known = self.0.get_or_init(Mutex::default);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shown = known.contains(&concert) || (known.len() < CONCERTS_MAX && known.insert(concert));
        if is_shown { concert.to_string() } else { Self::OTHER.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concerts_beyond_the_bound_share_a_label() {
        let labels = ConcertLabels::new();
        let concerts: Vec<Uuid> = (0..CONCERTS_MAX as u128 + 2).map(Uuid::from_u128).collect();
        let shown: HashSet<String> = concerts.iter().map(|concert| labels.of(*concert)).collect();
        assert_eq!(shown.len(), CONCERTS_MAX + 1);
        assert_eq!(labels.of(concerts[0]), concerts[0].to_string(), "it keeps its label");
        assert_eq!(labels.of(concerts[CONCERTS_MAX]), ConcertLabels::OTHER);
    }

    #[test]
    fn names_follow_the_guide_of_prometheus() {
        for Metric { name, kind, help, .. } in METRICS {
            let is_plain = name.bytes().all(|sign| matches!(sign, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            assert!(is_plain, "{name}");
            assert!(help.len() > 10 && !help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        }
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len(), "each name stands once");
    }
}
