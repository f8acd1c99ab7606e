//! Deduct points, and beside it refund them. Two payments of one user in a batch are decided one after the other against the
//! balance that the first one leaves.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::types::Json;
use uuid::Uuid;

use super::booking_cache::{BookingCache, CachedBooking, Updates};
use super::{Job, Jobs, done, invalid, rejected, unknown_command};
use crate::config::Control;
use crate::ids;
use crate::orchestrator::{Batch, Participant, Task, Unit};
use crate::saga::Outcome;
use crate::store;
use crate::store::batch_tx::BatchTx;
use crate::store::payments::{NewEntry, PaymentStatus, PaymentWithoutEntry, Use};
use crate::store::reservations::Payment;
use crate::store::tracked_rows::TrackedRows;
use crate::store::write_batch::WriteBatch;

const DEDUCT: &str = "points.deduct";
const REFUND: &str = "points.refund";
pub(super) const SERVICE: (&str, &[&str]) = ("points", &[DEDUCT, REFUND]);

/// The service of points.
#[derive(Debug)]
pub(super) struct DeductPoints {
    pub cache: BookingCache,
}

impl Participant for DeductPoints {
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
            let jobs = Jobs::of(tasks);
            let (known, users) = self.known_balances(&jobs, attempt.control());
            let refunds = jobs.readable().filter(|job| job.command == REFUND);
            let refunds: Vec<Uuid> = refunds.map(|job| job.booking.input.reservation_id).collect();
            let mut balances = store::payments::read_balances(attempt, &users).await?;
            known.into_iter().for_each(|(user, balance)| balances.insert(user, balance));
            let uses = store::payments::open_uses(attempt.conn(), &refunds).await?;
            let uses = uses.into_iter().map(|used| (used.reservation_id, used)).collect();
            let decisions = Decisions { balances, uses, ..Decisions::default() };
            Ok(Box::new(Work { cache: self.cache.clone(), jobs, decisions }) as Box<dyn Unit>)
        }
        .boxed()
    }
}

impl DeductPoints {
    /// The balances that were read when the seats were held, and the users whose balances are to be read. The statement that
    /// writes compares each.
    fn known_balances(&self, jobs: &Jobs, control: Control) -> (BTreeMap<Uuid, i64>, Vec<Uuid>) {
        let (mut known, mut users) = (BTreeMap::new(), Vec::new());
        for job in jobs.readable() {
            let user = job.booking.input.user_id;
            let may_know = control == Control::Optimistic && job.command == DEDUCT;
            match may_know.then(|| self.cache.balance_of(job)).flatten() {
                Some(balance) if *known.entry(user).or_insert(balance) == balance => {}
                _ => users.push(user),
            }
        }
        known.retain(|user, _| !users.contains(user));
        (known, users)
    }
}

/// The work on one batch.
struct Work {
    cache: BookingCache,
    jobs: Jobs,
    decisions: Decisions,
}

/// Points as they were read, and what has been decided about them so far.
#[derive(Default)]
struct Decisions {
    balances: TrackedRows<Uuid, i64>,
    /// Points of reservations that may be given back.
    uses: BTreeMap<Uuid, Use>,
    entries: Vec<NewEntry>,
    without_entry: Vec<PaymentWithoutEntry>,
    refunded: Vec<Uuid>,
    updates: Updates,
}

impl Unit for Work {
    fn execute(&mut self, task: usize, now: DateTime<Utc>) -> Outcome {
        let job = match self.jobs.take(task) {
            Ok(job) => job,
            Err(outcome) => return outcome,
        };
        match job.command.as_str() {
            DEDUCT => {
                let before = self.cache.of_job(&job);
                self.decisions.deduct(&job, before, now)
            }
            REFUND => self.decisions.refund(&job, now),
            _ => unknown_command(),
        }
    }

    fn write(self: Box<Self>, changes: &mut WriteBatch, sagas: &Batch) -> BoxFuture<'static, ()> {
        let Self { cache, decisions, .. } = *self;
        let Decisions { balances, entries, without_entry, refunded, updates, .. } = decisions;
        store::payments::save_balances(changes, &balances, sagas.now);
        store::payments::enter(changes, &entries, sagas.now);
        store::payments::pay_without_entry(changes, &without_entry, sagas.now);
        store::payments::mark_refunded(changes, &refunded, sagas.now);
        let updates = updates.follow(sagas);
        async move { cache.update(updates) }.boxed()
    }
}

impl Decisions {
    /// Takes the points: the entry is the payment. With too few points nothing is taken and the payment has failed.
    fn deduct(&mut self, job: &Job, before: Option<CachedBooking>, now: DateTime<Utc>) -> Outcome {
        let user = job.booking.input.user_id;
        // Without it the step would charge nothing, and the seats would be given away.
        let Some(required) = job.booking.amount else {
            self.updates.set(job, None);
            return invalid("the amount is missing");
        };
        let balance = self.balance_of(user);
        if balance < required {
            self.updates.set(job, None);
            self.pay_without_entry(job, required, PaymentStatus::Failed, None);
            return rejected("insufficient_points", json!({ "balance": balance, "required": required }));
        }
        let (payment_id, entry) = if required > 0 {
            let entry = self.enter(job, user, "use", required, balance - required, None);
            (entry.id, announcement(&entry, now))
        } else {
            (self.pay_without_entry(job, 0, PaymentStatus::Succeeded, Some(now)), Value::Null)
        };
        self.updates.set(job, before.map(|entry| paid(entry, payment_id, required, now)));
        done([
            ("payment_id", json!(payment_id)),
            ("paid_at", json!(now.to_rfc3339_opts(SecondsFormat::Micros, true))),
            ("entry", entry),
        ])
    }

