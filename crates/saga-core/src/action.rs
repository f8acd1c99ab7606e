//! The result of [`super::apply()`]: the next state, the history row, and what to do after the commit.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::command::Command;
use super::state::{Direction, Saga};

/// What an event does to a saga.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The saga's row changes.
    Transition(Box<Transition>),
    /// The event is a duplicate, late, or not due. This is normal, and nothing changes.
    Stale,
    /// The event cannot be right: some program has a defect. The message is parked and an alert is raised.
    Illegal(String),
}

/// A change of a saga: what to write in one transaction, and the actions to take once it is committed.
#[derive(Clone, Debug)]
pub struct Transition {
    pub saga: Saga,
    /// The history row; `None` if only retry counters or due times changed.
    pub entry: Option<Entry>,
    pub actions: Vec<Action>,
}

impl Transition {
    pub(super) fn into_decision(self) -> Decision {
        Decision::Transition(Box::new(self))
    }
}

/// A history row. Its saga, number and time are those of the saga in the same [`Transition`].
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub event: String,
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub attempt: i32,
    pub detail: Option<Value>,
    /// The worker whose reply caused the change.
    pub worker: Option<String>,
    /// Names of the domain events to publish.
    pub emits: Vec<String>,
}

/// A side effect of a transition, carried out after the commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Publish the command that the row asks for.
    Send(Command),
    /// Set a timer of the broker for the saga. Earlier timers stay set: one that fires too early changes nothing.
    SetTimer(DateTime<Utc>),
    /// Publish all events of the saga's history again, because some may not have been published.
    RepublishEvents,
    /// Notify the instances whose requests wait for this saga.
    Notify,
}
