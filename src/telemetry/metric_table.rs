//! Every metric of the service: its name, kind, unit, help text, and the label sets that are shown from the start.
//!
//! A counter that appears with its first event is invisible to `increase()` in an alert, so counters begin at 0 where
//! their labels are known. No label has values without a bound. A test compares this table with the source.

use metrics::Unit;

/// How values of a metric come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts values in buckets.
    Histogram,
}

impl Kind {
    /// Its name in Prometheus's text format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Names and values of labels.
type Labels = &'static [(&'static str, &'static str)];

/// A metric as it is described to those who scrape it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
    /// Label sets that are shown at 0 from the start.
    pub initial: &'static [Labels],
    /// Buckets of a histogram, if it has its own.
    pub buckets: &'static [f64],
}

const SAGA_BUCKETS: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0];
const STEP_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

const fn counter(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit, help, initial: &[], buckets: &[] }
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, help, initial: &[], buckets: &[] }
}

const fn histogram(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit, help, initial: &[], buckets: &[] }
}

impl Metric {
    const fn shown_at_zero(self, initial: &'static [Labels]) -> Self {
        Self { initial, ..self }
    }

    const fn in_buckets(self, buckets: &'static [f64]) -> Self {
        Self { buckets, ..self }
    }
}

/// Every metric, in the order of their page.
pub const METRICS: &[Metric] = &[
    gauge("boxoffice_build_info", Unit::Count, "Always 1; the label is the version of the program"),
    gauge("boxoffice_process_role", Unit::Count, "1 for each role of this process"),
    counter("process_cpu_seconds_total", Unit::Seconds, "Time of the processor that the process has used, user and system"),
    gauge("process_resident_memory_bytes", Unit::Bytes, "Memory of the process that is in RAM"),
    gauge("process_virtual_memory_bytes", Unit::Bytes, "Address space of the process"),
    gauge("process_threads", Unit::Count, "Threads of the process"),
    gauge("process_start_time_seconds", Unit::Seconds, "When the process started, in seconds since 1970"),
    gauge("process_open_fds", Unit::Count, "Open files and connections"),
    gauge("process_max_fds", Unit::Count, "The soft limit on open files and connections"),
    counter("boxoffice_trace_spans_exported_total", Unit::Count, "Spans that the trace collector has taken").shown_at_zero(&[&[]]),
    counter("boxoffice_trace_spans_dropped_total", Unit::Count, "Spans that were dropped, by reason: queue_full or export_failed").shown_at_zero(&[&[("reason", "queue_full")], &[("reason", "export_failed")]]),
    // HTTP
    histogram("boxoffice_http_request_seconds", Unit::Seconds, "Time from a request to its answer, by method, route and status"),
    gauge("boxoffice_http_requests_in_flight", Unit::Count, "Requests that have no answer yet").shown_at_zero(&[&[]]),
    gauge("boxoffice_http_connections", Unit::Count, "Open connections of clients, on all listeners of the process").shown_at_zero(&[&[]]),
    counter("boxoffice_http_connections_refused_total", Unit::Count, "Connections over a bound").shown_at_zero(&[&[]]),
    counter("boxoffice_http_requests_cut_off_total", Unit::Count, "Requests that were answered 503 because a server behind this one did not answer in time").shown_at_zero(&[&[]]),
    // Sagas
    counter("boxoffice_sagas_started_total", Unit::Count, "Sagas that were started, by workflow"),
    counter("boxoffice_sagas_ended_total", Unit::Count, "Sagas that have ended, by workflow and outcome: completed, compensated or abandoned"),
    counter("boxoffice_sagas_got_stuck_total", Unit::Count, "How often a saga got stuck, by workflow"),
    histogram("boxoffice_saga_duration_seconds", Unit::Seconds, "Time from the start of a saga to its end, by workflow and outcome").in_buckets(SAGA_BUCKETS),
    histogram("boxoffice_step_duration_seconds", Unit::Seconds, "Time from sending the command of a step until its outcome is decided, by workflow, step and direction").in_buckets(STEP_BUCKETS),
    counter("boxoffice_step_outcomes_total", Unit::Count, "Outcomes of steps, by workflow, step, direction and outcome: done, rejected, failed or unknown"),
    histogram("boxoffice_timer_delay_seconds", Unit::Seconds, "How late sagas went on whose time had come").in_buckets(STEP_BUCKETS),
    gauge("boxoffice_stuck_sagas", Unit::Count, "Sagas that wait for an operator, by workflow"),
    counter("boxoffice_sagas_set_apart_total", Unit::Count, "Due sagas that the sweeper could not read, decide or write").shown_at_zero(&[&[]]),
    counter("boxoffice_swept_sagas_total", Unit::Count, "Due sagas that the sweeper has moved on").shown_at_zero(&[&[]]),
    counter("boxoffice_forgotten_sagas_total", Unit::Count, "Ended sagas that were deleted after their time").shown_at_zero(&[&[]]),
    gauge("boxoffice_audit_findings", Unit::Count, "Rows of the last minutes that contradict each other, by finding"),
    // The gate
    counter("boxoffice_redemptions_total", Unit::Count, "Scans of tickets by result: redeemed, already_redeemed, ticket_void, wrong_date, not_found, undone or error"),
    // Commands, messages and JetStream
    gauge("boxoffice_commands_waiting", Unit::Count, "Commands that no worker has been given yet, by command"),
    gauge("boxoffice_commands_unacknowledged", Unit::Count, "Messages with commands that a worker has been given and has not acknowledged, by command"),
    gauge("boxoffice_command_workers", Unit::Count, "Workers that answered just now and serve the command"),
    counter("boxoffice_commands_executed_directly_total", Unit::Count, "Commands of seats, points and tickets that were executed without JetStream").shown_at_zero(&[&[]]),
    counter("boxoffice_stale_messages_total", Unit::Count, "Messages that came twice or late and changed nothing, by stream").shown_at_zero(&[&[("stream", "STEPS")], &[("stream", "SAGAS")]]),
    gauge("boxoffice_parked_messages", Unit::Count, "Messages that the service could not act on and an operator has to look at"),
    counter("boxoffice_parked_messages_total", Unit::Count, "Messages that were parked for an operator, by stream").shown_at_zero(&[&[("stream", "STEPS")], &[("stream", "SAGAS")], &[("stream", "TIMERS")]]),
    counter("boxoffice_publish_refused_total", Unit::Count, "Messages that JetStream will never store, by kind").shown_at_zero(&[&[("kind", "command")], &[("kind", "alarm")], &[("kind", "event")]]),
    counter("boxoffice_effects_left_to_sweeper_total", Unit::Count, "Commits whose messages JetStream did not take in time; the sweeper sends them again").shown_at_zero(&[&[]]),
    gauge("boxoffice_jetstream_works", Unit::Count, "1 if JetStream stored a message and gave it back at the last probe, else 0"),
    gauge("boxoffice_stream_messages", Unit::Count, "Messages in a stream: of STEPS, SAGAS and UNDELIVERED those that are not done, of TIMERS those to come and due"),
    gauge("boxoffice_stream_bytes", Unit::Bytes, "Size of a stream"),
    // Webhooks
    gauge("boxoffice_webhook_endpoints_disabled", Unit::Count, "Webhook endpoints that get no more deliveries until an admin enables them"),
    gauge("boxoffice_webhook_deliveries_waiting", Unit::Count, "Deliveries that wait for webhook endpoints that are not disabled"),
    counter("boxoffice_webhook_attempts_total", Unit::Count, "Attempts to deliver to webhook endpoints, by outcome: delivered or failed").shown_at_zero(&[&[("outcome", "delivered")], &[("outcome", "failed")]]),
    // Postgres and batches
    gauge("boxoffice_database_connections", Unit::Count, "Connections to Postgres, by pool (steps: those of what every saga runs through) and state: used or idle"),
    gauge("boxoffice_database_connections_max", Unit::Count, "Most connections to Postgres, by pool"),
    histogram("boxoffice_batch_items", Unit::Count, "Items that were done together in one transaction, by batch").in_buckets(SIZE_BUCKETS),
    histogram("boxoffice_batch_duration_seconds", Unit::Seconds, "Time that a batch took, by batch"),
    counter("boxoffice_batches_done_again_total", Unit::Count, "Batches that were done again under locks because rows had changed meanwhile").shown_at_zero(&[&[]]),
    // Jobs and tasks
    gauge("boxoffice_job_last_success_timestamp_seconds", Unit::Seconds, "When a periodic job last succeeded; before its first success, when the process began to run it"),
    counter("boxoffice_job_failures_total", Unit::Count, "Runs of a periodic job that failed, panicked or took too long"),
    counter("boxoffice_dead_tasks_total", Unit::Count, "Background tasks that have died; the process ends then"),
    // Lines
    gauge("boxoffice_queue_waiting", Unit::Count, "Users who wait, by concert"),
    gauge("boxoffice_queue_silent", Unit::Count, "Users of those who have not been heard of for a while, by concert"),
    gauge("boxoffice_queue_active", Unit::Count, "Users who are admitted, by concert"),
    gauge("boxoffice_queue_free", Unit::Count, "Places that are free, by concert"),
    gauge("boxoffice_queue_admission_rate", Unit::Count, "Admissions per minute in force, by concert"),
    gauge("boxoffice_queue_admitted_last_minute", Unit::Count, "Admissions of the last minute, by concert"),
    gauge("boxoffice_queue_joined_last_minute", Unit::Count, "Joins of the last minute, by concert"),
    gauge("boxoffice_queue_no_shows_last_minute", Unit::Count, "Users of the last minute who were admitted and did not come, by concert"),
    gauge("boxoffice_queue_oldest_waiter_seconds", Unit::Seconds, "How long the first in line has waited, by concert"),
    gauge("boxoffice_queue_braked", Unit::Count, "1 while the brake holds the rate down, by concert"),
    gauge("boxoffice_queue_stalled", Unit::Count, "1 while users wait, places are free and no user is admitted, by concert"),
    counter("boxoffice_queue_admitted_total", Unit::Count, "Admissions that this process made, by concert"),
    counter("boxoffice_queue_silenced_total", Unit::Count, "Users who went silent, by concert"),
    counter("boxoffice_queue_returned_total", Unit::Count, "Users who were silent and came back, by concert"),
    counter("boxoffice_queue_no_shows_total", Unit::Count, "Users who were admitted and did not come, by concert"),
    counter("boxoffice_queue_lost_total", Unit::Count, "Silent users whose place has ended, by concert"),
    gauge("boxoffice_queue_streams", Unit::Count, "Open event streams of places in line").shown_at_zero(&[&[]]),
    counter("boxoffice_queue_streams_refused_total", Unit::Count, "Event streams over the bound").shown_at_zero(&[&[]]),
    counter("boxoffice_queue_records_refused_total", Unit::Count, "Records in the bucket that are not places").shown_at_zero(&[&[]]),
    gauge("boxoffice_queue_journal_lag", Unit::Count, "Places whose last change is not in Postgres yet").shown_at_zero(&[&[]]),
    counter("boxoffice_queue_restorations_total", Unit::Count, "How often a lost line was written into NATS again, a first start included").shown_at_zero(&[&[]]),
];
