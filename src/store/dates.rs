//! Dates after they were added: changing one, and cancelling it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;
use super::catalog::SeatRange;

/// A date as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DateState {
    pub id: Uuid,
    pub concert_id: Uuid,
    pub venue: String,
    pub starts_at: DateTime<Utc>,
    pub duration_minutes: i32,
    pub sale_opens_at: DateTime<Utc>,
    pub sale_closes_at: DateTime<Utc>,
    pub seats_total: i32,
    /// Rises with every change.
    pub version: i64,
    /// When it was cancelled; null unless it was.
    pub cancelled_at: Option<DateTime<Utc>>,
    /// The job that refunds what was sold of it.
    pub cancellation_id: Option<Uuid>,
}

impl DateState {
    /// What can be changed, as events and records of acts have it.
    pub fn facts(&self) -> Value {
        json!({
            "venue": self.venue,
            "starts_at": self.starts_at,
            "duration_minutes": self.duration_minutes,
            "sale_opens_at": self.sale_opens_at,
            "sale_closes_at": self.sale_closes_at,
        })
    }
}

/// What was sold and is held of a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DateSales {
    /// Reservations that are held or being paid.
    pub held: i64,
    /// Reservations that are paid, and not being cancelled.
    pub confirmed: i64,
    /// Seats of both.
    pub seats: i64,
    /// What the paid ones cost.
    pub points_to_refund: i64,
}

/// One date as it stands.
pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<DateState>> {
    sqlx::query_as!(
        DateState,
        r#"
        select id, concert_id, venue, starts_at, duration_minutes, sale_opens_at, sale_closes_at, seats_total, version,
               cancelled_at, cancellation_id
        from performances where id = $1
        "#,
        id,
    )
    .fetch_optional(db)
    .await
}

/// Waits until no step is selling seats of this date, keeps it from being sold or changed by others until the transaction ends,
/// and reads it.
pub async fn lock(conn: &mut PgConnection, id: Uuid) -> Result<Option<DateState>> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended($1::uuid::text, 20112)) as "locked: ()""#,
        id
    )
    .execute(&mut *conn)
    .await?;
    get(conn, id).await
}

/// Writes what can be changed about a date. Answers its new version.
pub async fn update(db: impl PgExecutor<'_>, date: &DateState, is_layout_new: bool) -> Result<i64> {
    sqlx::query_scalar!(
        r#"
        update performances
        set venue = $2, starts_at = $3, duration_minutes = $4, sale_opens_at = $5, sale_closes_at = $6,
            layout_version = layout_version + case when $7 then 1 else 0 end
        where id = $1 returning version
        "#,
        date.id,
        date.venue,
        date.starts_at,
        date.duration_minutes,
        date.sale_opens_at,
        date.sale_closes_at,
        is_layout_new,
    )
    .fetch_one(db)
    .await
}

/// Gives free seats of these ranges another section and price. Answers how many seats the ranges have that exist, and how many
/// of those were free and have changed.
pub async fn change_seats(
    conn: &mut PgConnection,
    id: Uuid,
    ranges: &[SeatRange],
    now: DateTime<Utc>,
) -> Result<(i64, i64)> {
    let from: Vec<i32> = ranges.iter().map(|range| range.from).collect();
    let to: Vec<i32> = ranges.iter().map(|range| range.to).collect();
    let sections: Vec<String> = ranges.iter().map(|range| range.section.clone()).collect();
    let prices: Vec<i64> = ranges.iter().map(|range| range.price).collect();
    let counted = sqlx::query!(
        r#"
        with wanted as materialized (
            select s.number, range.section, range.price, s.status, s.claimable_at, s.section as section_then,
                s.price as price_then
            from unnest($2::int[], $3::int[], $4::text[], $5::bigint[]) as range (low, high, section, price)
            join seats s on s.performance_id = $1 and s.number between range.low and range.high
            order by s.number
            for no key update of s
        ), changed as (
            update seats set section = wanted.section, price = wanted.price
            from wanted
            where seats.performance_id = $1 and seats.number = wanted.number
              and (wanted.status = 'free' or wanted.status = 'held' and wanted.claimable_at <= $6)
              and (wanted.section, wanted.price) is distinct from (wanted.section_then, wanted.price_then)
            returning 1
        )
        select (select count(*) from wanted) as "found!",
            (select count(*) from wanted
             where status = 'free' or status = 'held' and claimable_at <= $6) as "free!",
            (select count(*) from changed) as "changed!"
        "#,
        id,
        &from,
        &to,
        &sections,
        &prices,
        now,
    )
    .fetch_one(conn)
    .await?;
    Ok((counted.found, counted.free))
}

/// Ends the sale of a date for good, once. `job` refunds what was sold of it.
pub async fn cancel(db: impl PgExecutor<'_>, id: Uuid, job: Uuid, now: DateTime<Utc>) -> Result<Option<i64>> {
    sqlx::query_scalar!(
        "update performances set cancelled_at = $3, cancellation_id = $2 where id = $1 and cancelled_at is null
         returning version",
        id,
        job,
        now,
    )
    .fetch_optional(db)
    .await
}

/// What was sold and is held of a date. A reservation that is being cancelled is neither.
pub async fn sales(db: impl PgExecutor<'_>, id: Uuid) -> Result<DateSales> {
    sqlx::query_as!(
        DateSales,
        r#"
        with holders as materialized (
            select holder, count(*) as seats from seats where performance_id = $1 and status in ('held', 'sold') group by holder
        )
        select count(*) filter (where r.status in ('pending', 'held')) as "held!",
            count(*) filter (where r.status = 'confirmed') as "confirmed!",
            coalesce(sum(holders.seats), 0)::bigint as "seats!",
            coalesce(sum(r.amount) filter (where r.status = 'confirmed'), 0)::bigint as "points_to_refund!"
        from holders join reservations r on r.id = holders.holder
        where r.status in ('pending', 'held') or r.status = 'confirmed' and r.cancellation_id is null
        "#,
        id,
    )
    .fetch_one(db)
    .await
}
