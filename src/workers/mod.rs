//! The services that live in the engine's own database: seats, points, tickets.
//!
//! A worker takes a batch of commands, reads their sagas (which are the fence of every effect: they are locked, or compared
//! in the same statement), does the effects of those that are still asked for, and lets the engine decide what comes next,
//! all in one transaction. After the commit the next commands go out, and only then are these acknowledged.
//!
//! Tables are locked in one order everywhere: sagas, buyers, seats, accounts.

mod serve;
mod handle;
mod changed;
mod seats;
mod points;
mod tickets;
mod books;

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

pub use serve::run;

use crate::bus::subjects;
use crate::saga::{Command, Outcome};

/// A service and the commands it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Seats,
    Points,
    Tickets,
}

/// A command, and what the service said to it.
#[derive(Debug)]
pub struct Job<'a> {
    pub command: &'a Command,
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
    /// Most holds of one user and performance that may run out within an hour before the next is refused; 0 for any number.
    pub expired_holds: i64,
}

/// What every command of a booking carries.
#[derive(Clone, Debug, Deserialize)]
struct Booking {
    reservation_id: Uuid,
    user_id: Uuid,
    performance_id: Uuid,
    seats: Vec<i32>,
    /// Known once the seats are held.
    #[serde(default)]
    amount: i64,
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
    /// Its seats, by their performance and number.
    fn keys(&self) -> impl Iterator<Item = (Uuid, i32)> {
        self.seats.iter().map(|number| (self.performance_id, *number))
    }
}

impl<'a> Job<'a> {
    /// What a command asks for. One whose arguments cannot be read is answered by that.
    fn of(command: &'a Command) -> Self {
        match Booking::deserialize(&*command.context) {
            Ok(booking) => Self { command, booking: Some(booking), outcome: None },
            Err(error) => {
                let detail = Value::String(error.to_string());
                let outcome = Outcome::Rejected { code: "invalid_command".to_owned(), detail };
                Self { command, booking: None, outcome: Some(outcome) }
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

    /// A command that this service does not know: another version of it may.
    fn unknown_command(&mut self) {
        self.outcome = Some(Outcome::Failed { code: "unknown_command".to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::saga::{Catalogue, Direction};

    /// A booking of some seats of one performance, by one buyer.
    pub(super) fn booking(reservation: u128, seats: &[i32]) -> Booking {
        Booking {
            reservation_id: Uuid::from_u128(reservation),
            user_id: Uuid::from_u128(1),
            performance_id: Uuid::from_u128(2),
            seats: seats.to_vec(),
            amount: 100,
        }
    }

    /// Limits that are in nobody's way.
    pub(super) fn limits() -> Limits {
        let (hold, grace) = (chrono::TimeDelta::seconds(300), chrono::TimeDelta::seconds(15));
        Limits { hold, grace, seats_per_user: 3, expired_holds: 0 }
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
    pub(super) fn answer(
        direction: Direction,
        reason: Option<&str>,
        act: impl FnOnce(&mut Job<'_>),
    ) -> Outcome {
        let command = command(direction, reason);
        let mut job = Job { command: &command, booking: None, outcome: None };
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
        let catalogue = Catalogue::built_in().unwrap();
        let sent: BTreeSet<&str> = catalogue.iter().flat_map(|definition| definition.commands()).collect();
        assert_eq!(sent, served);
        for service in Service::ALL {
            assert!(Service::NAMES.contains(&service.name()));
            assert!(service.commands().iter().all(|command| subjects::service_of(command) == service.name()));
        }
    }

    #[test]
    fn arguments_that_cannot_be_read_are_a_business_no() {
        let command = command(Direction::Do, None);
        let outcome = Job::of(&command).outcome.expect("it is answered");
        assert_eq!(refusal(outcome).0, "invalid_command");
    }
}
