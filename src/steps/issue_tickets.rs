//! Issue tickets, and beside it void them.
//!
//! Issuing is the moment of sale: the seats, still held by the reservation, become sold; it is confirmed; each seat has a
//! ticket. If another reservation has claimed a seat in the last moment, or the performance has started or was cancelled, nothing of it
//! happens.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;
use uuid::Uuid;

use super::booking_cache::{BookingCache, CachedBooking, Updates};
use super::seat_notices::SeatNotice;
use super::{DATE_CANCELLED, Job, Jobs, done, rejected, unknown_command};
use crate::bus::Bus;
use crate::config::Control;
use crate::ids;
use crate::orchestrator::{Batch, Participant, Task, Unit};
use crate::saga::{Direction, Outcome};
use crate::store;
use crate::store::batch_tx::BatchTx;
use crate::store::reservations::{ReservationStatus, Ticket};
use crate::store::seats::{Key, Seat, SeatStatus, Wanted};
use crate::store::tickets::NewTicket;
use crate::store::tracked_rows::TrackedRows;
use crate::store::write_batch::WriteBatch;

const ISSUE: &str = "tickets.issue";
const VOID: &str = "tickets.void";
pub(super) const SERVICE: (&str, &[&str]) = ("tickets", &[ISSUE, VOID]);

/// The service of tickets.
#[derive(Debug)]
pub(super) struct IssueTickets {
    pub cache: BookingCache,
    pub bus: Bus,
}

impl Participant for IssueTickets {
    fn name(&self) -> &'static str {
        SERVICE.0
    }

    fn commands(&self) -> &'static [&'static str] {
        SERVICE.1
    }

    fn load<'a>(
        &'a self,
        attempt: &'a mut BatchTx,
        tasks: &'a [Task<'a>],
    ) -> BoxFuture<'a, store::Result<Box<dyn Unit>>> {
        async move {
            let (cache, bus, jobs) = (self.cache.clone(), self.bus.clone(), Jobs::of(tasks));
            let mut work = Work { cache, bus, jobs, decisions: Decisions::default() };
            work.read(attempt).await?;
            Ok(Box::new(work) as Box<dyn Unit>)
        }
        .boxed()
    }
}

/// The work on one batch.
struct Work {
    cache: BookingCache,
    bus: Bus,
    jobs: Jobs,
    decisions: Decisions,
}

/// Held seats, and what has been decided about them so far.
#[derive(Default)]
struct Decisions {
    seats: TrackedRows<Key, Seat>,
    /// The versions of the performances whose seats are sold.
    dates: BTreeMap<Uuid, i64>,
    tickets: Vec<NewTicket>,
    confirmed: Vec<Uuid>,
    cancelled: Vec<Uuid>,
    voided: Vec<Uuid>,
    updates: Updates,
    notice: SeatNotice,
}

impl Unit for Work {
    fn execute(&mut self, task: usize, now: DateTime<Utc>) -> Outcome {
        let job = match self.jobs.take(task) {
            Ok(job) => job,
            Err(outcome) => return outcome,
        };
        match job.command.as_str() {
            ISSUE => {
                let before = self.cache.of_job(&job);
                self.decisions.issue(&job, before, now)
            }
            VOID => self.decisions.void(&job),
            _ => unknown_command(),
        }
    }

    fn write(self: Box<Self>, changes: &mut WriteBatch, sagas: &Batch) -> BoxFuture<'static, ()> {
        let Self { cache, bus, decisions, .. } = *self;
        let Decisions { seats, dates, tickets, confirmed, cancelled, voided, updates, notice } = decisions;
        store::seats::compare_dates(changes, &dates);
        store::seats::save(changes, &seats);
        store::tickets::insert(changes, &tickets, sagas.now);
        store::tickets::void(changes, &voided, sagas.now);
        store::reservations::confirm(changes, &confirmed, sagas.now);
        store::reservations::cancel(changes, &cancelled, sagas.now);
        let updates = updates.follow(sagas);
        async move {
            cache.update(updates);
            notice.publish(&bus).await;
        }
        .boxed()
    }
}

