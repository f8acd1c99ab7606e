//! What [`super::apply()`] answers: the next state, the history entry, and what to do after the commit.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::state::{Direction, Saga, Status};

/// The answer to an event.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The saga moves.
    Transition(Box<Transition>),
    /// The event came twice or late, or asks for nothing that is due: normal, and nothing changes.
    Stale,
    /// The event cannot be: a defect somewhere. It is parked and alarmed.
    Illegal(String),
}

/// A move: what to write in one transaction, and what to do once it is committed: the actions, and the events that
/// the entry emits.
#[derive(Clone, Debug)]
pub struct Transition {
    pub saga: Saga,
    /// The history row; none where only pacing changed.
    pub entry: Option<Entry>,
    pub actions: Vec<Action>,
}

/// A history row, but for saga, number and time, which are the saga's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub event: String,
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub attempt: i32,
    pub detail: Option<Value>,
    /// Who gave the answer that this is about.
    pub worker: Option<String>,
    /// Domain events that follow, by name.
    pub emits: Vec<String>,
}

/// What follows from a transition.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Publish the command that the row now asks for.
    Send(Command),
    /// Set an alarm of the saga. Earlier ones are not taken back: one that rings too early or in vain changes nothing.
    Arm(DateTime<Utc>),
    /// Publish every event of the saga's history again: some may not have gone out.
    Recall,
    /// Tell whoever waits for this saga.
    Notify,
}

/// A command as it travels: the fence, the deadline and the arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    pub saga_id: Uuid,
    pub workflow: String,
    pub subject: String,
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub send: i32,
    /// A `do` is refused after it; an undo has none.
    pub deadline: Option<DateTime<Utc>>,
    /// Why the saga turned back, for an undo.
    pub reason: Option<String>,
    pub context: Arc<Value>,
    /// The trace that the saga belongs to.
    pub trace: Uuid,
}

impl Command {
    /// Whether this is the command that its saga asks for now.
    pub fn is_asked_by(&self, saga: &Saga) -> bool {
        matches!(saga.status, Status::Running | Status::Compensating)
            && saga.step == self.step
            && saga.direction == self.direction
            && saga.visit == self.visit
    }

    /// The message id: the same for the same send, so that the broker drops a repeat.
    pub fn message_id(&self) -> String {
        message_id(self.saga_id, &self.step, self.direction, self.visit, self.send)
    }
}

/// The name of one send of a command.
pub fn message_id(saga: Uuid, step: &str, direction: Direction, visit: i32, send: i32) -> String {
    format!("{saga}:{step}:{direction}:{visit}:{send}")
}
