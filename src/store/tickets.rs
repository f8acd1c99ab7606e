//! Tickets: issued once per seat, voided together.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;

/// A ticket about to be issued.
#[derive(Clone, Debug)]
pub struct NewTicket {
    pub id: Uuid,
    pub reservation_id: Uuid,
    pub performance_id: Uuid,
    pub seat: i32,
    pub code: String,
}

/// Issues tickets. A second valid ticket for a seat is refused by the schema.
pub async fn insert(conn: &mut PgConnection, tickets: &[NewTicket], now: DateTime<Utc>) -> Result<()> {
    let ids: Vec<Uuid> = tickets.iter().map(|ticket| ticket.id).collect();
    let reservations: Vec<Uuid> = tickets.iter().map(|ticket| ticket.reservation_id).collect();
    let performances: Vec<Uuid> = tickets.iter().map(|ticket| ticket.performance_id).collect();
    let seats: Vec<i32> = tickets.iter().map(|ticket| ticket.seat).collect();
    let codes: Vec<&str> = tickets.iter().map(|ticket| ticket.code.as_str()).collect();
    sqlx::query!(
        r#"
        insert into tickets (id, reservation_id, performance_id, seat, code, status, issued_at)
        select id, reservation_id, performance_id, seat, code, 'valid', $6
        from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::text[])
            as new (id, reservation_id, performance_id, seat, code)
        "#,
        &ids,
        &reservations,
        &performances,
        &seats,
        &codes as &[&str],
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Voids every valid ticket of these reservations.
pub async fn void(conn: &mut PgConnection, reservations: &[Uuid], now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "update tickets set status = 'void', voided_at = $2 where reservation_id = any($1) and status = 'valid'",
        reservations,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}
