//! What can happen next: every delivery, loss, alarm, signal and act that a state allows, with every mishap on the way.
//!
//! Commit, publish and acknowledge are three moves, and a crash may come between any two. Nobody can see a message
//! before it is published, and nobody but its holder sees whether it is acknowledged; so a publish or an
//! acknowledgement that comes later is a message that is slow, and it is enough to choose, with each commit,
//! after which of the three the crash comes, if it comes.

use super::setting::{Mishap, Model, Move, Say};
use super::world::{Answer, Asked, Flying, Left, OTHER, World};
use crate::saga::{Act, Status, allowed_acts, outstanding};

impl Left {
    fn may_repeat(&self) -> bool {
        self.duplicates > 0 || self.crashes > 0
    }
}

impl Model {
    /// Everything that can happen in a state.
    pub(super) fn possible(&self, world: &World, moves: &mut Vec<Move>) {
        if world.fault.is_some() {
            return;
        }
        if self.is_over(world) {
            return self.after_end(world, moves);
        }
        for message in world.bus.iter().copied() {
            self.deliveries(world, message, moves);
            // What nobody waits for is as good as lost as long as it does not arrive.
            if world.left.losses > 0 && world.counts(message) && !matches!(message, Flying::Signal(_)) {
                moves.push(Move::Lose(message));
            }
        }
        self.time(world, moves);
        self.outside(world, moves);
    }

    /// Whether nothing can happen to the saga any more: it has ended, or is stuck and no operator acts.
    pub(super) fn is_over(&self, world: &World) -> bool {
        let status = world.saga.status;
        status.is_end() || (self.thrifty && status == Status::Stuck && world.left.acts == 0)
    }

    /// Whether publishing again what the row asks for would put anything on the bus.
    fn echo_matters(&self, world: &World) -> bool {
        let mut after = world.clone();
        self.publish(&mut after, outstanding(&self.small.definition, &world.saga));
        after.bus != world.bus
    }

    /// Only commands are still under way, and the most harmful thing is that one is done.
    fn after_end(&self, world: &World, moves: &mut Vec<Move>) {
        let say = Say::Answer(Answer::Done);
        let delivered =
            world.bus.iter().map(|message| Move::Deliver { message: *message, say, mishap: Mishap::None });
        moves.extend(delivered);
    }

    fn deliveries(&self, world: &World, message: Flying, moves: &mut Vec<Move>) {
        let nothing = [Say::Answer(Answer::Done)];
        let says = match message {
            Flying::Command(asked) => self.answers(world, asked),
            _ => nothing.to_vec(),
        };
        if message == Flying::Echo && !self.echo_matters(world) {
            return;
        }
        let engine = self.reaches_engine(message);
        let once = self.thrifty && !world.counts(message);
        for say in says {
            let mut push = |mishap| moves.push(Move::Deliver { message, say, mishap });
            push(Mishap::None);
            // A second delivery of what nobody waits for finds the fence as the first one left it.
            if once {
                continue;
            }
            if world.left.may_repeat() {
                push(Mishap::Kept);
            }
            if world.left.crashes > 0 && (engine || !self.thrifty) {
                push(Mishap::Unpublished);
            }
            if world.left.crashes > 0 && engine {
                push(Mishap::NoDefinition);
            }
        }
    }

    fn time(&self, world: &World, moves: &mut Vec<Move>) {
        let saga = &world.saga;
        if self.is_due(world) {
            // Looking early, while the answer is still under way, is one way for a command to come twice.
            let patient = saga.backing_off || saga.status == Status::Waiting || !world.awaits();
            if patient || self.is_overdue(world) || world.left.may_repeat() {
                moves.push(Move::Ring { mishap: Mishap::None });
                if world.left.crashes > 0 {
                    moves.push(Move::Ring { mishap: Mishap::Unpublished });
                    moves.push(Move::Ring { mishap: Mishap::NoDefinition });
                }
            }
        }
        moves.extend(self.next_deadline(world).map(Move::Pass));
    }

    /// The next deadline that anybody looks at: the saga in its step, or a worker with a command.
    pub(super) fn next_deadline(&self, world: &World) -> Option<u8> {
        let flying = world.bus.iter().filter_map(|message| match message {
            // A late do is worse without its deadline.
            Flying::Command(asked) if !self.thrifty || world.asks_for(*asked) => Some(asked.by),
            _ => None,
        });
        self.own_deadline(world).into_iter().chain(flying).filter(|at| *at > world.passed).min()
    }

    fn outside(&self, world: &World, moves: &mut Vec<Move>) {
        if world.saga.status == Status::Waiting {
            for signal in 0..self.small.signals.len() as u8 {
                moves.push(Move::Signal { signal, mishap: Mishap::None });
                if world.left.may_repeat() {
                    moves.push(Move::Signal { signal, mishap: Mishap::Kept });
                }
                if world.left.crashes > 0 {
                    moves.push(Move::Signal { signal, mishap: Mishap::Unpublished });
                    moves.push(Move::Signal { signal, mishap: Mishap::NoDefinition });
                }
            }
        }
        if world.left.acts == 0 && !world.saga.paused {
            return;
        }
        let allowed = allowed_acts(Some(&self.small.definition), &world.saga);
        // Who pauses a saga lets it go on some time.
        let free = |act: &Act| world.left.acts > 0 || *act == Act::Resume;
        for act in Act::all().into_iter().filter(|act| free(act) && allowed.contains(&act.name())) {
            moves.push(Move::Act { act: act.clone(), mishap: Mishap::None });
            if world.left.crashes > 0 {
                moves.push(Move::Act { act, mishap: Mishap::Unpublished });
            }
        }
    }

    /// What a worker may answer to a command in this state.
    pub(super) fn answers(&self, world: &World, asked: Asked) -> Vec<Say> {
        let mut all = vec![Say::Answer(Answer::Done)];
        // Of what nobody waits for any more, only an effect would be harmful.
        let past = self.thrifty && !world.asks_for(asked);
        if past || !self.performs(world, asked) {
            return all;
        }
        all.push(Say::Answer(Answer::Failed));
        if !self.is_elsewhere() {
            all.push(Say::Poisoned);
        }
        if asked.undo {
            all.push(Say::Answer(Answer::Rejected(OTHER)));
            return all;
        }
        let place = &world.places[usize::from(asked.step)];
        let elsewhere = self.is_elsewhere();
        if place.unsure {
            // The effect is there: a worker that looks can only find it, or still not know.
            all.pop();
        } else {
            all.push(Say::Answer(Answer::Rejected(OTHER)));
            let back = &self.small.definition.steps[usize::from(asked.step)].back_to;
            let ways = if world.left.returns > 0 { back.len() as u8 } else { 0 };
            all.extend((0..ways).map(|code| Say::Answer(Answer::Rejected(code))));
        }
        if elsewhere && world.left.losses > 0 {
            all.push(Say::Answer(Answer::Unknown));
            if !place.unsure {
                all.push(Say::UnknownDone);
            }
        }
        all
    }
}
