//! Seats: locked in key order, written with their owner's name.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;

/// A seat under lock.
#[derive(Clone, Debug, PartialEq)]
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

/// What a user has to do with a performance already.
#[derive(Clone, Debug)]
pub struct Owned {
    pub user_id: Uuid,
    pub performance_id: Uuid,
    /// How many seats are held and owned.
    pub seats: i64,
    /// How many holds ran out lately.
    pub expired: i64,
    /// When the first of them did.
    pub first_expired: Option<DateTime<Utc>>,
}

/// Locks these seats, given as two arrays of the same length; those that do not exist are not returned.
pub async fn lock(conn: &mut PgConnection, performances: &[Uuid], numbers: &[i32]) -> Result<Vec<Seat>> {
    sqlx::query_as!(
        Seat,
        r#"
        select s.performance_id, s.number, s.section, s.price, s.status, s.holder, s.expires_at, s.claimable_at,
               p.sale_opens_at, p.sale_closes_at
        from seats s join performances p on p.id = s.performance_id
        where (s.performance_id, s.number) in (select * from unnest($1::uuid[], $2::int[]))
        order by s.performance_id, s.number
        for no key update of s
        "#,
        performances,
        numbers,
    )
    .fetch_all(conn)
    .await
}

/// Writes seats that the caller has locked.
pub async fn save(conn: &mut PgConnection, seats: &[&Seat]) -> Result<()> {
    let performances: Vec<Uuid> = seats.iter().map(|seat| seat.performance_id).collect();
    let numbers: Vec<i32> = seats.iter().map(|seat| seat.number).collect();
    let statuses: Vec<&str> = seats.iter().map(|seat| seat.status.as_str()).collect();
    let holders: Vec<Option<Uuid>> = seats.iter().map(|seat| seat.holder).collect();
    let expires: Vec<Option<DateTime<Utc>>> = seats.iter().map(|seat| seat.expires_at).collect();
    let claimable: Vec<Option<DateTime<Utc>>> = seats.iter().map(|seat| seat.claimable_at).collect();
    sqlx::query!(
        r#"
        update seats set status = new.status, holder = new.holder,
                         expires_at = new.expires_at, claimable_at = new.claimable_at
        from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::timestamptz[], $6::timestamptz[])
            as new (performance_id, number, status, holder, expires_at, claimable_at)
        where seats.performance_id = new.performance_id and seats.number = new.number
        "#,
        &performances,
        &numbers,
        &statuses as &[&str],
        &holders as &[Option<Uuid>],
        &expires as &[Option<DateTime<Utc>>],
        &claimable as &[Option<DateTime<Utc>>],
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

/// What these users hold and own of these performances, given as two arrays of the same length, and what of theirs has
/// run out since a time.
pub async fn owned(
    db: impl PgExecutor<'_>,
    users: &[Uuid],
    performances: &[Uuid],
    now: DateTime<Utc>,
    lately: DateTime<Utc>,
) -> Result<Vec<Owned>> {
    sqlx::query_as!(
        Owned,
        r#"
        select user_id, performance_id,
               coalesce(sum(cardinality(seats)) filter (where status <> 'expired'), 0) as "seats!",
               count(*) filter (where status = 'expired') as "expired!",
               min(expires_at) filter (where status = 'expired') as first_expired
        from reservations
        where (user_id, performance_id) in (select * from unnest($1::uuid[], $2::uuid[]))
          and (status = 'confirmed' or (status = 'held' and claimable_at > $3)
               or (status = 'expired' and expires_at > $4))
        group by user_id, performance_id
        "#,
        users,
        performances,
        now,
        lately,
    )
    .fetch_all(db)
    .await
}
