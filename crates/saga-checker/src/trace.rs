//! Describes a path through the model, one line for each action.

use std::collections::BTreeSet;

use super::actions::{Fault, Model, ModelAction, WorkResult};
use super::state::{CommandKey, Message, OTHER, ReplyKind, State};
use super::workers::FenceVerdict;
use saga_core::Status;

impl Model {
    pub(super) fn describe(&self, before: &State, step: &ModelAction, after: &State) -> String {
        match step {
            ModelAction::Deliver { message: Message::Command(key), result, fault } => {
                self.describe_work(before, *key, *result, *fault, after)
            }
            ModelAction::Deliver { message, fault, .. } => {
                let end = self.outcome(before, after);
                format!("engine: {} -> {end}{}", self.message(*message), after_commit(*fault))
            }
            ModelAction::Lose(message) => format!("bus: {} is lost", self.message(*message)),
            ModelAction::FireTimer { fault, .. } => {
                format!("engine: the alarm rings -> {}{}", self.outcome(before, after), after_commit(*fault))
            }
            ModelAction::PassDeadline(passed) => format!("time: {}", self.deadline(before, *passed)),
            ModelAction::Signal { signal, fault } => {
                let (name, end) = (&self.workflow.signals[usize::from(*signal)], self.outcome(before, after));
                format!("outside: signal {name} -> {end}{}", after_commit(*fault))
            }
            ModelAction::OperatorAction { act, fault } => {
                let end = self.outcome(before, after);
                format!("operator: {} -> {end}{}", act.name(), after_commit(*fault))
            }
        }
    }

    fn describe_work(
        &self,
        before: &State,
        key: CommandKey,
        result: WorkResult,
        fault: Fault,
        after: &State,
    ) -> String {
        let step = self.command_name(key);
        let said = match (self.fence_verdict(before, key), result) {
            (FenceVerdict::Ignore, _) => "not asked for any more, nothing done".to_owned(),
            (FenceVerdict::Repeat(reply), _) => {
                format!("{} again, nothing done", self.reply_text(key, reply))
            }
            (FenceVerdict::TooLate, _) => "refused, its deadline has passed".to_owned(),
            (FenceVerdict::Perform, WorkResult::ReplyKind(reply)) => self.reply_text(key, reply),
            (FenceVerdict::Perform, WorkResult::Poisoned) => "cannot be handled, parked".to_owned(),
            (FenceVerdict::Perform, WorkResult::UnknownDone) => "unknown, though it took effect".to_owned(),
        };
        let moved =
            if self.is_elsewhere() { String::new() } else { format!(", {}", self.outcome(before, after)) };
        let crash = match fault {
            Fault::CrashBeforePublish if self.is_elsewhere() => "; crash after the commit, before the reply",
            other => after_commit(other),
        };
        format!("worker: {step} -> {said}{moved}{crash}")
    }

    fn message(&self, message: Message) -> String {
        match message {
            Message::Command(key) => format!("the command {}", self.command_name(key)),
            Message::Reply(key, reply) => {
                format!("{} to {}", self.reply_text(key, reply), self.command_name(key))
            }
            Message::Signal(signal) => format!("signal {}", self.workflow.signals[usize::from(signal)]),
            Message::Echo => "a late answer to what is past".to_owned(),
        }
    }

    fn command_name(&self, key: CommandKey) -> String {
        let direction = if key.undo { "undo" } else { "do" };
        format!("{direction} {} (visit {})", self.step_name(key.step), key.visit)
    }

    fn reply_text(&self, key: CommandKey, reply: ReplyKind) -> String {
        match reply {
            ReplyKind::Done => "done".to_owned(),
            ReplyKind::Rejected(OTHER) => "rejected".to_owned(),
            ReplyKind::Rejected(code) => {
                let step = &self.workflow.definition.steps[usize::from(key.step)];
                let code = step.back_to.keys().nth(code.into());
                format!("rejected, {}", code.map_or("", String::as_str))
            }
            ReplyKind::TooLate => "rejected, deadline_passed".to_owned(),
            ReplyKind::Failed => "failed".to_owned(),
            ReplyKind::Unknown => "unknown".to_owned(),
        }
    }

    fn outcome(&self, before: &State, after: &State) -> String {
        let saga = &after.saga;
        let place = match saga.status {
            Status::Completed | Status::Compensated | Status::Abandoned => saga.status.to_string(),
            Status::Stuck => {
                format!("stuck at {}: {}", saga.step, saga.reason.as_deref().unwrap_or("no reason"))
            }
            Status::Running if saga.backing_off && after.open.count_ones() == 1 => {
                format!("pauses before {}", saga.step)
            }
            Status::Compensating if saga.backing_off => format!("pauses before undo {}", saga.step),
            Status::Running => format!("asks for {}", self.open_names(after)),
            Status::Compensating => format!("asks for undo {}", saga.step),
            Status::Waiting => format!("waits at {}", saga.step),
        };
        let same = (before.saga.status, before.open, before.saga.direction)
            == (saga.status, after.open, saga.direction);
        if same && before.saga.backing_off == saga.backing_off { format!("still {place}") } else { place }
    }

    /// The steps that the saga asks for. A member of a group that pauses before its next attempt is one of them.
    fn open_names(&self, state: &State) -> String {
        state.open_steps().map(|step| self.step_name(step)).collect::<Vec<_>>().join(" and ")
    }

    fn deadline(&self, before: &State, passed: u8) -> String {
        let in_flight = before.bus.iter().filter_map(|message| match message {
            Message::Command(key) if key.by == passed => Some(key.step),
            _ => None,
        });
        let own = self.own_deadlines(before).filter(|(_, at)| *at == passed).map(|(step, _)| step);
        let steps: BTreeSet<u8> = own.chain(in_flight).collect();
        let names: Vec<&str> = steps.into_iter().map(|step| self.step_name(step)).collect();
        format!("the deadline of {} passes", names.join(" and "))
    }
}

fn after_commit(fault: Fault) -> &'static str {
    match fault {
        Fault::None => "",
        Fault::CrashBeforePublish => "; crash after the commit, before anything is published",
        Fault::Redelivery => "; the message comes again (sent twice, or a crash before the acknowledgement)",
    }
}
