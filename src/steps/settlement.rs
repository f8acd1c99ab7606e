//! What an operator's act on a saga means for its reservation, in the transaction of the act.
//!
//! An act that ends a saga ends the reservation too, and frees its seats: nothing else would. Points are left as they are. If
//! points were taken and no ticket is there for them, or a confirmed reservation was never paid, the answer names it as left to
//! settle, the record of the act keeps it, and the audit lists it until the rows agree again. An operator gives points back with
//! `saga refund`.

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::orchestrator::ActDone;
use crate::saga::{Direction, OperatorAction, Saga};
use crate::store;
use crate::store::reservations::{BookingInput, Reservation, ReservationStatus};
use crate::store::settlements;

/// A reservation after an operator's act on its saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Settlement {
    pub reservation_id: Uuid,
    pub status: ReservationStatus,
    /// The seats that the act has freed.
    pub seats_freed: Vec<i32>,
    pub left_to_settle: Vec<LeftToSettle>,
}

/// What an operator has to settle by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum LeftToSettle {
    /// Points were taken from this user, were not refunded, and there is no ticket for them.
    PointsTaken { user_id: Uuid, points: i64 },
    /// The reservation is confirmed, and this user has not paid for it.
    PointsOwed { user_id: Uuid, points: i64 },
    /// These seats could not be freed.
    SeatsHeld { seats: Vec<i32> },
}

/// Brings the reservation of a booking or a cancellation in line with what an operator did to its saga. Null where the act
/// has changed nothing about it and left nothing.
pub fn settle<'a>(conn: &'a mut PgConnection, done: &'a ActDone) -> BoxFuture<'a, store::Result<Value>> {
    async move {
        let Some(id) = reservation_of(&done.after) else {
            return Ok(Value::Null);
        };
        let settlement = settle_reservation(conn, done, id).await?;
        Ok(settlement.map_or(Value::Null, |settlement| serde_json::json!(settlement)))
    }
    .boxed()
}

/// The reservation of a booking or a cancellation.
pub fn reservation_of(saga: &Saga) -> Option<Uuid> {
    let is_ours = matches!(saga.workflow.as_str(), "booking" | "cancellation");
    let id = saga.input.get("reservation_id").and_then(Value::as_str).and_then(|id| id.parse().ok());
    id.filter(|_| is_ours)
}

async fn settle_reservation(
    conn: &mut PgConnection,
    done: &ActDone,
    id: Uuid,
) -> store::Result<Option<Settlement>> {
    let (ended, now) = (done.after.status.is_end(), done.after.updated_at);
    let (mut changed, mut seats_freed, mut seats_held) = (false, Vec::new(), Vec::new());
    if ended {
        changed = match done.after.workflow.as_str() {
            "booking" => fail_open(conn, &done.after).await?,
            _ => settlements::drop_cancellation(&mut *conn, id, done.after.id, now).await?,
        };
        match free_seats(conn, id).await {
            Ok(freed) => seats_freed = freed,
            // What keeps the seats must not keep the operator from giving the saga up.
            Err(error) => {
                tracing::warn!(saga = %done.after.id, %error, "seats of an ended saga could not be freed");
                seats_held = settlements::seats_left(&mut *conn, id).await?;
            }
        }
    }
    let Some(reservation) = store::reservations::get(&mut *conn, id).await? else {
        return Ok(None);
    };
    let mut left_to_settle = points_left(conn, done, &reservation).await?;
    if !seats_held.is_empty() {
        left_to_settle.push(LeftToSettle::SeatsHeld { seats: seats_held });
    }
    let nothing = !changed && seats_freed.is_empty() && left_to_settle.is_empty();
    let status = reservation.status;
    Ok((!nothing).then_some(Settlement { reservation_id: id, status, seats_freed, left_to_settle }))
}

/// Without a readable input there never was a reservation.
async fn fail_open(conn: &mut PgConnection, saga: &Saga) -> store::Result<bool> {
    match BookingInput::of(saga) {
        Ok(booking) => settlements::fail_open(conn, &booking, saga.created_at, saga.updated_at).await,
        Err(_) => Ok(false),
    }
}

/// Frees what the reservation still has; if that fails, the rest of the act stands.
async fn free_seats(conn: &mut PgConnection, reservation: Uuid) -> store::Result<Vec<i32>> {
    let mut savepoint = conn.begin().await?;
    let freed = settlements::free_seats(&mut savepoint, reservation).await?;
    savepoint.commit().await?;
    Ok(freed)
}

/// Points that no step of the saga will take or give back any more.
async fn points_left(
    conn: &mut PgConnection,
    done: &ActDone,
    reservation: &Reservation,
) -> store::Result<Vec<LeftToSettle>> {
    let (before, is_confirmed) = (&done.before, reservation.status == ReservationStatus::Confirmed);
    let at_payment = before.step == "pay" || before.step == "refund";
    let skipped_refund = done.act == OperatorAction::SkipUndo && at_payment;
    let mut left = Vec::new();
    if (done.after.status.is_end() || skipped_refund || completed_refund(done)) && !is_confirmed {
        let uses = store::payments::open_uses(&mut *conn, &[reservation.id]).await?;
        let taken = |used: store::payments::Use| LeftToSettle::PointsTaken {
            user_id: used.user_id,
            points: used.amount,
        };
        left.extend(uses.into_iter().map(taken));
    }
    let is_paid = reservation.payment.as_ref().is_some_and(|payment| payment.status == "succeeded");
    let completed_payment = matches!(done.act, OperatorAction::Complete { .. }) && before.step == "pay";
    if completed_payment && before.direction == Direction::Do && !is_paid && reservation.amount > 0 {
        left.push(LeftToSettle::PointsOwed { user_id: reservation.user_id, points: reservation.amount });
    }
    Ok(left)
}

/// The refund of a cancellation was taken as done.
fn completed_refund(done: &ActDone) -> bool {
    matches!(done.act, OperatorAction::Complete { .. }) && done.before.step == "refund"
}
