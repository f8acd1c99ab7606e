//! What must be true of every state.

use serde_json::Value;

use super::fault::Fault;
use super::normal::base;
use super::setting::Model;
use super::world::{Flying, World};
use crate::saga::{Act, Decision, Event, Saga, Status, apply};

impl Model {
    /// What must be true of every row, whatever led to it.
    pub(super) fn judge_row(&self, world: &mut World, before: &Saga) {
        let after = &world.saga;
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
        world.blame(fault);
    }

    /// What must be true once a saga has ended: all or nothing is there, and what still comes changes nothing. What is
    /// still under way to the engine is tried here, all of it, and then is of no more interest.
    pub(super) fn judge_end(&self, world: &mut World) {
        let status = world.saga.status;
        if !status.is_end() {
            return;
        }
        for (index, step) in self.small.definition.steps.iter().enumerate() {
            let (effect, excused) = (world.places[index].effect, world.places[index].excused);
            match status {
                Status::Completed if step.command.is_some() && !effect => {
                    world.blame(Fault::NotDone(index as u8));
                }
                Status::Compensated | Status::Abandoned if effect && !excused => {
                    world.blame(Fault::LeftBehind(index as u8))
                }
                _ => {}
            }
        }
        if self.moves_after_end(world) {
            world.blame(Fault::EndMoved);
        }
        world.bus.retain(|message| matches!(message, Flying::Command(_)));
    }

    /// What an operator leaves behind is excused if it stands in the history.
    pub(super) fn excuse(&self, world: &mut World, detail: &Value) {
        let left: Vec<&str> =
            detail["left"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (step, place) in self.small.definition.steps.iter().zip(&mut world.places) {
            place.excused |= left.contains(&step.name.as_str());
        }
    }

    fn moves_after_end(&self, world: &World) -> bool {
        let flying = world.bus.iter().filter_map(|message| self.event(*message));
        let signals = self.small.signals.iter().cloned().map(Event::Signal);
        let acts = Act::all().into_iter().map(Event::Operator);
        let mut events = flying.chain(signals).chain(acts).chain([Event::Alarm]);
        events.any(|event| {
            let decision = apply(&self.small.definition, &world.saga, &event, base(world.passed));
            matches!(decision, Decision::Transition(moved) if moved.saga.status != world.saga.status)
        })
    }
}
