//! Builds a transition: enter a step, send its command, retry, compensate, end. [`super::apply()`] chooses among them.

mod backward;
mod parallel;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::action::{Action, Entry, Transition};
use super::command::{deadline_from, of_row, step_deadline};
use super::definition::{ABANDONED, Definition, STUCK, Step, Work};
use super::delay::reply_timeout;
use super::group::{is_rejected, running_group};
use super::members::MemberState;
use super::operator::allowed_actions;
use super::size::truncate_reason;
use super::state::{Direction, Saga, Status, rejection};

/// A wait without a deadline is due once a day, because every open saga must have a due time.
pub(super) const NO_DEADLINE_RECHECK: TimeDelta = TimeDelta::days(1);
/// The last events of an ended saga are published again if they are not acknowledged within this time.
const EVENT_ACK_TIMEOUT: TimeDelta = TimeDelta::seconds(3);
/// Longer retry delays get a timer of the broker; the sweeper alone handles shorter ones.
const BROKER_TIMER_MIN_DELAY: TimeDelta = TimeDelta::seconds(10);

/// The saga as it will be, with the actions and events collected so far.
pub(super) struct TransitionBuilder<'a> {
    pub(super) definition: &'a Definition,
    pub(super) saga: Saga,
    pub(super) now: DateTime<Utc>,
    worker: Option<String>,
    actions: Vec<Action>,
    emits: Vec<String>,
}

/// The steps whose effects may exist, oldest first: what stays behind when an operator abandons the saga.
pub fn may_have_run(definition: &Definition, saga: &Saga) -> Vec<String> {
    let here = definition.index(&saga.step).map_or(0, |index| index + 1);
    let end = running_group(definition, saga).map_or(here, |group| group.end);
    let undone = |step: &Step| saga.direction == Direction::Do || step.undo.is_some();
    let steps = definition.steps[..end].iter().enumerate();
    let steps = steps.filter(|(index, step)| {
        step.command.is_some() && undone(step) && !is_rejected(definition, saga, *index)
    });
    steps.map(|(_, step)| step.name.clone()).collect()
}

/// Whether the saga skips this wait when it first reaches it.
fn is_skipped(step: &Step, saga: &Saga) -> bool {
    let field = step.skip_if.as_ref().and_then(|field| saga.context.get(field));
    field.and_then(Value::as_bool).unwrap_or(false)
}

/// The fields of a step's output that later commands carry: all but those that are published as events.
pub fn carried_outputs(step: &Step, output: &Map<String, Value>) -> impl Iterator<Item = (String, Value)> {
    let carried = output.iter().filter(|(field, _)| !step.announces.contains_key(*field));
    carried.map(|(field, value)| (field.clone(), value.clone()))
}

/// Beginning and end of a transition.
impl<'a> TransitionBuilder<'a> {
    pub(super) fn new(definition: &'a Definition, saga: &Saga, now: DateTime<Utc>) -> Self {
        let mut saga = saga.clone();
        saga.updated_at = now;
        // The flight no longer covers a saga that has ended or is stuck.
        if saga.status.is_quiescent() {
            saga.flight = None;
        }
        Self { definition, saga, now, worker: None, actions: Vec::new(), emits: Vec::new() }
    }

    pub(super) fn with_worker(mut self, worker: Option<&str>) -> Self {
        self.worker = worker.map(str::to_owned);
        self
    }

    /// Finishes with a history row about `event`, which happened to the saga `before`.
    pub(super) fn record(mut self, before: &Saga, event: &str, mut detail: Option<Value>) -> Transition {
        self.put_earliest_into_row();
        self.saga.seq += 1;
        if self.saga.status == Status::Stuck {
            detail = Some(self.stuck_detail(detail));
        }
        let entry = Entry {
            event: event.to_owned(),
            step: before.step.clone(),
            direction: before.direction,
            visit: before.visit,
            attempt: before.attempt,
            detail,
            worker: self.worker,
            emits: self.emits,
        };
        Transition { saga: self.saga, entry: Some(entry), actions: self.actions }
    }

    /// Finishes without a history row: only retry counters or due times changed.
    pub(super) fn without_record(mut self) -> Transition {
        self.put_earliest_into_row();
        Transition { saga: self.saga, entry: None, actions: self.actions }
    }

    /// The detail of a history row that makes the saga stuck: the `saga.stuck` event is built from it.
    fn stuck_detail(&self, detail: Option<Value>) -> Value {
        let allowed = allowed_actions(Some(self.definition), &self.saga);
        let mut all = json!({ "stuck": self.saga.reason, "acts": allowed });
        if let (Value::Object(all), Some(Value::Object(detail))) = (&mut all, detail) {
            all.extend(detail);
        }
        all
    }

