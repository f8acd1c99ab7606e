//! Reservations: what a buyer sees of a booking, written by its steps.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;
use super::changes::{Changes, Rank};
use super::names::OptionalName;

/// What a buyer sees a reservation as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum ReservationStatus {
    Pending,
    Held,
    Confirmed,
    Expired,
    Cancelled,
    Failed,
}

impl ReservationStatus {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Held, Self::Confirmed, Self::Expired, Self::Cancelled, Self::Failed];

    /// Its name in the table and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Confirmed => "confirmed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// A seat of a reservation, as it was when held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Line {
    pub number: i32,
    pub section: Option<String>,
    pub price: Option<i64>,
}

/// The payment of a reservation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Payment {
    pub id: Uuid,
    /// `succeeded`, `failed` or `refunded`.
    pub status: String,
    pub amount: i64,
    pub paid_at: Option<DateTime<Utc>>,
}

/// A ticket for one seat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Ticket {
    pub id: Uuid,
    pub seat: i32,
    pub code: String,
    /// `valid` or `void`.
    pub status: String,
}

/// A reservation with its payment and tickets, and where its saga stands.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub id: Uuid,
    pub user_id: Uuid,
    pub concert_id: Uuid,
    pub performance_id: Uuid,
    pub status: ReservationStatus,
    pub reason: Option<String>,
    pub detail: Option<Value>,
    pub seats: Vec<i32>,
    pub lines: Json<Vec<Line>>,
    pub amount: i64,
    pub expires_at: Option<DateTime<Utc>>,
    pub claimable_at: Option<DateTime<Utc>>,
    pub cancellation_id: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub payment: Option<Json<Payment>>,
    pub tickets: Json<Vec<Ticket>>,
    /// None once the saga's rows are dropped by age.
    pub saga_status: Option<crate::saga::Status>,
    pub saga_visit: Option<i32>,
    pub saga_rejection: Option<Value>,
    /// For one that failed: the same user's live hold of exactly the same seats (both lists in order), if there is
    /// one.
    pub held_instead: Option<Uuid>,
}

impl Reservation {
    /// One whose saga has just begun, before anything has come of it.
    pub fn begun(new: &NewReservation, now: DateTime<Utc>) -> Self {
        Self {
            id: new.id,
            user_id: new.user_id,
            concert_id: new.concert_id,
            performance_id: new.performance_id,
            status: ReservationStatus::Pending,
            reason: None,
            detail: None,
            seats: new.seats.clone(),
            lines: Json(Vec::new()),
            amount: 0,
            expires_at: None,
            claimable_at: None,
            cancellation_id: None,
            created_at: now,
            payment: None,
            tickets: Json(Vec::new()),
            saga_status: Some(crate::saga::Status::Running),
            saga_visit: None,
            saga_rejection: None,
            held_instead: None,
        }
    }
}

/// A reservation about to be made.
#[derive(Clone, Debug)]
pub struct NewReservation {
    pub id: Uuid,
    pub user_id: Uuid,
    pub concert_id: Uuid,
    pub performance_id: Uuid,
    pub seats: Vec<i32>,
    /// It is paid as soon as the seats are held.
    pub pay_now: bool,
    /// The trace of the request; the saga goes on with it.
    pub trace: Option<Uuid>,
}

/// What a step does to a reservation; only what is given changes.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub id: Uuid,
    pub status: Option<&'static str>,
    pub reason: Option<String>,
    pub detail: Option<Value>,
    pub lines: Option<Value>,
    pub amount: Option<i64>,
    pub expires_at: Option<DateTime<Utc>>,
    pub claimable_at: Option<DateTime<Utc>>,
}

/// How a reservation ends that nothing has ended otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    pub id: Uuid,
    pub status: &'static str,
    pub reason: Option<String>,
}

