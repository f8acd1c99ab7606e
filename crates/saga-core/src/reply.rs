//! How a worker's reply changes a saga. The fence decides first whether the reply counts.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::action::Decision;
use super::definition::Definition;
use super::event::{Outcome, Poisoned, Reply};
use super::group::{focused, running_group};
use super::size::too_large;
use super::state::{Direction, Saga, Status, rejection};
use super::transition::TransitionBuilder;

/// The code with which a worker rejects a `do` that arrives after its deadline.
pub const DEADLINE_PASSED: &str = "deadline_passed";

/// Handles a reply to a command that the saga asks for now; a reply to an earlier one is `Stale`.
pub(super) fn apply_reply(
    definition: &Definition,
    saga: &Saga,
    index: usize,
    reply: &Reply,
    now: DateTime<Utc>,
) -> Decision {
    if let Some(why) = wrong_service(definition, reply) {
        return Decision::Illegal(why);
    }
    match check_fence(definition, saga, index, FenceKey::of_reply(reply)) {
        FenceCheck::Current(index) => {
            let Some(saga) = focused(definition, saga, index) else { return Decision::Stale };
            let next = TransitionBuilder::new(definition, &saga, now).with_worker(reply.worker.as_deref());
            replied(next, &saga, index, reply)
        }
        FenceCheck::Stale => Decision::Stale,
        FenceCheck::Illegal(why) => Decision::Illegal(why),
    }
}

/// Handles a command that fails with an error of the program whenever it is tried.
pub(super) fn apply_poisoned(
    definition: &Definition,
    saga: &Saga,
    index: usize,
    poisoned: &Poisoned,
    now: DateTime<Utc>,
) -> Decision {
    let Poisoned { step, direction, error, .. } = poisoned;
    match check_fence(definition, saga, index, FenceKey::of_poisoned(poisoned)) {
        FenceCheck::Current(index) => {
            let Some(saga) = focused(definition, saga, index) else { return Decision::Stale };
            let mut next = TransitionBuilder::new(definition, &saga, now);
            next.become_stuck(&format!("the {direction} of {step} cannot be handled: {error}"));
            next.record(&saga, "poisoned", None).into_decision()
        }
        FenceCheck::Stale => Decision::Stale,
        FenceCheck::Illegal(why) => Decision::Illegal(why),
    }
}

/// The fence of the command that a message is about.
#[derive(Clone, Copy)]
struct FenceKey<'a> {
    step: &'a str,
    direction: Direction,
    visit: i32,
}

impl<'a> FenceKey<'a> {
    fn of_reply(reply: &'a Reply) -> Self {
        Self { step: &reply.step, direction: reply.direction, visit: reply.visit }
    }

    fn of_poisoned(poisoned: &'a Poisoned) -> Self {
        Self { step: &poisoned.step, direction: poisoned.direction, visit: poisoned.visit }
    }
}

enum FenceCheck {
    /// The saga asks for the command of the step at this position.
    Current(usize),
    Stale,
    Illegal(String),
}

/// Compares the fence of a message with the commands that the saga asks for now.
fn check_fence(definition: &Definition, saga: &Saga, here: usize, key: FenceKey<'_>) -> FenceCheck {
    let Some(there) = definition.index(key.step) else {
        return FenceCheck::Illegal(format!("{} has no step {}", saga.workflow, key.step));
    };
    let never_sent = || {
        FenceCheck::Illegal(format!("{} {} of visit {} was never asked", key.direction, key.step, key.visit))
    };
    if key.visit > saga.visit {
        return never_sent();
    }
    if key.visit < saga.visit || saga.status.is_end() {
        return FenceCheck::Stale;
    }
    let last = running_group(definition, saga).map_or(here, |group| group.end - 1);
    match (saga.direction, key.direction) {
        (Direction::Do, Direction::Undo) => never_sent(),
        (Direction::Do, Direction::Do) if there > last => never_sent(),
        (Direction::Undo, Direction::Undo) if there < here => never_sent(),
        (Direction::Undo, Direction::Do) => FenceCheck::Stale,
        _ if matches!(saga.status, Status::Running | Status::Compensating) => {
            let is_open = focused(definition, saga, there).is_some();
            if is_open { FenceCheck::Current(there) } else { FenceCheck::Stale }
        }
        _ => FenceCheck::Stale,
    }
}

/// Why the sender may not give this reply: another service serves the command of the step.
fn wrong_service(definition: &Definition, reply: &Reply) -> Option<String> {
    let by = reply.service.as_deref()?;
    definition.index(&reply.step)?;
    let command = definition.command_of(&reply.step, reply.direction);
    let serving = command.and_then(|command| command.split('.').next()).unwrap_or_default();
    (serving != by).then(|| {
        format!("the service {by} has answered for {}, which the service {serving} serves", reply.step)
    })
}

