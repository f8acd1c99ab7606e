//! Hold seats, and beside it release them. A hold is all or nothing.

mod free_lists;
mod access;
mod rules;
mod choose;

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::types::Json;
use uuid::Uuid;

use self::access::AccessCodes;
use self::free_lists::FreeLists;
use self::rules::Refusal;
use super::booking_cache::{BookingCache, CachedBooking, Updates};
use super::seat_notices::SeatNotice;
use super::{Booking, DATE_CANCELLED, Job, Jobs, Limits, done, rejected, unknown_command};
use crate::bus::Bus;
use crate::config::Control;
use crate::orchestrator::{Batch, Participant, Task, Unit};
use crate::saga::{Direction, Outcome};
use crate::store;
use crate::store::batch_tx::BatchTx;
use crate::store::reservations::{Line, Reservation, ReservationStatus};
use crate::store::seats::{Key, Owned, Seat, SeatStatus, Wanted};
use crate::store::tracked_rows::TrackedRows;
use crate::store::write_batch::WriteBatch;

const HOLD: &str = "seats.hold";
const RELEASE: &str = "seats.release";
pub(super) const SERVICE: (&str, &[&str]) = ("seats", &[HOLD, RELEASE]);

/// The service of seats.
#[derive(Debug)]
pub(super) struct HoldSeats {
    pub limits: Limits,
    pub cache: BookingCache,
    pub bus: Bus,
}

impl Participant for HoldSeats {
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
            let mut work = Work {
                cache: self.cache.clone(),
                bus: self.bus.clone(),
                control: attempt.control(),
                jobs: Jobs::of(tasks),
                decisions: Decisions::new(self.limits),
            };
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
    control: Control,
    jobs: Jobs,
    decisions: Decisions,
}

/// Seats as they were read, and what has been decided about them so far.
struct Decisions {
    limits: Limits,
    seats: TrackedRows<Key, Seat>,
    /// Where seats are to be chosen.
    free: FreeLists,
    /// For dates whose sale has not opened.
    access: AccessCodes,
    /// What users have of performances.
    owned: TrackedRows<(Uuid, Uuid), Owned>,
    /// The versions of the performances whose seats are held.
    dates: BTreeMap<Uuid, i64>,
    /// The points of buyers who pay at once.
    balances: BTreeMap<Uuid, i64>,
    /// Reservations that get their seats, or are refused.
    holds: Vec<Reservation>,
    /// Reservations that end without having been confirmed.
    ends: Vec<Reservation>,
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
            HOLD => self.decisions.hold(&job, now),
            RELEASE => self.decisions.release(&job),
            _ => unknown_command(),
        }
    }

    fn write(self: Box<Self>, changes: &mut WriteBatch, sagas: &Batch) -> BoxFuture<'static, ()> {
        let Self { cache, bus, control, decisions, .. } = *self;
        let Decisions { seats, access, owned, dates, holds, ends, updates, notice, .. } = decisions;
        store::seats::compare_dates(changes, &dates);
        store::seats::save(changes, &seats);
        if control == Control::Optimistic {
            let own: Vec<Uuid> = holds.iter().map(|hold| hold.id).collect();
            store::access_codes::compare(changes, &access.used, sagas.now, &own);
            store::seats::compare_buyers(changes, &owned, sagas.now, own);
        }
        store::access_codes::insert_uses(changes, &access.uses);
        store::reservations::insert_holds(changes, &holds, sagas.now);
        store::reservations::end_open(changes, &ends, sagas.now);
        let updates = updates.follow(sagas);
        async move {
            cache.update(updates);
            notice.publish(&bus).await;
        }
        .boxed()
    }
}

