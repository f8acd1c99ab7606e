//! Reservations: what a buyer sees of a booking. Its hold inserts the row.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::names::OptionalName;
use super::{Result, sagas};
use crate::saga::{Saga, Status};

mod best;
mod write;

pub use best::BestSeats;
pub use write::{cancel, confirm, end_open, insert_holds};

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
    /// What was refunded of single seats; left out if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refunded: Option<i64>,
}

/// A ticket for one seat. Its code is derived from it, see [`crate::ticket_codes`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    pub id: Uuid,
    pub seat: i32,
    /// `valid` or `void`.
    pub status: String,
    /// The user who took it over from the buyer.
    #[serde(default)]
    pub holder_id: Option<Uuid>,
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
    pub saga_status: Option<Status>,
    pub saga_visit: Option<i32>,
    pub saga_rejection: Option<Value>,
    /// For one that failed: the same user's live hold of exactly the same seats (both lists in order), if there is
    /// one.
    pub held_instead: Option<Uuid>,
}

impl Reservation {
    /// One whose saga has begun, before anything has come of it.
    pub fn begun(booking: &BookingInput, placed_at: DateTime<Utc>) -> Self {
        Self {
            id: booking.reservation_id,
            user_id: booking.user_id,
            concert_id: booking.concert_id,
            performance_id: booking.performance_id,
            status: ReservationStatus::Pending,
            reason: None,
            detail: None,
            seats: booking.seats.clone(),
            lines: Json(Vec::new()),
            amount: 0,
            expires_at: None,
            claimable_at: None,
            cancellation_id: None,
            created_at: placed_at,
            payment: None,
            tickets: Json(Vec::new()),
            saga_status: Some(Status::Running),
            saga_visit: None,
            saga_rejection: None,
            held_instead: None,
        }
    }

    /// The reservation of a booking saga that has not come to its hold yet: it has no row of its own.
    fn of_saga(saga: &Saga) -> Option<Self> {
        let booking = BookingInput::of(saga).ok().filter(|booking| booking.reservation_id == saga.id)?;
        Some(Self {
            saga_status: Some(saga.status),
            saga_visit: Some(saga.visit),
            saga_rejection: saga.rejection.clone(),
            ..Self::begun(&booking, saga.created_at)
        })
    }
}

/// The input of a booking's saga, and of its cancellation's: it never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BookingInput {
    pub reservation_id: Uuid,
    pub user_id: Uuid,
    pub concert_id: Uuid,
    pub performance_id: Uuid,
    pub seats: Vec<i32>,
    /// The seats are chosen when they are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestSeats>,
    /// The seats are sold to a guest from this block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Uuid>,
    /// What the buyer has for the presale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_code: Option<Uuid>,
    /// It is paid as soon as the seats are held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pay_now: bool,
    /// What was paid, in points: for a cancellation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<i64>,
}

impl BookingInput {
    /// The input of this saga. Seats that were chosen by its hold are in the output of that step.
    pub fn of(saga: &Saga) -> serde_json::Result<Self> {
        let mut input = Self::deserialize(&*saga.input)?;
        if input.best.is_some()
            && let Some(chosen) = saga.context.get("seats")
        {
            input.seats = Vec::deserialize(chosen)?;
        }
        Ok(input)
    }
}

/// A reservation about to be made.
#[derive(Clone, Debug)]
pub struct NewReservation {
    pub id: Uuid,
    pub user_id: Uuid,
    pub concert_id: Uuid,
    pub performance_id: Uuid,
    /// None, if they are to be chosen.
    pub seats: Vec<i32>,
    pub best: Option<BestSeats>,
    /// The block from which staff sell the seats.
    pub block: Option<Uuid>,
    /// The buyer's access code.
    pub access_code: Option<Uuid>,
    /// It is paid as soon as the seats are held.
    pub pay_now: bool,
    /// The trace of the request; the saga goes on with it.
    pub trace: Option<Uuid>,
}

impl NewReservation {
    /// The input of its saga.
    pub fn input(&self) -> BookingInput {
        BookingInput {
            reservation_id: self.id,
            user_id: self.user_id,
            concert_id: self.concert_id,
            performance_id: self.performance_id,
            seats: self.seats.clone(),
            best: self.best.clone(),
            block: self.block,
            access_code: self.access_code,
            pay_now: self.pay_now,
            amount: None,
        }
    }
}

/// A reservation that a cancellation has claimed.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub cancellation: Uuid,
    /// Events about it that no saga has.
    pub events: i64,
    pub is_date_cancelled: bool,
    /// What is cancelled, as it stood when it was claimed.
    pub input: BookingInput,
}

