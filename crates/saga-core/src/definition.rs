//! A workflow as data: its steps in order, read from TOML and checked before anything starts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::delay::{LONGEST_MS, LONGEST_SECONDS, Retry};
use super::state::Direction;

/// The event that tells of a saga that cannot go on by itself.
pub const STUCK: &str = "saga.stuck";
/// The event that tells of a saga that an operator gave up.
pub const ABANDONED: &str = "saga.abandoned";
/// More steps than these no workflow has.
const MAX_STEPS: usize = 500;
/// More kinds of domain events, or of signals, no workflow has.
const MAX_NAMES: usize = 200;

/// One workflow, in one version.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub name: String,
    pub version: i32,
    /// Once this step is done the saga only goes forward.
    #[serde(default)]
    pub pivot: Option<String>,
    /// The saga has no way back from its very start.
    #[serde(default)]
    pub forward_only: bool,
    pub steps: Vec<Step>,
    /// Signals that end a wait by compensation, and the reason each gives.
    #[serde(default)]
    pub signals: BTreeMap<String, String>,
    /// What a compensated saga announces, by its reason; `otherwise` for all other reasons.
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
    /// A wait that the saga passes over, when it first comes to it, if this field of its context is true: what it would
    /// wait for was said with its start.
    #[serde(default)]
    pub skip_if: Option<String>,
    #[serde(default)]
    pub deadline: Option<Deadline>,
    /// Silence for so long, in milliseconds: the command is sent again (and later, and later).
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    #[serde(default = "Retry::of_do")]
    pub retry: Retry,
    #[serde(default = "Retry::of_undo")]
    pub undo_retry: Retry,
    /// Rejections that lead back to an earlier wait instead of to compensation.
    #[serde(default)]
    pub back_to: BTreeMap<String, String>,
    /// Events announced when the step is done.
    #[serde(default)]
    pub emits: Vec<String>,
    /// Parts of the step's output that are events of their own, when they are there.
    #[serde(default)]
    pub announces: BTreeMap<String, String>,
    /// The same for the output of the undo.
    #[serde(default)]
    pub undo_announces: BTreeMap<String, String>,
}

/// When a step must have come to its end, and the reason of the compensation if it has not.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// So long after the step was entered.
    #[serde(default)]
    pub seconds: Option<u32>,
    /// The time that stands in this field of the saga's context.
    #[serde(default)]
    pub at: Option<String>,
    pub reason: String,
}

/// What a step does, once checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work<'a> {
    Command { command: &'a str, undo: Option<&'a str> },
    Wait { signal: &'a str },
}

fn default_timeout() -> u64 {
    5_000
}

/// What is wrong with a definition, in words for its author.
#[derive(Debug, thiserror::Error)]
#[error("workflow {workflow}: {problem}")]
pub struct DefinitionError {
    workflow: String,
    problem: String,
}

impl Step {
    /// What this step does.
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

    /// Stands in for a definition that is gone: it has no steps and leads nowhere.
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

    /// The position of a step.
    pub fn index(&self, step: &str) -> Option<usize> {
        self.steps.iter().position(|candidate| candidate.name == step)
    }

    /// The command by which a step is done or undone, if it has one.
    pub fn command_of(&self, step: &str, direction: Direction) -> Option<&str> {
        let step = &self.steps[self.index(step)?];
        match direction {
            Direction::Do => step.command.as_deref(),
            Direction::Undo => step.undo.as_deref(),
        }
    }

    /// Whether a saga at this step may still be compensated.
    pub fn can_turn_back(&self, index: usize) -> bool {
        let pivot = self.pivot.as_deref().and_then(|name| self.index(name));
        !self.forward_only && pivot.is_none_or(|pivot| index <= pivot)
    }

    /// Every command subject that the workflow sends, undo included.
    pub fn commands(&self) -> BTreeSet<&str> {
        self.steps
            .iter()
            .flat_map(|step| step.command.as_deref().into_iter().chain(step.undo.as_deref()))
            .collect()
    }

    /// Every signal that moves a saga of this workflow.
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

    /// Whether a saga of this workflow may have told the world anything.
    pub fn announces_anything(&self) -> bool {
        let steps = &self.steps;
        let loud = |step: &Step| {
            !(step.emits.is_empty() && step.announces.is_empty() && step.undo_announces.is_empty())
        };
        !self.ends.is_empty() || steps.iter().any(loud)
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
        if step.timeout_ms == 0 || step.timeout_ms > LONGEST_MS {
            return Err("its timeout_ms must be 1 or more, and ten years at most".into());
        }
        if let Some(deadline) = &step.deadline {
            if deadline.seconds.is_some_and(|seconds| seconds > LONGEST_SECONDS) {
                return Err(format!("its deadline takes {LONGEST_SECONDS} seconds (ten years) at most"));
            }
            if deadline.seconds.is_some() == deadline.at.is_some() {
                return Err("its deadline needs either seconds or at".into());
            }
            if !self.can_turn_back(index) {
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

/// The service that a command belongs to.
fn service(command: &str) -> &str {
    command.split_once('.').map_or(command, |(service, _)| service)
}

/// Every definition the program knows, each version on its own.
#[derive(Clone, Debug, Default)]
pub struct WorkflowRegistry {
    /// By name, then by version.
    definitions: BTreeMap<String, BTreeMap<i32, Definition>>,
}

impl WorkflowRegistry {
    /// Adds a definition, in place of the same version of the same workflow.
    pub fn add(&mut self, definition: Definition) {
        let versions = self.definitions.entry(definition.name.clone()).or_default();
        versions.insert(definition.version, definition);
    }

    /// The definition a saga began with.
    pub fn get(&self, name: &str, version: i32) -> Option<&Definition> {
        self.definitions.get(name)?.get(&version)
    }

    /// The newest version of a workflow.
    pub fn latest(&self, name: &str) -> Option<&Definition> {
        self.definitions.get(name)?.values().next_back()
    }

    /// Every command that any of them sends, undo included.
    pub fn commands(&self) -> BTreeSet<&str> {
        self.iter().flat_map(Definition::commands).collect()
    }

    /// All of them, by name and version.
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
        assert!(booking.can_turn_back(3));
        assert!(!registry.latest("cancellation").unwrap().can_turn_back(0));
    }

    #[test]
    fn a_bad_definition_is_refused_with_its_reason() {
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
