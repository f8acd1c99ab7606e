//! What must be true of every state.

use serde_json::Value;

use super::abstraction::base;
use super::fault::Fault;
use super::setting::Model;
use super::state::{Message, State};
use saga_core::{Act, Decision, Event, Saga, Status, apply};

impl Model {
    /// What must be true of every row, whatever led to it.
    pub(super) fn judge_row(&self, state: &mut State, before: &Saga) {
        let after = &state.saga;
        let rests = after.status.is_end() || after.status == Status::Stuck || after.paused;
        let fault = if before.status.is_end() && before.status != after.status {
            Fault::EndMoved
        } else if after.status == Status::Stuck && after.reason.is_none() {
            Fault::StuckWithoutReason
        } else if !rests && after.due_at.is_none() {
            Fault::Sleeps
        } else {
            return;
        };
        state.blame(fault);
    }

    /// What must be true once a saga has ended: all or nothing is there, and what still comes changes nothing. What is
    /// still under way to the engine is tried here, all of it, and then is of no more interest.
    pub(super) fn judge_end(&self, state: &mut State) {
        let status = state.saga.status;
        if !status.is_end() {
            return;
        }
        for (index, step) in self.workflow.definition.steps.iter().enumerate() {
            let (effect, excused) = (state.places[index].effect, state.places[index].excused);
            match status {
                Status::Completed if step.command.is_some() && !effect => {
                    state.blame(Fault::NotDone(index as u8));
                }
                Status::Compensated | Status::Abandoned if effect && !excused => {
                    state.blame(Fault::LeftBehind(index as u8))
                }
                _ => {}
            }
        }
        if self.moves_after_end(state) {
            state.blame(Fault::EndMoved);
        }
        state.bus.retain(|message| matches!(message, Message::Command(_)));
    }

    /// What an operator leaves behind is excused if it stands in the history.
    pub(super) fn excuse(&self, state: &mut State, detail: &Value) {
        let left: Vec<&str> =
            detail["left"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (step, place) in self.workflow.definition.steps.iter().zip(&mut state.places) {
            place.excused |= left.contains(&step.name.as_str());
        }
    }

    fn moves_after_end(&self, state: &State) -> bool {
        let flying = state.bus.iter().filter_map(|message| self.event(*message));
        let signals = self.workflow.signals.iter().cloned().map(Event::Signal);
        let acts = Act::all().into_iter().map(Event::Operator);
        let mut events = flying.chain(signals).chain(acts).chain([Event::Alarm]);
        events.any(|event| {
            let decision = apply(&self.workflow.definition, &state.saga, &event, base(state.passed));
            matches!(decision, Decision::Transition(moved) if moved.saga.status != state.saga.status)
        })
    }
}