impl Work {
    /// Takes the seats as this process wrote them when they were held, and reads the others.
    async fn read(&mut self, attempt: &mut BatchTx) -> store::Result<()> {
        let jobs = self.jobs.readable().filter(|job| job.command == ISSUE);
        if attempt.control() == Control::Pessimistic {
            let named: Vec<Uuid> = jobs.map(|job| job.booking.input.performance_id).collect();
            store::seats::lock_dates(attempt.conn(), &named).await?;
        }
        let Decisions { seats, dates, .. } = &mut self.decisions;
        // A date may have changed between two of the reads: the older version makes the comparison fail.
        let mut note = |seat: &Seat| {
            let version = dates.entry(seat.performance_id).or_insert(seat.date_version);
            *version = seat.date_version.min(*version);
        };
        let mut wanted = Vec::new();
        for job in self.jobs.readable().filter(|job| job.command == ISSUE) {
            let known = (attempt.control() == Control::Optimistic).then(|| self.cache.of_job(job)).flatten();
            match known.filter(|known| !known.seats.is_empty()) {
                Some(known) => {
                    for seat in known.seats {
                        note(&seat);
                        seats.insert(seat.key(), seat);
                    }
                }
                None => wanted.extend(job.booking.keys().map(|(performance_id, number)| Wanted {
                    performance_id,
                    number,
                    buyer: None,
                    pays: false,
                })),
            }
        }
        for found in store::seats::read(attempt, &wanted, 0).await? {
            note(&found.seat);
            seats.insert(found.seat.key(), found.seat);
        }
        Ok(())
    }
}

impl Decisions {
    /// Sells the seats to the reservation that holds them.
    fn issue(&mut self, job: &Job, before: Option<CachedBooking>, now: DateTime<Utc>) -> Outcome {
        let booking = &job.booking;
        let reservation_id = booking.input.reservation_id;
        let is_cancelled = |seat: Option<&Seat>| seat.is_some_and(|seat| seat.cancelled_at.is_some());
        if !booking.numbers(&self.seats, is_cancelled).is_empty() {
            self.updates.set(job, None);
            return rejected(DATE_CANCELLED, json!({}));
        }
        let is_held = |seat: &Seat| seat.status == SeatStatus::Held && seat.holder == Some(reservation_id);
        // What would be paid from the start on could not be given back.
        let can_be_sold = |seat: &Seat| is_held(seat) && now < seat.starts_at;
        let lost = booking.numbers(&self.seats, |seat| !seat.is_some_and(can_be_sold));
        // Seats that were to be chosen and never were: an operator has completed the hold by hand.
        if !lost.is_empty() || booking.input.seats.is_empty() {
            self.updates.set(job, None);
            return rejected("hold_expired", json!({ "seats": lost }));
        }
        let first = self.tickets.len();
        for key in booking.keys() {
            if let Some(seat) = self.seats.change(&key) {
                seat.status = SeatStatus::Sold;
                seat.expires_at = None;
                seat.claimable_at = None;
            }
            self.tickets.push(NewTicket {
                id: ids::new(),
                reservation_id,
                performance_id: key.0,
                seat: key.1,
            });
        }
        self.confirmed.push(reservation_id);
        self.notice.add(booking);
        let issued = &self.tickets[first..];
        self.updates.set(job, before.map(|entry| confirmed(entry, issued)));
        // Events carry no codes: a code admits to the hall, so it is for the buyer and not for every system that listens.
        let tickets: Vec<_> =
            issued.iter().map(|ticket| json!({ "id": ticket.id, "seat": ticket.seat })).collect();
        done([("tickets", json!(tickets))])
    }

    /// Voids the tickets. The seats stay with the reservation until they are released.
    fn void(&mut self, job: &Job) -> Outcome {
        self.updates.set(job, None);
        self.voided.push(job.booking.input.reservation_id);
        // A booking that is undone gets its end from the release of its seats.
        if job.direction == Direction::Do {
            self.cancelled.push(job.booking.input.reservation_id);
        }
        self.notice.add(&job.booking);
        done([])
    }
}

