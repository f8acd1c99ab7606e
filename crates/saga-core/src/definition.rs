//! A workflow as data: its steps in order, read from TOML and checked before anything starts.

mod rules;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use serde_json::Value;

use super::delay::Retry;
use super::state::Direction;
pub use rules::{DefinitionError, MAX_BYTES, MAX_STEPS};

/// The event of a saga that needs an operator.
pub const STUCK: &str = "saga.stuck";
/// The event of a saga that an operator abandoned.
pub const ABANDONED: &str = "saga.abandoned";

/// One version of a workflow.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub name: String,
    pub version: i32,
    /// Once this step is done, the saga cannot compensate.
    #[serde(default)]
    pub pivot: Option<String>,
    /// The saga can never compensate.
    #[serde(default)]
    pub forward_only: bool,
    pub steps: Vec<Step>,
    /// Signals that end a wait by compensation, each with its reason.
    #[serde(default)]
    pub signals: BTreeMap<String, String>,
    /// The event that a compensated saga emits, by its reason; `otherwise` for all other reasons.
    #[serde(default)]
    pub ends: BTreeMap<String, String>,
    /// A JSON Schema that the input of every new saga must fit.
    #[serde(default)]
    pub input_schema: Option<Value>,
}

/// A step: a command with its undo, or a wait for a signal.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
    /// The group of parallel steps that the step is a member of.
    #[serde(skip)]
    pub group: Option<String>,
    /// Only while a definition is read: the members of a group. They become steps of the definition, in the place of the group.
    #[serde(default)]
    parallel: Option<Vec<Step>>,
    #[serde(default)]
    pub command: Option<String>,
    #[serde(default)]
    pub undo: Option<String>,
    #[serde(default)]
    pub wait: Option<String>,
    /// The saga skips the wait when it first reaches it, if this field of its context is true. So a request can give the
    /// signal together with the start.
    #[serde(default)]
    pub skip_if: Option<String>,
    /// The fields that a signal may bring to this wait; without a list it may bring any.
    #[serde(default)]
    pub payload: Option<Vec<String>>,
    #[serde(default)]
    pub deadline: Option<Deadline>,
    /// Without a reply for this time the command is sent again. The time doubles with each send.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    #[serde(default = "Retry::of_do")]
    pub retry: Retry,
    #[serde(default = "Retry::of_undo")]
    pub undo_retry: Retry,
    /// Rejections that lead back to an earlier wait instead of to a compensation.
    #[serde(default)]
    pub back_to: BTreeMap<String, String>,
    /// Events to emit when the step is done.
    #[serde(default)]
    pub emits: Vec<String>,
    /// Fields of the step's output that are events; a missing field emits nothing.
    #[serde(default)]
    pub announces: BTreeMap<String, String>,
    /// Fields of the undo's output that are events.
    #[serde(default)]
    pub undo_announces: BTreeMap<String, String>,
}

/// When a step must have ended, and the reason of the compensation if it has not.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// Seconds after the step was entered.
    #[serde(default)]
    pub seconds: Option<u32>,
    /// The field of the saga's context that has the time.
    #[serde(default)]
    pub at: Option<String>,
    pub reason: String,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work<'a> {
    Command { command: &'a str, undo: Option<&'a str> },
    Wait { signal: &'a str },
}

fn default_timeout() -> u64 {
    5_000
}

impl Step {
    pub fn work(&self) -> Work<'_> {
        match (&self.command, &self.wait) {
            (Some(command), _) => Work::Command { command, undo: self.undo.as_deref() },
            (None, wait) => Work::Wait { signal: wait.as_deref().unwrap_or_default() },
        }
    }
}

impl Definition {
    /// Reads and checks a definition; `source` names it in errors.
    pub fn parse(source: &str, text: &str) -> Result<Self, DefinitionError> {
        rules::read(source, text)
    }

    /// An empty definition in place of one that cannot be read.
    pub(super) fn missing(name: &str, version: i32) -> Self {
        Self {
            name: name.to_owned(),
            version,
            pivot: None,
            forward_only: true,
            steps: Vec::new(),
            signals: BTreeMap::new(),
            ends: BTreeMap::new(),
            input_schema: None,
        }
    }

    /// The names of the groups of parallel steps, each once, in the order of the steps.
    pub fn groups(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.steps.iter().filter_map(|step| step.group.as_deref()).collect();
        names.dedup();
        names
    }

    pub fn index(&self, step: &str) -> Option<usize> {
        self.steps.iter().position(|candidate| candidate.name == step)
    }

    pub fn command_of(&self, step: &str, direction: Direction) -> Option<&str> {
        let step = &self.steps[self.index(step)?];
        match direction {
            Direction::Do => step.command.as_deref(),
            Direction::Undo => step.undo.as_deref(),
        }
    }

    /// Whether a saga at this step may still be compensated.
    pub fn can_compensate(&self, index: usize) -> bool {
        let pivot = self.pivot.as_deref().and_then(|name| self.index(name));
        !self.forward_only && pivot.is_none_or(|pivot| index <= pivot)
    }

    /// Every command that the workflow sends, undos included.
    pub fn commands(&self) -> BTreeSet<&str> {
        self.steps
            .iter()
            .flat_map(|step| step.command.as_deref().into_iter().chain(step.undo.as_deref()))
            .collect()
    }

    /// Every signal that a saga of this workflow accepts.
    pub fn signals(&self) -> BTreeSet<&str> {
        let waits = self.steps.iter().filter_map(|step| step.wait.as_deref());
        waits.chain(self.signals.keys().map(String::as_str)).collect()
    }

    /// Every domain event that a saga of this workflow may emit, those of the engine included.
    pub fn events(&self) -> BTreeSet<&str> {
        let of_step = |step| {
            let Step { emits, announces, undo_announces, .. }: &Step = step;
            emits.iter().chain(announces.values()).chain(undo_announces.values())
        };
        let own = self.steps.iter().flat_map(of_step).chain(self.ends.values());
        own.map(String::as_str).chain([STUCK, ABANDONED]).collect()
    }

    /// Whether a saga of this workflow may emit events of its definition.
    pub fn announces_anything(&self) -> bool {
        let steps = &self.steps;
        let emits = |step: &Step| {
            !(step.emits.is_empty() && step.announces.is_empty() && step.undo_announces.is_empty())
        };
        !self.ends.is_empty() || steps.iter().any(emits)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_built_in_workflows_are_sound() {
        let booking = crate::samples::workflow("booking");
        assert_eq!(booking.steps.len(), 4);
        assert!(booking.can_compensate(3));
        assert!(!crate::samples::workflow("cancellation").can_compensate(0));
    }
}
