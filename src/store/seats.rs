//! Seats: read in key order, and written with the id of their owner.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::Result;
use super::batch_tx::BatchTx;
use super::tracked_rows::TrackedRows;
use super::write_batch::{LockOrder, Part, WriteBatch};
use crate::config::Control;

/// For how long a hold that ended unpaid counts against its user.
pub const ENDED_HOLDS_WINDOW: TimeDelta = TimeDelta::hours(1);
/// For how long the seats of a cancelled hold are not offered to its own user.
pub const REHOLD_DELAY: TimeDelta = TimeDelta::seconds(5);

const FIND_SEATS: &str = include_str!("../../sql/find_seats.sql");
const _: () = {
    fn _checked(ids: &[Uuid], numbers: &[i32], buyers: &[Option<Uuid>], now: DateTime<Utc>) {
        let (window, most, delay) = (ENDED_HOLDS_WINDOW, 0, REHOLD_DELAY);
        let buyers = buyers as &[Option<Uuid>];
        drop(sqlx::query_file!(
            "sql/find_seats.sql",
            ids,
            numbers,
            buyers as _,
            now,
            window as _,
            most,
            delay as _,
            buyers as _
        ));
    }
};
const SAVE_SEATS: Part = Part::new("saved_seats", include_str!("../../sql/save_seats.sql"));
const _: () = {
    fn _checked(
        ids: &[Uuid],
        numbers: &[i32],
        statuses: &[&str],
        holders: &[Option<Uuid>],
        times: &[Option<DateTime<Utc>>],
    ) {
        drop(sqlx::query_file!(
            "sql/save_seats.sql",
            ids,
            numbers,
            statuses as &[&str],
            holders as &[Option<Uuid>],
            times as &[Option<DateTime<Utc>>],
            times as &[Option<DateTime<Utc>>],
            statuses as &[&str],
            holders as &[Option<Uuid>],
        ));
    }
};
const COMPARE_DATES: Part = Part::new("dates", include_str!("../../sql/compare_dates.sql"));
const _: fn(&[Uuid], &[i64]) =
    |ids, versions| drop(sqlx::query_file!("sql/compare_dates.sql", ids, versions));
const COMPARE_BUYERS: Part = Part::new("buyers", include_str!("../../sql/compare_buyers.sql"));
const _: fn(&[Uuid], &[i64], DateTime<Utc>) =
    |ids, seats, now| drop(sqlx::query_file!("sql/compare_buyers.sql", ids, ids, seats, now, ids));

const PERFORMANCES: LockOrder = LockOrder::before_sagas(0);
const BUYERS: LockOrder = LockOrder::after_sagas(0);
const SEATS: LockOrder = LockOrder::after_sagas(2);

/// Whether a seat can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum SeatStatus {
    Free,
    Held,
    Sold,
    /// Kept from sale by staff; the block is its holder.
    Blocked,
}

impl SeatStatus {
    /// Whether a seat is free for every buyer: never taken, or held or blocked until a time that has come.
    pub fn is_free(self, claimable_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
        match self {
            Self::Free => true,
            Self::Held | Self::Blocked => claimable_at.is_some_and(|at| at <= now),
            Self::Sold => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Held => "held",
            Self::Sold => "sold",
            Self::Blocked => "blocked",
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
    /// When its performance was cancelled, if it was.
    pub cancelled_at: Option<DateTime<Utc>>,
    /// The version of its performance's row; see [`compare_dates`].
    pub date_version: i64,
}

impl Seat {
    /// Its performance and its number.
    pub fn key(&self) -> Key {
        (self.performance_id, self.number)
    }

    /// When its performance is no longer sold: with the end of its window or its cancellation, and at its start at the latest.
    pub fn sale_ends_at(&self) -> DateTime<Utc> {
        let closes_at = self.sale_closes_at.min(self.starts_at);
        self.cancelled_at.map_or(closes_at, |cancelled_at| closes_at.min(cancelled_at))
    }
}

/// A seat that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub performance_id: Uuid,
    pub number: i32,
    /// Whose count is asked for with it: what that user has of this performance already.
    pub buyer: Option<Uuid>,
    /// Whether the points of that user are asked for, too.
    pub pays: bool,
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
    /// The points of a buyer who pays at once. None without an account.
    pub balance: Option<i64>,
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
    let payers: Vec<Option<Uuid>> = wanted.iter().map(|one| one.buyer.filter(|_| one.pays)).collect();
    if control == Control::Pessimistic {
        sqlx::query_file!("sql/lock_seats.sql", &performances, &numbers).fetch_all(&mut *conn).await?;
    }
    let query = sqlx::query_as(FIND_SEATS).bind(performances).bind(numbers).bind(buyers);
    let query = query.bind(now).bind(ENDED_HOLDS_WINDOW);
    query
        .bind(i32::try_from(max_ended).unwrap_or(i32::MAX))
        .bind(REHOLD_DELAY)
        .bind(payers)
        .fetch_all(conn)
        .await
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
    changes
        .counted(SEATS, SAVE_SEATS, seats.len())
        .bind(performances)
        .bind(numbers)
        .bind(statuses)
        .bind(holders)
        .bind(expires)
        .bind(claimable)
        .bind(statuses_then)
        .bind(holders_then);
}

/// Compares the versions of these performances with what was read, and keeps them from being changed or cancelled until the
/// statement has committed.
pub fn compare_dates(changes: &mut WriteBatch, known: &BTreeMap<Uuid, i64>) {
    if known.is_empty() {
        return;
    }
    let (ids, versions): (Vec<Uuid>, Vec<i64>) = known.iter().map(|(id, version)| (*id, *version)).unzip();
    changes.check(PERFORMANCES, COMPARE_DATES).bind(ids).bind(versions);
}

/// Takes the locks of [`compare_dates`] before anything is read.
pub async fn lock_dates(conn: &mut PgConnection, dates: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"
        select pg_advisory_xact_lock_shared(hashtextextended(date::text, 20112)) as "locked: ()"
        from (select distinct date from unnest($1::uuid[]) as date order by date) as ordered
        "#,
        dates,
    )
    .execute(conn)
    .await?;
    Ok(())
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
    changes.check(BUYERS, COMPARE_BUYERS).bind(buyers).bind(performances).bind(seats).bind(now).bind(own);
}
