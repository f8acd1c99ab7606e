//! What is tested, and what the worker needs to show each behaviour.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

/// What is tested, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The command, such as `printer.print`.
    pub command: String,
    /// Its undo, such as `printer.shred`. Without one it is the only other command that the worker announces.
    pub undo: Option<String>,
    /// The name of the step in every command.
    pub step: String,
    /// What the commands carry.
    pub contexts: Contexts,
    /// A shell command that prints how many effects the saga `$SAGA` has.
    pub count: Option<String>,
    /// A shell command that kills the worker and starts it again.
    pub restart: Option<String>,
    /// How long the worker may take for one command.
    pub timeout: Duration,
    /// Makes the ids of sagas.
    pub new_id: fn() -> Uuid,
    /// The clock, for deadlines.
    pub now: fn() -> DateTime<Utc>,
}

/// The contexts of commands. A case that needs one that is not given is skipped.
#[derive(Clone, Debug, Default)]
pub struct Contexts {
    /// The worker does it.
    pub input: Map<String, Value>,
    /// The worker rejects it.
    pub rejected: Option<Map<String, Value>>,
    /// The worker answers `failed` the first time, and does it the next time.
    pub failed: Option<Map<String, Value>>,
    /// The worker answers `unknown` the first time, and does it the next time.
    pub unknown: Option<Map<String, Value>>,
    /// The worker needs longer than its consumer's acknowledgement wait, and does it.
    pub slow: Option<Map<String, Value>>,
    /// The worker's function ends with an error.
    pub poison: Option<Map<String, Value>>,
}

impl Options {
    /// The service of the command.
    pub(crate) fn service(&self) -> &str {
        saga_protocol::subjects::service_of(&self.command)
    }
}
