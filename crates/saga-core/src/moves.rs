//! The moves of a saga: enter a step, turn back, undo on, back off, end. [`super::apply()`] chooses among them.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::action::{Action, Command, Decision, Entry, Transition};
use super::definition::{Definition, Step, Work};
use super::delay::silence;
use super::state::{Direction, Saga, Status};

/// A wait without a deadline is looked at once a day: no saga sleeps without an alarm.
pub(super) const NO_DEADLINE: TimeDelta = TimeDelta::days(1);
/// How long the last events of an ended saga may stay unacknowledged before they are published again.
pub(super) const LAST_EVENTS: TimeDelta = TimeDelta::seconds(3);
/// Pauses longer than this are alarms of the broker as well; shorter ones are the sweeper's alone.
const LONG_PAUSE: TimeDelta = TimeDelta::seconds(10);

/// A saga on its way from one state to the next.
pub(super) struct Move<'a> {
    pub(super) definition: &'a Definition,
    pub(super) saga: Saga,
    pub(super) now: DateTime<Utc>,
    worker: Option<String>,
    pub(super) actions: Vec<Action>,
    pub(super) emits: Vec<String>,
}

/// Ends an event that moved the saga.
pub(super) fn moved(transition: Transition) -> Decision {
    Decision::Transition(Box::new(transition))
}

/// The steps whose effects may be there, oldest first: what is left behind when the saga is given up as it is.
pub fn may_have_run(definition: &Definition, saga: &Saga) -> Vec<String> {
    let here = definition.index(&saga.step).map_or(0, |index| index + 1);
    let undone = |step: &&Step| saga.direction == Direction::Do || step.undo.is_some();
    let steps = definition.steps[..here].iter().filter(|step| step.command.is_some()).filter(undone);
    steps.map(|step| step.name.clone()).collect()
}

/// Whether the saga does not stop at this wait when it first comes to it.
fn passes_over(step: &Step, saga: &Saga) -> bool {
    let field = step.skip_if.as_ref().and_then(|field| saga.context.get(field));
    field.and_then(Value::as_bool).unwrap_or(false)
}

/// What of a step's output later commands carry: all but what is an event of its own.
pub fn kept(step: &Step, output: &Map<String, Value>) -> impl Iterator<Item = (String, Value)> {
    let kept = output.iter().filter(|(field, _)| !step.announces.contains_key(*field));
    kept.map(|(field, value)| (field.clone(), value.clone()))
}

/// The deadline of a step that the saga is at, or is about to enter.
pub(super) fn deadline(step: &Step, saga: &Saga, entered: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let deadline = step.deadline.as_ref()?;
    match (&deadline.at, deadline.seconds) {
        (Some(field), _) => saga.time(field),
        (None, seconds) => seconds.map(|seconds| entered + TimeDelta::seconds(seconds.into())),
    }
}

/// The command that the row asks for, if one is out.
pub fn command(definition: &Definition, saga: &Saga) -> Option<Command> {
    if !matches!(saga.status, Status::Running | Status::Compensating) {
        return None;
    }
    let step = &definition.steps[definition.index(&saga.step)?];
    let Work::Command { command, undo } = step.work() else {
        return None;
    };
    let (subject, deadline) = match saga.direction {
        Direction::Do => (command, step_deadline(step, saga)),
        Direction::Undo => (undo?, None),
    };
    Some(Command {
        saga_id: saga.id,
        workflow: saga.workflow.clone(),
        subject: subject.to_owned(),
        step: saga.step.clone(),
        direction: saga.direction,
        visit: saga.visit,
        send: saga.send,
        deadline,
        reason: saga.reason.clone(),
        context: saga.context.clone(),
        trace: saga.trace.unwrap_or(saga.id),
    })
}

/// The deadline of the step the saga is at; a relative one counts from entering it.
pub(super) fn step_deadline(step: &Step, saga: &Saga) -> Option<DateTime<Utc>> {
    deadline(step, saga, saga.entered_at)
}

impl<'a> Move<'a> {
    pub(super) fn of(definition: &'a Definition, saga: &Saga, now: DateTime<Utc>) -> Self {
        let mut saga = saga.clone();
        saga.updated_at = now;
        // Its batch has let go of it.
        if saga.status.rests() {
            saga.flight = None;
        }
        Self { definition, saga, now, worker: None, actions: Vec::new(), emits: Vec::new() }
    }

    /// Notes who brought the answer.
    pub(super) fn said_by(mut self, worker: Option<&str>) -> Self {
        self.worker = worker.map(str::to_owned);
        self
    }

