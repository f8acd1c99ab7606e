//! A model of the engine around the real `apply`: it writes the row and publishes the commands, unless a fault comes
//! between.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::abstraction::{base, number};
use super::actions::{Fault, InjectedBug, Model};
use super::state::{CommandKey, Message, State};
use super::violation::Violation;
use saga_core::{
    Action, Command, Decision, Direction, Event, Reply, Saga, Status, apply, open_steps, outstanding,
};

impl Model {
    /// Applies, commits and publishes. Returns whether the saga changed.
    pub(super) fn apply_event(
        &self,
        state: &mut State,
        event: &Event,
        now: DateTime<Utc>,
        fault: Fault,
    ) -> bool {
        let before = Arc::clone(&state.saga);
        let event = self.with_injected_bug(state, event);
        let (moved, actions) = match apply(&self.workflow.definition, &before, &event, now) {
            Decision::Transition(transition) => {
                let saga = self.workflow.settle(transition.saga, now, state.passed);
                self.take(state, saga);
                self.check_row(state, &before);
                if let Some(detail) = transition.entry.and_then(|entry| entry.detail) {
                    self.record_left_effects(state, &detail);
                }
                (true, transition.actions)
            }
            // A duplicate or late message makes the engine publish the current command again.
            Decision::Stale if matches!(event, Event::Reply(_) | Event::Signal(_)) => {
                (false, outstanding(&self.workflow.definition, &before))
            }
            Decision::Stale => (false, Vec::new()),
            Decision::Illegal(why) => {
                state.report(Violation::Illegal(why));
                (false, Vec::new())
            }
        };
        if fault != Fault::CrashBeforePublish {
            self.publish(state, actions);
        }
        moved
    }

    /// Gives the state this saga.
    pub(super) fn take(&self, state: &mut State, saga: Saga) {
        let definition = &self.workflow.definition;
        let here = definition.index(&saga.step).unwrap_or(0);
        let group = definition.group(here).unwrap_or(here..here + 1);
        state.step = here as u8;
        state.group = (group.start as u8, (group.end - 1) as u8);
        state.open = open_steps(definition, &saga).into_iter().fold(0, |open, step| open | 1 << step);
        state.saga = Arc::new(saga);
    }

    /// Publishes commands. Timers need no message in the model, because the sweeper finds every due saga.
    pub(super) fn publish(&self, state: &mut State, actions: Vec<Action>) {
        for action in actions {
            if let Action::Send(command) = action
                && let Some(key) = self.key(&command)
            {
                state.send(Message::Command(key));
            }
        }
    }

    fn key(&self, command: &Command) -> Option<CommandKey> {
        Some(CommandKey {
            step: self.workflow.definition.index(&command.step)? as u8,
            undo: command.direction == Direction::Undo,
            visit: command.visit as u8,
            send: command.send as u8,
            by: number(command.deadline),
        })
    }

    /// The event, unless an injected bug changes it.
    fn with_injected_bug(&self, state: &State, event: &Event) -> Event {
        match event {
            Event::Reply(reply) if self.injected == Some(InjectedBug::EngineTakesAnyReply) => {
                Event::Reply(Reply {
                    step: state.saga.step.clone(),
                    direction: state.saga.direction,
                    visit: state.saga.visit,
                    send: state.saga.send,
                    outcome: reply.outcome.clone(),
                    worker: None,
                    service: None,
                })
            }
            other => other.clone(),
        }
    }

    /// The steps for which the sweeper finds the saga due now: its step, or open members of its group.
    pub(super) fn due_steps(&self, state: &State) -> impl Iterator<Item = u8> {
        let near = base(state.passed + 1);
        let sweeps = self.injected != Some(InjectedBug::EngineNeverSweeps);
        let is_awake = sweeps && state.saga.status != Status::Stuck;
        state.open_steps().filter(move |step| is_awake && state.due_of(*step).is_some_and(|due| due < near))
    }

    pub(super) fn is_overdue(&self, state: &State, step: u8) -> bool {
        self.deadline_of(state, step).is_some_and(|at| at <= state.passed)
    }

    /// The deadlines of the steps that the saga is at, if it goes forward.
    pub(super) fn own_deadlines(&self, state: &State) -> impl Iterator<Item = (u8, u8)> {
        state.open_steps().filter_map(|step| Some((step, self.deadline_of(state, step)?)))
    }

    fn deadline_of(&self, state: &State, step: u8) -> Option<u8> {
        let saga = &state.saga;
        let open =
            matches!(saga.status, Status::Running | Status::Waiting) && saga.direction == Direction::Do;
        let deadline =
            self.workflow.definition.steps[usize::from(step)].deadline.as_ref().filter(|_| open)?;
        Some(match (&deadline.at, deadline.seconds) {
            (Some(field), _) => number(saga.time(field)),
            (None, _) => number(Some(saga.entered_at)) + 1,
        })
    }
}
