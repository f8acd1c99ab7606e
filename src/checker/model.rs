//! The model as the checker walks it: where it begins, how a move changes it, and the one thing that must hold.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError};

use stateright::Property;

use super::Bounds;
use super::fault::Fault;
use super::normal::base;
use super::setting::{Mishap, Model, Move, Say};
use super::world::{Answer, Flying, Left, Place, World};
use crate::saga::{Act, Decision, Event, Saga, Status, Transition, apply, outstanding};

/// The one property: no state breaks a rule, and each leads to an end.
pub(super) const RULE: &str = "sound";
/// Moves of fair weather after which a saga that has not ended never will.
const PATIENCE: usize = 1_000;

impl Model {
    fn begin(&self, first: Transition) -> World {
        let Bounds { crashes, losses, duplicates, acts, returns } = self.bounds;
        let saga = self.small.settle(first.saga, base(0), 0);
        let mut world = World {
            step: 0,
            saga: Arc::new(saga),
            passed: 0,
            bus: Vec::new(),
            places: vec![Place::default(); self.small.definition.steps.len()],
            left: Left { crashes, losses, duplicates, acts, returns },
            fault: None,
        };
        self.publish(&mut world, first.actions);
        world
    }

    /// The state after a move; none if nothing changes.
    pub(super) fn after(&self, world: &World, step: &Move) -> Option<World> {
        let mut next = world.clone();
        match step {
            Move::Deliver { message, say, mishap } => {
                mishap.pay(&mut next.left);
                if matches!(mishap, Mishap::None | Mishap::NoDefinition) {
                    next.remove(*message);
                }
                match (message, self.event(*message)) {
                    (Flying::Command(asked), _) => self.work(&mut next, *asked, *say, *mishap),
                    (_, Some(event)) => drop(self.happen(&mut next, &event, base(world.passed), *mishap)),
                    // Stale, whatever it was: what the row asks for is published again.
                    _ => self.publish(&mut next, outstanding(&self.small.definition, &world.saga)),
                }
            }
            Move::Lose(message) => {
                next.left.losses -= 1;
                next.remove(*message);
            }
            Move::Ring { mishap } => self.ring(&mut next, *mishap)?,
            Move::Pass(passed) => self.pass(&mut next, *passed),
            Move::Signal { signal, mishap } => {
                mishap.pay(&mut next.left);
                let event = Event::Signal(self.small.signals[usize::from(*signal)].clone());
                if matches!(mishap, Mishap::Kept | Mishap::Unpublished) {
                    next.send(Flying::Signal(*signal));
                }
                if !self.happen(&mut next, &event, base(world.passed), *mishap) {
                    return None;
                }
            }
            Move::Act { act, mishap } => {
                mishap.pay(&mut next.left);
                if *act != Act::Resume {
                    next.left.acts = next.left.acts.saturating_sub(1);
                }
                if matches!(act, Act::Complete { .. }) && !self.complete_by_hand(&mut next) {
                    return None;
                }
                if !self.happen(&mut next, &Event::Operator(act.clone()), base(world.passed), *mishap) {
                    return None;
                }
            }
        }
        self.judge_end(&mut next);
        self.be_thrifty(&mut next);
        Some(next)
    }

    pub(super) fn pass(&self, world: &mut World, passed: u8) {
        world.saga = Arc::new(self.small.let_pass(&world.saga, world.passed, passed));
        world.passed = passed;
    }

    fn ring(&self, next: &mut World, mishap: Mishap) -> Option<()> {
        let saga = &next.saga;
        let early =
            !saga.backing_off && saga.status != Status::Waiting && next.awaits() && !self.is_overdue(next);
        mishap.pay(&mut next.left);
        if early {
            Mishap::Kept.pay(&mut next.left);
        }
        let now = next.saga.due_at?.max(base(next.passed));
        self.happen(next, &Event::Alarm, now, mishap).then_some(())
    }

    /// Fair weather: everything arrives, workers do their work, and whoever can help, does.
    fn fair(&self, world: &World) -> Option<Move> {
        let (say, mishap) = (Say::Answer(Answer::Done), Mishap::None);
        if world.saga.status == Status::Stuck {
            return Some(Move::Act { act: Act::Retry, mishap });
        }
        if world.saga.paused {
            return Some(Move::Act { act: Act::Resume, mishap });
        }
        if let Some(message) = world.bus.first() {
            return Some(Move::Deliver { message: *message, say, mishap });
        }
        if self.is_due(world) {
            return Some(Move::Ring { mishap });
        }
        let told = (0..self.small.signals.len() as u8).find(|signal| {
            let event = Event::Signal(self.small.signals[usize::from(*signal)].clone());
            matches!(self.would(&world.saga, &event, world.passed), Decision::Transition(_))
        });
        told.map(|signal| Move::Signal { signal, mishap })
            .or_else(|| self.next_deadline(world).map(Move::Pass))
    }

    fn would(&self, saga: &Saga, event: &Event, passed: u8) -> Decision {
        apply(&self.small.definition, saga, event, base(passed))
    }

    /// Whether an end is reached from here if nothing goes wrong any more; if not, why not. What lies on the way is
    /// remembered. A fault on the way is found where it is, unless only an act beyond the bounds leads to it.
    pub(super) fn leads_on(&self, world: &World) -> Result<(), Fault> {
        let (mut way, mut beyond) = (Vec::new(), false);
        let mut here = world.clone();
        while way.len() < PATIENCE {
            if let Some(fault) = here.fault {
                return if beyond { Err(fault) } else { Ok(()) };
            }
            let hash = self.hashing.hash_one(&here);
            let mut known = self.leading_on.lock().unwrap_or_else(PoisonError::into_inner);
            if here.saga.status.is_end() || known.contains(&hash) {
                known.extend(way.into_iter().chain([hash]));
                return Ok(());
            }
            drop(known);
            way.push(hash);
            let step = self.fair(&here).ok_or(Fault::NeverEnds)?;
            beyond |= matches!(step, Move::Act { act: Act::Retry, .. }) && here.left.acts == 0;
            here = self.after(&here, &step).ok_or(Fault::NeverEnds)?;
        }
        Err(Fault::NeverEnds)
    }
}

impl stateright::Model for Model {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        self.small.starts().map(|first| self.begin(first)).collect()
    }

    fn actions(&self, world: &World, moves: &mut Vec<Move>) {
        self.possible(world, moves);
    }

    fn next_state(&self, world: &World, step: Move) -> Option<World> {
        self.after(world, &step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(RULE, |model: &Self, world: &World| {
            world.fault.is_none() && model.leads_on(world).is_ok()
        })]
    }
}