    /// Ends the move with a history row about what happened to `was`.
    pub(super) fn record(mut self, was: &Saga, event: &str, mut detail: Option<Value>) -> Transition {
        self.saga.seq += 1;
        if self.saga.status == Status::Stuck {
            detail = Some(self.explain(detail));
        }
        let entry = Entry {
            event: event.to_owned(),
            step: was.step.clone(),
            direction: was.direction,
            visit: was.visit,
            attempt: was.attempt,
            detail,
            worker: self.worker,
            emits: self.emits,
        };
        Transition { saga: self.saga, entry: Some(entry), actions: self.actions }
    }

    /// Ends a move that changed no more than pacing.
    pub(super) fn unrecorded(self) -> Transition {
        Transition { saga: self.saga, entry: None, actions: self.actions }
    }

    /// Announces what a finished step has to tell: its events, and the parts of its output that are events.
    pub(super) fn announce(&mut self, index: usize, direction: Direction, output: &Map<String, Value>) {
        let step = &self.definition.steps[index];
        let parts = match direction {
            Direction::Do => {
                self.emits.extend(step.emits.iter().cloned());
                &step.announces
            }
            Direction::Undo => &step.undo_announces,
        };
        let present =
            parts.iter().filter(|(field, _)| output.get(*field).is_some_and(|part| !part.is_null()));
        self.emits.extend(present.map(|(_, event)| event.clone()));
    }

    /// Adds a step's output to what later commands carry.
    pub(super) fn learn(&mut self, index: usize, output: &Map<String, Value>) {
        if let Value::Object(context) = Arc::make_mut(&mut self.saga.context) {
            context.extend(kept(&self.definition.steps[index], output));
        }
    }

    /// Goes to the step after this one, or completes.
    pub(super) fn go_on(&mut self, index: usize) {
        if index + 1 < self.definition.steps.len() {
            self.enter(index + 1);
        } else {
            self.end(Status::Completed, self.definition.announces_anything());
        }
    }

    /// Enters a step for the first time.
    pub(super) fn enter(&mut self, index: usize) {
        let step = &self.definition.steps[index];
        self.stand_at(&step.name, Direction::Do);
        match step.work() {
            Work::Command { .. } => {
                self.saga.status = Status::Running;
                self.send();
            }
            Work::Wait { .. } if passes_over(step, &self.saga) => self.go_on(index),
            Work::Wait { .. } => self.wait(index, true),
        }
    }

    /// Goes back to a wait that a rejection leads to. Its alarm is armed already, unless it was passed over; a deadline
    /// in seconds begins anew with the visit.
    pub(super) fn go_back_to_wait(&mut self, index: usize) {
        let step = &self.definition.steps[index];
        self.stand_at(&step.name, Direction::Do);
        self.saga.visit += 1;
        let anew = step.deadline.as_ref().is_some_and(|deadline| deadline.at.is_none());
        self.wait(index, anew || passes_over(step, &self.saga));
    }

    fn wait(&mut self, index: usize, arm: bool) {
        self.saga.status = Status::Waiting;
        let step = &self.definition.steps[index];
        let Some(until) = deadline(step, &self.saga, self.now) else {
            self.rest_until(self.now + NO_DEADLINE);
            return self.actions.push(Action::Notify);
        };
        if self.now >= until {
            return self.miss_deadline(index);
        }
        self.rest_until(until);
        if arm {
            self.actions.push(Action::Arm(until));
        }
        self.actions.push(Action::Notify);
    }

    /// The time for this step has run out: whatever may have run, this step included, is undone.
    pub(super) fn miss_deadline(&mut self, index: usize) {
        let deadline = self.definition.steps[index].deadline.as_ref();
        let reason = deadline.map_or("deadline", |deadline| deadline.reason.as_str());
        self.turn_back(reason, Some(index));
    }

    /// Begins the undoing, from the step `from` downwards; where there is no way back the saga is stuck.
    pub(super) fn turn_back(&mut self, reason: &str, from: Option<usize>) {
        let here = self.definition.index(&self.saga.step).unwrap_or(0);
        if !self.definition.can_turn_back(here) {
            return self.get_stuck(reason);
        }
        self.saga.reason = Some(reason.to_owned());
        self.undo_from(from);
        if self.saga.status == Status::Compensating {
            self.actions.push(Action::Notify);
        }
    }

