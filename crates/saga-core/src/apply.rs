//! The one function that decides. Whatever is not a move and not `Stale` is `Illegal`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::action::{Action, Decision, Transition};
use super::acts::acted;
use super::definition::{Definition, Work};
use super::event::{Act, Event, Outcome, Poisoned, Reply};
use super::moves::{Move, NO_DEADLINE, command, moved, rejection, step_deadline};
use super::size::too_large;
use super::state::{Direction, NewSaga, Saga, Status};

/// The first entry of a saga's history.
pub const STARTED: &str = "started";
/// What a worker says to a `do` that reaches it after its deadline.
pub const DEADLINE_PASSED: &str = "deadline_passed";

/// The first transition of a saga: into its first step.
pub fn start(definition: &Definition, new: NewSaga, now: DateTime<Utc>) -> Transition {
    start_in(None, definition, new, now)
}

/// Starts a saga that is looked after by this batch as long as it runs without a pause.
pub fn start_in(
    flight: Option<i64>,
    definition: &Definition,
    new: NewSaga,
    now: DateTime<Utc>,
) -> Transition {
    let input = Arc::new(Value::Object(new.input));
    let saga = Saga {
        id: new.id,
        workflow: definition.name.clone(),
        version: definition.version,
        subject_id: new.subject_id,
        status: Status::Running,
        paused: false,
        step: definition.steps[0].name.clone(),
        direction: Direction::Do,
        visit: 1,
        attempt: 0,
        send: 0,
        entered_at: now,
        since: now,
        backing_off: false,
        due_at: None,
        flight,
        reason: None,
        rejection: None,
        context: Arc::clone(&input),
        input,
        seq: new.seq,
        stuck_since: None,
        trace: new.trace,
        created_at: now,
        updated_at: now,
        finished_at: None,
    };
    let mut first = Move::of(definition, &saga, now);
    first.enter(0);
    first.record(&saga, STARTED, None)
}

/// What happens to `saga` by `event` at `now`: pure, total, and the same for everybody who asks.
pub fn apply(definition: &Definition, saga: &Saga, event: &Event, now: DateTime<Utc>) -> Decision {
    let Some(index) = definition.index(&saga.step) else {
        return Decision::Illegal(format!("{} {} has no step {}", saga.workflow, saga.version, saga.step));
    };
    let next = Move::of(definition, saga, now);
    match (saga.status, event) {
        (_, Event::Reply(reply)) if let Some(why) = foreign(definition, reply) => Decision::Illegal(why),
        (_, Event::Reply(reply)) => match fence(definition, saga, index, Asked::by(reply)) {
            Fence::Current => answered(next.said_by(reply.worker.as_deref()), saga, index, reply),
            Fence::Past => Decision::Stale,
            Fence::Impossible(why) => Decision::Illegal(why),
        },
        (_, Event::Poisoned(poisoned)) => match fence(definition, saga, index, Asked::with(poisoned)) {
            Fence::Current => cannot_be_handled(next, saga, poisoned),
            Fence::Past => Decision::Stale,
            Fence::Impossible(why) => Decision::Illegal(why),
        },
        (Status::Waiting, Event::Signal(name)) => signalled(next, saga, index, name),
        (_, Event::Alarm) => rung(next, saga, Some(index)),
        (_, Event::Operator(act)) => acted(next, saga, index, act),
        (_, Event::Signal(_)) => Decision::Stale,
    }
}

/// A saga whose definition is gone cannot go on by itself: whatever happens, it is stuck, until an operator gives it
/// up or the definition is there again.
pub fn lost_definition(saga: &Saga, event: &Event, now: DateTime<Utc>) -> Decision {
    let missing = Definition::missing(&saga.workflow, saga.version);
    let mut next = Move::of(&missing, saga, now);
    match (saga.status, event) {
        (status, Event::Alarm) if status.rests() => return rung(next, saga, None),
        (status, Event::Operator(Act::Abandon)) if !status.is_end() => {
            return acted(next, saga, 0, &Act::Abandon);
        }
        (status, _) if status.rests() => return Decision::Stale,
        _ => {}
    }
    next.get_stuck(&format!("there is no definition of {} version {}", saga.workflow, saga.version));
    moved(next.record(saga, "definition_missing", None))
}

/// What the row asks for: what a crash between commit and publish may have left undone.
pub fn outstanding(definition: &Definition, saga: &Saga) -> Vec<Action> {
    let sent = command(definition, saga).filter(|_| !saga.backing_off).map(Action::Send);
    let armed = saga.due_at.filter(|_| saga.status == Status::Waiting).map(Action::Arm);
    sent.into_iter().chain(armed).chain([Action::Recall, Action::Notify]).collect()
}

