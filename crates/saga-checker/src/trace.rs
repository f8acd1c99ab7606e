//! A way through the model in words: one line for each thing that happened.

use std::collections::BTreeSet;

use super::setting::{Mishap, Model, Move, Say};
use super::state::{Answer, Asked, Message, OTHER, State};
use super::workers::Ruling;
use saga_core::Status;

impl Model {
    /// What happened between two states.
    pub(super) fn describe(&self, before: &State, step: &Move, after: &State) -> String {
        match step {
            Move::Deliver { message: Message::Command(asked), say, mishap } => {
                self.describe_work(before, *asked, *say, *mishap, after)
            }
            Move::Deliver { message, mishap, .. } => {
                let end = self.outcome(before, after);
                format!("engine: {} -> {end}{}", self.message(*message), after_commit(*mishap))
            }
            Move::Lose(message) => format!("bus: {} is lost", self.message(*message)),
            Move::Ring { mishap } => {
                format!("engine: the alarm rings -> {}{}", self.outcome(before, after), after_commit(*mishap))
            }
            Move::Pass(passed) => format!("time: {}", self.deadline(before, *passed)),
            Move::Signal { signal, mishap } => {
                let (name, end) = (&self.workflow.signals[usize::from(*signal)], self.outcome(before, after));
                format!("outside: signal {name} -> {end}{}", after_commit(*mishap))
            }
            Move::Act { act, mishap } => {
                let end = self.outcome(before, after);
                format!("operator: {} -> {end}{}", act.name(), after_commit(*mishap))
            }
        }
    }

    fn describe_work(&self, before: &State, asked: Asked, say: Say, mishap: Mishap, after: &State) -> String {
        let step = self.asked_name(asked);
        let said = match (self.ruling(before, asked), say) {
            _ if mishap == Mishap::NoDefinition => "nothing done".to_owned(),
            (Ruling::Ignore, _) => "not asked for any more, nothing done".to_owned(),
            (Ruling::Repeat(answer), _) => format!("{} again, nothing done", self.answer(asked, answer)),
            (Ruling::TooLate, _) => "refused, its deadline has passed".to_owned(),
            (Ruling::Perform, Say::Answer(answer)) => self.answer(asked, answer),
            (Ruling::Perform, Say::Poisoned) => "cannot be handled, parked".to_owned(),
            (Ruling::Perform, Say::UnknownDone) => "unknown, though it took effect".to_owned(),
        };
        let moved =
            if self.is_elsewhere() { String::new() } else { format!(", {}", self.outcome(before, after)) };
        let crash = match mishap {
            Mishap::Unpublished if self.is_elsewhere() => "; crash after the commit, before the reply",
            other => after_commit(other),
        };
        format!("worker: {step} -> {said}{moved}{crash}")
    }

    fn message(&self, message: Message) -> String {
        match message {
            Message::Command(asked) => format!("the command {}", self.asked_name(asked)),
            Message::Reply(asked, answer) => {
                format!("{} to {}", self.answer(asked, answer), self.asked_name(asked))
            }
            Message::Signal(signal) => format!("signal {}", self.workflow.signals[usize::from(signal)]),
            Message::Echo => "a late answer to what is past".to_owned(),
        }
    }

    fn asked_name(&self, asked: Asked) -> String {
        let direction = if asked.undo { "undo" } else { "do" };
        format!("{direction} {} (visit {})", self.step_name(asked.step), asked.visit)
    }

    fn answer(&self, asked: Asked, answer: Answer) -> String {
        match answer {
            Answer::Done => "done".to_owned(),
            Answer::Rejected(OTHER) => "rejected".to_owned(),
            Answer::Rejected(code) => {
                let step = &self.workflow.definition.steps[usize::from(asked.step)];
                let code = step.back_to.keys().nth(code.into());
                format!("rejected, {}", code.map_or("", String::as_str))
            }
            Answer::TooLate => "rejected, deadline_passed".to_owned(),
            Answer::Failed => "failed".to_owned(),
            Answer::Unknown => "unknown".to_owned(),
        }
    }

    /// Where the saga stands after a move.
    fn outcome(&self, before: &State, after: &State) -> String {
        let saga = &after.saga;
        let place = match saga.status {
            Status::Completed | Status::Compensated | Status::Abandoned => saga.status.to_string(),
            Status::Stuck => {
                format!("stuck at {}: {}", saga.step, saga.reason.as_deref().unwrap_or("no reason"))
            }
            Status::Running if saga.backing_off => format!("pauses before {}", saga.step),
            Status::Compensating if saga.backing_off => format!("pauses before undo {}", saga.step),
            Status::Running => format!("asks for {}", saga.step),
            Status::Compensating => format!("asks for undo {}", saga.step),
            Status::Waiting => format!("waits at {}", saga.step),
        };
        let same = (before.saga.status, before.step, before.saga.direction)
            == (saga.status, after.step, saga.direction);
        if same && before.saga.backing_off == saga.backing_off { format!("still {place}") } else { place }
    }

    fn deadline(&self, before: &State, passed: u8) -> String {
        let flying = before.bus.iter().filter_map(|message| match message {
            Message::Command(asked) if asked.by == passed => Some(asked.step),
            _ => None,
        });
        let own = self.own_deadline(before).filter(|at| *at == passed).map(|_| before.step);
        let steps: BTreeSet<u8> = own.into_iter().chain(flying).collect();
        let names: Vec<&str> = steps.into_iter().map(|step| self.step_name(step)).collect();
        format!("the deadline of {} passes", names.join(" and "))
    }
}

fn after_commit(mishap: Mishap) -> &'static str {
    match mishap {
        Mishap::None => "",
        Mishap::Unpublished => "; crash after the commit, before anything is published",
        Mishap::NoDefinition => "; this instance does not have the definition",
        Mishap::Kept => "; the message comes again (sent twice, or a crash before the acknowledgement)",
    }
}
