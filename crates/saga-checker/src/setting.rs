//! The setting: a workflow with its workers, what can happen to it, and the messages that pass.

use std::collections::HashSet;
use std::hash::RandomState;
use std::sync::Mutex;

use serde::Serialize;

use super::Bounds;
use super::abstraction::AbstractWorkflow;
use super::state::{Answer, Asked, FaultBudget, Message, OTHER};
use saga_core::{Act, DEADLINE_PASSED, Definition, Direction, Event, Outcome, Reply};

/// A code that no workflow gives a meaning to.
const OTHER_CODE: &str = "no";

/// Where the workers of a workflow are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// Services with a database of their own, that reply by message.
    Elsewhere,
    /// Services in the engine's database: effect and saga in one commit.
    Inside,
}

/// A defect that is built into the model on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedBug {
    /// A worker elsewhere leaves no note of an undo.
    WorkerForgetsUndos,
    /// A worker elsewhere keeps no outcomes.
    WorkerForgetsOutcomes,
    /// A service in the engine's database commits its effect before the saga.
    WorkerCommitsApart,
    /// The engine takes every reply for the answer to what is asked now.
    EngineTakesAnyReply,
    /// Nobody looks at sagas that are due.
    EngineNeverSweeps,
}

/// A workflow with its bus, its workers and its operators.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) workflow: AbstractWorkflow,
    pub(super) home: Home,
    pub(super) injected: Option<InjectedBug>,
    /// Whether states that differ in nothing that matters are one.
    pub(super) reduced: bool,
    pub(super) bounds: Bounds,
    /// States from which an end is known to be reached, by their hash.
    pub(super) leading_on: Mutex<HashSet<u64>>,
    pub(super) hashing: RandomState,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Move {
    /// A message arrives. A command that is worked on is answered by `say`.
    Deliver { message: Message, say: Say, mishap: Mishap },
    /// The bus loses a message.
    Lose(Message),
    /// Somebody looks at a saga that is due: the sweeper, or the broker's alarm.
    Ring { mishap: Mishap },
    /// A deadline passes, the last of so many, and nobody has noticed yet.
    Pass(u8),
    /// Somebody outside tells the saga something, by its index among the signals.
    Signal { signal: u8, mishap: Mishap },
    /// An operator acts.
    Act { act: Act, mishap: Mishap },
}

/// What a worker's work comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    Answer(Answer),
    /// The effect took place, but the worker cannot know.
    UnknownDone,
    /// Handling the command fails whenever it is tried: it is parked, and the saga is told.
    Poisoned,
}

/// What goes wrong on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    None,
    /// A crash after the commit, before anything is published. The message comes again.
    Unpublished,
    /// A crash after publishing, before the acknowledgement, or a message that comes twice.
    Kept,
    /// An instance that does not have the saga's definition takes the message.
    NoDefinition,
}

impl Mishap {
    /// Takes its price from what may still go wrong. What looks the same as a repeat counts as one while any are left.
    pub(super) fn pay(self, left: &mut FaultBudget) {
        match self {
            Self::None => {}
            Self::Kept if left.duplicates > 0 => left.duplicates -= 1,
            Self::Kept | Self::Unpublished | Self::NoDefinition => {
                left.crashes = left.crashes.saturating_sub(1);
            }
        }
    }
}

impl Model {
    pub(super) fn of(definition: &Definition, home: Home, bounds: Bounds, bug: Option<InjectedBug>) -> Self {
        let workflow = AbstractWorkflow::of(definition);
        Self {
            workflow,
            home,
            injected: bug,
            reduced: bug.is_none(),
            bounds,
            leading_on: Mutex::default(),
            hashing: RandomState::new(),
        }
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        self.home == Home::Elsewhere
    }

    /// The event that a message to the engine brings; a command brings none.
    pub(super) fn event(&self, message: Message) -> Option<Event> {
        match message {
            Message::Command(_) | Message::Echo => None,
            Message::Signal(signal) => {
                Some(Event::Signal(self.workflow.signals[usize::from(signal)].clone()))
            }
            Message::Reply(asked, answer) => Some(Event::Reply(self.reply(asked, answer))),
        }
    }

    pub(super) fn reply(&self, asked: Asked, answer: Answer) -> Reply {
        let step = &self.workflow.definition.steps[usize::from(asked.step)];
        let outcome = match answer {
            Answer::Done => Outcome::done(),
            Answer::Rejected(OTHER) => Outcome::rejected(OTHER_CODE),
            Answer::Rejected(code) => {
                Outcome::rejected(step.back_to.keys().nth(code.into()).map_or(OTHER_CODE, String::as_str))
            }
            Answer::TooLate => Outcome::rejected(DEADLINE_PASSED),
            Answer::Failed => Outcome::Failed { code: "busy".to_owned() },
            Answer::Unknown => Outcome::Unknown { reason: "no answer from elsewhere".to_owned() },
        };
        Reply {
            step: step.name.clone(),
            direction: if asked.undo { Direction::Undo } else { Direction::Do },
            visit: asked.visit.into(),
            send: asked.send.into(),
            outcome,
            worker: None,
            service: None,
        }
    }

    pub(super) fn step_name(&self, step: u8) -> &str {
        &self.workflow.definition.steps[usize::from(step)].name
    }
}
