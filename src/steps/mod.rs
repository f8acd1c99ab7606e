//! The steps of a booking that work in the engine's own database: each file has one step, its undo beside it.
//!
//! A message only names the saga and the step. What is done, for which user and seats and for how many points, comes from the
//! saga's row: anything that can publish to NATS can write a message.
//!
//! Tables are locked in one order everywhere: dates, sagas, buyers, access codes, seats,
//! accounts. A batch that repeats under locks finds its
//! sagas locked already; who changes a date locks no saga.

mod hold_seats;
mod deduct_points;
mod issue_tickets;
mod booking_cache;
mod seat_notices;
mod settlement;

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

pub use booking_cache::BookingCache;
pub use settlement::{LeftToSettle, Settlement, reservation_of, settle};

use crate::bus::Bus;
use crate::orchestrator::{Participant, Participants, Task};
use crate::saga::{Direction, Outcome};
use crate::store::reservations::BookingInput;
use crate::store::seats::{Key, Seat};
use crate::store::tracked_rows::TrackedRows;

/// The reason of a reservation that ended because its date was cancelled.
pub const DATE_CANCELLED: &str = "performance_cancelled";

/// The services of the steps, each with its commands.
pub const SERVICES: [(&str, &[&str]); 3] =
    [hold_seats::SERVICE, deduct_points::SERVICE, issue_tickets::SERVICE];

/// The limits that the steps keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a hold accepts a payment.
    pub hold: chrono::TimeDelta,
    /// How long after that others must wait for a payment under way.
    pub grace: chrono::TimeDelta,
    /// Most seats that one user may hold and own of one performance.
    pub seats_per_user: i64,
    /// Most holds of one user and concert that may end unpaid within an hour before the next is refused; 0 for any number.
    pub ended_holds: i64,
}

/// The services of the steps, for the engine.
pub fn participants(limits: Limits, cache: &BookingCache, bus: &Bus) -> Participants {
    let all: Vec<Arc<dyn Participant>> = vec![
        Arc::new(hold_seats::HoldSeats { limits, cache: cache.clone(), bus: bus.clone() }),
        Arc::new(deduct_points::DeductPoints { cache: cache.clone() }),
        Arc::new(issue_tickets::IssueTickets { cache: cache.clone(), bus: bus.clone() }),
    ];
    Participants::new(all)
}

/// A task with its arguments.
#[derive(Clone, Debug)]
struct Job {
    command: String,
    direction: Direction,
    /// Why the saga is undone.
    reason: Option<String>,
    /// The saga's id, and its number before this step.
    saga: Uuid,
    seq: i64,
    booking: Booking,
}

/// What a step is about. All but the amount stands in the saga's input, which never changes.
#[derive(Clone, Debug)]
struct Booking {
    input: BookingInput,
    placed_at: chrono::DateTime<chrono::Utc>,
    /// In points. Known once the seats are held: from the saga's input, or from the saved output of the hold.
    amount: Option<i64>,
}

/// The jobs of a batch, by the positions of their tasks. A task whose arguments cannot be read is answered by that.
#[derive(Debug)]
struct Jobs(Vec<Option<Result<Job, Outcome>>>);

impl Booking {
    /// Its seats, by their performance and number.
    fn keys(&self) -> impl Iterator<Item = Key> {
        self.input.seats.iter().map(|number| (self.input.performance_id, *number))
    }

    /// The numbers of its seats of which something is so.
    fn numbers(&self, seats: &TrackedRows<Key, Seat>, matches: impl Fn(Option<&Seat>) -> bool) -> Vec<i32> {
        self.keys().filter(|key| matches(seats.get(key))).map(|(_, number)| number).collect()
    }
}

impl Job {
    fn of(task: &Task<'_>) -> Result<Self, Outcome> {
        let Task { command, saga } = task;
        let input = BookingInput::of(saga).map_err(|error| invalid(&error.to_string()))?;
        let amount = saga.context.get("amount").and_then(Value::as_i64).filter(|amount| *amount >= 0);
        Ok(Self {
            command: command.subject.clone(),
            direction: command.direction,
            reason: command.reason.clone(),
            saga: saga.id,
            seq: saga.seq,
            booking: Booking { input, placed_at: saga.created_at, amount },
        })
    }
}

