//! The function that decides what an event does to a saga. An event that neither changes the saga nor is `Stale` is
//! `Illegal`.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::action::{Action, Decision, Transition};
use super::command::{commands, step_deadline};
use super::definition::{Definition, Step, Work};
use super::event::{Event, Signal};
use super::group::focused;
use super::members::Members;
use super::operator::{OperatorAction, allowed_actions, missing_outputs};
use super::reply::{apply_poisoned, apply_reply};
use super::size::too_large;
use super::state::{Direction, NewSaga, Saga, Status};
use super::transition::{NO_DEADLINE_RECHECK, TransitionBuilder, may_have_run};

/// The event of the first history row.
pub const STARTED: &str = "started";

/// Starts a saga at its first step.
pub fn start(definition: &Definition, new: NewSaga, now: DateTime<Utc>) -> Transition {
    start_in(None, definition, new, now)
}

/// Starts a saga in a flight: the flight's due time covers the saga as long as it runs without a pause.
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
        members: Members::default(),
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
    let mut first = TransitionBuilder::new(definition, &saga, now);
    first.enter(0);
    first.record(&saga, STARTED, None)
}

/// Decides what `event` does to `saga` at the time `now`. The function is pure: it depends on its arguments alone.
pub fn apply(definition: &Definition, saga: &Saga, event: &Event, now: DateTime<Utc>) -> Decision {
    let Some(index) = definition.index(&saga.step) else {
        return Decision::Illegal(format!("{} {} has no step {}", saga.workflow, saga.version, saga.step));
    };
    let next = || TransitionBuilder::new(definition, saga, now);
    match (saga.status, event) {
        (_, Event::Reply(reply)) => apply_reply(definition, saga, index, reply, now),
        (_, Event::Poisoned(poisoned)) => apply_poisoned(definition, saga, index, poisoned, now),
        (Status::Waiting, Event::Signal(signal)) => signalled(next(), saga, index, signal),
        (_, Event::TimerFired) => timer_fired(next(), saga, Some(index)),
        (_, Event::Operator(action)) => operator_acted(definition, saga, index, action, now),
        (_, Event::Signal(_)) => Decision::Stale,
    }
}

/// Decides for a saga whose definition cannot be read at the moment: events of an ended saga are published again, and an operator
/// may abandon the saga. `None`: the event has to wait until the definition can be read.
pub fn apply_undefined(saga: &Saga, event: &Event, now: DateTime<Utc>) -> Option<Decision> {
    let missing = Definition::missing(&saga.workflow, saga.version);
    let next = TransitionBuilder::new(&missing, saga, now);
    match (saga.status, event) {
        (status, Event::TimerFired) if status.is_quiescent() => Some(timer_fired(next, saga, None)),
        (status, Event::Operator(OperatorAction::Abandon)) if !status.is_end() => {
            Some(operator_acted(&missing, saga, 0, &OperatorAction::Abandon, now))
        }
        (status, _) if status.is_end() => Some(Decision::Stale),
        _ => None,
    }
}

/// The actions that the row asks for. A crash between commit and publish may have prevented them.
pub fn outstanding(definition: &Definition, saga: &Saga) -> Vec<Action> {
    let sends = commands(definition, saga).into_iter().map(Action::Send);
    let timer = saga.due_at.filter(|_| saga.status == Status::Waiting).map(Action::SetTimer);
    sends.chain(timer).chain([Action::RepublishEvents, Action::Notify]).collect()
}

fn signalled(mut next: TransitionBuilder<'_>, saga: &Saga, index: usize, given: &Signal) -> Decision {
    let step = &next.definition.steps[index];
    let Work::Wait { signal } = step.work() else {
        return Decision::Stale;
    };
    let name = given.name.as_str();
    let compensation = next.definition.signals.get(name);
    if compensation.is_none() && name != signal {
        return Decision::Stale;
    }
    if let Some(why) = payload_problem(step, saga, &given.payload) {
        return Decision::Illegal(why);
    }
    let overdue = step_deadline(step, saga).is_some_and(|deadline| next.now >= deadline);
    next.merge_output(index, &given.payload);
    match compensation {
        _ if overdue => next.miss_deadline(index),
        Some(reason) => next.compensate(reason, Some(index)),
        None => next.advance(index),
    }
    let payload = (!given.payload.is_empty()).then(|| Value::Object(given.payload.clone()));
    next.record(saga, &format!("signal:{name}"), payload).into_decision()
}