    /// Emits the events of a finished step, and the parts of its output that are events.
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

    /// Emits the event with which a compensated saga ends.
    fn announce_end(&mut self) {
        let ends = &self.definition.ends;
        let reason = self.saga.reason.as_deref().unwrap_or_default();
        self.emits.extend(ends.get(reason).or_else(|| ends.get("otherwise")).cloned());
    }

    /// Adds a step's output to the context of later commands.
    pub(super) fn merge_output(&mut self, index: usize, output: &Map<String, Value>) {
        if let Value::Object(context) = Arc::make_mut(&mut self.saga.context) {
            context.extend(carried_outputs(&self.definition.steps[index], output));
        }
    }
}

/// Forward.
impl TransitionBuilder<'_> {
    /// Enters the step after this one, or after its group once all members are done; completes the saga after the last step.
    pub(super) fn advance(&mut self, index: usize) {
        let group = running_group(self.definition, &self.saga);
        if let Some(group) = &group {
            if self.saga.close_member(self.definition, group, index, MemberState::Done) {
                return;
            }
            self.saga.members.clear();
        }
        let index = group.map_or(index, |group| group.end - 1);
        if index + 1 < self.definition.steps.len() {
            self.enter(index + 1);
        } else {
            self.end(Status::Completed, self.definition.announces_anything());
        }
    }

    /// Enters a step for the first time, and with the first member of a group the others.
    pub(super) fn enter(&mut self, index: usize) {
        let step = &self.definition.steps[index];
        self.set_step(&step.name, Direction::Do);
        match step.work() {
            Work::Command { .. } => {
                self.saga.status = Status::Running;
                if let Some(group) = self.definition.group(index) {
                    self.saga.begin_members(&group);
                }
                self.each_open(Self::send);
            }
            Work::Wait { .. } if is_skipped(step, &self.saga) => self.advance(index),
            Work::Wait { .. } => self.wait(index, true),
        }
    }

    /// Returns to the wait that a rejection leads to. Its timer is set already, unless the wait was skipped or has a
    /// deadline in seconds, which starts again with the new visit.
    pub(super) fn return_to_wait(&mut self, index: usize) {
        let step = &self.definition.steps[index];
        self.set_step(&step.name, Direction::Do);
        self.saga.visit += 1;
        let is_relative = step.deadline.as_ref().is_some_and(|deadline| deadline.at.is_none());
        self.wait(index, is_relative || is_skipped(step, &self.saga));
    }

    fn wait(&mut self, index: usize, set_timer: bool) {
        self.saga.status = Status::Waiting;
        let step = &self.definition.steps[index];
        let Some(deadline) = deadline_from(step, &self.saga, self.now) else {
            self.set_due(self.now + NO_DEADLINE_RECHECK);
            return self.actions.push(Action::Notify);
        };
        if self.now >= deadline {
            return self.miss_deadline(index);
        }
        self.set_due(deadline);
        if set_timer {
            self.actions.push(Action::SetTimer(deadline));
        }
        self.actions.push(Action::Notify);
    }

    fn set_step(&mut self, step: &str, direction: Direction) {
        self.saga.step = step.to_owned();
        self.saga.direction = direction;
        self.saga.attempt = 0;
        self.saga.send = 0;
        self.saga.backing_off = false;
        self.saga.entered_at = self.now;
        self.saga.since = self.now;
        self.saga.stuck_since = None;
    }

    /// Sends the current command.
    fn send(&mut self) {
        if self.saga.paused && self.saga.direction == Direction::Do {
            return self.suspend();
        }
        self.saga.backing_off = false;
        self.saga.since = self.now;
        let resend_at = self.resend_at();
        if self.saga.send == 0 && self.saga.flight.is_some() {
            self.saga.due_at = None;
        // An earlier due time stays, which saves an index update: most sagas have left the step by then.
        } else if !self.saga.due_at.is_some_and(|due| due > self.now && due <= resend_at) {
            self.set_due(resend_at);
        }
        self.actions.extend(of_row(self.definition, &self.saga).map(Action::Send));
    }

    /// Sends the current command again in the same visit.
    pub(super) fn resend(&mut self) {
        self.saga.send += 1;
        self.send();
    }

    /// Starts a new visit of the current step. Replies to earlier visits are then stale.
    pub(super) fn start_new_visit(&mut self) {
        match self.saga.direction {
            Direction::Do => {
                self.saga.reason = None;
                self.saga.status = Status::Running;
            }
            Direction::Undo => self.resume_compensation(),
        }
        self.saga.visit += 1;
        self.set_step(&self.saga.step.clone(), self.saga.direction);
        match self.definition.index(&self.saga.step) {
            Some(index) if self.definition.steps[index].wait.is_some() => self.wait(index, true),
            _ => {
                self.saga.begin_open_members(self.definition);
                self.each_open(Self::send);
            }
        }
    }
}

