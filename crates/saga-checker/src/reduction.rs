//! Fewer states for the same answer: what can no longer make a difference is evened out.
//!
//! - An answer to what the saga has left behind can only make the engine publish again what the row asks for. All
//!   such answers are one echo. What was left behind stays so: visits only rise, and within a visit a saga only
//!   goes forward, then back.
//! - A command that its worker would not work on any more is gone, or an echo if it would still be answered.
//! - Which send of a visit a message belongs to matters only as far as it is the last one or not.
//! - Which visit is which matters only as far as one is before another.
//! - What a worker remembers of a step matters as long as a command for that step is under way or may come.
//! - Deadlines matter as long as something can still be done, not undone.
//!
//! A model with an injected bug keeps every message: its fence may take what a sound one has done with. A test compares the
//! verdicts with and without.

use std::sync::Arc;

use super::setting::Model;
use super::state::{Answer, Asked, FaultBudget, Message, Place, State};
use super::workers::Ruling;
use saga_core::{Direction, Status};

impl Model {
    /// Evens out what can be told apart no more.
    pub(super) fn reduce(&self, state: &mut State) {
        if !self.reduced || state.fault.is_some() {
            return;
        }
        self.drop_messages(state);
        forget_sends(state);
        self.forget_memories(state);
        let may_do = state.saga.direction == Direction::Do || flying_do(state, None);
        if !may_do && state.passed < self.workflow.last_deadline() {
            self.pass(state, self.workflow.last_deadline());
        }
        if self.is_over(state) {
            state.budget = FaultBudget::default();
        }
        if !self.may_return(state) {
            state.budget.returns = 0;
        }
        number_visits(state);
    }

    fn drop_messages(&self, state: &mut State) {
        let mut echo = false;
        let worths: Vec<Worth> = state.bus.iter().map(|message| self.worth(state, *message)).collect();
        let mut worths = worths.into_iter();
        state.bus.retain(|_| {
            let worth = worths.next().unwrap_or(Worth::Itself);
            echo |= worth == Worth::Echo;
            worth == Worth::Itself
        });
        if echo {
            state.send(Message::Echo);
        }
    }

    fn worth(&self, state: &State, message: Message) -> Worth {
        match message {
            Message::Reply(asked, answer) if is_past(state, asked) || is_outdated(state, asked, answer) => {
                Worth::Echo
            }
            Message::Command(asked) if is_past(state, asked) => match self.ruling(state, asked) {
                // In the engine's database the row itself is asked, and answers with what it asks for now.
                Ruling::Ignore if !self.is_elsewhere() => Worth::Echo,
                Ruling::Ignore => Worth::Nothing,
                Ruling::Repeat(_) => Worth::Echo,
                _ => Worth::Itself,
            },
            Message::Echo | Message::Signal(_) if self.is_over(state) => Worth::Nothing,
            Message::Signal(_) if !self.may_wait(state) => Worth::Echo,
            _ => Worth::Itself,
        }
    }

    /// A step that is not entered again needs no memory once no command for it is under way.
    fn forget_memories(&self, state: &mut State) {
        let again = self.entered_again(state);
        for step in 0..state.places.len() as u8 {
            let flying = state.bus.iter().any(|message| match message {
                Message::Command(asked) | Message::Reply(asked, _) => asked.step == step,
                _ => false,
            });
            if !flying && again.is_none_or(|again| step < again) && (step != state.step || again.is_none()) {
                let Place { effect, unsure, excused, .. } = state.places[usize::from(step)];
                state.places[usize::from(step)] = Place { effect, unsure, excused, ..Place::default() };
            }
        }
    }

    /// Whether a rejection may still lead back to a wait.
    fn may_return(&self, state: &State) -> bool {
        let ahead =
            self.entered_again(state).map(|first| &self.workflow.definition.steps[usize::from(first)..]);
        ahead.is_some_and(|steps| steps.iter().any(|step| !step.back_to.is_empty()))
    }

    fn may_wait(&self, state: &State) -> bool {
        let steps = &self.workflow.definition.steps;
        self.entered_again(state)
            .is_some_and(|first| steps[usize::from(first)..].iter().any(|step| step.wait.is_some()))
    }

