//! Tickets: issued once per seat, voided together.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::write_batch::{Part, WriteBatch};

const INSERT_TICKETS: Part = Part::new("issued", include_str!("../../sql/insert_tickets.sql"));
const _: () = {
    fn _checked(now: DateTime<Utc>, ids: &[Uuid], seats: &[i32]) {
        drop(sqlx::query_file!("sql/insert_tickets.sql", now, ids, ids, ids, seats))
    }
};
const VOID_TICKETS: Part = Part::new("voided", include_str!("../../sql/void_tickets.sql"));
const _: fn(&[Uuid], DateTime<Utc>) =
    |reservations, now| drop(sqlx::query_file!("sql/void_tickets.sql", reservations, now));

/// A ticket about to be issued.
#[derive(Clone, Debug)]
pub struct NewTicket {
    pub id: Uuid,
    pub reservation_id: Uuid,
    pub performance_id: Uuid,
    pub seat: i32,
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
    let part = changes.complete(INSERT_TICKETS, tickets.len()).bind(now);
    part.bind(ids).bind(reservations).bind(performances).bind(seats);
}

/// Voids every valid ticket of these reservations.
pub fn void(changes: &mut WriteBatch, reservations: &[Uuid], now: DateTime<Utc>) {
    if reservations.is_empty() {
        return;
    }
    changes.add(VOID_TICKETS).bind(reservations).bind(now);
}
