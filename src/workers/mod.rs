//! The services that live in the engine's own database: seats, points, tickets.
//!
//! A worker takes a batch of commands, reads their sagas (which are the fence of every effect: they are locked, or compared
//! in the same statement), does the effects of those that are still asked for, and lets the engine decide what comes next,
//! all in one transaction. After the commit the next commands go out, and only then are these acknowledged.
//!
//! A message only says which saga, step, direction and visit it is for. What is done, for which user and seats and for how
//! many points, comes from the saga's row: anything that can publish to NATS can write a message.
//!
//! Tables are locked in one order everywhere: sagas, buyers, seats, accounts.

mod serve;
mod direct;
mod handle;
mod written;
mod changed;
mod seats;
mod points;
mod tickets;
mod books;
mod settle;

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

pub use direct::allow as allow_direct_execution;
pub use serve::run;
pub use settle::{LeftToSettle, Settlement, reservation_of, settle};
pub use written::Written;

use crate::bus::subjects;
use crate::saga::{Command, Outcome, Saga};

/// A service and the commands it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Seats,
    Points,
    Tickets,
}

/// A command, and what the service said to it.
#[derive(Debug)]
pub struct Job {
    /// Its position in the batch.
    pub at: usize,
    /// The command as the saga's row asks for it.
    pub command: Command,
    /// What it is about, unless that cannot be read.
    booking: Option<Booking>,
    pub outcome: Option<Outcome>,
}

/// The limits a service keeps.
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

/// What every command of a booking is about. All but the amount stands in the saga's input, which never changes.
#[derive(Clone, Debug, Deserialize)]
struct Booking {
    reservation_id: Uuid,
    user_id: Uuid,
    #[serde(default)]
    concert_id: Option<Uuid>,
    performance_id: Uuid,
    seats: Vec<i32>,
    /// In points. Known once the seats are held: from the saga's input, or from the saved output of the hold.
    #[serde(skip)]
    amount: Option<i64>,
}

impl Service {
    /// Every service of this program.
    pub const ALL: [Self; 3] = [Self::Seats, Self::Points, Self::Tickets];
    /// Their names.
    pub const NAMES: [&'static str; Self::ALL.len()] =
        [Self::Seats.name(), Self::Points.name(), Self::Tickets.name()];

    /// Its name: the first part of its commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seats => "seats",
            Self::Points => "points",
            Self::Tickets => "tickets",
        }
    }

    /// The commands it serves: every one has a consumer and a loop of its own.
    pub fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Seats => &["seats.hold", "seats.release"],
            Self::Points => &["points.deduct", "points.refund"],
            Self::Tickets => &["tickets.issue", "tickets.void"],
        }
    }

    /// Whose command this is.
    fn of(command: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == subjects::service_of(command))
    }
}

impl Booking {
    /// What a saga is about.
    fn of(saga: &Saga) -> serde_json::Result<Self> {
        let amount = saga.context.get("amount").and_then(Value::as_i64).filter(|amount| *amount >= 0);
        Ok(Self { amount, ..Self::deserialize(&*saga.input)? })
    }

    /// Its seats, by their performance and number.
    fn keys(&self) -> impl Iterator<Item = (Uuid, i32)> {
        self.seats.iter().map(|number| (self.performance_id, *number))
    }
}

impl Job {
    /// A command, with what it is about by the saga's row. If that cannot be read it is answered by that.
    fn of(at: usize, command: Command, saga: &Saga) -> Self {
        match Booking::of(saga) {
            Ok(booking) => Self { at, command, booking: Some(booking), outcome: None },
            Err(error) => {
                let mut job = Self { at, command, booking: None, outcome: None };
                job.invalid(&error.to_string());
                job
            }
        }
    }

    /// Whose job it is.
    fn service(&self) -> Option<Service> {
        Service::of(&self.command.subject)
    }

