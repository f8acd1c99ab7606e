//! What an operator's act on a saga changes about its reservation.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;
use super::reservations::BookingInput;

/// The reason of a reservation whose saga an operator has ended.
pub const ABANDONED: &str = "abandoned";

/// Ends the reservation of a booking's saga that is still held, or never came to its hold; `false` if it has ended already.
pub async fn fail_open(
    db: impl PgExecutor<'_>,
    booking: &BookingInput,
    placed_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        insert into reservations (id, user_id, concert_id, performance_id, status, reason, seats, created_at, updated_at)
        values ($1, $2, $3, $4, 'failed', $5, $6, $7, $8)
        on conflict (id) do update set status = excluded.status, reason = excluded.reason, updated_at = excluded.updated_at
            where reservations.status in ('pending', 'held')
        "#,
        booking.reservation_id,
        booking.user_id,
        booking.concert_id,
        booking.performance_id,
        ABANDONED,
        &booking.seats,
        placed_at,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Takes a cancellation off a reservation that is still confirmed, so that it can be cancelled again.
pub async fn drop_cancellation(
    db: impl PgExecutor<'_>,
    reservation: Uuid,
    cancellation: Uuid,
    now: DateTime<Utc>,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        update reservations set cancellation_id = null, reason = null, updated_at = $3
        where id = $1 and cancellation_id = $2 and status = 'confirmed'
        "#,
        reservation,
        cancellation,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Frees the seats that a reservation still has and nothing entitles it to. Answers their numbers.
pub async fn free_seats(conn: &mut PgConnection, reservation: Uuid) -> Result<Vec<i32>> {
    let mut freed = sqlx::query_scalar!(
        r#"
        with mine as (
            select s.performance_id, s.number from reservations r
            join seats s on s.performance_id = r.performance_id and s.number = any (r.seats)
            where r.id = $1 and r.status <> 'confirmed' and s.holder = r.id
              and not exists (select from tickets t where t.reservation_id = r.id and t.status = 'valid')
            order by s.number for no key update of s
        )
        update seats set status = 'free', holder = null, expires_at = null, claimable_at = null
        from mine
        where seats.performance_id = mine.performance_id and seats.number = mine.number
        returning seats.number
        "#,
        reservation,
    )
    .fetch_all(conn)
    .await?;
    freed.sort_unstable();
    Ok(freed)
}

/// The seats that still name a reservation that has ended.
pub async fn seats_left(db: impl PgExecutor<'_>, reservation: Uuid) -> Result<Vec<i32>> {
    sqlx::query_scalar!(
        r#"
        select s.number from reservations r
        join seats s on s.performance_id = r.performance_id and s.number = any (r.seats)
        where r.id = $1 and r.status <> 'confirmed' and s.holder = r.id
        order by s.number
        "#,
        reservation,
    )
    .fetch_all(db)
    .await
}
