//! The sale of one date in numbers: its seats, and its points by section and by hour.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;

/// A date, as reports and lists name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ListedDate {
    pub id: Uuid,
    pub concert_id: Uuid,
    pub concert: String,
    pub venue: String,
    pub starts_at: DateTime<Utc>,
    pub seats_total: i32,
}

/// Seats of a section by what they are now, and its points. A hold that has run out counts as free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SectionSales {
    pub section: String,
    pub total: i64,
    pub sold: i64,
    pub held: i64,
    pub blocked: i64,
    pub free: i64,
    /// Points that were paid for its seats.
    pub revenue: i64,
    /// Points of those that were given back.
    pub refunds: i64,
}

/// What happened in one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HourSales {
    /// Its beginning, in UTC.
    pub hour: DateTime<Utc>,
    /// Tickets that were issued.
    pub seats_sold: i64,
    /// Tickets that were voided.
    pub seats_returned: i64,
    pub revenue: i64,
    pub refunds: i64,
}

/// An hour, beside the sums of all hours.
#[derive(Clone, Debug)]
pub struct HourRow {
    pub hour: DateTime<Utc>,
    pub seats_sold: i64,
    pub seats_returned: i64,
    pub revenue: i64,
    pub refunds: i64,
    pub revenue_of_all: i64,
    pub refunds_of_all: i64,
}

/// Bounds each statement of the transaction. The plans are made for its values: those for any values would not know how many
/// reservations a date has.
pub async fn bound(conn: &mut PgConnection, time: Duration) -> Result<()> {
    let limit = format!("{} ms", time.as_millis());
    sqlx::query!(
        r#"
        select set_config('statement_timeout', $1, true) as statements,
               set_config('plan_cache_mode', 'force_custom_plan', true) as plans
        "#,
        limit,
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Dates of one concert or of all, the latest first, those before `before` (when it starts, and its id).
pub async fn dates(
    db: impl PgExecutor<'_>,
    concert: Option<Uuid>,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<ListedDate>> {
    let (starts_at, id) = before.unzip();
    sqlx::query_as!(
        ListedDate,
        r#"
        select p.id, p.concert_id, c.name as concert, p.venue, p.starts_at, p.seats_total
        from performances p join concerts c on c.id = p.concert_id
        where ($1::uuid is null or p.concert_id = $1)
          and ($2::timestamptz is null or (p.starts_at, p.id) < ($2, $3::uuid))
        order by p.starts_at desc, p.id desc limit $4
        "#,
        concert,
        starts_at,
        id,
        limit,
    )
    .fetch_all(db)
    .await
}

/// One date.
pub async fn date(db: impl PgExecutor<'_>, performance: Uuid) -> Result<Option<ListedDate>> {
    sqlx::query_as!(
        ListedDate,
        r#"
        select p.id, p.concert_id, c.name as concert, p.venue, p.starts_at, p.seats_total
        from performances p join concerts c on c.id = p.concert_id where p.id = $1
        "#,
        performance,
    )
    .fetch_optional(db)
    .await
}

/// The sections in the order of their first seats. Points are those of the lines that were paid, and of seats that were refunded
/// one by one.
pub async fn sections(
    conn: &mut PgConnection,
    performance: Uuid,
    now: DateTime<Utc>,
) -> Result<Vec<SectionSales>> {
    sqlx::query_as!(
        SectionSales,
        r#"
        with paid as materialized (
            select r.lines, exists (select from ledger_entries back where back.reverses_id = used.id) as is_given_back
            from reservations r
            join ledger_entries used on used.reservation_id = r.id and used.kind = 'use'
            where r.performance_id = $1
        ), lines (section, price, is_given_back) as (
            select line ->> 'section', (line ->> 'price')::bigint, paid.is_given_back
            from paid cross join jsonb_array_elements(paid.lines) as line
            union all
            -- Seats that support took off their reservations are in the lines no more.
            select s.section, taken.amount, true
            from reservations r
            join seat_refunds taken on taken.reservation_id = r.id
            join seats s on s.performance_id = r.performance_id and s.number = taken.seat
            where r.performance_id = $1
        ), points as (
            select section, sum(price) as revenue, sum(price) filter (where is_given_back) as refunds from lines group by section
        ), numbers as (
            select section, min(number) as first, count(*) as total,
                count(*) filter (where status = 'sold') as sold,
                count(*) filter (where status = 'held' and (claimable_at is null or claimable_at > $2)) as held,
                count(*) filter (where status = 'blocked' and (claimable_at is null or claimable_at > $2)) as blocked,
                count(*) filter (where status = 'free' or status in ('held', 'blocked') and claimable_at <= $2) as free
            from seats where performance_id = $1 group by section
        )
        select coalesce(n.section, p.section) as "section!", coalesce(n.total, 0) as "total!", coalesce(n.sold, 0) as "sold!",
               coalesce(n.held, 0) as "held!", coalesce(n.blocked, 0) as "blocked!", coalesce(n.free, 0) as "free!",
               coalesce(p.revenue, 0)::bigint as "revenue!", coalesce(p.refunds, 0)::bigint as "refunds!"
        from numbers n full join points p on p.section = n.section
        order by n.first nulls last, 1
        "#,
        performance,
        now,
    )
    .fetch_all(conn)
    .await
}

/// The last hours in which anything happened, newest first, each with the sums of all hours.
pub async fn hours(conn: &mut PgConnection, performance: Uuid, limit: i64) -> Result<Vec<HourRow>> {
    sqlx::query_as!(
        HourRow,
        r#"
        with own as materialized (
            select id from reservations where performance_id = $1
        ), used as materialized (
            select e.id, e.amount, e.created_at from own join ledger_entries e on e.reservation_id = own.id and e.kind = 'use'
        ), happened (at, sold, returned, revenue, refunds) as (
            select t.issued_at, 1, 0, 0::bigint, 0::bigint from own join tickets t on t.reservation_id = own.id
            union all
            select t.voided_at, 0, 1, 0, 0 from own join tickets t on t.reservation_id = own.id where t.voided_at is not null
            union all
            select used.created_at, 0, 0, used.amount, 0 from used
            union all
            select back.created_at, 0, 0, 0, back.amount from used join ledger_entries back on back.reverses_id = used.id
            union all
            select taken.refunded_at, 0, 0, 0, taken.amount from own join seat_refunds taken on taken.reservation_id = own.id
        )
        select date_trunc('hour', at, 'UTC') as "hour!", sum(sold) as "seats_sold!", sum(returned) as "seats_returned!",
               sum(revenue)::bigint as "revenue!", sum(refunds)::bigint as "refunds!",
               (sum(sum(revenue)) over ())::bigint as "revenue_of_all!", (sum(sum(refunds)) over ())::bigint as "refunds_of_all!"
        from happened group by 1 order by 1 desc limit $2
        "#,
        performance,
        limit,
    )
    .fetch_all(conn)
    .await
}
