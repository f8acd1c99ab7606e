//! The rules that every state must obey.

use serde_json::Value;

use super::abstraction::base;
use super::actions::Model;
use super::state::{Message, State};
use super::violation::Violation;
use saga_core::{Decision, Event, OperatorAction, Saga, Status, apply};

impl Model {
    /// Checks the row after a change.
    pub(super) fn check_row(&self, state: &mut State, before: &Saga) {
        let after = &state.saga;
        let rests = after.status.is_end() || after.status == Status::Stuck || after.paused;
        let violation = if before.status.is_end() && before.status != after.status {
            Violation::EndChanged
        } else if after.status == Status::Stuck && after.reason.is_none() {
            Violation::StuckWithoutReason
        } else if !rests && after.due_at.is_none() {
            Violation::WithoutDueTime
        } else {
            return;
        };
        state.report(violation);
    }

    /// Checks an ended saga: all effects exist, or none, and the remaining messages change nothing. Then the messages
    /// to the engine are dropped.
    pub(super) fn check_end(&self, state: &mut State) {
        let status = state.saga.status;
        if !status.is_end() {
            return;
        }
        for (index, step) in self.workflow.definition.steps.iter().enumerate() {
            let (effect, left_by_operator) =
                (state.workers[index].effect, state.workers[index].left_by_operator);
            match status {
                Status::Completed if step.command.is_some() && !effect => {
                    state.report(Violation::NotDone(index as u8));
                }
                Status::Compensated | Status::Abandoned if effect && !left_by_operator => {
                    state.report(Violation::LeftBehind(index as u8))
                }
                _ => {}
            }
        }
        if self.changes_after_end(state) {
            state.report(Violation::EndChanged);
        }
        state.bus.retain(|message| matches!(message, Message::Command(_)));
    }

    /// An effect that an operator left is no violation if the history names it.
    pub(super) fn record_left_effects(&self, state: &mut State, detail: &Value) {
        let left: Vec<&str> =
            detail["left"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (step, worker) in self.workflow.definition.steps.iter().zip(&mut state.workers) {
            worker.left_by_operator |= left.contains(&step.name.as_str());
        }
    }

    fn changes_after_end(&self, state: &State) -> bool {
        let in_flight = state.bus.iter().filter_map(|message| self.event(*message));
        let signals = self.workflow.signals.iter().cloned().map(Event::signal);
        let acts = OperatorAction::all().into_iter().map(Event::Operator);
        let mut events = in_flight.chain(signals).chain(acts).chain([Event::TimerFired]);
        events.any(|event| {
            let decision = apply(&self.workflow.definition, &state.saga, &event, base(state.passed));
            matches!(decision, Decision::Transition(moved) if moved.saga.status != state.saga.status)
        })
    }
}
