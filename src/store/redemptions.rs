//! Scans of tickets at the entrance. At most one scan of a ticket is valid: the earliest by the time of the scan.
//!
//! A scan locks the ticket's reservation against a cancellation that begins at the same moment. A cancellation locks the
//! same row before it looks for scans, so one of both sees the other.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;
use crate::ticket_codes::SignedTicket;

/// What a scan has come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RedemptionStatus {
    /// The earliest scan of its ticket.
    Valid,
    /// Another scan of the ticket was earlier.
    Duplicate,
    /// Support has taken it back.
    Undone,
}

/// How far from its start tickets of a performance can be redeemed.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub before: TimeDelta,
    pub after: TimeDelta,
}

/// A scan about to be stored.
#[derive(Clone, Debug)]
pub struct NewScan<'a> {
    pub id: Uuid,
    pub ticket: SignedTicket,
    pub gate: &'a str,
    /// None: at this moment, by the database's clock.
    pub scanned_at: Option<DateTime<Utc>>,
    pub api_key_id: Uuid,
}

/// A scan as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redemption {
    pub id: Uuid,
    pub ticket_id: Uuid,
    pub reservation_id: Uuid,
    pub performance_id: Uuid,
    pub seat: i32,
    pub gate: String,
    pub scanned_at: DateTime<Utc>,
    pub status: RedemptionStatus,
}

/// Redeems a ticket that is valid, within the bounds, and not redeemed. None if it is not; [`standing`] says why.
pub async fn redeem(
    db: impl PgExecutor<'_>,
    scan: &NewScan<'_>,
    bounds: Bounds,
) -> Result<Option<Redemption>> {
    sqlx::query_as!(
        Redemption,
        r#"
        with scan as (select coalesce($5::timestamptz, clock_timestamp()) as at),
        found as (
            select t.id, t.reservation_id, t.performance_id, t.seat, scan.at
            from scan
            join tickets t on t.performance_id = $2 and t.seat = $3 and t.status = 'valid' and t.id = $1
            join performances p on p.id = t.performance_id
            join reservations r on r.id = t.reservation_id
            where r.cancellation_id is null
              and scan.at >= p.starts_at - make_interval(secs => $7)
              and scan.at <= p.starts_at + make_interval(secs => $8)
              and not exists (select from redemptions v where v.ticket_id = t.id and v.status = 'valid')
            for share of r, t
        )
        insert into redemptions (id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at, api_key_id, status)
        select $6, id, reservation_id, performance_id, seat, $4, at, $9, 'valid' from found
        on conflict do nothing
        returning id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at,
                  status as "status: RedemptionStatus"
        "#,
        scan.ticket.ticket_id,
        scan.ticket.performance_id,
        scan.ticket.seat,
        scan.gate,
        scan.scanned_at,
        scan.id,
        bounds.before.num_seconds() as f64,
        bounds.after.num_seconds() as f64,
        scan.api_key_id,
    )
    .fetch_optional(db)
    .await
}

/// A ticket as a scan finds it. There is none for a date or a seat that does not exist.
#[derive(Clone, Debug)]
pub struct Standing {
    pub ticket_id: Uuid,
    pub starts_at: DateTime<Utc>,
    /// None for a ticket that is void, or whose reservation is being cancelled.
    pub reservation_id: Option<Uuid>,
}

/// The tickets as they stand, and the time.
pub async fn standing(
    db: impl PgExecutor<'_>,
    tickets: &[SignedTicket],
) -> Result<(Vec<Standing>, DateTime<Utc>)> {
    let (ids, dates, seats) = columns(tickets);
    let rows = sqlx::query!(
        r#"
        select wanted.ticket_id as "ticket_id!", p.starts_at, r.id as "reservation_id?", clock_timestamp() as "now!"
        from unnest($1::uuid[], $2::uuid[], $3::int[]) as wanted (ticket_id, performance_id, seat)
        join performances p on p.id = wanted.performance_id
        join seats s on s.performance_id = wanted.performance_id and s.number = wanted.seat
        left join tickets t on t.performance_id = wanted.performance_id and t.seat = wanted.seat
            and t.status = 'valid' and t.id = wanted.ticket_id
        left join reservations r on r.id = t.reservation_id and r.cancellation_id is null
        "#,
        &ids,
        &dates,
        &seats,
    )
    .fetch_all(db)
    .await?;
    let now = rows.first().map_or(DateTime::UNIX_EPOCH, |row| row.now);
    let standing = rows.into_iter().map(|row| Standing {
        ticket_id: row.ticket_id,
        starts_at: row.starts_at,
        reservation_id: row.reservation_id,
    });
    Ok((standing.collect(), now))
}

