//! The workflows that this process knows, and the steps of one: what a graph of it is drawn from.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::saga::definition::Step;
use crate::saga::{Definition, WorkflowRegistry};

/// A workflow and its versions.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WorkflowSummary {
    pub name: String,
    /// Oldest first; new sagas begin with the last.
    pub versions: Vec<i32>,
    /// The steps of the newest version.
    pub steps: usize,
}

/// One version of a workflow.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WorkflowGraph {
    pub name: String,
    pub version: i32,
    /// Every version, oldest first.
    pub versions: Vec<i32>,
    /// Once this step is done, a saga only goes forward; null if there is no such step.
    pub pivot: Option<String>,
    /// A saga of it never turns back.
    pub forward_only: bool,
    pub steps: Vec<WorkflowStep>,
    /// Signals that turn a waiting saga back, and the reason of each.
    #[schema(value_type = Object)]
    pub signals: BTreeMap<String, String>,
}

/// A step of a workflow.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WorkflowStep {
    pub name: String,
    /// The group of parallel steps that it is a member of; null if it is in none.
    pub group: Option<String>,
    /// The command that does it; null for a wait.
    pub command: Option<String>,
    /// The command that undoes it; null if nothing is to be undone.
    pub undo: Option<String>,
    /// The signal that it waits for; null for a command.
    pub signal: Option<String>,
    /// A saga passes over this wait if this field of its context is true.
    pub skip_if: Option<String>,
    /// The reason that a saga turns back with when the step takes too long; null if it may take any time.
    pub deadline_reason: Option<String>,
    /// Seconds until then, counted from entering the step; null if the time stands in the saga's context.
    pub deadline_seconds: Option<u32>,
    /// Rejections that lead back to an earlier wait: the code, and the step.
    #[schema(value_type = Object)]
    pub back_to: BTreeMap<String, String>,
    /// The events that it announces.
    pub emits: Vec<String>,
}

/// All workflows, by name.
pub fn list(registry: &WorkflowRegistry) -> Vec<WorkflowSummary> {
    let mut all: BTreeMap<String, WorkflowSummary> = BTreeMap::new();
    for definition in registry.iter() {
        let summary = all.entry(definition.name.clone()).or_insert_with(|| WorkflowSummary {
            name: definition.name.clone(),
            versions: Vec::new(),
            steps: 0,
        });
        summary.versions.push(definition.version);
        summary.steps = definition.steps.len();
    }
    all.into_values().collect()
}

/// A version of a workflow, or its newest; `None` if there is none.
pub fn graph(registry: &WorkflowRegistry, name: &str, version: Option<i32>) -> Option<WorkflowGraph> {
    let definition = match version {
        Some(version) => registry.get(name, version)?,
        None => registry.latest(name)?,
    };
    let all = registry.iter().filter(|known| known.name == name);
    Some(graph_of(&definition, all.map(|known| known.version).collect()))
}

fn graph_of(definition: &Definition, versions: Vec<i32>) -> WorkflowGraph {
    WorkflowGraph {
        name: definition.name.clone(),
        version: definition.version,
        versions,
        pivot: definition.pivot.clone(),
        forward_only: definition.forward_only,
        steps: definition.steps.iter().map(step_of).collect(),
        signals: definition.signals.clone(),
    }
}

fn step_of(step: &Step) -> WorkflowStep {
    let deadline = step.deadline.as_ref();
    WorkflowStep {
        name: step.name.clone(),
        group: step.group.clone(),
        command: step.command.clone(),
        undo: step.undo.clone(),
        signal: step.wait.clone(),
        skip_if: step.skip_if.clone(),
        deadline_reason: deadline.map(|deadline| deadline.reason.clone()),
        deadline_seconds: deadline.and_then(|deadline| deadline.seconds),
        back_to: step.back_to.clone(),
        emits: step.emits.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graph_shows_the_requested_version() {
        let registry = crate::workflows::built_in().unwrap();
        let names: Vec<String> = list(&registry).into_iter().map(|workflow| workflow.name).collect();
        assert_eq!(names, ["booking", "cancellation"]);
        let newest = registry.latest("booking").unwrap().version;
        let booking = graph(&registry, "booking", None).unwrap();
        assert_eq!((booking.version, booking.steps.len()), (newest, 4));
        assert!(booking.steps.iter().any(|step| step.signal.as_deref() == Some("pay")));
        assert!(booking.steps.iter().any(|step| step.undo.is_some() && step.command.is_some()));
        assert!(graph(&registry, "booking", Some(newest)).is_some());
        assert!(graph(&registry, "booking", Some(newest + 1)).is_none());
        assert!(graph(&registry, "nothing", None).is_none());
    }
}
