//! Messages of the saga protocol, with new ids and this process's name filled in, and notices of the service.

use chrono::{DateTime, Utc};
pub use saga_protocol::messages::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::publish::Outgoing;
use crate::ids;
use crate::saga::{Command, Outcome};

/// Dates that have other seats now, for whoever keeps maps of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeatsChanged {
    pub performances: Vec<Uuid>,
    /// The concerts of these dates.
    pub concerts: Vec<Uuid>,
}

/// The answer of a worker in this process.
pub fn reply(command: &Command, outcome: &Outcome) -> Outgoing {
    saga_protocol::messages::reply(command, outcome, &ids::process())
}

/// A new alarm for several sagas, which rings at that time.
pub fn alarm(sagas: &[Uuid], at: DateTime<Utc>) -> Outgoing {
    saga_protocol::messages::alarm(ids::new(), sagas, at)
}
