//! What the service answers, as far as a buyer reads it. Written from the published contract, not from the
//! service's own types, so that a change of shape is noticed here.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub access_token: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    pub items: Vec<T>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Concert {
    pub id: Uuid,
    pub on_sale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PlaceStatus {
    Waiting,
    Active,
    Expired,
}

/// The place in line.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Place {
    pub token: String,
    pub status: PlaceStatus,
    pub inventory: String,
    pub position: Option<u64>,
    pub poll_after_ms: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Date {
    pub id: Uuid,
    pub seats_free: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct SeatMap {
    pub seats: Vec<Seat>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Seat {
    pub number: i32,
}

/// A reservation, which is also the answer to a cancellation.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Reservation {
    pub id: Uuid,
    pub status: String,
    pub seats: Vec<Seat>,
    pub amount: i64,
    pub expires_in_seconds: Option<f64>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Payment {
    pub payment_id: Uuid,
    pub amount: i64,
    pub tickets: Vec<Ticket>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Ticket {
    pub id: Uuid,
    pub seat: i32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Points {
    pub balance: i64,
}

/// The id of whatever was made.
#[derive(Debug, Deserialize)]
pub(super) struct Made {
    pub id: Uuid,
}

/// A refusal: RFC 9457 with a code of ours, and whatever else belongs to it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Problem {
    #[serde(skip)]
    pub status: u16,
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub detail: String,
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}
