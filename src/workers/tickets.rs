//! Tickets: issue, and beside it void.
//!
//! Issuing is the moment of sale: the seats, still held by the reservation, become sold; it is confirmed; each
//! seat has a ticket. If a seat was claimed by another reservation in the last moment, or the performance has started,
//! nothing of it happens.

use rand::distr::{Alphanumeric, SampleString};
use serde_json::json;

use super::books::Books;
use super::{Booking, Job};
use crate::ids;
use crate::saga::Direction;
use crate::store::reservations::Change;
use crate::store::seats::Seat;
use crate::store::tickets::NewTicket;

/// Characters of a ticket's code: 119 bits of chance.
const CODE_LENGTH: usize = 20;

impl Books {
    /// Sells the seats to the reservation that holds them.
    pub(super) fn issue(&mut self, job: &mut Job, booking: &Booking) {
        let held = |seat: &Seat| seat.status == "held" && seat.holder == Some(booking.reservation_id);
        // What would be paid from the start on could not be given back.
        let sold = |seat: &Seat| held(seat) && self.now < seat.starts_at;
        let lost = self.numbers(booking, |seat| !seat.is_some_and(sold));
        if !lost.is_empty() {
            return job.rejected("hold_expired", json!({ "seats": lost }));
        }
        let first = self.tickets.len();
        for key in booking.keys() {
            if let Some(seat) = self.seats.change(&key) {
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
    pub(super) fn void(&mut self, job: &mut Job, booking: &Booking) {
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
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::super::tests::{answer, booking, limits, refusal};
    use super::*;
    use crate::saga::Outcome;

    /// Seats 1 and 2, held by these reservations.
    fn desk(holders: [u128; 2]) -> Books {
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
            starts_at: now + chrono::TimeDelta::seconds(1),
        };
        let seats = holders.into_iter().zip(1..).map(seat);
        Books { seats: seats.map(|seat| (seat.key(), seat)).collect(), ..Books::of(now, limits()) }
    }

    #[test]
    fn issuing_sells_each_seat_with_a_ticket_of_its_own() {
        let mut desk = desk([7, 7]);
        let Outcome::Done { output } =
            answer(Direction::Do, None, |job| desk.issue(job, &booking(7, &[1, 2])))
        else {
            panic!("not issued")
        };
        assert!(desk.seats.iter().all(|(_, seat)| seat.status == "sold" && seat.expires_at.is_none()));
        assert_ne!(desk.tickets[0].code, desk.tickets[1].code);
        assert!(!json!(output).to_string().contains(&desk.tickets[0].code), "codes are for the buyer alone");
        assert_eq!(desk.decided[0].status, Some("confirmed"));
    }

    #[test]
    fn a_seat_lost_in_the_last_moment_sells_none() {
        let mut desk = desk([7, 8]);
        let refused = refusal(answer(Direction::Do, None, |job| desk.issue(job, &booking(7, &[1, 2]))));
        assert_eq!(refused, ("hold_expired".to_owned(), json!({ "seats": [2] })));
        assert!(desk.tickets.is_empty() && desk.seats.changed().next().is_none() && desk.decided.is_empty());
    }

    #[test]
    fn nothing_is_sold_once_the_performance_has_started() {
        let mut desk = desk([7, 7]);
        desk.now += chrono::TimeDelta::seconds(1);
        let refused = refusal(answer(Direction::Do, None, |job| desk.issue(job, &booking(7, &[1, 2]))));
        assert_eq!(refused.0, "hold_expired");
        assert!(desk.tickets.is_empty());
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