/// Inserts pending reservations. One whose id is there already is what fails the whole statement, before all else.
pub fn insert(changes: &mut Changes, new: &[NewReservation], now: DateTime<Utc>) {
    let ids: Vec<Uuid> = new.iter().map(|one| one.id).collect();
    let users: Vec<Uuid> = new.iter().map(|one| one.user_id).collect();
    let concerts: Vec<Uuid> = new.iter().map(|one| one.concert_id).collect();
    let performances: Vec<Uuid> = new.iter().map(|one| one.performance_id).collect();
    let seats: Vec<Value> = new.iter().map(|one| serde_json::json!(one.seats)).collect();
    let sql = "
        insert into reservations (id, user_id, concert_id, performance_id, status, seats, created_at, updated_at)
        select id, user_id, concert_id, performance_id, 'pending',
               array(select jsonb_array_elements_text(seats)::int), $1, $1
        from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::jsonb[])
            as new (id, user_id, concert_id, performance_id, seats)
        returning 1";
    let part = changes.counted(Rank::NewReservations, "reserved", new.len(), sql).bind(now);
    part.bind(ids).bind(users).bind(concerts).bind(performances).bind(seats);
}

/// Writes what steps decided about reservations, each of which must exist; their sagas are compared or locked, and no other saga
/// writes them.
pub fn change(changes: &mut Changes, decided: &[Change], now: DateTime<Utc>) {
    if decided.is_empty() {
        return;
    }
    let ids: Vec<Uuid> = decided.iter().map(|one| one.id).collect();
    let statuses: Vec<Option<&str>> = decided.iter().map(|one| one.status).collect();
    let reasons: Vec<Option<&str>> = decided.iter().map(|one| one.reason.as_deref()).collect();
    let details: Vec<Option<&Value>> = decided.iter().map(|one| one.detail.as_ref()).collect();
    let lines: Vec<Option<&Value>> = decided.iter().map(|one| one.lines.as_ref()).collect();
    let amounts: Vec<Option<i64>> = decided.iter().map(|one| one.amount).collect();
    let expires: Vec<Option<DateTime<Utc>>> = decided.iter().map(|one| one.expires_at).collect();
    let claimable: Vec<Option<DateTime<Utc>>> = decided.iter().map(|one| one.claimable_at).collect();
    let sql = "
        update reservations set
            status = coalesce(new.status, reservations.status), reason = coalesce(new.reason, reservations.reason),
            detail = coalesce(new.detail, reservations.detail), lines = coalesce(new.lines, reservations.lines),
            amount = coalesce(new.amount, reservations.amount),
            expires_at = coalesce(new.expires_at, reservations.expires_at),
            claimable_at = coalesce(new.claimable_at, reservations.claimable_at), updated_at = $1
        from unnest($2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[], $7::bigint[],
                    $8::timestamptz[], $9::timestamptz[])
            as new (id, status, reason, detail, lines, amount, expires_at, claimable_at)
        where reservations.id = new.id
        returning 1";
    let distinct = ids.iter().collect::<BTreeSet<_>>().len();
    changes
        .complete("changed_reservations", distinct, sql)
        .bind(now)
        .bind(ids)
        .bind(statuses)
        .bind(reasons)
        .bind(details)
        .bind(lines)
        .bind(amounts)
        .bind(expires)
        .bind(claimable);
}

/// Ends reservations that no step has ended otherwise: of those still pending or held, each gets its new status. So many as
/// are open when the statement begins have to be ended by it.
pub fn end_open(changes: &mut Changes, ends: &[End], now: DateTime<Utc>) {
    if ends.is_empty() {
        return;
    }
    let ids: Vec<Uuid> = ends.iter().map(|end| end.id).collect();
    let statuses: Vec<&str> = ends.iter().map(|end| end.status).collect();
    let reasons: Vec<Option<&str>> = ends.iter().map(|end| end.reason.as_deref()).collect();
    let sql = "
        update reservations set status = new.status, reason = new.reason, updated_at = $1
        from unnest($2::uuid[], $3::text[], $4::text[]) as new (id, status, reason)
        where reservations.id = new.id and reservations.status in ('pending', 'held')
        returning 1";
    let open = "(select count(*) from ended_reservations) =
        (select count(*) from reservations where id = any($1) and status in ('pending', 'held'))";
    changes.check(Rank::Reservations, open).bind(ids.clone());
    changes.add("ended_reservations", sql).bind(now).bind(ids).bind(statuses).bind(reasons);
}