    /// Gives back what was taken, naming the entry that it reverses. What was never taken, or given back before, is nothing.
    fn refund(&mut self, job: &Job, now: DateTime<Utc>) -> Outcome {
        self.updates.set(job, None);
        let reservation = job.booking.input.reservation_id;
        self.refunded.push(reservation);
        let Some(used) = self.uses.remove(&reservation) else {
            return done([("refund_entry", Value::Null)]);
        };
        let balance = self.balance_of(used.user_id) + used.amount;
        let entry = self.enter(job, used.user_id, "refund", used.amount, balance, Some(used.id));
        done([("refund_entry", announcement(&entry, now))])
    }

    /// A user without an account has never had points.
    fn balance_of(&self, user: Uuid) -> i64 {
        self.balances.get(&user).copied().unwrap_or(0)
    }

    fn enter(
        &mut self,
        job: &Job,
        user_id: Uuid,
        kind: &'static str,
        amount: i64,
        balance: i64,
        reverses_id: Option<Uuid>,
    ) -> NewEntry {
        let reservation_id = job.booking.input.reservation_id;
        let entry = NewEntry { id: ids::new(), user_id, kind, amount, balance, reservation_id, reverses_id };
        if let Some(before) = self.balances.change(&user_id) {
            *before = balance;
        }
        self.entries.push(entry.clone());
        entry
    }

    fn pay_without_entry(
        &mut self,
        job: &Job,
        amount: i64,
        status: PaymentStatus,
        paid_at: Option<DateTime<Utc>>,
    ) -> Uuid {
        let id = ids::new();
        let (user_id, reservation_id) = (job.booking.input.user_id, job.booking.input.reservation_id);
        self.without_entry.push(PaymentWithoutEntry { id, reservation_id, user_id, amount, status, paid_at });
        id
    }
}

/// The remembered reservation after its payment.
fn paid(mut entry: CachedBooking, id: Uuid, amount: i64, now: DateTime<Utc>) -> CachedBooking {
    let status = PaymentStatus::Succeeded.name().to_owned();
    entry.reservation.payment =
        Some(Json(Payment { id, status, amount, paid_at: Some(now), refunded: None }));
    entry
}

/// A ledger entry as its event has it.
fn announcement(entry: &NewEntry, now: DateTime<Utc>) -> Value {
    json!({
        "entry_id": entry.id,
        "user_id": entry.user_id,
        "kind": entry.kind,
        "amount": entry.amount,
        "balance": entry.balance,
        "reservation_id": entry.reservation_id,
        "reverses_id": entry.reverses_id,
        "created_at": now,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{booking, job, now, output, rejection};
    use super::super::{Booking, Job};
    use super::*;
    use crate::saga::Direction;

    fn with_balance(balance: i64) -> Decisions {
        let balances = [(booking(0, &[]).input.user_id, balance)].into_iter().collect();
        Decisions { balances, ..Decisions::default() }
    }

    fn deduct(work: &mut Decisions, booking: Booking) -> Outcome {
        work.deduct(&job(DEDUCT, Direction::Do, booking), None, now())
    }

    #[test]
    fn payments_are_entries_and_share_the_balance() {
        let mut work = with_balance(150);
        let output = output(deduct(&mut work, booking(7, &[1])));
        assert_eq!((&output["entry"]["amount"], &output["entry"]["balance"]), (&json!(100), &json!(50)));
        assert_eq!((&output["payment_id"], work.without_entry.len()), (&json!(work.entries[0].id), 0));
        let refused = rejection(deduct(&mut work, booking(8, &[2])));
        assert_eq!(refused, ("insufficient_points".to_owned(), json!({ "balance": 50, "required": 100 })));
        assert_eq!((work.without_entry[0].status, work.entries.len()), (PaymentStatus::Failed, 1));
    }

    #[test]
    fn free_seat_is_paid_without_an_entry() {
        let mut work = with_balance(0);
        output(deduct(&mut work, Booking { amount: Some(0), ..booking(7, &[1]) }));
        assert_eq!((work.without_entry[0].status, work.entries.len()), (PaymentStatus::Succeeded, 0));
    }

    #[test]
    fn deduct_without_amount_charges_nothing_and_is_rejected() {
        let mut work = with_balance(100);
        let unknown = Booking { amount: None, ..booking(7, &[1]) };
        assert_eq!(rejection(deduct(&mut work, unknown)).0, "invalid_command");
        assert!(work.without_entry.is_empty() && work.entries.is_empty());
    }

    #[test]
    fn refund_reverses_a_payment_once() {
        let (mut work, paid): (_, Job) = (with_balance(50), job(REFUND, Direction::Undo, booking(7, &[1])));
        let (id, reservation_id) = (Uuid::from_u128(9), paid.saga);
        let user_id = paid.booking.input.user_id;
        work.uses.insert(reservation_id, Use { id, user_id, reservation_id, amount: 100 });
        for expected in [json!(150), Value::Null] {
            assert_eq!(output(work.refund(&paid, now()))["refund_entry"]["balance"], expected);
        }
        assert_eq!((work.entries.len(), work.entries[0].reverses_id), (1, Some(id)));
    }
}
