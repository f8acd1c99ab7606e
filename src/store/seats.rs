//! Seats: read in key order, and written with the id of their owner.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::Result;
use super::batch_tx::{BatchTx, locking};
use super::tracked_rows::TrackedRows;
use super::write_batch::{LockOrder, WriteBatch};
use crate::config::Control;

/// For how long a hold that ended unpaid counts against its user.
pub const ENDED_HOLDS_WINDOW: TimeDelta = TimeDelta::hours(1);
/// For how long the seats of a cancelled hold are not offered to its own user.
pub const REHOLD_DELAY: TimeDelta = TimeDelta::seconds(5);

const PERFORMANCES: LockOrder = LockOrder::before_sagas(0);
const BUYERS: LockOrder = LockOrder::after_sagas(0);
const SEATS: LockOrder = LockOrder::after_sagas(1);

/// Whether a seat can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum SeatStatus {
    Free,
    Held,
    Sold,
}

impl SeatStatus {
    fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Held => "held",
            Self::Sold => "sold",
        }
    }
}

/// A seat's performance and number.
pub type Key = (Uuid, i32);

/// A seat that is decided about.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Seat {
    pub performance_id: Uuid,
    pub number: i32,
    pub section: String,
    pub price: i64,
    pub status: SeatStatus,
    pub holder: Option<Uuid>,
    pub expires_at: Option<DateTime<Utc>>,
    pub claimable_at: Option<DateTime<Utc>>,
    /// From when to when its performance is sold, unless it has started.
    pub sale_opens_at: DateTime<Utc>,
    pub sale_closes_at: DateTime<Utc>,
    pub starts_at: DateTime<Utc>,
}

impl Seat {
    /// Its performance and its number.
    pub fn key(&self) -> Key {
        (self.performance_id, self.number)
    }

    /// When its performance is no longer sold: with the end of its window, and at its start at the latest.
    pub fn sale_ends_at(&self) -> DateTime<Utc> {
        self.sale_closes_at.min(self.starts_at)
    }
}

/// A seat that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub performance_id: Uuid,
    pub number: i32,
    /// Whose count is asked for with it: what that user has of this performance already.
    pub buyer: Option<Uuid>,
}

/// The seats and ended holds that a user already has in a performance.
#[derive(Clone, Debug, Default, PartialEq, sqlx::FromRow)]
pub struct Owned {
    /// How many seats are held and owned.
    #[sqlx(rename = "owned")]
    pub seats: i64,
    /// If as many holds of this concert as are allowed have ended within [`ENDED_HOLDS_WINDOW`]: when the first of the latest
    /// so many did. The next hold is allowed once that is long enough ago.
    pub limited_since: Option<DateTime<Utc>>,
    /// The seats of holds of this performance that the user cancelled within [`REHOLD_DELAY`].
    pub released: Option<Json<Vec<Vec<i32>>>>,
}

/// A seat, and what was asked for with it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Found {
    #[sqlx(flatten)]
    pub seat: Seat,
    pub buyer: Option<Uuid>,
    #[sqlx(flatten)]
    pub owned: Owned,
    /// By which clock it was asked for.
    pub read_at: DateTime<Utc>,
}

/// Reads these seats, in the order of their keys, and what their buyers have by the time that this attempt has read, or by the
/// database's clock; those that do not exist are not returned. `max_ended` holds of a concert may have ended within
/// [`ENDED_HOLDS_WINDOW`]; 0 for any number.
pub async fn read(attempt: &mut BatchTx, wanted: &[Wanted], max_ended: i64) -> Result<Vec<Found>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (control, now) = (attempt.control(), attempt.read_at());
    let found = find(attempt.conn(), wanted, now, max_ended, control).await?;
    if let Some(first) = found.first() {
        attempt.note_time(first.read_at);
    }
    Ok(found)
}

/// The same, with what the buyers have by `now`, or by the database's clock.
pub async fn find(
    conn: &mut PgConnection,
    wanted: &[Wanted],
    now: Option<DateTime<Utc>>,
    max_ended: i64,
    control: Control,
) -> Result<Vec<Found>> {
    let performances: Vec<Uuid> = wanted.iter().map(|one| one.performance_id).collect();
    let numbers: Vec<i32> = wanted.iter().map(|one| one.number).collect();
    let buyers: Vec<Option<Uuid>> = wanted.iter().map(|one| one.buyer).collect();
    let locks = locking(control, "for no key update of s");
    let sql = format!(
        "select s.performance_id, s.number, s.section, s.price, s.status, s.holder, s.expires_at, s.claimable_at,
                p.sale_opens_at, p.sale_closes_at, p.starts_at, wanted.buyer, coalesce(has.seats, 0)::bigint as owned,
                has.limited_since, has.released, clock.now as read_at
         from (select coalesce($4, clock_timestamp()) as now) as clock,
              unnest($1::uuid[], $2::int[], $3::uuid[]) as wanted (performance_id, number, buyer)
         join seats s on s.performance_id = wanted.performance_id and s.number = wanted.number
         join performances p on p.id = wanted.performance_id
         left join lateral (
             select sum(cardinality(seats)) filter (where is_live) as seats,
                    (array_agg(updated_at order by updated_at desc) filter (where has_ended))[$6] as limited_since,
                    jsonb_agg(seats) filter (where is_released) as released
             from (
                 select r.seats, r.updated_at,
                        r.performance_id = p.id and (r.status = 'confirmed'
                            or r.status = 'held' and r.claimable_at > clock.now) as is_live,
                        -- Only what was held has an end; a hold that was refused has none.
                        r.status in ('expired', 'cancelled', 'failed') and r.expires_at is not null
                            and r.updated_at > clock.now - $5 as has_ended,
                        r.performance_id = p.id and r.status = 'cancelled' and r.cancellation_id is null
                            and r.updated_at > clock.now - $7 as is_released
                 from reservations r where r.user_id = wanted.buyer and r.concert_id = p.concert_id
             ) as mine
         ) as has on wanted.buyer is not null
         order by s.performance_id, s.number {locks}"
    );
    let query = sqlx::query_as(AssertSqlSafe(sql)).bind(performances).bind(numbers).bind(buyers);
    let query = query.bind(now).bind(ENDED_HOLDS_WINDOW);
    query.bind(i32::try_from(max_ended).unwrap_or(i32::MAX)).bind(REHOLD_DELAY).fetch_all(conn).await
}

