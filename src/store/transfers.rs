//! Transfers of tickets from their owner to another user.
//!
//! Each statement that changes a transfer or its ticket comes after a lock of the reservation, which scans and cancellations
//! lock too.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;

/// A ticket that a user may use.
#[derive(Clone, Debug)]
pub struct OwnTicket {
    pub ticket_id: Uuid,
    pub reservation_id: Uuid,
    pub performance_id: Uuid,
    pub seat: i32,
    pub starts_at: DateTime<Utc>,
    /// Neither void nor about to be refunded.
    pub is_valid: bool,
    pub is_redeemed: bool,
}

/// A ticket of this user, bought and kept or taken over. None for a ticket of another user.
pub async fn own_ticket(db: impl PgExecutor<'_>, user: Uuid, ticket: Uuid) -> Result<Option<OwnTicket>> {
    sqlx::query_as!(
        OwnTicket,
        r#"
        select t.id as ticket_id, t.reservation_id, t.performance_id, t.seat, p.starts_at,
            t.status = 'valid' and r.status = 'confirmed' and r.cancellation_id is null as "is_valid!",
            exists (select from redemptions v where v.ticket_id = t.id and v.status = 'valid') as "is_redeemed!"
        from tickets t
        join reservations r on r.id = t.reservation_id
        join performances p on p.id = t.performance_id
        where t.id = $2 and coalesce(t.holder_id, r.user_id) = $1 and t.reservation_id in (
            select own.id from reservations own where own.user_id = $1
            union all
            select taken.reservation_id from ticket_transfers taken
            where taken.taker_id = $1 and taken.status = 'accepted')
        "#,
        user,
        ticket,
    )
    .fetch_optional(db)
    .await
}

/// Keeps scans, cancellations and other transfers of a reservation away until the transaction ends.
pub async fn lock_reservation(conn: &mut PgConnection, reservation: Uuid) -> Result<()> {
    sqlx::query!("select id from reservations where id = $1 for no key update", reservation)
        .fetch_optional(conn)
        .await?;
    Ok(())
}

/// An offer about to be made.
#[derive(Clone, Debug)]
pub struct NewTransfer<'a> {
    pub id: Uuid,
    pub ticket: &'a OwnTicket,
    pub giver_id: Uuid,
    pub token_hash: &'a [u8],
    pub expires_at: DateTime<Utc>,
}

/// Withdraws the open offer of a ticket; false if there is none.
pub async fn withdraw(conn: &mut PgConnection, ticket: Uuid) -> Result<bool> {
    let done = sqlx::query!(
        "update ticket_transfers set status = 'withdrawn', ended_at = clock_timestamp()
         where ticket_id = $1 and status = 'open'",
        ticket,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Adds an offer. The ticket has no open one.
pub async fn insert(conn: &mut PgConnection, new: &NewTransfer<'_>) -> Result<()> {
    sqlx::query!(
        "insert into ticket_transfers
             (id, ticket_id, reservation_id, performance_id, seat, giver_id, token_hash, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        new.id,
        new.ticket.ticket_id,
        new.ticket.reservation_id,
        new.ticket.performance_id,
        new.ticket.seat,
        new.giver_id,
        new.token_hash,
        new.expires_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An offer as it is stored.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub id: Uuid,
    pub ticket_id: Uuid,
    pub reservation_id: Uuid,
    pub giver_id: Uuid,
    pub taker_id: Option<Uuid>,
    pub new_ticket_id: Option<Uuid>,
}

/// The offer with this token, whatever became of it.
pub async fn by_token(db: impl PgExecutor<'_>, token_hash: &[u8]) -> Result<Option<Transfer>> {
    sqlx::query_as!(
        Transfer,
        "select id, ticket_id, reservation_id, giver_id, taker_id, new_ticket_id
         from ticket_transfers where token_hash = $1",
        token_hash,
    )
    .fetch_optional(db)
    .await
}

/// Marks an open offer as accepted: a compare-and-set, won once. False if it has ended or run out.
pub async fn accept(conn: &mut PgConnection, id: Uuid, taker: Uuid, new_ticket: Uuid) -> Result<bool> {
    let done = sqlx::query!(
        "update ticket_transfers
         set status = 'accepted', ended_at = clock_timestamp(), taker_id = $2, new_ticket_id = $3
         where id = $1 and status = 'open' and expires_at > clock_timestamp()",
        id,
        taker,
        new_ticket,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives a ticket its new id and holder: its code changes with the id. False for a ticket that cannot be transferred any more.
pub async fn hand_over(conn: &mut PgConnection, transfer: Uuid) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        update tickets t set id = x.new_ticket_id, holder_id = x.taker_id, issued_at = x.ended_at
        from ticket_transfers x, reservations r, performances p
        where x.id = $1 and t.reservation_id = x.reservation_id and t.seat = x.seat and t.id = x.ticket_id
          and t.status = 'valid' and x.new_ticket_id is not null
          and r.id = t.reservation_id and r.status = 'confirmed' and r.cancellation_id is null
          and p.id = t.performance_id and p.starts_at > clock_timestamp()
          and not exists (select from redemptions v where v.ticket_id = t.id and v.status = 'valid')
        "#,
        transfer,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A ticket that was taken over.
#[derive(Clone, Debug)]
pub struct TakenTicket {
    pub transfer_id: Uuid,
    pub ticket_id: Uuid,
    pub performance_id: Uuid,
    pub seat: i32,
    pub status: String,
}

/// Tickets that this user has taken over and still has, the latest first, before the transfer `before`.
pub async fn taken_tickets(
    db: impl PgExecutor<'_>,
    user: Uuid,
    only: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<TakenTicket>> {
    sqlx::query_as!(
        TakenTicket,
        r#"
        select x.id as transfer_id, t.id as ticket_id, t.performance_id, t.seat, t.status
        from ticket_transfers x
        join tickets t on t.reservation_id = x.reservation_id and t.seat = x.seat and t.id = x.new_ticket_id
        where x.taker_id = $1 and x.status = 'accepted'
          and ($2::uuid is null or x.id = $2) and ($3::uuid is null or x.id < $3)
        order by x.id desc limit $4
        "#,
        user,
        only,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}
