//! Refunds by operators: of points that were taken for a reservation whose saga an operator has ended. No saga refunds them.
//!
//! A ledger entry can be reversed only once, by a refund or by a saga. A second request changes nothing and
//! answers with the same entry.

use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::config::Control;
use crate::ids;
use crate::saga::Status;
use crate::steps::reservation_of;
use crate::store::operations::{self, ActRow};
use crate::store::payments::{self, NewEntry};
use crate::store::reservations::{self, ReservationStatus};
use crate::store::sagas;
use crate::store::write_batch::WriteBatch;

/// The name of this act in the records of acts.
const ACT: &str = "refund";

/// Points that were given back.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Refunded {
    pub saga_id: Uuid,
    pub reservation_id: Uuid,
    pub user_id: Uuid,
    pub points: i64,
    /// The ledger entry that gives them back.
    pub entry_id: Uuid,
    /// The ledger entry that took them.
    pub reverses_id: Uuid,
    /// Whether they had been given back before: then this has changed nothing.
    pub was_refunded: bool,
}

/// Why points were not given back.
#[derive(Debug, thiserror::Error)]
pub enum RefundError {
    #[error("there is no such saga")]
    Unknown,
    #[error(
        "the saga is {0}; points are given back by hand only after it has ended: repair or abandon it first"
    )]
    NotEnded(Status),
    #[error("the reservation is confirmed or has tickets; a cancellation gives its points back")]
    HasTickets,
    #[error("no points were taken for a reservation of this saga")]
    NothingTaken,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Gives back the points of an ended saga's reservation that has no ticket, and writes down who did it and why.
pub async fn refund(pool: &PgPool, id: Uuid, actor: &str, reason: &str) -> Result<Refunded, RefundError> {
    let mut tx = pool.begin().await?;
    let (mut found, now) = sagas::lock(&mut tx, &[id]).await?;
    let saga = found.pop().ok_or(RefundError::Unknown)?;
    if !saga.status.is_end() {
        return Err(RefundError::NotEnded(saga.status));
    }
    let reservation_id = reservation_of(&saga).ok_or(RefundError::NothingTaken)?;
    let reservation = reservations::get(&mut tx, reservation_id).await?.ok_or(RefundError::NothingTaken)?;
    let has_tickets = reservation.tickets.iter().any(|ticket| ticket.status == "valid");
    if has_tickets || reservation.status == ReservationStatus::Confirmed {
        return Err(RefundError::HasTickets);
    }
    let user = [reservation.user_id];
    let (mut balances, _) = payments::balances_of(&mut tx, &user, Control::Pessimistic).await?;
    // Read under the lock of the account, so that another refund of the same entry is seen.
    let Some(used) = payments::open_uses(&mut *tx, &[reservation_id]).await?.pop() else {
        let before = payments::refund_of(&mut *tx, reservation_id).await?;
        let (entry_id, used) = before.ok_or(RefundError::NothingTaken)?;
        return Ok(refunded(id, &used, entry_id, true));
    };
    let balance = balances.change(&used.user_id).ok_or(sqlx::Error::RowNotFound)?;
    *balance += used.amount;
    let entry = NewEntry {
        id: ids::new(),
        user_id: used.user_id,
        kind: "refund",
        amount: used.amount,
        balance: *balance,
        reservation_id,
        reverses_id: Some(used.id),
    };
    let mut changes = WriteBatch::default();
    payments::save_balances(&mut changes, &balances, now);
    payments::enter(&mut changes, std::slice::from_ref(&entry), now);
    payments::mark_refunded(&mut changes, &[reservation_id], now);
    changes.write(&mut tx).await?;
    payments::note_unannounced(&mut *tx, entry.id, now).await?;
    let done = refunded(id, &used, entry.id, false);
    let detail = json!(done);
    let row = ActRow {
        actor,
        act: ACT,
        saga_id: Some(id),
        target: None,
        reason,
        from: saga.status.name(),
        to: saga.status.name(),
        detail: Some(&detail),
    };
    operations::record_act(&mut *tx, &row).await?;
    tx.commit().await?;
    Ok(done)
}

fn refunded(saga_id: Uuid, used: &payments::Use, entry_id: Uuid, was_refunded: bool) -> Refunded {
    let payments::Use { id: reverses_id, user_id, reservation_id, amount: points } = *used;
    Refunded { saga_id, reservation_id, user_id, points, entry_id, reverses_id, was_refunded }
}
