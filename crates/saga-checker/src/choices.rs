//! What can happen next: every delivery, loss, alarm, signal and act that a state allows, with every mishap on the way.
//!
//! Commit, publish and acknowledge are three moves, and a crash may come between any two. Nobody can see a message
//! before it is published, and nobody but its holder sees whether it is acknowledged; so a publish or an
//! acknowledgement that comes later is a message that is slow, and it is enough to choose, with each commit,
//! after which of the three the crash comes, if it comes.

use super::setting::{Mishap, Model, Move, Say};
use super::state::{Answer, Asked, FaultBudget, Message, OTHER, State};
use saga_core::{Act, Status, allowed_acts, outstanding};

impl FaultBudget {
    fn may_repeat(&self) -> bool {
        self.duplicates > 0 || self.crashes > 0
    }
}

impl Model {
    /// Everything that can happen in a state.
    pub(super) fn possible(&self, state: &State, moves: &mut Vec<Move>) {
        if state.fault.is_some() {
            return;
        }
        if self.is_over(state) {
            return self.after_end(state, moves);
        }
        for message in state.bus.iter().copied() {
            self.deliveries(state, message, moves);
            // What nobody waits for is as good as lost as long as it does not arrive.
            if state.budget.losses > 0 && state.counts(message) && !matches!(message, Message::Signal(_)) {
                moves.push(Move::Lose(message));
            }
        }
        self.time(state, moves);
        self.outside(state, moves);
    }

    /// Whether nothing can happen to the saga any more: it has ended, or is stuck and no operator acts.
    pub(super) fn is_over(&self, state: &State) -> bool {
        let status = state.saga.status;
        status.is_end() || (self.reduced && status == Status::Stuck && state.budget.acts == 0)
    }

    /// Whether publishing again what the row asks for would put anything on the bus.
    fn echo_matters(&self, state: &State) -> bool {
        let mut after = state.clone();
        self.publish(&mut after, outstanding(&self.workflow.definition, &state.saga));
        after.bus != state.bus
    }

    /// Only commands are still under way, and the most harmful thing is that one is done.
    fn after_end(&self, state: &State, moves: &mut Vec<Move>) {
        let say = Say::Answer(Answer::Done);
        let delivered =
            state.bus.iter().map(|message| Move::Deliver { message: *message, say, mishap: Mishap::None });
        moves.extend(delivered);
    }

    fn deliveries(&self, state: &State, message: Message, moves: &mut Vec<Move>) {
        let nothing = [Say::Answer(Answer::Done)];
        let says = match message {
            Message::Command(asked) => self.answers(state, asked),
            _ => nothing.to_vec(),
        };
        if message == Message::Echo && !self.echo_matters(state) {
            return;
        }
        let engine = self.reaches_engine(message);
        let once = self.reduced && !state.counts(message);
        for say in says {
            let mut push = |mishap| moves.push(Move::Deliver { message, say, mishap });
            push(Mishap::None);
            // A second delivery of what nobody waits for finds the fence as the first one left it.
            if once {
                continue;
            }
            if state.budget.may_repeat() {
                push(Mishap::Kept);
            }
            if state.budget.crashes > 0 && (engine || !self.reduced) {
                push(Mishap::Unpublished);
            }
            if state.budget.crashes > 0 && engine {
                push(Mishap::NoDefinition);
            }
        }
    }

    fn time(&self, state: &State, moves: &mut Vec<Move>) {
        let saga = &state.saga;
        if self.is_due(state) {
            // Looking early, while the answer is still under way, is one way for a command to come twice.
            let patient = saga.backing_off || saga.status == Status::Waiting || !state.awaits();
            if patient || self.is_overdue(state) || state.budget.may_repeat() {
                moves.push(Move::Ring { mishap: Mishap::None });
                if state.budget.crashes > 0 {
                    moves.push(Move::Ring { mishap: Mishap::Unpublished });
                    moves.push(Move::Ring { mishap: Mishap::NoDefinition });
                }
            }
        }
        moves.extend(self.next_deadline(state).map(Move::Pass));
    }

    /// The next deadline that anybody looks at: the saga in its step, or a worker with a command.
    pub(super) fn next_deadline(&self, state: &State) -> Option<u8> {
        let flying = state.bus.iter().filter_map(|message| match message {
            // A late do is worse without its deadline.
            Message::Command(asked) if !self.reduced || state.asks_for(*asked) => Some(asked.by),
            _ => None,
        });
        self.own_deadline(state).into_iter().chain(flying).filter(|at| *at > state.passed).min()
    }

    fn outside(&self, state: &State, moves: &mut Vec<Move>) {
        if state.saga.status == Status::Waiting {
            for signal in 0..self.workflow.signals.len() as u8 {
                moves.push(Move::Signal { signal, mishap: Mishap::None });
                if state.budget.may_repeat() {
                    moves.push(Move::Signal { signal, mishap: Mishap::Kept });
                }
                if state.budget.crashes > 0 {
                    moves.push(Move::Signal { signal, mishap: Mishap::Unpublished });
                    moves.push(Move::Signal { signal, mishap: Mishap::NoDefinition });
                }
            }
        }
        if state.budget.acts == 0 && !state.saga.paused {
            return;
        }
        let allowed = allowed_acts(Some(&self.workflow.definition), &state.saga);
        // Who pauses a saga lets it go on some time.
        let free = |act: &Act| state.budget.acts > 0 || *act == Act::Resume;
        for act in Act::all().into_iter().filter(|act| free(act) && allowed.contains(&act.name())) {
            moves.push(Move::Act { act: act.clone(), mishap: Mishap::None });
            if state.budget.crashes > 0 {
                moves.push(Move::Act { act, mishap: Mishap::Unpublished });
            }
        }
    }

    /// What a worker may answer to a command in this state.
    pub(super) fn answers(&self, state: &State, asked: Asked) -> Vec<Say> {
        let mut all = vec![Say::Answer(Answer::Done)];
        // Of what nobody waits for any more, only an effect would be harmful.
        let past = self.reduced && !state.asks_for(asked);
        if past || !self.performs(state, asked) {
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
        let place = &state.places[usize::from(asked.step)];
        let elsewhere = self.is_elsewhere();
        if place.unsure {
            // The effect is there: a worker that looks can only find it, or still not know.
            all.pop();
        } else {
            all.push(Say::Answer(Answer::Rejected(OTHER)));
            let back = &self.workflow.definition.steps[usize::from(asked.step)].back_to;
            let ways = if state.budget.returns > 0 { back.len() as u8 } else { 0 };
            all.extend((0..ways).map(|code| Say::Answer(Answer::Rejected(code))));
        }
        if elsewhere && state.budget.losses > 0 {
            all.push(Say::Answer(Answer::Unknown));
            if !place.unsure {
                all.push(Say::UnknownDone);
            }
        }
        all
    }
}
