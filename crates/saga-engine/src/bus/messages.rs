//! Messages of the saga protocol, with new ids and this process's name filled in.

use chrono::{DateTime, Utc};
pub use saga_protocol::messages::*;
use uuid::Uuid;

use super::publish::Outgoing;
use crate::ids;
use crate::saga::{Command, Outcome};

/// The answer of a worker in this process.
pub fn reply(command: &Command, outcome: &Outcome) -> Outgoing {
    saga_protocol::messages::reply(command, outcome, &ids::process())
}

/// A new alarm for several sagas, which rings at that time.
pub fn alarm(sagas: &[Uuid], at: DateTime<Utc>) -> Outgoing {
    saga_protocol::messages::alarm(ids::new(), sagas, at)
}
