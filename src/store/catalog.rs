//! Concerts, their dates and their seats: adding them, and the reads that every buyer makes.
//!
//! A seat counts as free when it is, or when its hold or its block has run out so long ago that another user may claim it,
//! tidied up or not. Writing seats is the business of the services, not of this file.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;

/// A concert as every user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Concert {
    pub id: Uuid,
    pub name: String,
    pub description: String,
    /// Whether one of its dates is inside its sale window now and has not started.
    pub on_sale: bool,
}

/// A concert to be added, and how its line starts.
#[derive(Clone, Debug)]
pub struct NewConcert<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub description: &'a str,
    pub max_active: i32,
    pub admit_per_minute: i32,
}

/// A date inside its sale window, with seats left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OpenPerformance {
    /// From then until the sale opens, it is sold to buyers with an access code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presale_opens_at: Option<DateTime<Utc>>,
    pub id: Uuid,
    pub starts_at: DateTime<Utc>,
    pub duration_minutes: i32,
    pub venue: String,
    pub seats_free: i64,
    pub seats_total: i32,
    pub sale_opens_at: DateTime<Utc>,
    pub sale_closes_at: DateTime<Utc>,
}

/// A date of a concert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Performance {
    pub id: Uuid,
    pub concert_id: Uuid,
    pub venue: String,
    pub starts_at: DateTime<Utc>,
    pub duration_minutes: i32,
    pub sale_opens_at: DateTime<Utc>,
    pub sale_closes_at: DateTime<Utc>,
    pub seats_total: i32,
}

/// Times of a date that contradict each other, by field.
pub fn window_faults(
    starts_at: DateTime<Utc>,
    sale_opens_at: DateTime<Utc>,
    sale_closes_at: DateTime<Utc>,
) -> Vec<(&'static str, &'static str)> {
    let rules = [
        (sale_opens_at < starts_at, "sale_opens_at", "must be earlier than starts_at"),
        (sale_opens_at < sale_closes_at, "sale_closes_at", "must be later than sale_opens_at"),
        (sale_closes_at <= starts_at, "sale_closes_at", "must not be later than starts_at"),
    ];
    rules.into_iter().filter(|(holds, ..)| !holds).map(|(_, field, reason)| (field, reason)).collect()
}

/// Times of a date that are over at `now`, so that nothing of it could be sold, by field.
pub fn past_faults(
    starts_at: DateTime<Utc>,
    sale_closes_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Vec<(&'static str, &'static str)> {
    let times = [("starts_at", starts_at), ("sale_closes_at", sale_closes_at)];
    times
        .into_iter()
        .filter(|(_, time)| *time <= now)
        .map(|(field, _)| (field, "must be in the future"))
        .collect()
}

/// Seats `from..=to` of one section at one price, in points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatRange {
    pub from: i32,
    pub to: i32,
    pub section: String,
    pub price: i64,
}

/// What a buyer sees of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum SeatStatus {
    Free,
    Held,
    Sold,
    /// Kept from sale by staff.
    Blocked,
}

impl SeatStatus {
    /// Its name in the table and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Held => "held",
            Self::Sold => "sold",
            Self::Blocked => "blocked",
        }
    }
}

/// What does not change about a seat while it is sold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeatPlace {
    pub number: i32,
    pub section: String,
    pub price: i64,
    #[serde(flatten)]
    pub plan: PlanPlace,
}

/// Where a seat is on the plan of the hall, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlanPlace {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    /// What stands on the seat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<i32>,
    /// For who needs an accessible seat; others are offered it last.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub accessible: bool,
    /// For who comes along with them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub companion: bool,
}

/// The numbers of the seats of a date that are not free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenSeats {
    /// The version of its sections and prices.
    pub layout_version: i64,
    pub held: Vec<i32>,
    pub sold: Vec<i32>,
    pub blocked: Vec<i32>,
}

/// A seat on the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Seat {
    pub number: i32,
    pub section: String,
    pub price: i64,
    #[serde(flatten)]
    pub plan: PlanPlace,
    pub status: SeatStatus,
}