    fn done(&mut self, output: impl IntoIterator<Item = (&'static str, Value)>) {
        let output: Map<String, Value> =
            output.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.outcome = Some(Outcome::Done { output });
    }

    fn rejected(&mut self, code: &str, detail: Value) {
        self.outcome = Some(Outcome::Rejected { code: code.to_owned(), detail });
    }

    /// The saga's row lacks what the command needs.
    fn invalid(&mut self, why: &str) {
        self.rejected("invalid_command", Value::String(why.to_owned()));
    }

    /// A command that this service does not know: another version of it may.
    fn unknown_command(&mut self) {
        self.outcome = Some(Outcome::Failed { code: "unknown_command".to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::saga::{Direction, NewSaga, start};

    /// A booking of some seats of one performance, by one buyer.
    pub(super) fn booking(reservation: u128, seats: &[i32]) -> Booking {
        Booking {
            reservation_id: Uuid::from_u128(reservation),
            user_id: Uuid::from_u128(1),
            concert_id: None,
            performance_id: Uuid::from_u128(2),
            seats: seats.to_vec(),
            amount: Some(100),
        }
    }

    /// Limits that are in nobody's way.
    pub(super) fn limits() -> Limits {
        let (hold, grace) = (chrono::TimeDelta::seconds(300), chrono::TimeDelta::seconds(15));
        Limits { hold, grace, seats_per_user: 3, ended_holds: 0 }
    }

    /// A command without arguments.
    pub(super) fn command(direction: Direction, reason: Option<&str>) -> Command {
        Command {
            saga_id: Uuid::from_u128(3),
            workflow: "booking".to_owned(),
            subject: String::new(),
            step: String::new(),
            direction,
            visit: 1,
            send: 0,
            deadline: None,
            reason: reason.map(str::to_owned),
            context: std::sync::Arc::default(),
            trace: Uuid::from_u128(3),
        }
    }

    /// What a step's function answers to a command.
    pub(super) fn answer(direction: Direction, reason: Option<&str>, act: impl FnOnce(&mut Job)) -> Outcome {
        let mut job = Job { at: 0, command: command(direction, reason), booking: None, outcome: None };
        act(&mut job);
        job.outcome.expect("every command is answered")
    }

    /// The code and the detail of a business no.
    pub(super) fn refusal(outcome: Outcome) -> (String, Value) {
        match outcome {
            Outcome::Rejected { code, detail } => (code, detail),
            other => panic!("not rejected: {other:?}"),
        }
    }

    #[test]
    fn what_the_workflows_send_is_served() {
        let served: BTreeSet<&str> =
            Service::ALL.iter().flat_map(|service| service.commands()).copied().collect();
        let registry = crate::workflows::built_in().unwrap();
        let sent: BTreeSet<&str> = registry.iter().flat_map(|definition| definition.commands()).collect();
        assert_eq!(sent, served);
        for service in Service::ALL {
            assert!(Service::NAMES.contains(&service.name()));
            assert!(service.commands().iter().all(|command| subjects::service_of(command) == service.name()));
        }
    }

    /// A saga of a booking with this input, and with this amount among its outputs.
    fn saga(input: Value, amount: Value) -> Saga {
        let definition = crate::workflows::built_in().unwrap().latest("booking").unwrap().clone();
        let Value::Object(input) = input else { panic!("an input is an object") };
        let id = Uuid::from_u128(3);
        let new = NewSaga { id, subject_id: id, input, trace: None, seq: 0 };
        let mut saga = start(&definition, new, chrono::DateTime::UNIX_EPOCH).saga;
        std::sync::Arc::make_mut(&mut saga.context)["amount"] = amount;
        saga
    }

    #[test]
    fn unreadable_input_is_rejected() {
        let job = Job::of(0, command(Direction::Do, None), &saga(json!({}), json!(5)));
        assert_eq!(refusal(job.outcome.expect("it is answered")).0, "invalid_command");
    }

    #[test]
    fn booking_comes_from_input_and_amount_from_outputs() {
        let id = Uuid::from_u128(7);
        let input =
            json!({ "reservation_id": id, "user_id": id, "performance_id": id, "seats": [1], "amount": 1 });
        let amount = |amount| Booking::of(&saga(input.clone(), amount)).unwrap().amount;
        assert_eq!(amount(json!(250)), Some(250));
        for unknown in [json!(null), json!(-1), json!("250")] {
            assert_eq!(amount(unknown), None);
        }
        let mut other = saga(input, json!(0));
        std::sync::Arc::make_mut(&mut other.context)["user_id"] = json!(Uuid::from_u128(8));
        assert_eq!(Booking::of(&other).unwrap().user_id, id, "no output changes whose booking it is");
    }
}
