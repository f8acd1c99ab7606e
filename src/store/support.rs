//! What the support desk finds and changes: reservations of any user, refunds of single seats, points as goodwill.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;
use super::operations::OperatorAct;
use super::redemptions;
use super::reservations::{Line, ReservationStatus};

/// After this long the server cancels a search, in milliseconds.
const SEARCH_MILLISECONDS: i64 = 4_000;

/// Which reservations are meant; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Search {
    pub user: Option<Uuid>,
    pub performance: Option<Uuid>,
    pub ticket: Option<Uuid>,
    pub status: Option<ReservationStatus>,
}

/// The ids of reservations that match, newest first, below `before`. Each condition but the status has an index of its own; a plan
/// for any conditions would use none, so each kind of search is a statement of its own.
pub async fn search(pool: &PgPool, wanted: &Search, before: Option<Uuid>, limit: i64) -> Result<Vec<Uuid>> {
    let mut tx = pool.begin().await?;
    sqlx::query!(
        r#"select set_config('statement_timeout', $1, true) as bounded"#,
        SEARCH_MILLISECONDS.to_string(),
    )
    .fetch_one(&mut *tx)
    .await?;
    let status = wanted.status.map(ReservationStatus::name);
    let found = match (wanted.ticket, wanted.user, wanted.performance) {
        (Some(ticket), user, performance) => {
            sqlx::query_scalar!(
                r#"
                select r.id from tickets t join reservations r on r.id = t.reservation_id
                where t.id = $1 and ($2::uuid is null or r.user_id = $2) and ($3::uuid is null or r.performance_id = $3)
                  and ($4::text is null or r.status = $4) and ($5::uuid is null or r.id < $5)
                order by r.id desc limit $6
                "#,
                ticket,
                user,
                performance,
                status,
                before,
                limit,
            )
            .fetch_all(&mut *tx)
            .await?
        }
        (None, Some(user), performance) => {
            sqlx::query_scalar!(
                r#"
                select id from reservations
                where user_id = $1 and ($2::uuid is null or performance_id = $2)
                  and ($3::text is null or status = $3) and ($4::uuid is null or id < $4)
                order by id desc limit $5
                "#,
                user,
                performance,
                status,
                before,
                limit,
            )
            .fetch_all(&mut *tx)
            .await?
        }
        (None, None, performance) => {
            sqlx::query_scalar!(
                r#"
                with found as materialized (
                    select id from reservations
                    where performance_id = $1 and ($2::text is null or status = $2) and ($3::uuid is null or id < $3)
                )
                select id as "id!" from found order by id desc limit $4
                "#,
                performance,
                status,
                before,
                limit,
            )
            .fetch_all(&mut *tx)
            .await?
        }
    };
    tx.rollback().await?;
    Ok(found)
}

/// A reservation whose seats may be refunded, locked.
#[derive(Clone, Debug)]
pub struct Sold {
    pub user_id: Uuid,
    pub concert_id: Uuid,
    pub performance_id: Uuid,
    pub status: ReservationStatus,
    pub cancellation_id: Option<Uuid>,
    pub lines: Json<Vec<Line>>,
}

/// Locks a reservation.
pub async fn lock(conn: &mut PgConnection, id: Uuid) -> Result<Option<Sold>> {
    sqlx::query_as!(
        Sold,
        r#"
        select user_id, concert_id, performance_id, status as "status: ReservationStatus", cancellation_id,
               lines as "lines: Json<Vec<Line>>"
        from reservations where id = $1 for no key update
        "#,
        id,
    )
    .fetch_optional(conn)
    .await
}

/// A seat that support took off a reservation.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct SeatRefund {
    pub seat: i32,
    /// In points.
    pub amount: i64,
    /// The ledger entry that gave the points back; null for a seat that cost nothing.
    pub entry_id: Option<Uuid>,
    /// The key that did it.
    pub actor: String,
    pub reason: String,
    pub refunded_at: DateTime<Utc>,
}

/// The seats that were refunded of a reservation.
pub async fn seat_refunds(db: impl PgExecutor<'_>, reservation: Uuid) -> Result<Vec<SeatRefund>> {
    sqlx::query_as!(
        SeatRefund,
        r#"
        select seat, amount, entry_id, actor, reason, refunded_at from seat_refunds
        where reservation_id = $1 order by refunded_at, seat
        "#,
        reservation,
    )
    .fetch_all(db)
    .await
}

