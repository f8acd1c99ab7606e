//! The waiting room: a fair line before each concert, and the gate behind which booking happens.

pub mod gate;
pub mod status;
pub mod token;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::Stream;
use serde::Serialize;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::bus::Bus;
use crate::clock::Clock;
use crate::ids::{ConcertId, UserId};
use crate::store::queue::{QueueSettings, SettingsChange};

pub use gate::{PassState, Refused};
pub use status::{Inventory, Phase, QueueToken, Status};
pub use token::Claims;

/// How long sessions live.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    /// From the first use to the end.
    pub session: Duration,
    /// How long an admitted user may wait with the first use.
    pub claim: Duration,
}

/// Why the waiting room cannot do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    #[error("there is no such concert")]
    NotFound,
    #[error("every seat of this concert is sold")]
    SoldOut,
    #[error("no sale of this concert is open or to come")]
    QueueClosed,
    #[error("the waiting room cannot be reached at the moment, try again soon")]
    Unavailable,
}

/// The answer to joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Whether the place is new (201) or was there before (200).
    pub created: bool,
    pub token: QueueToken,
}

/// A line as its operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QueueOverview {
    pub concert_id: Uuid,
    pub phase: Phase,
    pub inventory: Inventory,
    /// How many wait.
    pub length: u64,
    /// How many are admitted and not over.
    pub active: u64,
    pub joined_last_minute: u64,
    pub admitted_last_minute: u64,
    /// Since when the first in line waits.
    pub oldest_waiter_since: Option<DateTime<Utc>>,
    pub oldest_waiter_seconds: Option<i64>,
    pub settings: QueueSettings,
}

/// The lines of all concerts, in memory, on every instance.
#[derive(Debug)]
pub struct WaitingRoom {
    clock: Clock,
}

impl WaitingRoom {
    /// Starts to follow the bucket of places. `secret` signs the tokens and is the same on every instance.
    pub fn start(
        _bus: Bus,
        _pool: PgPool,
        clock: Clock,
        _sessions: Sessions,
        _secret: &str,
        _tasks: &TaskTracker,
        _stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { clock })
    }

    /// Takes part in admission, expiry and ending sessions after payments: for the scheduler role.
    pub fn run_admission(self: &Arc<Self>) {}

    /// Whether this instance knows the whole line. Until then it must not be given requests.
    pub fn ready(&self) -> bool {
        false
    }

    /// Takes a place in the line of a concert; asking again gives the same place.
    pub async fn join(&self, _user: UserId, _concert: ConcertId) -> Result<Joined, RoomError> {
        Err(RoomError::Unavailable)
    }

    /// Reads a token that needs no gate: rightly signed, and this user's.
    pub fn identify(&self, _token: Option<&str>, _user: UserId) -> Result<Claims, Refused> {
        Err(Refused::Required)
    }

    /// A place as it stands now; touches neither NATS nor Postgres.
    pub fn look(&self, claims: &Claims) -> QueueToken {
        QueueToken {
            token: String::new(),
            concert_id: claims.concert,
            user_id: claims.user,
            status: Status::Expired,
            phase: Phase::Closed,
            inventory: Inventory::SoldOut,
            position: None,
            ahead: None,
            eta_seconds: None,
            eta_known: false,
            poll_after_ms: 30_000,
            issued_at: claims.issued_at,
            activated_at: None,
            expires_at: Some(self.clock.now()),
            expires_in_seconds: Some(0),
            grace_until: None,
        }
    }

    /// The place at once and then whenever it changes, at most once per `poll_after_ms`; ends with its end.
    pub fn changes(self: &Arc<Self>, claims: Claims) -> impl Stream<Item = QueueToken> + Send + use<> {
        let room = Arc::clone(self);
        futures::stream::once(async move { room.look(&claims) })
    }

    /// Whether this token lets this user book at this concert. The first pass begins the session.
    pub fn pass(&self, _token: Option<&str>, _user: UserId, _concert: ConcertId) -> Result<Claims, Refused> {
        Err(Refused::Required)
    }

    /// The same for a payment, where a live hold is a pass of its own: signature, user and concert must be right.
    pub fn pass_for_payment(
        &self,
        _token: Option<&str>,
        _user: UserId,
        _concert: ConcertId,
    ) -> Result<PassState, Refused> {
        Err(Refused::Required)
    }

    /// Keeps the session of this user alive at least until `until`: the end of a hold. Does not wait.
    pub fn extend_to(&self, _user: UserId, _concert: ConcertId, _until: DateTime<Utc>) {}

    /// Ends this place (and no later one of the same user): after a payment, or given up. It is refused here at once
    /// and elsewhere within a moment; this waits a little (at most 1 s) until it is written down.
    pub async fn end(&self, _claims: &Claims) {}

    /// Every concert's line. Needs no database.
    pub fn overview(&self) -> Vec<QueueOverview> {
        Vec::new()
    }

    /// One concert's line.
    pub async fn overview_of(&self, _concert: ConcertId) -> Result<QueueOverview, RoomError> {
        Err(RoomError::NotFound)
    }

    /// The settings of a concert's line.
    pub async fn settings(&self, _concert: ConcertId) -> Result<QueueSettings, RoomError> {
        Err(RoomError::NotFound)
    }

    /// Changes settings, in force on every instance within a second. The caller has checked the bounds ([`SettingsChange::problems`]).
    pub async fn change_settings(
        &self,
        _concert: ConcertId,
        _change: &SettingsChange,
    ) -> Result<QueueSettings, RoomError> {
        Err(RoomError::NotFound)
    }

    /// Admits the next `count` in line now: beyond the rate, never beyond the cap. Answers how many it were.
    pub async fn admit(&self, _concert: ConcertId, _count: u32) -> Result<u32, RoomError> {
        Err(RoomError::Unavailable)
    }
}
