//! The actions of operators, and which of them a saga's state allows.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::definition::Definition;
use super::group::{open_steps, running_group};
use super::state::{Direction, Saga, Status};

/// What an operator can do to a saga.
#[derive(Clone, Debug, PartialEq)]
pub enum OperatorAction {
    /// Send the current command again now. A stuck saga starts a new visit.
    Retry,
    /// Treat the current step as done with this output. In a group of parallel steps `step` names the member.
    Complete { step: Option<String>, output: Map<String, Value> },
    /// Leave out the current undo. The effect of its step stays.
    SkipUndo,
    /// Compensate.
    Cancel,
    /// End the saga as it is.
    Abandon,
    /// Do not send the next forward command. Deadlines still apply.
    Pause,
    /// End a pause.
    Resume,
}

impl OperatorAction {
    /// One of each, in the order in which they are offered. `Complete` has an empty output.
    pub fn all() -> [Self; 7] {
        let complete = Self::Complete { step: None, output: Map::new() };
        [Self::Retry, complete, Self::SkipUndo, Self::Cancel, Self::Abandon, Self::Pause, Self::Resume]
    }

    /// The name in the API and in the history.
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

/// The names of the actions that a saga's state allows. A saga without a definition can only be abandoned.
pub fn allowed_actions(definition: Option<&Definition>, saga: &Saga) -> Vec<&'static str> {
    let here = definition.and_then(|definition| Some((definition, definition.index(&saga.step)?)));
    let is_allowed = |action: &OperatorAction| match here {
        Some((definition, index)) => is_allowed(definition, index, saga, action),
        None => matches!(action, OperatorAction::Abandon) && !saga.status.is_end(),
    };
    OperatorAction::all().iter().filter(|action| is_allowed(action)).map(OperatorAction::name).collect()
}

fn is_allowed(definition: &Definition, index: usize, saga: &Saga, action: &OperatorAction) -> bool {
    use OperatorAction as Action;
    use Status::{Compensating, Running, Stuck, Waiting};
    let forward = saga.direction == Direction::Do && matches!(saga.status, Running | Waiting | Stuck);
    match action {
        Action::Retry => matches!(saga.status, Running | Compensating | Stuck) && !saga.paused,
        Action::Complete { .. } => forward,
        Action::SkipUndo => saga.direction == Direction::Undo && matches!(saga.status, Compensating | Stuck),
        Action::Cancel => forward && definition.can_compensate(index),
        Action::Abandon => !saga.status.is_end(),
        Action::Pause => matches!(saga.status, Running | Waiting) && !saga.paused,
        Action::Resume => saga.paused,
    }
}

/// The fields that an operator's output must have: times that later deadlines refer to and that the context lacks.
pub fn missing_outputs(definition: &Definition, saga: &Saga, output: &Map<String, Value>) -> Vec<String> {
    let mut later = definition.index(&saga.step).map_or(definition.steps.len(), |index| index + 1);
    if let Some(group) = running_group(definition, saga) {
        // The output of another member may still bring them.
        if open_steps(definition, saga).len() > 1 {
            return Vec::new();
        }
        later = group.end;
    }
    let deadlines = definition.steps[later..].iter().filter_map(|step| step.deadline.as_ref()?.at.as_ref());
    let known = |field: &String| {
        let time = output.get(field).or_else(|| saga.context.get(field)).and_then(Value::as_str);
        time.is_some_and(|time| chrono::DateTime::parse_from_rfc3339(time).is_ok())
    };
    deadlines.filter(|field| !known(field)).cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Event, NewSaga, Signal, apply, apply_undefined, start};
    use uuid::Uuid;

    fn begun(workflow: &str) -> (Definition, Saga) {
        let definition = crate::samples::workflow(workflow);
        let id = Uuid::from_u128(7);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let saga = start(&definition, new, chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap()).saga;
        (definition, saga)
    }

    #[test]
    fn each_state_allows_its_actions() {
        let (booking, mut saga) = begun("booking");
        let allowed = |saga: &Saga| allowed_actions(Some(&booking), saga);
        assert_eq!(allowed(&saga), ["retry", "complete", "cancel", "abandon", "pause"]);
        saga.paused = true;
        assert_eq!(allowed(&saga), ["complete", "cancel", "abandon", "resume"]);
        (saga.paused, saga.status, saga.direction) = (false, Status::Stuck, Direction::Undo);
        assert_eq!(allowed(&saga), ["retry", "skip_undo", "abandon"]);
        assert_eq!(allowed_actions(None, &saga), ["abandon"], "without a definition");
        saga.status = Status::Compensated;
        assert!(allowed(&saga).is_empty() && allowed_actions(None, &saga).is_empty());
    }

    #[test]
    fn forward_only_workflow_cannot_be_cancelled() {
        let (cancellation, saga) = begun("cancellation");
        assert!(!allowed_actions(Some(&cancellation), &saga).contains(&"cancel"));
    }

    #[test]
    fn manually_completed_hold_needs_its_expiry() {
        let (booking, saga) = begun("booking");
        let missing = |output: Value| missing_outputs(&booking, &saga, output.as_object().unwrap());
        assert_eq!(missing(serde_json::json!({})), ["claimable_at", "expires_at"]);
        let (soon, later) = ("2027-01-15T08:05:00Z", "2027-01-15T08:05:15Z");
        assert_eq!(
            missing(serde_json::json!({ "expires_at": soon, "claimable_at": "later" })),
            ["claimable_at"]
        );
        assert!(missing(serde_json::json!({ "expires_at": soon, "claimable_at": later })).is_empty());
    }

    fn after(decision: Decision) -> Saga {
        match decision {
            Decision::Transition(transition) => transition.saga,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn saga_waits_while_its_definition_cannot_be_read() {
        let text =
            "name='t'\nversion=1\n[[steps]]\nname='ask'\nwait='go'\n[[steps]]\nname='act'\ncommand='x.y'";
        let definition = Definition::parse("t", text).unwrap();
        let (id, now) = (Uuid::from_u128(7), chrono::DateTime::UNIX_EPOCH);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let waiting = start(&definition, new, now).saga;
        let go = Event::signal("go");
        for event in [&go, &Event::TimerFired] {
            assert!(apply_undefined(&waiting, event, now).is_none());
        }
        let abandon = Event::Operator(OperatorAction::Abandon);
        let abandoned = after(apply_undefined(&waiting, &abandon, now).unwrap());
        assert_eq!(abandoned.status, Status::Abandoned);
        assert!(matches!(apply_undefined(&abandoned, &go, now), Some(Decision::Stale)));
        let on = after(apply(&definition, &waiting, &go, now));
        assert_eq!((on.status, on.step.as_str()), (Status::Running, "act"));
    }

    #[test]
    fn payload_joins_the_context_of_its_wait() {
        let text = "name='t'\nversion=1\n[[steps]]\nname='ask'\nwait='go'\npayload=['card']\n[[steps]]\nname='act'\ncommand='x.y'";
        let definition = Definition::parse("t", text).unwrap();
        let (id, now) = (Uuid::from_u128(7), chrono::DateTime::UNIX_EPOCH);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let waiting = start(&definition, new, now).saga;
        let go = |field: &str| {
            let payload = Map::from_iter([(field.to_owned(), "4711".into())]);
            apply(&definition, &waiting, &Event::Signal(Signal { name: "go".to_owned(), payload }), now)
        };
        assert_eq!(after(go("card")).context["card"], "4711");
        assert!(matches!(go("amount"), Decision::Illegal(why) if why.contains("amount")));
    }
}
