//! What every handler can reach.

use std::sync::Arc;

use axum::extract::FromRef;
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::auth::{Access, Keys};
use super::connections::Limits;
use super::health::Health;
use super::idempotency::Repeats;
use super::joins::Joins;
use super::listeners::Listeners;
use crate::booking::Desk;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config;
use crate::operations::gauges::Gauges;
use crate::orchestrator::Engine;
use crate::waiting_room::WaitingRoom;

/// Charges of one user wait for each other at that user's account, each with a connection in its hands. Without a
/// bound a hundred of them would take all connections there are, and everybody else would wait with them.
pub const CHARGES_AT_ONCE: usize = 4;

/// Open streams of transitions that one instance serves at most.
pub const TAILS_AT_ONCE: usize = 32;

/// The parts that the entrance stands on.
pub struct AppState {
    /// The truth.
    pub pool: PgPool,
    /// The time, for what does not decide about money or seats.
    pub clock: Clock,
    /// Cached reads.
    pub catalog: Catalog,
    /// The lines and their gates.
    pub room: Arc<WaitingRoom>,
    /// Reserve, pay, cancel.
    pub desk: Desk,
    /// What is known under an `Idempotency-Key`.
    pub repeats: Repeats,
    /// Operators' acts on sagas.
    pub engine: Engine,
    /// Access tokens.
    pub access: Access,
    /// API keys.
    pub keys: Keys,
    /// Who may ask for a place in line how often.
    pub joins: Joins,
    /// The networks of proxies whose word on where a request comes from is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// What clients may take together, and each.
    pub limits: Limits,
    /// What may be booked.
    pub booking: config::Booking,
    /// Defaults of new concerts' lines.
    pub queue: config::Queue,
    /// Whether requests should be sent here.
    pub health: Health,
    /// How many charges may be under way at once; see [`CHARGES_AT_ONCE`].
    pub charges: Semaphore,
    /// How many may watch sagas move at once; see [`TAILS_AT_ONCE`].
    pub tails: Arc<Semaphore>,
    /// Who has a stream of a place open.
    pub listeners: Listeners,
    /// What is measured when `/metrics` is asked for.
    pub gauges: Gauges,
    /// What `/metrics` shows.
    pub metrics: PrometheusHandle,
    /// Ends the event streams when the service stops.
    pub stop: CancellationToken,
}

impl FromRef<Arc<AppState>> for Access {
    fn from_ref(state: &Arc<AppState>) -> Self {
        state.access.clone()
    }
}

impl FromRef<Arc<AppState>> for Keys {
    fn from_ref(state: &Arc<AppState>) -> Self {
        state.keys.clone()
    }
}
