//! Paying for a hold, in the order of checks that the contract gives.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::Answer;
use super::auth::AuthUser;
use super::error::Code;
use super::gate::QueuePass;
use super::keyed::{self, Earlier, Effect};
use super::problem::{Problem, Result};
use super::request::{Command, NoBody, PathId};
use super::reservation_view::ReservationView;
use super::reservations::{self, own};
use super::result_mapping::{Wanted, expired, is_fulfilled, not_payable, was_fulfilled};
use super::state::AppState;
use super::tickets::code;
use crate::booking;
use crate::ids::{ReservationId, UserId};
use crate::saga;
use crate::store::reservations::{Payment, Reservation, ReservationStatus, Ticket};
use crate::ticket_codes::TicketKeys;
use crate::waiting_room::PassState;

/// How far this machine's clock may be behind the database's between two comparisons.
const CLOCKS_APART: TimeDelta = TimeDelta::milliseconds(500);

/// What a buyer gets for a payment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Receipt {
    payment_id: Uuid,
    reservation_id: Uuid,
    /// `succeeded`.
    status: String,
    amount: i64,
    paid_at: Option<DateTime<Utc>>,
    tickets: Vec<ReceiptTicket>,
}

/// A ticket on a receipt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReceiptTicket {
    id: Uuid,
    seat: i32,
    /// Null for a ticket that another user has taken over since.
    code: Option<String>,
}

impl Receipt {
    /// The receipt of a reservation that was paid. One that an operator confirmed by hand may have no payment.
    fn of(reservation: Reservation, keys: &TicketKeys) -> Result<Self> {
        let payment = paid(&reservation).cloned().ok_or_else(|| unpaid(&reservation))?;
        let performance_id = reservation.performance_id;
        let ticket = |ticket: Ticket| ReceiptTicket {
            id: ticket.id,
            seat: ticket.seat,
            code: code(&ticket, performance_id, keys),
        };
        Ok(Self {
            payment_id: payment.id,
            reservation_id: reservation.id,
            // As it was when it was paid, though it may be refunded by now.
            status: "succeeded".to_owned(),
            amount: payment.amount,
            paid_at: payment.paid_at,
            tickets: reservation.tickets.0.into_iter().map(ticket).collect(),
        })
    }
}

fn paid(reservation: &Reservation) -> Option<&Payment> {
    reservation.payment.as_deref().filter(|payment| payment.status != "failed")
}

fn unpaid(reservation: &Reservation) -> Problem {
    let words = "The reservation is confirmed without a payment: it was settled by hand, and nothing is to be paid here.";
    let status = serde_json::json!(reservation.status);
    Problem::new(Code::ReservationNotPayable, words).with("reservation_status", status)
}

