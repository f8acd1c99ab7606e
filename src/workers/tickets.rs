//! Tickets: issue, and beside it void.
//!
//! Issuing is the moment of sale: the seats, still held by the reservation, become sold; it is confirmed; each
//! seat has a ticket. If a seat was claimed by somebody else in the last moment, nothing of it happens.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rand::distr::{Alphanumeric, SampleString};
use serde_json::json;
use uuid::Uuid;

use super::{Booking, Job};
use crate::ids;
use crate::saga::Direction;
use crate::store;
use crate::store::attempt::Attempt;
use crate::store::changes::Changes;
use crate::store::reservations::Change;
use crate::store::seats::{Seat, Wanted};
use crate::store::tickets::NewTicket;

/// Characters of a ticket's code: 119 bits of chance.
const CODE_LENGTH: usize = 20;

/// What was read, and what has been decided about it so far.
struct Desk {
    now: DateTime<Utc>,
    seats: BTreeMap<(Uuid, i32), Seat>,
    /// Seats that are sold now, as they were read.
    before: BTreeMap<(Uuid, i32), Seat>,
    tickets: Vec<NewTicket>,
    voided: Vec<Uuid>,
    decided: Vec<Change>,
}

/// Does a batch of `tickets.issue` and `tickets.void`.
pub(super) async fn run(
    attempt: &mut Attempt,
    changes: &mut Changes,
    now: DateTime<Utc>,
    jobs: &mut [Job<'_>],
) -> store::Result<()> {
    let bookings: Vec<Option<Booking>> = jobs.iter_mut().map(Job::arguments).collect();
    let wanted: Vec<Wanted> = bookings.iter().flatten().flat_map(Wanted::all_of).collect();
    let control = attempt.control();
    let found = store::seats::read(attempt.conn(), &wanted, now, now, control).await?;
    let seats = found.into_iter().map(|found| ((found.seat.performance_id, found.seat.number), found.seat));
    let mut desk = Desk::of(now, seats.collect());
    for (job, booking) in jobs.iter_mut().zip(&bookings) {
        let Some(booking) = booking else { continue };
        match job.command.subject.as_str() {
            "tickets.issue" => desk.issue(job, booking),
            "tickets.void" => desk.void(job, booking),
            _ => job.unknown_command(),
        }
    }
    desk.write(changes);
    Ok(())
}

impl Wanted {
    /// The seats of a booking; nobody counts what its buyer has.
    fn all_of(booking: &Booking) -> impl Iterator<Item = Self> {
        let performance_id = booking.performance_id;
        booking.seats.iter().map(move |number| Self { performance_id, number: *number, buyer: None })
    }
}

impl Desk {
    fn of(now: DateTime<Utc>, seats: BTreeMap<(Uuid, i32), Seat>) -> Self {
        let (before, tickets, voided, decided) = Default::default();
        Self { now, seats, before, tickets, voided, decided }
    }

    /// Sells the seats to the reservation that holds them.
    fn issue(&mut self, job: &mut Job<'_>, booking: &Booking) {
        let held = |seat: &Seat| seat.status == "held" && seat.holder == Some(booking.reservation_id);
        let keys: Vec<(Uuid, i32)> =
            booking.seats.iter().map(|seat| (booking.performance_id, *seat)).collect();
        let lost: Vec<i32> = keys
            .iter()
            .filter(|key| !self.seats.get(key).is_some_and(held))
            .map(|(_, number)| *number)
            .collect();
        if !lost.is_empty() {
            return job.rejected("hold_expired", json!({ "seats": lost }));
        }
        let first = self.tickets.len();
        for key in keys {
            if let Some(seat) = self.seats.get_mut(&key) {
                self.before.entry(key).or_insert_with(|| seat.clone());
                "sold".clone_into(&mut seat.status);
                seat.expires_at = None;
                seat.claimable_at = None;
            }
            self.tickets.push(NewTicket {
                id: ids::new(),
                reservation_id: booking.reservation_id,
                performance_id: key.0,
                seat: key.1,
                code: Alphanumeric.sample_string(&mut rand::rng(), CODE_LENGTH),
            });
        }
        self.decided.push(Change {
            id: booking.reservation_id,
            status: Some("confirmed"),
            ..Change::default()
        });
        // The codes admit to the hall: they are for the buyer, not for every system that listens.
        let tickets: Vec<_> = self.tickets[first..]
            .iter()
            .map(|ticket| json!({ "id": ticket.id, "seat": ticket.seat }))
            .collect();
        job.done([("tickets", json!(tickets))]);
    }

    /// Voids the tickets. The seats stay with the reservation until they are released.
    fn void(&mut self, job: &mut Job<'_>, booking: &Booking) {
        self.voided.push(booking.reservation_id);
        // A booking that turns back gets its end from the release of its seats.
        if job.command.direction == Direction::Do {
            self.decided.push(Change {
                id: booking.reservation_id,
                status: Some("cancelled"),
                ..Change::default()
            });
        }
        job.done([]);
    }

    fn write(self, changes: &mut Changes) {
        let sold: Vec<(&Seat, &Seat)> =
            self.before.iter().filter_map(|(key, before)| Some((before, self.seats.get(key)?))).collect();
        if !sold.is_empty() {
            store::seats::save(changes, &sold);
            store::tickets::insert(changes, &self.tickets, self.now);
        }
        if !self.voided.is_empty() {
            store::tickets::void(changes, &self.voided, self.now);
        }
        if !self.decided.is_empty() {
            store::reservations::change(changes, &self.decided, self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, booking, refusal};
    use super::*;
    use crate::saga::Outcome;

    /// Seats 1 and 2, held by these reservations.
    fn desk(holders: [u128; 2]) -> Desk {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let performance_id = booking(0, &[]).performance_id;
        let seat = |(holder, number)| Seat {
            performance_id,
            number,
            section: "A".to_owned(),
            price: 10,
            status: "held".to_owned(),
            holder: Some(Uuid::from_u128(holder)),
            expires_at: Some(now),
            claimable_at: Some(now),
            sale_opens_at: now,
            sale_closes_at: now,
        };
        let seats = holders.into_iter().zip(1..).map(seat);
        Desk::of(now, seats.map(|seat| ((performance_id, seat.number), seat)).collect())
    }

    #[test]
    fn issuing_sells_each_seat_with_a_ticket_of_its_own() {
        let mut desk = desk([7, 7]);
        let Outcome::Done { output } =
            answer(Direction::Do, None, |job| desk.issue(job, &booking(7, &[1, 2])))
        else {
            panic!("not issued")
        };
        assert!(desk.seats.values().all(|seat| seat.status == "sold" && seat.expires_at.is_none()));
        assert_ne!(desk.tickets[0].code, desk.tickets[1].code);
        assert!(!json!(output).to_string().contains(&desk.tickets[0].code), "codes are for the buyer alone");
        assert_eq!(desk.decided[0].status, Some("confirmed"));
    }

    #[test]
    fn a_seat_lost_in_the_last_moment_sells_none() {
        let mut desk = desk([7, 8]);
        let refused = refusal(answer(Direction::Do, None, |job| desk.issue(job, &booking(7, &[1, 2]))));
        assert_eq!(refused, ("hold_expired".to_owned(), json!({ "seats": [2] })));
        assert!(desk.tickets.is_empty() && desk.before.is_empty() && desk.decided.is_empty());
    }

    #[test]
    fn voiding_ends_a_reservation_only_as_a_cancellation() {
        let mut desk = desk([7, 7]);
        let sold = booking(7, &[1, 2]);
        answer(Direction::Undo, Some("unavailable"), |job| desk.void(job, &sold));
        assert!(desk.decided.is_empty());
        answer(Direction::Do, None, |job| desk.void(job, &sold));
        assert_eq!(desk.decided[0].status, Some("cancelled"));
    }
}
