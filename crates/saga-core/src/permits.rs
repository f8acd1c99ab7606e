//! Which acts an operator may do to a saga, by its state.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::definition::Definition;
use super::event::Act;
use super::state::{Direction, Saga, Status};

/// The names of the acts that a saga's state allows. Where its definition is gone it can only be given up.
pub fn allowed_acts(definition: Option<&Definition>, saga: &Saga) -> Vec<&'static str> {
    let here = definition.and_then(|definition| Some((definition, definition.index(&saga.step)?)));
    let allowed = |act: &Act| match here {
        Some((definition, index)) => permits(definition, index, saga, act),
        None => matches!(act, Act::Abandon) && !saga.status.is_end(),
    };
    Act::all().iter().filter(|act| allowed(act)).map(Act::name).collect()
}

fn permits(definition: &Definition, index: usize, saga: &Saga, act: &Act) -> bool {
    use Status::{Compensating, Running, Stuck, Waiting};
    let forward = saga.direction == Direction::Do && matches!(saga.status, Running | Waiting | Stuck);
    match act {
        Act::Retry => matches!(saga.status, Running | Compensating | Stuck) && !saga.paused,
        Act::Complete { .. } => forward,
        Act::SkipUndo => saga.direction == Direction::Undo && matches!(saga.status, Compensating | Stuck),
        Act::Cancel => forward && definition.can_turn_back(index),
        Act::Abandon => !saga.status.is_end(),
        Act::Pause => matches!(saga.status, Running | Waiting) && !saga.paused,
        Act::Resume => saga.paused,
    }
}

/// The fields that a hand-made output must bring: times that later deadlines refer to, and that nothing else will bring.
pub fn lacking(definition: &Definition, saga: &Saga, output: &Map<String, Value>) -> Vec<String> {
    let later = definition.index(&saga.step).map_or(definition.steps.len(), |index| index + 1);
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
    use crate::{NewSaga, start};

    fn begun(workflow: &str) -> (Definition, Saga) {
        let definition = crate::samples::workflow(workflow);
        let id = uuid::Uuid::from_u128(7);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let saga = start(&definition, new, chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap()).saga;
        (definition, saga)
    }

    #[test]
    fn each_state_has_its_acts() {
        let (booking, mut saga) = begun("booking");
        let allowed = |saga: &Saga| allowed_acts(Some(&booking), saga);
        assert_eq!(allowed(&saga), ["retry", "complete", "cancel", "abandon", "pause"]);
        saga.paused = true;
        assert_eq!(allowed(&saga), ["complete", "cancel", "abandon", "resume"]);
        (saga.paused, saga.status, saga.direction) = (false, Status::Stuck, Direction::Undo);
        assert_eq!(allowed(&saga), ["retry", "skip_undo", "abandon"]);
        assert_eq!(allowed_acts(None, &saga), ["abandon"], "its definition is gone");
        saga.status = Status::Compensated;
        assert!(allowed(&saga).is_empty() && allowed_acts(None, &saga).is_empty());
    }

    #[test]
    fn there_is_no_way_back_where_the_workflow_has_none() {
        let (cancellation, saga) = begun("cancellation");
        assert!(!allowed_acts(Some(&cancellation), &saga).contains(&"cancel"));
    }

    #[test]
    fn a_hold_that_is_completed_by_hand_must_say_how_long_it_lasts() {
        let (booking, saga) = begun("booking");
        let lacking = |output: Value| lacking(&booking, &saga, output.as_object().unwrap());
        assert_eq!(lacking(serde_json::json!({})), ["claimable_at", "expires_at"]);
        let (soon, later) = ("2027-01-15T08:05:00Z", "2027-01-15T08:05:15Z");
        assert_eq!(
            lacking(serde_json::json!({ "expires_at": soon, "claimable_at": "later" })),
            ["claimable_at"]
        );
        assert!(lacking(serde_json::json!({ "expires_at": soon, "claimable_at": later })).is_empty());
    }
}
