//! Seats: read in key order, written with their owner's name.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::Result;
use super::attempt::locking;
use super::changes::{Changes, Rank};
use super::rows::Rows;
use crate::config::Control;

/// For how long a hold that ran out counts against its user.
pub const LATELY: TimeDelta = TimeDelta::hours(1);

/// A seat's performance and number.
pub type Key = (Uuid, i32);

/// A seat that is decided about.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Seat {
    pub performance_id: Uuid,
    pub number: i32,
    pub section: String,
    pub price: i64,
    pub status: String,
    pub holder: Option<Uuid>,
    pub expires_at: Option<DateTime<Utc>>,
    pub claimable_at: Option<DateTime<Utc>>,
    /// From when to when its performance is sold.
    pub sale_opens_at: DateTime<Utc>,
    pub sale_closes_at: DateTime<Utc>,
}

impl Seat {
    /// Its performance and its number.
    pub fn key(&self) -> Key {
        (self.performance_id, self.number)
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

/// What a user has to do with a performance already.
#[derive(Clone, Copy, Debug, Default, PartialEq, sqlx::FromRow)]
pub struct Owned {
    /// How many seats are held and owned.
    #[sqlx(rename = "owned")]
    pub seats: i64,
    /// How many holds ran out lately.
    pub expired: i64,
    /// When the first of them did.
    pub first_expired: Option<DateTime<Utc>>,
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

/// Reads these seats, in the order of their keys, and what their buyers have by `now`, or by the database's clock; those that do
/// not exist are not returned. A hold that ran out counts if it did so [`LATELY`].
pub async fn read(
    conn: &mut PgConnection,
    wanted: &[Wanted],
    now: Option<DateTime<Utc>>,
    control: Control,
) -> Result<Vec<Found>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let performances: Vec<Uuid> = wanted.iter().map(|one| one.performance_id).collect();
    let numbers: Vec<i32> = wanted.iter().map(|one| one.number).collect();
    let buyers: Vec<Option<Uuid>> = wanted.iter().map(|one| one.buyer).collect();
    let locks = locking(control, "for no key update of s");
    let sql = format!(
        "select s.performance_id, s.number, s.section, s.price, s.status, s.holder, s.expires_at, s.claimable_at,
                p.sale_opens_at, p.sale_closes_at, wanted.buyer, coalesce(has.seats, 0)::bigint as owned,
                coalesce(has.expired, 0)::bigint as expired, has.first_expired, clock.now as read_at
         from (select coalesce($4, clock_timestamp()) as now) as clock,
              unnest($1::uuid[], $2::int[], $3::uuid[]) as wanted (performance_id, number, buyer)
         join seats s on s.performance_id = wanted.performance_id and s.number = wanted.number
         join performances p on p.id = wanted.performance_id
         left join lateral (
             select sum(cardinality(r.seats)) filter (where status <> 'expired') as seats,
                    count(*) filter (where status = 'expired') as expired,
                    min(expires_at) filter (where status = 'expired') as first_expired
             from reservations r
             where r.user_id = wanted.buyer and r.performance_id = wanted.performance_id
               and (status = 'confirmed' or (status = 'held' and claimable_at > clock.now)
                    or (status = 'expired' and expires_at > clock.now - $5))
         ) as has on wanted.buyer is not null
         order by s.performance_id, s.number {locks}"
    );
    let query = sqlx::query_as(AssertSqlSafe(sql)).bind(performances).bind(numbers).bind(buyers);
    query.bind(now).bind(LATELY).fetch_all(conn).await
}

/// Writes the seats that have changed, each compared with how it was read.
pub fn save(changes: &mut Changes, seats: &Rows<Key, Seat>) {
    let seats: Vec<(&Seat, &Seat)> = seats.changed().map(|(_, then, seat)| (then, seat)).collect();
    if seats.is_empty() {
        return;
    }
    let performances: Vec<Uuid> = seats.iter().map(|(_, seat)| seat.performance_id).collect();
    let numbers: Vec<i32> = seats.iter().map(|(_, seat)| seat.number).collect();
    let statuses: Vec<&str> = seats.iter().map(|(_, seat)| seat.status.as_str()).collect();
    let holders: Vec<Option<Uuid>> = seats.iter().map(|(_, seat)| seat.holder).collect();
    let expires: Vec<Option<DateTime<Utc>>> = seats.iter().map(|(_, seat)| seat.expires_at).collect();
    let claimable: Vec<Option<DateTime<Utc>>> = seats.iter().map(|(_, seat)| seat.claimable_at).collect();
    let statuses_then: Vec<&str> = seats.iter().map(|(then, _)| then.status.as_str()).collect();
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
        .counted(Rank::Seats, "saved_seats", seats.len(), sql)
        .bind(performances)
        .bind(numbers)
        .bind(statuses)
        .bind(holders)
        .bind(expires)
        .bind(claimable)
        .bind(statuses_then)
        .bind(holders_then);
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
    changes: &mut Changes,
    owned: &Rows<(Uuid, Uuid), Owned>,
    now: DateTime<Utc>,
    own: Vec<Uuid>,
) {
    let known = owned.changed().map(|((buyer, performance), then, _)| (*buyer, *performance, then.seats));
    let (buyers, performances, seats): (Vec<Uuid>, Vec<Uuid>, Vec<i64>) = known.collect();
    if buyers.is_empty() {
        return;
    }
    changes
        .check(Rank::Buyers, "buyers_as_read($1, $2, $3, $4, $5)")
        .bind(buyers)
        .bind(performances)
        .bind(seats)
        .bind(now)
        .bind(own);
}