    /// The first step that may still be done; none once the saga only undoes.
    fn entered_again(&self, state: &State) -> Option<u8> {
        let definition = &self.workflow.definition;
        let here = usize::from(state.step);
        let ahead = definition.steps[here..].iter().flat_map(|step| step.back_to.values());
        let back = ahead.filter_map(|wait| definition.index(wait)).min().unwrap_or(here);
        (state.saga.direction == Direction::Do).then_some(back.min(here) as u8)
    }
}

#[derive(PartialEq)]
enum Worth {
    Itself,
    Echo,
    Nothing,
}

/// Sends of this visit: 1 is the last, 0 are those before; if there are none before, the last is 0.
fn forget_sends(state: &mut State) {
    let last = state.saga.send;
    let commands = |message: &Message| matches!(message, Message::Command(_));
    let (moving, mut bus): (Vec<Message>, Vec<Message>) =
        std::mem::take(&mut state.bus).into_iter().partition(commands);
    let is_old = |message: &Message| matches!(message, Message::Command(asked) if state.asks_for(*asked) && i32::from(asked.send) < last);
    let newest = u8::from(moving.iter().any(is_old));
    for message in &mut bus {
        if let Message::Reply(asked, answer) = message {
            let counts = matches!(answer, Answer::Failed | Answer::Unknown);
            asked.send = if counts { newest } else { 0 };
        }
    }
    if state.saga.send != i32::from(newest) {
        Arc::make_mut(&mut state.saga).send = newest.into();
    }
    for message in moving {
        if let Message::Command(mut asked) = message {
            let old = is_old_copy(state, asked, last);
            asked.send = if old { 0 } else { newest };
            if !state.asks_for(asked) {
                asked.by = 0;
            }
            bus.push(Message::Command(asked));
        }
    }
    bus.sort_unstable();
    bus.dedup();
    state.bus = bus;
}

/// Visits are only compared: those that are still named are numbered anew, from 1.
fn number_visits(state: &mut State) {
    let mut named = vec![state.saga.visit as u8];
    for message in &state.bus {
        if let Message::Command(asked) | Message::Reply(asked, _) = message {
            named.push(asked.visit);
        }
    }
    for place in &state.places {
        named.extend([place.visit, place.undone, place.truly_undone]);
    }
    named.sort_unstable();
    named.dedup();
    let gaps = usize::from(named[0] == 0);
    if usize::from(named[named.len() - 1]) == named.len() - gaps {
        return;
    }
    let number = |visit: u8| match visit {
        0 => 0,
        visit => (named.partition_point(|other| *other < visit) + 1 - gaps) as u8,
    };
    Arc::make_mut(&mut state.saga).visit = number(state.saga.visit as u8).into();
    for message in &mut state.bus {
        if let Message::Command(asked) | Message::Reply(asked, _) = message {
            asked.visit = number(asked.visit);
        }
    }
    for place in &mut state.places {
        (place.visit, place.undone, place.truly_undone) =
            (number(place.visit), number(place.undone), number(place.truly_undone));
    }
    state.bus.sort_unstable();
}

fn is_old_copy(state: &State, asked: Asked, last: i32) -> bool {
    !state.asks_for(asked) || i32::from(asked.send) < last
}

fn flying_do(state: &State, step: Option<u8>) -> bool {
    state.bus.iter().any(|message| {
        matches!(message, Message::Command(asked) if !asked.undo && step.is_none_or(|step| step == asked.step))
    })
}

/// Whether the saga has left behind what this fence says, for good.
pub(super) fn is_past(state: &State, asked: Asked) -> bool {
    let saga = &state.saga;
    let visit = i32::from(asked.visit);
    if visit != saga.visit || saga.status.is_end() {
        return visit < saga.visit || saga.status.is_end();
    }
    // A stuck saga goes on with a new visit, or the other way.
    let stuck_here = saga.status == Status::Stuck && asked.step == state.step;
    match (saga.direction, asked.undo) {
        (Direction::Undo, false) => true,
        (Direction::Undo, true) => asked.step > state.step || stuck_here,
        (Direction::Do, _) => asked.step < state.step || stuck_here,
    }
}

/// A second no to an earlier send says nothing about the one that is out, now or later.
fn is_outdated(state: &State, asked: Asked, answer: Answer) -> bool {
    let saga = &state.saga;
    state.asks_for(asked)
        && matches!(answer, Answer::Failed | Answer::Unknown)
        && (saga.backing_off || i32::from(asked.send) < saga.send)
}