fn replied(next: TransitionBuilder<'_>, saga: &Saga, index: usize, reply: &Reply) -> Decision {
    // A failure of an earlier send says nothing about the send that is under way.
    let outdated = saga.backing_off || reply.send < saga.send;
    if let Outcome::Done { output } = &reply.outcome
        && let Some(why) = too_large(&saga.context, output)
    {
        let mut next = next;
        next.become_stuck(&format!("the {} of {} is done, but {why}", reply.direction, saga.step));
        return next.record(saga, "output_too_large", None).into_decision();
    }
    match (&reply.outcome, saga.direction) {
        (Outcome::Done { output }, Direction::Do) => done(next, saga, index, output),
        (Outcome::Done { output }, Direction::Undo) => undone(next, saga, index, output),
        (Outcome::Rejected { code, detail }, Direction::Do) => rejected(next, saga, index, code, detail),
        (Outcome::Rejected { code, detail }, Direction::Undo) => {
            let mut next = next;
            next.become_stuck(&format!("the undo of {} was rejected: {code}", saga.step));
            next.record(saga, "undo_rejected", Some(rejection(&saga.step, code, detail))).into_decision()
        }
        (Outcome::Failed { .. } | Outcome::Unknown { .. }, _) if outdated => Decision::Stale,
        (Outcome::Failed { code }, direction) => failed(next, saga, index, direction, code),
        (Outcome::Unknown { reason }, _) => unknown(next, saga, index, reason),
    }
}

fn done(mut next: TransitionBuilder<'_>, saga: &Saga, index: usize, output: &Map<String, Value>) -> Decision {
    next.merge_output(index, output);
    next.saga.rejection = None;
    next.announce(index, Direction::Do, output);
    next.advance(index);
    next.record(saga, "done", Some(Value::Object(output.clone()))).into_decision()
}

fn undone(
    mut next: TransitionBuilder<'_>,
    saga: &Saga,
    index: usize,
    output: &Map<String, Value>,
) -> Decision {
    next.announce(index, Direction::Undo, output);
    next.undo_from(index.checked_sub(1));
    next.record(saga, "undone", Some(Value::Object(output.clone()))).into_decision()
}

fn rejected(
    mut next: TransitionBuilder<'_>,
    saga: &Saga,
    index: usize,
    code: &str,
    detail: &Value,
) -> Decision {
    let step = &next.definition.steps[index];
    let why = rejection(&saga.step, code, detail);
    next.saga.rejection = Some(why.clone());
    let back = step.back_to.get(code).and_then(|wait| next.definition.index(wait));
    match back {
        Some(wait) => next.return_to_wait(wait),
        // Too late is not a business rejection. The step may have run, so it is undone too.
        None if code == DEADLINE_PASSED => next.miss_deadline(index),
        // A rejected step has no effect. The compensation starts with the step before it.
        None => {
            next.reject_member(index);
            next.compensate(code, index.checked_sub(1));
        }
    }
    next.record(saga, "rejected", Some(why)).into_decision()
}

fn failed(
    mut next: TransitionBuilder<'_>,
    saga: &Saga,
    index: usize,
    direction: Direction,
    code: &str,
) -> Decision {
    let step = &next.definition.steps[index];
    let policy = if direction == Direction::Do { &step.retry } else { &step.undo_retry };
    let attempt = saga.attempt + 1;
    let exhausted = policy.exhausted(saga.id, attempt, code, next.now - saga.entered_at);
    let pause = policy.pause(saga.id, attempt);
    next.saga.attempt = attempt;
    match (exhausted, direction) {
        (false, _) => next.back_off(pause),
        // The step may have run nevertheless, so it is undone too.
        (true, Direction::Do) => next.compensate(code, Some(index)),
        (true, Direction::Undo) => {
            next.become_stuck(&format!("the undo of {} failed {attempt} times: {code}", saga.step))
        }
    }
    next.record(saga, "failed", Some(json!({ "code": code, "attempt": attempt }))).into_decision()
}

/// The worker does not know whether the effect exists. The command is sent again soon, which costs no attempt.
fn unknown(mut next: TransitionBuilder<'_>, saga: &Saga, index: usize, reason: &str) -> Decision {
    let pause = next.definition.steps[index].retry.pause(saga.id, saga.send + 1);
    next.back_off(pause);
    next.record(saga, "unknown", Some(json!({ "reason": reason }))).into_decision()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::Map;

    use crate::{Decision, Direction, Event, NewSaga, Outcome, Reply, apply, start};

    #[test]
    fn reply_to_a_command_never_sent_is_illegal() {
        let definition = crate::samples::workflow("booking");
        let (id, now) = (uuid::Uuid::from_u128(7), DateTime::UNIX_EPOCH);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let saga = start(&definition, new, now).saga;
        for (step, direction, visit) in
            [("pay", Direction::Do, 1), ("reserve", Direction::Undo, 1), ("reserve", Direction::Do, 2)]
        {
            let (name, outcome) = (step.to_owned(), Outcome::done());
            let reply = Reply { step: name, direction, visit, send: 0, outcome, worker: None, service: None };
            let decision = apply(&definition, &saga, &Event::Reply(reply), now);
            assert!(matches!(decision, Decision::Illegal(_)), "{step} {direction} {visit}");
        }
    }
}
