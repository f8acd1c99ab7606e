//! The workers, as the model knows them: one elsewhere, with the table of outcomes of `docs/workers.md`, and one in
//! the engine's own database, whose effect is committed together with the saga.

use super::fault::Fault;
use super::normal::base;
use super::setting::{Flaw, Home, Mishap, Model, Say};
use super::world::{Answer, Asked, Flying, World};
use crate::saga::{Event, Poisoned, Reply, Status, outstanding};

/// What the fence says to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It belongs to the past: it is acknowledged without a reply.
    Ignore,
    /// It was answered already.
    Repeat(Answer),
    /// Its deadline has passed.
    TooLate,
    Perform,
}

impl Model {
    /// Whether a message leads to a decision about the saga.
    pub(super) fn reaches_engine(&self, message: Flying) -> bool {
        !self.is_elsewhere() || !matches!(message, Flying::Command(_))
    }

    /// Whether a command would be worked on.
    pub(super) fn performs(&self, world: &World, asked: Asked) -> bool {
        self.ruling(world, asked) == Ruling::Perform
    }

    /// What the fence says to a command: the rows of the table in `docs/workers.md`, from the top.
    pub(super) fn ruling(&self, world: &World, asked: Asked) -> Ruling {
        let late = asked.by > 0 && asked.by <= world.passed;
        if self.home == Home::Inside {
            return match world.asks_for(asked) {
                false => Ruling::Ignore,
                true if late && !asked.undo => Ruling::TooLate,
                true => Ruling::Perform,
            };
        }
        let place = &world.places[usize::from(asked.step)];
        match (asked.undo, place.saved) {
            (true, _) if place.undone > asked.visit => Ruling::Ignore,
            (true, _) if place.undone == asked.visit => Ruling::Repeat(Answer::Done),
            (true, _) => Ruling::Perform,
            _ if asked.visit <= place.undone || asked.visit < place.visit => Ruling::Ignore,
            (_, Some(saved)) if place.visit == asked.visit || saved == Answer::Done => Ruling::Repeat(saved),
            _ if late => Ruling::TooLate,
            _ => Ruling::Perform,
        }
    }

    /// A command reaches its worker.
    pub(super) fn work(&self, world: &mut World, asked: Asked, say: Say, mishap: Mishap) {
        if say == Say::Poisoned {
            let Reply { step, direction, visit, .. } = self.reply(asked, Answer::Done);
            let poisoned = Poisoned { step, direction, visit, error: "it cannot be read".to_owned() };
            self.happen(world, &Event::Poisoned(poisoned), base(world.passed), mishap);
            return;
        }
        if mishap == Mishap::NoDefinition {
            let refused = Event::Reply(self.reply(asked, Answer::Failed));
            self.happen(world, &refused, base(world.passed), mishap);
            return;
        }
        let ruling = self.ruling(world, asked);
        let answer = match ruling {
            Ruling::Ignore => None,
            Ruling::Repeat(answer) => Some(answer),
            Ruling::TooLate => Some(Answer::TooLate),
            Ruling::Perform => Some(self.perform(world, asked, say)),
        };
        match self.home {
            Home::Elsewhere => {
                if let Some(answer) = answer.filter(|_| mishap != Mishap::Unpublished) {
                    world.send(Flying::Reply(Asked { by: 0, ..asked }, answer));
                }
            }
            // The effect is committed, and with it should have been the saga.
            Home::Inside if mishap == Mishap::Unpublished && self.flaw == Some(Flaw::WorkerCommitsApart) => {}
            Home::Inside => match answer {
                Some(answer) => {
                    let event = Event::Reply(self.reply(asked, answer));
                    self.happen(world, &event, base(world.passed), mishap);
                }
                None if mishap == Mishap::Unpublished => {}
                None => {
                    let again = outstanding(&self.small.definition, &world.saga);
                    self.publish(world, again);
                }
            },
        }
    }

    /// The work itself: the effect, and the outcome in the same transaction.
    fn perform(&self, world: &mut World, asked: Asked, say: Say) -> Answer {
        let answer = match say {
            Say::Answer(answer) => answer,
            Say::UnknownDone | Say::Poisoned => Answer::Unknown,
        };
        match answer {
            Answer::Rejected(code) if !asked.undo && code != super::world::OTHER => world.left.returns -= 1,
            Answer::Unknown => world.left.losses -= 1,
            _ => {}
        }
        if asked.undo {
            if answer == Answer::Done {
                self.undo(world, asked);
            }
            return answer;
        }
        let (index, visit) = (usize::from(asked.step), asked.visit);
        if answer == Answer::Done || say == Say::UnknownDone {
            let place = &world.places[index];
            let late = place.truly_undone >= visit;
            // A worker that could not know looks before it does anything again.
            let twice = place.effect && !place.unsure;
            if late {
                world.blame(Fault::DoneAfterUndo(asked.step));
            } else if twice {
                world.blame(Fault::DoneTwice(asked.step));
            }
            world.places[index].effect = true;
        }
        let place = &mut world.places[index];
        place.unsure = say == Say::UnknownDone || (place.unsure && answer == Answer::Unknown);
        if self.is_elsewhere() {
            let forgets = self.flaw == Some(Flaw::WorkerForgetsOutcomes);
            place.visit = place.visit.max(visit);
            place.saved = Some(answer)
                .filter(|answer| matches!(answer, Answer::Done | Answer::Rejected(_)) && !forgets);
        }
        answer
    }

    fn undo(&self, world: &mut World, asked: Asked) {
        let place = &mut world.places[usize::from(asked.step)];
        (place.effect, place.unsure) = (false, false);
        place.truly_undone = place.truly_undone.max(asked.visit);
        if self.is_elsewhere() {
            place.saved = None;
            if self.flaw != Some(Flaw::WorkerForgetsUndos) {
                place.undone = place.undone.max(asked.visit);
            }
        }
    }

    /// An operator completes the current step by hand. Its effect is made elsewhere; the fence is written first, and
    /// if the step has run, the act is none. Says whether it may go on.
    pub(super) fn complete_by_hand(&self, world: &mut World) -> bool {
        let index = usize::from(world.step);
        if self.small.definition.steps[index].command.is_none() || world.saga.status == Status::Waiting {
            return true;
        }
        let visit = world.saga.visit as u8;
        let place = &mut world.places[index];
        if self.home == Home::Elsewhere {
            let ran = place.saved == Some(Answer::Done) || (place.saved.is_some() && visit == place.visit);
            if visit <= place.undone || ran || visit < place.visit {
                return false;
            }
            (place.visit, place.saved) = (visit, Some(Answer::Done));
        }
        (place.effect, place.unsure) = (true, false);
        true
    }
}
