//! The model's parts: the workflow with its workers, the actions that can happen, and the messages.

use std::collections::HashSet;
use std::hash::RandomState;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::abstraction::AbstractWorkflow;
use super::state::{CommandKey, FaultBudget, Message, OTHER, ReplyKind};
use super::{Bounds, Effort};
use saga_core::{DEADLINE_PASSED, Definition, Direction, Event, OperatorAction, Outcome, Reply};

/// A code that no workflow names.
const OTHER_CODE: &str = "no";

/// Where the workers of a workflow run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// Services with their own database, which reply by message.
    Elsewhere,
    /// Services in the engine's database: effect and saga are written in one commit.
    Inside,
}

/// A defect that a test builds into the model, to check that the checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedBug {
    /// An external worker does not record an undo.
    WorkerForgetsUndos,
    /// An external worker records no outcomes.
    WorkerForgetsOutcomes,
    /// A service in the engine's database commits its effect before the saga.
    WorkerCommitsApart,
    /// The engine treats every reply as the reply to the current command.
    EngineTakesAnyReply,
    /// The sweeper does not run.
    EngineNeverSweeps,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) workflow: AbstractWorkflow,
    pub(super) home: Home,
    pub(super) injected: Option<InjectedBug>,
    /// Whether states that differ only in irrelevant parts count as one.
    pub(super) reduced: bool,
    pub(super) bounds: Bounds,
    /// Hashes of the states that are known to reach an end.
    pub(super) reaching_end: Mutex<HashSet<u64>>,
    pub(super) hashing: RandomState,
    pub(super) effort: Effort,
    pub(super) visited: AtomicUsize,
    /// Whether the walk ended before it visited all states.
    pub(super) was_cut_off: AtomicBool,
}

/// An action of the model.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ModelAction {
    /// A message is delivered. A worker handles a command with `result`.
    Deliver {
        message: Message,
        result: WorkResult,
        fault: Fault,
    },
    Lose(Message),
    /// The sweeper or a timer of the broker finds a saga that is due, for its step or for this member of its group.
    FireTimer {
        step: u8,
        fault: Fault,
    },
    /// This deadline passes. The saga has not handled it yet.
    PassDeadline(u8),
    /// A signal arrives, by its index among the signals.
    Signal {
        signal: u8,
        fault: Fault,
    },
    OperatorAction {
        act: OperatorAction,
        fault: Fault,
    },
}

/// How a worker's work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkResult {
    ReplyKind(ReplyKind),
    /// The effect exists, but the worker does not know.
    UnknownDone,
    /// The command cannot be handled. It is parked and the saga becomes stuck.
    Poisoned,
}

/// What goes wrong during an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// A crash after the commit, before anything is published. The message is delivered again.
    CrashBeforePublish,
    /// A crash after the publish, before the acknowledgement; or a duplicate message.
    Redelivery,
}

impl Fault {
    /// Takes the fault from the budget. A redelivery counts as a duplicate while duplicates are left.
    pub(super) fn spend(self, left: &mut FaultBudget) {
        match self {
            Self::None => {}
            Self::Redelivery if left.duplicates > 0 => left.duplicates -= 1,
            Self::Redelivery | Self::CrashBeforePublish => {
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
            reaching_end: Mutex::default(),
            hashing: RandomState::new(),
            effort: Effort::default(),
            visited: AtomicUsize::new(0),
            was_cut_off: AtomicBool::new(false),
        }
    }

    /// The same model; its walk ends when the effort is spent.
    pub(super) fn within(self, effort: Effort) -> Self {
        Self { effort, ..self }
    }

    /// Counts a state. `true` once the walk has to end.
    pub(super) fn is_spent(&self) -> bool {
        let visited = self.visited.fetch_add(1, Ordering::Relaxed);
        let is_late = self.effort.until.is_some_and(|until| Instant::now() >= until);
        if is_late || self.effort.states.is_some_and(|most| visited >= most) {
            self.was_cut_off.store(true, Ordering::Relaxed);
        }
        self.was_cut_off.load(Ordering::Relaxed)
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        self.home == Home::Elsewhere
    }

    /// The event of a message to the engine; `None` for a command.
    pub(super) fn event(&self, message: Message) -> Option<Event> {
        match message {
            Message::Command(_) | Message::Echo => None,
            Message::Signal(signal) => {
                Some(Event::signal(self.workflow.signals[usize::from(signal)].as_str()))
            }
            Message::Reply(key, reply) => Some(Event::Reply(self.reply(key, reply))),
        }
    }

    pub(super) fn reply(&self, key: CommandKey, reply: ReplyKind) -> Reply {
        let step = &self.workflow.definition.steps[usize::from(key.step)];
        let outcome = match reply {
            ReplyKind::Done => Outcome::done(),
            ReplyKind::Rejected(OTHER) => Outcome::rejected(OTHER_CODE),
            ReplyKind::Rejected(code) => {
                Outcome::rejected(step.back_to.keys().nth(code.into()).map_or(OTHER_CODE, String::as_str))
            }
            ReplyKind::TooLate => Outcome::rejected(DEADLINE_PASSED),
            ReplyKind::Failed => Outcome::Failed { code: "busy".to_owned() },
            ReplyKind::Unknown => Outcome::Unknown { reason: "no answer from elsewhere".to_owned() },
        };
        Reply {
            step: step.name.clone(),
            direction: if key.undo { Direction::Undo } else { Direction::Do },
            visit: key.visit.into(),
            send: key.send.into(),
            outcome,
            worker: None,
            service: None,
        }
    }

    pub(super) fn step_name(&self, step: u8) -> &str {
        &self.workflow.definition.steps[usize::from(step)].name
    }
}
