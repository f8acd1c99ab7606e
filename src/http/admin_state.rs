//! What the handlers of operators and monitoring use, in a process of any role.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::auth::Keys;
use super::connections::Limits;
use super::error::Code;
use super::health::Health;
use super::idempotency::Repeats;
use super::problem::{Problem, Result};
use crate::booking::BookingService;
use crate::bus::Bus;
use crate::catalog::{self, Catalog};
use crate::clock::Clock;
use crate::config;
use crate::operations::batch_jobs::BatchJobs;
use crate::operations::exports::Exports;
use crate::operations::gauges::Gauges;
use crate::operations::overview::Overviews;
use crate::orchestrator::Engine;
use crate::redemptions::Redemptions;
use crate::waiting_room::WaitingRoom;
use crate::webhooks::UrlRules;

/// Open streams of transitions that one instance serves at most.
pub const TAILS_AT_ONCE: usize = 32;

/// Checks of definitions that one instance makes at a time: each takes a processor, and up to a gigabyte of memory.
pub const CHECKS_AT_ONCE: usize = 1;

/// What `/v1/ops`, `/v1/admin` and the probes need. Nothing here depends on secrets of the api role.
pub struct AdminState {
    pub pool: PgPool,
    pub clock: Clock,
    pub engine: Engine,
    /// API keys.
    pub keys: Keys,
    /// What is known under an `Idempotency-Key`.
    pub repeats: Repeats,
    /// The gate, in a process that has the secret of ticket codes.
    pub redemptions: Option<Redemptions>,
    /// The lines, in a process with the role api or scheduler.
    pub room: Option<Arc<WaitingRoom>>,
    /// Sales to guests.
    pub booking: BookingService,
    /// Cached reads, in a process with the role api.
    pub catalog: Option<Catalog>,
    /// Defaults of new concerts' lines.
    pub queue: config::Queue,
    /// Points that one key may give as goodwill within 24 hours.
    pub goodwill_per_day: i64,
    /// Whether requests should be sent here.
    pub health: Health,
    /// Acts on many sagas, as jobs.
    pub batches: BatchJobs,
    /// Exports of all rows of a kind.
    pub exports: Exports,
    /// The overview, from a moment ago.
    pub overviews: Overviews,
    /// How many may watch sagas move at once; see [`TAILS_AT_ONCE`].
    pub tails: Arc<Semaphore>,
    /// Definitions that are being checked; see [`CHECKS_AT_ONCE`].
    pub checks: Semaphore,
    /// How long the check of a definition may take.
    pub check_time: Duration,
    /// Where webhooks may go.
    pub webhook_rules: UrlRules,
    /// What is measured when `/metrics` is asked for.
    pub gauges: Gauges,
    /// What `/metrics` shows.
    pub metrics: PrometheusHandle,
    /// Where traces are shown.
    pub trace_url: Option<config::TraceUrl>,
    /// What the clients of the admin listener may take.
    pub limits: Limits,
    /// The networks of proxies whose word on where a request comes from is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Ends the event streams when the service stops.
    pub stop: CancellationToken,
}

impl AdminState {
    /// The lines, or 503 in a process that does not know them.
    pub fn room(&self) -> Result<&WaitingRoom> {
        let detail = "This process has neither the role api nor the role scheduler, so it does not know the lines. \
                      Ask the admin listener of a process that has one of them.";
        self.room.as_deref().ok_or_else(|| Problem::new(Code::Unavailable, detail))
    }

    /// The gate, or 503 in a process that cannot read ticket codes.
    pub fn redemptions(&self) -> Result<&Redemptions> {
        let detail = "This process was given neither BOXOFFICE_TICKET_SECRET nor BOXOFFICE_QUEUE_SECRET, so it cannot read ticket codes. \
                      Ask a process with the role api.";
        self.redemptions.as_ref().ok_or_else(|| Problem::new(Code::Unavailable, detail))
    }

    /// Makes every instance read concerts and performances anew.
    pub async fn concerts_changed(&self) {
        match &self.catalog {
            Some(catalog) => catalog.concerts_changed().await,
            None => catalog::announce_changed_concerts(self.bus()).await,
        }
    }

    /// The connection to NATS.
    pub fn bus(&self) -> &Bus {
        &self.engine.bus
    }
}

impl FromRef<Arc<AdminState>> for Keys {
    fn from_ref(state: &Arc<AdminState>) -> Self {
        state.keys.clone()
    }
}
