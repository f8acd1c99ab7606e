//! The books of a batch: all that its commands are about is read first, each command is decided in the order of arrival
//! against what the ones before it have left, then all that changed is written.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Booking, Job, Limits, Service};
use crate::clock::Clock;
use crate::config::Control;
use crate::store;
use crate::store::attempt::Attempt;
use crate::store::changes::Changes;
use crate::store::payments::{NewEntry, NewPayment, Use};
use crate::store::reservations::{Change, End};
use crate::store::rows::Rows;
use crate::store::seats::{Found, Key, Owned, Seat, Wanted};
use crate::store::tickets::NewTicket;

/// What was read, and what has been decided about it so far.
pub(super) struct Books {
    pub now: DateTime<Utc>,
    /// When the dates of seats begin that were not read.
    pub dates: BTreeMap<Uuid, DateTime<Utc>>,
    /// `now` is by this process's clock: the statement that writes compares it with the database's.
    pub compares_clock: bool,
    pub limits: Limits,
    pub seats: Rows<Key, Seat>,
    /// What users have of performances.
    pub owned: Rows<(Uuid, Uuid), Owned>,
    /// Points of users.
    pub balances: Rows<Uuid, i64>,
    /// Points of reservations that may be given back.
    pub uses: BTreeMap<Uuid, Use>,
    pub decided: Vec<Change>,
    pub ends: Vec<End>,
    pub entries: Vec<NewEntry>,
    pub payments: Vec<NewPayment>,
    pub refunded: Vec<Uuid>,
    pub tickets: Vec<NewTicket>,
    pub voided: Vec<Uuid>,
}

impl Books {
    /// Reads what these jobs are about, and the database's clock unless it was read already.
    pub async fn read(
        attempt: &mut Attempt,
        limits: Limits,
        jobs: &[Job],
        known: Vec<Seat>,
        read_at: Option<DateTime<Utc>>,
        clock: &Clock,
    ) -> store::Result<Self> {
        let jobs = jobs.iter().filter_map(|job| Some((job, job.booking.as_ref()?)));
        let (paying, others): (Vec<_>, Vec<_>) =
            jobs.partition(|(job, _)| job.service() == Some(Service::Points));
        let mut books = Self::of(DateTime::default(), limits);
        books.dates = known.iter().map(|seat| (seat.performance_id, seat.starts_at)).collect();
        books.seats = known.into_iter().map(|seat| (seat.key(), seat)).collect();
        let read_at = books.read_seats(attempt, &others, read_at).await?.or(read_at);
        let read_at = books.read_points(attempt, &paying).await?.or(read_at);
        books.now = match read_at {
            Some(now) => now,
            None if attempt.control() == Control::Optimistic => {
                books.compares_clock = true;
                clock.micros()
            }
            None => store::now(attempt.conn()).await?,
        };
        Ok(books)
    }

    /// Nothing read yet, nothing decided.
    pub fn of(now: DateTime<Utc>, limits: Limits) -> Self {
        let (seats, owned, balances, uses) = Default::default();
        let (decided, ends, entries, payments, refunded, tickets, voided) = Default::default();
        Self {
            now,
            dates: BTreeMap::new(),
            compares_clock: false,
            limits,
            seats,
            owned,
            balances,
            uses,
            decided,
            ends,
            entries,
            payments,
            refunded,
            tickets,
            voided,
        }
    }

    /// Decides about a job, if it is not answered yet. Every command: do, and beside it undo.
    pub fn handle(&mut self, job: &mut Job) {
        if job.outcome.is_some() {
            return;
        }
        // It goes back when the job is answered.
        let Some(whole) = job.booking.take() else { return };
        let booking = &whole;
        match job.command.subject.as_str() {
            "seats.hold" => self.hold(job, booking),
            "seats.release" => self.release(job, booking),
            "points.deduct" => self.deduct(job, booking),
            "points.refund" => self.refund(job, booking),
            "tickets.issue" => self.issue(job, booking),
            "tickets.void" => self.void(job, booking),
            _ => job.unknown_command(),
        }
        job.booking = Some(whole);
    }

    /// Also says when, by the database's clock, unless there was nothing to read.
    async fn read_seats(
        &mut self,
        attempt: &mut Attempt,
        jobs: &[(&Job, &Booking)],
        now: Option<DateTime<Utc>>,
    ) -> store::Result<Option<DateTime<Utc>>> {
        let (mut wanted, mut buyers) = (Vec::new(), Vec::new());
        for (job, booking) in jobs {
            let mut buyer = (job.command.subject == "seats.hold").then_some(booking.user_id);
            buyers.extend(buyer);
            // What the buyer has is read once, with the first of the seats.
            let unknown = booking.keys().filter(|key| self.seats.get(key).is_none());
            wanted.extend(unknown.map(|(performance_id, number)| Wanted {
                performance_id,
                number,
                buyer: buyer.take(),
            }));
        }
        let control = attempt.control();
        if control == Control::Pessimistic && !buyers.is_empty() {
            store::seats::lock_buyers(attempt.conn(), &buyers).await?;
        }
        let max_ended = self.limits.ended_holds;
        let found = store::seats::read(attempt.conn(), &wanted, now, max_ended, control).await?;
        let read_at = found.first().map(|found| found.read_at);
        for Found { seat, buyer, owned, .. } in found {
            if let Some(buyer) = buyer {
                self.owned.insert((buyer, seat.performance_id), owned);
            }
            self.seats.insert(seat.key(), seat);
        }
        Ok(read_at)
    }

    /// The same.
    async fn read_points(
        &mut self,
        attempt: &mut Attempt,
        jobs: &[(&Job, &Booking)],
    ) -> store::Result<Option<DateTime<Utc>>> {
        let users: Vec<Uuid> = jobs.iter().map(|(_, booking)| booking.user_id).collect();
        let refunds: Vec<Uuid> = jobs
            .iter()
            .filter(|(job, _)| job.command.subject == "points.refund")
            .map(|(_, booking)| booking.reservation_id)
            .collect();
        let control = attempt.control();
        let (balances, read_at) = store::payments::read_balances(attempt.conn(), &users, control).await?;
        self.balances = balances;
        let uses = store::payments::open_uses(attempt.conn(), &refunds).await?;
        self.uses = uses.into_iter().map(|used| (used.reservation_id, used)).collect();
        Ok(read_at)
    }

    /// The numbers of a booking's seats of which something is so.
    pub fn numbers(&self, booking: &Booking, matches: impl Fn(Option<&Seat>) -> bool) -> Vec<i32> {
        booking.keys().filter(|key| matches(self.seats.get(key))).map(|(_, number)| number).collect()
    }

    /// What was decided is to be written.
    pub fn write(self, changes: &mut Changes, control: Control) {
        if self.compares_clock {
            changes.compare_clock(self.now);
        }
        store::seats::compare_dates(changes, &self.dates);
        store::seats::save(changes, &self.seats);
        if control == Control::Optimistic {
            let own = self.decided.iter().map(|change| change.id).collect();
            store::seats::compare_buyers(changes, &self.owned, self.now, own);
        }
        store::payments::save_balances(changes, &self.balances, self.now);
        store::payments::enter(changes, &self.entries, self.now);
        store::payments::pay(changes, &self.payments, self.now);
        store::payments::mark_refunded(changes, &self.refunded, self.now);
        store::tickets::insert(changes, &self.tickets, self.now);
        store::tickets::void(changes, &self.voided, self.now);
        store::reservations::change(changes, &self.decided, self.now);
        store::reservations::end_open(changes, &self.ends, self.now);
    }
}
