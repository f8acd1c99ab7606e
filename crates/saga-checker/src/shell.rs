//! The engine's shell, as the model knows it: what comes is handed to the real `apply`, the row is written, and the
//! commands that follow go out, unless something goes wrong in between.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::abstraction::{base, number};
use super::fault::Fault;
use super::setting::{InjectedBug, Mishap, Model};
use super::state::{Asked, Message, State};
use saga_core::{
    Action, Command, Decision, Direction, Event, Reply, Status, apply, lost_definition, outstanding,
};

impl Model {
    /// Lets an event happen to the saga: apply, commit, publish. Says whether the saga moved.
    pub(super) fn happen(
        &self,
        state: &mut State,
        event: &Event,
        now: DateTime<Utc>,
        mishap: Mishap,
    ) -> bool {
        let before = Arc::clone(&state.saga);
        let event = self.as_the_engine_sees_it(state, event);
        let decision = match mishap {
            Mishap::NoDefinition => lost_definition(&before, &event, now),
            _ => apply(&self.workflow.definition, &before, &event, now),
        };
        let (moved, actions) = match decision {
            Decision::Transition(transition) => {
                let saga = self.workflow.settle(transition.saga, now, state.passed);
                state.step = self.workflow.definition.index(&saga.step).unwrap_or(0) as u8;
                state.saga = Arc::new(saga);
                self.judge_row(state, &before);
                if let Some(detail) = transition.entry.and_then(|entry| entry.detail) {
                    self.excuse(state, &detail);
                }
                (true, transition.actions)
            }
            // A message that comes twice or late: what the row asks for is published again.
            Decision::Stale if matches!(event, Event::Reply(_) | Event::Signal(_)) => {
                (false, outstanding(&self.workflow.definition, &before))
            }
            Decision::Stale => (false, Vec::new()),
            Decision::Illegal(why) => {
                state.blame(Fault::Illegal(why));
                (false, Vec::new())
            }
        };
        if mishap != Mishap::Unpublished {
            self.publish(state, actions);
        }
        moved
    }

    /// Publishes commands. Alarms need no message of their own here: whoever looks first, looks.
    pub(super) fn publish(&self, state: &mut State, actions: Vec<Action>) {
        for action in actions {
            if let Action::Send(command) = action
                && let Some(asked) = self.asked(&command)
            {
                state.send(Message::Command(asked));
            }
        }
    }

    fn asked(&self, command: &Command) -> Option<Asked> {
        Some(Asked {
            step: self.workflow.definition.index(&command.step)? as u8,
            undo: command.direction == Direction::Undo,
            visit: command.visit as u8,
            send: command.send as u8,
            by: number(command.deadline),
        })
    }

    /// A sound engine sees a reply as it is.
    fn as_the_engine_sees_it(&self, state: &State, event: &Event) -> Event {
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

    /// Whether anybody who looks now finds the saga due: its pause or its silence may be over, or a deadline is.
    pub(super) fn is_due(&self, state: &State) -> bool {
        let saga = &state.saga;
        let near = |due| due < base(state.passed + 1);
        self.injected != Some(InjectedBug::EngineNeverSweeps)
            && saga.status != Status::Stuck
            && saga.due_at.is_some_and(near)
    }

    /// Whether the deadline of the saga's own step has passed.
    pub(super) fn is_overdue(&self, state: &State) -> bool {
        self.own_deadline(state).is_some_and(|at| at <= state.passed)
    }

    /// The deadline of the saga's own step, if it still goes forward.
    pub(super) fn own_deadline(&self, state: &State) -> Option<u8> {
        let saga = &state.saga;
        let open =
            matches!(saga.status, Status::Running | Status::Waiting) && saga.direction == Direction::Do;
        let deadline =
            self.workflow.definition.steps[usize::from(state.step)].deadline.as_ref().filter(|_| open)?;
        Some(match (&deadline.at, deadline.seconds) {
            (Some(field), _) => number(saga.time(field)),
            (None, _) => number(Some(saga.entered_at)) + 1,
        })
    }
}
