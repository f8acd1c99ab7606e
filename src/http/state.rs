//! What the handlers of buyers and clients use; those of operators use [`super::admin_state`].

use std::sync::Arc;

use axum::extract::FromRef;
use ipnet::IpNet;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::admin_state::AdminState;
use super::auth::{Access, Keys};
use super::code_lookup::CodeLookup;
use super::connections::Limits;
use super::idempotency::Repeats;
use super::rate_limit::JoinLimits;
use super::shop::ShopFacts;
use super::stream_limit::StreamLimit;
use crate::booking::BookingService;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config;
use crate::crowd::Crowds;
use crate::orchestrator::Engine;
use crate::ticket_codes::TicketKeys;
use crate::transfers::Transfers;
use crate::waiting_room::WaitingRoom;

/// Limit of concurrent charges. Charges of one user wait for each other at the user's account, each with a connection.
/// Without a limit a hundred of them would take all connections and block all other requests.
pub const CHARGES_AT_ONCE: usize = 4;

/// What the handlers of buyers and clients use.
pub struct AppState {
    /// What operators' handlers and the probes use.
    pub admin: Arc<AdminState>,
    /// The truth.
    pub pool: PgPool,
    /// The time, for what does not decide about money or seats.
    pub clock: Clock,
    /// Cached reads.
    pub catalog: Catalog,
    /// The lines and their gates.
    pub room: Arc<WaitingRoom>,
    /// Reserve, pay, cancel.
    pub booking: BookingService,
    /// What is known under an `Idempotency-Key`.
    pub repeats: Repeats,
    /// Operators' acts on sagas.
    pub engine: Engine,
    /// Access tokens.
    pub access: Access,
    /// API keys.
    pub keys: Keys,
    /// Signs the codes of tickets.
    pub tickets: TicketKeys,
    /// Gives tickets to other users.
    pub transfers: Transfers,
    /// Who may ask for a place in line how often.
    pub joins: JoinLimits,
    /// Access codes that buyers send.
    pub codes: CodeLookup,
    /// The networks of proxies whose word on where a request comes from is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of web pages that browsers may call from.
    pub cors_origins: Vec<String>,
    /// What clients may take together, and each.
    pub limits: Limits,
    /// What may be booked.
    pub booking_settings: config::Booking,
    /// How many charges may be under way at once; see [`CHARGES_AT_ONCE`].
    pub charges: Semaphore,
    /// Who has a stream of a place open.
    pub listeners: StreamLimit,
    /// Simulated buyers of local mode.
    pub crowds: Crowds,
    /// The shop, where it is on.
    pub shop: Option<ShopFacts>,
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
