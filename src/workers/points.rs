//! Points: deduct, and beside it refund. Two payments of one user in a batch are decided one after the other against the
//! balance that the first one leaves.

use chrono::SecondsFormat;
use serde_json::{Value, json};
use uuid::Uuid;

use super::books::Books;
use super::{Booking, Job};
use crate::ids;
use crate::store::payments::{NewEntry, NewPayment};

impl Books {
    /// Takes the points and writes the payment; with too few points nothing is taken and the payment has failed.
    pub(super) fn deduct(&mut self, job: &mut Job, booking: &Booking) {
        // Without it the step would charge nothing, and the seats would be given away.
        let Some(required) = booking.amount else {
            return job.invalid("the amount is missing");
        };
        let balance = self.balance_of(booking.user_id);
        if balance < required {
            self.pay(booking, required, "failed", None);
            return job.rejected("insufficient_points", json!({ "balance": balance, "required": required }));
        }
        let entry = (required > 0).then(|| self.enter(booking, "use", required, balance - required, None));
        let payment_id = self.pay(booking, required, "succeeded", entry.as_ref().map(|entry| entry.id));
        job.done([
            ("payment_id", json!(payment_id)),
            ("paid_at", json!(self.now.to_rfc3339_opts(SecondsFormat::Micros, true))),
            ("entry", entry.map_or(Value::Null, |entry| self.announcement(&entry))),
        ]);
    }

    /// Gives back what was taken, naming the entry it reverses. What was never taken, or given back before, is none.
    pub(super) fn refund(&mut self, job: &mut Job, booking: &Booking) {
        self.refunded.push(booking.reservation_id);
        let Some(used) = self.uses.remove(&booking.reservation_id) else {
            return job.done([("refund_entry", Value::Null)]);
        };
        let balance = self.balance_of(used.user_id);
        let entry = self.enter(booking, "refund", used.amount, balance + used.amount, Some(used.id));
        job.done([("refund_entry", self.announcement(&entry))]);
    }

    /// Who has no account has never had points.
    fn balance_of(&self, user: Uuid) -> i64 {
        self.balances.get(&user).copied().unwrap_or(0)
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
        if let Some(before) = self.balances.change(&booking.user_id) {
            *before = balance;
        }
        self.entries.push(entry.clone());
        entry
    }

    fn pay(&mut self, booking: &Booking, amount: i64, status: &'static str, entry_id: Option<Uuid>) -> Uuid {
        let id = ids::new();
        self.payments.push(NewPayment {
            id,
            reservation_id: booking.reservation_id,
            user_id: booking.user_id,
            amount,
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
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::tests::{answer, booking, limits, refusal};
    use super::*;
    use crate::saga::{Direction, Outcome};
    use crate::store::payments::Use;

    fn till(balance: i64) -> Books {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let balances = [(booking(0, &[]).user_id, balance)].into_iter().collect();
        Books { balances, ..Books::of(now, limits()) }
    }

    fn deduct(till: &mut Books, booking: &Booking) -> Outcome {
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
        let free = Booking { amount: Some(0), ..booking(7, &[1]) };
        assert!(matches!(deduct(&mut till, &free), Outcome::Done { .. }));
        assert_eq!((till.payments[0].status, till.entries.len()), ("succeeded", 0));
    }

    #[test]
    fn deduct_without_amount_charges_nothing_and_is_rejected() {
        let mut till = till(100);
        let unknown = Booking { amount: None, ..booking(7, &[1]) };
        assert_eq!(refusal(deduct(&mut till, &unknown)).0, "invalid_command");
        assert!(till.payments.is_empty() && till.entries.is_empty());
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