/// The remembered reservation with its tickets.
fn confirmed(mut entry: CachedBooking, issued: &[NewTicket]) -> CachedBooking {
    entry.seats.clear();
    let reservation = &mut entry.reservation;
    reservation.status = ReservationStatus::Confirmed;
    let tickets = issued.iter().map(|ticket| Ticket {
        id: ticket.id,
        seat: ticket.seat,
        status: "valid".to_owned(),
        holder_id: None,
    });
    reservation.tickets.0.extend(tickets);
    reservation.tickets.0.sort_by_key(|ticket| ticket.seat);
    entry
}

#[cfg(test)]
mod tests {
    use super::super::tests::{booking, job, now, output, rejection, seat};
    use super::*;

    /// Seats 1 and 2, held by these reservations.
    fn held_by(holders: [u128; 2]) -> Decisions {
        let seats = holders.into_iter().zip(1..).map(|(holder, number)| Seat {
            status: SeatStatus::Held,
            holder: Some(Uuid::from_u128(holder)),
            expires_at: Some(now()),
            claimable_at: Some(now()),
            starts_at: now() + chrono::TimeDelta::seconds(1),
            ..seat(number)
        });
        Decisions { seats: seats.map(|seat| (seat.key(), seat)).collect(), ..Decisions::default() }
    }

    fn issue(work: &mut Decisions, now: DateTime<Utc>) -> Outcome {
        work.issue(&job(ISSUE, Direction::Do, booking(7, &[1, 2])), None, now)
    }

    #[test]
    fn each_sold_seat_gets_a_ticket() {
        let mut work = held_by([7, 7]);
        let output = output(issue(&mut work, now()));
        let is_sold = |seat: &Seat| seat.status == SeatStatus::Sold && seat.expires_at.is_none();
        assert!(work.seats.iter().all(|(_, seat)| is_sold(seat)));
        assert_ne!(work.tickets[0].id, work.tickets[1].id);
        assert!(!json!(output).to_string().contains("code"), "codes are for the buyer alone");
        assert_eq!(work.confirmed, [Uuid::from_u128(7)]);
    }

    #[test]
    fn seat_lost_in_the_last_moment_sells_none() {
        let mut work = held_by([7, 8]);
        let refused = rejection(issue(&mut work, now()));
        assert_eq!(refused, ("hold_expired".to_owned(), json!({ "seats": [2] })));
        assert!(
            work.tickets.is_empty() && work.seats.changed().next().is_none() && work.confirmed.is_empty()
        );
    }

    #[test]
    fn booking_without_seats_sells_nothing() {
        let mut work = held_by([7, 7]);
        let refused = rejection(work.issue(&job(ISSUE, Direction::Do, booking(7, &[])), None, now()));
        assert_eq!(refused, ("hold_expired".to_owned(), json!({ "seats": [] })));
        assert!(work.confirmed.is_empty());
    }

    #[test]
    fn nothing_is_sold_once_the_performance_has_started() {
        let mut work = held_by([7, 7]);
        let refused = rejection(issue(&mut work, now() + chrono::TimeDelta::seconds(1)));
        assert_eq!(refused.0, "hold_expired");
        assert!(work.tickets.is_empty());
    }

    #[test]
    fn nothing_is_sold_of_a_cancelled_date() {
        let mut work = held_by([7, 7]);
        let key = (Uuid::from_u128(2), 2);
        work.seats.change(&key).unwrap().cancelled_at = Some(now());
        assert_eq!(rejection(issue(&mut work, now())).0, DATE_CANCELLED);
        assert!(work.tickets.is_empty() && work.confirmed.is_empty());
    }

    #[test]
    fn voiding_ends_a_reservation_only_as_a_cancellation() {
        let mut work = held_by([7, 7]);
        work.void(&job(VOID, Direction::Undo, booking(7, &[1, 2])));
        assert!(work.cancelled.is_empty());
        work.void(&job(VOID, Direction::Do, booking(7, &[1, 2])));
        assert_eq!(work.cancelled, [Uuid::from_u128(7)]);
    }
}