    /// Undoes the next step at or below `from` that has an undo; after the last one the saga is compensated.
    pub(super) fn undo_from(&mut self, from: Option<usize>) {
        let below = from.map_or(0, |from| from + 1);
        let next = self.definition.steps[..below].iter().rfind(|step| step.undo.is_some());
        let undone = self.saga.status == Status::Compensating;
        let Some(step) = next else {
            // One that did nothing has nothing to tell.
            if undone {
                self.tell_the_end();
            }
            return self.end(Status::Compensated, undone && self.definition.announces_anything());
        };
        self.stand_at(&step.name, Direction::Undo);
        self.saga.status = Status::Compensating;
        // What is undone does not wait for an operator to go on.
        self.saga.paused = false;
        self.send();
    }

    fn stand_at(&mut self, step: &str, direction: Direction) {
        self.saga.step = step.to_owned();
        self.saga.direction = direction;
        self.saga.attempt = 0;
        self.saga.send = 0;
        self.saga.backing_off = false;
        self.saga.entered_at = self.now;
        self.saga.since = self.now;
        self.saga.stuck_since = None;
    }

    /// Sends the current command for the first time in this visit.
    fn send(&mut self) {
        if self.saga.paused && self.saga.direction == Direction::Do {
            return self.hold_back();
        }
        self.saga.backing_off = false;
        self.saga.since = self.now;
        let answer_by = self.answer_by();
        if self.saga.send == 0 && self.saga.flight.is_some() {
            self.saga.due_at = None;
        // An earlier alarm that has not rung stays: it is moved on when it rings, and most sagas are gone by then.
        } else if !self.saga.due_at.is_some_and(|due| due > self.now && due <= answer_by) {
            self.rest_until(answer_by);
        }
        self.actions.extend(command(self.definition, &self.saga).map(Action::Send));
    }

    /// Sends the current command once more.
    pub(super) fn send_again(&mut self) {
        self.saga.send += 1;
        self.send();
    }

    /// Enters the current step anew: a new visit, so that earlier answers no longer count.
    pub(super) fn visit_again(&mut self) {
        match self.saga.direction {
            Direction::Do => {
                self.saga.reason = None;
                self.saga.status = Status::Running;
            }
            Direction::Undo => self.go_on_undoing(),
        }
        self.saga.visit += 1;
        self.stand_at(&self.saga.step.clone(), self.saga.direction);
        match self.definition.index(&self.saga.step) {
            Some(index) if self.definition.steps[index].wait.is_some() => self.wait(index, true),
            _ => self.send(),
        }
    }

    /// An undo that was stuck goes on, for the reason for which the saga turned back.
    pub(super) fn go_on_undoing(&mut self) {
        if self.saga.status == Status::Stuck {
            let kept = self.saga.rejection.as_ref();
            self.saga.reason = kept.and_then(|why| Some(why["code"].as_str()?.to_owned()));
            self.saga.status = Status::Compensating;
        }
    }

    /// When silence must have ended: the answer is late, or the step's deadline is reached.
    pub(super) fn answer_by(&self) -> DateTime<Utc> {
        let step = self.definition.index(&self.saga.step).map(|index| &self.definition.steps[index]);
        let late = self.saga.since + silence(step.map_or(0, |step| step.timeout_ms), self.saga.send);
        let deadline = step
            .filter(|_| self.saga.direction == Direction::Do)
            .and_then(|step| step_deadline(step, &self.saga));
        deadline.filter(|deadline| *deadline > self.now).map_or(late, |deadline| deadline.min(late))
    }

    /// Sets the alarm. From now on it is this that looks after the saga.
    pub(super) fn rest_until(&mut self, due: DateTime<Utc>) {
        self.saga.due_at = Some(due);
        self.saga.flight = None;
    }

    /// Tries again after a pause; a long pause is an alarm of the broker too.
    pub(super) fn back_off(&mut self, pause: TimeDelta) {
        let step = self.definition.index(&self.saga.step).map(|index| &self.definition.steps[index]);
        let deadline = step
            .filter(|_| self.saga.direction == Direction::Do)
            .and_then(|step| step_deadline(step, &self.saga));
        let paused = self.now + pause;
        let until =
            deadline.filter(|deadline| *deadline > self.now).map_or(paused, |deadline| deadline.min(paused));
        self.saga.backing_off = true;
        self.rest_until(until);
        if pause > LONG_PAUSE {
            self.actions.push(Action::Arm(until));
        }
    }

    /// Asks for all of an ended saga's events again, and looks once more a little later.
    pub(super) fn recall(&mut self) {
        self.rest_until(self.now + LAST_EVENTS);
        self.actions.push(Action::Recall);
    }
}

/// What a rejection says, for the row and for history.
pub(super) fn rejection(step: &str, code: &str, detail: &Value) -> Value {
    json!({ "step": step, "code": code, "detail": detail })
}