/// What a message is about: the fence of the command that it answers.
#[derive(Clone, Copy)]
struct Asked<'a> {
    step: &'a str,
    direction: Direction,
    visit: i32,
}

impl<'a> Asked<'a> {
    fn by(reply: &'a Reply) -> Self {
        Self { step: &reply.step, direction: reply.direction, visit: reply.visit }
    }

    fn with(poisoned: &'a Poisoned) -> Self {
        Self { step: &poisoned.step, direction: poisoned.direction, visit: poisoned.visit }
    }
}

enum Fence {
    Current,
    Past,
    Impossible(String),
}

/// Where an answer stands: on what is asked now, on the past, or on what was never asked.
fn fence(definition: &Definition, saga: &Saga, here: usize, asked: Asked<'_>) -> Fence {
    let Some(there) = definition.index(asked.step) else {
        return Fence::Impossible(format!("{} has no step {}", saga.workflow, asked.step));
    };
    let never_asked = || {
        Fence::Impossible(format!(
            "{} {} of visit {} was never asked",
            asked.direction, asked.step, asked.visit
        ))
    };
    if asked.visit > saga.visit {
        return never_asked();
    }
    if asked.visit < saga.visit || saga.status.is_end() {
        return Fence::Past;
    }
    match (saga.direction, asked.direction) {
        (Direction::Do, Direction::Undo) => never_asked(),
        (Direction::Do, Direction::Do) if there > here => never_asked(),
        (Direction::Undo, Direction::Undo) if there < here => never_asked(),
        (Direction::Undo, Direction::Do) => Fence::Past,
        _ if there == here && matches!(saga.status, Status::Running | Status::Compensating) => Fence::Current,
        _ => Fence::Past,
    }
}

/// Why a reply is not its sender's to give: another service serves the command of that step.
fn foreign(definition: &Definition, reply: &Reply) -> Option<String> {
    let by = reply.service.as_deref()?;
    definition.index(&reply.step)?;
    let command = definition.command_of(&reply.step, reply.direction);
    let serving = command.and_then(|command| command.split('.').next()).unwrap_or_default();
    (serving != by).then(|| {
        format!("the service {by} has answered for {}, which the service {serving} serves", reply.step)
    })
}

fn answered(next: Move<'_>, saga: &Saga, index: usize, reply: &Reply) -> Decision {
    // A second "no" to an earlier send says nothing about the one that is out.
    let outdated = saga.backing_off || reply.send < saga.send;
    if let Outcome::Done { output } = &reply.outcome
        && let Some(why) = too_large(&saga.context, output)
    {
        let mut next = next;
        next.get_stuck(&format!("the {} of {} is done, but {why}", reply.direction, saga.step));
        return moved(next.record(saga, "output_too_large", None));
    }
    match (&reply.outcome, saga.direction) {
        (Outcome::Done { output }, Direction::Do) => done(next, saga, index, output),
        (Outcome::Done { output }, Direction::Undo) => undone(next, saga, index, output),
        (Outcome::Rejected { code, detail }, Direction::Do) => rejected(next, saga, index, code, detail),
        (Outcome::Rejected { code, detail }, Direction::Undo) => {
            let mut next = next;
            next.get_stuck(&format!("the undo of {} was rejected: {code}", saga.step));
            moved(next.record(saga, "undo_rejected", Some(rejection(&saga.step, code, detail))))
        }
        (Outcome::Failed { .. } | Outcome::Unknown { .. }, _) if outdated => Decision::Stale,
        (Outcome::Failed { code }, direction) => failed(next, saga, index, direction, code),
        (Outcome::Unknown { reason }, _) => unknown(next, saga, index, reason),
    }
}

fn done(mut next: Move<'_>, saga: &Saga, index: usize, output: &Map<String, Value>) -> Decision {
    next.learn(index, output);
    next.saga.rejection = None;
    next.announce(index, Direction::Do, output);
    next.go_on(index);
    moved(next.record(saga, "done", Some(Value::Object(output.clone()))))
}

fn undone(mut next: Move<'_>, saga: &Saga, index: usize, output: &Map<String, Value>) -> Decision {
    next.announce(index, Direction::Undo, output);
    next.undo_from(index.checked_sub(1));
    moved(next.record(saga, "undone", Some(Value::Object(output.clone()))))
}

