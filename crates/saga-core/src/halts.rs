//! How a saga stops: it ends, is stuck, is given up, or is held back by a pause.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::action::Action;
use super::definition::{ABANDONED, STUCK};
use super::moves::{LAST_EVENTS, Move, rejection, step_deadline};
use super::permits::allowed_acts;
use super::size::cut;
use super::state::{Direction, Status};

impl Move<'_> {
    /// An operator must look: nothing more happens by itself. Why the saga turned back is kept beside the cause, for
    /// the undo that is tried again must still end the business for its own reason.
    pub(super) fn get_stuck(&mut self, cause: &str) {
        let cause = &cut(cause);
        if self.saga.direction == Direction::Undo
            && let Some(turned_back) = self.saga.reason.take()
        {
            self.saga.rejection = Some(rejection(&self.saga.step, &turned_back, &json!({ "stuck": cause })));
        }
        self.saga.status = Status::Stuck;
        self.saga.reason = Some(cause.to_owned());
        self.saga.backing_off = false;
        self.saga.paused = false;
        self.saga.stuck_since = Some(self.now);
        self.emits.push(STUCK.to_owned());
        self.saga.due_at = self.last_look();
        self.actions.push(Action::Notify);
    }

    /// An operator gives the saga up as it is.
    pub(super) fn give_up(&mut self, reason: &str) {
        self.saga.reason = Some(reason.to_owned());
        self.emits.push(ABANDONED.to_owned());
        self.end(Status::Abandoned, true);
    }

    /// What a compensated saga tells the world.
    pub(super) fn tell_the_end(&mut self) {
        let ends = &self.definition.ends;
        let reason = self.saga.reason.as_deref().unwrap_or_default();
        self.emits.extend(ends.get(reason).or_else(|| ends.get("otherwise")).cloned());
    }

    /// Comes to an end. One that has told something rests only once JetStream has all of it.
    pub(super) fn end(&mut self, status: Status, told: bool) {
        self.saga.status = status;
        self.saga.backing_off = false;
        self.saga.paused = false;
        self.saga.stuck_since = None;
        self.saga.finished_at = Some(self.now);
        self.saga.due_at = self.last_look().filter(|_| told);
        self.actions.push(Action::Notify);
    }

    /// When the last events are looked after; its batch does that if there is one.
    fn last_look(&self) -> Option<DateTime<Utc>> {
        self.saga.flight.is_none().then(|| self.now + LAST_EVENTS)
    }

    /// Stops going forward: what is out may still be answered, and the step's deadline stays.
    pub(super) fn pause(&mut self) {
        self.saga.paused = true;
        if self.saga.status == Status::Running {
            self.hold_back();
        }
    }

    /// Goes on after a pause.
    pub(super) fn resume(&mut self) {
        self.saga.paused = false;
        if self.saga.status == Status::Running {
            self.send_again();
        }
    }

    /// A paused saga sends nothing; only the step's deadline rings.
    pub(super) fn hold_back(&mut self) {
        let step = self.definition.index(&self.saga.step).map(|index| &self.definition.steps[index]);
        self.saga.backing_off = true;
        self.saga.flight = None;
        self.saga.due_at = step.and_then(|step| step_deadline(step, &self.saga)).filter(|at| *at > self.now);
    }

    /// Why the saga is stuck and what can be done about it, beside what happened: the event about it is made from here.
    pub(super) fn explain(&self, detail: Option<Value>) -> Value {
        let acts = allowed_acts(Some(self.definition), &self.saga);
        let mut told = json!({ "stuck": self.saga.reason, "acts": acts });
        if let (Value::Object(told), Some(Value::Object(detail))) = (&mut told, detail) {
            told.extend(detail);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use uuid::Uuid;

    use crate::{Act, Decision, Definition, Event, NewSaga, Saga, Status, apply, lost_definition, start};

    fn moved(decision: Decision) -> Saga {
        match decision {
            Decision::Transition(transition) => transition.saga,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wait_whose_definition_was_gone_for_a_while_is_a_wait_again() {
        let text =
            "name='t'\nversion=1\n[[steps]]\nname='ask'\nwait='go'\n[[steps]]\nname='act'\ncommand='x.y'";
        let definition = Definition::parse("t", text).unwrap();
        let (id, now) = (Uuid::from_u128(7), chrono::DateTime::UNIX_EPOCH);
        let new = NewSaga { id, subject_id: id, input: Map::new(), trace: None, seq: 0 };
        let waiting = start(&definition, new, now).saga;
        let go = Event::Signal("go".to_owned());
        let stuck = moved(lost_definition(&waiting, &go, now));
        assert_eq!(stuck.status, Status::Stuck);
        let again = moved(apply(&definition, &stuck, &Event::Operator(Act::Retry), now));
        assert_eq!((again.status, again.step.as_str(), again.visit), (Status::Waiting, "ask", 2));
        let on = moved(apply(&definition, &again, &go, now));
        assert_eq!((on.status, on.step.as_str()), (Status::Running, "act"));
    }
}