/// Takes seats off a reservation that is locked: their refunds, tickets and rows, and what remains of the reservation. Answers how
/// many seats were freed.
pub async fn take_seats_off(
    conn: &mut PgConnection,
    reservation: Uuid,
    refunds: &[SeatRefund],
    remaining: &[Line],
    now: DateTime<Utc>,
) -> Result<u64> {
    let seats: Vec<i32> = refunds.iter().map(|refund| refund.seat).collect();
    let amounts: Vec<i64> = refunds.iter().map(|refund| refund.amount).collect();
    let entries: Vec<Option<Uuid>> = refunds.iter().map(|refund| refund.entry_id).collect();
    let (actor, reason) =
        refunds.first().map_or(("", ""), |refund| (refund.actor.as_str(), refund.reason.as_str()));
    sqlx::query!(
        r#"
        insert into seat_refunds (reservation_id, seat, amount, entry_id, actor, reason, refunded_at)
        select $1, seat, amount, entry_id, $5, $6, $7
        from unnest($2::int[], $3::bigint[], $4::uuid[]) as new (seat, amount, entry_id)
        "#,
        reservation,
        &seats,
        &amounts,
        &entries as &[Option<Uuid>],
        actor,
        reason,
        now,
    )
    .execute(&mut *conn)
    .await?;
    let tickets = sqlx::query_scalar!(
        "update tickets set status = 'void', voided_at = $3
         where reservation_id = $1 and seat = any($2) and status = 'valid' returning id",
        reservation,
        &seats,
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    redemptions::undo(&mut *conn, &tickets, actor, reason).await?;
    let kept: Vec<i32> = remaining.iter().map(|line| line.number).collect();
    let amount: i64 = remaining.iter().filter_map(|line| line.price).sum();
    sqlx::query!(
        "update reservations set seats = $2, lines = $3, amount = $4, updated_at = $5 where id = $1",
        reservation,
        &kept,
        Json(remaining) as _,
        amount,
        now,
    )
    .execute(&mut *conn)
    .await?;
    let freed = sqlx::query!(
        r#"
        with mine as (
            select s.performance_id, s.number from reservations r
            join seats s on s.performance_id = r.performance_id and s.number = any ($2)
            where r.id = $1 and s.holder = r.id
            order by s.number for no key update of s
        )
        update seats set status = 'free', holder = null, expires_at = null, claimable_at = null
        from mine where seats.performance_id = mine.performance_id and seats.number = mine.number
        "#,
        reservation,
        &seats,
    )
    .execute(conn)
    .await?;
    Ok(freed.rows_affected())
}

/// A ledger entry of a reservation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StoryEntry {
    pub id: Uuid,
    pub kind: String,
    pub amount: i64,
    pub balance: i64,
    pub reverses_id: Option<Uuid>,
    pub created_at: DateTime<Utc>,
}

/// The ledger entries of a reservation, oldest first.
pub async fn entries_of(db: impl PgExecutor<'_>, user: Uuid, reservation: Uuid) -> Result<Vec<StoryEntry>> {
    sqlx::query_as!(
        StoryEntry,
        r#"
        select id, kind, amount, balance, reverses_id, created_at from ledger_entries
        where user_id = $1 and reservation_id = $2 order by position
        "#,
        user,
        reservation,
    )
    .fetch_all(db)
    .await
}

/// The sagas about a reservation, its booking first.
pub async fn sagas_of(db: impl PgExecutor<'_>, reservation: Uuid) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        select id as "id!" from (
            select id from sagas where id = $1
            union all
            select id from sagas where subject_id = $1 and subject_id <> id
        ) as found order by id
        "#,
        reservation,
    )
    .fetch_all(db)
    .await
}

/// The acts on these sagas and on this target, newest first.
pub async fn acts_about(
    db: impl PgExecutor<'_>,
    sagas: &[Uuid],
    target: &str,
    limit: i64,
) -> Result<Vec<OperatorAct>> {
    sqlx::query_as!(
        OperatorAct,
        r#"
        select id, at, actor, act, saga_id, reason, from_status, to_status, target, detail
        from operator_acts where saga_id = any($1) or target = $2
        order by id desc limit $3
        "#,
        sagas,
        target,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Keeps others from giving goodwill under this key until the transaction ends, and answers what it has given since then.
pub async fn lock_goodwill(conn: &mut PgConnection, key: Uuid, since: DateTime<Utc>) -> Result<i64> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended($1::uuid::text, 20113)) as "locked: ()""#,
        key
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!(
        r#"
        select coalesce(sum(amount), 0)::bigint as "given!" from goodwill_grants
        where api_key_id = $1 and granted_at > $2
        "#,
        key,
        since,
    )
    .fetch_one(conn)
    .await
}

/// Notes why points were given, and by whom.
pub async fn insert_goodwill(
    db: impl PgExecutor<'_>,
    entry: Uuid,
    (key, user): (Uuid, Uuid),
    (amount, reason): (i64, &str),
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "insert into goodwill_grants (entry_id, api_key_id, user_id, amount, reason, granted_at)
         values ($1, $2, $3, $4, $5, $6)",
        entry,
        key,
        user,
        amount,
        reason,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}