/// Adds a concert and its line's settings. A concert that is there already (the same request once more)
/// stays as it is.
pub async fn insert_concert(conn: &mut PgConnection, concert: &NewConcert<'_>) -> Result<()> {
    sqlx::query!(
        r#"insert into concerts (id, name, description) values ($1, $2, $3) on conflict (id) do nothing"#,
        concert.id,
        concert.name,
        concert.description,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        insert into queue_settings (concert_id, max_active, admit_per_minute) values ($1, $2, $3)
        on conflict (concert_id) do nothing
        "#,
        concert.id,
        concert.max_active,
        concert.admit_per_minute,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a date with all its seats; false if it was there already (the same request once more).
/// The ranges must not overlap and must add up to `seats_total`.
pub async fn insert_performance(
    conn: &mut PgConnection,
    performance: &Performance,
    seats: &[SeatRange],
) -> Result<bool> {
    let inserted = sqlx::query!(
        r#"
        insert into performances (id, concert_id, venue, starts_at, duration_minutes,
                                  sale_opens_at, sale_closes_at, seats_total)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (id) do nothing
        "#,
        performance.id,
        performance.concert_id,
        performance.venue,
        performance.starts_at,
        performance.duration_minutes,
        performance.sale_opens_at,
        performance.sale_closes_at,
        performance.seats_total,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    let from: Vec<i32> = seats.iter().map(|range| range.from).collect();
    let to: Vec<i32> = seats.iter().map(|range| range.to).collect();
    let sections: Vec<String> = seats.iter().map(|range| range.section.clone()).collect();
    let prices: Vec<i64> = seats.iter().map(|range| range.price).collect();
    sqlx::query!(
        r#"
        insert into seats (performance_id, number, section, price)
        select $1, number, section, price
        from unnest($2::integer[], $3::integer[], $4::text[], $5::bigint[]) as range (low, high, section, price)
        cross join generate_series(low, high) as number
        "#,
        performance.id,
        &from,
        &to,
        &sections,
        &prices,
    )
    .execute(conn)
    .await?;
    Ok(true)
}

/// Concerts by name, ties by id, after the given one.
pub async fn list_concerts(
    db: impl PgExecutor<'_>,
    after: Option<(&str, Uuid)>,
    limit: i64,
    now: DateTime<Utc>,
) -> Result<Vec<Concert>> {
    let (name, id) = after.unzip();
    sqlx::query_as!(
        Concert,
        r#"
        select c.id, c.name, c.description,
            exists (select from performances p
                    where p.concert_id = c.id and p.sale_opens_at <= $4 and least(p.sale_closes_at, p.starts_at, p.cancelled_at) > $4) as "on_sale!"
        from concerts c
        where $1::text is null or (c.name, c.id) > ($1, $2::uuid)
        order by c.name, c.id
        limit $3
        "#,
        name,
        id,
        limit,
        now,
    )
    .fetch_all(db)
    .await
}

/// The names of concerts, in no order; one that does not exist is left out.
pub async fn names_of(db: impl PgExecutor<'_>, concerts: &[Uuid]) -> Result<Vec<(Uuid, String)>> {
    let rows =
        sqlx::query!("select id, name from concerts where id = any ($1)", concerts).fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (row.id, row.name)).collect())
}

/// One concert.
pub async fn concert(db: impl PgExecutor<'_>, id: Uuid, now: DateTime<Utc>) -> Result<Option<Concert>> {
    sqlx::query_as!(
        Concert,
        r#"
        select c.id, c.name, c.description,
            exists (select from performances p
                    where p.concert_id = c.id and p.sale_opens_at <= $2 and least(p.sale_closes_at, p.starts_at, p.cancelled_at) > $2) as "on_sale!"
        from concerts c
        where c.id = $1
        "#,
        id,
        now,
    )
    .fetch_optional(db)
    .await
}

/// A concert's dates that are inside their window or their presale, have not started and have free seats, by when they start, ties by id.
pub async fn open_performances(
    db: impl PgExecutor<'_>,
    concert_id: Uuid,
    now: DateTime<Utc>,
) -> Result<Vec<OpenPerformance>> {
    sqlx::query_as!(
        OpenPerformance,
        r#"
        select p.id, p.starts_at, p.duration_minutes, p.venue, free.seats as "seats_free!", p.seats_total,
            p.sale_opens_at, p.sale_closes_at, p.presale_opens_at
        from performances p
        cross join lateral (
            select count(*) from seats s
            where s.performance_id = p.id and (s.status = 'free' or s.status in ('held', 'blocked') and s.claimable_at <= $2)
        ) as free (seats)
        where p.concert_id = $1 and least(p.presale_opens_at, p.sale_opens_at) <= $2
          and least(p.sale_closes_at, p.starts_at, p.cancelled_at) > $2 and free.seats > 0
        order by p.starts_at, p.id
        "#,
        concert_id,
        now,
    )
    .fetch_all(db)
    .await
}

/// The concert of a date.
pub async fn concert_of(db: impl PgExecutor<'_>, performance: Uuid) -> Result<Option<Uuid>> {
    sqlx::query_scalar!("select concert_id from performances where id = $1", performance)
        .fetch_optional(db)
        .await
}

/// The seats of a date by number, without their state.
pub async fn seat_places(db: impl PgExecutor<'_>, performance_id: Uuid) -> Result<Vec<SeatPlace>> {
    let rows = sqlx::query!(
        r#"
        select s.number, s.section, s.price, g.row_label as "row_label?", g.label as "label?", g.x as "x?", g.y as "y?",
               coalesce(g.accessible, false) as "accessible!", coalesce(g.companion, false) as "companion!"
        from seats s
        left join seat_places g on g.performance_id = s.performance_id and g.number = s.number
        where s.performance_id = $1
        order by s.number
        "#,
        performance_id,
    )
    .fetch_all(db)
    .await?;
    let places = rows.into_iter().map(|row| SeatPlace {
        number: row.number,
        section: row.section,
        price: row.price,
        plan: PlanPlace {
            row: row.row_label,
            label: row.label,
            x: row.x,
            y: row.y,
            accessible: row.accessible,
            companion: row.companion,
        },
    });
    Ok(places.collect())
}

/// Which seats of a date are held, sold or blocked.
pub async fn taken_seats(
    db: impl PgExecutor<'_>,
    performance_id: Uuid,
    now: DateTime<Utc>,
) -> Result<TakenSeats> {
    sqlx::query_as!(
        TakenSeats,
        r#"
        select coalesce(array_agg(number) filter (where status = 'held' and claimable_at > $2), '{}') as "held!",
               coalesce(array_agg(number) filter (where status = 'sold'), '{}') as "sold!",
               coalesce(array_agg(number) filter (where status = 'blocked'
                   and (claimable_at is null or claimable_at > $2)), '{}') as "blocked!",
               (select coalesce(max(layout_version), 0) from performances where id = $1) as "layout_version!"
        from seats where performance_id = $1 and status <> 'free'
        "#,
        performance_id,
        now,
    )
    .fetch_one(db)
    .await
}
