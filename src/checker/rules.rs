//! What must be true of every state, and what is said of one in which it is not.

use super::model::Model;
use super::normal::base;
use super::world::{Flying, World};
use crate::saga::{Act, Decision, Event, Saga, Status, apply};

/// What is wrong with a state. Steps are indices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    DoneTwice(u8),
    DoneAfterUndo(u8),
    LeftBehind(u8),
    NotDone(u8),
    EndMoved,
    StuckWithoutReason,
    Sleeps,
    Illegal(String),
    NeverEnds,
}

impl Fault {
    /// The fault in words, with the names of the steps.
    pub(super) fn told(&self, model: &Model) -> String {
        let name = |step: &u8| model.step_name(*step);
        match self {
            Self::DoneTwice(step) => format!("the effect of {} is made twice", name(step)),
            Self::DoneAfterUndo(step) => {
                format!("{} takes effect after its undo: nothing takes it back any more", name(step))
            }
            Self::LeftBehind(step) => {
                format!("the saga is compensated, but the effect of {} is still there", name(step))
            }
            Self::NotDone(step) => {
                format!("the saga is completed, but the effect of {} is not there", name(step))
            }
            Self::EndMoved => "an ended saga moves".to_owned(),
            Self::StuckWithoutReason => "the saga is stuck and does not say why".to_owned(),
            Self::Sleeps => "the saga sleeps without an alarm".to_owned(),
            Self::Illegal(why) => format!("the engine calls a message impossible: {why}"),
            Self::NeverEnds => {
                "from here the saga comes to no end, even if nothing goes wrong any more".to_owned()
            }
        }
    }
}

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
            let effect = world.places[index].effect;
            match status {
                Status::Completed if step.command.is_some() && !effect => {
                    world.blame(Fault::NotDone(index as u8));
                }
                Status::Compensated if effect => world.blame(Fault::LeftBehind(index as u8)),
                _ => {}
            }
        }
        if self.moves_after_end(world) {
            world.blame(Fault::EndMoved);
        }
        world.bus.retain(|message| matches!(message, Flying::Command(_)));
    }

    fn moves_after_end(&self, world: &World) -> bool {
        let flying = world.bus.iter().filter_map(|message| self.event(*message));
        let signals = self.small.signals.iter().cloned().map(Event::Signal);
        let acts = [Act::Retry, Act::Cancel].into_iter().map(Event::Operator);
        let mut events = flying.chain(signals).chain(acts).chain([Event::Alarm]);
        events.any(|event| {
            let decision = apply(&self.small.definition, &world.saga, &event, base(world.passed));
            matches!(decision, Decision::Transition(moved) if moved.saga.status != world.saga.status)
        })
    }
}
