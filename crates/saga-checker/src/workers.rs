//! The workers, as the model knows them: one elsewhere, with the table of outcomes of `docs/workers.md`, and one in
//! the engine's own database, whose effect is committed together with the saga.

use super::abstraction::base;
use super::fault::Fault;
use super::setting::{Home, InjectedBug, Mishap, Model, Say};
use super::state::{Answer, Asked, Message, State};
use saga_core::{Event, Poisoned, Reply, Status, outstanding};

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
    pub(super) fn reaches_engine(&self, message: Message) -> bool {
        !self.is_elsewhere() || !matches!(message, Message::Command(_))
    }

    /// Whether a command would be worked on.
    pub(super) fn performs(&self, state: &State, asked: Asked) -> bool {
        self.ruling(state, asked) == Ruling::Perform
    }

    /// What the fence says to a command: the rows of the table in `docs/workers.md`, from the top.
    pub(super) fn ruling(&self, state: &State, asked: Asked) -> Ruling {
        let late = asked.by > 0 && asked.by <= state.passed;
        if self.home == Home::Inside {
            return match state.asks_for(asked) {
                false => Ruling::Ignore,
                true if late && !asked.undo => Ruling::TooLate,
                true => Ruling::Perform,
            };
        }
        let place = &state.places[usize::from(asked.step)];
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
    pub(super) fn work(&self, state: &mut State, asked: Asked, say: Say, mishap: Mishap) {
        if say == Say::Poisoned {
            let Reply { step, direction, visit, .. } = self.reply(asked, Answer::Done);
            let poisoned = Poisoned { step, direction, visit, error: "it cannot be read".to_owned() };
            self.happen(state, &Event::Poisoned(poisoned), base(state.passed), mishap);
            return;
        }
        if mishap == Mishap::NoDefinition {
            let refused = Event::Reply(self.reply(asked, Answer::Failed));
            self.happen(state, &refused, base(state.passed), mishap);
            return;
        }
        let ruling = self.ruling(state, asked);
        let answer = match ruling {
            Ruling::Ignore => None,
            Ruling::Repeat(answer) => Some(answer),
            Ruling::TooLate => Some(Answer::TooLate),
            Ruling::Perform => Some(self.perform(state, asked, say)),
        };
        match self.home {
            Home::Elsewhere => {
                if let Some(answer) = answer.filter(|_| mishap != Mishap::Unpublished) {
                    state.send(Message::Reply(Asked { by: 0, ..asked }, answer));
                }
            }
            // The effect is committed, and with it should have been the saga.
            Home::Inside
                if mishap == Mishap::Unpublished
                    && self.injected == Some(InjectedBug::WorkerCommitsApart) => {}
            Home::Inside => match answer {
                Some(answer) => {
                    let event = Event::Reply(self.reply(asked, answer));
                    self.happen(state, &event, base(state.passed), mishap);
                }
                None if mishap == Mishap::Unpublished => {}
                None => {
                    let again = outstanding(&self.workflow.definition, &state.saga);
                    self.publish(state, again);
                }
            },
        }
    }

    /// The work itself: the effect, and the outcome in the same transaction.
    fn perform(&self, state: &mut State, asked: Asked, say: Say) -> Answer {
        let answer = match say {
            Say::Answer(answer) => answer,
            Say::UnknownDone | Say::Poisoned => Answer::Unknown,
        };
        match answer {
            Answer::Rejected(code) if !asked.undo && code != super::state::OTHER => state.budget.returns -= 1,
            Answer::Unknown => state.budget.losses -= 1,
            _ => {}
        }
        if asked.undo {
            if answer == Answer::Done {
                self.undo(state, asked);
            }
            return answer;
        }
        let (index, visit) = (usize::from(asked.step), asked.visit);
        if answer == Answer::Done || say == Say::UnknownDone {
            let place = &state.places[index];
            let late = place.truly_undone >= visit;
            // A worker that could not know looks before it does anything again.
            let twice = place.effect && !place.unsure;
            if late {
                state.blame(Fault::DoneAfterUndo(asked.step));
            } else if twice {
                state.blame(Fault::DoneTwice(asked.step));
            }
            state.places[index].effect = true;
        }
        let place = &mut state.places[index];
        place.unsure = say == Say::UnknownDone || (place.unsure && answer == Answer::Unknown);
        if self.is_elsewhere() {
            let forgets = self.injected == Some(InjectedBug::WorkerForgetsOutcomes);
            place.visit = place.visit.max(visit);
            place.saved = Some(answer)
                .filter(|answer| matches!(answer, Answer::Done | Answer::Rejected(_)) && !forgets);
        }
        answer
    }

    fn undo(&self, state: &mut State, asked: Asked) {
        let place = &mut state.places[usize::from(asked.step)];
        (place.effect, place.unsure) = (false, false);
        place.truly_undone = place.truly_undone.max(asked.visit);
        if self.is_elsewhere() {
            place.saved = None;
            if self.injected != Some(InjectedBug::WorkerForgetsUndos) {
                place.undone = place.undone.max(asked.visit);
            }
        }
    }

    /// An operator completes the current step by hand. Its effect is made elsewhere; the fence is written first, and
    /// if the step has run, the act is none. Says whether it may go on.
    pub(super) fn complete_by_hand(&self, state: &mut State) -> bool {
        let index = usize::from(state.step);
        if self.workflow.definition.steps[index].command.is_none() || state.saga.status == Status::Waiting {
            return true;
        }
        let visit = state.saga.visit as u8;
        let place = &mut state.places[index];
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
