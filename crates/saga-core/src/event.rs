//! What can happen to a saga.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::state::Direction;
use crate::jsonb::{self, Unkeepable};

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
    /// Nobody can handle this command: it fails whenever it is tried.
    Poisoned(Poisoned),
}

/// A worker's answer, with the fence of the command that it answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub send: i32,
    pub outcome: Outcome,
    /// Who says so.
    pub worker: Option<String>,
    /// The service whose workers alone may publish where the answer came from; nothing where any service may.
    pub service: Option<String>,
}

/// A command that cannot be handled, by its fence, and why.
#[derive(Clone, Debug)]
pub struct Poisoned {
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub error: String,
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
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Try the current step again now; a stuck one with a new visit.
    Retry,
    /// Take the current step as done, with this output.
    Complete { output: Map<String, Value> },
    /// Leave out the current undo, and what it would have taken back.
    SkipUndo,
    /// Undo what was done.
    Cancel,
    /// Give the saga up as it is.
    Abandon,
    /// Hold back the next forward command. No clock stops.
    Pause,
    /// Go on after a pause.
    Resume,
}

impl Act {
    /// One of each, in the order in which they are offered; completing has an empty output.
    pub fn all() -> [Self; 7] {
        let complete = Self::Complete { output: Map::new() };
        [Self::Retry, complete, Self::SkipUndo, Self::Cancel, Self::Abandon, Self::Pause, Self::Resume]
    }

    /// Its name in the records of acts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Complete { .. } => "complete",
            Self::SkipUndo => "skip_undo",
            Self::Cancel => "cancel",
            Self::Abandon => "abandon",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

impl Outcome {
    /// Checks that all of it can be kept in the database and comes back as it is.
    pub fn check(&self) -> Result<(), Unkeepable> {
        match self {
            Self::Done { output } => jsonb::check_object(output).map_err(|error| error.within("output")),
            Self::Rejected { code, detail } => jsonb::check_text(code)
                .map_err(|error| error.within("code"))
                .and_then(|()| jsonb::check(detail).map_err(|error| error.within("detail"))),
            Self::Failed { code } => jsonb::check_text(code).map_err(|error| error.within("code")),
            Self::Unknown { reason } => jsonb::check_text(reason).map_err(|error| error.within("reason")),
        }
    }

    /// An output without fields.
    pub fn done() -> Self {
        Self::Done { output: Map::new() }
    }

    /// A business no without detail.
    pub fn rejected(code: &str) -> Self {
        Self::Rejected { code: code.to_owned(), detail: Value::Null }
    }
}
