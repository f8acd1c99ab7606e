//! Reservations as this process wrote them last, so that a caller is answered and tickets are issued without another read.
//!
//! An entry belongs to one number of the saga's history. A step that finds the saga at another number drops it: another process
//! has done a step between. What is compared when the next step is written (seats, saga) is compared with what stands here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::books::Books;
use super::{Booking, Job};
use crate::orchestrator::Batch;
use crate::saga::{Outcome, Saga, Status};
use crate::store::reservations::{NewReservation, Payment, Reservation, ReservationStatus, Ticket};
use crate::store::seats::Seat;

/// Most reservations that are remembered, about 1 kB each: as many as are under way in one process at its best.
const MOST: usize = 8_192;

/// What is remembered. Clones share it.
#[derive(Clone, Debug)]
pub struct Written(Arc<Mutex<LruCache<Uuid, Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    /// The number of the saga's history that this belongs to.
    seq: i64,
    /// The seats, as long as they are held.
    seats: Vec<Seat>,
    reservation: Reservation,
}

/// What a batch has made of reservations, to be remembered once it is committed.
#[derive(Debug, Default)]
pub(super) struct Notes {
    known: Vec<(Uuid, Entry)>,
    unknown: Vec<Uuid>,
}

impl Default for Written {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MOST))))
    }
}

impl Written {
    fn entries(&self) -> MutexGuard<'_, LruCache<Uuid, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reservation, if it is as the caller wants it.
    pub fn get(&self, id: Uuid, wanted: impl Fn(&Reservation) -> bool) -> Option<Reservation> {
        self.entries().peek(&id).map(|entry| &entry.reservation).filter(|found| wanted(found)).cloned()
    }

    /// The saga is about to get a signal, which moves its history on by one. What was written before it answers no caller.
    pub fn signalled(&self, id: Uuid) {
        if let Some(entry) = self.entries().peek_mut(&id) {
            entry.seq += 1;
            entry.reservation.saga_status = Some(Status::Running);
        }
    }

    /// The held seats of a booking whose saga stands at this number.
    pub(super) fn seats_of(&self, saga: &Saga) -> Option<Vec<Seat>> {
        let entries = self.entries();
        let entry = entries.peek(&saga.id).filter(|entry| entry.seq == saga.seq)?;
        Some(entry.seats.clone()).filter(|seats| !seats.is_empty())
    }

    /// What these jobs have made of their reservations, before it is written. Sagas in `batch` are as they were read.
    pub(super) fn notes(&self, jobs: &[Job], books: &Books, batch: &Batch) -> Notes {
        let mut notes = Notes::default();
        for job in jobs {
            let id = job.command.saga_id;
            let before = batch.saga(id).and_then(|saga| {
                let booking = job.booking.as_ref().filter(|booking| booking.reservation_id == id)?;
                match (job.command.subject.as_str(), job.outcome.as_ref()?) {
                    ("seats.hold", Outcome::Done { .. }) => begun(booking, saga, books),
                    ("points.deduct" | "tickets.issue", Outcome::Done { .. }) => {
                        self.entries().peek(&id).filter(|entry| entry.seq == saga.seq).cloned()
                    }
                    _ => None,
                }
            });
            match before.and_then(|entry| changed(entry, books)) {
                Some(entry) => notes.known.push((id, entry)),
                None => notes.unknown.push(id),
            }
        }
        notes
    }

    /// Takes note of what was committed, with the sagas as they are now.
    pub(super) fn note(&self, notes: Notes) {
        let mut entries = self.entries();
        for id in notes.unknown {
            entries.remove(&id);
        }
        for (id, entry) in notes.known {
            entries.insert(id, entry);
        }
    }
}

impl Notes {
    /// Takes over how the sagas stand after their steps.
    pub(super) fn settle(&mut self, batch: &Batch) {
        for (id, entry) in &mut self.known {
            if let Some(saga) = batch.saga(*id) {
                entry.seq = saga.seq;
                entry.reservation.saga_status = Some(saga.status);
                entry.reservation.saga_visit = Some(saga.visit);
                entry.reservation.saga_rejection = saga.rejection.clone();
            }
        }
    }
}

/// A reservation whose seats have just been held.
fn begun(booking: &Booking, saga: &Saga, books: &Books) -> Option<Entry> {
    let seats: Vec<Seat> = booking.keys().filter_map(|key| books.seats.get(&key).cloned()).collect();
    let ordered = NewReservation {
        id: booking.reservation_id,
        user_id: booking.user_id,
        concert_id: booking.concert_id?,
        performance_id: booking.performance_id,
        seats: booking.seats.clone(),
        pay_now: false,
        trace: None,
    };
    let reservation = Reservation::begun(&ordered, saga.created_at);
    Some(Entry { seq: saga.seq, seats, reservation })
}

/// The entry after what these books have decided; none if that cannot be told here.
fn changed(mut entry: Entry, books: &Books) -> Option<Entry> {
    let reservation = &mut entry.reservation;
    for change in books.decided.iter().filter(|change| change.id == reservation.id) {
        if let Some(status) = change.status {
            reservation.status = ReservationStatus::ALL.into_iter().find(|known| known.name() == status)?;
        }
        if let Some(lines) = &change.lines {
            reservation.lines = Json(serde_json::from_value(Value::clone(lines)).ok()?);
        }
        reservation.amount = change.amount.unwrap_or(reservation.amount);
        reservation.expires_at = change.expires_at.or(reservation.expires_at);
        reservation.claimable_at = change.claimable_at.or(reservation.claimable_at);
    }
    for payment in books.payments.iter().filter(|payment| payment.reservation_id == reservation.id) {
        reservation.payment = Some(Json(Payment {
            id: payment.id,
            status: payment.status.to_owned(),
            amount: payment.amount,
            paid_at: payment.paid_at,
        }));
    }
    let issued = books.tickets.iter().filter(|ticket| ticket.reservation_id == reservation.id);
    let tickets = issued.map(|ticket| Ticket {
        id: ticket.id,
        seat: ticket.seat,
        code: ticket.code.clone(),
        status: "valid".to_owned(),
    });
    reservation.tickets.0.extend(tickets);
    reservation.tickets.0.sort_by_key(|ticket| ticket.seat);
    if reservation.status != ReservationStatus::Held {
        entry.seats.clear();
    }
    Some(entry)
}