impl Work {
    /// Reads the seats, and what those who want to hold some have of the performance already.
    async fn read(&mut self, attempt: &mut BatchTx) -> store::Result<()> {
        let (mut wanted, mut buyers, mut on_sale) = (Vec::new(), Vec::new(), Vec::new());
        for job in self.jobs.readable() {
            let mut buyer = (job.command == HOLD).then_some(job.booking.input.user_id);
            buyers.extend(buyer);
            on_sale.extend(buyer.map(|_| job.booking.input.performance_id));
            if job.chooses() {
                continue;
            }
            // What the buyer has is read once, with the first of the seats.
            wanted.extend(job.booking.keys().map(|(performance_id, number)| Wanted {
                performance_id,
                number,
                buyer: buyer.take(),
                pays: job.booking.input.pay_now,
            }));
        }
        if self.control == Control::Pessimistic && !buyers.is_empty() {
            store::seats::lock_dates(attempt.conn(), &on_sale).await?;
            store::seats::lock_buyers(attempt.conn(), &buyers).await?;
        }
        self.read_access(attempt).await?;
        let lists = self.wanted_lists();
        if self.control == Control::Pessimistic && !lists.is_empty() {
            let named: Vec<Key> = wanted.iter().map(|one| (one.performance_id, one.number)).collect();
            store::free_seats::lock(attempt.conn(), &named, &lists).await?;
        }
        let Decisions { limits, seats, owned, dates, balances, .. } = &mut self.decisions;
        for found in store::seats::read(attempt, &wanted, limits.ended_holds).await? {
            if let Some(buyer) = found.buyer {
                owned.insert((buyer, found.seat.performance_id), found.owned);
                dates.insert(found.seat.performance_id, found.seat.date_version);
                balances.extend(found.balance.map(|balance| (buyer, balance)));
            }
            seats.insert(found.seat.key(), found.seat);
        }
        // The free seats are read last: a seat that was taken since then is compared with its row as it was free.
        self.read_free(attempt, lists).await
    }
}

impl Decisions {
    fn new(limits: Limits) -> Self {
        let (seats, free, access, owned, dates, balances, holds, ends, updates, notice) = Default::default();
        Self { limits, seats, free, access, owned, dates, balances, holds, ends, updates, notice }
    }

    /// Holds all the seats, or none and says why.
    fn hold(&mut self, job: &Job, now: DateTime<Utc>) -> Outcome {
        let booking = match self.granted(job, now) {
            Ok(booking) => booking,
            Err(Outcome::Rejected { code, detail }) => {
                self.updates.set(job, None);
                self.holds.push(Reservation {
                    status: ReservationStatus::Failed,
                    reason: Some(code.clone()),
                    detail: Some(detail.clone()),
                    ..Reservation::begun(&job.booking.input, job.booking.placed_at)
                });
                return Outcome::Rejected { code, detail };
            }
            Err(undecided) => return undecided,
        };
        let (expires_at, claimable_at) = self.hold_ends(&booking, now);
        let (lines, seats) = self.take_seats(&booking, expires_at, claimable_at);
        if let Some(seat) = seats.first() {
            self.access.note(&booking, seat.sale_opens_at, now);
        }
        let amount = lines.iter().filter_map(|line| line.price).sum();
        if let Some(owned) = self.owned.change(&(booking.input.user_id, booking.input.performance_id)) {
            owned.seats += booking.input.seats.len() as i64;
        }
        // Later steps take the seats that were chosen from here.
        let chosen = booking.input.best.is_some().then(|| ("seats", json!(booking.input.seats)));
        let output = done(chosen.into_iter().chain([
            ("amount", json!(amount)),
            ("lines", json!(lines)),
            ("expires_at", time(expires_at)),
            ("claimable_at", time(claimable_at)),
        ]));
        let reservation = Reservation {
            status: ReservationStatus::Held,
            lines: Json(lines),
            amount,
            expires_at: Some(expires_at),
            claimable_at: Some(claimable_at),
            ..Reservation::begun(&booking.input, booking.placed_at)
        };
        self.holds.push(reservation.clone());
        let balance = self.balances.get(&booking.input.user_id).copied();
        self.updates.set(job, Some(CachedBooking { seq: job.seq, seats, reservation, balance }));
        self.notice.add(&booking);
        output
    }