/// Marks a confirmed reservation as being cancelled by this saga: a compare-and-set, won once.
pub async fn claim_cancellation(
    conn: &mut PgConnection,
    id: Uuid,
    cancellation: Uuid,
    now: DateTime<Utc>,
) -> Result<bool> {
    let claimed = sqlx::query!(
        r#"
        update reservations set cancellation_id = $2, updated_at = $3
        where id = $1 and status = 'confirmed' and cancellation_id is null
          and $3 < (select starts_at from performances where performances.id = performance_id)
        "#,
        id,
        cancellation,
        now,
    )
    .execute(conn)
    .await?;
    Ok(claimed.rows_affected() == 1)
}

/// Whether the performance of a reservation has begun: from then on there is no cancellation.
pub async fn has_started(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool> {
    let started = sqlx::query_scalar!(
        r#"
        select p.starts_at <= clock_timestamp() as "started!" from reservations r
        join performances p on p.id = r.performance_id where r.id = $1
        "#,
        id,
    );
    Ok(started.fetch_optional(db).await?.unwrap_or(false))
}

/// One reservation, whoever's it is.
pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Reservation>> {
    Ok(select(db, &[id]).await?.pop())
}

/// Some reservations, whosever they are.
pub async fn get_many(db: impl PgExecutor<'_>, ids: &[Uuid]) -> Result<Vec<Reservation>> {
    select(db, ids).await
}

/// A user's reservations, newest first, those before `before` if it is given.
pub async fn of_user(
    conn: &mut PgConnection,
    user: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Reservation>> {
    let ids = sqlx::query_scalar!(
        "select id from reservations where user_id = $1 and ($2::uuid is null or id < $2) order by id desc limit $3",
        user,
        before,
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    select(conn, &ids).await
}

async fn select(db: impl PgExecutor<'_>, ids: &[Uuid]) -> Result<Vec<Reservation>> {
    sqlx::query_as!(
        Reservation,
        r#"
        select r.id, r.user_id, r.concert_id, r.performance_id, r.status as "status: ReservationStatus", r.reason,
               r.detail, r.seats, r.lines as "lines: Json<Vec<Line>>", r.amount,
               -- A time that the program cannot represent would end the task that reads it.
               case when r.expires_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
                   then r.expires_at end as expires_at,
               case when r.claimable_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
                   then r.claimable_at end as claimable_at,
               r.cancellation_id, r.created_at,
               (select jsonb_build_object('id', p.id, 'status', p.status, 'amount', p.amount, 'paid_at', p.paid_at)
                from payments p where p.reservation_id = r.id) as "payment: Json<Payment>",
               (select coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'seat', t.seat, 'code', t.code,
                                                             'status', t.status) order by t.seat), '[]')
                from tickets t where t.reservation_id = r.id) as "tickets!: Json<Vec<Ticket>>",
               case when s.id is not null then saga_status_name(s.status) end as "saga_status!: OptionalName<crate::saga::Status>", s.visit as "saga_visit?",
               s.rejection as saga_rejection,
               case when r.status = 'failed' then (
                   select h.id from reservations h
                   where h.user_id = r.user_id and h.performance_id = r.performance_id and h.seats = r.seats
                     and h.status = 'held' and h.expires_at > clock_timestamp() limit 1) end as held_instead
        from reservations r
        left join sagas s on s.id = r.id
        where r.id = any($1)
        order by r.id desc
        "#,
        ids,
    )
    .fetch_all(db)
    .await
}
