//! What a client sees of a place in line: the queue token object.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Where a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In line.
    Waiting,
    /// Admitted: may book.
    Active,
    /// Over: ran out, was given up, or was used for a payment.
    Expired,
}

/// What the sale of a concert is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody is admitted yet.
    NotOpen,
    /// Early comers gather; nobody is admitted yet.
    PreQueue,
    /// The line moves.
    Open,
    /// Stopped by an operator for a while.
    Paused,
    /// Every seat is sold.
    SoldOut,
    /// No sale is open or to come.
    Closed,
}

/// How many seats are left, roughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Inventory {
    /// A tenth of the seats or more.
    Available,
    /// Fewer than a tenth.
    Low,
    /// None: every seat is sold.
    SoldOut,
}

/// A place in the line of a concert, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QueueToken {
    /// What to send as `Queue-Token` from now on; it is issued anew on admission.
    pub token: String,
    pub concert_id: Uuid,
    pub user_id: Uuid,
    pub status: Status,
    pub phase: Phase,
    pub inventory: Inventory,
    /// 1 = next to be admitted; null unless waiting.
    pub position: Option<u64>,
    /// How many wait before this place; null unless waiting.
    pub ahead: Option<u64>,
    /// Estimated seconds until admission; null if there is nothing to estimate from, and unless waiting.
    pub eta_seconds: Option<u64>,
    /// Whether the estimate rests on the rate and the admissions seen.
    pub eta_known: bool,
    /// When to ask again, in milliseconds from now.
    pub poll_after_ms: u64,
    pub issued_at: DateTime<Utc>,
    pub activated_at: Option<DateTime<Utc>>,
    /// When the session ends; null while waiting.
    pub expires_at: Option<DateTime<Utc>>,
    /// The same, in whole seconds from now, so that the client's clock does not matter; never below 0.
    pub expires_in_seconds: Option<i64>,
    /// Until when the place of somebody who went silent is kept; null for whoever is in line.
    pub grace_until: Option<DateTime<Utc>>,
}