impl Jobs {
    fn of(tasks: &[Task<'_>]) -> Self {
        Self(tasks.iter().map(|task| Some(Job::of(task))).collect())
    }

    /// Those whose arguments can be read.
    fn readable(&self) -> impl Iterator<Item = &Job> {
        self.0.iter().filter_map(|job| job.as_ref()?.as_ref().ok())
    }

    /// The job of the task at this position, or what it is answered with instead.
    fn take(&mut self, task: usize) -> Result<Job, Outcome> {
        let job = self.0.get_mut(task).and_then(Option::take);
        job.unwrap_or_else(|| Err(Outcome::Failed { code: "unanswered".to_owned() }))
    }
}

/// The effect is there.
fn done(output: impl IntoIterator<Item = (&'static str, Value)>) -> Outcome {
    let output: Map<String, Value> =
        output.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Outcome::Done { output }
}

fn rejected(code: &str, detail: Value) -> Outcome {
    Outcome::Rejected { code: code.to_owned(), detail }
}

/// The saga's row lacks what the command needs.
fn invalid(why: &str) -> Outcome {
    rejected("invalid_command", Value::String(why.to_owned()))
}

/// A command that this version does not know. Another version may.
fn unknown_command() -> Outcome {
    Outcome::Failed { code: "unknown_command".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::{DateTime, Utc};
    use serde_json::json;

    use super::*;
    use crate::bus::subjects;
    use crate::saga::{NewSaga, Saga, command, start};

    /// The time of the tests.
    pub(super) fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    /// A booking of some seats of one performance, by one buyer.
    pub(super) fn booking(reservation: u128, seats: &[i32]) -> Booking {
        let input = BookingInput {
            reservation_id: Uuid::from_u128(reservation),
            user_id: Uuid::from_u128(1),
            concert_id: Uuid::from_u128(4),
            performance_id: Uuid::from_u128(2),
            seats: seats.to_vec(),
            best: None,
            block: None,
            access_code: None,
            pay_now: false,
            amount: None,
        };
        Booking { input, placed_at: now(), amount: Some(100) }
    }

    /// A job of this booking.
    pub(super) fn job(command: &str, direction: Direction, booking: Booking) -> Job {
        let (command, saga) = (command.to_owned(), booking.input.reservation_id);
        Job { command, direction, reason: None, saga, seq: 1, booking }
    }

    /// Limits that refuse nothing in the tests of other rules.
    pub(super) fn limits() -> Limits {
        let (hold, grace) = (chrono::TimeDelta::seconds(300), chrono::TimeDelta::seconds(15));
        Limits { hold, grace, seats_per_user: 3, ended_holds: 0 }
    }

    /// A seat of the performance, free and on sale.
    pub(super) fn seat(number: i32) -> Seat {
        Seat {
            performance_id: Uuid::from_u128(2),
            number,
            section: "A".to_owned(),
            price: 10,
            status: crate::store::seats::SeatStatus::Free,
            holder: None,
            expires_at: None,
            claimable_at: None,
            sale_opens_at: now(),
            sale_closes_at: now() + chrono::TimeDelta::hours(1),
            starts_at: now() + chrono::TimeDelta::hours(2),
            cancelled_at: None,
            date_version: 1,
        }
    }

    /// The code and the detail of a rejection.
    pub(super) fn rejection(outcome: Outcome) -> (String, Value) {
        match outcome {
            Outcome::Rejected { code, detail } => (code, detail),
            other => panic!("not rejected: {other:?}"),
        }
    }

    /// The output of an effect.
    pub(super) fn output(outcome: Outcome) -> Map<String, Value> {
        match outcome {
            Outcome::Done { output } => output,
            other => panic!("not done: {other:?}"),
        }
    }

    #[test]
    fn commands_of_the_workflows_are_served() {
        let served: BTreeSet<&str> =
            SERVICES.iter().flat_map(|(_, commands)| commands.iter()).copied().collect();
        let registry = crate::workflows::built_in().unwrap();
        let sent = registry.commands();
        let sent: BTreeSet<&str> = sent.iter().map(String::as_str).collect();
        assert_eq!(sent, served);
        for (service, commands) in SERVICES {
            assert!(commands.iter().all(|command| subjects::service_of(command) == service));
        }
    }

    /// The job of a booking saga with this input, and with this amount among its outputs.
    fn job_of(input: Value, amount: Value) -> Result<Job, Outcome> {
        let definition = crate::workflows::built_in().unwrap().latest("booking").unwrap();
        let Value::Object(input) = input else { panic!("an input is an object") };
        let id = Uuid::from_u128(3);
        let new = NewSaga { id, subject_id: id, input, trace: None, seq: 0 };
        let mut saga: Saga = start(&definition, new, now()).saga;
        let context = Arc::make_mut(&mut saga.context);
        context["amount"] = amount;
        context["user_id"] = json!(Uuid::from_u128(8));
        Job::of(&Task { command: command(&definition, &saga, &saga.step).unwrap(), saga: &saga })
    }

    #[test]
    fn unreadable_input_is_rejected() {
        let refused = job_of(json!({}), json!(5)).unwrap_err();
        assert_eq!(rejection(refused).0, "invalid_command");
    }

    #[test]
    fn booking_comes_from_input_and_amount_from_outputs() {
        let id = Uuid::from_u128(7);
        let input = json!({ "reservation_id": id, "user_id": id, "concert_id": id, "performance_id": id,
                            "seats": [1], "amount": 1 });
        let booking = |amount| job_of(input.clone(), amount).unwrap().booking;
        assert_eq!(booking(json!(250)).amount, Some(250));
        for unknown in [json!(null), json!(-1), json!("250")] {
            assert_eq!(booking(unknown).amount, None);
        }
        assert_eq!(booking(json!(1)).input.user_id, id, "no output changes whose booking it is");
    }
}
