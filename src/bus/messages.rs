//! Notices of the service, beside the messages of the saga protocol.

pub use saga_engine::bus::messages::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Dates that have other seats now, for processes that keep maps of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeatsChanged {
    pub performances: Vec<Uuid>,
    /// The concerts of these dates.
    pub concerts: Vec<Uuid>,
}