/// Writes the seats that have changed, each compared with how it was read.
pub fn save(changes: &mut WriteBatch, seats: &TrackedRows<Key, Seat>) {
    let seats: Vec<(&Seat, &Seat)> = seats.changed().map(|(_, then, seat)| (then, seat)).collect();
    if seats.is_empty() {
        return;
    }
    let performances: Vec<Uuid> = seats.iter().map(|(_, seat)| seat.performance_id).collect();
    let numbers: Vec<i32> = seats.iter().map(|(_, seat)| seat.number).collect();
    let statuses: Vec<&str> = seats.iter().map(|(_, seat)| seat.status.name()).collect();
    let holders: Vec<Option<Uuid>> = seats.iter().map(|(_, seat)| seat.holder).collect();
    let expires: Vec<Option<DateTime<Utc>>> = seats.iter().map(|(_, seat)| seat.expires_at).collect();
    let claimable: Vec<Option<DateTime<Utc>>> = seats.iter().map(|(_, seat)| seat.claimable_at).collect();
    let statuses_then: Vec<&str> = seats.iter().map(|(then, _)| then.status.name()).collect();
    let holders_then: Vec<Option<Uuid>> = seats.iter().map(|(then, _)| then.holder).collect();
    let sql = "
        update seats set status = new.status, holder = new.holder,
                         expires_at = new.expires_at, claimable_at = new.claimable_at
        from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::timestamptz[], $6::timestamptz[],
                    $7::text[], $8::uuid[])
            as new (performance_id, number, status, holder, expires_at, claimable_at, status_then, holder_then)
        where seats.performance_id = new.performance_id and seats.number = new.number
          and seats.status = new.status_then and seats.holder is not distinct from new.holder_then
        returning 1";
    changes
        .counted(SEATS, "saved_seats", seats.len(), sql)
        .bind(performances)
        .bind(numbers)
        .bind(statuses)
        .bind(holders)
        .bind(expires)
        .bind(claimable)
        .bind(statuses_then)
        .bind(holders_then);
}

/// Compares when these performances start with what is remembered: seats that were not read are sold until then.
pub fn compare_starts(changes: &mut WriteBatch, known: &BTreeMap<Uuid, DateTime<Utc>>) {
    if known.is_empty() {
        return;
    }
    let (ids, starts): (Vec<Uuid>, Vec<DateTime<Utc>>) = known.iter().map(|(id, at)| (*id, *at)).unzip();
    let sql = "not exists (
        select from unnest($1::uuid[], $2::timestamptz[]) as known (id, starts_at)
        join performances p on p.id = known.id where p.starts_at <> known.starts_at)";
    changes.check(PERFORMANCES, sql).bind(ids).bind(starts);
}

/// Keeps other transactions from holding seats for the same users until this one ends, so that the count of a
/// user's seats stays true. Locks are taken in the order of the keys.
pub async fn lock_buyers(conn: &mut PgConnection, users: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"
        select pg_advisory_xact_lock(hashtextextended(buyer::text, 20111)) as "locked: ()"
        from (select distinct buyer from unnest($1::uuid[]) as buyer order by buyer) as ordered
        "#,
        users,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the locks of [`lock_buyers`] when the rest is written, and compares how many seats of a date each buyer who gets
/// some has with what was read; `own` are the reservations that are just being written.
pub fn compare_buyers(
    changes: &mut WriteBatch,
    owned: &TrackedRows<(Uuid, Uuid), Owned>,
    now: DateTime<Utc>,
    own: Vec<Uuid>,
) {
    let known = owned.changed().map(|((buyer, performance), then, _)| (*buyer, *performance, then.seats));
    let (buyers, performances, seats): (Vec<Uuid>, Vec<Uuid>, Vec<i64>) = known.collect();
    if buyers.is_empty() {
        return;
    }
    changes
        .check(BUYERS, "buyers_as_read($1, $2, $3, $4, $5)")
        .bind(buyers)
        .bind(performances)
        .bind(seats)
        .bind(now)
        .bind(own);
}