/// Why a wait does not take what a signal brings.
fn payload_problem(step: &Step, saga: &Saga, payload: &Map<String, Value>) -> Option<String> {
    let taken = step.payload.as_ref();
    let strange = taken.and_then(|taken| payload.keys().find(|field| !taken.contains(field)));
    if let Some(field) = strange {
        return Some(format!("step {} takes no field {field} from a signal", step.name));
    }
    too_large(&saga.context, payload)
}

/// Carries out an operator's action. It is `Stale` if the saga's state does not allow it.
fn operator_acted(
    definition: &Definition,
    saga: &Saga,
    index: usize,
    action: &OperatorAction,
    now: DateTime<Utc>,
) -> Decision {
    if !allowed_actions(Some(definition), saga).contains(&action.name()) {
        return Decision::Stale;
    }
    let Some((saga, index)) = step_of_action(definition, saga, index, action) else {
        return Decision::Stale;
    };
    let saga = &*saga;
    let mut next = TransitionBuilder::new(definition, saga, now);
    let mut detail = None;
    match action {
        OperatorAction::Retry if saga.status == Status::Stuck => next.start_new_visit(),
        OperatorAction::Retry => next.resend_all(),
        OperatorAction::Complete { output, .. }
            if !missing_outputs(next.definition, saga, output).is_empty() =>
        {
            return Decision::Stale;
        }
        OperatorAction::Complete { output, .. } => {
            detail = Some(Value::Object(output.clone()));
            complete(&mut next, index, output);
        }
        OperatorAction::SkipUndo => {
            detail = Some(json!({ "left": [saga.step] }));
            next.resume_compensation();
            next.undo_from(index.checked_sub(1));
        }
        OperatorAction::Cancel => next.compensate("cancelled", Some(index)),
        OperatorAction::Abandon => {
            detail = Some(json!({ "left": may_have_run(next.definition, saga) }));
            next.abandon("abandoned");
        }
        OperatorAction::Pause => next.pause(),
        OperatorAction::Resume => next.resume(),
    }
    next.record(saga, &format!("operator:{}", action.name()), detail).into_decision()
}

/// The step that an action is about, and the saga with that step in its row. A member of a group can be completed by its name; if the
/// saga is stuck, only the member that it is stuck at.
fn step_of_action<'a>(
    definition: &Definition,
    saga: &'a Saga,
    index: usize,
    action: &OperatorAction,
) -> Option<(Cow<'a, Saga>, usize)> {
    match action {
        OperatorAction::Complete { step: Some(step), .. } if *step != saga.step => {
            let index = definition.index(step).filter(|_| saga.status != Status::Stuck)?;
            Some((focused(definition, saga, index)?, index))
        }
        _ => Some((Cow::Borrowed(saga), index)),
    }
}

fn complete(next: &mut TransitionBuilder<'_>, index: usize, output: &Map<String, Value>) {
    next.merge_output(index, output);
    next.saga.rejection = None;
    next.saga.reason = None;
    next.announce(index, Direction::Do, output);
    next.advance(index);
    if next.saga.status == Status::Stuck {
        next.resume_group();
    }
}

/// Handles a due time. If the saga is due too early, its due time is corrected. `index` is `None` if the definition
/// no longer exists: then only the events can be published again.
fn timer_fired(mut next: TransitionBuilder<'_>, saga: &Saga, index: Option<usize>) -> Decision {
    let now = next.now;
    if saga.due_at.is_none_or(|due| due > now) {
        return Decision::Stale;
    }
    let Some(index) = index.filter(|_| !saga.status.is_quiescent()) else {
        next.republish_events();
        return next.without_record().into_decision();
    };
    for index in next.due_steps(index) {
        next.focus(index);
        let deadline = step_deadline(&next.definition.steps[index], &next.saga);
        let overdue = deadline.is_some_and(|deadline| now >= deadline);
        match saga.status {
            Status::Running | Status::Waiting if overdue && next.definition.can_compensate(index) => {
                let before = next.saga.clone();
                next.miss_deadline(index);
                return next.record(&before, "deadline", None).into_decision();
            }
            Status::Running if saga.paused => next.suspend(),
            Status::Waiting => next.set_due(deadline.unwrap_or(now + NO_DEADLINE_RECHECK)),
            _ => {
                let resend_at = next.resend_at();
                if next.saga.backing_off || now >= resend_at {
                    next.resend();
                } else {
                    next.set_due(resend_at);
                }
            }
        }
    }
    next.without_record().into_decision()
}
