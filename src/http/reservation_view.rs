//! A reservation as its buyer sees it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::Result;
use super::state::AppState;
use super::tickets::TicketView;
use crate::store::reservations::{Line, Payment, Reservation, ReservationStatus};
use crate::ticket_codes::TicketKeys;

/// What a buyer sees of a reservation.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Reservation)]
pub struct ReservationView {
    id: Uuid,
    performance_id: Uuid,
    status: ReservationStatus,
    /// Section and price are null while it is pending.
    seats: Vec<Line>,
    amount: i64,
    /// Until when a payment is accepted; null until the seats are held.
    expires_at: Option<DateTime<Utc>>,
    /// The same in seconds from now, never below 0.
    expires_in_seconds: Option<i64>,
    created_at: DateTime<Utc>,
    /// A code, for one that did not end well.
    reason: Option<String>,
    payment: Option<Payment>,
    tickets: Vec<TicketView>,
    /// The date as it is now, at most a second old; left out of answers to anything but GET.
    #[serde(skip_serializing_if = "Option::is_none")]
    performance: Option<DateOfReservation>,
}

/// What a buyer wants to know of the date.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DateOfReservation {
    venue: String,
    starts_at: DateTime<Utc>,
    duration_minutes: i32,
    /// When it was cancelled; null unless it was.
    cancelled_at: Option<DateTime<Utc>>,
}

impl ReservationView {
    /// The reservation as it looks at this time, with the codes of its tickets.
    pub fn of(reservation: Reservation, keys: &TicketKeys, now: DateTime<Utc>) -> Self {
        let unpriced = |number: &i32| Line { number: *number, section: None, price: None };
        let mut seats = reservation.lines.0;
        if seats.is_empty() {
            seats = reservation.seats.iter().map(unpriced).collect();
        }
        let ticket = |ticket| TicketView::of(ticket, reservation.performance_id, keys);
        let tickets = reservation.tickets.0.into_iter().map(ticket).collect();
        // Rounded up, so that a hold never looks as if it had run out before it has.
        let left = |at: DateTime<Utc>| ((at - now).num_milliseconds().max(0) + 999) / 1_000;
        Self {
            id: reservation.id,
            performance_id: reservation.performance_id,
            status: reservation.status,
            seats,
            amount: reservation.amount,
            expires_at: reservation.expires_at,
            expires_in_seconds: reservation.expires_at.map(left),
            created_at: reservation.created_at,
            reason: reservation.reason,
            payment: reservation.payment.map(|payment| payment.0),
            tickets,
            performance: None,
        }
    }

    /// The same with its date.
    pub async fn with_date(self, app: &AppState) -> Result<Self> {
        let date = app.catalog.date(self.performance_id).await?;
        let performance = DateOfReservation {
            venue: date.venue.clone(),
            starts_at: date.starts_at,
            duration_minutes: date.duration_minutes,
            cancelled_at: date.cancelled_at,
        };
        Ok(Self { performance: Some(performance), ..self })
    }
}