/// Due times and pauses.
impl TransitionBuilder<'_> {
    /// When the current command is sent again without a reply: after the reply timeout, or at the step's deadline.
    pub(super) fn resend_at(&self) -> DateTime<Utc> {
        let timeout_ms = self.step().map_or(0, |step| step.timeout_ms);
        self.at_latest_at_deadline(self.saga.since + reply_timeout(timeout_ms, self.saga.send))
    }

    /// Schedules a retry. A long delay also gets a timer of the broker.
    pub(super) fn back_off(&mut self, delay: TimeDelta) {
        let retry_at = self.at_latest_at_deadline(self.now + delay);
        self.saga.backing_off = true;
        self.set_due(retry_at);
        if delay > BROKER_TIMER_MIN_DELAY {
            self.actions.push(Action::SetTimer(retry_at));
        }
    }

    fn at_latest_at_deadline(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        let forward = self.step().filter(|_| self.saga.direction == Direction::Do);
        forward.map_or(time, |step| self.at_latest_at_deadline_of(step, time))
    }

    fn at_latest_at_deadline_of(&self, step: &Step, time: DateTime<Utc>) -> DateTime<Utc> {
        let deadline = step_deadline(step, &self.saga);
        deadline.filter(|deadline| *deadline > self.now).map_or(time, |deadline| deadline.min(time))
    }

    fn step(&self) -> Option<&Step> {
        self.definition.index(&self.saga.step).map(|index| &self.definition.steps[index])
    }

    /// Sets the due time. From then on the sweeper finds the saga by it, and not by its flight.
    pub(super) fn set_due(&mut self, due: DateTime<Utc>) {
        self.saga.due_at = Some(due);
        self.saga.flight = None;
    }

    /// Stops forward steps. A reply to a command that was sent still counts, and the step's deadline stays.
    pub(super) fn pause(&mut self) {
        self.saga.paused = true;
        if self.saga.status == Status::Running {
            self.each_open(Self::suspend);
        }
    }

    pub(super) fn resume(&mut self) {
        self.saga.paused = false;
        if self.saga.status == Status::Running {
            self.resend_all();
        }
    }

    /// Sends nothing while the saga is paused. The saga is due only at the step's deadline.
    pub(super) fn suspend(&mut self) {
        let deadline = self.step().and_then(|step| step_deadline(step, &self.saga));
        self.saga.backing_off = true;
        self.saga.flight = None;
        self.saga.due_at = deadline.filter(|at| *at > self.now);
    }
}

/// Ends.
impl TransitionBuilder<'_> {
    /// Stops the saga until an operator acts. If an undo is stuck, the reason of the compensation is kept in `rejection`,
    /// because a retried undo must still end the saga for that reason.
    pub(super) fn become_stuck(&mut self, cause: &str) {
        let cause = &truncate_reason(cause);
        if self.saga.direction == Direction::Undo
            && let Some(reason) = self.saga.reason.take()
        {
            self.saga.rejection = Some(rejection(&self.saga.step, &reason, &json!({ "stuck": cause })));
        }
        self.saga.status = Status::Stuck;
        self.saga.reason = Some(cause.to_owned());
        self.saga.backing_off = false;
        self.saga.paused = false;
        self.saga.stuck_since = Some(self.now);
        self.emits.push(STUCK.to_owned());
        self.saga.due_at = self.event_check_at();
        self.actions.push(Action::Notify);
    }

    /// Ends the saga as it is, at an operator's request.
    pub(super) fn abandon(&mut self, reason: &str) {
        self.saga.reason = Some(reason.to_owned());
        self.emits.push(ABANDONED.to_owned());
        self.end(Status::Abandoned, true);
    }

    /// Ends the saga. If it has emitted events, it stays due until JetStream has acknowledged them.
    fn end(&mut self, status: Status, has_events: bool) {
        self.saga.status = status;
        self.saga.members.clear();
        self.saga.backing_off = false;
        self.saga.paused = false;
        self.saga.stuck_since = None;
        self.saga.finished_at = Some(self.now);
        self.saga.due_at = self.event_check_at().filter(|_| has_events);
        self.actions.push(Action::Notify);
    }

    /// When unacknowledged events are published again. A saga with a flight needs no due time: the flight has one.
    fn event_check_at(&self) -> Option<DateTime<Utc>> {
        self.saga.flight.is_none().then(|| self.now + EVENT_ACK_TIMEOUT)
    }

    /// Publishes all events of an ended saga again, and checks once more later.
    pub(super) fn republish_events(&mut self) {
        self.set_due(self.now + EVENT_ACK_TIMEOUT);
        self.actions.push(Action::RepublishEvents);
    }
}
