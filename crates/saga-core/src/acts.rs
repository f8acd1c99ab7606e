//! What an operator's act does to a saga, or `Stale` where the act is not allowed in its state.

use serde_json::{Map, Value, json};

use super::action::Decision;
use super::event::Act;
use super::moves::{Move, may_have_run, moved};
use super::permits::{allowed_acts, lacking};
use super::state::{Direction, Saga, Status};

/// The reason of a saga that an operator gave up.
const ABANDONED: &str = "abandoned";

/// Does the act, and writes down what belongs to it: a hand-made output, what is left behind.
pub(super) fn acted(mut next: Move<'_>, saga: &Saga, index: usize, act: &Act) -> Decision {
    if !allowed_acts(Some(next.definition), saga).contains(&act.name()) {
        return Decision::Stale;
    }
    let mut detail = None;
    match act {
        Act::Retry if saga.status == Status::Stuck => next.visit_again(),
        Act::Retry => next.send_again(),
        Act::Complete { output } if !lacking(next.definition, saga, output).is_empty() => {
            return Decision::Stale;
        }
        Act::Complete { output } => {
            detail = Some(Value::Object(output.clone()));
            complete(&mut next, index, output);
        }
        Act::SkipUndo => {
            detail = Some(json!({ "left": [saga.step] }));
            next.go_on_undoing();
            next.undo_from(index.checked_sub(1));
        }
        Act::Cancel => next.turn_back("cancelled", Some(index)),
        Act::Abandon => {
            detail = Some(json!({ "left": may_have_run(next.definition, saga) }));
            next.give_up(ABANDONED);
        }
        Act::Pause => next.pause(),
        Act::Resume => next.resume(),
    }
    moved(next.record(saga, &format!("operator:{}", act.name()), detail))
}

/// The step counts as done, with all that follows from it: its output is known, its events go out.
fn complete(next: &mut Move<'_>, index: usize, output: &Map<String, Value>) {
    next.learn(index, output);
    next.saga.rejection = None;
    next.saga.reason = None;
    next.announce(index, Direction::Do, output);
    next.go_on(index);
}
