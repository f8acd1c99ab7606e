//! Tickets: issued once per seat, voided together.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::write_batch::WriteBatch;

/// A ticket about to be issued.
#[derive(Clone, Debug)]
pub struct NewTicket {
    pub id: Uuid,
    pub reservation_id: Uuid,
    pub performance_id: Uuid,
    pub seat: i32,
    pub code: String,
}

/// Issues tickets. The schema refuses a second valid ticket for a seat, and a second one of a reservation for the same seat.
pub fn insert(changes: &mut WriteBatch, tickets: &[NewTicket], now: DateTime<Utc>) {
    if tickets.is_empty() {
        return;
    }
    let ids: Vec<Uuid> = tickets.iter().map(|ticket| ticket.id).collect();
    let reservations: Vec<Uuid> = tickets.iter().map(|ticket| ticket.reservation_id).collect();
    let performances: Vec<Uuid> = tickets.iter().map(|ticket| ticket.performance_id).collect();
    let seats: Vec<i32> = tickets.iter().map(|ticket| ticket.seat).collect();
    let codes: Vec<&str> = tickets.iter().map(|ticket| ticket.code.as_str()).collect();
    let sql = "
        insert into tickets (id, reservation_id, performance_id, seat, code, status, issued_at)
        select id, reservation_id, performance_id, seat, code, 'valid', $1
        from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::text[])
            as new (id, reservation_id, performance_id, seat, code)
        returning 1";
    let part = changes.complete("issued", tickets.len(), sql).bind(now);
    part.bind(ids).bind(reservations).bind(performances).bind(seats).bind(codes);
}

/// Voids every valid ticket of these reservations.
pub fn void(changes: &mut WriteBatch, reservations: &[Uuid], now: DateTime<Utc>) {
    if reservations.is_empty() {
        return;
    }
    let sql = "
        update tickets set status = 'void', voided_at = $2
        where reservation_id = any($1) and status = 'valid'";
    changes.add("voided", sql).bind(reservations).bind(now);
}