/// Pays for a hold with the caller's points. Paying again gives the same receipt and takes nothing.
#[utoipa::path(post, path = "/v1/reservations/{reservation}/payment", tag = "reservations",
    params(("reservation" = Uuid, Path)), security(("user" = [], "queue_token" = [])),
    responses((status = 201, body = Receipt, description = "Paid"),
              (status = 200, body = Receipt, description = "Was paid before: the same body"),
              (status = 202, body = ReservationView,
               description = "Not settled yet: see Location and Retry-After")),
    extensions(("x-problems" = json!(["insufficient_points", "not_found", "queue_token", "hold_expired",
        "reservation_not_payable", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn pay(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    PathId(id): PathId,
    pass: QueuePass,
    command: Command<NoBody>,
) -> Result<Response> {
    let (_, claim) = command.claimed_by(user.caller());
    keyed::once(&app.repeats, claim, &Pay { app: &app, user: user.id, id, pass }).await
}

/// A request to pay for a reservation.
struct Pay<'a> {
    app: &'a AppState,
    user: UserId,
    id: ReservationId,
    pass: QueuePass,
}

impl keyed::Request for Pay<'_> {
    async fn work(&self, effect: &Effect) -> Result<Answer> {
        let reservation = own(self.app, self.id, self.user).await?;
        match stand(&reservation, self.app.clock.now()) {
            Stand::Paid => return receipt(self.app, reservation, effect.began),
            Stand::Expired => return Err(expired()),
            Stand::NotPayable => return Err(not_payable(&reservation)),
            Stand::Payable => {}
        }
        // A live hold is its own pass: the token must be this user's and this concert's, but may have run out.
        let concert = reservation.concert_id;
        let pass = self.app.room.pass_for_payment(self.pass.token(), self.user, concert)?;
        settle(self.app, &reservation, &pass, effect).await
    }

    async fn earlier_answer(&self, earlier: Earlier) -> Result<Option<Answer>> {
        let Some(reservation) = self.app.booking.settled(self.id, true).await? else {
            return Ok(None);
        };
        let is_own = reservation.user_id == self.user;
        if !is_own || !was_fulfilled(&reservation, Wanted::Paid) || paid(&reservation).is_none() {
            return Ok(None);
        }
        receipt(self.app, reservation, earlier.began).map(Some)
    }
}

/// 201 for the payment that the request has begun, else 200.
fn receipt(app: &AppState, reservation: Reservation, began: bool) -> Result<Answer> {
    let receipt = Receipt::of(reservation, &app.tickets)?;
    Ok(if began { Answer::created(&receipt) } else { Answer::ok(&receipt) })
}

/// Where a reservation stands towards a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Paid,
    Expired,
    NotPayable,
    Payable,
}

fn stand(reservation: &Reservation, now: DateTime<Utc>) -> Stand {
    use ReservationStatus as R;
    let over = reservation.expires_at.is_none_or(|at| at <= now);
    let over_soon = reservation.expires_at.is_none_or(|at| at <= now + CLOCKS_APART);
    match (reservation.status, reservation.saga_status) {
        (R::Confirmed, _) => Stand::Paid,
        (R::Expired, _) => Stand::Expired,
        // A payment that is under way is waited for, whatever the clock says by now.
        (R::Held, Some(saga::Status::Running)) => Stand::Payable,
        (R::Held, _) if over => Stand::Expired,
        // The database's clock ended it a moment before ours does.
        (R::Held, Some(saga::Status::Compensating)) if over_soon => Stand::Expired,
        (R::Held, Some(saga::Status::Waiting)) => Stand::Payable,
        (R::Held | R::Pending | R::Cancelled | R::Failed, _) => Stand::NotPayable,
    }
}

async fn settle(app: &AppState, seen: &Reservation, pass: &PassState, effect: &Effect) -> Result<Answer> {
    let (answer, began) = app.booking.pay_seen(seen.id, Some(seen), effect.key()).await?;
    let reservation = match answer {
        booking::Answer::Pending(reservation) => {
            return Ok(reservations::pending(app, *reservation));
        }
        booking::Answer::Settled(reservation) => *reservation,
    };
    if !is_fulfilled(&reservation, Wanted::Paid)? {
        return Ok(reservations::pending(app, reservation));
    }
    // A place in line that this user took since is not the one that this payment was made with.
    if let PassState::Live(claims) = pass {
        app.room.end(claims).await;
    }
    receipt(app, reservation, began || effect.began)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use saga::Status as S;
    use sqlx::types::Json;

    /// A reservation with a hold that lives ten more seconds at the time zero.
    pub fn reservation(status: ReservationStatus, saga_status: Option<S>) -> Reservation {
        let zero = DateTime::UNIX_EPOCH;
        Reservation {
            id: Uuid::nil(),
            user_id: Uuid::nil(),
            concert_id: Uuid::nil(),
            performance_id: Uuid::nil(),
            status,
            reason: None,
            detail: None,
            seats: vec![1],
            lines: Json(Vec::new()),
            amount: 100,
            expires_at: Some(zero + TimeDelta::seconds(10)),
            claimable_at: Some(zero + TimeDelta::seconds(25)),
            cancellation_id: None,
            created_at: zero,
            payment: None,
            tickets: Json(Vec::new()),
            saga_status,
            saga_visit: Some(1),
            saga_rejection: None,
            held_instead: None,
        }
    }

    fn check(status: ReservationStatus, saga: S, seconds: i64, expected: Stand) {
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        assert_eq!(stand(&reservation(status, Some(saga)), now), expected, "{status:?} {saga:?} {seconds}");
    }

    #[test]
    fn what_can_be_paid_and_what_cannot() {
        use ReservationStatus as R;
        check(R::Held, S::Waiting, 9, Stand::Payable);
        check(R::Held, S::Waiting, 10, Stand::Expired);
        check(R::Held, S::Running, 12, Stand::Payable);
        check(R::Held, S::Compensating, 9, Stand::NotPayable);
        check(R::Held, S::Compensating, 10, Stand::Expired);
        check(R::Confirmed, S::Completed, 99, Stand::Paid);
        check(R::Expired, S::Compensated, 99, Stand::Expired);
        check(R::Cancelled, S::Compensated, 1, Stand::NotPayable);
        check(R::Failed, S::Compensated, 1, Stand::NotPayable);
        check(R::Pending, S::Running, 1, Stand::NotPayable);
    }
}