fn rejected(mut next: Move<'_>, saga: &Saga, index: usize, code: &str, detail: &Value) -> Decision {
    let step = &next.definition.steps[index];
    let why = rejection(&saga.step, code, detail);
    next.saga.rejection = Some(why.clone());
    let back = step.back_to.get(code).and_then(|wait| next.definition.index(wait));
    match back {
        Some(wait) => next.go_back_to_wait(wait),
        // Too late is no business no: the step is undone like one that was never heard of again.
        None if code == DEADLINE_PASSED => next.miss_deadline(index),
        // What was rejected did not happen: the undoing begins with the step before.
        None => next.turn_back(code, index.checked_sub(1)),
    }
    moved(next.record(saga, "rejected", Some(why)))
}

fn failed(mut next: Move<'_>, saga: &Saga, index: usize, direction: Direction, code: &str) -> Decision {
    let step = &next.definition.steps[index];
    let policy = if direction == Direction::Do { &step.retry } else { &step.undo_retry };
    let attempt = saga.attempt + 1;
    let exhausted = policy.exhausted(saga.id, attempt, code, next.now - saga.entered_at);
    let pause = policy.pause(saga.id, attempt);
    next.saga.attempt = attempt;
    match (exhausted, direction) {
        (false, _) => next.back_off(pause),
        // It may have run all the same: the step itself is undone too.
        (true, Direction::Do) => next.turn_back(code, Some(index)),
        (true, Direction::Undo) => {
            next.get_stuck(&format!("the undo of {} failed {attempt} times: {code}", saga.step))
        }
    }
    moved(next.record(saga, "failed", Some(json!({ "code": code, "attempt": attempt }))))
}

/// The command fails whenever it is tried, and would for ever: an operator must look.
fn cannot_be_handled(mut next: Move<'_>, saga: &Saga, poisoned: &Poisoned) -> Decision {
    let Poisoned { step, direction, error, .. } = poisoned;
    next.get_stuck(&format!("the {direction} of {step} cannot be handled: {error}"));
    moved(next.record(saga, "poisoned", None))
}

/// The worker cannot know: it is asked again soon, and that costs no attempt.
fn unknown(mut next: Move<'_>, saga: &Saga, index: usize, reason: &str) -> Decision {
    let pause = next.definition.steps[index].retry.pause(saga.id, saga.send + 1);
    next.back_off(pause);
    moved(next.record(saga, "unknown", Some(json!({ "reason": reason }))))
}

fn signalled(mut next: Move<'_>, saga: &Saga, index: usize, name: &str) -> Decision {
    let step = &next.definition.steps[index];
    let Work::Wait { signal } = step.work() else {
        return Decision::Stale;
    };
    let turns_back = next.definition.signals.get(name);
    if turns_back.is_none() && name != signal {
        return Decision::Stale;
    }
    let overdue = step_deadline(step, saga).is_some_and(|deadline| next.now >= deadline);
    match turns_back {
        _ if overdue => next.miss_deadline(index),
        Some(reason) => next.turn_back(reason, Some(index)),
        None => next.go_on(index),
    }
    moved(next.record(saga, &format!("signal:{name}"), None))
}

/// Time has passed. An alarm that rings early is moved to where it belongs; one that is not due does nothing.
/// Without a step, where the definition is gone, only events can be asked for again.
fn rung(mut next: Move<'_>, saga: &Saga, index: Option<usize>) -> Decision {
    let now = next.now;
    if saga.due_at.is_none_or(|due| due > now) {
        return Decision::Stale;
    }
    let Some(index) = index.filter(|_| !saga.status.rests()) else {
        next.recall();
        return moved(next.unrecorded());
    };
    let deadline = step_deadline(&next.definition.steps[index], saga);
    let overdue = deadline.is_some_and(|deadline| now >= deadline);
    match saga.status {
        Status::Running | Status::Waiting if overdue && next.definition.can_turn_back(index) => {
            next.miss_deadline(index);
            return moved(next.record(saga, "deadline", None));
        }
        Status::Running if saga.paused => next.hold_back(),
        Status::Waiting => next.rest_until(deadline.unwrap_or(now + NO_DEADLINE)),
        _ => {
            let answer_by = next.answer_by();
            if saga.backing_off || now >= answer_by {
                next.send_again();
            } else {
                next.rest_until(answer_by);
            }
        }
    }
    moved(next.unrecorded())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_what_was_never_asked_is_illegal() {
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
