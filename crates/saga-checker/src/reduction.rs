//! Merges states whose difference affects no later decision.
//!
//! - A reply to an earlier command can only make the engine publish the current command again. All such replies become
//!   one echo. A command stays outdated, because visits only increase and a visit goes forward and then back.
//! - A command that its worker would ignore is dropped. If the worker would still reply, it becomes an echo.
//! - The send of a message matters only as the last one or an earlier one.
//! - Only the order of the visits matters, not their numbers.
//! - A worker's record of a step matters only while a command for the step is under way or may be sent.
//! - Deadlines matter only while a step can still be done.
//!
//! A model with an injected bug keeps every message, because its fence may accept an outdated one. A test compares the
//! verdicts with and without the reduction.

use std::borrow::Cow;
use std::sync::Arc;

use super::actions::Model;
use super::state::{CommandKey, FaultBudget, Message, ReplyKind, State, WorkerState};
use super::workers::FenceVerdict;
use saga_core::{Direction, Saga, Status, focused};

impl Model {
    pub(super) fn reduce(&self, state: &mut State) {
        if !self.reduced || state.violation.is_some() {
            return;
        }
        self.drop_messages(state);
        self.renumber_sends(state);
        self.drop_worker_state(state);
        let may_do = state.saga.direction == Direction::Do || has_do_in_flight(state, None);
        if !may_do && state.passed < self.workflow.last_deadline() {
            self.pass(state, self.workflow.last_deadline());
        }
        if self.is_over(state) {
            state.budget = FaultBudget::default();
        }
        if !self.may_return(state) {
            state.budget.returns = 0;
        }
        renumber_visits(state);
    }

    fn drop_messages(&self, state: &mut State) {
        let mut echo = false;
        let relevances: Vec<Relevance> =
            state.bus.iter().map(|message| self.relevance(state, *message)).collect();
        let mut relevances = relevances.into_iter();
        state.bus.retain(|_| {
            let relevance = relevances.next().unwrap_or(Relevance::Itself);
            echo |= relevance == Relevance::Echo;
            relevance == Relevance::Itself
        });
        if echo {
            state.send(Message::Echo);
        }
    }

    fn relevance(&self, state: &State, message: Message) -> Relevance {
        match message {
            Message::Reply(key, reply) if is_past(state, key) || is_outdated(state, key, reply) => {
                Relevance::Echo
            }
            Message::Command(key) if is_past(state, key) => match self.fence_verdict(state, key) {
                // In the engine's database the row itself is read, and the engine publishes its current command.
                FenceVerdict::Ignore if !self.is_elsewhere() => Relevance::Echo,
                FenceVerdict::Ignore => Relevance::Nothing,
                FenceVerdict::Repeat(_) => Relevance::Echo,
                _ => Relevance::Itself,
            },
            Message::Echo | Message::Signal(_) if self.is_over(state) => Relevance::Nothing,
            Message::Signal(_) if !self.may_wait(state) => Relevance::Echo,
            _ => Relevance::Itself,
        }
    }

    /// Clears the records of steps that cannot be entered again and have no command under way.
    fn drop_worker_state(&self, state: &mut State) {
        let again = self.entered_again(state);
        for step in 0..state.workers.len() as u8 {
            let in_flight = state.bus.iter().any(|message| match message {
                Message::Command(key) | Message::Reply(key, _) => key.step == step,
                _ => false,
            });
            if !in_flight && again.is_none_or(|again| step < again) && (step != state.step || again.is_none())
            {
                let WorkerState { effect, effect_unknown, left_by_operator, .. } =
                    state.workers[usize::from(step)];
                state.workers[usize::from(step)] =
                    WorkerState { effect, effect_unknown, left_by_operator, ..WorkerState::default() };
            }
        }
    }

    /// Whether a rejection can still lead back to a wait.
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

    /// The first step that can still be done; `None` if the saga only undoes.
    fn entered_again(&self, state: &State) -> Option<u8> {
        let definition = &self.workflow.definition;
        let here = state.open.trailing_zeros() as usize;
        let ahead = definition.steps[here..].iter().flat_map(|step| step.back_to.values());
        let back = ahead.filter_map(|wait| definition.index(wait)).min().unwrap_or(here);
        (state.saga.direction == Direction::Do).then_some(back.min(here) as u8)
    }
}

