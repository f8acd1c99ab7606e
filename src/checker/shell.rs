//! The engine's shell, as the model knows it: what comes is handed to the real `apply`, the row is written, and the
//! commands that follow go out, unless something goes wrong in between.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::fault::Fault;
use super::normal::{base, number};
use super::setting::{Flaw, Mishap, Model};
use super::world::{Asked, Flying, World};
use crate::saga::{
    Action, Command, Decision, Direction, Event, Reply, Status, apply, lost_definition, outstanding,
};

impl Model {
    /// Lets an event happen to the saga: apply, commit, publish. Says whether the saga moved.
    pub(super) fn happen(
        &self,
        world: &mut World,
        event: &Event,
        now: DateTime<Utc>,
        mishap: Mishap,
    ) -> bool {
        let before = Arc::clone(&world.saga);
        let event = self.as_the_engine_sees_it(world, event);
        let decision = match mishap {
            Mishap::NoDefinition => lost_definition(&before, &event, now),
            _ => apply(&self.small.definition, &before, &event, now),
        };
        let (moved, actions) = match decision {
            Decision::Transition(transition) => {
                let saga = self.small.settle(transition.saga, now, world.passed);
                world.step = self.small.definition.index(&saga.step).unwrap_or(0) as u8;
                world.saga = Arc::new(saga);
                self.judge_row(world, &before);
                if let Some(detail) = transition.entry.and_then(|entry| entry.detail) {
                    self.excuse(world, &detail);
                }
                (true, transition.actions)
            }
            // A message that comes twice or late: what the row asks for is published again.
            Decision::Stale if matches!(event, Event::Reply(_) | Event::Signal(_)) => {
                (false, outstanding(&self.small.definition, &before))
            }
            Decision::Stale => (false, Vec::new()),
            Decision::Illegal(why) => {
                world.blame(Fault::Illegal(why));
                (false, Vec::new())
            }
        };
        if mishap != Mishap::Unpublished {
            self.publish(world, actions);
        }
        moved
    }

    /// Publishes commands. Alarms need no message of their own here: whoever looks first, looks.
    pub(super) fn publish(&self, world: &mut World, actions: Vec<Action>) {
        for action in actions {
            if let Action::Send(command) = action
                && let Some(asked) = self.asked(&command)
            {
                world.send(Flying::Command(asked));
            }
        }
    }

    fn asked(&self, command: &Command) -> Option<Asked> {
        Some(Asked {
            step: self.small.definition.index(&command.step)? as u8,
            undo: command.direction == Direction::Undo,
            visit: command.visit as u8,
            send: command.send as u8,
            by: number(command.deadline),
        })
    }

    /// A sound engine sees a reply as it is.
    fn as_the_engine_sees_it(&self, world: &World, event: &Event) -> Event {
        match event {
            Event::Reply(reply) if self.flaw == Some(Flaw::EngineTakesAnyReply) => Event::Reply(Reply {
                step: world.saga.step.clone(),
                direction: world.saga.direction,
                visit: world.saga.visit,
                send: world.saga.send,
                outcome: reply.outcome.clone(),
                worker: None,
                service: None,
            }),
            other => other.clone(),
        }
    }

    /// Whether anybody who looks now finds the saga due: its pause or its silence may be over, or a deadline is.
    pub(super) fn is_due(&self, world: &World) -> bool {
        let saga = &world.saga;
        let near = |due| due < base(world.passed + 1);
        self.flaw != Some(Flaw::EngineNeverSweeps)
            && saga.status != Status::Stuck
            && saga.due_at.is_some_and(near)
    }

    /// Whether the deadline of the saga's own step has passed.
    pub(super) fn is_overdue(&self, world: &World) -> bool {
        self.own_deadline(world).is_some_and(|at| at <= world.passed)
    }

    /// The deadline of the saga's own step, if it still goes forward.
    pub(super) fn own_deadline(&self, world: &World) -> Option<u8> {
        let saga = &world.saga;
        let open =
            matches!(saga.status, Status::Running | Status::Waiting) && saga.direction == Direction::Do;
        let deadline =
            self.small.definition.steps[usize::from(world.step)].deadline.as_ref().filter(|_| open)?;
        Some(match (&deadline.at, deadline.seconds) {
            (Some(field), _) => number(saga.time(field)),
            (None, _) => number(Some(saga.entered_at)) + 1,
        })
    }
}
