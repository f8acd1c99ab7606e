//! A model of the workers: an external one with the outcome table of `docs/workers.md`, and one in the engine's
//! database, whose effect is committed together with the saga.

use super::abstraction::base;
use super::actions::{Fault, Home, InjectedBug, Model, WorkResult};
use super::state::{CommandKey, Message, ReplyKind, State};
use super::violation::Violation;
use saga_core::{Event, Poisoned, Reply, Status, outstanding};

/// What the fence decides about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FenceVerdict {
    /// The command is outdated. It is acknowledged without a reply.
    Ignore,
    /// The command was executed already; its outcome is sent again.
    Repeat(ReplyKind),
    TooLate,
    Perform,
}

impl Model {
    /// Whether a message leads to a decision about the saga.
    pub(super) fn reaches_engine(&self, message: Message) -> bool {
        !self.is_elsewhere() || !matches!(message, Message::Command(_))
    }

    pub(super) fn performs(&self, state: &State, key: CommandKey) -> bool {
        self.fence_verdict(state, key) == FenceVerdict::Perform
    }

    /// What the fence decides about a command, by the rows of the table in `docs/workers.md`.
    pub(super) fn fence_verdict(&self, state: &State, key: CommandKey) -> FenceVerdict {
        let late = key.by > 0 && key.by <= state.passed;
        if self.home == Home::Inside {
            return match state.asks_for(key) {
                false => FenceVerdict::Ignore,
                true if late && !key.undo => FenceVerdict::TooLate,
                true => FenceVerdict::Perform,
            };
        }
        let worker = &state.workers[usize::from(key.step)];
        match (key.undo, worker.saved) {
            (true, _) if worker.undone > key.visit => FenceVerdict::Ignore,
            (true, _) if worker.undone == key.visit => FenceVerdict::Repeat(ReplyKind::Done),
            (true, _) => FenceVerdict::Perform,
            _ if key.visit <= worker.undone || key.visit < worker.visit => FenceVerdict::Ignore,
            (_, Some(saved)) if worker.visit == key.visit || saved == ReplyKind::Done => {
                FenceVerdict::Repeat(saved)
            }
            _ if late => FenceVerdict::TooLate,
            _ => FenceVerdict::Perform,
        }
    }

    pub(super) fn work(&self, state: &mut State, key: CommandKey, result: WorkResult, fault: Fault) {
        if result == WorkResult::Poisoned {
            let Reply { step, direction, visit, .. } = self.reply(key, ReplyKind::Done);
            let poisoned = Poisoned { step, direction, visit, error: "it cannot be read".to_owned() };
            self.apply_event(state, &Event::Poisoned(poisoned), base(state.passed), fault);
            return;
        }
        let fence_verdict = self.fence_verdict(state, key);
        let reply = match fence_verdict {
            FenceVerdict::Ignore => None,
            FenceVerdict::Repeat(reply) => Some(reply),
            FenceVerdict::TooLate => Some(ReplyKind::TooLate),
            FenceVerdict::Perform => Some(self.perform(state, key, result)),
        };
        match self.home {
            Home::Elsewhere => {
                if let Some(reply) = reply.filter(|_| fault != Fault::CrashBeforePublish) {
                    state.send(Message::Reply(CommandKey { by: 0, ..key }, reply));
                }
            }
            // The bug: the effect is committed without the saga.
            Home::Inside
                if fault == Fault::CrashBeforePublish
                    && self.injected == Some(InjectedBug::WorkerCommitsApart) => {}
            Home::Inside => match reply {
                Some(reply) => {
                    let event = Event::Reply(self.reply(key, reply));
                    self.apply_event(state, &event, base(state.passed), fault);
                }
                None if fault == Fault::CrashBeforePublish => {}
                None => {
                    let again = outstanding(&self.workflow.definition, &state.saga);
                    self.publish(state, again);
                }
            },
        }
    }

    /// Executes the command: the effect and its record in one transaction.
    fn perform(&self, state: &mut State, key: CommandKey, result: WorkResult) -> ReplyKind {
        let reply = match result {
            WorkResult::ReplyKind(reply) => reply,
            WorkResult::UnknownDone | WorkResult::Poisoned => ReplyKind::Unknown,
        };
        match reply {
            ReplyKind::Rejected(code) if !key.undo && code != super::state::OTHER => {
                state.budget.returns -= 1
            }
            ReplyKind::Unknown => state.budget.losses -= 1,
            _ => {}
        }
        if key.undo {
            if reply == ReplyKind::Done {
                self.undo(state, key);
            }
            return reply;
        }
        let (index, visit) = (usize::from(key.step), key.visit);
        if reply == ReplyKind::Done || result == WorkResult::UnknownDone {
            let worker = &state.workers[index];
            let late = worker.undo_done >= visit;
            // A worker that did not know checks before it acts again.
            let twice = worker.effect && !worker.effect_unknown;
            if late {
                state.report(Violation::DoneAfterUndo(key.step));
            } else if twice {
                state.report(Violation::DoneTwice(key.step));
            }
            state.workers[index].effect = true;
        }
        let worker = &mut state.workers[index];
        worker.effect_unknown =
            result == WorkResult::UnknownDone || (worker.effect_unknown && reply == ReplyKind::Unknown);
        if self.is_elsewhere() {
            let forgets = self.injected == Some(InjectedBug::WorkerForgetsOutcomes);
            worker.visit = worker.visit.max(visit);
            worker.saved = Some(reply)
                .filter(|reply| matches!(reply, ReplyKind::Done | ReplyKind::Rejected(_)) && !forgets);
        }
        reply
    }

    fn undo(&self, state: &mut State, key: CommandKey) {
        let worker = &mut state.workers[usize::from(key.step)];
        (worker.effect, worker.effect_unknown) = (false, false);
        worker.undo_done = worker.undo_done.max(key.visit);
        if self.is_elsewhere() {
            worker.saved = None;
            if self.injected != Some(InjectedBug::WorkerForgetsUndos) {
                worker.undone = worker.undone.max(key.visit);
            }
        }
    }

    /// An operator completes the current step, or this member of its group. For an external step the fence is written first. Returns false if the
    /// step has already run.
    pub(super) fn complete_manually(&self, state: &mut State, step: Option<&str>) -> bool {
        let named = step.and_then(|step| self.workflow.definition.index(step));
        let index = named.unwrap_or_else(|| state.step.into());
        if self.workflow.definition.steps[index].command.is_none() || state.saga.status == Status::Waiting {
            return true;
        }
        let visit = state.saga.visit as u8;
        let worker = &mut state.workers[index];
        if self.home == Home::Elsewhere {
            let ran =
                worker.saved == Some(ReplyKind::Done) || (worker.saved.is_some() && visit == worker.visit);
            if visit <= worker.undone || ran || visit < worker.visit {
                return false;
            }
            (worker.visit, worker.saved) = (visit, Some(ReplyKind::Done));
        }
        (worker.effect, worker.effect_unknown) = (true, false);
        true
    }
}