#[derive(PartialEq)]
enum Relevance {
    Itself,
    Echo,
    Nothing,
}

impl Model {
    /// Renumbers the sends of this visit, of each step that the saga is at: 1 is the last and 0 an earlier one; 0 is the last if there
    /// is no earlier one.
    fn renumber_sends(&self, state: &mut State) {
        let commands = |message: &Message| matches!(message, Message::Command(_));
        let (commands, mut bus): (Vec<Message>, Vec<Message>) =
            std::mem::take(&mut state.bus).into_iter().partition(commands);
        let with_old_copy = commands.iter().fold(0u64, |steps, message| match message {
            Message::Command(key) if state.asks_for(*key) && !is_newest(state, *key) => steps | 1 << key.step,
            _ => steps,
        });
        let newest = |step: u8| (with_old_copy >> step & 1) as u8;
        for message in &mut bus {
            if let Message::Reply(key, reply) = message {
                let counts = matches!(reply, ReplyKind::Failed | ReplyKind::Unknown);
                key.send = if counts { newest(key.step) } else { 0 };
            }
        }
        for message in commands {
            if let Message::Command(mut key) = message {
                key.send = if is_newest(state, key) { newest(key.step) } else { 0 };
                if !state.asks_for(key) {
                    key.by = 0;
                }
                bus.push(Message::Command(key));
            }
        }
        bus.sort_unstable();
        bus.dedup();
        state.bus = bus;
        self.set_sends(state, newest);
    }

    fn set_sends(&self, state: &mut State, newest: impl Fn(u8) -> u8) {
        if state.open_steps().all(|step| state.send_of(step) == i32::from(newest(step))) {
            return;
        }
        let (definition, here) = (&self.workflow.definition, state.step);
        let focused = focused(definition, &state.saga, here.into());
        let mut saga = focused.map_or_else(|| Saga::clone(&state.saga), Cow::into_owned);
        for (step, member) in (state.group.0..).zip(saga.members.iter_mut()) {
            member.send = newest(step).into();
        }
        saga.send = newest(here).into();
        self.workflow.choose_member(&mut saga);
        self.take(state, saga);
    }
}

/// Renumbers the visits that still appear, from 1.
fn renumber_visits(state: &mut State) {
    let mut named = vec![state.saga.visit as u8];
    for message in &state.bus {
        if let Message::Command(key) | Message::Reply(key, _) = message {
            named.push(key.visit);
        }
    }
    for worker in &state.workers {
        named.extend([worker.visit, worker.undone, worker.undo_done]);
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
        if let Message::Command(key) | Message::Reply(key, _) = message {
            key.visit = number(key.visit);
        }
    }
    for worker in &mut state.workers {
        (worker.visit, worker.undone, worker.undo_done) =
            (number(worker.visit), number(worker.undone), number(worker.undo_done));
    }
    state.bus.sort_unstable();
}

fn is_newest(state: &State, key: CommandKey) -> bool {
    state.asks_for(key) && i32::from(key.send) >= state.send_of(key.step)
}

fn has_do_in_flight(state: &State, step: Option<u8>) -> bool {
    state.bus.iter().any(|message| {
        matches!(message, Message::Command(key) if !key.undo && step.is_none_or(|step| step == key.step))
    })
}

/// Whether the command with this key is outdated for good.
pub(super) fn is_past(state: &State, key: CommandKey) -> bool {
    let saga = &state.saga;
    let visit = i32::from(key.visit);
    if visit != saga.visit || saga.status.is_end() {
        return visit < saga.visit || saga.status.is_end();
    }
    // A stuck saga continues with a new visit, or compensates.
    let stuck_here = saga.status == Status::Stuck && key.step == state.step;
    match (saga.direction, key.undo) {
        (Direction::Undo, false) => true,
        (Direction::Undo, true) => key.step > state.step || stuck_here,
        (Direction::Do, _) => key.step <= state.group.1 && !state.is_open(key.step) || stuck_here,
    }
}

/// A failure of an earlier send says nothing about the current send.
fn is_outdated(state: &State, key: CommandKey, reply: ReplyKind) -> bool {
    state.asks_for(key)
        && matches!(reply, ReplyKind::Failed | ReplyKind::Unknown)
        && (state.is_backing_off(key.step) || i32::from(key.send) < state.send_of(key.step))
}
