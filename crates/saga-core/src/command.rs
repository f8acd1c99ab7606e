//! The command that a saga's row asks for, with its fence and its deadline.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::definition::{Definition, Step, Work};
use super::group::{focused, open_steps};
use super::state::{Direction, Saga, Status};

/// A command as it is published: the fence, the deadline and the arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    pub saga_id: Uuid,
    pub workflow: String,
    pub subject: String,
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub send: i32,
    /// A worker refuses a `do` after this time. An undo has no deadline.
    pub deadline: Option<DateTime<Utc>>,
    /// Why the saga compensates; only an undo has it.
    pub reason: Option<String>,
    pub context: Arc<Value>,
    /// The trace that the saga belongs to.
    pub trace: Uuid,
}

impl Command {
    /// Whether the saga's row itself asks for this command now. The row of a saga in a group of parallel steps has one of its open
    /// members; [`command`] finds the others.
    pub fn is_asked_by(&self, saga: &Saga) -> bool {
        matches!(saga.status, Status::Running | Status::Compensating)
            && saga.step == self.step
            && saga.direction == self.direction
            && saga.visit == self.visit
    }

    pub fn message_id(&self) -> String {
        message_id(self.saga_id, &self.step, self.direction, self.visit, self.send)
    }
}

/// The message id of one send of a command. The broker drops a second message with the same id.
pub fn message_id(saga: Uuid, step: &str, direction: Direction, visit: i32, send: i32) -> String {
    format!("{saga}:{step}:{direction}:{visit}:{send}")
}

/// The command of this step, if the saga asks for it.
pub fn command(definition: &Definition, saga: &Saga, step: &str) -> Option<Command> {
    of_row(definition, &*focused(definition, saga, definition.index(step)?)?)
}

/// All commands that the saga asks for and that are not held back by a retry delay or a pause: one, or those of the open members of
/// its group.
pub fn commands(definition: &Definition, saga: &Saga) -> Vec<Command> {
    let open = open_steps(definition, saga).into_iter();
    let focused = open.filter_map(|index| focused(definition, saga, index));
    let out = focused.filter(|saga| !saga.backing_off);
    out.filter_map(|saga| of_row(definition, &saga)).collect()
}

/// The command that the row asks for; `None` unless the saga is running or compensating.
pub(super) fn of_row(definition: &Definition, saga: &Saga) -> Option<Command> {
    if !matches!(saga.status, Status::Running | Status::Compensating) {
        return None;
    }
    let step = &definition.steps[definition.index(&saga.step)?];
    let Work::Command { command, undo } = step.work() else {
        return None;
    };
    let (subject, deadline) = match saga.direction {
        Direction::Do => (command, step_deadline(step, saga)),
        Direction::Undo => (undo?, None),
    };
    Some(Command {
        saga_id: saga.id,
        workflow: saga.workflow.clone(),
        subject: subject.to_owned(),
        step: saga.step.clone(),
        direction: saga.direction,
        visit: saga.visit,
        send: saga.send,
        deadline,
        reason: saga.reason.clone(),
        context: saga.context.clone(),
        trace: saga.trace.unwrap_or(saga.id),
    })
}

/// The deadline of the saga's current step.
pub(super) fn step_deadline(step: &Step, saga: &Saga) -> Option<DateTime<Utc>> {
    deadline_from(step, saga, saga.entered_at)
}

/// The deadline of a step that the saga enters at `entered_at`. A deadline in seconds counts from there.
pub(super) fn deadline_from(step: &Step, saga: &Saga, entered_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let deadline = step.deadline.as_ref()?;
    match (&deadline.at, deadline.seconds) {
        (Some(field), _) => saga.time(field),
        (None, seconds) => seconds.map(|seconds| entered_at + TimeDelta::seconds(seconds.into())),
    }
}