    /// The booking with its seats, which are those that it names or those that are chosen for it; or why it gets none.
    fn granted<'a>(&self, job: &'a Job, now: DateTime<Utc>) -> Result<Cow<'a, Booking>, Outcome> {
        let booking = &job.booking;
        match &booking.input.best {
            Some(best) => self.chosen(booking, best, now).map(Cow::Owned),
            None => match self.may_hold(booking, now) {
                Ok(()) => Ok(Cow::Borrowed(booking)),
                Err(Refusal { code, detail }) => Err(rejected(code, detail)),
            },
        }
    }

    /// The lines of the reservation, and the seats as they are held.
    fn take_seats(
        &mut self,
        booking: &Booking,
        expires_at: DateTime<Utc>,
        claimable_at: DateTime<Utc>,
    ) -> (Vec<Line>, Vec<Seat>) {
        let (mut lines, mut seats) = (Vec::new(), Vec::new());
        for key in booking.keys() {
            let Some(seat) = self.seats.change(&key) else {
                continue;
            };
            seat.status = SeatStatus::Held;
            seat.holder = Some(booking.input.reservation_id);
            seat.expires_at = Some(expires_at);
            seat.claimable_at = Some(claimable_at);
            lines.push(Line {
                number: seat.number,
                section: Some(seat.section.clone()),
                price: Some(seat.price),
            });
            seats.push(seat.clone());
        }
        if !self.free.is_empty() {
            self.free.take(booking.input.performance_id, &booking.input.seats);
        }
        (lines, seats)
    }

    /// Until when a payment is accepted, and until when one under way keeps the seats. Both end when the performance starts:
    /// what is paid later could not be given back.
    fn hold_ends(&self, booking: &Booking, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let expires_at = now + self.limits.hold;
        let claimable_at = expires_at + self.limits.grace;
        match booking.keys().find_map(|key| self.seats.get(&key)) {
            Some(seat) => (expires_at.min(seat.starts_at), claimable_at.min(seat.starts_at)),
            None => (expires_at, claimable_at),
        }
    }

    /// Frees the seats that the reservation still has. Those that it lost or never had stay as they are.
    fn release(&mut self, job: &Job) -> Outcome {
        let booking = &job.booking;
        for key in booking.keys() {
            let has = |seat: &Seat| seat.holder == Some(booking.input.reservation_id);
            if !self.seats.get(&key).is_some_and(has) {
                continue;
            }
            let Some(seat) = self.seats.change(&key) else {
                continue;
            };
            seat.status = SeatStatus::Free;
            seat.holder = None;
            seat.expires_at = None;
            seat.claimable_at = None;
        }
        // As a step of a cancellation the reservation has its end already.
        if job.direction == Direction::Undo {
            let first = booking.keys().next().and_then(|key| self.seats.get(&key));
            let is_date_cancelled = first.is_some_and(|seat| seat.cancelled_at.is_some());
            let (status, reason) = end_of(job.reason.as_deref(), is_date_cancelled);
            let begun = Reservation::begun(&booking.input, booking.placed_at);
            self.ends.push(Reservation { status, reason, ..begun });
        }
        self.updates.set(job, None);
        self.notice.add(booking);
        done([])
    }
}

impl Job {
    /// Whether its seats are to be chosen.
    fn chooses(&self) -> bool {
        self.command == HOLD && self.booking.input.best.is_some()
    }
}

/// How a reservation ends by the reason for which its saga is undone.
fn end_of(reason: Option<&str>, is_date_cancelled: bool) -> (ReservationStatus, Option<String>) {
    match reason {
        Some("hold_expired") => (ReservationStatus::Expired, Some("hold_expired".to_owned())),
        Some("cancelled") => {
            (ReservationStatus::Cancelled, is_date_cancelled.then(|| DATE_CANCELLED.to_owned()))
        }
        other => (ReservationStatus::Failed, Some(other.unwrap_or("unavailable").to_owned())),
    }
}

fn time(at: DateTime<Utc>) -> Value {
    Value::String(at.to_rfc3339_opts(SecondsFormat::Micros, true))
}

#[cfg(test)]
mod tests;
