//! A workflow as data: its steps in order, read from TOML and checked before anything starts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::delay::{MAX_MS, MAX_SECONDS, Retry};
use super::state::Direction;

/// The event of a saga that needs an operator.
pub const STUCK: &str = "saga.stuck";
/// The event of a saga that an operator abandoned.
pub const ABANDONED: &str = "saga.abandoned";
/// Limit of the steps of a workflow.
const MAX_STEPS: usize = 500;
/// Limit of the kinds of domain events of a workflow, and of its signals.
const MAX_NAMES: usize = 200;

/// One version of a workflow.
#[derive(Clone, Debug, Deserialize)]
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
}

/// A step: a command with its undo, or a wait for a signal.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
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
#[derive(Clone, Debug, Deserialize)]
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

#[derive(Debug, thiserror::Error)]
#[error("workflow {workflow}: {problem}")]
pub struct DefinitionError {
    workflow: String,
    problem: String,
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
        let definition: Self = toml::from_str(text)
            .map_err(|error| DefinitionError { workflow: source.to_owned(), problem: error.to_string() })?;
        definition.check().map_err(|problem| DefinitionError { workflow: source.to_owned(), problem })?;
        Ok(definition)
    }

    /// An empty definition in place of one that no longer exists.
    pub(super) fn missing(name: &str, version: i32) -> Self {
        Self {
            name: name.to_owned(),
            version,
            pivot: None,
            forward_only: true,
            steps: Vec::new(),
            signals: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
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

    fn check(&self) -> Result<(), String> {
        if self.steps.is_empty() {
            return Err("it has no steps".into());
        }
        if self.steps.len() > MAX_STEPS {
            return Err(format!("it has {} steps; {MAX_STEPS} is the most", self.steps.len()));
        }
        if self.signals().len() > MAX_NAMES || self.events().len() > MAX_NAMES {
            return Err(format!("it has more than {MAX_NAMES} signals or kinds of events"));
        }
        if self.version < 1 {
            return Err("its version must be 1 or more".into());
        }
        for (index, step) in self.steps.iter().enumerate() {
            self.check_step(index, step).map_err(|problem| format!("step {}: {problem}", step.name))?;
        }
        match &self.pivot {
            Some(pivot) if self.index(pivot).is_none() => {
                Err(format!("its pivot {pivot} is not one of its steps"))
            }
            _ => Ok(()),
        }
    }

    fn check_step(&self, index: usize, step: &Step) -> Result<(), String> {
        if self.index(&step.name) != Some(index) {
            return Err("another step has the same name".into());
        }
        match (&step.command, &step.wait) {
            (Some(_), Some(_)) => return Err("it has both a command and a wait".into()),
            (None, None) => return Err("it needs a command or a wait".into()),
            (None, Some(_)) if step.undo.is_some() => return Err("a wait has no undo".into()),
            (Some(_), None) if step.skip_if.is_some() => return Err("only a wait can be passed over".into()),
            _ => {}
        }
        for subject in step.command.iter().chain(&step.undo) {
            let parts: Vec<&str> = subject.split('.').collect();
            let plain =
                |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if parts.len() != 2 || !parts.iter().all(plain) {
                return Err(format!("{subject} is not of the form service.verb"));
            }
        }
        if let (Some(command), Some(undo)) = (&step.command, &step.undo)
            && service(command) != service(undo)
        {
            return Err(format!(
                "one service must serve both {command} and its undo {undo}: they share a fence"
            ));
        }
        if step.timeout_ms == 0 || step.timeout_ms > MAX_MS {
            return Err("its timeout_ms must be 1 or more, and ten years at most".into());
        }
        if let Some(deadline) = &step.deadline {
            if deadline.seconds.is_some_and(|seconds| seconds > MAX_SECONDS) {
                return Err(format!("its deadline takes {MAX_SECONDS} seconds (ten years) at most"));
            }
            if deadline.seconds.is_some() == deadline.at.is_some() {
                return Err("its deadline needs either seconds or at".into());
            }
            if !self.can_compensate(index) {
                return Err("it has a deadline, but there is no way back from it".into());
            }
        }
        for target in step.back_to.values() {
            let earlier = self.index(target).filter(|found| *found < index);
            if earlier.is_none_or(|found| self.steps[found].wait.is_none()) {
                return Err(format!("it leads back to {target}, which is no earlier wait"));
            }
        }
        step.retry.check().and_then(|()| step.undo_retry.check())
    }
}

fn service(command: &str) -> &str {
    command.split_once('.').map_or(command, |(service, _)| service)
}

/// Every version of every workflow that the program knows.
#[derive(Clone, Debug, Default)]
pub struct WorkflowRegistry {
    /// By name, then by version.
    definitions: BTreeMap<String, BTreeMap<i32, Definition>>,
}

impl WorkflowRegistry {
    /// Adds a definition. It replaces the same version of the same workflow.
    pub fn add(&mut self, definition: Definition) {
        let versions = self.definitions.entry(definition.name.clone()).or_default();
        versions.insert(definition.version, definition);
    }

    pub fn get(&self, name: &str, version: i32) -> Option<&Definition> {
        self.definitions.get(name)?.get(&version)
    }

    pub fn latest(&self, name: &str) -> Option<&Definition> {
        self.definitions.get(name)?.values().next_back()
    }

    /// Every command of every workflow, undos included.
    pub fn commands(&self) -> BTreeSet<&str> {
        self.iter().flat_map(Definition::commands).collect()
    }

    /// Ordered by name and version.
    pub fn iter(&self) -> impl Iterator<Item = &Definition> {
        self.definitions.values().flat_map(BTreeMap::values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Definition::parse("test", text).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_workflows_are_sound() {
        let registry = crate::samples::registry();
        let booking = registry.latest("booking").unwrap();
        assert_eq!(booking.steps.len(), 4);
        assert!(booking.can_compensate(3));
        assert!(!registry.latest("cancellation").unwrap().can_compensate(0));
    }

    #[test]
    fn bad_definition_is_refused_with_its_reason() {
        let step = |body: &str| format!("name='t'\nversion=1\n[[steps]]\nname='a'\n{body}");
        assert!(problem("name='t'\nversion=1\nsteps=[]").contains("no steps"));
        assert!(problem(&step("")).contains("needs a command or a wait"));
        assert!(problem(&step("command='x.y'\nwait='z'")).contains("both"));
        assert!(problem(&step("command='x'")).contains("service.verb"));
        assert!(problem(&step("command='x.y'\nskip_if='z'")).contains("only a wait"));
        assert!(problem(&step("command='x.y'\ndeadline={reason='r'}")).contains("either seconds or at"));
        assert!(problem(&step("command='x.y'\nback_to={no='b'}")).contains("no earlier wait"));
        assert!(problem(&step("command='x.y'\nundo='z.y'")).contains("both x.y and its undo z.y"));
        assert!(problem(&step("command='x.y'\ncolour=1")).contains("colour"));
        assert!(
            problem(&step("command='x.y'\nretry={first_ms=0,factor=2.0,cap_ms=1,attempts=1}"))
                .contains("first_ms")
        );
        assert!(problem(&format!("pivot='q'\n{}", step("command='x.y'"))).contains("pivot q"));
    }
}
