//! What can happen to a saga.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::state::Direction;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A worker's answer to a command.
    Reply(Reply),
    /// A signal from outside, by name.
    Signal(String),
    /// Time has passed: whatever is due is done.
    Alarm,
    /// An operator's act.
    Operator(Act),
}

/// A worker's answer, with the fence of the command that it answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub send: i32,
    pub outcome: Outcome,
}

/// What a worker can say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The effect is there; the output joins the saga's context.
    Done {
        #[serde(default)]
        output: Map<String, Value>,
    },
    /// A business no: nothing was done, and asking again would not change it.
    Rejected {
        code: String,
        #[serde(default)]
        detail: Value,
    },
    /// Nothing was done this time; it may work later.
    Failed { code: String },
    /// The worker cannot know whether the effect took place: it is asked again, at the same visit.
    Unknown { reason: String },
}

/// What an operator may do to a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Try the current step again, with a new visit.
    Retry,
    /// Undo what was done.
    Cancel,
}

impl Act {
    /// Its name in the records of acts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
        }
    }
}

impl Outcome {
    /// An output without fields.
    pub fn done() -> Self {
        Self::Done { output: Map::new() }
    }

    /// A business no without detail.
    pub fn rejected(code: &str) -> Self {
        Self::Rejected { code: code.to_owned(), detail: Value::Null }
    }
}
