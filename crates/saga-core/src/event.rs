//! The events that can happen to a saga.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::operator::OperatorAction;
use super::state::Direction;
use crate::jsonb::{self, NotStorable};

#[derive(Clone, Debug)]
pub enum Event {
    Reply(Reply),
    Signal(Signal),
    /// The due time of the saga may have passed.
    TimerFired,
    Operator(OperatorAction),
    /// Every attempt to handle this command fails with an error of the program.
    Poisoned(Poisoned),
}

/// An external message that resumes a waiting saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    pub name: String,
    /// Joins the saga's context if the saga takes the signal.
    pub payload: Map<String, Value>,
}

impl Event {
    /// A signal without a payload.
    pub fn signal(name: impl Into<String>) -> Self {
        Self::Signal(Signal { name: name.into(), payload: Map::new() })
    }
}

/// A worker's reply, with the fence of its command.
#[derive(Clone, Debug)]
pub struct Reply {
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub send: i32,
    pub outcome: Outcome,
    pub worker: Option<String>,
    /// The service that owns the subject on which the reply came; `None` if every service may publish there.
    pub service: Option<String>,
}

/// A command that cannot be handled, by its fence, and the error.
#[derive(Clone, Debug)]
pub struct Poisoned {
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub error: String,
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The effect exists. The output is added to the saga's context.
    Done {
        #[serde(default)]
        output: Map<String, Value>,
    },
    /// The business rules refuse the command. Nothing was done, and a retry would not change it.
    Rejected {
        code: String,
        #[serde(default)]
        detail: Value,
    },
    /// Nothing was done, and a retry may succeed.
    Failed { code: String },
    /// The worker does not know whether the effect took place. The command is sent again in the same visit.
    Unknown { reason: String },
}

impl Outcome {
    /// Checks that Postgres can store the outcome as `jsonb` without changing it.
    pub fn check(&self) -> Result<(), NotStorable> {
        match self {
            Self::Done { output } => jsonb::check_object(output).map_err(|error| error.within("output")),
            Self::Rejected { code, detail } => jsonb::check_text(code)
                .map_err(|error| error.within("code"))
                .and_then(|()| jsonb::check(detail).map_err(|error| error.within("detail"))),
            Self::Failed { code } => jsonb::check_text(code).map_err(|error| error.within("code")),
            Self::Unknown { reason } => jsonb::check_text(reason).map_err(|error| error.within("reason")),
        }
    }

    /// Why the work failed, or why its effect is unknown. A refusal by the rules of a service is no error.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Failed { code } => Some(code),
            Self::Unknown { reason } => Some(reason),
            Self::Done { .. } | Self::Rejected { .. } => None,
        }
    }

    pub fn done() -> Self {
        Self::Done { output: Map::new() }
    }

    pub fn rejected(code: &str) -> Self {
        Self::Rejected { code: code.to_owned(), detail: Value::Null }
    }
}