/// Marks confirmed reservations as being cancelled, each by the saga beside it: a compare-and-set, won once, until the date
/// starts, and at any time if it was cancelled or staff does it. Answers those that were won. A reservation of which a ticket was
/// redeemed is marked only for staff, or if its date was cancelled.
pub async fn claim_cancellations(
    conn: &mut PgConnection,
    wanted: &[(Uuid, Uuid)],
    is_by_staff: bool,
    now: DateTime<Utc>,
) -> Result<Vec<Claimed>> {
    let (ids, cancellations): (Vec<Uuid>, Vec<Uuid>) = wanted.iter().copied().unzip();
    // After this lock the next statement sees each scan that was stored before; see `store::redemptions`.
    sqlx::query!("select id from reservations where id = any($1) order by id for no key update", &ids)
        .fetch_all(&mut *conn)
        .await?;
    let rows = sqlx::query!(
        r#"
        update reservations r set cancellation_id = wanted.cancellation, updated_at = $3,
            reason = case when p.cancelled_at is not null then 'performance_cancelled' else r.reason end
        from unnest($1::uuid[], $2::uuid[]) as wanted (id, cancellation), performances p
        where r.id = wanted.id and p.id = r.performance_id and r.status = 'confirmed' and r.cancellation_id is null
          and (p.cancelled_at is not null or $4 or $3 < p.starts_at and not exists (
              select from tickets t join redemptions v on v.ticket_id = t.id and v.status = 'valid'
              where t.reservation_id = r.id))
        returning r.id, r.user_id, r.concert_id, r.performance_id, r.seats, r.amount, wanted.cancellation as "cancellation!",
            p.cancelled_at is not null as "is_date_cancelled!",
            (select count(*) from direct_events e where e.subject_id = r.id) as "events!"
        "#,
        &ids,
        &cancellations,
        now,
        is_by_staff,
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| Claimed {
        cancellation: row.cancellation,
        events: row.events,
        is_date_cancelled: row.is_date_cancelled,
        input: BookingInput {
            reservation_id: row.id,
            user_id: row.user_id,
            concert_id: row.concert_id,
            performance_id: row.performance_id,
            seats: row.seats,
            best: None,
            block: None,
            access_code: None,
            pay_now: false,
            amount: Some(row.amount),
        },
    });
    Ok(claimed.collect())
}

/// Why a buyer may not cancel a confirmed reservation any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The performance has begun.
    Started,
    /// A ticket was redeemed at the entrance.
    Redeemed,
}

/// What stands in the way of a buyer's cancellation of a confirmed reservation, if anything does. Nothing does if its date was
/// cancelled.
pub async fn obstacle(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Obstacle>> {
    let found = sqlx::query!(
        r#"
        select p.starts_at <= clock_timestamp() as "started!", exists (
            select from tickets t join redemptions v on v.ticket_id = t.id and v.status = 'valid'
            where t.reservation_id = r.id) as "redeemed!"
        from reservations r join performances p on p.id = r.performance_id
        where r.id = $1 and p.cancelled_at is null
        "#,
        id,
    )
    .fetch_optional(db)
    .await?;
    Ok(found.and_then(|found| match (found.redeemed, found.started) {
        (true, _) => Some(Obstacle::Redeemed),
        (false, true) => Some(Obstacle::Started),
        (false, false) => None,
    }))
}

/// One reservation of any user.
pub async fn get(conn: &mut PgConnection, id: Uuid) -> Result<Option<Reservation>> {
    Ok(get_many(conn, &[id]).await?.pop())
}

/// Some reservations of any users, the newest first. One whose saga has not come to its hold yet has no row, and is as its saga
/// says.
pub async fn get_many(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Reservation>> {
    let mut found = select(&mut *conn, ids).await?;
    let known: BTreeSet<Uuid> = found.iter().map(|reservation| reservation.id).collect();
    let missing: Vec<Uuid> = ids.iter().filter(|id| !known.contains(id)).copied().collect();
    if !missing.is_empty() {
        let sagas = sagas::get_many(conn, &missing).await?;
        let bookings = sagas.iter().filter(|saga| saga.workflow == "booking");
        found.extend(bookings.filter_map(Reservation::of_saga));
        found.sort_by_key(|reservation| std::cmp::Reverse(reservation.id));
    }
    Ok(found)
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
               (select jsonb_build_object('id', p.id, 'status', p.status, 'amount', p.amount, 'paid_at', p.paid_at,
                                          'refunded', nullif(p.refunded, 0))
                from payments p where p.reservation_id = r.id) as "payment: Json<Payment>",
               (select coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'seat', t.seat, 'status', t.status,
                                                             'holder_id', t.holder_id)
                                           order by t.seat), '[]')
                from tickets t where t.reservation_id = r.id) as "tickets!: Json<Vec<Ticket>>",
               case when s.id is not null then saga_status_name(s.status) end as "saga_status!: OptionalName<Status>", s.visit as "saga_visit?",
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