/// Keeps other scans and cancellations of these tickets' reservations away until the transaction ends.
pub async fn lock(conn: &mut PgConnection, tickets: &[SignedTicket]) -> Result<()> {
    let (ids, dates, seats) = columns(tickets);
    sqlx::query!(
        r#"
        select r.id from reservations r
        where r.id in (
            select t.reservation_id
            from unnest($1::uuid[], $2::uuid[], $3::int[]) as wanted (ticket_id, performance_id, seat)
            join tickets t on t.performance_id = wanted.performance_id and t.seat = wanted.seat
                and t.status = 'valid' and t.id = wanted.ticket_id)
        order by r.id for no key update
        "#,
        &ids,
        &dates,
        &seats,
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

fn columns(tickets: &[SignedTicket]) -> (Vec<Uuid>, Vec<Uuid>, Vec<i32>) {
    let ids = tickets.iter().map(|ticket| ticket.ticket_id).collect();
    let dates = tickets.iter().map(|ticket| ticket.performance_id).collect();
    (ids, dates, tickets.iter().map(|ticket| ticket.seat).collect())
}

/// Adds scans, each once by its ticket, gate and time. Which one of a ticket is valid is for [`settle`] to say.
pub async fn add(conn: &mut PgConnection, scans: &[(NewScan<'_>, Uuid, DateTime<Utc>)]) -> Result<()> {
    let tickets: Vec<SignedTicket> = scans.iter().map(|(scan, ..)| scan.ticket).collect();
    let (tickets, dates, seats) = columns(&tickets);
    let ids: Vec<Uuid> = scans.iter().map(|(scan, ..)| scan.id).collect();
    let keys: Vec<Uuid> = scans.iter().map(|(scan, ..)| scan.api_key_id).collect();
    let gates: Vec<String> = scans.iter().map(|(scan, ..)| scan.gate.to_owned()).collect();
    let reservations: Vec<Uuid> = scans.iter().map(|(_, reservation, _)| *reservation).collect();
    let times: Vec<DateTime<Utc>> = scans.iter().map(|(.., at)| *at).collect();
    sqlx::query!(
        r#"
        insert into redemptions (id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at, api_key_id, status)
        select id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at, api_key_id, 'duplicate'
        from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::text[], $7::timestamptz[], $8::uuid[])
            as new (id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at, api_key_id)
        on conflict (ticket_id, gate, scanned_at) do nothing
        "#,
        &ids,
        &tickets,
        &reservations,
        &dates,
        &seats,
        &gates,
        &times,
        &keys,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes the earliest scan of each ticket the valid one.
pub async fn settle(conn: &mut PgConnection, tickets: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"
        update redemptions v set status = 'duplicate'
        where v.ticket_id = any ($1) and v.status = 'valid' and exists (
            select from redemptions e
            where e.ticket_id = v.ticket_id and e.status = 'duplicate'
              and (e.scanned_at, e.recorded_at, e.id) < (v.scanned_at, v.recorded_at, v.id))
        "#,
        tickets,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        update redemptions v set status = 'valid'
        from (
            select distinct on (ticket_id) id from redemptions
            where ticket_id = any ($1) and status <> 'undone'
            order by ticket_id, scanned_at, recorded_at, id
        ) as first
        where v.id = first.id and v.status = 'duplicate'
        "#,
        tickets,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// All scans of these tickets, the earliest first.
pub async fn of_tickets(db: impl PgExecutor<'_>, tickets: &[Uuid]) -> Result<Vec<Redemption>> {
    sqlx::query_as!(
        Redemption,
        r#"
        select id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at,
               status as "status: RedemptionStatus"
        from redemptions where ticket_id = any ($1) order by scanned_at, recorded_at, id
        "#,
        tickets,
    )
    .fetch_all(db)
    .await
}

/// Takes back all scans of these tickets; returns those that were valid.
pub async fn undo(
    conn: &mut PgConnection,
    tickets: &[Uuid],
    actor: &str,
    reason: &str,
) -> Result<Vec<Redemption>> {
    // A scan that is being stored locks the reservation too.
    sqlx::query!(
        r#"
        select r.id from reservations r
        where r.id in (select reservation_id from redemptions where ticket_id = any ($1))
        order by r.id for no key update
        "#,
        tickets,
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query_as!(
        Redemption,
        r#"
        with before as (select id, status from redemptions where ticket_id = any ($1) and status <> 'undone'),
        undone as (
            update redemptions v set status = 'undone', undone_at = clock_timestamp(), undone_by = $2, reason = $3
            from before where v.id = before.id
            returning v.id, v.ticket_id, v.reservation_id, v.performance_id, v.seat, v.gate, v.scanned_at, v.status,
                      before.status as was
        )
        select id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at,
               status as "status: RedemptionStatus"
        from undone where was = 'valid' order by ticket_id
        "#,
        tickets,
        actor,
        reason,
    )
    .fetch_all(conn)
    .await
}

/// The redeemed tickets of some reservations.
pub async fn redeemed_tickets_of(db: impl PgExecutor<'_>, reservations: &[Uuid]) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        select t.id from tickets t
        where t.reservation_id = any ($1)
          and exists (select from redemptions v where v.ticket_id = t.id and v.status = 'valid')
        "#,
        reservations,
    )
    .fetch_all(db)
    .await
}

/// The redeemed tickets of a reservation.
pub async fn redeemed_tickets(db: impl PgExecutor<'_>, reservation: Uuid) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        select t.id from tickets t
        where t.reservation_id = $1
          and exists (select from redemptions v where v.ticket_id = t.id and v.status = 'valid')
        order by t.seat
        "#,
        reservation,
    )
    .fetch_all(db)
    .await
}

/// How many tickets of a date one gate has redeemed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GateCount {
    pub gate: String,
    pub redeemed: i64,
}

/// The valid tickets of a date; none if there is no such date.
pub async fn valid_tickets(db: impl PgExecutor<'_>, performance: Uuid) -> Result<Option<i64>> {
    sqlx::query_scalar!(
        r#"
        select (select count(*) from tickets t where t.performance_id = p.id and t.status = 'valid') as "valid!"
        from performances p where p.id = $1
        "#,
        performance,
    )
    .fetch_optional(db)
    .await
}

/// How many tickets of a date each gate has redeemed.
pub async fn counts(db: impl PgExecutor<'_>, performance: Uuid) -> Result<Vec<GateCount>> {
    sqlx::query_as!(
        GateCount,
        r#"
        select gate, count(*) as "redeemed!" from redemptions
        where performance_id = $1 and status = 'valid' group by gate order by gate
        "#,
        performance,
    )
    .fetch_all(db)
    .await
}
