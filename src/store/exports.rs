//! Rows of exports, a page at a time in the order of their keys. All pages of one export read one snapshot.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::Result;

/// A reservation with its date and its payment.
#[derive(Clone, Debug, Serialize)]
pub struct ReservationRow {
    pub id: Uuid,
    pub user_id: Uuid,
    pub concert_id: Uuid,
    pub concert: Option<String>,
    pub performance_id: Uuid,
    pub venue: Option<String>,
    pub starts_at: Option<DateTime<Utc>>,
    pub status: String,
    pub reason: Option<String>,
    pub seats: Vec<i32>,
    /// The seats with section and price, as they were when held.
    pub lines: Json<Value>,
    pub amount: i64,
    pub expires_at: Option<DateTime<Utc>>,
    pub cancellation_id: Option<Uuid>,
    pub payment_id: Option<Uuid>,
    pub payment_status: Option<String>,
    pub paid_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// An entry of the ledger. `amount` is positive for each kind.
#[derive(Clone, Debug, Serialize)]
pub struct LedgerRow {
    pub id: Uuid,
    pub user_id: Uuid,
    pub kind: String,
    pub amount: i64,
    /// The balance after this entry.
    pub balance: i64,
    pub reservation_id: Option<Uuid>,
    pub reverses_id: Option<Uuid>,
    /// The order in which entries were written.
    pub position: i64,
    pub created_at: DateTime<Utc>,
}

/// A ticket with its buyer and its seat, without its code: that admits to the hall, so only the buyer gets it.
#[derive(Clone, Debug, Serialize)]
pub struct TicketRow {
    pub id: Uuid,
    pub reservation_id: Uuid,
    pub user_id: Option<Uuid>,
    pub concert_id: Option<Uuid>,
    pub concert: Option<String>,
    pub performance_id: Uuid,
    pub venue: Option<String>,
    pub starts_at: Option<DateTime<Utc>>,
    pub seat: i32,
    pub section: Option<String>,
    pub price: Option<i64>,
    pub status: String,
    pub issued_at: DateTime<Utc>,
    pub voided_at: Option<DateTime<Utc>>,
}

/// A scan at the entrance by which a ticket admitted.
#[derive(Clone, Debug, Serialize)]
pub struct RedemptionRow {
    pub id: Uuid,
    pub ticket_id: Uuid,
    pub reservation_id: Uuid,
    pub concert_id: Option<Uuid>,
    pub concert: Option<String>,
    pub performance_id: Uuid,
    pub venue: Option<String>,
    pub starts_at: Option<DateTime<Utc>>,
    pub seat: i32,
    pub gate: String,
    pub scanned_at: DateTime<Utc>,
    pub recorded_at: DateTime<Utc>,
    pub status: String,
    pub undone_at: Option<DateTime<Utc>>,
    pub undone_by: Option<String>,
    pub reason: Option<String>,
}

/// Bounds each statement of the transaction, and each wait of it for its client. The pool's own bound on waits is shorter than a
/// slow client needs for one page.
pub async fn bound(conn: &mut PgConnection, time: Duration) -> Result<()> {
    let limit = format!("{} ms", time.as_millis());
    sqlx::query!(
        r#"
        select set_config('statement_timeout', $1, true) as statements,
               set_config('idle_in_transaction_session_timeout', $1, true) as waits
        "#,
        limit,
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Reservations after this id.
pub async fn reservations(conn: &mut PgConnection, after: Uuid, limit: i64) -> Result<Vec<ReservationRow>> {
    sqlx::query_as!(
        ReservationRow,
        r#"
        select r.id, r.user_id, r.concert_id, c.name as "concert?", r.performance_id, p.venue as "venue?",
               p.starts_at as "starts_at?", r.status, r.reason, r.seats, r.lines as "lines: Json<Value>", r.amount,
               -- A time that the program cannot represent would end the export.
               case when r.expires_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
                   then r.expires_at end as expires_at,
               r.cancellation_id, paid.id as "payment_id?", paid.status as "payment_status?", paid.paid_at as "paid_at?",
               r.created_at, r.updated_at
        from (
            select id, user_id, concert_id, performance_id, status, reason, seats, lines, amount, expires_at, cancellation_id,
                   created_at, updated_at
            from reservations where id > $1 order by id limit $2
        ) as r
        left join concerts c on c.id = r.concert_id
        left join performances p on p.id = r.performance_id
        left join lateral (
            select own.id, own.status, own.paid_at from payments own where own.reservation_id = r.id limit 1) as paid on true
        order by r.id
        "#,
        after,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Entries of the ledger after this id.
pub async fn ledger(conn: &mut PgConnection, after: Uuid, limit: i64) -> Result<Vec<LedgerRow>> {
    sqlx::query_as!(
        LedgerRow,
        r#"
        select id, user_id, kind, amount, balance, reservation_id, reverses_id, position, created_at
        from ledger_entries where id > $1 order by id limit $2
        "#,
        after,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Tickets after this seat of this reservation: these two are their key.
pub async fn tickets(
    conn: &mut PgConnection,
    reservation: Uuid,
    seat: i32,
    limit: i64,
) -> Result<Vec<TicketRow>> {
    sqlx::query_as!(
        TicketRow,
        r#"
        select t.id, t.reservation_id, r.user_id as "user_id?", r.concert_id as "concert_id?", c.name as "concert?",
               t.performance_id, p.venue as "venue?", p.starts_at as "starts_at?", t.seat, s.section as "section?",
               s.price as "price?", t.status, t.issued_at, t.voided_at
        from (
            select id, reservation_id, performance_id, seat, status, issued_at, voided_at
            from tickets where (reservation_id, seat) > ($1, $2) order by reservation_id, seat limit $3
        ) as t
        left join reservations r on r.id = t.reservation_id
        left join concerts c on c.id = r.concert_id
        left join performances p on p.id = t.performance_id
        left join seats s on s.performance_id = t.performance_id and s.number = t.seat
        order by t.reservation_id, t.seat
        "#,
        reservation,
        seat,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Redemptions after this id.
pub async fn redemptions(conn: &mut PgConnection, after: Uuid, limit: i64) -> Result<Vec<RedemptionRow>> {
    sqlx::query_as!(
        RedemptionRow,
        r#"
        select d.id, d.ticket_id, d.reservation_id, p.concert_id as "concert_id?", c.name as "concert?", d.performance_id,
               p.venue as "venue?", p.starts_at as "starts_at?", d.seat, d.gate, d.scanned_at, d.recorded_at, d.status,
               d.undone_at, d.undone_by, d.reason
        from (
            select id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at, recorded_at, status, undone_at,
                   undone_by, reason
            from redemptions where id > $1 order by id limit $2
        ) as d
        left join performances p on p.id = d.performance_id
        left join concerts c on c.id = p.concert_id
        order by d.id
        "#,
        after,
        limit,
    )
    .fetch_all(conn)
    .await
}
