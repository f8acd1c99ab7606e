//! Gauges for monitoring: stuck sagas, parked messages, waiting commands and present workers.
//!
//! They are measured when the metrics are scraped, not periodically, so they cost an idle service nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::bus::{Bus, consumers, presence, stream_sizes};
use crate::orchestrator::Engine;
use crate::saga::WorkflowRegistry;
use crate::store;

/// Answers within this time are given from the last measurement. With the time that one takes (workers are given a
/// moment to answer) what is stuck is still seen within a second.
const FRESH: Duration = Duration::from_millis(250);
/// How long a measurement may take before the metrics are given without it.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(2);

/// The time of the last measurement. Concurrent scrapes share one.
#[derive(Debug, Default)]
pub struct Gauges(Mutex<Option<Instant>>);

impl Gauges {
    /// Measures anew, unless that was done just now. What does not answer keeps its last value.
    pub async fn measure(&self, engine: &Engine) {
        let mut last = self.0.lock().await;
        if last.is_some_and(|last| last.elapsed() < FRESH) {
            return;
        }
        let Engine { pool, bus, registry, .. } = engine;
        engine.begin_counters();
        of_pool("all", pool);
        of_pool("steps", &engine.steps);
        let all = async {
            let (rows, commands, streams) =
                tokio::join!(of_rows(pool, registry), of_commands(bus, registry), of_streams(bus));
            if let Err(error) = rows {
                tracing::debug!(%error, "stuck sagas and parked messages were not counted");
            }
            if let Err(error) = commands {
                tracing::debug!(%error, "commands and workers were not counted");
            }
            if let Err(error) = streams {
                tracing::debug!(error, "the messages of streams were not counted");
            }
        };
        if timeout(MEASURE_TIMEOUT, all).await.is_err() {
            tracing::debug!("the measurement took too long");
        }
        *last = Some(Instant::now());
    }
}

fn of_pool(name: &'static str, pool: &PgPool) {
    let (open, idle) = (f64::from(pool.size()), pool.num_idle() as f64);
    metrics::gauge!("boxoffice_database_connections", "pool" => name, "state" => "idle").set(idle);
    metrics::gauge!("boxoffice_database_connections", "pool" => name, "state" => "used")
        .set((open - idle).max(0.0));
    metrics::gauge!("boxoffice_database_connections_max", "pool" => name)
        .set(f64::from(pool.options().get_max_connections()));
}

async fn of_rows(pool: &PgPool, registry: &WorkflowRegistry) -> store::Result<()> {
    let mut stuck: BTreeMap<String, i64> =
        registry.all().iter().map(|known| (known.name.clone(), 0)).collect();
    stuck.extend(store::saga_search::count_stuck(pool).await?);
    for (workflow, count) in stuck {
        metrics::gauge!("boxoffice_stuck_sagas", "workflow" => workflow).set(count as f64);
    }
    let parked = store::operations::count_parked(pool).await?;
    metrics::gauge!("boxoffice_parked_messages").set(parked as f64);
    let (disabled, waiting) = store::webhooks::counts(pool).await?;
    metrics::gauge!("boxoffice_webhook_endpoints_disabled").set(disabled as f64);
    metrics::gauge!("boxoffice_webhook_deliveries_waiting").set(waiting as f64);
    Ok(())
}

async fn of_commands(bus: &Bus, registry: &WorkflowRegistry) -> anyhow::Result<()> {
    let (consumers, present) = tokio::join!(consumers::all(bus), presence::present(bus));
    let (consumers, present) = (consumers?, present?);
    for command in registry.commands() {
        let own = consumers.iter().filter(|state| state.takes(&command));
        let waiting: u64 = own.map(|state| state.pending).sum();
        let given: usize =
            consumers.iter().filter(|state| state.takes(&command)).map(|state| state.ack_pending).sum();
        let workers = presence::served_by(&present, &command).len();
        metrics::gauge!("boxoffice_commands_waiting", "command" => command.clone()).set(waiting as f64);
        metrics::gauge!("boxoffice_commands_unacknowledged", "command" => command.clone()).set(given as f64);
        metrics::gauge!("boxoffice_command_workers", "command" => command).set(workers as f64);
    }
    Ok(())
}

async fn of_streams(bus: &Bus) -> Result<(), String> {
    for (stream, messages, bytes) in stream_sizes::all(bus).await? {
        metrics::gauge!("boxoffice_stream_messages", "stream" => stream).set(messages as f64);
        metrics::gauge!("boxoffice_stream_bytes", "stream" => stream).set(bytes as f64);
    }
    Ok(())
}
