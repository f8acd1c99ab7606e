//! Points: deduct, and beside it refund.
//!
//! Accounts of the whole batch are read first; two payments of one user in a batch are decided one after the
//! other against the balance that the first one leaves.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Booking, Job};
use crate::ids;
use crate::store;
use crate::store::attempt::Attempt;
use crate::store::changes::Changes;
use crate::store::payments::{Account, NewEntry, NewPayment, Use};

/// What was read, and what has been decided about it so far.
struct Till {
    now: DateTime<Utc>,
    accounts: BTreeMap<Uuid, Account>,
    uses: BTreeMap<Uuid, Use>,
    /// The balances of accounts that change, as they were read.
    before: BTreeMap<Uuid, i64>,
    entries: Vec<NewEntry>,
    payments: Vec<NewPayment>,
    refunded: Vec<Uuid>,
}

/// Does a batch of `points.deduct` and `points.refund`.
pub(super) async fn run(
    attempt: &mut Attempt,
    changes: &mut Changes,
    now: DateTime<Utc>,
    jobs: &mut [Job<'_>],
) -> store::Result<()> {
    let bookings: Vec<Option<Booking>> = jobs.iter_mut().map(Job::arguments).collect();
    let mut till = read(attempt, now, jobs, &bookings).await?;
    for (job, booking) in jobs.iter_mut().zip(&bookings) {
        let Some(booking) = booking else { continue };
        match job.command.subject.as_str() {
            "points.deduct" => till.deduct(job, booking),
            "points.refund" => till.refund(job, booking),
            _ => job.unknown_command(),
        }
    }
    till.write(changes);
    Ok(())
}

async fn read(
    attempt: &mut Attempt,
    now: DateTime<Utc>,
    jobs: &[Job<'_>],
    bookings: &[Option<Booking>],
) -> store::Result<Till> {
    let users: Vec<Uuid> = bookings.iter().flatten().map(|booking| booking.user_id).collect();
    let control = attempt.control();
    let accounts = store::payments::read_accounts(attempt.conn(), &users, control).await?;
    let refunds: Vec<Uuid> = jobs
        .iter()
        .zip(bookings)
        .filter(|(job, _)| job.command.subject == "points.refund")
        .filter_map(|(_, booking)| booking.as_ref().map(|booking| booking.reservation_id))
        .collect();
    let uses = match refunds.is_empty() {
        true => Vec::new(),
        false => store::payments::open_uses(attempt.conn(), &refunds).await?,
    };
    Ok(Till {
        now,
        accounts: accounts.into_iter().map(|account| (account.user_id, account)).collect(),
        uses: uses.into_iter().map(|used| (used.reservation_id, used)).collect(),
        before: BTreeMap::new(),
        entries: Vec::new(),
        payments: Vec::new(),
        refunded: Vec::new(),
    })
}

impl Till {
    /// Takes the points and writes the payment; with too few points nothing is taken and the payment has failed.
    fn deduct(&mut self, job: &mut Job<'_>, booking: &Booking) {
        let required = booking.amount;
        let balance = self.accounts.get(&booking.user_id).map_or(0, |account| account.balance);
        if balance < required {
            self.pay(booking, "failed", None);
            return job.rejected("insufficient_points", json!({ "balance": balance, "required": required }));
        }
        let entry = (required > 0).then(|| self.enter(booking, "use", required, balance - required, None));
        let payment_id = self.pay(booking, "succeeded", entry.as_ref().map(|entry| entry.id));
        job.done([
            ("payment_id", json!(payment_id)),
            ("paid_at", json!(self.now.to_rfc3339_opts(SecondsFormat::Micros, true))),
            ("entry", entry.map_or(Value::Null, |entry| self.announcement(&entry))),
        ]);
    }

    /// Gives back what was taken, naming the entry it reverses. What was never taken, or given back before, is none.
    fn refund(&mut self, job: &mut Job<'_>, booking: &Booking) {
        self.refunded.push(booking.reservation_id);
        let Some(used) = self.uses.remove(&booking.reservation_id) else {
            return job.done([("refund_entry", Value::Null)]);
        };
        let balance = self.accounts.get(&used.user_id).map_or(0, |account| account.balance);
        let entry = self.enter(booking, "refund", used.amount, balance + used.amount, Some(used.id));
        job.done([("refund_entry", self.announcement(&entry))]);
    }

    fn enter(
        &mut self,
        booking: &Booking,
        kind: &'static str,
        amount: i64,
        balance: i64,
        reverses: Option<Uuid>,
    ) -> NewEntry {
        let entry = NewEntry {
            id: ids::new(),
            user_id: booking.user_id,
            kind,
            amount,
            balance,
            reservation_id: booking.reservation_id,
            reverses_id: reverses,
        };
        if let Some(account) = self.accounts.get_mut(&booking.user_id) {
            self.before.entry(booking.user_id).or_insert(account.balance);
            account.balance = balance;
        }
        self.entries.push(entry.clone());
        entry
    }

    fn pay(&mut self, booking: &Booking, status: &'static str, entry_id: Option<Uuid>) -> Uuid {
        let id = ids::new();
        self.payments.push(NewPayment {
            id,
            reservation_id: booking.reservation_id,
            user_id: booking.user_id,
            amount: booking.amount,
            status,
            entry_id,
            paid_at: (status == "succeeded").then_some(self.now),
        });
        id
    }

    /// A ledger entry as the world hears of it.
    fn announcement(&self, entry: &NewEntry) -> Value {
        json!({
            "entry_id": entry.id,
            "user_id": entry.user_id,
            "kind": entry.kind,
            "amount": entry.amount,
            "balance": entry.balance,
            "reservation_id": entry.reservation_id,
            "reverses_id": entry.reverses_id,
            "created_at": self.now,
        })
    }

    fn write(self, changes: &mut Changes) {
        let accounts: Vec<(i64, &Account)> = self
            .before
            .iter()
            .filter_map(|(user, before)| Some((*before, self.accounts.get(user)?)))
            .collect();
        if !accounts.is_empty() {
            store::payments::save_accounts(changes, &accounts, self.now);
        }
        if !self.entries.is_empty() {
            store::payments::enter(changes, &self.entries, self.now);
        }
        if !self.payments.is_empty() {
            store::payments::pay(changes, &self.payments, self.now);
        }
        if !self.refunded.is_empty() {
            store::payments::mark_refunded(changes, &self.refunded, self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, booking, refusal};
    use super::*;
    use crate::saga::{Direction, Outcome};

    fn till(balance: i64) -> Till {
        let account = Account { user_id: booking(0, &[]).user_id, balance };
        Till {
            now: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            accounts: BTreeMap::from([(account.user_id, account)]),
            uses: BTreeMap::new(),
            before: BTreeMap::new(),
            entries: Vec::new(),
            payments: Vec::new(),
            refunded: Vec::new(),
        }
    }

    fn deduct(till: &mut Till, booking: &Booking) -> Outcome {
        answer(Direction::Do, None, |job| till.deduct(job, booking))
    }

    #[test]
    fn a_payment_is_an_entry_and_two_share_the_balance() {
        let mut till = till(150);
        let Outcome::Done { output } = deduct(&mut till, &booking(7, &[1])) else { panic!("not paid") };
        assert_eq!((&output["entry"]["amount"], &output["entry"]["balance"]), (&json!(100), &json!(50)));
        assert_eq!(till.payments[0].status, "succeeded");
        let refused = refusal(deduct(&mut till, &booking(8, &[2])));
        assert_eq!(refused, ("insufficient_points".to_owned(), json!({ "balance": 50, "required": 100 })));
        assert_eq!((till.payments[1].status, till.entries.len()), ("failed", 1));
    }

    #[test]
    fn a_seat_of_no_points_is_paid_without_an_entry() {
        let mut till = till(0);
        let free = Booking { amount: 0, ..booking(7, &[1]) };
        assert!(matches!(deduct(&mut till, &free), Outcome::Done { .. }));
        assert_eq!((till.payments[0].status, till.entries.len()), ("succeeded", 0));
    }

    #[test]
    fn a_refund_names_what_it_reverses_and_gives_nothing_back_twice() {
        let (mut till, paid) = (till(50), booking(7, &[1]));
        let (id, reservation_id) = (Uuid::from_u128(9), paid.reservation_id);
        till.uses.insert(reservation_id, Use { id, user_id: paid.user_id, reservation_id, amount: 100 });
        for expected in [json!(150), Value::Null] {
            let outcome = answer(Direction::Undo, None, |job| till.refund(job, &paid));
            let Outcome::Done { output } = outcome else { panic!("not refunded") };
            assert_eq!(output["refund_entry"]["balance"], expected);
        }
        assert_eq!((till.entries.len(), till.entries[0].reverses_id), (1, Some(id)));
    }
}
