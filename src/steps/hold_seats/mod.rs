//! Hold seats, and beside it release them. A hold is all or nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::types::Json;
use uuid::Uuid;

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
use crate::store::seats::{ENDED_HOLDS_WINDOW, Key, Owned, Seat, SeatStatus, Wanted};
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
        let Decisions { seats, owned, dates, holds, ends, updates, notice, .. } = decisions;
        store::seats::compare_dates(changes, &dates);
        store::seats::save(changes, &seats);
        if control == Control::Optimistic {
            let own = holds.iter().map(|hold| hold.id).collect();
            store::seats::compare_buyers(changes, &owned, sagas.now, own);
        }
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
        let Decisions { limits, seats, owned, dates, balances, .. } = &mut self.decisions;
        for found in store::seats::read(attempt, &wanted, limits.ended_holds).await? {
            if let Some(buyer) = found.buyer {
                owned.insert((buyer, found.seat.performance_id), found.owned);
                dates.insert(found.seat.performance_id, found.seat.date_version);
                balances.extend(found.balance.map(|balance| (buyer, balance)));
            }
            seats.insert(found.seat.key(), found.seat);
        }
        Ok(())
    }
}

impl Decisions {
    fn new(limits: Limits) -> Self {
        let (seats, owned, dates, balances, holds, ends, updates, notice) = Default::default();
        Self { limits, seats, owned, dates, balances, holds, ends, updates, notice }
    }

    /// Holds all the seats, or none and says why.
    fn hold(&mut self, job: &Job, now: DateTime<Utc>) -> Outcome {
        let booking = &job.booking;
        if let Err((code, detail)) = self.may_hold(booking, now) {
            self.updates.set(job, None);
            self.holds.push(Reservation {
                status: ReservationStatus::Failed,
                reason: Some(code.to_owned()),
                detail: Some(detail.clone()),
                ..Reservation::begun(&booking.input, booking.placed_at)
            });
            return rejected(code, detail);
        }
        let (expires_at, claimable_at) = self.hold_ends(booking, now);
        let (lines, seats) = self.take_seats(booking, expires_at, claimable_at);
        let amount = lines.iter().filter_map(|line| line.price).sum();
        if let Some(owned) = self.owned.change(&(booking.input.user_id, booking.input.performance_id)) {
            owned.seats += booking.input.seats.len() as i64;
        }
        let output = done([
            ("amount", json!(amount)),
            ("lines", json!(lines)),
            ("expires_at", time(expires_at)),
            ("claimable_at", time(claimable_at)),
        ]);
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
        self.notice.add(booking);
        output
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

    fn may_hold(&self, booking: &Booking, now: DateTime<Utc>) -> Result<(), (&'static str, Value)> {
        let unknown: Vec<i32> = booking.numbers(&self.seats, |seat| seat.is_none());
        let first = booking.keys().next().and_then(|key| self.seats.get(&key));
        let Some(first) = first.filter(|_| unknown.is_empty()) else {
            return Err(("seat_unknown", json!({ "seats": unknown })));
        };
        if now < first.sale_opens_at || now >= first.sale_ends_at() {
            return Err((
                "sale_not_open",
                json!({
                    "opens_at": first.sale_opens_at,
                    "closes_at": first.sale_ends_at(),
                    "cancelled_at": first.cancelled_at,
                }),
            ));
        }
        let account = self.owned.get(&(booking.input.user_id, booking.input.performance_id));
        let released = account.and_then(|account| account.released.as_ref());
        let released: Vec<i32> = released.iter().flat_map(|lists| lists.iter().flatten()).copied().collect();
        let mut taken = booking.numbers(&self.seats, |seat| seat.is_some_and(|seat| !seat.is_free(now)));
        let mine =
            booking.input.seats.iter().filter(|number| released.contains(number) && !taken.contains(number));
        let just_cancelled: Vec<i32> = mine.copied().collect();
        taken.extend(&just_cancelled);
        taken.sort_unstable();
        if !just_cancelled.is_empty() {
            return Err(("seat_taken", json!({ "seats": taken, "just_cancelled": just_cancelled })));
        }
        if !taken.is_empty() {
            return Err(("seat_taken", json!({ "seats": taken })));
        }
        if let Some(since) = account.and_then(|account| account.limited_since) {
            let until = since + ENDED_HOLDS_WINDOW;
            let seconds = (until - now).num_seconds().max(0) + 1;
            let limit = self.limits.ended_holds;
            return Err((
                "rate_limited",
                json!({ "limit": limit, "retry_after_seconds": seconds, "until": time(until) }),
            ));
        }
        let (owned, limit) = (account.map_or(0, |account| account.seats), self.limits.seats_per_user);
        if owned + booking.input.seats.len() as i64 > limit {
            return Err(("too_many_seats", json!({ "limit": limit, "owned": owned })));
        }
        Ok(())
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

impl Seat {
    /// Free for every buyer: never taken, or held beyond the time that even a payment under way may take.
    fn is_free(&self, now: DateTime<Utc>) -> bool {
        match self.status {
            SeatStatus::Free => true,
            SeatStatus::Held => self.claimable_at.is_some_and(|at| at <= now),
            SeatStatus::Sold => false,
        }
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
